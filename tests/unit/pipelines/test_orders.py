"""Orders against golden files: the runners' authors read those. ``SHISUAN_UPDATE_GOLDEN=1`` writes them anew."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.command import CommandSpec
from pipelines.merge import MergeSpec
from pipelines.plan import PLANNERS, order
from pipelines.render import RenderSpec, SceneSpec
from pipelines.request import Template, line
from pipelines.tiles import Cut
from pipelines.train import TrainSpec
from pipelines.transcode import Source, TranscodeSpec
from scheduler.model import codec
from scheduler.model.job import Job, JobKind, Resources, Step, StepKind
from scheduler.model.order import RunnerKind

GOLDEN = Path(__file__).parents[2] / "golden" / "pipelines"
WIDE = Resources(cpu_milli=3_500)


def step(kind, spec, count=1, **changed):
    facts = {"resources": WIDE, "timeout_ms": 60_000, "grace_ms": 5_000} | changed
    return Step(name="work", kind=kind, count=count, spec=codec.dumps(spec), **facts)


def job_of(made):
    return Job(
        id="j7", name="film", tenant="studio", queue="day", kind=JobKind.PIPELINE, steps=(made,), submitted_ms=1_000
    )


STEPS = {
    "command-shell": step(
        StepKind.COMMAND,
        CommandSpec(
            shell="echo $SHISUAN_TASK_INDEX ${task.index}",
            env=(("A", "${task.index}"), ("B", "2")),
            indices=((5, 9, 1), (20, 21, 1)),
            output_dir="/films/out/${task.index}",
            outputs=("r.${task.index}.txt",),
            reads=("/films",),
        ),
        5,
    ),
    "command-argv": step(StepKind.COMMAND, CommandSpec(argv=("/bin/true",)), 2, resources=Resources()),
    "scene": step(
        StepKind.SCENE,
        SceneSpec(
            script="/films/heads.py",
            seed=7,
            args='{"heads":3,"name":"头 {work}"}',
            save="heads.blend",
            output_dir="/films/jobs/j7/scene",
            reads=("/films",),
        ),
    ),
    "render": step(
        StepKind.RENDER,
        RenderSpec(
            blend="/films/jobs/j7/scene/heads.blend",
            frames=((1, 24, 1), (100, 110, 5)),
            width=320,
            height=180,
            samples=16,
            base="film",
            output_dir="/films/frames",
            reads=("/films/jobs/j7/scene",),
        ),
        25,
    ),
    "train": step(
        StepKind.TRAIN,
        TrainSpec(
            script="/films/code/train.py",
            args=("--steps", "200", "{work}"),
            env=(("SEED", "7"),),
            processes=8,
            output_dir="/films/gpt",
            reads=("/films/code",),
        ),
        ranks=2,
    ),
    "tile": step(
        StepKind.RENDER,
        RenderSpec(
            blend="/films/jobs/j7/scene/heads.blend",
            frames=((1, 3, 1),),
            width=7_680,
            height=4_320,
            samples=4,
            cut=Cut(columns=4, rows=4, slices=2),
            base="still",
            output_dir="/films/jobs/j7/still-tiles",
            reads=("/films/jobs/j7/scene",),
        ),
        64,
    ),
    "merge": step(
        StepKind.MERGE,
        MergeSpec(
            folder="/films/jobs/j7/still-tiles",
            frames=((1, 3, 1),),
            cut=Cut(columns=4, rows=4, slices=2),
            width=7_680,
            height=4_320,
            base="still",
            depth="half",
            output_dir="/films/stills",
            reads=("/films/jobs/j7/still-tiles",),
        ),
        2,
    ),
    "transcode": step(
        StepKind.TRANSCODE,
        TranscodeSpec(
            source=Source.PATTERN,
            input="/films/frames/film.####.png",
            first=1,
            last=24,
            fps="24",
            expect_frames=24,
            file="film.mp4",
            output_dir="/films",
            reads=("/films/frames",),
        ),
    ),
    "chunk": step(
        StepKind.CHUNK,
        TranscodeSpec(
            source=Source.VIDEO,
            input="/films/take.mov",
            codec="hevc",
            bits=10,
            color="hlg",
            encoder="software",
            chunks=8,
            file="film.mp4",
            output_dir="/films/jobs/j7/work-chunks",
            reads=("/films/take.mov",),
        ),
        8,
    ),
    "audio": step(
        StepKind.AUDIO,
        TranscodeSpec(
            source=Source.VIDEO,
            input="/films/take.mov",
            file="film.mp4",
            output_dir="/films/jobs/j7/work-audio",
            reads=("/films/take.mov",),
        ),
    ),
    "join": step(
        StepKind.JOIN,
        TranscodeSpec(
            source=Source.VIDEO,
            input="/films/take.mov",
            codec="hevc",
            bits=10,
            color="hlg",
            chunks=8,
            parts="/films/jobs/j7/work-chunks",
            sound="/films/jobs/j7/work-audio",
            file="film.mp4",
            output_dir="/films",
            reads=("/films/jobs/j7/work-chunks", "/films/jobs/j7/work-audio"),
        ),
    ),
}


@pytest.mark.parametrize("name", STEPS)
def test_order_of_the_last_task_is_the_golden_one(name):
    made = STEPS[name]
    found = codec.encode(order(job_of(made), made, made.count - 1, 2))
    for field in ("request",):
        if field in found:
            found[field] = json.loads(found[field])
    text = json.dumps(found, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    path = GOLDEN / f"{name}.json"
    if os.environ.get("SHISUAN_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_every_kind_of_step_has_a_planner():
    assert set(PLANNERS) == set(StepKind)


def test_a_program_runs_without_a_shell():
    made = STEPS["command-argv"]
    assert order(job_of(made), made, 0, 1).argv == ("/bin/true",)


def test_only_a_users_words_are_literal():
    literal = {name: order(job_of(made), made, 0, 1).literal for name, made in STEPS.items()}
    assert [name for name, is_literal in literal.items() if is_literal] == ["command-shell", "command-argv"]


def test_blender_stays_and_ffmpeg_goes():
    resident = [name for name, made in STEPS.items() if order(job_of(made), made, 0, 1).runner is RunnerKind.RESIDENT]
    assert resident == ["scene", "render", "tile"]


def test_frames_follow_the_positions():
    made = STEPS["render"]
    frames = [json.loads(order(job_of(made), made, index, 1).request)["frame"] for index in range(made.count)]
    assert frames == [*range(1, 24), 100, 105]


@pytest.mark.parametrize("milli", [1, 999, 1_000, 1_999])
def test_a_small_lease_still_has_one_thread(milli):
    made = replace(STEPS["render"], resources=Resources(cpu_milli=milli))
    assert json.loads(order(job_of(made), made, 0, 1).request)["threads"] == 1


@pytest.mark.parametrize("index", [-1, 25])
def test_tasks_that_do_not_exist_are_refused(index):
    made = STEPS["render"]
    with pytest.raises(IndexError, match="has tasks 0 to 24"):
        order(job_of(made), made, index, 1)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(st.characters(exclude_characters="\ufdd0"))),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text("{}workpyth\n\"'\\"), inner)),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["a", "b", "args"]), JSON))
def test_a_users_braces_are_never_placeholders(fields):
    text = line({**fields, "out": Template("{work}/outputs/", "{work}")})
    assert text.count("{work}") == 1
    assert "\n" not in text
    assert json.loads(text.replace("{work}", "/w")) == {**fields, "out": "/w/outputs/{work}"}
