"""The Lease under a clock that the test moves; each candidate has its own, and none of them agree."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from k8s.api import Api
from k8s.backoff import Backoff
from k8s.door import from_kubeconfig
from k8s.endpoint import Endpoint
from k8s.leader import Elector, Timing
from k8s.resource import LEASES
from tests.fakes.kube.faults import Fault, Loss

RIGHTS = Path(__file__).parents[3] / "k8s" / "chart" / "files" / "rights.yaml"
EPOCH = datetime(2026, 11, 27, tzinfo=UTC)
TIMING = Timing(lease_s=8, renew_s=5.0, retry_s=1.0)


class World:
    """Candidates on one server. ``pass_s`` moves everybody's clock; waits move it, too."""

    def __init__(self, double, config):
        self.double, self.config = double, config
        self.now_s = 0.0
        self.electors = []
        self.on_wait = lambda seconds: False

    def elector(self, name, *, ahead_s=0.0, timing=TIMING, ails=str):
        """A candidate whose clocks are ``ahead_s`` of the others'."""
        api = Api(from_kubeconfig(self.config()), backoff=Backoff(tries=1), answer_s=0.2)
        made = Elector(
            api, "park", "shisuan", name, timing=timing, ails=ails,
            clock=lambda: self.now_s + ahead_s, wall=lambda: EPOCH + timedelta(seconds=self.now_s + ahead_s),
            wait=self.wait, draw=lambda: 0.5,
        )  # fmt: skip
        self.electors.append((made, api))
        return made

    def wait(self, seconds):
        assert seconds > 0, "a candidate that does not wait asks without end"
        self.now_s += seconds
        return self.on_wait(seconds)

    def pass_s(self, seconds):
        self.now_s += seconds

    @property
    def spec(self):
        return self.double.get("leases", "shisuan", "park")["spec"]

    def close(self):
        for _, api in self.electors:
            api.close()


@pytest.fixture
def world(double, config):
    double.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "park"}})
    made = World(double, config)
    yield made
    made.close()


def test_the_first_makes_the_lease_and_the_second_waits(world):
    a, b = world.elector("a"), world.elector("b")
    assert a.attempt()
    assert not b.attempt()
    assert (b.holder, b.problem) == ("a", "")
    now = "2026-11-27T00:00:00.000000Z"
    assert world.spec == {
        "holderIdentity": "a", "leaseDurationSeconds": 8, "acquireTime": now, "renewTime": now, "leaseTransitions": 0,
    }  # fmt: skip
    assert (a.left_s(), b.left_s()) == (5.0, 0.0)


def test_a_renewal_moves_the_time_and_nothing_else(world):
    a = world.elector("a")
    a.attempt()
    before = dict(world.spec)
    world.pass_s(1)
    assert a.attempt()
    assert world.spec == {**before, "renewTime": "2026-11-27T00:00:01.000000Z"}
    assert [seen.verb for seen in world.double.seen] == ["get", "create", "patch"], "it reads only to take"


@pytest.mark.parametrize("ahead_s", [-86_400.0, 0.0, 86_400.0], ids=["behind", "agreed", "ahead"])
def test_a_silent_leaders_lease_is_taken_when_one_has_seen_it_unchanged_for_its_length(world, ahead_s):
    a, b = world.elector("a"), world.elector("b", ahead_s=ahead_s)
    a.attempt()
    world.pass_s(7)
    assert not b.attempt()  # seen for the first time: however old it says it is
    world.pass_s(7.9)
    assert not b.attempt()
    world.pass_s(0.1)
    assert b.attempt()
    assert world.spec["holderIdentity"] == "b"
    assert world.spec["leaseTransitions"] == 1
    assert world.spec["acquireTime"] == world.spec["renewTime"]


