"""Starts one rank of a training gang: ``python -P train_runner.py REQUEST``, documented in ``pipelines/train.py``.

It runs ``python -m torch.distributed.run`` (torchrun) with a static rendezvous and no restarts of its own: a further
try is a new attempt with a lease of its own. What the training prints passes through. On SIGTERM only the training
processes are told, not torchrun, which would give them 30 s whatever the job's grace is. A loss that is not finite ends
it at once. Imports no torch: the training's Python may be another one.

torchrun starts Python unbuffered: ``print("step", 4)`` is four writes. Where several processes share a node each gets a
pipe of its own, and whole lines of them are passed on: else they would tear each other's, protocol lines among them.
"""

from __future__ import annotations

import sys

if not sys.flags.safe_path and sys.path and sys.path[0] and __file__.startswith(sys.path[0]):
    del sys.path[0]  # this folder has an ffmpeg.py, which must not stand for the package of that name

import json
import os
import re
import select
import shlex
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers import procfs
from workers.metrics import STEP, not_finite
from workers.protocol import LineParser, Message, MessageKind

READ_BYTES = 64 * 1024
DRAIN_READS = 256
"""Of what is left in a pipe after the end: what was left behind may go on writing."""
LINE_BYTES = 64 * 1024
"""A line that is longer is passed on in pieces."""
PYTHON_EXEC = "PYTHON_EXEC"
"""torchrun's own variable: the program that it starts as the training's Python."""
LOOPBACK = "127.0.0.1"
STOPPED_EXIT_CODE = 128 + signal.SIGTERM
THREADS = "OMP_NUM_THREADS"
_ROOT_CAUSE = re.compile(
    rb"Root Cause.*?\n.*?\s+rank\s*:\s*(\d+) \(local_rank: \d+\)\s*\n\s*exitcode\s*:\s*(-?\d+) ", re.DOTALL
)
"""torchrun's own summary of the process that failed first (torch.distributed.elastic.multiprocessing.errors)."""
_EXCEPTION = re.compile(rb"^\[rank(\d+)\]: ((?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b.*)$", re.MULTILINE)
"""The last line of a traceback, as torch marks it with the rank once the group is made."""
_TAIL_BYTES = 64 * 1024
MAX_REASON_CHARS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """Who this is among the ranks, and where they meet."""

    nodes: int
    node_rank: int
    processes: int
    """On each node."""
    host: str
    port: int
    backend: str


def gang_of(request: Mapping[str, Any], environ: Mapping[str, str]) -> Gang:
    """From what the agent put into the environment. A gang on one node meets at a port of its own choice."""
    cards = [card for card in environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if card]
    nodes = int(environ.get("SHISUAN_NUM_NODES", "1"))
    host = environ.get("MASTER_ADDR", "") if nodes > 1 else LOOPBACK
    return Gang(
        nodes=nodes,
        node_rank=int(environ.get("SHISUAN_NODE_RANK", "0")),
        processes=int(request["processes"]) or len(cards) or 1,
        host=host,
        port=int(environ["MASTER_PORT"]) if nodes > 1 else _free_port(),
        backend="nccl" if cards else "gloo",
    )


def torchrun(request: Mapping[str, Any], gang: Gang) -> list[str]:
    """The command of this rank."""
    script = ["-m", str(request["module"])] if request["module"] else [str(request["script"])]
    return [
        str(request["python"]),
        *("-m", "torch.distributed.run"),
        *("--nnodes", str(gang.nodes)),
        *("--node-rank", str(gang.node_rank)),
        *("--nproc-per-node", str(gang.processes)),
        *("--master-addr", gang.host),
        *("--master-port", str(gang.port)),
        *("--max-restarts", "0"),
        *script,
        *(str(word) for word in request["args"]),
    ]


