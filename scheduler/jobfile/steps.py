"""A file's steps as the model's steps, one function per kind.

Problems go into the context; a step with problems is built all the same, so that the later ones are checked too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

from pipelines.command import ANY_OUTPUT, CommandSpec
from pipelines.render import RenderSpec, SceneSpec
from pipelines.request import TASK_INDEX
from pipelines.transcode import HDR, Source, TranscodeSpec, feature
from scheduler.jobfile import film, hardware, kinds, paths, rendering
from scheduler.jobfile.context import Context, Entry, stem
from scheduler.jobfile.quantity import Malformed
from scheduler.jobfile.training import train
from scheduler.model import catalogue, codec
from scheduler.model.job import Resources, Step, StepKind, Together
from scheduler.model.node import Lane
from scheduler.model.policy import BACKOFF_MAX_MS

SCENE_SUFFIX, CHUNKS_SUFFIX, AUDIO_SUFFIX = "-scene", "-chunks", "-audio"


def command(context: Context, entry: Entry) -> tuple[Step, ...]:
    """A COMMAND step; a gang when ``num_nodes`` is more than one."""
    body = entry.body
    assert isinstance(body, kinds.CommandStep | kinds.CommandJob)
    run, output_dir = body.run, ""
    with context.at(entry.at("run")):
        run = context.text(run) if isinstance(run, str) else [context.text(word) for word in run]
    env: dict[str, str] = {}
    for name, value in sorted(body.env.items()):
        with context.at(f"{entry.at('env')}.{name}"):
            env[name] = context.text(value)
    with context.at(entry.at("outputs")):
        output_dir = context.output_path(entry)
    with context.at(entry.at("output_files")):
        _apart(body, output_dir)
    reads = context.reads(entry) or _all_roots(context)
    array = body.array
    spec = CommandSpec(
        argv=tuple(run) if isinstance(run, list) else (),
        shell=run if isinstance(run, str) else "",
        env=tuple(env.items()),
        indices=array.indices.spans if array else (),
        output_dir=output_dir,
        outputs=tuple(body.output_files) or ANY_OUTPUT,
        reads=reads,
    )
    return (
        _step(
            entry,
            StepKind.COMMAND,
            resources=_resources(context, entry, memory_mib=512),
            spec=spec,
            count=len(array.indices) if array else 1,
            ranks=body.num_nodes,
            together=Together(body.together),
            expected_ms=body.expected or 0,
            max_parallel=array.max_parallel if array else 0,
        ),
    )


def _apart(body: kinds.CommandStep | kinds.CommandJob, output_dir: str) -> None:
    """Tasks of an array may not all publish the same file."""
    if body.array is None or len(body.array.indices) == 1 or TASK_INDEX in output_dir:
        return
    for name in body.output_files:
        if name != "*" and TASK_INDEX not in name:
            raise Malformed(f"every task of the array would publish {name!r}; put {TASK_INDEX} into it or into outputs")


def _all_roots(context: Context) -> tuple[str, ...]:
    """A command that names no inputs may read the tenant's storage: it is the tenant's own.

    Only folders: nobody wants a whole bucket brought to a node.
    """
    return context.roots.local if context.roots_written else ()


def render(context: Context, entry: Entry) -> tuple[Step, ...]:
    """A RENDER step, with a SCENE step before it when the scene is a script, and a MERGE step when frames are cut."""
    body = entry.body
    assert isinstance(body, kinds.RenderStep | kinds.RenderJob)
    blend, output_dir = "", ""
    before: tuple[Step, ...] = ()
    if isinstance(body.scene, str):
        with context.at(entry.at("scene")):
            blend = _blend(context, body.scene)
    else:
        blend, before = _scene(context, entry, body.scene)
    with context.at(entry.at("outputs")):
        output_dir = context.output_path(entry)
    needed = _resources(context, entry, memory_mib=hardware.MEDIA_MEMORY_MIB)
    with context.at(entry.at("resources.accelerators")):
        needed = rendering.on_device(body, needed)
    cut = rendering.cut(context, entry)
    whole = rendering.frames_spec(context, entry, blend, output_dir, (_folder(blend), *context.reads(entry)))
    needs = (*(made.name for made in before), *entry.needs)
    if not rendering.is_cut(body):
        return (*before, _frames(entry, whole, needed, needs, name=entry.name, count=len(body.frames)))
    name = rendering.pieces_step(entry)
    pieces = replace(whole, cut=cut, output_dir=context.automatic_output(name) if output_dir else "")
    first = _frames(entry, pieces, needed, needs, name=name, count=len(body.frames) * cut.pieces)
    spec = rendering.merge_spec(whole, pieces)
    merge = _step(
        entry,
        StepKind.MERGE,
        resources=rendering.merge_resources(spec, needed),
        spec=spec,
        count=len(body.frames),
        needs=(name, *entry.needs),
    )
    return (*before, first, merge)


def _frames(
    entry: Entry, spec: RenderSpec, needed: Resources, needs: tuple[str, ...], *, name: str, count: int
) -> Step:
    body = entry.body
    assert isinstance(body, kinds.RenderStep | kinds.RenderJob)
    return _step(
        entry,
        StepKind.RENDER,
        resources=needed,
        spec=spec,
        count=count,
        max_parallel=body.max_parallel or 0,
        name=name,
        needs=needs,
        warm_key=spec.blend,
        chunk=body.chunk or 0,
        expected_ms=(body.expected or 0) // spec.cut.pieces,
    )


def _folder(path: str) -> str:
    """A scene's neighbours (textures, linked files) are read with it."""
    return paths.parent(path)


