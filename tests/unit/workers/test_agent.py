from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from scheduler.model.errors import ExecutorError, NotFound
from scheduler.model.lease import AttemptState
from scheduler.model.order import ReportKind
from tests.unit.workers.helpers import NODE, TENANT, agent, lease, shell, task, until
from workers import lease_run, procfs


def test_a_command_runs_to_its_end_and_is_told_in_order(run):
    one, reader = run()
    one.submit([lease(task("/bin/true"))])
    done = reader.finished()
    assert [r.kind for r in reader.all] == [ReportKind.STARTED, ReportKind.FINISHED]
    assert (done.state, done.exit_code, done.message) == (AttemptState.SUCCEEDED, 0, "")
    assert (done.node, done.tenant, done.lease_id) == (NODE, TENANT, "l1")


@pytest.mark.parametrize(
    ("text", "code", "reason"),
    [
        ("exit 3", 3, "exit code 3"),
        ("kill -SEGV $$", -11, "killed by SIGSEGV"),
        ("echo 'shisuan_fail: no licence for Houdini'; exit 1", 1, "no licence for Houdini"),
        ("echo 'shisuan_fail: wrong frame'; exit 0", 0, "wrong frame"),
    ],
)
def test_a_failure_is_told_in_a_sentence(run, text, code, reason):
    one, reader = run()
    one.submit([lease(shell(text))])
    done = reader.finished()
    assert (done.state, done.exit_code, done.message) == (AttemptState.FAILED, code, reason)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("no-such-program", "not on the runner's PATH"),
        ("/no/such/program", "does not exist"),
        ("./here.sh", "empty folder"),
        ("/etc/passwd", "not executable"),
    ],
)
def test_a_program_that_is_not_there_is_named(run, program, words):
    one, reader = run()
    one.submit([lease(task(program))])
    done = reader.finished()
    assert done.state is AttemptState.FAILED
    assert program in done.message
    assert words in done.message


@pytest.mark.parametrize(("orphan", "state"), [(False, AttemptState.FAILED), (True, AttemptState.LOST)])
def test_a_strangers_kill_is_a_failure_unless_the_nodes_runtime_is_gone(run, home, monkeypatch, orphan, state):
    monkeypatch.setattr(lease_run, "WHOSE_KILL_S", 0.0)
    one, reader = run()
    if orphan:
        adopter = os.getppid() + 1  # not 1: in a container that is our parent already
        monkeypatch.setattr(os, "getppid", lambda: adopter)
    one.submit([lease(shell("kill -KILL $$"))])
    done = reader.finished()
    assert (done.state, done.exit_code) == (state, -9)


def test_tasks_of_a_lease_run_one_after_the_other_in_order(run, tmp_path):
    one, reader = run()
    place = tmp_path / "trace"
    one.submit([lease(*(shell(f"echo {i} >>{place}; sleep 0.01; echo {i} >>{place}", index=i) for i in range(5)))])
    reader.finished("j1.s.4.a1")
    assert place.read_text().split() == ["0", "0", "1", "1", "2", "2", "3", "3", "4", "4"]


def test_a_failed_task_does_not_keep_the_next_from_running(run):
    one, reader = run()
    one.submit([lease(shell("exit 1"), shell("exit 0", index=1))])
    assert reader.finished("j1.s.1.a1").state is AttemptState.SUCCEEDED


def test_leases_run_beside_each_other(run, tmp_path):
    one, reader = run()
    meet = "touch {0}; while [ ! -e {1} ]; do sleep 0.01; done"
    a, b = tmp_path / "a", tmp_path / "b"
    one.submit([lease(shell(meet.format(a, b))), lease(shell(meet.format(b, a), index=1), lease_id="l2")])
    assert reader.finished().state is reader.finished("j1.s.1.a1").state is AttemptState.SUCCEEDED


def test_a_repeated_order_runs_once(run, tmp_path):
    one, reader = run()
    order = lease(shell(f"echo x >>{tmp_path / 'count'}"))
    one.submit([order, order])
    one.submit([order])
    done = reader.finished()
    one.submit([order])
    one.acknowledge([r.cursor for r in reader.all])
    one.submit([order])
    one.submit([lease(task("/bin/true", index=9), lease_id="l9")])
    reader.finished("j1.s.9.a1")
    assert (tmp_path / "count").read_text() == "x\n"
    assert done.state is AttemptState.SUCCEEDED


