"""Where this node keeps the programs an order names by placeholder, and their versions for ``doctor``.

``{python}`` our interpreter · ``{blender}`` something that runs a script with ``bpy`` · ``{blender_runner}``,
``{encode_runner}``, ``{merge_runner}`` and ``{train_runner}`` our runner files · ``{train_python}`` a Python that has
``torch`` · ``{ocio}`` Blender's colour configuration · ``{work}`` the attempt's work folder. All other braces are left
as they are.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from scheduler.model.errors import ExecutorError

_log = logging.getLogger(__name__)

PROBE_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Absolute paths; ``blender`` is empty where there is none."""

    python: str
    blender: str = ""
    blender_is_python: bool = True
    """``blender`` is a Python that has ``bpy``, not the Blender program."""
    blender_runner: str
    encode_runner: str
    train_runner: str = ""
    train_python: str = ""
    """``SHISUAN_TRAIN_PYTHON``, else ours."""
    merge_runner: str = ""
    ocio: str = ""
    """Blender's OpenColorIO configuration; empty where there is no Blender."""

    def argv(self, words: Sequence[str], work: str) -> tuple[str, ...]:
        """``words`` with placeholders replaced. Raises ExecutorError when this node lacks the tool."""
        done: list[str] = []
        rest = list(words)
        while rest:
            word = rest.pop(0)
            if word == "{blender}":
                done.extend(self._blender(rest))
            else:
                done.append(self.text(word, work))
        return tuple(done)

    def text(self, text: str, work: str) -> str:
        """``text`` with placeholders replaced. Inside a JSON object, paths are escaped as JSON strings are."""
        if "{" not in text:
            return text
        is_json = text.startswith('{"')
        for name, path in self._places(work):
            if name in text:
                text = text.replace(name, json.dumps(path)[1:-1] if is_json else path)
        return text

    def programs(self, words: Sequence[str]) -> tuple[str, ...]:
        """Folders and files beside the system's own that running ``words`` needs to read."""
        need: list[str] = []
        for word in words:
            if word in ("{python}", "{encode_runner}"):
                need += [*prefixes(self.python), *_source(self.encode_runner)]
            elif word == "{train_runner}":
                need += [*prefixes(self.train_python), *_source(self.train_runner)]
            elif word == "{merge_runner}":
                need += [*prefixes(self.python), *_source(self.merge_runner)]
                need += [str(Path(self.ocio).parent)] if self.ocio else []
            elif word in ("{blender}", "{blender_runner}"):
                need += [*prefixes(self.blender), self.blender_runner]
        return tuple(path for path in dict.fromkeys(need) if os.path.exists(path))

    def _places(self, work: str) -> tuple[tuple[str, str], ...]:
        return (
            ("{python}", self.python),
            ("{blender_runner}", self.blender_runner),
            ("{encode_runner}", self.encode_runner),
            ("{train_runner}", self.train_runner),
            ("{train_python}", self.train_python),
            ("{merge_runner}", self.merge_runner),
            ("{ocio}", self.ocio),
            ("{work}", work),
        )

    def _blender(self, rest: list[str]) -> list[str]:
        if not self.blender:
            raise ExecutorError("this node has no Blender: set SHISUAN_BLENDER, or run make to build .venv-blender")
        if self.blender_is_python:
            return [self.blender, "-P"]  # no script's folder on sys.path; every bpy wheel needs a Python that has -P
        script = self.text(rest.pop(0), "") if rest else ""
        return [self.blender, "-b", "--factory-startup", "--disable-autoexec", "-P", script, "--"]


def find_tools() -> Tools:
    """The tools of this node: ``SHISUAN_BLENDER``, else ``.venv-blender`` beside us, else ``blender`` on PATH."""
    here = Path(__file__).resolve().parent
    blender = _find_blender(here.parent)
    return Tools(
        python=sys.executable,
        blender=blender,
        blender_is_python=Path(blender).name.startswith("python"),
        blender_runner=str(here / "blender_runner.py"),
        encode_runner=str(here / "encode_runner.py"),
        train_runner=str(here / "train_runner.py"),
        train_python=os.environ.get("SHISUAN_TRAIN_PYTHON") or sys.executable,
        merge_runner=str(here / "merge_runner.py"),
        ocio=_find_ocio(blender),
    )


