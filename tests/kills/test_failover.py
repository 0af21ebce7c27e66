"""Two services, one Lease, one database: the leader is harmed at seeded moments under load, and nothing starts twice.

A seed fixes what happens to the leader and after how many starts. ``make test`` has 20 moments, ``make soak`` 200.
"""

import random
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.fakes.kube.server import FakeKubernetes
from tests.kills.pair import FAULTS, Pair

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(900)]


@contextmanager
def running(server, folder):
    with FakeKubernetes() as double:
        double.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "park"}})
        made = Pair(folder, server.new_database(), double.url)
        try:
            made.wait_leader()
            yield made
        finally:
            made.close()


def harm_at(pair, seed):
    """Jobs keep coming; at every tenth moment they stop, and all that was ever accepted is looked at."""
    chance = random.Random(seed)
    fault = FAULTS[seed % len(FAULTS)]
    pair.pour()
    pair.wait_leader()
    moment = pair.yard()["starts"] + chance.randrange(1, 40)
    pair.wait(f"start {moment}", lambda: pair.yard()["starts"] >= moment, every_s=0.002)
    victim = pair.wait_leader()
    before = pair.yard()["epoch"]
    pair.held_back = (victim,)
    pair.harm(fault, victim)
    pair.wait("decisions of a successor", lambda: led(pair, before) >= 3)
    victim.heal()
    victim.send(signal.SIGCONT)
    pair.wait(f"the end of the old leader after {fault!r}", lambda: not victim.lives)
    pair.held_back = ()
    found = pair.yard()
    print(f"seed {seed}: {fault} after start {moment}: epoch {before} -> {found['epoch']}, {len(pair.accepted)} jobs")
    assert found["double_starts"] == 0, found["wrong"]
    if seed % 10 == 4:
        settle(pair)


def settle(pair):
    """No accepted job is lost, no task needed a second attempt, and the journal agrees with everything."""
    pair.pour()
    pair.stop_pouring()
    pair.wait("the end of every job", pair.all_ended, every_s=0.05)
    assert pair.lost_attempts() == []
    assert pair.yard()["double_starts"] == 0
    assert pair.verify() == 0


def led(pair, before):
    """Starts under later epochs."""
    return sum(count for epoch, count in pair.yard()["by_epoch"].items() if int(epoch) > before)


def side_by_side(server, folder, first, each):
    """Two pairs, ``each`` moments for both: they wait more than they work."""

    def some(start):
        (folder / str(start)).mkdir()
        with running(server, folder / str(start)) as pair:
            for seed in range(start, start + each):
                harm_at(pair, seed)
            settle(pair)
        return each

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(some, (first, first + each))) == [each, each]


def test_nothing_starts_twice_and_no_job_is_lost_when_the_leader_is_harmed(postgres_server, tmp_path):
    side_by_side(postgres_server, tmp_path, 0, 10)


@pytest.mark.soak
@pytest.mark.parametrize("first", [pytest.param(20, id="left"), pytest.param(120, id="right")])
def test_nothing_starts_twice_and_no_job_is_lost_when_leaders_are_harmed_often(postgres_server, tmp_path, first):
    """``make soak`` runs ``left`` and ``right`` side by side, too."""
    side_by_side(postgres_server, tmp_path, first, 50)
