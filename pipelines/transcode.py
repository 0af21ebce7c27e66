"""TRANSCODE, CHUNK, AUDIO and JOIN steps: a film in one task, or in chunks that are joined.

A chunked film ``NAME`` is three steps: ``NAME-chunks`` (CHUNK, a task per chunk), ``NAME-audio`` (AUDIO, one task, only
where there may be sound to encode) and ``NAME`` (JOIN, one task, which publishes the film).

**The runner's side of the contract.** A process per task: ``{python} {encode_runner} REQUEST``, where REQUEST is one
flat JSON object, every path absolute after the agent replaced ``{work}``. The runner makes the parent of ``out``,
verifies the result (frames, rate, duration, pixel format, colour tags, sound) and ends with ``shisuan_done: {json}``
and exit code 0, or with ``shisuan_fail: reason`` and another code.

=================  ===============================================================================================
``op``             ``film``, ``chunk``, ``audio`` or ``join``
``source``         ``pattern``, ``folder`` or ``video``
``input``          ``pattern``: absolute path with one run of ``#`` for the zero-padded frame number
                   (``/films/film.####.png``); ``folder``: a folder whose numbered pictures are the frames, in the
                   order of their numbers; ``video``: a video file. Pictures are PNG or OpenEXR
``first``          ``pattern``, ``folder``: number of the first frame; -1: whatever is there (``folder`` only)
``last``           number of the last frame, **included**; -1 with ``first`` -1
``step``           distance between the numbers, 1 when all are there
``fps``            ``"24"`` or ``"24000/1001"``; empty: the rate of the source (``video`` only)
``codec``          ``h264`` or ``hevc``
``bits``           8 or 10; 0: 10 for HLG and PQ, else as a video has, 8 for pictures
``color``          ``bt709``, ``hlg`` or ``pq``; empty: as a video says, ``bt709`` for pictures
``encoder``        ``software``; ``nvenc``, which must work on the node; ``auto``: that if a card is held and it works
``crf``            0–51
``preset``         x264's and x265's preset; NVENC's nearest
``threads``        encoder threads, at least 1: they change the bits, so a retry has the same
``audio``          ``aac``, ``copy`` or ``none``
``display``        OpenEXR, BT.709: OpenColorIO's display and
``view``           view, empty: the configuration's own
``ocio``           absolute path of an OpenColorIO configuration; empty: the built-in one
``out``            the file to write: ``{work}/outputs/film.mp4``. A chunk writes another with ``.json`` added, the
                   sound ``audio.m4a`` (if there is any) and ``audio.json`` beside it
``expect_frames``  exact number of frames the source must have; 0: as many as it has
``chunk``          ``chunk``: index of this one: of n frames it holds ``[chunk*n//chunks, (chunk+1)*n//chunks)``
``chunks``         ``chunk``, ``join``: how many there are
``parts``          ``join``: absolute path of the chunks with a run of ``#`` for their index
``sound``          ``join``: absolute folder of the audio task's files; empty: there is none
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

CODECS = ("h264", "hevc")
PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
CONTAINERS = (".mp4", ".mov", ".mkv")
BITS = (8, 10)
COLORS = ("bt709", "hlg", "pq")
HDR = ("hlg", "pq")
ENCODERS = ("auto", "software", "nvenc")
SOUNDS = ("aac", "copy", "none")
CRF = {"h264": 18, "hevc": 20}
"""What is used unless the job says: both are hard to tell from the source."""
ALL_FRAMES = -1
CHUNK_FILE = "chunk.####.mp4"
AUDIO_FILE = "audio.m4a"
CHUNK_DIGITS = 4


Task = tuple[int, int]
"""Index of a task, and the number of its attempt."""


class Source(StrEnum):
    """What is encoded."""

    PATTERN = "pattern"
    FOLDER = "folder"
    VIDEO = "video"


@dataclass(frozen=True, slots=True, kw_only=True)
class TranscodeSpec:
    """``Step.spec`` of all four kinds of step: each takes from it what it needs."""

    source: Source
    input: str
    """Absolute path."""
    first: int = ALL_FRAMES
    last: int = ALL_FRAMES
    """Included: this is how the runner's request counts."""
    step: int = 1
    fps: str = ""
    codec: str = CODECS[0]
    bits: int = 0
    """0: as the source has."""
    color: str = ""
    """Empty: as the source says."""
    encoder: str = "auto"
    crf: int = 18
    preset: str = "medium"
    threads: int = 0
    """0: as many as the task holds vCPUs."""
    audio: str = SOUNDS[0]
    display: str = ""
    view: str = ""
    ocio: str = ""
    expect_frames: int = 0
    chunks: int = 1
    parts: str = ""
    """Folder of the chunks."""
    sound: str = ""
    """Folder of the audio step's files."""
    file: str
    """File name of the film."""
    output_dir: str
    reads: tuple[str, ...] = ()


