"""How much a runner is kept apart: bubblewrap, else a user id of its own, else nothing (and ``doctor`` says so)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from workers.process import Command
from workers.tools import Tools


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What one runner may see and do. Paths are absolute."""

    work: str
    reads: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    """Folders and files of interpreters and runners, read-only."""
    devices: tuple[str, ...] = ()
    network: bool = False


class Confinement:
    """Turns argv into a confined command."""

    name = "none"
    sentence = "none: runners run as this user and can read what it can read"
    uid = 0

    def hand_over(self, folder: str) -> None:
        """Make a work folder the runner's."""

    def command(self, argv: tuple[str, ...], env: Mapping[str, str], cell: Cell) -> Command:
        """The command to spawn."""
        setpriv = shutil.which("setpriv")
        prefix = (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()
        return Command(argv=(*prefix, *argv), env=env, cwd=cell.work)


def choose(wanted: str, folder: Path, tools: Tools) -> Confinement:
    """The strongest level that works here."""
    return Confinement()
