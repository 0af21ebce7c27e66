"""The picture files of a film, in order, complete and of one size. Names sorted as text are no order: numbers are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workers.mediacheck import BadMedia, check_png, exr_header

ALL = -1
ENDINGS = (".png", ".exr")
"""What is encoded; of a folder that has both, the first."""
_NUMBERED = re.compile(r"(?P<base>.*?)(?P<number>\d+)(?P<ending>\.png|\.exr)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Checked files, all of one size in pixels."""

    files: tuple[Path, ...]
    width: int
    height: int
    depth: int
    """Bits per component as the file has them."""
    linear: bool = False
    """OpenEXR: scene-linear, not yet a picture for a screen."""


def gather(source: str, path: str, first: int, last: int, step: int) -> Pictures:
    """All pictures, checked. Raises BadMedia that names the frames that are missing, cut off or unlike the first."""
    return checked(numbered(source, path, first, last, step))


def numbered(source: str, path: str, first: int, last: int, step: int) -> list[tuple[int, Path]]:
    """The frames' numbers and files, ascending and without a gap; the files are not read yet.

    ``source``, ``path``, ``first``, ``last`` (included) and ``step`` as in ``pipelines/transcode.py``. Raises BadMedia.
    """
    return _pattern(path, first, last, step) if source == "pattern" else _folder(path, first, last, step)


def checked(found: Sequence[tuple[int, Path]]) -> Pictures:
    """Reads every file to its end. Raises BadMedia for one that is cut off, or of another size or depth."""
    shape: _Shape | None = None
    for number, file in found:
        try:
            here = _shape(file)
        except BadMedia as fault:
            raise BadMedia(f"frame {number} ({file.name}) {fault}") from fault
        if shape is None:
            shape = here
        elif here != shape:
            told, first = here.unlike(shape), shape.unlike(here)
            raise BadMedia(f"frame {number} ({file.name}) {told}, the first one {first}")
    assert shape is not None
    return Pictures(
        files=tuple(file for _, file in found),
        width=shape.width,
        height=shape.height,
        depth=shape.depth,
        linear=shape.linear,
    )


def _pattern(path: str, first: int, last: int, step: int) -> list[tuple[int, Path]]:
    run = re.fullmatch(r"([^#]*)(#+)([^#]*)", path)
    if run is None:
        raise BadMedia(f"{path} needs one run of # where the frame number stands")
    if not path.lower().endswith(ENDINGS):
        raise BadMedia(f"{path} is not a sequence of PNG or OpenEXR pictures: only these are encoded")
    if first == ALL:
        raise BadMedia(f"{path} needs the first and the last frame's number")
    before, hashes, after = run.groups()
    numbered = [(n, Path(f"{before}{n:0{len(hashes)}d}{after}")) for n in range(first, last + 1, step)]
    _no_gaps([n for n, file in numbered if file.exists()], range(first, last + 1, step), str(Path(path).parent))
    return numbered


def _folder(path: str, first: int, last: int, step: int) -> list[tuple[int, Path]]:
    there = [file for file in sorted(_listed(path)) if not file.name.startswith(".")]
    for ending in ENDINGS:
        files, bases = _numbers(path, [file for file in there if file.suffix.lower() == ending])
        if files:
            break
    if len(bases) > 1:
        raise BadMedia(f"{path} holds more than one sequence: {', '.join(sorted(bases)[:5])}; name one with a pattern")
    if not files:
        raise BadMedia(f"{path} holds no numbered PNG or OpenEXR pictures")
    wanted = range(first, last + 1, step) if first != ALL else range(min(files), max(files) + 1, step)
    _no_gaps(list(files), wanted, path)
    return [(number, files[number]) for number in wanted]


def _numbers(path: str, there: Sequence[Path]) -> tuple[dict[int, Path], set[str]]:
    """Files by number, and how their names begin. Raises BadMedia when a number is there twice."""
    files: dict[int, Path] = {}
    bases: set[str] = set()
    for file in there:
        match = _NUMBERED.fullmatch(file.name)
        if match is None:
            continue
        number = int(match["number"])
        if number in files and match["base"] in bases:
            raise BadMedia(f"{path} has frame {number} twice: {files[number].name} and {file.name}")
        files[number] = file
        bases.add(match["base"])
    return files, bases


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


@dataclass(frozen=True, slots=True)
class _Shape:
    """What all pictures of a film must share."""

    width: int
    height: int
    depth: int
    linear: bool

    def unlike(self, other: _Shape) -> str:
        """What is not as in ``other``."""
        if (self.width, self.height) != (other.width, other.height):
            return f"is {self.width}x{self.height} pixels"
        return f"has {self.depth} bits"


def _shape(file: Path) -> _Shape:
    if file.suffix.lower() == ".exr":
        width, height, depth = exr_header(file)
        return _Shape(width, height, depth, linear=True)
    facts = check_png(file)
    return _Shape(facts.width, facts.height, facts.bit_depth, linear=False)


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
