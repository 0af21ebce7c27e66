"""A leader sleeps between its look at the epoch and a write, of each kind; another takes over; the first wakes up."""

import threading
from dataclasses import replace

import pytest

from k8s.actions import (
    Adopt,
    Assign,
    DeleteCluster,
    DeleteJob,
    MakeCluster,
    MakeJob,
    Relabel,
    Release,
    SetGroups,
    Unsuspend,
)
from k8s.errors import KubernetesError, Stale
from k8s.names import EPOCH, LANE, LEASE
from scheduler.model.lease import AttemptState
from scheduler.model.node import Lane
from scheduler.model.order import ReportKind
from tests.farm import lease
from tests.kube_executor import SITE
from tests.unit.k8s.paper import clusters, numbers, objects, slots, train, until

pytestmark = pytest.mark.timeout(120)
AT_ONCE = replace(SITE, warm_ms=1, cluster_idle_ms=1)
"""Idle things go at once."""


class Forgetful(set):
    """So that every write looks after Secret and NetworkPolicy again."""

    def add(self, _):
        pass


class Sleeper:
    """A service that falls asleep before its next write of a kind."""

    def __init__(self, farm, kind, site=SITE):
        farm.site = site
        self.reader = farm.reader()
        self._writer, self._write = self.reader.executor._writer, self.reader.executor._writer.carry_out
        self._kind, self._asleep, self._awake, self._over = kind, *(threading.Event() for _ in range(3))
        self._answer = None
        self._writer.carry_out = self._carry_out
        farm.site = SITE
        self.reader.kind(ReportKind.RUNTIME_UP)

    def start(self, *orders):
        self.reader.executor.start(list(orders))
        return self

    def _carry_out(self, action, entry):
        if not isinstance(action, self._kind) or self._asleep.is_set():
            return self._write(action, entry)
        self._asleep.set()
        self._awake.wait(60)
        try:
            self._answer = self._write(action, entry)
        except KubernetesError as error:
            self._answer = error
            raise
        finally:
            self._over.set()
        return self._answer

    def sleep(self):
        assert self._asleep.wait(30), f"no {self._kind.__name__} came"

    def wake(self):
        """What its write was answered."""
        self._awake.set()
        assert self._over.wait(30)
        return self._answer


def successor(farm):
    made = farm.reader()
    made.kind(ReportKind.RUNTIME_UP)
    return made


def taken_over(farm, plural):
    """The successor has written its epoch on all of these."""
    epoch = str(farm.epoch)
    until(lambda: {o["metadata"]["annotations"].get(EPOCH) for o in farm.park.double.objects(plural)} <= {epoch})


def test_a_job_that_is_made_late_is_removed_and_never_ran(farm):
    old, orders = Sleeper(farm, MakeJob), train("true")
    old.start(*orders).sleep()
    successor(farm)  # which has recorded that it was cancelled
    old.wake()
    assert any(s.verb == "create" and s.resource == "rayjobs" and s.status == 201 for s in farm.park.double.seen)
    until(lambda: not objects(farm, "rayjobs") and not objects(farm, "secrets"), "the deletion")
    assert farm.lines.started == []


def test_a_job_that_is_made_late_is_the_one_that_is_there(farm):
    old, orders = Sleeper(farm, MakeJob), train("sleep", "1000")
    old.start(*orders).sleep()
    new = successor(farm)
    new.executor.start(orders)
    new.start_of(orders[0].lease_id)
    (before,) = objects(farm, "rayjobs").values()
    old.wake()
    (after,) = objects(farm, "rayjobs").values()
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert not new.of(orders[0].lease_id, ReportKind.FINISHED)


def test_a_job_that_was_made_late_is_taken_over_by_who_wants_it(farm):
    old, orders = Sleeper(farm, MakeJob), train("true")
    old.start(*orders).sleep()
    new = Sleeper(farm, MakeJob)
    new.start(*orders).sleep()
    old.wake()
    new.wake()
    assert new.reader.end_of(orders[0].lease_id).state is AttemptState.SUCCEEDED
    assert len(farm.lines.started) == 2, "one order per rank"


