from __future__ import annotations

import asyncio
import json
import threading
from pathlib import Path

import pytest

from scheduler.model.errors import ExecutorError
from scheduler.model.lease import AttemptState
from tests.unit.workers.helpers import ask, lease, until
from workers import procfs, resident
from workers.lease_run import LeaseRun

RUNNER = Path(__file__).with_name("resident_runner.py")


@pytest.fixture(params=["none", "bubblewrap"])
def warm(request, run):
    """An agent with the test's resident runner, at two levels of confinement."""
    try:
        return run(confinement=request.param, runner=RUNNER)
    except ExecutorError as error:
        pytest.skip(str(error))


def say(one, reader, *requests, warm_key="scene", **fields):
    """Submit one lease per request; results in order."""
    base = len([r for r in reader.all if r.result or r.state])
    for i, request in enumerate(requests, base):
        one.submit([lease(ask(json.dumps(request), index=i), lease_id=f"l{i}", warm_key=warm_key, **fields)])
        reader.finished(f"j1.s.{i}.a1")
    ends = [reader.finished(f"j1.s.{i}.a1") for i in range(base, base + len(requests))]
    return [json.loads(end.result) if end.result else end for end in ends]


def test_one_process_serves_request_after_request(warm):
    first, second, third = say(*warm, {}, {}, {})
    assert first["pid"] == second["pid"] == third["pid"]
    assert [first["served"], second["served"], third["served"]] == [1, 2, 3]


def test_another_warm_key_is_another_process(warm):
    [a] = say(*warm, {}, warm_key="a")
    [b] = say(*warm, {}, warm_key="b")
    assert (a["served"], b["served"]) == (1, 1)


def test_without_a_warm_key_it_ends_with_its_lease(warm, home):
    one, reader = warm
    one.submit([lease(ask("{}"), ask("{}", index=1))])
    assert json.loads(reader.finished("j1.s.1.a1").result)["served"] == 2
    until(lambda: not procfs.marked(str(home)), "the resident is gone")
    one.submit([lease(ask("{}", index=2), lease_id="l2")])
    assert json.loads(reader.finished("j1.s.2.a1").result)["served"] == 1


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        ("fail", "asked to fail"),
        ("crash", "killed by SIGSEGV"),
        ("exit", "the runner ended without a result"),
    ],
)
def test_a_failed_request_fails_its_task_and_spoils_no_other(warm, do, reason):
    before, failed, after = say(*warm, {}, {"do": do}, {})
    assert (failed.state, failed.message) == (AttemptState.FAILED, reason)
    assert (before["served"], after["served"]) == (1, 1)


def test_a_stop_during_a_request_ends_the_process(warm, home):
    one, reader = warm
    one.submit([lease(ask('{"do": "wait"}', grace_ms=0), warm_key="scene")])
    reader.wait(lambda r: r.message == "waiting", "the request is being served")
    one.stop(["l1"], "cancelled by a user")
    assert reader.finished().state is AttemptState.CANCELLED
    until(lambda: not procfs.marked(str(home)), "no process left")
    assert reader.finished().message == "cancelled by a user"


def test_a_deadline_ends_a_request(warm):
    one, reader = warm
    one.submit([lease(ask('{"do": "wait"}', timeout_ms=300, grace_ms=50), warm_key="scene")])
    done = reader.finished()
    assert (done.state, done.message) == (AttemptState.TIMED_OUT, "timed out after 0.3 s")


def test_each_attempt_has_its_own_log(warm):
    one, reader = warm
    say(one, reader, {"say": "first"}, {"say": "second"})
    said = [one.read_log(f"j1.s.{i}.a1").text.splitlines()[0] for i in (0, 1)]
    assert said == ["working on first", "working on second"]
    assert one.read_log("j1.s.0.a1").end


def test_outputs_of_a_resident_are_published(warm, tmp_path):
    one, reader = warm
    out = tmp_path / "out"
    request = json.dumps({"do": "write", "out": "{work}/outputs"})
    writes = ask(request, output_dir=str(out), outputs=("result.txt",))
    one.submit([lease(writes, warm_key="k", roots=(str(tmp_path),))])
    done = reader.finished()
    assert (done.state, done.outputs) == (AttemptState.SUCCEEDED, (f"{out}/result.txt",)), done.message
    assert (out / "result.txt").exists()


def test_a_changed_input_is_read_by_a_new_process(warm, tmp_path):
    one, reader = warm
    scene = tmp_path / "scene.blend"
    scene.write_text("one")
    order = {"warm_key": "k", "roots": (str(tmp_path),)}
    for i, served in enumerate((1, 2, 1)):
        if i == 2:
            scene.unlink()
            scene.write_text("other")
        one.submit([lease(ask("{}", index=i, reads=(str(scene),)), lease_id=f"l{i}", **order)])
        assert json.loads(reader.finished(f"j1.s.{i}.a1").result)["served"] == served


def test_an_idle_process_leaves_the_card_to_another_kind(warm, home):
    one, reader = warm
    say(one, reader, {}, warm_key="a", devices=("GPU-1",))
    [*_, pid] = sorted(procfs.marked(str(home)))
    say(one, reader, {}, warm_key="b", devices=("GPU-1",))
    until(lambda: not Path(f"/proc/{pid}").exists(), "the first process is gone")


def test_a_process_is_replaced_after_its_share_of_requests(warm, monkeypatch):
    monkeypatch.setattr(resident, "MAX_REQUESTS", 2)
    assert [answer["served"] for answer in say(*warm, {}, {}, {})] == [1, 2, 1]


def test_a_process_that_grew_too_large_is_replaced(warm, monkeypatch):
    monkeypatch.setattr(resident, "LEAST_RSS_LIMIT_MIB", 1)
    assert [answer["served"] for answer in say(*warm, {}, {})] == [1, 1]


def test_an_idle_process_goes_after_a_while(warm, monkeypatch, home):
    monkeypatch.setattr(resident, "IDLE_S", 0.05)
    say(*warm, {})
    until(lambda: not procfs.marked(str(home)), "the idle process is gone")


def test_a_large_request_arrives_whole(warm):
    [answer] = say(*warm, {"pad": "x" * 300_000})
    assert answer["served"] == 1


def test_a_process_whose_result_is_still_being_published_is_nobody_elses(warm, monkeypatch):
    """Given back at the answer, it was lent to another task and then ended by the first one's clean-up."""
    one, reader = warm
    real, publishing, goes_on = LeaseRun._publish, threading.Event(), threading.Event()

    async def slow(self, task, work, outcome):
        if task.attempt_id == "j1.s.0.a1":
            publishing.set()
            while not goes_on.is_set():
                await asyncio.sleep(0.01)
        return await real(self, task, work, outcome)

    monkeypatch.setattr(LeaseRun, "_publish", slow)
    one.submit([lease(ask("{}"), lease_id="l0", warm_key="scene")])
    assert publishing.wait(30)
    one.submit([lease(ask('{"do": "spin", "cpu_s": 0.3, "say": "second"}', index=1), lease_id="l1", warm_key="scene")])
    reader.wait(lambda r: r.attempt_id == "j1.s.1.a1", "the second task has begun")
    goes_on.set()
    ends = [reader.finished(f"j1.s.{index}.a1") for index in range(2)]
    assert [end.state for end in ends] == [AttemptState.SUCCEEDED] * 2
    assert [json.loads(end.result)["served"] for end in ends] == [1, 1]