def _blend(context: Context, text: str) -> str:
    found = context.input(text)
    if not found.path.endswith(".blend"):
        raise Malformed(f"{text!r} is not a .blend file; for a script write {{script: {text}, seed: 7}}")
    return found.path if found.step else paths.existing_file(found.path, text)


def _scene(context: Context, entry: Entry, scene: kinds.SceneScript) -> tuple[str, tuple[Step, ...]]:
    name = scene_step(entry)
    script, output_dir = "", ""
    with context.at(entry.at("scene.script")):
        found = context.input(scene.script)
        script = found.path if found.step else paths.existing_file(found.path, scene.script)
        output_dir = context.automatic_output(name)
    args = "{}"
    with context.at(entry.at("scene.args")):
        args = json.dumps(scene.args, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    spec = SceneSpec(
        script=script,
        seed=scene.seed,
        args=args,
        save=f"{stem(script) or 'scene'}.blend",
        output_dir=output_dir,
        reads=(_folder(script), *context.reads(entry)),
    )
    # Building a scene needs no card, and the problems of its resources are told once, by the render.
    needed = hardware.resources(
        entry.body.resources, models=(), has_cards=False, memory_mib=hardware.MEDIA_MEMORY_MIB, with_cards=False
    )
    made = _step(entry, StepKind.SCENE, resources=needed, spec=spec, name=name)
    return f"{output_dir}/{spec.save}", (made,)


def scene_step(entry: Entry) -> str:
    """Name of the automatic step that builds a render's scene: ``scene`` at the top of a file, else ``NAME-scene``."""
    return f"{entry.name[: 40 - len(SCENE_SUFFIX)]}{SCENE_SUFFIX}" if entry.place else StepKind.SCENE.value


def automatic(entry: Entry) -> tuple[tuple[str, str], ...]:
    """Names of the steps that nobody wrote and the entry brings, each with what it makes."""
    body = entry.body
    if isinstance(body, kinds.TranscodeStep | kinds.TranscodeJob) and (body.chunks or body.chunk_frames):
        chunks, sound = chunk_steps(entry)
        return ((chunks, "chunks"), (sound, "sound"))
    if not isinstance(body, kinds.RenderStep | kinds.RenderJob):
        return ()
    scene = ((scene_step(entry), "scene"),) if isinstance(body.scene, kinds.SceneScript) else ()
    return (*scene, *(((rendering.pieces_step(entry), "tiles"),) if rendering.is_cut(body) else ()))


def _resources(context: Context, entry: Entry, *, memory_mib: int) -> Resources:
    made: list[Resources] = []
    with context.at(entry.at("resources.accelerators")):
        wish = entry.body.resources
        made.append(hardware.resources(wish, models=context.models, has_cards=context.has_cards, memory_mib=memory_mib))
    _check_licences(context, entry)
    return made[0] if made else Resources()


def _check_licences(context: Context, entry: Entry) -> None:
    """Each licence is one the park has, with as many seats."""
    have = context.licences
    for name, seats in (entry.body.resources.licences or {}).items():
        with context.at(entry.at(f"resources.licences.{name}")):
            if have is not None and name not in have:
                raise Malformed(f"the park has no licence {name!r}", tuple(sorted(have)))
            if have is not None and seats > have[name]:
                raise Malformed(f"asks for {seats} seats; the park has {have[name]}")


def _film(context: Context, entry: Entry) -> tuple[Step, ...]:
    """A TRANSCODE step; with chunks a CHUNK step, an AUDIO step where sound must be encoded, and a JOIN step."""
    spec = film.transcode(context, entry)
    needed = _resources(context, entry, memory_mib=hardware.MEDIA_MEMORY_MIB)
    needed = _with_engine(context, entry, spec, needed)
    chunks = film.chunk_count(context, entry, spec)
    expected_ms = entry.body.expected or 0
    if chunks == 1:
        return (_step(entry, StepKind.TRANSCODE, resources=needed, spec=spec, expected_ms=expected_ms),)
    names = chunk_steps(entry)
    parts, sound = "", ""
    with context.at(entry.at("outputs")):
        parts, sound = (context.automatic_output(name) for name in names)
    if spec.source is not Source.VIDEO or spec.audio != "aac":
        sound = ""
    part, whole = film.chunked(spec, chunks, parts, sound)
    # Sound and joining need no card.
    light = replace(
        needed, cards=0, card_milli=0, card_models=(), card_memory_mib=0, mig_profile="", features=(), licences=()
    )
    each_ms = expected_ms // chunks
    made = [_step(entry, StepKind.CHUNK, resources=needed, spec=part, count=chunks, name=names[0], expected_ms=each_ms)]
    if sound:
        heard = replace(spec, output_dir=sound)
        made.append(_step(entry, StepKind.AUDIO, resources=light, spec=heard, name=names[1]))
    needs = (*(step.name for step in made), *entry.needs)
    return (*made, _step(entry, StepKind.JOIN, resources=light, spec=whole, needs=needs))


def chunk_steps(entry: Entry) -> tuple[str, str]:
    """Names of the automatic steps before a chunked film: its chunks, and its sound."""
    return _made_name(entry, CHUNKS_SUFFIX), _made_name(entry, AUDIO_SUFFIX)


def _made_name(entry: Entry, suffix: str) -> str:
    return f"{entry.name[: 40 - len(suffix)]}{suffix}"


def _with_engine(context: Context, entry: Entry, spec: TranscodeSpec, needed: Resources) -> Resources:
    """NVENC asked for by name is a feature each card must have."""
    if spec.encoder != "nvenc":
        return needed
    wanted = feature(spec.codec, 10 if spec.color in HDR else spec.bits)
    able = tuple(model for model in sorted(context.models) if wanted in catalogue.features(model))
    with context.at(entry.at("encoder")):
        if not (needed.cards or needed.card_milli):
            raise Malformed(
                "nvenc encodes on a card, but none is asked for; write accelerators: 1", ("auto", "software")
            )
        if needed.card_models and not set(needed.card_models) & set(able):
            raise Malformed(f"no {', '.join(needed.card_models)} has {wanted}; these have", able)
    return replace(needed, features=tuple(sorted({*needed.features, wanted})))


def _train(context: Context, entry: Entry) -> tuple[Step, ...]:
    spec = train(context, entry)
    body = entry.body
    assert isinstance(body, kinds.TrainStep | kinds.TrainJob)
    needed = _resources(context, entry, memory_mib=hardware.MEDIA_MEMORY_MIB)
    with context.at(entry.at("min_nodes")):
        if body.min_nodes is not None and body.min_nodes > body.num_nodes:
            raise Malformed(f"must be at most num_nodes, {body.num_nodes}, got {body.min_nodes}")
    step = _step(
        entry,
        StepKind.TRAIN,
        resources=needed,
        spec=spec,
        ranks=body.num_nodes,
        together=Together(body.together),
        expected_ms=body.expected or 0,
    )
    elastic = body.min_nodes is not None and body.min_nodes < body.num_nodes
    least = body.min_nodes if elastic else 0
    return (replace(step, ranks_min=least, checkpoint_ms=body.checkpoint_every or 0, lane=Lane.JOB.value),)


def _step(
    entry: Entry,
    kind: StepKind,
    *,
    resources: Resources,
    spec: object,
    count: int = 1,
    ranks: int = 1,
    max_parallel: int = 0,
    name: str = "",
    needs: tuple[str, ...] | None = None,
    warm_key: str = "",
    chunk: int = 0,
    together: Together = Together.ANYWHERE,
    expected_ms: int = 0,
) -> Step:
    body = entry.body
    return Step(
        name=name or entry.name,
        kind=kind,
        count=count,
        ranks=ranks,
        resources=resources,
        needs=entry.needs if needs is None else needs,
        retries=body.retries,
        backoff_ms=body.backoff,
        backoff_max_ms=body.backoff_max or max(BACKOFF_MAX_MS, body.backoff),
        timeout_ms=body.timeout or 0,
        grace_ms=body.grace,
        max_parallel=max_parallel,
        chunk=chunk,
        warm_key=warm_key,
        together=together,
        run_ms_expected=expected_ms,
        preemptible=body.preemptible,
        spec=codec.dumps(spec),
    )


Builder = Callable[[Context, Entry], tuple[Step, ...]]

BUILDERS: tuple[tuple[tuple[type, ...], Builder], ...] = (
    ((kinds.CommandStep, kinds.CommandJob), command),
    ((kinds.RenderStep, kinds.RenderJob), render),
    ((kinds.TranscodeStep, kinds.TranscodeJob), _film),
    ((kinds.TrainStep, kinds.TrainJob), _train),
)


def build(context: Context, entry: Entry) -> tuple[Step, ...]:
    """The entry's steps, in the order they run."""
    builder = next(made for types, made in BUILDERS if isinstance(entry.body, types))
    return builder(context, entry)