def test_a_cluster_that_is_made_late_is_the_one_that_is_there(farm):
    old, order = Sleeper(farm, MakeCluster), lease(next(numbers), "sleep", "1000")
    old.start(order).sleep()
    new = successor(farm)
    new.executor.start([order])
    new.start_of(order.lease_id)
    before = clusters(farm)
    old.wake()
    assert {n: o["metadata"]["uid"] for n, o in clusters(farm).items()} == {
        n: o["metadata"]["uid"] for n, o in before.items()
    }


def test_what_belongs_to_a_cluster_that_is_gone_is_not_taken_for_the_next_ones(farm):
    """Its Secret comes late. The API server will collect it, and who took it for the next one's would make none."""
    old = Sleeper(farm, SetGroups)
    old._writer._complete = Forgetful()
    old.start(lease(next(numbers), "true")).sleep()
    (first,) = clusters(farm).values()
    farm.site = AT_ONCE
    new = successor(farm)
    until(lambda: not clusters(farm) and not objects(farm, "secrets"), "the end of the cluster")
    farm.site = SITE
    new.executor.close()
    farm.park.double.verbs._collect_orphan = lambda *_: None  # the collector takes its time
    old.wake()
    assert [o["metadata"]["ownerReferences"][0]["uid"] for o in farm.park.double.objects("secrets")] == [
        first["metadata"]["uid"]
    ]
    last, order = successor(farm), lease(next(numbers), "sleep", "1000")
    last.executor.start([order])
    last.start_of(order.lease_id)
    (second,) = clusters(farm).values()
    assert second["metadata"]["name"] == first["metadata"]["name"]
    for plural in ("secrets", "networkpolicies"):
        owners = [o["metadata"]["ownerReferences"][0]["uid"] for o in farm.park.double.objects(plural)]
        assert second["metadata"]["uid"] in owners
    wanted = second["spec"]["authOptions"]["secretName"]
    assert objects(farm, "secrets")[wanted]["metadata"]["ownerReferences"][0]["uid"] == second["metadata"]["uid"]


def warm(farm, sleeper):
    """A pod that has done its work, and the sleeper's next write is about what it left."""
    order = lease(next(numbers), "true")
    sleeper.start(order)
    end = sleeper.reader.end_of(order.lease_id)
    sleeper.reader.executor.acknowledge([end.cursor])
    return order


def test_a_late_scale_down_takes_no_pod_that_was_given_away_since(farm):
    old = Sleeper(farm, _Shrink, AT_ONCE)
    warm(farm, old)
    old.sleep()
    new, order = successor(farm), lease(next(numbers), "sleep", "1000")
    new.executor.start([order])
    new.start_of(order.lease_id)
    (pod,) = farm.park.workers(order.lease_id)
    assert isinstance(old.wake(), Stale)
    beats = farm.park.beats
    until(lambda: farm.park.beats > beats + 20)
    assert farm.park.workers(order.lease_id)[0]["metadata"]["uid"] == pod["metadata"]["uid"]


class _Groups(type):
    def __instancecheck__(cls, action):
        return isinstance(action, SetGroups) and any(group.to_delete for group in action.groups)


class _Shrink(metaclass=_Groups):
    """Groups from which a pod leaves."""


def test_a_late_deletion_of_a_cluster_finds_it_in_use(farm):
    old = Sleeper(farm, DeleteCluster, AT_ONCE)
    warm(farm, old)
    old.sleep()
    new, order = successor(farm), lease(next(numbers), "sleep", "1000")
    new.executor.start([order])
    new.start_of(order.lease_id)
    assert isinstance(old.wake(), Stale)
    assert not new.of(order.lease_id, ReportKind.FINISHED)
    assert clusters(farm)


def test_a_late_word_to_let_a_job_go_is_dropped(farm):
    old, orders = Sleeper(farm, Unsuspend), train("true")
    old.start(*orders).sleep()
    new = successor(farm)  # it knows the job, and nobody has ordered it yet
    taken_over(farm, "rayjobs")
    assert isinstance(old.wake(), Stale)
    (job,) = objects(farm, "rayjobs").values()
    assert job["spec"]["suspend"] is True
    new.executor.stop([orders[0].lease_id], "cancelled")
    until(lambda: not objects(farm, "rayjobs"), "the deletion")
    assert farm.lines.started == []