def environment(request: Mapping[str, Any], gang: Gang, environ: Mapping[str, str]) -> dict[str, str]:
    """What the training sees: ours, then the job file's own, which wins but for our SHISUAN_ names."""
    threads = max(1, int(environ.get(THREADS, "1")) // gang.processes)
    network = {"GLOO_SOCKET_IFNAME": "lo"} if gang.host == LOOPBACK else {}
    return {
        **environ,
        THREADS: str(threads),
        **network,
        **{str(name): str(value) for name, value in request["env"].items()},
        "SHISUAN_BACKEND": gang.backend,
    }


class WholeLines:
    """One process's output, held back where a line has begun."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What can be passed on now; a progress bar's lines end with a carriage return."""
        data = self._held + data
        end = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if len(data) - end > LINE_BYTES:
            end = len(data)
        self._held = data[end:]
        return data[:end]

    def rest(self) -> bytes:
        """A last line that never ended."""
        held, self._held = self._held, b""
        return held + b"\n" if held else b""


def own_pipes(folder: Path, python: str, processes: int) -> tuple[list[int], dict[str, str]]:
    """A pipe per process, and the variables by which torchrun starts each with its own. Raises OSError.

    ``folder`` is the runner's own; ``python`` the program that torchrun would start.
    """
    pipes = []
    for rank in range(processes):
        os.mkfifo(folder / str(rank))
        pipes.append(os.open(folder / str(rank), os.O_RDWR | os.O_NONBLOCK))  # our own writing end: it never closes
    start = folder / "python"
    words = f'exec {shlex.quote(python)} "$@" >{shlex.quote(str(folder))}/"$LOCAL_RANK" 2>&1'
    start.write_text(f"#!/bin/sh\nunset {PYTHON_EXEC}\n{words}\n", encoding="utf-8")
    start.chmod(0o700)
    return pipes, {PYTHON_EXEC: str(start)}


class Training:
    """One torchrun and what becomes of it. ``pipes`` are those of its processes, where they have their own."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], pipes: Sequence[int] = ()) -> None:
        self._parser = LineParser()
        self._tail = b""
        self.stopping = False
        self.failure = ""
        self.told: dict[str, Any] = {}
        """The training's own ``shisuan_done``."""
        # A session of its own: the agent's SIGTERM to our group must not reach torchrun.
        self._torchrun = subprocess.Popen(
            command,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._torchrun.stdout is not None
        out = self._torchrun.stdout.fileno()
        os.set_blocking(out, False)
        self._streams = {fd: WholeLines() if pipes else None for fd in (out, *pipes)}

    def run(self) -> int:
        """Pass its output on until it ends; its exit code.

        Its end is torchrun's, not that of the output: a process left behind may hold a pipe open.
        """
        ended, opened = os.pidfd_open(self._torchrun.pid), set(self._streams)
        while ended not in (ready := select.select([*opened, ended], [], [])[0]):
            opened -= {fd for fd in ready if self._read(fd) == b""}
        for fd, lines in self._streams.items():
            for _ in range(DRAIN_READS):
                if not self._read(fd):
                    break
            if lines is not None:
                self._pass_on(lines.rest())
        return self._torchrun.wait()

    def _read(self, fd: int) -> bytes | None:
        """Pass on what can be read now: empty where the pipe is closed, None for nothing yet."""
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return None
        lines = self._streams[fd]
        self._pass_on(data if lines is None else lines.feed(data))
        return data

    def _pass_on(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        messages = self._parser.feed(data)
        _write(data)
        for message in messages:
            self._hear(message)

    def stop(self) -> None:
        """SIGTERM to the training processes; what has not begun training yet ends with torchrun."""
        self.stopping = True
        workers = self._workers()
        for pid in workers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        if not workers:
            self.kill()

    def kill(self) -> None:
        """All of it, now. Training processes lead sessions of their own."""
        for pid in (*self._workers(), self._torchrun.pid):
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def root_cause(self) -> str:
        """Which rank failed first and how, as torchrun tells it."""
        found = _ROOT_CAUSE.search(self._tail)
        if found is None:
            return "the training failed: see the log"
        code = int(found[2])
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        raised = [text for rank, text in _EXCEPTION.findall(self._tail) if rank == found[1]]
        why = f": {raised[-1].decode(errors='replace')[:MAX_REASON_CHARS]}" if raised and code > 0 else ""
        return f"training process {int(found[1])} {how}{why}"

    def _workers(self) -> list[int]:
        return list(procfs.children(self._torchrun.pid))

    def _hear(self, message: Message) -> None:
        if message.kind is MessageKind.DONE:
            told = json.loads(message.text)
            self.told = told if isinstance(told, dict) else {"result": told}
        elif message.kind is MessageKind.METRIC and not self.failure:
            bad = not_finite(message.values)
            if bad is not None:
                step = dict(message.values).get(STEP)
                at = f" at step {step:g}" if step is not None else ""
                self.failure = f"the {bad[0]} is {bad[1]}{at}: stopped, nothing of it is kept"
                self.kill()


def begin(request: Mapping[str, Any], gang: Gang) -> Training:
    """Start it. Raises OSError."""
    environ, pipes = environment(request, gang, os.environ), list[int]()
    if gang.processes > 1:
        folder = Path(tempfile.mkdtemp(prefix=".training-"))  # in the attempt's work folder, and gone with it
        python = environ.get(PYTHON_EXEC) or str(request["python"])
        pipes, start = own_pipes(folder, python, gang.processes)
        environ |= start
    return Training(torchrun(request, gang), environ, pipes)


def _free_port() -> int:
    """For a gang on one node. In a sandbox the network is its own; elsewhere others may be quicker, and it fails."""
    with socket.socket() as trial:
        trial.bind((LOOPBACK, 0))
        return int(trial.getsockname()[1])


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def say(word: str, text: str) -> None:
    """A protocol line, on a line of its own whatever was printed before."""
    _write(f"\nshisuan_{word}: {text}\n".encode())


def main(argv: list[str]) -> int:
    """Run one rank; its exit code."""
    try:
        request = json.loads(argv[1])
        gang = gang_of(request, os.environ)
        training = begin(request, gang)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        say("fail", f"the request cannot be read: {type(error).__name__}: {error}")
        return 1
    except OSError as error:
        say("fail", f"the training cannot be started: {error.strerror}: {error.filename}")
        return 1
    signal.signal(signal.SIGTERM, lambda *_: training.stop())
    code = training.run()
    facts = {"world_size": gang.nodes * gang.processes, "backend": gang.backend} | training.told
    say("done", json.dumps(facts, separators=(",", ":")))
    if training.failure:
        say("fail", training.failure)
        return 1
    if training.stopping:
        return STOPPED_EXIT_CODE
    if code:
        say("fail", training.root_cause())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
