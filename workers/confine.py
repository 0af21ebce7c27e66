"""How much a runner is kept apart: bubblewrap, else a user id of its own, else nothing (and ``doctor`` says so).

=============  ====================================================================================================
``bubblewrap``  sees the system's programs, its own read paths and its work folder; no other processes; network in gangs
``uid``         runs as a user id of this agent and tenant; sees what every user of the machine may see
``none``        runs as the agent's user and sees what that user sees
=============  ====================================================================================================
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scheduler.model.errors import ExecutorError
from workers.devices import device_files
from workers.process import Command
from workers.tools import Tools

_BWRAP = shutil.which("bwrap") or ""
_SETPRIV = shutil.which("setpriv") or ""
SHELL = "/bin/sh"
LEVELS = ("bubblewrap", "uid", "none")
PROBE_TIMEOUT_S = 30

_ETC = (
    "alternatives",
    "ca-certificates",
    "fonts",
    "group",
    "host.conf",
    "hosts",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "mime.types",
    "nsswitch.conf",
    "passwd",
    "ssl/certs",
    "OpenCL",
    "vulkan",
    "glvnd",
)
"""Of /etc, what programs need; the rest may hold a machine's secrets (shadow, ssh, sudoers, keytabs). It is copied:
each bind mount costs a runner 0.1 ms of waiting in the kernel, a copy of the whole costs one."""

_TMP = "/tmp"  # noqa: S108 - the sandbox has one of its own
_LOADER = ("LD_", "GLIBC_", "GCONV_", "MALLOC_", "LOCPATH", "NLSPATH")
"""Variables the dynamic loader and the C library obey: they must not reach setpriv, which still runs as root."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What one runner may see and do. Paths are absolute."""

    work: str
    """Writable, and where it starts."""
    reads: tuple[tuple[str, str], ...] = ()
    """Real path, and the path under which the runner knows it."""
    writes: tuple[tuple[str, str], ...] = ()
    """Folders beside ``work`` that it may change: real path and name, as in ``reads``."""
    programs: tuple[str, ...] = ()
    """Folders and files of interpreters and runners, read-only."""
    devices: tuple[str, ...] = ()
    hidden: str = ""
    """The installation's home: never shown, even if a folder above it may be read."""
    network: bool = False


class Confinement:
    """The weakest level, and the interface of all."""

    name = "none"
    sentence = "none: runners run as this service's own user and can read and write all that it can"
    uid = 0
    """User id of the runners, 0: the agent's own."""

    def hand_over(self, folder: str) -> None:
        """Make a work folder the runner's."""

    def command(self, argv: tuple[str, ...], env: Mapping[str, str], cell: Cell) -> Command:
        """The command to spawn. Raises ExecutorError when the runner could not even see its program."""
        program = _program(argv, env)
        prefix = (_SETPRIV, "--pdeathsig", "KILL", "--") if _SETPRIV else ()
        return Command(argv=(*prefix, program, *argv[1:]), env=env, cwd=cell.work)

    def shell(self, env: Mapping[str, str], cell: Cell) -> Command | None:
        """A shell that runs one task after the other in the same cell, or None where that would not keep them apart."""
        return None

    def program(self, argv: Sequence[str], env: Mapping[str, str], cell: Cell) -> str:
        """The absolute path of the program. Raises ExecutorError when the runner could not even see it."""
        return _program(argv, env)


class UidConfinement(Confinement):
    """Needs root. Files are protected by their permissions only, and the network is open."""

    name = "uid"

    def __init__(self, folder: Path) -> None:
        self.uid = _uid_of(folder)
        self.sentence = (
            f"uid: runners run as user id {self.uid}; they can read what every user of this machine can, "
            "and reach the network"
        )

    def hand_over(self, folder: str) -> None:
        """Make a work folder the runner's."""
        os.chown(folder, self.uid, self.uid)

    def command(self, argv: tuple[str, ...], env: Mapping[str, str], cell: Cell) -> Command:
        """Loader variables are set after the user changed."""
        program = _program(argv, env)
        late = tuple(f"{name}={value}" for name, value in env.items() if name.startswith(_LOADER))
        early = {name: value for name, value in env.items() if not name.startswith(_LOADER)}
        prefix = (
            _SETPRIV,
            "--reuid",
            str(self.uid),
            "--regid",
            str(self.uid),
            "--clear-groups",
            "--no-new-privs",
            "--inh-caps=-all",
            "--pdeathsig",
            "KILL",
            "--",
            *(("/usr/bin/env", *late) if late else ()),
        )
        return Command(argv=(*prefix, program, *argv[1:]), env=early, cwd=cell.work)