def test_a_late_deletion_of_a_job_is_dropped(farm):
    old, orders = Sleeper(farm, DeleteJob), train("sleep", "1000")
    old.start(*orders)
    old.reader.start_of(orders[0].lease_id)
    old.reader.executor._desk.book._drop(orders[0].lease_id)  # it takes it for over
    old.reader.executor._look()
    old.sleep()
    new = successor(farm)
    taken_over(farm, "rayjobs")
    assert isinstance(old.wake(), Stale)
    new.executor.start(orders)
    beats = farm.park.beats
    until(lambda: farm.park.beats > beats + 20)
    (job,) = objects(farm, "rayjobs").values()
    assert "deletionTimestamp" not in job["metadata"]
    assert not new.of(orders[0].lease_id, ReportKind.FINISHED)


def test_a_late_lease_for_a_pod_that_carries_another_is_dropped(farm):
    old, late = Sleeper(farm, Assign), lease(next(numbers), "true")
    old.start(late).sleep()
    new, order = successor(farm), lease(next(numbers), "sleep", "1000")
    new.executor.start([order])
    new.start_of(order.lease_id)
    assert isinstance(old.wake(), Stale)
    assert not farm.park.workers(late.lease_id)
    assert farm.park.workers(order.lease_id)


def test_a_late_lease_on_an_idle_pod_is_taken_off_again(farm):
    old, late = Sleeper(farm, Assign), lease(next(numbers), "true")
    old.start(late).sleep()
    new = successor(farm)
    old.wake()
    until(lambda: farm.park.workers() and not farm.park.workers(late.lease_id), "the release")
    order = lease(next(numbers), "true")
    new.executor.start([order])
    assert new.end_of(order.lease_id).state is AttemptState.SUCCEEDED
    assert [one for _, one in farm.lines.started] == [order.lease_id]


def test_a_late_release_takes_no_lease_from_a_pod(farm):
    old = Sleeper(farm, Release)
    order = lease(next(numbers), "sleep", "1000")
    old.start(order)
    old.reader.start_of(order.lease_id)
    old.reader.executor._desk.book._drop(order.lease_id)  # it takes it for over
    old.reader.executor._look()
    old.sleep()
    new = successor(farm)
    until(lambda: farm.park.workers(order.lease_id)[0]["metadata"]["annotations"][EPOCH] == str(farm.epoch))
    assert isinstance(old.wake(), Stale)
    assert farm.park.workers(order.lease_id)
    assert not new.of(order.lease_id, ReportKind.FINISHED)


def test_a_late_lane_is_not_written_on_a_node(farm):
    old = Sleeper(farm, Relabel)
    old.reader.executor.move({"alpha": Lane.JOB})
    old.sleep()
    new = successor(farm)
    new.executor.move({"alpha": Lane.ANY})  # so it is: it was decided otherwise since
    until(lambda: objects(farm, "nodes")["alpha"]["metadata"].get("annotations", {}).get(EPOCH) == str(farm.epoch))
    assert isinstance(old.wake(), Stale)
    assert objects(farm, "nodes")["alpha"]["metadata"]["labels"].get(LANE) != Lane.JOB.value


def test_an_earlier_leader_takes_nothing_back(farm):
    first, order = farm.reader(), lease(next(numbers), "sleep", "1000")
    first.executor.start([order])
    first.start_of(order.lease_id)
    first.executor.close()
    old = Sleeper(farm, Adopt)
    old.sleep()
    new, more = successor(farm), lease(next(numbers), "true", node="beta", devices=slots("beta", 0))
    taken_over(farm, "rayclusters")
    assert isinstance(old.wake(), Stale)
    new.executor.start([more])
    assert new.end_of(more.lease_id).state is AttemptState.SUCCEEDED
    assert farm.park.workers(order.lease_id)[0]["metadata"]["annotations"][EPOCH] == str(farm.epoch)
    assert farm.park.workers(order.lease_id)[0]["metadata"]["annotations"][LEASE] == order.lease_id
