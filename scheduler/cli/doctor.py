"""``doctor``: what this machine has of what shisuan needs, and what that means."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory

import typer
from rich.console import Console

from scheduler.cli.app import SERVICE, session, verb
from scheduler.cli.exits import Exit
from scheduler.cli.session import Session, plain, table
from scheduler.model.errors import ExecutorError
from scheduler.report import figures

_DISK_LEAST_BYTES = 2 * 1024**3
_LIBRARIES = "libx11-6 libxrender1 libxfixes3 libxi6 libxkbcommon0 libsm6 libgl1"
"""Debian's names of what Blender links to (see bin/setup)."""


class Verdict(StrEnum):
    """How a finding is to be read."""

    OK = "ok"
    NOTE = "note"
    """Works, with a limit one should know."""
    MISSING = "missing"
    """Some kinds of steps cannot run here."""
    BROKEN = "broken"
    """Nothing can run here."""


_MARKS = {
    Verdict.OK: "[green]✓[/]",
    Verdict.NOTE: "[yellow]![/]",
    Verdict.MISSING: "[yellow]✗[/]",
    Verdict.BROKEN: "[red]✗[/]",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the table."""

    what: str
    verdict: Verdict
    found: str
    advice: str = ""


@verb("doctor", panel=SERVICE, example="shisuan doctor")
def doctor(ctx: typer.Context) -> None:
    """Check what this machine has and lacks.

    Cards, driver, Blender, ffmpeg, disk, Ray, confinement. Exit code 1 when nothing could run.
    """
    here = session(ctx)
    findings: list[Finding] = []
    for check in CHECKS:
        with here.err.status(f"Looking at {check.__name__.removeprefix('check_').replace('_', ' ')} …"):
            findings.append(check(here))
    here.show({"findings": [asdict(f) for f in findings]}, lambda out: _show(out, findings))
    raise typer.Exit(Exit.FAILED if any(f.verdict is Verdict.BROKEN for f in findings) else Exit.SUCCEEDED)


def _show(out: Console, findings: list[Finding]) -> None:
    rows = table("", "", "")
    rows.show_header = False
    for finding in findings:
        advice = f"\n[dim]{plain(finding.advice)}[/]" if finding.advice else ""
        rows.add_row(_MARKS[finding.verdict], finding.what, plain(finding.found) + advice)
    out.print(rows)


def check_python(_: Session) -> Finding:
    """The interpreter that runs this."""
    version = sys.version.split()[0]
    right = sys.version_info[:2] == (3, 11)
    return Finding(
        what="Python",
        verdict=Verdict.OK if right else Verdict.BROKEN,
        found=f"{version} ({sys.executable})",
        advice="" if right else "shisuan needs Python 3.11",
    )


def check_ray(_: Session) -> Finding:
    """Ray's version, without importing it: that takes seconds."""
    try:
        return Finding(what="Ray", verdict=Verdict.OK, found=metadata.version("ray"))
    except metadata.PackageNotFoundError:
        advice = "install it: pip install 'shisuan[ray]'"
        return Finding(what="Ray", verdict=Verdict.BROKEN, found="not installed", advice=advice)


def check_disk(here: Session) -> Finding:
    """Room where the home folder lies or will lie, and whether it can be written."""
    place = next(p for p in (here.home, *here.home.parents) if p.exists())
    free = shutil.disk_usage(place).free
    found = f"{figures.size(free)} free for {here.home}"
    if not os.access(place, os.W_OK):
        advice = f"{place} cannot be written; choose another folder with --home"
        return Finding(what="Disk", verdict=Verdict.BROKEN, found=found, advice=advice)
    if free < _DISK_LEAST_BYTES:
        advice = f"frames and logs need room: free some, at least {figures.size(_DISK_LEAST_BYTES)}"
        return Finding(what="Disk", verdict=Verdict.NOTE, found=found, advice=advice)
    return Finding(what="Disk", verdict=Verdict.OK, found=found)


def check_cards(_: Session) -> Finding:
    """NVIDIA cards, as NVML names them."""
    from workers.nvml import NvmlTelemetry

    nvml = NvmlTelemetry()
    try:
        devices, driver = nvml.devices(), nvml.driver
    finally:
        nvml.close()
    if not devices:
        return Finding(
            what="Cards",
            verdict=Verdict.NOTE,
            found=f"none ({nvml.why_none})",
            advice="renders run on the CPU; `shisuan up --cards 8xH100` declares simulated cards, for trying out",
        )
    bad = [f"{d.index}: {d.health_reason}" for d in devices if d.health_reason]
    names = [f"{d.index}: {d.model} {d.profile}".rstrip() + f", {figures.memory(d.memory_mib)}" for d in devices]
    verdict = Verdict.NOTE if bad else Verdict.OK
    return Finding(what="Cards", verdict=verdict, found="\n".join([f"driver {driver}", *names]), advice="\n".join(bad))


def check_blender(_: Session) -> Finding:
    """Blender: the wheel's Python or the program."""
    from workers import tools

    found = tools.find_tools()
    version = tools.blender_version(found)
    if version:
        return Finding(what="Blender", verdict=Verdict.OK, found=f"{version} ({found.blender})")
    why = tools.why_no_blender(found)
    state = f"does not start ({found.blender}): {why}" if found.blender else "none"
    advice = "render steps cannot run here: run make, or set SHISUAN_BLENDER to a blender"
    if ".so" in why:  # the dynamic linker's words: a library that even a Blender without a screen loads
        advice = f"render steps cannot run here until that library is installed. Debian: apt-get install {_LIBRARIES}"
    return Finding(what="Blender", verdict=Verdict.MISSING, found=state, advice=advice)


def check_ffmpeg(_: Session) -> Finding:
    """The ffmpeg that the encode runner will choose, tried out."""
    advice = "transcode steps cannot run here"
    try:
        from workers import ffmpeg_binary
    except ModuleNotFoundError as error:  # as in the image of the control plane
        found = f"the Python package {error.name} is not installed"
        return Finding(what="ffmpeg", verdict=Verdict.MISSING, found=found, advice=f"{advice}: install shisuan[media]")
    try:
        binary = ffmpeg_binary.find()
    except ExecutorError as error:
        return Finding(what="ffmpeg", verdict=Verdict.MISSING, found=str(error), advice=advice)
    able = ", ".join(ffmpeg_binary.abilities())
    if Path("/dev/nvidiactl").exists():
        able += f"; NVENC: {', '.join(ffmpeg_binary.abilities(ffmpeg_binary.HARDWARE)) or 'none that works'}"
    return Finding(what="ffmpeg", verdict=Verdict.OK, found=f"{binary.version} ({binary.path}): {able}")


def check_torch(_: Session) -> Finding:
    """PyTorch's version, without importing it: that takes seconds."""
    try:
        return Finding(what="PyTorch", verdict=Verdict.OK, found=metadata.version("torch"))
    except metadata.PackageNotFoundError:
        advice = "training jobs need one: run make, or give the job a python of yours"
        return Finding(what="PyTorch", verdict=Verdict.MISSING, found="not installed", advice=advice)


def check_confinement(_: Session) -> Finding:
    """How far tasks are kept apart on this machine, tried out in a folder of its own."""
    from workers import confine, tools

    with TemporaryDirectory(prefix="shisuan-doctor-") as folder:
        (Path(folder) / "work").mkdir()
        level = confine.choose("auto", Path(folder), tools.find_tools())
    verdict = Verdict.OK if level.name == "bubblewrap" else Verdict.NOTE
    advice = ""
    if verdict is not Verdict.OK:
        wanted = "allow bubblewrap its namespaces here" if shutil.which("bwrap") else "install bubblewrap"
        advice = f"{wanted} to keep tasks apart from this machine and each other"
    return Finding(what="Confinement", verdict=verdict, found=level.sentence, advice=advice)


CHECKS: tuple[Callable[[Session], Finding], ...] = (
    check_python,
    check_ray,
    check_disk,
    check_cards,
    check_blender,
    check_ffmpeg,
    check_torch,
    check_confinement,
)
