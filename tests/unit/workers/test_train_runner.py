import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from workers.train_runner import LINE_BYTES, WholeLines, environment, gang_of, torchrun

ROOT = Path(__file__).parents[3]
FAKE = Path(__file__).with_name("torchrun.py")
REQUEST = {"python": "/py", "script": "/s/train.py", "module": "", "args": ["--x", "1"], "env": {}, "processes": 0}
PAIR = {"SHISUAN_NUM_NODES": "2", "SHISUAN_NODE_RANK": "1", "MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "20123"}


def start(fake, environ=(), **request):
    asked = {**REQUEST, "python": str(FAKE), **request}
    bins = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return subprocess.Popen(
        [sys.executable, "-P", str(ROOT / "workers" / "train_runner.py"), json.dumps(asked)],
        env={"PATH": bins, "FAKE": fake, **PAIR, **dict(environ)},
        stdout=subprocess.PIPE,
        text=True,
    )


def run(fake, **request):
    running = start(fake, **request)
    out = running.communicate(timeout=60)[0]
    return running.returncode, out


def lines(out, word):
    return [line.partition(": ")[2] for line in out.splitlines() if line.startswith(f"shisuan_{word}: ")]


def interrupted(fake):
    running = start(fake)
    before = running.stdout.readline()
    running.send_signal(signal.SIGTERM)
    return running, before


def test_a_rank_of_a_gang_meets_where_it_was_told():
    gang = gang_of(REQUEST, PAIR)
    assert torchrun(REQUEST, gang) == [
        *("/py", "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", "1", "--nproc-per-node", "1"),
        *("--master-addr", "10.0.0.7", "--master-port", "20123", "--max-restarts", "0", "/s/train.py", "--x", "1"),
    ]


def test_one_node_meets_at_itself_and_a_module_is_run_as_one():
    gang = gang_of(REQUEST, {})
    words = torchrun({**REQUEST, "script": "", "module": "pack.train"}, gang)
    assert gang.host == "127.0.0.1"
    assert gang.port > 0
    assert words[-4:] == ["-m", "pack.train", "--x", "1"]
    assert environment(REQUEST, gang, {})["GLOO_SOCKET_IFNAME"] == "lo"


@pytest.mark.parametrize(
    ("cards", "asked", "processes", "backend"),
    [("", 0, 1, "gloo"), ("", 4, 4, "gloo"), ("GPU-a,GPU-b", 0, 2, "nccl"), ("GPU-a,GPU-b", 1, 1, "nccl")],
)
def test_a_process_per_card(cards, asked, processes, backend):
    environ = {**PAIR, "CUDA_VISIBLE_DEVICES": cards, "OMP_NUM_THREADS": "8"}
    request = {**REQUEST, "processes": asked}
    gang = gang_of(request, environ)
    assert (gang.processes, gang.backend) == (processes, backend)
    seen = environment(request, gang, environ)
    assert (seen["SHISUAN_BACKEND"], seen["OMP_NUM_THREADS"]) == (backend, str(8 // processes))


def test_the_job_files_own_variables_win_but_for_ours():
    request = {**REQUEST, "env": {"OMP_NUM_THREADS": "3", "GLOO_SOCKET_IFNAME": "eth1", "SHISUAN_BACKEND": "mpi"}}
    seen = environment(request, gang_of(request, {}), {})
    assert [seen[n] for n in ("OMP_NUM_THREADS", "GLOO_SOCKET_IFNAME", "SHISUAN_BACKEND")] == ["3", "eth1", "gloo"]


def test_output_passes_through_and_ends_with_facts():
    code, out = run("words")
    assert code == 0
    assert "--node-rank 1" in out
    assert json.loads(lines(out, "done")[-1]) == {"loss": 2, "world_size": 2, "backend": "gloo"}
    assert lines(out, "fail") == []


def test_processes_of_a_node_do_not_tear_each_others_lines(tmp_path):
    code, out = run("torn", processes=2, environ={"TMPDIR": str(tmp_path)})
    assert code == 0
    assert sorted(lines(out, "status")) == ["rank 0", "rank 1"]
    assert out.splitlines().count("left") == 2, "what has no end is passed on at the end"


@pytest.mark.parametrize(
    ("fed", "passed", "rest"),
    [
        (["a", "b\nc", "\n"], ["", "ab\n", "c\n"], ""),
        (["\r 10%", "\r 20%"], ["\r", " 10%\r"], " 20%\n"),
        (["x" * (LINE_BYTES + 1)], ["x" * (LINE_BYTES + 1)], ""),
    ],
    ids=["lines", "a progress bar", "a line without end"],
)
def test_what_is_held_back_of_a_line(fed, passed, rest):
    held = WholeLines()
    assert [held.feed(text.encode()).decode() for text in fed] == passed
    assert held.rest().decode() == rest


def test_it_ends_with_torchrun_even_if_something_left_behind_holds_its_output():
    running = start("leaves")
    left = running.stdout.readline()
    try:
        assert running.wait(60) == 0
    finally:
        os.kill(int(left), signal.SIGKILL)
    running.stdout.close()


def test_a_loss_that_is_not_finite_ends_it_at_once():
    code, out = run("nan")
    assert code == 1
    assert lines(out, "fail") == ["the loss is nan at step 4: stopped, nothing of it is kept"]


def test_on_sigterm_the_training_saves_and_torchrun_is_not_told():
    running, before = interrupted("save")
    out = running.communicate(timeout=60)[0]
    assert (before, running.returncode) == ("begun\n", 143)
    assert "saved" in out
    assert "torchrun was told" not in out
    assert lines(out, "fail") == []


@pytest.mark.parametrize("fake", ["sleep", "slow"], ids=["a training that saves nothing", "nothing trains yet"])
def test_on_sigterm_what_cannot_save_ends(fake):
    running, _ = interrupted(fake)
    running.communicate(timeout=60)
    assert running.returncode == 143


@pytest.mark.parametrize(
    ("fake", "why"),
    [
        ("raise", "training process 1 ended with exit code 1: ValueError: no such text"),
        ("killed", "training process 1 was killed by SIGKILL"),
    ],
)
def test_who_failed_first_is_said(fake, why):
    code, out = run(fake)
    assert (code, lines(out, "fail")) == (1, [why])


def test_a_python_that_is_not_there():
    code, out = run("words", python="/nowhere/python")
    assert code == 1
    assert lines(out, "fail") == ["the training cannot be started: No such file or directory: /nowhere/python"]