@lru_cache(maxsize=256)
def decode(spec: str) -> TranscodeSpec:
    """The spec of a step, decoded once for all its tasks."""
    value: TranscodeSpec = codec.loads(TranscodeSpec, spec)
    return value


def feature(codec_name: str, bits: int) -> str:
    """The catalogue's feature of cards whose NVENC encodes this: ``nvenc:hevc-10bit``."""
    return f"nvenc:{codec_name}-10bit" if bits == 10 else f"nvenc:{codec_name}"


def chunk_file(index: int) -> str:
    """``chunk.0007.mp4``: what :data:`CHUNK_FILE` stands for."""
    return f"chunk.{index:0{CHUNK_DIGITS}d}.mp4"


def film_order(job: Job, step: Step, index: int, number: int) -> TaskOrder:
    """Attempt ``number`` of the one task that encodes a whole film."""
    spec = decode(step.spec)
    return _order(job, step, (index, number), _request(step, "film", spec.file), (spec.file,))


def chunk_order(job: Job, step: Step, index: int, number: int) -> TaskOrder:
    """Attempt ``number`` of the task that encodes chunk ``index``."""
    spec, file = decode(step.spec), chunk_file(index)
    request = _request(step, "chunk", file) | {"chunk": index, "chunks": spec.chunks}
    return _order(job, step, (index, number), request, (file, f"{file}.json"))


def audio_order(job: Job, step: Step, index: int, number: int) -> TaskOrder:
    """Attempt ``number`` of the one task that encodes a film's sound. A silent source leaves no ``audio.m4a``."""
    return _order(job, step, (index, number), _request(step, "audio", AUDIO_FILE), ("*",))


def join_order(job: Job, step: Step, index: int, number: int) -> TaskOrder:
    """Attempt ``number`` of the one task that joins a film's chunks."""
    spec = decode(step.spec)
    more = {"chunks": spec.chunks, "parts": f"{spec.parts}/{CHUNK_FILE}", "sound": spec.sound}
    return _order(job, step, (index, number), _request(step, "join", spec.file) | more, (spec.file,))


def _request(step: Step, op: str, file: str) -> dict[str, object]:
    spec = decode(step.spec)
    return {
        "op": op,
        "source": spec.source.value,
        "input": spec.input,
        "first": spec.first,
        "last": spec.last,
        "step": spec.step,
        "fps": spec.fps,
        "codec": spec.codec,
        "bits": spec.bits,
        "color": spec.color,
        "encoder": spec.encoder,
        "crf": spec.crf,
        "preset": spec.preset,
        "threads": spec.threads or threads(step),
        "audio": spec.audio,
        "display": spec.display,
        "view": spec.view,
        "ocio": spec.ocio,
        "out": Template("{work}/outputs/", file),
        "expect_frames": spec.expect_frames,
    }


def _order(job: Job, step: Step, task: Task, request: dict[str, object], outputs: tuple[str, ...]) -> TaskOrder:
    spec, (index, number) = decode(step.spec), task
    return TaskOrder(
        attempt_id=attempt_id(job.id, step.name, index, number),
        number=number,
        argv=("{python}", "{encode_runner}", line(request)),
        reads=spec.reads,
        output_dir=spec.output_dir,
        outputs=outputs,
        timeout_ms=step.timeout_ms,
        grace_ms=step.grace_ms,
    )
