"""An agent dies without warning; the next one of its folder tells the truth and leaves nothing running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler.model import codec
from scheduler.model.errors import ExecutorError
from scheduler.model.lease import AttemptState
from scheduler.model.order import ReportKind
from tests.unit.workers.helpers import Reader, agent, ask, lease, shell, task, until
from workers import procfs

RUNNER = Path(__file__).with_name("resident_runner.py")
HOST = """
import sys, threading
import workers.lease_run
from pathlib import Path
from scheduler.model import codec
from scheduler.model.order import LeaseOrder
from tests.unit.workers.helpers import agent
workers.lease_run.WHOSE_KILL_S = 600.0
one = agent(Path(sys.argv[1]), confinement=sys.argv[2], runner=Path(sys.argv[3]))
print("up", flush=True)
for line in sys.stdin:
    one.submit([codec.loads(LeaseOrder, line)])
    print("taken", flush=True)
threading.Event().wait()
"""


@pytest.fixture(params=["none", "bubblewrap"])
def level(request, home):
    try:
        agent(home, confinement=request.param).close()
    except ExecutorError as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture
def host(home, level):
    """A process that hosts an agent: give it orders, kill it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOST, str(home), level, str(RUNNER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        cwd=Path(__file__).parents[3],
    )
    assert process.stdout.readline() == "up\n"
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def give(host, *orders):
    for order in orders:
        host.stdin.write(codec.dumps(order) + "\n")
        assert host.stdout.readline() == "taken\n"


def test_what_ran_is_lost_and_dead_and_what_ended_is_told_again(host, home, level, tmp_path):
    marker = tmp_path / "out" / "up"
    ends = lease(shell("exit 3"), lease_id="l1")
    stays = lease(shell("sleep 600 & setsid -f sleep 600; echo up >outputs/up; sleep 600", index=1), lease_id="l2")
    queued = lease(shell("sleep 600", index=2), task("/bin/true", index=3), lease_id="l3")
    warm = lease(ask('{"do": "wait"}', index=4), lease_id="l4", warm_key="k")
    give(host, ends, stays, queued, warm)
    until(lambda: len(procfs.marked(str(home))) >= 5, "all run")
    table = home / "nodes" / "n1" / "studio" / "table.log"
    until(lambda: b'"exit_code":3' in table.read_bytes(), "the short one ended")
    host.send_signal(signal.SIGKILL)
    host.wait()
    one = agent(home, confinement=level)
    try:
        assert procfs.marked(str(home)) == {}
        reader = Reader(one)
        reader.read()
        ended = {r.attempt_id: r for r in reader.all if r.kind is ReportKind.FINISHED}
        assert (ended["j1.s.0.a1"].state, ended["j1.s.0.a1"].exit_code) == (AttemptState.FAILED, 3)
        for index in (1, 2, 3, 4):
            lost = ended[f"j1.s.{index}.a1"]
            assert (lost.state, lost.message) == (AttemptState.LOST, "the agent was restarted")
        assert one.inventory().leases == ("l1", "l2", "l3", "l4")
        one.submit([stays])
        assert not [r for r in reader.read(50) if r.kind is ReportKind.STARTED]
        assert list((home / "nodes" / "n1" / "studio" / "work").iterdir()) == []
    finally:
        one.close()
    assert not marker.exists()


def test_runners_killed_just_before_their_agent_are_lost_and_did_not_fail(host, home, level):
    give(host, lease(shell("sleep 600")))
    until(lambda: procfs.marked(str(home)), "it runs")
    for pid in procfs.marked(str(home)):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not procfs.marked(str(home)), "all are dead")
    give(host, lease(shell("exit 3", index=1), lease_id="l2"))  # once this one ended, the agent has seen the others die
    table = home / "nodes" / "n1" / "studio" / "table.log"
    until(lambda: b'"exit_code":3' in table.read_bytes(), "the later one ended")
    host.kill()
    host.wait()
    one = agent(home, confinement=level)
    states = {r.attempt_id: r.state for r in one.poll() if r.state}
    assert states == {"j1.s.0.a1": AttemptState.LOST, "j1.s.1.a1": AttemptState.FAILED}
    one.close()


def test_a_new_agent_waits_for_a_dying_one_and_then_takes_over(host, home, level):
    give(host, lease(shell("sleep 600")))
    with pytest.raises(ExecutorError, match="another agent holds"):
        agent(home, confinement=level, lock_wait_s=0.1)
    until(lambda: procfs.marked(str(home)), "the attempt still runs")
    host.kill()
    one = agent(home, confinement=level)
    assert [r.state for r in one.poll() if r.state] == [AttemptState.LOST]
    one.close()


def test_killed_between_publishing_and_telling_the_retry_succeeds_at_once(host, home, level, tmp_path):
    out = str(tmp_path / "out")
    once = {"output_dir": out, "outputs": ("*",)}
    give(host, lease(shell("echo one >outputs/a; echo 'shisuan_done: {\"n\": 1}'", **once), roots=(str(tmp_path),)))
    until((tmp_path / "out" / "a").exists, "published")
    host.kill()
    host.wait()
    one = agent(home, confinement=level)
    reader = Reader(one)
    again = shell("echo two >outputs/a", number=2, **once)
    one.submit([lease(again, lease_id="l2", roots=(str(tmp_path),))])
    done = reader.finished("j1.s.0.a2")
    assert (done.state, done.outputs, done.result) == (AttemptState.SUCCEEDED, (f"{out}/a",), '{"n":1}')
    assert (tmp_path / "out" / "a").read_text() == "one\n"
    one.close()


def test_a_foreign_process_with_a_recorded_number_is_spared(home):
    from workers.table import Started, Table

    (home / "nodes" / "n1" / "studio").mkdir(parents=True)
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as bystander:
        table = Table(home / "nodes" / "n1" / "studio" / "table.log")
        table.accept([lease(shell("x"))])
        from scheduler.model.order import Report

        report = Report(kind=ReportKind.STARTED, lease_id="l1", attempt_id="j1.s.0.a1")
        table.start(("l1", 0), Started(pid=bystander.pid, start_ticks=1), report)
        table.close()
        one = agent(home)
        assert [r.state for r in one.poll() if r.state] == [AttemptState.LOST]
        assert bystander.poll() is None
        one.close()
        os.killpg(bystander.pid, signal.SIGKILL)


def test_close_records_what_it_killed(home):
    one = agent(home)
    one.submit([lease(shell("sleep 600"))])
    Reader(one).started()
    one.close()
    again = agent(home)
    told = [r for r in again.poll() if r.state]
    assert [(r.state, r.message) for r in told] == [(AttemptState.LOST, "the agent was closed")]
    assert procfs.marked(str(home)) == {}
    again.close()


def test_runners_die_with_the_agent_even_if_no_other_comes(host, home):
    give(host, lease(task("/bin/sleep", "600")))
    until(lambda: procfs.marked(str(home)), "it runs")
    host.kill()
    until(lambda: not procfs.marked(str(home)), "the runner died with its agent")