class BubblewrapConfinement(Confinement):
    """Linux namespaces. Arguments go through a descriptor: a command line is public, and the token is among them."""

    name = "bubblewrap"
    sentence = (
        "bubblewrap: runners see the system's programs, their job's inputs and their work folder; "
        "no network (a gang has this machine's), no other processes"
    )

    def __init__(self, folder: Path, *, forbid_nesting: bool) -> None:
        etc = folder / "etc"
        copy_etc(etc)
        nesting = ("--unshare-user", "--disable-userns") if forbid_nesting else ()
        self._system = ("--unshare-all", *nesting, "--die-with-parent", "--cap-drop", "ALL", *_system_binds(etc))
        self._visible = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")

    def command(self, argv: tuple[str, ...], env: Mapping[str, str], cell: Cell) -> Command:
        """Bubblewrap itself starts with an empty environment; the runner's is set inside."""
        return self._command((self.program(argv, env, cell), *argv[1:]), env, cell)

    def shell(self, env: Mapping[str, str], cell: Cell) -> Command | None:
        """The shell is the first process of its pid namespace: what it runs cannot kill it, and ends when it ends."""
        return self._command((SHELL,), env, cell, "--as-pid-1") if os.access(SHELL, os.X_OK) else None

    def program(self, argv: Sequence[str], env: Mapping[str, str], cell: Cell) -> str:
        """It must lie in what the cell shows."""
        program = _program(argv, env)
        shown = (*self._visible, cell.work, *cell.programs, *(name for _, name in cell.reads))
        if not any(_is_inside(program, place) for place in shown):
            raise ExecutorError(
                f"the runner may not see the program {program}: "
                "name its folder among the job's inputs, or install it under /usr"
            )
        return program

    def _command(self, argv: tuple[str, ...], env: Mapping[str, str], cell: Cell, *more: str) -> Command:
        words = [*self._system, *_binds(cell), *more]
        if cell.network:
            words.append("--share-net")
        for name, value in env.items():
            words += ("--setenv", name, value)
        words += ("--chdir", cell.work)
        return Command(
            argv=(_BWRAP, "--args", "{args_fd}", "--", *argv),
            env={},
            cwd="/",
            sandboxed=True,
            args_fd_data=b"".join(os.fsencode(word) + b"\0" for word in words),
        )


def choose(wanted: str, folder: Path, tools: Tools) -> Confinement:
    """The strongest level that works here, or exactly ``wanted``.

    Raises ExecutorError when the wanted level does not work on this node.
    """
    if wanted not in ("auto", *LEVELS):
        raise ExecutorError(f"unknown confinement {wanted!r} (valid: auto, {', '.join(LEVELS)})")
    for candidate in _candidates(wanted, folder):
        if candidate.name == "none" or _works(candidate, folder, tools):
            return candidate
    raise ExecutorError(f"confinement {wanted!r} does not work on this node")


def level(tools: Tools, *, beside: Path) -> tuple[str, str]:
    """For ``doctor``: the level that ``auto`` would choose for agents in ``beside``, and its sentence."""
    with tempfile.TemporaryDirectory(dir=beside, prefix="probe-") as name:
        Path(name).chmod(0o711)
        (Path(name) / "work").mkdir(mode=0o711)
        chosen = choose("auto", Path(name), tools)
        return chosen.name, chosen.sentence


def _candidates(wanted: str, folder: Path) -> Iterator[Confinement]:
    if wanted in ("auto", "bubblewrap") and _BWRAP:
        yield BubblewrapConfinement(folder, forbid_nesting=True)
        yield BubblewrapConfinement(folder, forbid_nesting=False)
    if wanted in ("auto", "uid") and os.geteuid() == 0 and _SETPRIV:
        yield UidConfinement(folder)
    if wanted in ("auto", "none"):
        yield Confinement()