def test_reports_stay_until_acknowledged(run):
    one, reader = run()
    one.submit([lease(task("/bin/true"))])
    reader.finished()
    again = one.poll("")
    assert [r.cursor for r in again] == [r.cursor for r in reader.all]
    assert one.inventory().leases == ("l1",)
    one.acknowledge([r.cursor for r in again])
    one.acknowledge([r.cursor for r in again])
    assert one.poll("") == ()
    assert one.inventory().leases == ()


def test_progress_and_status_arrive_while_it_runs(run, tmp_path):
    one, reader = run()
    gate = tmp_path / "gate"
    one.submit(
        [
            lease(
                shell(
                    f"echo 'shisuan_progress: 12.5'; echo 'shisuan_status: sampling'; "
                    f"while [ ! -e {gate} ]; do sleep 0.01; done"
                )
            )
        ]
    )
    told = reader.wait(lambda r: r.kind is ReportKind.PROGRESS, "progress")
    assert (told.progress_milli, told.message, told.cursor) == (125, "sampling", "")
    gate.touch()
    assert reader.finished().state is AttemptState.SUCCEEDED


def test_a_flood_of_progress_is_coalesced(run):
    one, reader = run()
    one.submit([lease(shell("i=0; while [ $i -lt 5000 ]; do echo shisuan_progress: 50; i=$((i+1)); done"))])
    reader.finished()
    assert len([r for r in reader.all if r.kind is ReportKind.PROGRESS]) < 100


def test_a_silent_attempt_gives_signs_of_life(run, tmp_path):
    one, reader = run(heartbeat_ms=50)
    gate = tmp_path / "gate"
    one.submit([lease(shell(f"while [ ! -e {gate} ]; do sleep 0.01; done"))])
    until(lambda: reader.read() and len([r for r in reader.all if r.kind is ReportKind.PROGRESS]) >= 3, "heartbeats")
    beat = one.heartbeat()
    until(lambda: one.heartbeat() > beat, "the loop turns")
    gate.touch()
    reader.finished()


def test_a_deadline_ends_it_politely_then_by_force(run):
    one, reader = run()
    polite = shell("trap 'echo stopping; exit 0' TERM; while :; do sleep 0.01; done", timeout_ms=300)
    deaf = shell("trap '' TERM; while :; do sleep 0.01; done", index=1, timeout_ms=300, grace_ms=100)
    one.submit([lease(polite), lease(deaf, lease_id="l2")])
    first, second = reader.finished(), reader.finished("j1.s.1.a1")
    assert (first.state, first.exit_code, first.message) == (AttemptState.TIMED_OUT, 0, "timed out after 0.3 s")
    assert (second.state, second.exit_code) == (AttemptState.TIMED_OUT, -9)
    assert "stopping" in one.read_log("j1.s.0.a1").text


def test_a_stop_ends_the_running_task_and_the_rest_of_the_lease(run):
    one, reader = run()
    one.submit([lease(shell("sleep 600"), task("/bin/true", index=1))])
    one.submit([lease(shell("sleep 600", index=2), lease_id="l2")])
    reader.started()
    reader.started("j1.s.2.a1")
    one.stop(["l1", "l77"], "cancelled by a user")
    one.stop(["l2"], "preempted for j9")
    for index in (0, 1):
        done = reader.finished(f"j1.s.{index}.a1")
        assert (done.state, done.message) == (AttemptState.CANCELLED, "cancelled by a user")
    assert reader.finished("j1.s.2.a1").state is AttemptState.PREEMPTED
    assert not [r for r in reader.all if r.attempt_id == "j1.s.1.a1" and r.kind is ReportKind.STARTED]


def test_a_stop_right_behind_the_start_is_not_lost(run):
    one, reader = run()
    for i in range(20):
        one.submit([lease(shell("sleep 600", index=i), lease_id=f"l{i}")])
        one.stop([f"l{i}"], "cancelled by a user")
    for i in range(20):
        assert reader.finished(f"j1.s.{i}.a1").state is AttemptState.CANCELLED


@pytest.mark.parametrize("level", ["none", "bubblewrap"])
def test_the_whole_family_of_a_task_ends_with_it(run, home, level):
    one, reader = start_or_skip(run, level)
    work = home / "nodes" / NODE / TENANT / "work"
    one.submit([lease(shell("sleep 600 & sh -c 'sleep 600 & wait' & echo family; exit 0"))])
    reader.finished()
    one.submit([lease(shell("sleep 600 & sh -c 'sleep 600' & wait", index=1, grace_ms=50), lease_id="l2")])
    reader.started("j1.s.1.a1")
    until(lambda: len(procfs.marked(str(work))) >= 2, "children")
    one.stop(["l2"], "cancelled by a user")
    reader.finished("j1.s.1.a1")
    until(lambda: not procfs.marked(str(work)), "no process left")


