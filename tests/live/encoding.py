"""A driver for the encode runner: real ones as subprocesses, as the agent starts them, or its parts in this process."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
from PIL import Image

from scheduler.model.errors import ExecutorError
from workers.encoding import audio, film, join
from workers.encoding.request import Request
from workers.mediacheck import BadMedia

RUNNER = Path(__file__).parents[2] / "workers" / "encode_runner.py"
COUNT = 24
OPS = {"film": film.film, "chunk": film.chunk, "audio": audio.audio, "join": join.join}


def write_frames(folder, count=COUNT, size=(64, 36)):
    folder.mkdir(exist_ok=True)
    y, x = numpy.mgrid[0 : size[1], 0 : size[0]]
    for n in range(1, count + 1):
        picture = numpy.stack([(x * 3 + n * 5) % 256, (y * 5) % 256, numpy.full_like(x, 7 * n)], axis=-1)
        Image.fromarray(picture.astype(numpy.uint8)).save(folder / f"film.{n:04d}.png")
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class Encode:
    """Runs the runner in a folder of its own."""

    def __init__(self, tmp_path):
        self.out = tmp_path / "outputs" / "film.mp4"
        self.env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}

    def argv(self, source, path, **over):
        request = {
            "source": source,
            "input": str(path),
            "first": -1,
            "last": -1,
            "step": 1,
            "fps": "24",
            "codec": "h264",
            "crf": 20,
            "preset": "ultrafast",
            "threads": 1,
            "out": str(self.out),
            "expect_frames": 0,
            **over,
        }
        return [sys.executable, "-P", str(RUNNER), json.dumps(request)]

    def run(self, source, path, **over):
        """``(exit code, word, text)`` of the last protocol line."""
        argv = self.argv(source, path, **over)
        done = subprocess.run(argv, env=self.env, capture_output=True, text=True, timeout=120, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith(("shisuan_done", "shisuan_fail"))]
        assert len(lines) == 1, done.stdout + done.stderr
        word, _, text = lines[0].removeprefix("shisuan_").partition(": ")
        return done.returncode, word, text

    def done(self, source, path, **over):
        code, word, text = self.run(source, path, **over)
        assert (code, word) == (0, "done"), text
        assert names(self.out.parent) == [Path(over.get("out", self.out)).name]
        return json.loads(text)

    def fail(self, source, path, **over):
        code, word, text = self.run(source, path, **over)
        assert (code, word) == (1, "fail")
        assert not self.out.parent.exists() or names(self.out.parent) == []
        return text

    def with_ffmpeg(self, tmp_path, binary, body, *, probes=False):
        """An ffmpeg that does ``body``: Python, with ``args`` and ``real(args)``; ``probes``: also when it is tried."""
        fake = tmp_path / "ffmpeg"
        fake.write_text(f"""#!{sys.executable}
import os, signal, sys, time
args = sys.argv[1:]
def real(args):
    sys.stdout.flush()
    os.execv({binary!r}, [{binary!r}, *args])
if ("lavfi" in args and not {probes}) or "-version" in args:
    real(args)
{body}
""")
        fake.chmod(0o755)
        self.env["SHISUAN_FFMPEG"] = str(fake)


def make(binary, path, *words):
    """With x264 unless the words say otherwise; the last word wins."""
    coded = [] if "-c:v" in words else ["-c:v", "libx264"]
    subprocess.run([binary, "-nostdin", "-loglevel", "error", *words, *coded, str(path)], check=True)
    return path


def request(op, source, path, **over):
    """What a planner would ask."""
    return Request.of(
        {
            "op": op,
            "source": source,
            "input": str(path),
            "first": -1,
            "last": -1,
            "step": 1,
            "fps": "",
            "codec": "h264",
            "crf": 20,
            "preset": "ultrafast",
            "threads": 1,
            "out": "",
            "expect_frames": 0,
            **over,
        }
    )


def here(op, source, path, folder, **over):
    """Does it in this process, without the second that a fresh Python takes."""
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    try:
        return OPS[op](request(op, source, path, **over), str(scratch))
    finally:
        shutil.rmtree(scratch)


class Here(Encode):
    """As Encode, in this process."""

    def __init__(self, tmp_path, monkeypatch):
        super().__init__(tmp_path)
        self._tmp_path, self._monkeypatch = tmp_path, monkeypatch

    def run(self, source, path, **over):
        """``(exit code, word, text)``, as the program would end."""
        given = {"op": "film", "fps": "24", "out": str(self.out), **over}
        if "SHISUAN_FFMPEG" in self.env:
            self._monkeypatch.setenv("SHISUAN_FFMPEG", self.env["SHISUAN_FFMPEG"])
        try:
            return 0, "done", json.dumps(here(source=source, path=path, folder=self._tmp_path / "here", **given))
        except (BadMedia, ExecutorError) as fault:
            return 1, "fail", str(fault)


class Chunks:
    """The tasks of one chunked film, in this process."""

    def __init__(self, folder, source, path, count, **over):
        self.folder, self.source, self.path, self.count, self.over = folder, source, path, count, over
        self.parts, self.out = folder / "parts", folder / "joined.mp4"
        self.parts.mkdir(parents=True)

    def chunk(self, number):
        out = self.parts / f"chunk.{number:04d}.mp4"
        return self._do("chunk", chunk=number, chunks=self.count, out=str(out))

    def sound(self):
        return self._do("audio", out=str(self.parts / "audio.m4a"))

    def join(self, **over):
        words = {"chunks": self.count, "parts": f"{self.parts}/chunk.####.mp4", "sound": str(self.parts), **over}
        return self._do("join", **({"out": str(self.out)} | words))

    def film(self):
        """All chunks, the sound, the film: its facts."""
        for number in range(self.count):
            self.chunk(number)
        if self.source == "video" and self.over.get("audio", "aac") == "aac":
            self.sound()
        return self.join()

    def _do(self, op, **over):
        return here(op, self.source, self.path, self.folder / op, **self.over, **over)