def test_a_renewal_that_was_seen_starts_the_wait_anew(world):
    a, b = world.elector("a"), world.elector("b")
    a.attempt()
    b.attempt()
    world.pass_s(7)
    a.attempt()
    b.attempt()
    world.pass_s(7)
    assert not b.attempt()
    world.pass_s(1)
    assert b.attempt()


def test_the_holder_decides_how_long_its_lease_is(world):
    a, b = world.elector("a", timing=Timing.of(80)), world.elector("b")
    a.attempt()
    b.attempt()
    world.pass_s(79)
    assert not b.attempt()
    world.pass_s(1)
    assert b.attempt()


def test_of_two_who_take_it_at_once_one_gets_it(world):
    a, b, c = (world.elector(name) for name in "abc")
    a.attempt()
    b.attempt()
    c.attempt()
    world.pass_s(8)
    taken = []
    see = b._see

    def late(lease):  # c is quicker between b's look and b's write
        see(lease)
        if not taken:
            taken.append(c.attempt())

    b._see = late
    assert not b.attempt()
    assert taken == [True]
    assert world.spec["holderIdentity"] == "c"


def test_a_leader_that_slept_finds_another_and_says_so(world):
    a, b = world.elector("a"), world.elector("b")
    a.attempt()
    b.attempt()
    world.pass_s(8)
    b.attempt()
    assert a.left_s() < 0
    assert not a.attempt()
    assert (a.holder, a.left_s()) == ("b", 0.0)
    assert world.spec["holderIdentity"] == "b"


def test_a_renewal_whose_answer_was_lost_is_found_to_be_ones_own(world):
    a = world.elector("a")
    a.attempt()
    world.pass_s(1)
    world.double.faults.add(Fault(verbs=("patch",), loss=Loss.ANSWER))
    assert not a.attempt()
    assert a.left_s() == 4.0, "it leads on until its time is over"
    world.pass_s(1)
    assert a.attempt()
    assert (a.left_s(), a.problem) == (5.0, "")
    assert world.spec["leaseTransitions"] == 0


def test_a_creation_whose_answer_was_lost_is_found_to_be_ones_own(world):
    a = world.elector("a")
    world.double.faults.add(Fault(verbs=("create",), loss=Loss.ANSWER))
    assert not a.attempt()
    assert a.attempt()
    assert world.spec["leaseTransitions"] == 0


def test_a_lease_that_was_deleted_is_made_again_by_its_holder(world):
    a = world.elector("a")
    a.attempt()
    world.double.remove("leases", "shisuan", "park")
    assert a.attempt()
    assert world.spec["holderIdentity"] == "a"


@pytest.mark.parametrize(
    "fault",
    [Fault(status=429, retry_after_s=60), Fault(status=500), Fault(delay_s=0.4), Fault(loss=Loss.REQUEST)],
    ids=["busy", "broken", "slow", "cut"],
)
def test_a_server_in_trouble_costs_an_attempt_and_not_the_lease(world, fault):
    a = world.elector("a")
    a.attempt()
    world.double.faults.add(fault)
    world.pass_s(1)
    assert not a.attempt()
    assert a.problem
    assert a.left_s() == 4.0
    assert a.attempt()
    assert a.left_s() == 5.0


def test_expired_credentials_are_read_anew_and_missing_rights_are_told(world):
    a = world.elector("a")
    a.attempt()
    world.double.tokens = {"fresh"}
    world.config("fresh")
    assert a.attempt()
    world.double.faults.add(Fault(status=403))
    assert not a.attempt()
    assert "a fault that was asked for" in a.problem


def test_a_standby_leads_within_the_length_of_the_lease_and_a_look(world):
    a, b = world.elector("a"), world.elector("b")
    a.attempt()
    led, lost = [], []
    world.on_wait = lambda _: bool(led)  # stop once it leads
    b.run(lambda: led.append(world.now_s), lost.append)
    assert lost == []
    assert led == [8.0], "it looks again at the very end of the Lease"


