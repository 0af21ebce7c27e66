"""TRANSCODE steps: one task that encodes one film.

**The runner's side of the contract.** A process per task: ``{python} {encode_runner} REQUEST``, where REQUEST is one
flat JSON object, every path absolute after the agent replaced ``{work}``. The runner makes the parent of ``out``,
verifies the result (frame count, rate, duration) and ends with ``shisuan_done: {json}`` and exit code 0, or with
``shisuan_fail: reason`` and another code.

=================  ===============================================================================================
``source``         ``pattern``, ``folder`` or ``video``
``input``          ``pattern``: absolute path with one run of ``#`` for the zero-padded frame number
                   (``/films/film.####.png``); ``folder``: a folder whose numbered PNG files are the frames, in the
                   order of their numbers; ``video``: a video file
``first``          ``pattern``, ``folder``: number of the first frame; -1: whatever is there (``folder`` only)
``last``           number of the last frame, **included**; -1 with ``first`` -1
``step``           distance between the numbers, 1 when all are there
``fps``            ``"24"`` or ``"24000/1001"``; empty: the rate of the source (``video`` only)
``codec``          ``h264``
``crf``            0–51
``preset``         x264's preset
``threads``        encoder threads: the whole vCPUs leased, at least 1
``out``            the file to write: ``{work}/outputs/film.mp4``
``expect_frames``  exact number of frames the result must have; 0: as many as the source has
=================  ===============================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from pipelines.render import threads
from pipelines.request import Template, line
from scheduler.model import codec
from scheduler.model.job import Job, Step
from scheduler.model.lease import attempt_id
from scheduler.model.order import TaskOrder

CODECS = ("h264",)
"""What the encode runner really does today."""
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
CONTAINERS = (".mp4", ".mov", ".mkv")
ALL_FRAMES = -1


class Source(StrEnum):
    """What is encoded."""

    PATTERN = "pattern"
    FOLDER = "folder"
    VIDEO = "video"


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscodeSpec:
    """``Step.spec`` of a TRANSCODE step."""

    source: Source
    input: str
    """Absolute path."""
    first: int = ALL_FRAMES
    last: int = ALL_FRAMES
    """Included: this is how the runner's request counts."""
    step: int = 1
    fps: str = ""
    codec: str = CODECS[0]
    crf: int = 18
    preset: str = "medium"
    expect_frames: int = 0
    file: str
    """File name of the film."""
    output_dir: str
    reads: tuple[str, ...] = ()


@lru_cache(maxsize=256)
def decode(spec: str) -> TranscodeSpec:
    """A TRANSCODE step's spec."""
    value: TranscodeSpec = codec.loads(TranscodeSpec, spec)
    return value


def order(job: Job, step: Step, index: int, number: int) -> TaskOrder:
    """Attempt ``number`` of the one task."""
    spec = decode(step.spec)
    request = {
        "source": spec.source.value,
        "input": spec.input,
        "first": spec.first,
        "last": spec.last,
        "step": spec.step,
        "fps": spec.fps,
        "codec": spec.codec,
        "crf": spec.crf,
        "preset": spec.preset,
        "threads": threads(step),
        "out": Template("{work}/outputs/", spec.file),
        "expect_frames": spec.expect_frames,
    }
    return TaskOrder(
        attempt_id=attempt_id(job.id, step.name, index, number),
        number=number,
        argv=("{python}", "{encode_runner}", line(request)),
        reads=spec.reads,
        output_dir=spec.output_dir,
        outputs=(spec.file,),
        timeout_ms=step.timeout_ms,
        grace_ms=step.grace_ms,
    )
