"""A lease of several tasks shares one sandbox: each task must find it as it would find one of its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from scheduler.model.errors import ExecutorError
from scheduler.model.lease import AttemptState
from scheduler.model.order import ReportKind
from tests.unit.workers.helpers import NODE, TENANT, lease, shell, task, until
from workers import procfs

SANDBOX = "readlink /proc/self/ns/pid"
"""Names the sandbox a task runs in."""


@pytest.fixture
def bwrap(run):
    def start(**fields):
        try:
            return run(confinement="bubblewrap", **fields)
        except ExecutorError as error:
            pytest.skip(str(error))

    return start


def name(index):
    return f"j1.s.{index}.a1"


def run_all(one, reader, *texts, **fields):
    """One lease with a task per text; the reports of their ends."""
    return ends(one, reader, [shell(text, index=i) for i, text in enumerate(texts)], **fields)


def ends(one, reader, tasks, **fields):
    one.submit([lease(*tasks, **fields)])
    return [reader.finished(each.attempt_id) for each in tasks]


def logs(one, count):
    return [one.read_log(name(i)).text for i in range(count)]


def test_tasks_of_a_lease_share_a_sandbox_and_leases_do_not(bwrap):
    one, reader = bwrap()
    run_all(one, reader, SANDBOX, SANDBOX)
    ends(one, reader, [shell(SANDBOX, index=2), shell(SANDBOX, index=3)], lease_id="l2")
    first, second, third, fourth = logs(one, 4)
    assert first == second != third == fourth


def test_a_log_is_exactly_what_its_task_printed(bwrap):
    one, reader = bwrap()
    texts = (
        "printf one",
        "true",
        r"printf '\n\nthree\n\n'",
        "echo 视算 >&2; printf '\\200\\377' | od -An -c",
        "yes | head -c 300000",
    )
    run_all(one, reader, *texts)
    assert logs(one, 4) == ["one", "", "\n\nthree\n\n", "视算\n 200 377\n"]
    log = reader_text(one, name(4))
    assert log == "y\n" * 150_000


def reader_text(one, attempt):
    text, offset, end = "", 0, False
    while not end:
        part = one.read_log(attempt, offset)
        text, offset, end = text + part.text, part.next_offset, part.end
    return text


def test_ends_are_told_as_those_of_a_sandbox_of_its_own(bwrap):
    one, reader = bwrap()
    texts = ("exit 3", "kill -SEGV $$", "echo 'shisuan_fail: wrong frame'", "exit 0", "kill -9 $$")
    told = [(r.state, r.exit_code, r.message) for r in run_all(one, reader, *texts)]
    for index, text in enumerate(texts):
        [alone] = ends(one, reader, [shell(text, index=10 + index)], lease_id=f"alone-{index}")
        assert told[index] == (alone.state, alone.exit_code, alone.message)
    assert told[1] == (AttemptState.FAILED, -11, "killed by SIGSEGV")


@pytest.mark.parametrize("program", ["no-such-program", "/no/such/program", "/etc/passwd"])
def test_a_program_that_is_not_there_is_named_and_the_next_task_runs(bwrap, program):
    one, reader = bwrap()
    first, second = ends(one, reader, [task(program), task("/bin/true", index=1)])
    assert first.state is AttemptState.FAILED
    assert "no such program" in first.message
    assert program in first.message
    assert second.state is AttemptState.SUCCEEDED


def test_a_program_the_runner_may_not_see_is_named(bwrap, tmp_path):
    one, reader = bwrap()
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    first, _ = ends(one, reader, [task(str(tool)), task("/bin/true", index=1)])
    assert "may not see the program" in first.message


WORDS = ("a b", "'", '"', "$HOME", "`id`", "a\nb", "\\", "é\u0081視", "", "-n", "*", "x;y&z")


def test_words_arrive_as_they_were_said(bwrap):
    one, reader = bwrap()
    argv = ("/usr/bin/printf", "<%s>", *WORDS)
    env = (("WORDS", "".join(WORDS)), ("lower_1", "x"))
    run_one = task(*argv, env=env)
    show = task("/usr/bin/printenv", "WORDS", index=1, env=env)
    ends(one, reader, [run_one, show])
    ends(one, reader, [task(*argv, env=env, index=2)], lease_id="l2")
    ends(one, reader, [task("/usr/bin/printenv", "WORDS", index=3, env=env)], lease_id="l3")
    shared_argv, shared_env, own_argv, own_env = logs(one, 4)
    assert (shared_argv, shared_env) == (own_argv, own_env)
    assert "<$HOME><`id`><a\nb>" in shared_argv


def test_environment_and_folder_are_those_of_the_task(bwrap):
    one, reader = bwrap()
    show = "/usr/bin/env; pwd; ls -A; ls -l /proc/self/fd | wc -l; cat; umask; ps -o pid= | wc -l; echo $PPID"
    tasks = [shell(show, index=i, token=f"tok{i}", env=(("COLOUR", f"c{i}"),)) for i in range(3)]
    ends(one, reader, tasks[:2])
    ends(one, reader, tasks[2:], lease_id="l2")
    seen = [sorted(text.splitlines()) for text in logs(one, 3)]
    for i, lines in enumerate(seen):
        assert f"COLOUR=c{i}" in lines
        assert f"SHISUAN_TOKEN=tok{i}" in lines
        assert f"SHISUAN_TASK_INDEX={i}" in lines

    def plain(lines, i):
        """What is not said of one task in particular; the sandbox of one task has a reaper beside it."""
        return [
            line.replace(name(0), "W").replace(name(2), "W")
            for line in lines
            if line not in {f"COLOUR=c{i}", f"SHISUAN_TOKEN=tok{i}", f"SHISUAN_TASK_INDEX={i}"}
        ]

    assert plain(seen[0], 0) == plain(seen[1], 1) == plain(seen[2], 2)


@pytest.mark.parametrize("variable", ["IFS", "OPTIND", "PWD", "BASH_ENV", "with-dash", "PPID"])
def test_a_variable_that_shells_treat_as_their_own_arrives_all_the_same(bwrap, variable):
    one, reader = bwrap()
    env = ((variable, "x y"),)
    ends(one, reader, [task("/usr/bin/env", env=env), task("/usr/bin/env", index=1, env=env)])
    ends(one, reader, [task("/usr/bin/env", index=2, env=env)], lease_id="l2")
    wanted = [line for line in logs(one, 3)[2].splitlines() if line.startswith(f"{variable}=")]
    for text in logs(one, 2):
        found = [line for line in text.splitlines() if line.startswith(f"{variable}=")]
        assert [line.replace(name(2), "") for line in wanted] == [
            line.replace(name(0), "").replace(name(1), "") for line in found
        ]


def test_outputs_are_those_of_the_task(bwrap, tmp_path):
    one, reader = bwrap()
    out = tmp_path / "out"
    fields = {"output_dir": str(out), "outputs": ("*",)}
    text = "ls -A . outputs; echo $SHISUAN_TASK_INDEX >outputs/f$SHISUAN_TASK_INDEX; mkdir -p a/b; touch a/b/.c .d"
    told = ends(one, reader, [shell(text, index=i, **fields) for i in range(3)], roots=(str(tmp_path),))
    assert [r.outputs for r in told] == [(f"{out}/f{i}",) for i in range(3)]
    assert [(out / f"f{i}").read_text() for i in range(3)] == ["0\n", "1\n", "2\n"]
    assert logs(one, 3) == [".:\noutputs\n\noutputs:\n"] * 3


def test_a_folder_that_was_shut_is_open_for_the_next_task(bwrap):
    one, reader = bwrap()
    shut = "mkdir -p a/b outputs/c; touch a/b/c; chmod 0 a/b a outputs/c outputs .; exit 0"
    told = run_all(one, reader, shut, "ls -A; touch outputs/x", "rmdir outputs; ln -s /etc outputs", "touch outputs/x")
    assert [r.state for r in told] == [AttemptState.SUCCEEDED] * 4
    assert logs(one, 2)[1] == "outputs\n"


@pytest.mark.parametrize("place", ["/tmp/x", "/tmp/.x", "/dev/shm/x"])
def test_what_stays_behind_outside_the_work_folder_costs_the_sandbox(bwrap, place):
    one, reader = bwrap()
    text = f"{SANDBOX}; test ! -e {place} && touch {place}"
    told = run_all(one, reader, text, text, SANDBOX, SANDBOX)
    assert [r.state for r in told] == [AttemptState.SUCCEEDED] * 4
    first, second, third, fourth = logs(one, 4)
    assert len({first, second, third}) == 3
    assert third == fourth


def test_leftovers_are_dead_before_the_next_task_begins(bwrap):
    one, reader = bwrap()
    leave = "sleep 600 & setsid -f sh -c 'trap \"\" TERM HUP; while :; do echo still; done' >>trace 2>&1; exit 0"
    count = "set -- /proc/[0-9]*; echo $#"
    run_all(one, reader, count, leave, count, leave, count)
    before, _, between, _, after = logs(one, 5)
    assert before == between == after


def test_a_task_cannot_kill_the_shell(bwrap):
    one, reader = bwrap()
    texts = (SANDBOX, "kill -9 $PPID 1; kill -TERM 1; kill -SEGV 1; exit 4", "kill -9 -1; exit 5", SANDBOX)
    told = run_all(one, reader, *texts)
    assert [r.exit_code for r in told] == [0, 4, 5, 0]
    first, _, _, last = logs(one, 4)
    assert first == last


def test_a_sandbox_that_dies_takes_one_task_with_it(bwrap, home):
    one, reader = bwrap()
    one.submit([lease(shell("echo here; sleep 600"), shell("echo next", index=1))])
    until(lambda: "here" in one.read_log(name(0)).text, "it runs")
    [started] = table_starts(one, name(0))
    os.killpg(started.pid, signal.SIGKILL)
    done = reader.finished()
    assert (done.state, done.message) == (AttemptState.FAILED, "killed by SIGKILL")
    assert reader.finished(name(1)).state is AttemptState.SUCCEEDED
    assert one.read_log(name(1)).text == "next\n"


def table_starts(one, attempt):
    leases = one._table.leases.values()
    return [lease.started[attempt] for lease in leases if attempt in lease.started]


def test_a_task_past_its_time_ends_politely_and_the_sandbox_stays(bwrap):
    one, reader = bwrap()
    polite = "trap 'echo stopping; exit 0' TERM; while :; do sleep 0.01; done"
    tasks = (shell(SANDBOX), shell(polite, index=1, timeout_ms=300), shell(SANDBOX, index=2))
    _, late, after = ends(one, reader, tasks)
    assert (late.state, late.exit_code, late.message) == (AttemptState.TIMED_OUT, 0, "timed out after 0.3 s")
    assert after.state is AttemptState.SUCCEEDED
    first, second, third = logs(one, 3)
    assert first == third
    assert second.endswith("stopping\n")


def test_a_deaf_task_past_its_time_is_killed_and_the_next_one_runs(bwrap):
    one, reader = bwrap()
    deaf = shell("trap '' TERM; while :; do sleep 0.01; done", index=1, timeout_ms=300, grace_ms=100)
    _, late, after = ends(one, reader, (shell("true"), deaf, shell("true", index=2)))
    assert (late.state, late.exit_code) == (AttemptState.TIMED_OUT, -9)
    assert after.state is AttemptState.SUCCEEDED


def test_a_stop_in_the_middle_ends_the_rest(bwrap, home):
    one, reader = bwrap()
    one.submit([lease(shell("true"), shell("echo here; sleep 600", index=1), shell("true", index=2))])
    until(lambda: "here" in one.read_log(name(1)).text, "it runs")
    one.stop(["l1"], "cancelled by a user")
    assert reader.finished(name(0)).state is AttemptState.SUCCEEDED
    assert reader.finished(name(1)).state is AttemptState.CANCELLED
    assert reader.finished(name(2)).state is AttemptState.CANCELLED
    assert not [r for r in reader.all if r.attempt_id == name(2) and r.kind is ReportKind.STARTED]
    nothing_is_left(home)


def test_stops_at_any_moment_are_not_lost(bwrap, home):
    one, reader = bwrap()
    for i in range(20):
        tasks = [shell("sleep 600", job=f"j{i}", index=k) for k in range(2)]
        one.submit([lease(*tasks, lease_id=f"l{i}")])
        if i % 2:
            reader.started(f"j{i}.s.0.a1")
        one.stop([f"l{i}"], "cancelled by a user")
    for i in range(20):
        assert reader.finished(f"j{i}.s.1.a1").state is AttemptState.CANCELLED
    nothing_is_left(home)


def nothing_is_left(home):
    work = home / "nodes" / NODE / TENANT / "work"
    until(lambda: not procfs.marked(str(work)) and not list(work.iterdir()), "no process and no folder left")


def test_folder_and_sandbox_are_gone_after_the_lease(bwrap, home):
    one, reader = bwrap()
    run_all(one, reader, "touch outputs/x; sleep 600 & exit 0", "touch y; setsid -f sleep 600")
    nothing_is_left(home)


def test_closing_the_agent_ends_the_sandbox(bwrap, home):
    one, _ = bwrap()
    one.submit([lease(shell("echo here; sleep 600"), shell("true", index=1))])
    until(lambda: "here" in one.read_log(name(0)).text, "it runs")
    one.close()
    nothing_is_left(home)


def test_a_task_cannot_write_outside_its_folder(bwrap, home, tmp_path):
    one, reader = bwrap()
    own = home / "nodes" / NODE / TENANT
    places = (own / "work" / "x", own / "x", own / "table.log", home / "x", tmp_path / "x", "/usr/x", "/etc/x")
    # A shell ends at a redirection that fails only in its special builtins; `:` in a subshell spares the rest.
    text = "; ".join(f"(echo x >>{place}) 2>/dev/null && echo WROTE {place}" for place in places)
    (own / "work").mkdir(parents=True, exist_ok=True)
    run_all(one, reader, text, f"mv $PWD $PWD.x && echo MOVED; rmdir $PWD && echo GONE; {text}")
    for log in logs(one, 2):
        assert "MOVED" not in log
        assert "GONE" not in log
    assert not [place for place in places if str(place).endswith("/x") and Path(place).exists()]
    assert b"\nx\n" not in (own / "table.log").read_bytes()


def test_a_task_that_answers_in_the_shell_s_name_harms_nobody_else(bwrap):
    """The shell's descriptor is a socket: it cannot be opened again through /proc."""
    one, reader = bwrap()
    told = run_all(one, reader, "echo '0 0' >/proc/1/fd/0; exit 3", "exit 4")
    assert [r.exit_code for r in told] == [3, 4]


