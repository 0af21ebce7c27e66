"""Nodes live and die in an API server; the whole service follows: the right jobs move, the others notice nothing, and
every card's time is in a bucket.
"""

import time

import pytest
import yaml

from k8s.api import Api
from k8s.backoff import Backoff
from k8s.door import from_kubeconfig
from k8s.inventory import Inventory
from scheduler.control.replay import Replayed, first_difference
from scheduler.model.node import Lane
from scheduler.model.usage import Bucket
from tests.fakes.kube.server import FakeKubernetes
from tests.kube_server import kubeconfig
from tests.unit.api.conftest import Installation
from tests.unit.k8s.raw import node, pod

JOB = """
apiVersion: shisuan/v1
kind: CommandJob
name: {name}
resources: {{cpus: 8, memory: 8GiB, accelerators: "H100:{cards}"}}
run: [/bin/true]
"""


class Park:
    """A service whose nodes are those of a double."""

    def __init__(self, folder):
        self.double = FakeKubernetes()
        (folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig(self.double.url)), encoding="utf-8")
        self.service = Installation(folder, nodes=())
        self.workers = self.service.workers
        api = Api(from_kubeconfig(str(folder / "kubeconfig")), backoff=Backoff(first_s=0.01))
        self.inventory = Inventory(api, self._tell, now_ms=self.service.clock.now_ms, lane=Lane.ANY)

    def _tell(self, reports):
        self.workers.mail.extend(reports)
        self.workers.wake()

    def close(self):
        self.inventory.close()
        self.service.close()
        self.double.close()

    def put(self, raw, *shown):
        """Change an object; return when the node shows it."""
        self.double.put(raw)
        self.until(*shown)

    def until(self, name, state, free):
        until = time.monotonic() + 30
        while (now := self.shown(name)) != (state, free):
            assert time.monotonic() < until, now
            time.sleep(0.005)
            self.service.settle()

    def shown(self, name):
        """State of a node, and how many of its cards could be leased now."""
        found = [n for n in self.service.get("/nodes").json()["nodes"] if n["name"] == name]
        there = [d for n in found if n["state"] != "lost" for d in n["devices"]]
        free = [d for d in there if d["health"] == "ok" and not d["lease_id"]]
        return (found[0]["state"], len(free)) if found else None

    def submit(self, name, cards):
        job = self.service.submit(JOB.format(name=name, cards=cards)).json()
        self.pass_time(0)
        return job["id"]

    def pass_time(self, ms):
        """What was ordered begins; so much time goes by, with signs of life of what runs."""
        self.service.settle()
        for attempt in [a for a in self.workers.ran if a not in self.workers.over]:
            self.workers.over.add(attempt)
            self.workers.begin(attempt)
        self.service.settle()
        self.service.clock.now += ms

    def attempts(self, job):
        """Where and how its attempts were or are."""
        found = self.service.get(f"/jobs/{job}/attempts").json()["attempts"]
        return [(a["node"], a["state"]) for a in found]

    def buckets(self):
        """Card-milliseconds by bucket; they miss nothing."""
        assert first_difference(self.service.store) == ""
        rows = Replayed().read(self.service.store).buckets()
        total = dict.fromkeys(Bucket, 0)
        for row in rows.values():
            for bucket, amount in row.items():
                total[bucket] += amount
        return total


@pytest.fixture
def park(tmp_path):
    park = Park(tmp_path)
    park.double.put(node("a"))
    park.double.put(node("b"))
    park.inventory.start()
    park.until("a", "ready", 8)
    park.until("b", "ready", 8)
    yield park
    park.close()


def test_a_node_that_dies_moves_its_job_and_no_other(park):
    moved, stays = park.submit("one", 8), park.submit("two", 8)
    assert park.attempts(moved) == [("a", "running")]
    park.pass_time(60_000)
    park.put(node("a", ready="Unknown"), "a", "lost", 0)
    assert park.attempts(moved) == [("a", "lost")]
    assert park.attempts(stays) == [("b", "running")]
    park.put(node("a", cards=4), "a", "ready", 4)
    assert len(park.attempts(moved)) == 1
    park.put(node("a"), "a", "ready", 0)
    park.pass_time(60_000)
    assert park.attempts(moved) == [("a", "lost"), ("a", "running")]
    assert park.attempts(stays) == [("b", "running")]
    assert park.buckets()[Bucket.UNKNOWN] >= 0


def test_a_cordon_of_kubernetes_keeps_what_runs_and_its_end_lets_new_work_in(park):
    running = park.submit("one", 4)
    park.put(node("a", unschedulable=True), "a", "unready", 4)
    park.put(node("b", unschedulable=True), "b", "unready", 8)
    waits = park.submit("two", 4)
    assert park.attempts(running) == [("a", "running")]
    assert park.attempts(waits) == []
    park.put(node("b"), "b", "ready", 4)
    park.pass_time(0)
    assert park.attempts(waits) == [("b", "running")]
    assert park.attempts(running) == [("a", "running")]


def test_a_lost_card_is_one_nobody_uses_and_a_stranger_takes_only_free_ones(park):
    park.double.remove("nodes", "b")
    park.until("b", "lost", 0)
    running = park.submit("one", 4)
    held = {d["id"] for n in park.service.get("/nodes").json()["nodes"] for d in n["devices"] if d["lease_id"]}
    park.put(pod("ours", on="a", cards=4, devices=sorted(held)), "a", "ready", 4)
    park.put(node("a", usable=7), "a", "ready", 3)
    park.put(pod("theirs", on="a", cards=2), "a", "ready", 1)
    waits = park.submit("two", 2)
    park.pass_time(1_000)
    assert park.attempts(running) == [("a", "running")]
    assert park.attempts(waits) == []
    (there, _) = park.service.get("/nodes").json()["nodes"]
    assert [d["health_reason"] for d in there["devices"]].count("held by default/theirs") == 2
    park.double.remove("pods", "theirs", "default")
    park.until("a", "ready", 1)
    park.pass_time(1_000)
    assert park.attempts(waits) == [("a", "running")]
    assert park.attempts(running) == [("a", "running")]
    spent = park.buckets()
    assert spent[Bucket.EXTERNAL] == 2 * 1_000 * 1_000
    assert spent[Bucket.QUARANTINED] == 1_000 * 1_000
