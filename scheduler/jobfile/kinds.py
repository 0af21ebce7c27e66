"""The job file's kinds as pydantic models: the one place that says which fields exist and what they mean.

JSON Schema for editors, ``docs/job-files.md`` and the errors for unknown fields are all made from here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from pipelines.train import GRACE_MS
from scheduler.jobfile import fields as f
from scheduler.jobfile.jobfields import File, JobFields, TaskFields
from scheduler.jobfile.jobfields import field as _field

TOGETHER = "how near to each other the ranks must be: on one `node`, in one `rack`, or `anywhere` (as near as they fit)"


class CommandFields(TaskFields):
    """A program or a shell text."""

    run: f.Run = _field(
        "a shell text (for /bin/sh), or a list: a program with its arguments, without a shell", "make all"
    )
    env: f.Environment = _field("environment variables", {"LEVEL": "3"}, {}, otherwise="none")
    array: f.ArrayField | None = _field(
        "one task per number, in $SHISUAN_TASK_INDEX; `%16` allows 16 at once; also `4` (0 to 3) or "
        "`{count: 240, max_parallel: 16}`",
        "0-239%16",
        None,
        otherwise="one task",
    )
    num_nodes: f.Nodes = _field("nodes of a gang: all ranks start together or not at all", 2, 1, otherwise="1")
    together: f.Together = _field(TOGETHER, "rack", "anywhere", otherwise="anywhere")
    outputs: f.Path | None = _field(
        "folder that files left in $SHISUAN_OUTPUTS are published into",
        "results",
        None,
        otherwise="nothing is published",
    )
    output_files: Annotated[list[f.OutputFile], f.OneOrMore] = _field(
        "files that must be there after success", ["report.json"], [], otherwise="whatever is there"
    )


class SceneScript(File):
    """A scene that is made by a script: an automatic step builds and publishes the .blend."""

    script: f.Path = _field("Python file with `build(seed, args)`, run inside Blender", "scenes/heads.py")
    seed: f.Seed = _field("given to `build`", 7, 0, otherwise="0")
    args: dict[str, Any] = _field("given to `build`", {"heads": 3}, {}, otherwise="empty")


def _scene_tag(value: Any) -> str:
    return "<script>" if isinstance(value, dict | SceneScript) else "<file>"


class RenderFields(TaskFields):
    """Frames of a .blend, or pieces of them, one per task, as OpenEXR and PNG."""

    scene: Annotated[
        Annotated[f.Path, Tag("<file>")] | Annotated[SceneScript, Tag("<script>")], Discriminator(_scene_tag)
    ] = _field("a .blend file, or `{script, seed, args}`; see Scene script", "shots/010.blend")
    frames: f.Frames = _field('frames to render, ends included: `1-24`, `1-100x2`, `[1, 5, "10-20"]`', "1-24")
    resolution: f.Resolution | None = _field(
        "pixels: `1920x1080` or `[1920, 1080]`", "1920x1080", None, otherwise="the file's"
    )
    samples: f.Samples | None = _field("samples per pixel", 64, None, otherwise="the file's")
    engine: f.Engine = _field("render engine", "cycles", "cycles", otherwise="cycles")
    device: f.Device = _field("`auto` uses the card the task holds, else the CPU", "optix", "auto", otherwise="auto")
    denoise: bool | None = _field(
        "remove noise; of a frame in pieces once, after they are merged", True, None, otherwise="as the file says"
    )
    tiles: f.Tiles | None = _field(
        "render each frame in tiles, columns x rows, and merge them exactly: a large still uses many workers, and a "
        "failure costs a tile; needs `resolution`",
        "4x4",
        None,
        otherwise="whole frames",
    )
    slices: f.Slices | None = _field(
        "render each frame, or tile, in so many shares of its samples and average them exactly; needs `samples`",
        4,
        None,
        otherwise="1",
    )
    chunk: f.Chunk | None = _field(
        "frames, or pieces, that one worker takes in one go", 8, None, otherwise="1, or several that last a moment"
    )
    passes: f.Passes = _field(
        "`all` passes of the file's view layers in a multi-layer OpenEXR, or the `picture` alone",
        "picture",
        "all",
        otherwise="all",
    )
    depth: f.Depth = _field(
        "the OpenEXR's values: `float` (32 bits) or `half` (16)", "half", "float", otherwise="float"
    )
    png: f.Png = _field(
        "bits per value of the PNG beside the OpenEXR: `8`, `16` (for 10-bit films), or `off`", 16, "8", otherwise="8"
    )
    max_parallel: f.Parallel | None = _field("frames, or pieces, rendered at once", 16, None, otherwise="no limit")
    outputs: f.Path | None = _field(
        "folder for the frames", "frames", None, otherwise="jobs/JOB/STEP in the tenant's first storage root"
    )


class TranscodeFields(TaskFields):
    """One film from frames or from another film, in one task or in chunks."""

    input: f.Path = _field(
        "numbered frames `film.####.png` (PNG of 8 or 16 bits) or `film.####.exr` (OpenEXR, scene-linear), a folder of "
        "them, or a video file",
        "frames/film.####.png",
    )
    frames: f.Frames | None = _field(
        "numbers of the frames, ends included: one range such as `1-24` or `1-99x2`",
        "1-24",
        None,
        otherwise="all there are",
    )
    fps: f.Rate | None = _field(
        "frames per second: `24`, `23.976`, `24000/1001`",
        "24",
        None,
        otherwise="24 for frames, the video's own for a video",
    )
    codec: f.Codec = _field("video codec: `h264` or `hevc`", "hevc", "h264", otherwise="h264")
    bits: f.Bits | None = _field(
        "bits per component, 8 or 10, as 4:2:0",
        10,
        None,
        otherwise="10 for HLG and PQ, else a video's own, 8 for frames",
    )
    color: f.Color | None = _field(
        "what the film says its colours are, proven in the stream and in the container: `bt709` (SDR), `hlg` or `pq` "
        "(BT.2020, 10 bits). PNG frames must hold such values already, OpenEXR is converted, a video must have them",
        "hlg",
        None,
        otherwise="bt709 for frames, the video's own for a video",
    )
    crf: f.Crf | None = _field(
        "quality, 0 (best) to 51; NVENC takes it as its constant quality",
        20,
        None,
        otherwise="18 for h264, 20 for hevc",
    )
    preset: f.Preset = _field(
        "speed against size, named as x264 and x265 do; NVENC takes the nearest of p1 to p7",
        "slow",
        "medium",
        otherwise="medium",
    )
    encoder: f.Encoder = _field(
        "`software` (x264, x265); `nvenc`, which asks for cards that have it; `auto`: NVENC where the task holds a "
        "card and one picture could be encoded on it, else software",
        "nvenc",
        "auto",
        otherwise="auto",
    )
    threads: f.Threads | None = _field(
        "encoder threads; they change the file's bits", 4, None, otherwise="the whole CPUs of `resources`"
    )
    audio: f.Sound | None = _field(
        "a video's first sound track: `aac` encodes it once, `copy` keeps its bits, `none` leaves it out",
        "copy",
        None,
        otherwise="aac",
    )
    chunks: f.Chunks | None = _field(
        "encode so many parts of about equal length side by side, a task each, and join them",
        8,
        None,
        otherwise="one task",
    )
    chunk_frames: f.ChunkFrames | None = _field(
        "instead of `chunks`: at most so many frames in each, where their number is known at submission",
        250,
        None,
        otherwise="as `chunks` says",
    )
    display: f.Text | None = _field(
        "OpenEXR to BT.709: OpenColorIO's display", "sRGB - Display", None, otherwise="Rec.1886, or the first there is"
    )
    view: f.Text | None = _field("OpenEXR to BT.709: the display's view", "Un-tone-mapped", None, otherwise="its first")
    ocio: f.Path | None = _field(
        "OpenEXR to BT.709: an OpenColorIO configuration, such as Blender's",
        "config.ocio",
        None,
        otherwise="OCIO's own",
    )
    outputs: f.FilmFile | None = _field(
        "the film's file", "film.mp4", None, otherwise="jobs/JOB/STEP/NAME.mp4 in the tenant's first storage root"
    )


class TrainFields(TaskFields):
    """A PyTorch training started by torchrun."""

    script: f.Path | None = _field(
        "the training's Python file; its folder can be read", "train.py", None, otherwise="`module` says what runs"
    )
    module: f.ModuleName | None = _field(
        "a module to run instead (`python -m`)", "torchtune.train", None, otherwise="`script` says what runs"
    )
    args: f.Arguments = _field("its arguments", ["--steps", "200"], [], otherwise="none")
    env: f.Environment = _field("environment variables", {"LEVEL": "3"}, {}, otherwise="none")
    num_nodes: f.Nodes = _field("nodes: all start together or not at all", 2, 1, otherwise="1")
    min_nodes: f.Nodes | None = _field(
        "may also run on so few nodes, and be given more or fewer at a checkpoint: the script must go on from a "
        "checkpoint that another number of nodes wrote",
        1,
        None,
        otherwise="always `num_nodes`",
    )
    together: f.Together = _field(TOGETHER, "rack", "anywhere", otherwise="anywhere")
    checkpoint_every: f.Duration | None = _field(
        "about how often it saves a checkpoint: what a stop would lose", "10m", None, otherwise="a stop loses all"
    )
    processes_per_node: f.Processes | None = _field(
        "training processes on each node", 8, None, otherwise="one per card, 1 without cards"
    )
    python: f.Path | None = _field(
        "a Python of your own that has torch, in your storage or below /usr",
        "/usr/bin/python3",
        None,
        otherwise="the node's",
    )
    grace: f.Duration = _field("time to save a checkpoint between SIGTERM and SIGKILL", "2m", GRACE_MS, otherwise="60s")
    outputs: f.Path | None = _field(
        "folder for what the first node leaves in $SHISUAN_OUTPUTS, and for the checkpoints",
        "gpt",
        None,
        otherwise="jobs/JOB/STEP in the tenant's first storage root",
    )
    output_files: Annotated[list[f.OutputFile], f.OneOrMore] = _field(
        "files that must be there after success", ["model.pt"], [], otherwise="whatever is there"
    )


class CommandJob(CommandFields, JobFields):
    """One command: once, as an array, or as a gang."""

    kind: Literal["CommandJob"] = _field("the kind of job", "CommandJob")


class RenderJob(RenderFields, JobFields):
    """Render frames with Blender."""

    kind: Literal["RenderJob"] = _field("the kind of job", "RenderJob")


class TranscodeJob(TranscodeFields, JobFields):
    """Encode a film with ffmpeg."""

    kind: Literal["TranscodeJob"] = _field("the kind of job", "TranscodeJob")


class TrainJob(TrainFields, JobFields):
    """Train a model with PyTorch."""

    kind: Literal["TrainJob"] = _field("the kind of job", "TrainJob")


class StepFields(File):
    """What every step of a Pipeline has."""

    name: f.StepName = _field("the step's name, unique in the file", "render")
    needs: Annotated[list[f.StepName], f.OneOrMore] = _field(
        "steps that must have succeeded first; `${steps.NAME.outputs}` anywhere in a step implies them",
        ["render"],
        [],
        otherwise="none",
    )


class CommandStep(CommandFields, StepFields):
    """A command as a step."""

    kind: Literal["command", "CommandJob"] = _field("the kind of step (`CommandJob` is taken too)", "command")


class RenderStep(RenderFields, StepFields):
    """A render as a step."""

    kind: Literal["render", "RenderJob"] = _field("the kind of step (`RenderJob` is taken too)", "render")


class TranscodeStep(TranscodeFields, StepFields):
    """An encode as a step."""

    kind: Literal["transcode", "TranscodeJob"] = _field("the kind of step (`TranscodeJob` is taken too)", "transcode")


class TrainStep(TrainFields, StepFields):
    """A training as a step."""

    kind: Literal["train", "TrainJob"] = _field("the kind of step (`TrainJob` is taken too)", "train")


STEP_KINDS: dict[str, type[CommandStep] | type[RenderStep] | type[TranscodeStep] | type[TrainStep]] = {
    "command": CommandStep,
    "render": RenderStep,
    "transcode": TranscodeStep,
    "train": TrainStep,
}


def _step_tag(value: Any) -> str | None:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    if not isinstance(kind, str):
        return None
    name = kind.removesuffix("Job").lower() if kind in JOB_KINDS else kind
    return f"<{name}>" if name in STEP_KINDS else None


AnyStep = Annotated[
    Annotated[CommandStep, Tag("<command>")]
    | Annotated[RenderStep, Tag("<render>")]
    | Annotated[TranscodeStep, Tag("<transcode>")]
    | Annotated[TrainStep, Tag("<train>")],
    Discriminator(_step_tag),
]


class Pipeline(JobFields):
    """Steps that depend on each other."""

    kind: Literal["Pipeline"] = _field("the kind of job", "Pipeline")
    outputs: f.Path | None = _field(
        "folder for steps that name no outputs of their own: each publishes into OUTPUTS/STEP",
        "film",
        None,
        otherwise="jobs/JOB in the tenant's first storage root",
    )
    steps: Annotated[list[AnyStep], Field(min_length=1, max_length=100)] = _field(
        "the steps, in any order", [{"name": "hello", "kind": "command", "run": "echo hello"}]
    )


JobFile = CommandJob | RenderJob | TranscodeJob | TrainJob | Pipeline
JOB_KINDS: dict[str, type[CommandJob] | type[RenderJob] | type[TranscodeJob] | type[TrainJob] | type[Pipeline]] = {
    "CommandJob": CommandJob,
    "RenderJob": RenderJob,
    "TranscodeJob": TranscodeJob,
    "TrainJob": TrainJob,
    "Pipeline": Pipeline,
}