def test_a_leader_renews_until_it_finds_another(world):
    a = world.elector("a")
    led, lost = [], []

    def wait(_):
        if world.now_s == 3:
            lease = world.double.get("leases", "shisuan", "park")
            world.double.put({**lease, "spec": {**lease["spec"], "holderIdentity": "thief"}})
        return False

    world.on_wait = wait
    a.run(lambda: led.append(1), lost.append)
    assert (led, lost, world.now_s) == ([1], ["thief holds the Lease now"], 3.0)


def test_a_leader_whom_nobody_answers_is_none_after_its_time_and_before_others_may_lead(world):
    a, b = world.elector("a"), world.elector("b")
    a.attempt()
    b.attempt()
    world.double.faults.storm(1, 1.0, [Fault(loss=Loss.REQUEST)])
    lost = []
    world.on_wait = lambda _: a.attempt()
    a.guard(lambda why: lost.append((world.now_s, why)))
    [(at_s, why)] = lost
    assert at_s == 5.0
    assert why.startswith("the Lease could not be renewed for 5 s: PATCH")
    world.double.faults.calm()
    assert not b.attempt()


def test_the_guard_sleeps_on_after_each_renewal_and_ends_when_told(world):
    a = world.elector("a")
    a.attempt()
    waits = []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) < 4:
            world.now_s -= 1  # woken up with a second left
            a.attempt()
        return len(waits) == 4

    world.on_wait = wait
    a.guard(pytest.fail)
    assert waits == [5.0] * 4


def test_a_leader_that_ails_twice_in_a_row_gives_the_lease_away_and_is_none(world):
    b = world.elector("b")
    said = iter(["", "slow", "", "slow", "stuck"])
    a = world.elector("a", ails=lambda: next(said))
    lost = []
    a.run(lambda: None, lost.append)
    assert lost == ["stuck"]
    assert world.now_s == 5.0
    assert world.spec["holderIdentity"] == ""
    assert b.attempt()


def test_a_clean_stop_releases_it_and_the_next_need_not_wait(world):
    a, b = world.elector("a"), world.elector("b")
    a.attempt()
    b.attempt()
    a.release()
    assert (world.spec["holderIdentity"], world.spec["leaseDurationSeconds"], a.left_s()) == ("", 1, 0.0)
    assert b.attempt()
    assert (world.spec["leaseTransitions"], world.spec["leaseDurationSeconds"]) == (1, 8)
    a.release()  # it is another's now
    assert world.spec["holderIdentity"] == "b"


def test_a_release_that_comes_too_late_takes_nothing_from_the_successor(world):
    a, b = world.elector("a"), world.elector("b")
    a.attempt()
    b.attempt()
    world.pass_s(8)
    b.attempt()
    a.release()
    assert world.spec["holderIdentity"] == "b"


def test_stopped_means_stopped(world):
    a = world.elector("a")
    a.stop()
    a._wait = a._stopped.wait
    lost = []
    a.run(lambda: None, lost.append)
    a.guard(lost.append)
    assert lost == []


def test_the_usual_proportions():
    assert Timing.of(8) == Timing()
    assert Timing.of(1) == Timing(lease_s=1, renew_s=0.625, retry_s=0.125)
    assert LEASES.api_version == "coordination.k8s.io/v1"


def test_the_role_of_a_leader_is_what_it_asks_for(world):
    """Everything an elected service asks of the API server, beside the chart's rows for it."""
    a, b = world.elector("a"), world.elector("b")
    for elector in (a, b):
        elector.attempt()
        Endpoint(elector._api, "park", "shisuan", "10.0.0.1", {"http": 80}).publish(lambda: True)
    a.attempt()
    a.release()
    b.attempt()
    rows = yaml.safe_load(RIGHTS.read_text("utf-8"))
    granted = {
        (row["group"], row["resource"], verb) for row in rows if row["part"] == "leader" for verb in row["verbs"]
    }
    assert {(seen.group, seen.resource, seen.verb) for seen in world.double.seen} == granted
