"""A client of the Blender runner for tests, speaking the pipes as the agent does."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUNNER = ROOT / "workers" / "blender_runner.py"
ANSWER_DEADLINE_S = 120


def command() -> list[str] | None:
    """How to start the runner here, or None without a Blender."""
    blender = os.environ.get("SHISUAN_BLENDER") or str(ROOT / ".venv-blender" / "bin" / "python")
    found = shutil.which(blender) or shutil.which("blender")
    if found is None:
        return None
    if Path(found).name.startswith("python"):
        return [found, "-P", str(RUNNER)]
    return [found, "-b", "--factory-startup", "--disable-autoexec", "-P", str(RUNNER), "--"]


class Client:
    """One runner process. Use as a context manager."""

    def __init__(self, work: Path) -> None:
        env = {"PATH": "/usr/bin:/bin", "HOME": str(work), "TMPDIR": str(work), "CUDA_VISIBLE_DEVICES": ""}
        self.stderr_file = work / "stderr.log"
        with self.stderr_file.open("ab") as stderr:
            self.process = subprocess.Popen(
                command() or [],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=env,
                cwd=work,
                start_new_session=True,
            )
        self.lines: list[str] = []
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._queue.put(line.decode().rstrip("\n"))
        self._queue.put(None)

    def send(self, text: str) -> None:
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def next_line(self) -> str | None:
        line = self._queue.get(timeout=ANSWER_DEADLINE_S)
        if line is not None:
            self.lines.append(line)
        return line

    def answer(self) -> tuple[str, object]:
        """``("done", dict)``, ``("fail", reason)`` or ``("ended", None)``."""
        while (line := self.next_line()) is not None:
            word, _, text = line.partition(": ")
            if word == "shisuan_done":
                return "done", json.loads(text)
            if word == "shisuan_fail":
                return "fail", text
        return "ended", None

    def ask(self, **request: object) -> tuple[str, object]:
        self.send(json.dumps(request))
        return self.answer()

    def done(self, **request: object) -> dict:
        word, value = self.ask(**request)
        assert word == "done", value
        return value

    def refusal(self, **request: object) -> str:
        word, value = self.ask(**request)
        assert word == "fail", value
        return value

    def wait_for_log(self, words: str) -> None:
        """Until Blender has logged ``words``."""
        deadline = time.monotonic() + ANSWER_DEADLINE_S
        while words not in self.stderr_file.read_text(errors="replace"):
            assert self.process.poll() is None, "the runner ended"
            assert time.monotonic() < deadline, f"nothing about {words!r}"
            time.sleep(0.02)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()


def frame(blend: Path, number: int, out: Path, **over: object) -> dict:
    """A small, quick frame request; same fields as ``pipelines/render.py``."""
    return {
        "op": "frame",
        "blend": str(blend),
        "frame": number,
        "width": 96,
        "height": 54,
        "samples": 4,
        "engine": "CYCLES",
        "device": "auto",
        "seed": -1,
        "threads": 2,
        "out": str(out),
        "exr": f"f.{number:04d}.exr",
        "png": f"f.{number:04d}.png",
        **over,
    }


def pixels(path: Path) -> bytes:
    """All channel values of an EXR."""
    import OpenEXR

    with OpenEXR.File(str(path)) as file:
        return b"".join(file.channels()[name].pixels.tobytes() for name in sorted(file.channels()))