def _works(level: Confinement, folder: Path, tools: Tools) -> bool:
    """Run our interpreter in it, and let it write into its work folder: the whole of what a runner needs."""
    with tempfile.TemporaryDirectory(dir=folder / "work", prefix="probe-") as work:
        level.hand_over(work)
        cell = Cell(work=work, programs=tools.programs(("{python}",)))
        argv = (tools.python, "-P", "-I", "-c", f"open({work + '/here'!r}, 'w').close()")
        try:
            command = level.command(argv, {"PATH": "/usr/bin:/bin"}, cell)
            return run_once(command).returncode == 0 and os.path.exists(f"{work}/here")
        except (OSError, subprocess.TimeoutExpired, ExecutorError):
            return False


def run_once(command: Command) -> subprocess.CompletedProcess[bytes]:
    """Run a confined command to its end outside any agent. Raises OSError, TimeoutExpired."""
    with command.opened() as (argv, fds):
        return subprocess.run(
            argv,
            env=command.env,
            cwd=command.cwd,
            pass_fds=fds,
            timeout=PROBE_TIMEOUT_S,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )


def _system_binds(etc: Path) -> tuple[str, ...]:
    words: list[str] = ["--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"):
        if os.path.islink(name):
            words += ("--symlink", os.readlink(name), name)
        elif os.path.isdir(name):
            words += ("--ro-bind", name, name)
    return (*words, "--ro-bind", str(etc), "/etc", "--proc", "/proc", "--dev", "/dev", "--tmpfs", _TMP)


def copy_etc(target: Path, source: Path = Path("/etc")) -> None:
    """A fresh copy of the parts of /etc that runners may read, links kept as links, manual pages left out."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in _ETC:
        part = source / name
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if part.is_dir():
            shutil.copytree(part, target / name, symlinks=True, ignore=shutil.ignore_patterns("*.gz"))
        elif part.exists():
            shutil.copy2(part, target / name)


def _binds(cell: Cell) -> Iterator[str]:
    """Order matters: later mounts cover earlier ones. The home is hidden over what contains it; work comes last."""
    for path in cell.programs:
        yield from ("--ro-bind", path, path)
    reads = sorted(cell.reads, key=lambda pair: pair[1])
    above = [pair for pair in reads if cell.hidden and _is_inside(cell.hidden, pair[1])]
    for real, name in above:
        yield from ("--ro-bind", real, name)
    if above:
        yield from ("--tmpfs", cell.hidden)
    for real, name in reads:
        if (real, name) not in above:
            yield from ("--ro-bind", real, name)
    if cell.devices:
        yield from ("--ro-bind-try", "/sys", "/sys")
        for path in device_files(cell.devices):
            yield from ("--dev-bind-try", path, path)
    for real, name in cell.writes:
        yield from ("--bind", real, name)
    yield from ("--bind", cell.work, cell.work, "--remount-ro", "/")


def _program(argv: Sequence[str], env: Mapping[str, str]) -> str:
    """The absolute path of argv[0]. Raises ExecutorError."""
    program = argv[0]
    found = shutil.which(program, path=env.get("PATH")) if "/" not in program else program
    if found is None:
        raise ExecutorError(f"no such program: {program!r} is not on the runner's PATH")
    if not found.startswith("/"):
        raise ExecutorError(f"no such program: {program!r}; a task starts in an empty folder, name programs absolutely")
    if not os.access(found, os.X_OK):
        what = "is not executable" if os.path.exists(found) else "does not exist"
        raise ExecutorError(f"no such program: {found} {what}")
    return found


def _uid_of(folder: Path) -> int:
    """A user id of this agent's own: no account has it, and two agents of a machine hardly share it.

    Where a container maps only 16-bit ids, one of the range that systemd keeps for dynamic users.
    """
    mapped = sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines())
    name = zlib.crc32(os.fsencode(folder.resolve()))
    return 1_500_000_000 + name % 500_000_000 if mapped > 2_000_000_000 else 61_184 + name % 4_336


def _is_inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