def test_a_daemon_that_left_the_group_is_found(run, home):
    one, reader = run()
    work = home / "nodes" / NODE / TENANT / "work"
    one.submit([lease(shell("setsid -f sleep 600"))])
    reader.finished()
    until(lambda: not procfs.marked(str(work)), "the daemon is gone")


def start_or_skip(run, level):
    try:
        return run(confinement=level)
    except ExecutorError as error:
        pytest.skip(str(error))


def test_logs_are_read_in_parts_and_say_when_they_end(run, tmp_path):
    one, reader = run()
    gate = tmp_path / "gate"
    one.submit([lease(shell(f"echo 视算 one; echo two >&2; while [ ! -e {gate} ]; do sleep 0.01; done; echo three"))])
    until(lambda: "two" in one.read_log("j1.s.0.a1").text, "live log")
    assert not one.read_log("j1.s.0.a1").end
    gate.touch()
    reader.finished()
    text, offset, end = "", 0, False
    while not end:
        part = one.read_log("j1.s.0.a1", offset, limit=4)
        text, offset, end = text + part.text, part.next_offset, part.end
    assert text == "视算 one\ntwo\nthree\n"


def test_a_log_of_nothing_is_empty_and_a_log_of_nobody_not_found(run):
    one, reader = run()
    one.submit([lease(task("/bin/true"))])
    reader.finished()
    assert one.read_log("j1.s.0.a1").text == ""
    assert one.read_log("j1.s.0.a1").end
    for name in ("j1.s.7.a1", "../../table.log", "x/y.s.0.a1"):
        with pytest.raises(NotFound):
            one.read_log(name)


