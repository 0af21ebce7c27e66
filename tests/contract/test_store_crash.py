"""kill -9 of a process that commits: whatever it said was committed is there, whole, and nothing by halves."""

import random
import subprocess
import sys

import pytest

from scheduler.control.keeper import Keeper
from scheduler.control.replay import first_difference
from scheduler.model.event import JobSubmitted, UsageSealed
from scheduler.store import open_store


def run_and_kill(url: str, seed: int) -> int:
    """Let a writer commit a seeded number of times, SIGKILL it in the middle of the next one; the last it reported."""
    writer = subprocess.Popen(
        [sys.executable, "-m", "tests.contract.busy_writer", url, str(seed)], stdout=subprocess.PIPE, text=True
    )
    cycles, last = random.Random(seed).randint(1, 60), 0
    for _ in range(cycles):
        last = int(writer.stdout.readline())
    writer.kill()
    rest = writer.communicate()[0].split("\n")[:-1]  # it may have committed more before the signal came
    return int(rest[-1]) if rest else last


def check(url: str, reported: int) -> None:
    store = open_store(url)
    numbers, events = zip(*store.journal(), strict=True)
    assert list(numbers) == list(range(1, len(numbers) + 1))
    assert len(numbers) >= reported
    assert store.verify() == len(numbers)
    assert first_difference(store) == ""
    sealed = [event for event in events if isinstance(event, UsageSealed)]
    assert [event for _, event in store.outbox(limit=10_000)] == sealed
    assert [event.record for event in sealed] == list(store.usage())
    assert Keeper(store, store.acquire_epoch("check")).catch_up().cursor <= len(numbers)
    assert {t.idem for t in store.txns() if t.kind == "usage"} == {f"usage:{event.record.id}" for event in sealed}
    assert first_difference(store) == ""
    assert len(store.load().jobs) == sum(isinstance(event, JobSubmitted) for event in events)
    store.close()


@pytest.mark.parametrize("seeds", [range(4), pytest.param(range(4, 16), marks=pytest.mark.soak)], ids=["few", "many"])
def test_a_killed_writer_leaves_whole_commits_only(store_url, seeds):
    """One database goes through all the kills: each writer carries on where the one before was shot."""
    for seed in seeds:
        check(store_url, run_and_kill(store_url, seed))