def test_an_input_replaced_between_two_tasks_is_seen(bwrap, tmp_path):
    one, reader = bwrap()
    path, gate = tmp_path / "in", tmp_path / "gate"
    path.write_text("old\n")
    gate.mkdir()
    reads = (str(path), str(gate))
    wait = shell(f"cat {path}; while [ ! -e {gate}/open ]; do sleep 0.01; done", reads=reads)
    one.submit([lease(wait, shell(f"cat {path}", index=1, reads=reads), roots=(str(tmp_path),))])
    until(lambda: "old" in one.read_log(name(0)).text, "it runs")
    fresh = tmp_path / "fresh"
    fresh.write_text("new\n")
    fresh.replace(path)
    (gate / "open").touch()
    reader.finished(name(1))
    assert logs(one, 2) == ["old\n", "new\n"]


def test_a_folder_that_grows_keeps_the_sandbox_and_shows_what_is_new(bwrap, tmp_path):
    one, reader = bwrap()
    text = f"{SANDBOX}; ls {tmp_path}/out*"
    fields = {"reads": (str(tmp_path),), "outputs": ("*",)}
    tasks = [
        shell(f"{text}; touch outputs/f", index=i, output_dir=str(tmp_path / f"out{i}"), **fields) for i in range(2)
    ]
    ends(one, reader, tasks, roots=(str(tmp_path),))
    first, second = (text.splitlines()[0] for text in logs(one, 2))
    assert first == second
    assert f"{tmp_path}/out0" in logs(one, 2)[1]


@pytest.mark.parametrize("number", [1, 2])
def test_tasks_that_read_different_files_see_their_own(bwrap, tmp_path, number):
    one, reader = bwrap()
    paths = [tmp_path / f"in{i}" for i in range(2)]
    for path in paths:
        path.write_text(f"{path.name}\n")
    tasks = [
        shell(f"cat {tmp_path}/in* 2>/dev/null", index=i, number=number, reads=(str(path),))
        for i, path in enumerate(paths)
    ]
    ends(one, reader, tasks, roots=(str(tmp_path),))
    assert [one.read_log(each.attempt_id).text for each in tasks] == ["in0\n", "in1\n"]


def test_a_long_command_goes_its_own_way(bwrap):
    one, reader = bwrap()
    long = "x" * 90_000
    tasks = [task("/usr/bin/printf", "%s", long, index=i) for i in range(2)]
    ends(one, reader, tasks)
    assert [reader_text(one, name(i)) for i in range(2)] == [long, long]