def test_the_environment_is_clean_and_complete(run, monkeypatch, tmp_path):
    monkeypatch.setenv("SHISUAN_DATABASE_URL", "secret")
    one, reader = run()
    wishes = {"COLOUR": "red", "SHISUAN_TASK_COUNT": "4", "SHISUAN_WORK": "/etc", "CUDA_VISIBLE_DEVICES": "all"}
    one.submit(
        [
            lease(
                task("/usr/bin/env", token="tok", env=tuple(wishes.items())), cpu_milli=3500, devices=("GPU-1", "GPU-2")
            )
        ]
    )
    reader.finished()
    env = dict(line.split("=", 1) for line in one.read_log("j1.s.0.a1").text.splitlines())
    assert "secret" not in env.values()
    assert "VIRTUAL_ENV" not in env
    assert env["SHISUAN_JOB_ID"] == "j1"
    assert env["SHISUAN_STEP"] == "s"
    assert env["SHISUAN_TASK_INDEX"] == "0"
    assert env["SHISUAN_ATTEMPT"] == "1"
    assert env["SHISUAN_TASK_COUNT"] == "4"
    assert env["SHISUAN_TOKEN"] == "tok"
    assert env["SHISUAN_NODE_RANK"] == "0"
    assert env["SHISUAN_NUM_NODES"] == "1"
    assert env["COLOUR"] == "red"
    assert env["SHISUAN_OUTPUTS"] == env["SHISUAN_WORK"] + "/outputs"
    assert env["SHISUAN_WORK"] != "/etc"
    assert env["CUDA_VISIBLE_DEVICES"] == "GPU-1,GPU-2"
    assert env["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize("fields", [{}, {"devices": ("SIM-1",), "simulated": True}])
def test_without_real_cards_none_is_visible(run, fields):
    one, reader = run()
    one.submit([lease(shell('test -z "$CUDA_VISIBLE_DEVICES" && test "${CUDA_VISIBLE_DEVICES+set}" = set'), **fields)])
    assert reader.finished().state is AttemptState.SUCCEEDED


def test_two_ranks_of_a_gang_may_share_a_node(run):
    one, reader = run()
    said = shell("echo rank $SHISUAN_NODE_RANK of $SHISUAN_NUM_NODES")
    one.submit([lease(said, rank=0, ranks=2), lease(said, rank=1, ranks=2)])
    until(lambda: reader.read() and len([r for r in reader.all if r.kind is ReportKind.FINISHED]) == 2, "both ranks")
    assert {r.rank for r in reader.all if r.kind is ReportKind.FINISHED} == {0, 1}
    assert [one.read_log("j1.s.0.a1", rank=rank).text for rank in (0, 1)] == ["rank 0 of 2\n", "rank 1 of 2\n"]
    with pytest.raises(NotFound):
        one.read_log("j1.s.0.a1", rank=2)


def test_the_work_folder_is_gone_afterwards(run, home):
    one, reader = run()
    one.submit([lease(shell("mkdir -p deep/er; touch deep/er/file outputs/x; pwd"))])
    reader.finished()
    work = one.read_log("j1.s.0.a1").text.strip()
    assert work.startswith(str(home))
    assert not Path(work).exists()


def test_a_log_is_cut_at_its_limit(run):
    one, reader = run()
    told = "echo 'shisuan_fail: told after the cap'"
    one.submit([lease(shell(f"yes | head -c 3000000; {told}"), log_mib=1)])
    assert reader.finished().message == "told after the cap"
    text = one.read_log("j1.s.0.a1", limit=10_000_000).text
    assert len(text) < (1 << 20) + 100
    assert text.endswith("\n[shisuan: the log is cut here at 1048576 bytes]\n")


def test_orders_for_others_are_refused(run):
    one, _ = run()
    for wrong in ({"tenant": "other"}, {"node": "n2"}):
        order = lease(task("/bin/true"))
        with pytest.raises(ExecutorError):
            one.submit([type(order)(**{f: getattr(order, f) for f in order.__slots__} | wrong)])
    with pytest.raises(ValueError, match="not an attempt id"):
        one.submit([lease(task("/bin/true", job="../x"))])


def test_a_second_agent_of_the_folder_is_refused_while_the_first_lives(run, home):
    one, reader = run()
    one.submit([lease(shell("sleep 600"))])
    started = reader.started()
    with pytest.raises(ExecutorError, match="another agent holds"):
        agent(home, lock_wait_s=0.1)
    assert started
    assert not [r for r in reader.read(50) if r.kind is ReportKind.FINISHED]


def test_200_short_commands(run, capsys):
    one, reader = run()
    began = time.perf_counter()
    for n in (1, 2):
        one.submit([lease(*(task("/bin/true", job=f"j{n}", index=i) for i in range(100)), lease_id=f"l{n}")])
    reader.finished("j1.s.99.a1")
    reader.finished("j2.s.99.a1")
    took = time.perf_counter() - began
    with capsys.disabled():
        print(f"\n200 x /bin/true on 2 leases: {took * 5:.2f} ms each ")
    assert len([r for r in reader.all if r.state is AttemptState.SUCCEEDED]) == 200


def test_a_new_database_may_use_a_lease_id_again(run, tmp_path):
    one, reader = run()
    for submitted_ms in (1, 2):
        text = f"echo {submitted_ms} >outputs/a"
        again = shell(text, output_dir=str(tmp_path / "out"), outputs=("*",))
        one.submit([lease(again, submitted_ms=submitted_ms, roots=(str(tmp_path),))])
        done = until(lambda: [r for r in one.poll(wait_ms=100) if r.state], "its end")[0]
        assert done.state is AttemptState.SUCCEEDED
        one.acknowledge([r.cursor for r in one.poll()])
        assert (tmp_path / "out" / "a").read_text() == f"{submitted_ms}\n"
    assert reader


def test_what_a_user_wants_made_again_replaces_what_was_published(run, tmp_path):
    one, reader = run()
    out = tmp_path / "out"

    def attempt(text, number, stale_before=0):
        fields = {"output_dir": str(out), "outputs": ("a",), "number": number, "stale_before": stale_before}
        one.submit([lease(shell(text, **fields), lease_id=f"l{number}", roots=(str(tmp_path),))])
        done = reader.finished(f"j1.s.0.a{number}")
        return done.state, (out / "a").read_text()

    assert attempt("echo one >outputs/a", 1) == (AttemptState.SUCCEEDED, "one\n")
    assert attempt("echo two >outputs/a", 2) == (AttemptState.SUCCEEDED, "one\n"), "published already"
    assert attempt("exit 1", 3, stale_before=3) == (AttemptState.FAILED, "one\n"), "the old one stays until then"
    assert attempt("echo four >outputs/a", 4, stale_before=3) == (AttemptState.SUCCEEDED, "four\n")
    assert attempt("echo five >outputs/a", 5, stale_before=3) == (AttemptState.SUCCEEDED, "four\n"), (
        "made again already"
    )
