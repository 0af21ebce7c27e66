"""The picture files of a film, in order, complete and of one size. Names sorted as text are no order: numbers are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.mediacheck import BadMedia, check_png

ALL = -1
_NUMBERED = re.compile(r"(?P<base>.*?)(?P<number>\d+)\.png", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Checked files, all of one size in pixels."""

    files: tuple[Path, ...]
    width: int
    height: int


def gather(source: str, path: str, first: int, last: int, step: int) -> Pictures:
    """``source``, ``path``, ``first``, ``last`` (included) and ``step`` as in ``pipelines/transcode.py``.

    Raises BadMedia that names the frames that are missing, cut off or of another size.
    """
    numbered = _pattern(path, first, last, step) if source == "pattern" else _folder(path, first, last, step)
    width, height = _one_size(numbered)
    return Pictures(files=tuple(file for _, file in numbered), width=width, height=height)


def _pattern(path: str, first: int, last: int, step: int) -> list[tuple[int, Path]]:
    run = re.fullmatch(r"([^#]*)(#+)([^#]*)", path)
    if run is None:
        raise BadMedia(f"{path} needs one run of # where the frame number stands")
    if not path.lower().endswith(".png"):
        raise BadMedia(f"{path} is not a sequence of PNG pictures: only these are encoded")
    if first == ALL:
        raise BadMedia(f"{path} needs the first and the last frame's number")
    before, hashes, after = run.groups()
    numbered = [(n, Path(f"{before}{n:0{len(hashes)}d}{after}")) for n in range(first, last + 1, step)]
    _no_gaps([n for n, file in numbered if file.exists()], range(first, last + 1, step), str(Path(path).parent))
    return numbered


def _folder(path: str, first: int, last: int, step: int) -> list[tuple[int, Path]]:
    files: dict[int, Path] = {}
    bases: set[str] = set()
    for file in sorted(_listed(path)):
        match = _NUMBERED.fullmatch(file.name)
        if match is None or file.name.startswith("."):
            continue
        number = int(match["number"])
        if number in files and match["base"] in bases:
            raise BadMedia(f"{path} has frame {number} twice: {files[number].name} and {file.name}")
        files[number] = file
        bases.add(match["base"])
    if len(bases) > 1:
        raise BadMedia(f"{path} holds more than one sequence: {', '.join(sorted(bases)[:5])}; name one with a pattern")
    if not files:
        raise BadMedia(f"{path} holds no numbered PNG pictures")
    wanted = range(first, last + 1, step) if first != ALL else range(min(files), max(files) + 1, step)
    _no_gaps(list(files), wanted, path)
    return [(number, files[number]) for number in wanted]


def _listed(path: str) -> list[Path]:
    try:
        return list(Path(path).iterdir())
    except OSError as error:
        raise BadMedia(f"{path} cannot be read: {error.strerror}") from error


def _no_gaps(found: Sequence[int], wanted: range, where: str) -> None:
    there = set(found)
    missing = [number for number in wanted if number not in there]
    if missing:
        raise BadMedia(f"{len(missing)} of {len(wanted)} frames are missing in {where}: {spans(missing)}")
    if not wanted:
        raise BadMedia(f"there are no frames to encode in {where}")


def _one_size(numbered: Sequence[tuple[int, Path]]) -> tuple[int, int]:
    size: tuple[int, int] | None = None
    for number, file in numbered:
        try:
            facts = check_png(file)
        except BadMedia as fault:
            raise BadMedia(f"frame {number} ({file.name}) {fault}") from fault
        if size is None:
            size = (facts.width, facts.height)
        elif size != (facts.width, facts.height):
            got, wanted = f"{facts.width}x{facts.height}", f"{size[0]}x{size[1]}"
            raise BadMedia(f"frame {number} ({file.name}) is {got} pixels, the first one {wanted}")
    assert size is not None
    return size


def spans(numbers: Sequence[int], most: int = 8) -> str:
    """``1-3, 7, 9-12``: ascending numbers as people write them, cut after ``most`` spans."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [str(a) if a == b else f"{a}-{b}" for a, b in runs[:most]]
    return ", ".join([*texts, "…"] if len(runs) > most else texts)