def _find_ocio(blender: str) -> str:
    """It lies in Blender's data files: below the ``bpy`` package, or beside the program."""
    if not blender:
        return ""
    data = "datafiles/colormanagement/config.ocio"
    home = Path(blender).parent.parent  # of the environment: not through the link to the base interpreter
    found = sorted(home.glob(f"lib/python*/site-packages/bpy/*/{data}"))
    found = found or sorted(Path(blender).resolve().parent.glob(f"*/{data}"))
    return str(found[-1]) if found else ""


def _find_blender(checkout: Path) -> str:
    named = os.environ.get("SHISUAN_BLENDER", "")
    if named:
        return shutil.which(named) or ""
    built = checkout / ".venv-blender" / "bin" / "python"
    if built.exists():
        return str(built)
    return shutil.which("blender") or ""


def _source(runner: str) -> tuple[str, ...]:
    """The encode runner imports its neighbours and the model: our own source, which is no secret."""
    folder = Path(runner).parent
    beside = folder.parent / "scheduler"
    return (str(folder), str(beside)) if folder.name == "workers" and beside.is_dir() else (runner,)


@cache
def prefixes(program: str) -> tuple[str, ...]:
    """Folders a program needs to be read to run: for a Python its environment and the base it was made from."""
    if not program:
        return ()
    real = Path(program).resolve()
    is_python = Path(program).name.startswith("python")
    found = {str(real.parent.parent if is_python else real.parent)}
    home = Path(program).parent.parent
    settings = home / "pyvenv.cfg"
    if settings.exists():
        found.add(str(home))
        found.update(_base_prefixes(settings))
    return tuple(sorted(p for p in found if not _is_in_usr(p)))


def _base_prefixes(settings: Path) -> set[str]:
    """The base interpreter named by a virtual environment (``home`` in pyvenv.cfg, PEP 405), also resolved."""
    for line in settings.read_text().splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "home":
            base = Path(value.strip()).parent
            return {str(base), str(base.resolve())}
    return set()


def _is_in_usr(path: str) -> bool:
    return path in {"/", "/usr"} or path.startswith(("/usr/", "/bin", "/lib", "/sbin"))


def version(argv: Sequence[str]) -> str:
    """First line a program prints about itself, or empty when it does not run."""
    code, lines = _said(argv)
    return lines[0] if lines and code == 0 else ""


def _said(argv: Sequence[str]) -> tuple[int | None, list[str]]:
    """A program's exit code (None: it does not run, or not to its end) and the lines it prints, empty ones left out."""
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
            errors="replace",
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, [str(error)]
    return done.returncode, [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]


def blender_version(tools: Tools) -> str:
    """``4.5.15``, or empty when there is no working Blender. Starts it: takes seconds."""
    if not tools.blender:
        return ""
    if tools.blender_is_python:
        return version([tools.blender, "-P", "-c", "import bpy; print(bpy.app.version_string)"])
    return version([tools.blender, "--version"]).removeprefix("Blender ").strip()


def why_no_blender(tools: Tools) -> str:
    """The last line a Blender says that does not start; empty where there is none. Starts it: takes seconds."""
    if not tools.blender:
        return ""
    words = ["-P", "-c", "import bpy"] if tools.blender_is_python else ["--version"]
    code, lines = _said([tools.blender, *words])
    return lines[-1] if lines and code != 0 else f"exit code {code}"


def remove_tree(path: str) -> None:
    """Take a folder away; what resists is left and logged, it is found again at the next start."""

    def resisted(_: object, name: str, error: object) -> None:
        _log.warning("cannot remove %s: %s", name, error)

    shutil.rmtree(path, onerror=resisted)
