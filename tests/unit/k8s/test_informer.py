"""Whatever happens to its connection, an informer's listener knows in the end what there is."""

import threading
import time

import pytest

from k8s.informer import Informer, key_of
from k8s.resource import NODES, PODS
from tests.fakes.kube.faults import Fault, Loss


def node(name, **labels):
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


class Ear:
    """Keeps what it is told."""

    def __init__(self):
        self.known, self.told, self.lists = {}, [], 0
        self._changed = threading.Condition()

    def put(self, obj):
        self._tell(("put", key_of(obj)), lambda: self.known.update({key_of(obj): obj}))

    def drop(self, key):
        self._tell(("drop", key), lambda: self.known.pop(key))

    def listed(self):
        self._tell(None, lambda: None)
        self.lists += 1

    def _tell(self, what, change):
        with self._changed:
            change()
            self.told += [what] if what else []
            self._changed.notify_all()

    def until(self, holds):
        with self._changed:
            assert self._changed.wait_for(lambda: holds(self), 30), self.told[-5:]


@pytest.fixture
def ear():
    return Ear()


@pytest.fixture
def informer(api, ear):
    informer = Informer(api, NODES, ear, lasts_s=20)
    yield informer
    informer.close()
    assert not informer.is_alive


def labels(ear, name):
    return ear.known.get(name, {}).get("metadata", {}).get("labels")


def test_it_tells_what_is_there_and_what_happens(double, ear, informer):
    double.put(node("n1"))
    informer.start()
    ear.until(lambda e: "n1" in e.known)
    double.put(node("n2"))
    double.put(node("n1", a="1"))
    double.remove("nodes", "n2")
    ear.until(lambda e: e.told[-1] == ("drop", "n2"))
    assert ear.told == [("put", "n1"), ("put", "n2"), ("put", "n1"), ("drop", "n2")]
    assert (informer.lists, informer.problem) == (1, "")


def test_a_broken_watch_goes_on_where_it_was(double, ear, informer):
    informer.start()
    double.put(node("n1"))
    ear.until(lambda e: "n1" in e.known)
    double.faults.add(Fault(verbs=("watch",), cut_after=1), times=3)
    double.cut_watches()
    for number in range(2, 8):
        double.put(node(f"n{number}"))
        time.sleep(0.01)
    ear.until(lambda e: len(e.known) == 7)
    assert informer.lists == 1
    assert ear.told == [("put", f"n{number}") for number in range(1, 8)]


def test_after_forgotten_history_it_tells_only_what_has_changed(double, ear, informer):
    for number in range(4):
        double.put(node(f"n{number}"))
    informer.start()
    ear.until(lambda e: len(e.known) == 4)
    double.faults.add(Fault(verbs=("watch",), status=503), times=2)
    double.cut_watches()
    double.put(node("n1", new="yes"))
    double.remove("nodes", "n2")
    double.compact()
    ear.until(lambda e: labels(e, "n1") == {"new": "yes"} and "n2" not in e.known)
    assert informer.lists >= 2
    assert sorted(ear.told[4:]) == [("drop", "n2"), ("put", "n1")]


def test_a_list_that_outlives_the_history_is_read_at_once(double, ear, api):
    for number in range(5):
        double.put(node(f"n{number}"))
    pages = api.pages

    def compacting(*where, limit, **more):
        for page in pages(*where, limit=limit and 2, **more):
            yield page
            double.compact()

    api.pages = compacting
    informer = Informer(api, NODES, ear)
    informer.start()
    ear.until(lambda e: e.lists > 0)
    assert len(ear.known) == 5
    informer.close()


def test_a_watch_that_ends_at_once_is_not_asked_for_in_a_loop(double, ear, api):
    now = iter(range(10_000))
    informer = Informer(api, NODES, ear, lasts_s=0, monotonic=lambda: next(now) / 1e6)
    informer.start()
    ear.until(lambda e: e.lists > 0)
    while informer.watches < 4:
        time.sleep(0.001)
    assert "as soon as it had begun" in informer.problem or informer.watches
    informer.close()
    assert informer.lists == 1


def test_a_server_restored_from_a_backup_is_read_anew(double, ear, informer):
    double.put(node("n1"))
    double.put(node("n2"))
    informer.start()
    ear.until(lambda e: len(e.known) == 2)
    with double.storage.lock:
        double.remove("nodes", "n2")
        double.put(node("n1", old="yes"))
        double.storage.table(("", "nodes")).log.clear()
        double.storage.version -= 100  # what was known is in its future
        double.put(node("n1", old="yes"))
        double.cut_watches()
        double.faults.add(Fault(verbs=("watch",), status=504), times=5)
    ear.until(lambda e: labels(e, "n1") == {"old": "yes"} and "n2" not in e.known)


def test_only_what_is_selected_is_told(double, ear, api):
    informer = Informer(api, PODS, ear, namespace="default", labels="mine")
    for name, pod_labels in (("a", {"mine": "1"}), ("b", {})):
        double.put({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": pod_labels}})
    informer.start()
    ear.until(lambda e: e.lists > 0)
    assert list(ear.known) == ["default/a"]
    informer.close()


@pytest.mark.parametrize("seed", range(6))
def test_in_a_storm_it_ends_up_with_what_there_is(double, ear, api, seed):
    """429, 500, time-outs, lost answers, watches cut in a line, forgotten history: at random, by seed."""
    kinds = (
        Fault(status=429, retry_after_s=0),
        Fault(status=500),
        Fault(loss=Loss.REQUEST),
        Fault(loss=Loss.ANSWER),
        Fault(verbs=("watch",), cut_after=2, weight=4),
    )
    double.faults.storm(seed, 0.4, kinds)
    informer = Informer(api, NODES, ear, lasts_s=20)
    informer.start()
    for step in range(120):
        name = f"n{(step * 7 + seed) % 11}"
        if step % 5 == seed % 5 and double.get("nodes", name):
            double.remove("nodes", name)
        else:
            double.put(node(name, step=str(step)))
        if step % 40 == 20:
            double.compact()
        if step % 15 == 7:
            double.cut_watches()
        time.sleep(0.001)
    met = double.faults.met
    double.faults.calm()
    double.put(node("last"))
    ear.until(lambda e: "last" in e.known)
    want = {n["metadata"]["name"]: n["metadata"]["resourceVersion"] for n in double.objects("nodes")}
    ear.until(lambda e: {k: o["metadata"]["resourceVersion"] for k, o in e.known.items()} == want)
    assert met > 0
    informer.close()
