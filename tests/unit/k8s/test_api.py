"""The door when the server or the way to it fails."""

import subprocess
import sys

import pytest

from k8s.api import Api
from k8s.backoff import Backoff
from k8s.door import from_kubeconfig, in_cluster
from k8s.errors import AlreadyThere, Busy, KubernetesError, NotAllowed, Unanswered, refusal
from k8s.resource import NODES, PODS
from scheduler.model.errors import ExecutorError
from tests.contract.kube.objects import pod
from tests.fakes.kube.faults import Fault, Loss

NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}


@pytest.mark.parametrize("status", [429, 500, 503, 504])
def test_not_now_is_tried_again_and_no_more_often_than_agreed(api, double, status):
    double.put(NODE)
    double.faults.add(Fault(status=status), times=api.backoff.tries - 1)
    assert api.get(NODES, "n1")["metadata"]["name"] == "n1"
    double.faults.add(Fault(status=status), times=99)
    del double.seen[:]
    with pytest.raises(Busy) as refused:
        api.get(NODES, "n1")
    assert refused.value.status == status
    assert len(double.seen) == api.backoff.tries


def test_the_server_says_how_long_to_wait_and_the_jitter_is_drawn(double, config):
    asked = []

    class Waits(Backoff):
        def wait_s(self, *told):
            asked.append(told)
            return 0.0

    draws = iter((0.1, 0.2, 0.3))
    api = Api(from_kubeconfig(config()), backoff=Waits(), draw=lambda: next(draws))
    double.put(NODE)
    double.faults.add(Fault(status=429, retry_after_s=7))
    double.faults.add(Fault(loss=Loss.REQUEST))
    api.get(NODES, "n1")
    assert asked == [(1, 0.1, 7.0), (2, 0.2, 0.0)]
    api.close()


@pytest.mark.parametrize("loss", [Loss.REQUEST, Loss.ANSWER])
def test_an_apply_whose_answer_is_lost_is_repeated_without_harm(api, double, loss):
    double.faults.add(Fault(verbs=("patch",), loss=loss))
    made = api.apply(PODS, pod("one"), "default")
    assert [p["metadata"]["uid"] for p in double.objects("pods")] == [made["metadata"]["uid"]]


def test_a_creation_whose_answer_was_lost_meets_itself_and_makes_no_second(api, double):
    double.faults.add(Fault(verbs=("create",), loss=Loss.ANSWER))
    with pytest.raises(AlreadyThere):
        api.create(PODS, pod("one"), "default")
    assert len(double.objects("pods")) == 1


def test_a_server_that_says_nothing_is_given_up(double, config):
    api = Api(from_kubeconfig(config()), backoff=Backoff(tries=2, first_s=0.001), answer_s=0.05)
    double.faults.add(Fault(delay_s=0.3), times=2)
    with pytest.raises(Unanswered):
        api.get(NODES, "n1")
    api.close()


def test_expired_credentials_are_read_anew_once(api, double, config):
    double.put(NODE)
    double.tokens = {"fresh"}
    with pytest.raises(NotAllowed) as refused:
        api.get(NODES, "n1")
    assert (refused.value.status, len(double.seen)) == (401, 2)
    config("fresh")
    assert api.get(NODES, "n1")
    double.tokens = {"fresher"}
    config("fresher")
    assert api.get(NODES, "n1")
    assert [s.status for s in double.seen] == [401, 401, 401, 200, 401, 200]


def test_a_closed_door_opens_for_nobody(api):
    api.close()
    with pytest.raises(Unanswered, match="closed"):
        api.get(NODES, "n1")


def test_without_configuration_the_error_says_what_was_looked_for(tmp_path, monkeypatch):
    with pytest.raises(NotAllowed, match="nowhere"):
        Api(from_kubeconfig(str(tmp_path / "nowhere"))).get(NODES, "n1")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(NotAllowed, match="not in a pod"):
        Api(in_cluster()).get(NODES, "n1")


def test_every_refusal_is_in_the_houses_tree():
    for status in (0, 302, 400, 401, 403, 404, 405, 409, 410, 413, 415, 418, 422, 429, 500, 502, 504):
        assert isinstance(refusal(status, b"<html>proxy</html>"), ExecutorError)
    assert "proxy" in str(refusal(502, b"<html>proxy</html>"))
    assert refusal(418, b"[]").__class__ is KubernetesError
    assert refusal(429, b"{}", "Thu, 26 Nov 2026 00:00:00 GMT").retry_after_s == 0


@pytest.mark.parametrize("seed", range(6))
def test_in_a_storm_every_write_is_done_once_or_known_to_be_undone(api, double, seed):
    """429, 500, time-outs, lost answers, at random: names derived from their purpose leave no duplicate."""
    kinds = (Fault(status=429), Fault(status=500), Fault(loss=Loss.REQUEST), Fault(loss=Loss.ANSWER, weight=3))
    double.faults.storm(seed, 0.4, kinds)
    wanted, tried = set(), 0
    for number in range(40):
        name = f"a{number % 7}"
        undo = number % 3 == 2
        for _ in range(20):
            tried += 1
            try:
                if undo:
                    api.delete(PODS, name, "default")
                else:
                    api.apply(PODS, pod(name, labels={"round": str(number)}), "default")
            except (Busy, Unanswered):
                continue
            break
        else:
            raise AssertionError("20 times five tries were not enough")
        (wanted.discard if undo else wanted.add)(name)
    assert double.faults.met > 10
    assert len(double.seen) <= tried * api.backoff.tries
    assert {p["metadata"]["name"] for p in double.objects("pods")} == wanted


FIRST = """
import sys, threading
sys.setswitchinterval(1e-6)
from k8s.door import Door, Request, from_kubeconfig
door, failed, gate = Door(from_kubeconfig({config!r})), [], threading.Barrier(8)
def ask():
    gate.wait()
    try:
        door.send(Request(method="GET", path="/version"))
    except BaseException as error:
        failed.append(repr(error))
threads = [threading.Thread(target=ask) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(failed)
"""


def test_threads_that_ask_first_and_together_all_get_an_answer(config):
    """The client's modules import each other in a circle: half of one was met by whoever came second."""
    program = FIRST.format(config=config())
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=100)
    assert "ImportError" not in done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
