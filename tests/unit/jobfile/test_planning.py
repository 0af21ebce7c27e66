"""Good files become the steps their owners mean."""

import json
from pathlib import Path

import pytest

from pipelines.plan import order
from scheduler.jobfile import command
from scheduler.jobfile.hardware import matching
from scheduler.jobfile.quantity import Malformed
from scheduler.jobfile.text import parse
from scheduler.model.job import Resources, StepKind
from tests.unit.jobfile.conftest import NOW_MS

ROOT = Path(__file__).parents[3]
COMMAND = "apiVersion: shisuan/v1\nkind: CommandJob\nname: hello\nrun: echo hello\n"
PIPELINE = "apiVersion: shisuan/v1\nkind: Pipeline\nname: film\nsteps:\n"


def orders(studio, text, **changed):
    job = studio.read(text, **changed).job("j7", "request")
    return {(step.name, index): order(job, step, index, 1) for step in job.steps for index in range(step.count)}


def request(made):
    return json.loads(made.request or made.argv[-1])


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_are_accepted(studio, path):
    studio.file("scenes/heads.py")
    studio.file("train/gpt.py")
    for number in range(1, 49):
        (studio.home / "film/frames").mkdir(parents=True, exist_ok=True)
        (studio.home / f"film/frames/film.{number:04d}.png").touch()
    text = path.read_text(encoding="utf-8")
    draft = studio.read(text)
    assert draft.source == text
    assert all(order(draft.job("j1", ""), step, 0, 1).attempt_id for step in draft.steps)


def test_a_training_is_a_gang_with_checkpoints_of_its_own(studio):
    studio.file("code/train.py")
    draft = studio.read(
        "apiVersion: shisuan/v1\nkind: TrainJob\nname: gpt {work}\nscript: code/train.py\n"
        "args: [--steps, 200, '{work}']\n"
        "env: {SEED: 7}\nnum_nodes: 2\noutputs: gpt\nresources: {accelerators: H100:8}\n"
    )
    (made,) = draft.steps
    assert (made.name, made.kind, made.ranks, made.resources.cards) == ("train", StepKind.TRAIN, 2, 8)
    assert made.lane == "job"
    assert (made.grace_ms, made.retries) == (60_000, 2)
    task = order(draft.job("j7", ""), made, 0, 3)
    asked = json.loads(task.argv[-1])
    assert task.argv[:2] == ("{python}", "{train_runner}")
    assert asked["args"] == ["--steps", "200", "{work}"]
    assert "{work}" not in task.argv[-1], "a user's words are not the agent's placeholders"
    assert asked["env"] == {"SEED": "7", "SHISUAN_JOB_NAME": "gpt {work}"}
    assert (asked["python"], asked["processes"]) == ("{train_python}", 0)
    assert task.checkpoints == f"{studio.home}/gpt/checkpoints/j7-{NOW_MS}"
    assert task.reads == (f"{studio.films}/code",)
    assert task.first_rank_publishes


def test_a_virtual_environment_is_read_whole_and_its_python_is_not_resolved(studio):
    (studio.films / "venv/bin").mkdir(parents=True)
    (studio.films / "venv/bin/python").symlink_to("/usr/bin/env")
    text = "apiVersion: shisuan/v1\nkind: TrainJob\nname: a\nmodule: pack.train\npython: "
    task = orders(studio, text + "venv/bin/python")["train", 0]
    assert json.loads(task.argv[-1])["python"] == f"{studio.films}/venv/bin/python"
    assert task.reads == (f"{studio.films}/venv",)
    assert orders(studio, text + "/usr/bin/python3")["train", 0].reads == ()


def test_a_shot_runs_scene_then_frames_then_encode(studio):
    studio.file("scenes/heads.py")
    draft = studio.read((ROOT / "examples/shot.yaml").read_text(encoding="utf-8"))
    assert [(s.name, s.kind, s.count, s.needs) for s in draft.steps] == [
        ("render-scene", StepKind.SCENE, 1, ()),
        ("render", StepKind.RENDER, 24, ("render-scene",)),
        ("encode", StepKind.TRANSCODE, 1, ("render",)),
    ]
    made = orders(studio, draft.source)
    scene, frame, film = made["render-scene", 0], made["render", 23], made["encode", 0]
    assert (
        request(frame)["blend"]
        == f"{scene.output_dir}/{scene.outputs[0]}"
        == f"{studio.home}/jobs/j7/render-scene/heads.blend"
    )
    assert frame.outputs == ("shot.0024.exr", "shot.0024.png")
    assert request(film)["input"] == f"{frame.output_dir}/shot.####.png"
    assert (request(film)["first"], request(film)["last"], request(film)["expect_frames"]) == (1, 24, 24)
    assert (film.output_dir, film.outputs) == (f"{studio.home}/shot", ("shot.mp4",))


def test_frames_of_one_scene_share_a_warm_blender(studio):
    studio.file("scenes/heads.py")
    steps = studio.read((ROOT / "examples/shot.yaml").read_text(encoding="utf-8")).job("j7", "").steps
    assert [step.warm_key for step in steps] == ["", f"{studio.home}/jobs/j7/render-scene/heads.blend", ""]


def test_the_demos_film_is_frames_two_masters_and_a_still_in_tiles(studio):
    studio.file("scenes/heads.py")
    draft = studio.read((ROOT / "examples/film.yaml").read_text(encoding="utf-8"))
    assert [(s.name, s.kind.value, s.count) for s in draft.steps] == [
        ("frames-scene", "scene", 1), ("frames", "render", 48), ("h264", "transcode", 1), ("hevc-chunks", "chunk", 2),
        ("hevc", "join", 1), ("still-scene", "scene", 1), ("still-tiles", "render", 16), ("still", "merge", 1),
    ]  # fmt: skip
    made = orders(studio, draft.source)
    assert request(made["h264", 0])["expect_frames"] == request(made["hevc", 0])["expect_frames"] == 48
    assert {
        (request(made["still-tiles", i])["samples"], request(made["still-tiles", i])["width"]) for i in range(16)
    } == {(4, 7680)}


STILL = (
    "apiVersion: shisuan/v1\nkind: RenderJob\nname: still\nscene: {script: heads.py}\nframes: 12\n"
    "resolution: 7680x4320\nsamples: 4\ntiles: 4x4\ndepth: half\nresources: {cpus: 2, memory: 2GiB}\n"
)


def test_a_still_in_tiles_runs_scene_then_tiles_then_merge(studio):
    studio.file("heads.py")
    draft = studio.read(STILL + "denoise: false\nchunk: 4\nmax_parallel: 8")
    assert [(s.name, s.kind, s.count, s.needs, s.chunk, s.max_parallel) for s in draft.steps] == [
        ("scene", StepKind.SCENE, 1, (), 0, 0),
        ("tiles", StepKind.RENDER, 16, ("scene",), 4, 8),
        ("render", StepKind.MERGE, 1, ("tiles",), 0, 0),
    ]
    made = orders(studio, draft.source)
    tile, merge = made["tiles", 15], made["render", 0]
    assert (request(tile)["left"], request(tile)["top"], request(tile)["right"], request(tile)["bottom"]) == (
        5760,
        3240,
        7680,
        4320,
    )
    assert tile.outputs == ("still.0012.t15.exr", "still.0012.t15.json")
    assert request(merge)["folder"] == tile.output_dir == f"{studio.home}/jobs/j7/tiles"
    assert merge.reads == (tile.output_dir,)
    assert merge.outputs == ("still.0012.exr", "still.0012.png", "still.0012.small.jpg")
    assert merge.output_dir == f"{studio.home}/jobs/j7/render"


def test_a_merge_takes_no_card_and_the_memory_its_picture_needs(studio):
    studio.file("heads.py")
    text = STILL.replace("cpus: 2", "accelerators: L40S, cpus: 2")
    tiles, merge = studio.read(text + "denoise: false").steps[1:]
    assert (tiles.resources.cards, merge.resources.cards, merge.resources.card_models) == (1, 0, ())
    assert merge.resources.cpu_milli == 2_000
    assert merge.resources.memory_mib == 2_048
    little = text.replace("memory: 2GiB", "memory: 512MiB")
    assert studio.read(little + "denoise: false").steps[2].resources.memory_mib == 635
    assert studio.read(little + "denoise: true").steps[2].resources.memory_mib == 1_906


def test_frames_in_tiles_are_encoded_as_whole_ones_are(studio):
    studio.file("shot.blend")
    text = PIPELINE + (
        "- {name: r, kind: render, scene: shot.blend, frames: 1-2, resolution: 64x36, tiles: 2x2, slices: 2, "
        "samples: 4}\n"
        "- {name: f, kind: transcode, input: '${steps.r.outputs}'}"
    )
    assert [(s.name, s.count, s.needs) for s in studio.read(text).steps] == [
        ("r-tiles", 16, ()),
        ("r", 2, ("r-tiles",)),
        ("f", 1, ("r",)),
    ]
    made = orders(studio, text)
    assert request(made["f", 0])["input"] == f"{made['r', 0].output_dir}/film.####.png"
    assert (request(made["f", 0])["first"], request(made["f", 0])["last"]) == (1, 2)


def test_optix_asks_for_ray_tracing(studio):
    studio.file("shot.blend")
    text = (
        "apiVersion: shisuan/v1\nkind: RenderJob\nname: x\nscene: shot.blend\nframes: 1\ndevice: optix\n"
        "resources: {accelerators: "
    )
    assert studio.read(text + "1}").steps[0].resources.features == ("rt",)
    assert studio.read(text + "[L40S, A100]}").steps[0].resources.features == ("rt",)


@pytest.mark.parametrize(("written", "bits"), [("8", 8), ("16", 16), ("'16'", 16), ("off", 0), ("false", 0)])
def test_bits_of_the_png_as_people_write_them(studio, written, bits):
    studio.file("shot.blend")
    text = f"apiVersion: shisuan/v1\nkind: RenderJob\nname: x\nscene: shot.blend\nframes: 1\npng: {written}"
    made = orders(studio, text)["render", 0]
    assert request(made)["bits"] == (bits or 8)
    assert made.outputs == (("x.0001.exr", "x.0001.png") if bits else ("x.0001.exr",))


def test_auto_means_a_card_where_there_are_cards(studio):
    text = COMMAND + "resources: {accelerators: auto}"
    assert studio.read(text, has_cards=False).steps[0].resources.cards == 0
    assert studio.read(text, has_cards=True).steps[0].resources.cards == 1


def test_resources_reach_the_model(studio):
    text = COMMAND + (
        "resources: {cpus: '4+', memory: 8GiB, accelerators: {H100: 8}, accelerator_memory: 79GiB, features: rt,"
        " labels: {zone: b, topology.kubernetes.io/rack: 4}, tolerations: [night], scratch: 1GiB, same_island: true}"
    )
    assert studio.read(text).steps[0].resources == Resources(
        cpu_milli=4_000,
        memory_mib=8_192,
        scratch_mib=1_024,
        cards=8,
        card_models=("H100-PCIE-80GB", "H100-SXM-80GB"),
        card_memory_mib=80_896,
        features=("rt",),
        labels=(("topology.kubernetes.io/rack", "4"), ("zone", "b")),
        tolerations=("night",),
        same_island=True,
    )


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("H100", ("H100-PCIE-80GB", "H100-SXM-80GB")),
        ("h100-sxm", ("H100-SXM-80GB",)),
        ("A100-80GB", ("A100-SXM-80GB",)),
        ("RTX4090", ("RTX-4090",)),
        ("RTX 4090", ("RTX-4090",)),
        ("L40S", ("L40S",)),
    ],
)
def test_model_names_as_people_write_them(name, found):
    models = ("A100-PCIE-40GB", "A100-SXM-80GB", "H100-PCIE-80GB", "H100-SXM-80GB", "L40S", "RTX-4090")
    assert matching(name, models) == found


@pytest.mark.parametrize("name", ["L40", "H10", "100", "A100-90GB", "SXM"])
def test_part_of_a_word_is_no_model(name):
    with pytest.raises(Malformed):
        matching(name, ("A100-SXM-80GB", "H100-SXM-80GB", "L40S"))


def test_array_tasks_know_the_users_numbers(studio):
    made = orders(studio, COMMAND + "array: 5-9x2%2\noutputs: out/${task.index}\noutput_files: r.${task.index}.txt")
    assert [dict(o.env)["SHISUAN_TASK_INDEX"] for o in made.values()] == ["5", "7", "9"]
    assert [o.output_dir for o in made.values()] == [f"{studio.home}/out/{n}" for n in (5, 7, 9)]
    assert made["command", 1].outputs == ("r.7.txt",)
    assert studio.read(COMMAND + "array: 0-3%2").steps[0].max_parallel == 2


def test_a_list_runs_without_a_shell_and_a_text_with_one(studio):
    assert orders(studio, COMMAND.replace("echo hello", "[/bin/true]"))["command", 0].argv == ("/bin/true",)
    assert orders(studio, COMMAND)["command", 0].argv == ("/bin/sh", "-c", "echo hello")
    assert orders(studio, COMMAND)["command", 0].literal


def test_shell_variables_are_left_to_the_shell(studio):
    text = COMMAND.replace("echo hello", "'cd ${work:-$HOME}; echo ${job.id} {work} $$ ${task.index}'")
    assert orders(studio, text)["command", 0].argv[2] == "cd ${work:-$HOME}; echo j7 {work} $$ 0"


def test_a_command_without_outputs_publishes_nothing_unless_somebody_names_them(studio):
    assert orders(studio, COMMAND)["command", 0].output_dir == ""
    text = (
        PIPELINE + "- {name: a, kind: command, run: a}\n- {name: b, kind: command, run: [cat, '${steps.a.outputs}/x']}"
    )
    made = orders(studio, text)
    assert made["a", 0].output_dir == f"{studio.home}/jobs/j7/a"
    assert made["b", 0].argv == ("cat", f"{studio.home}/jobs/j7/a/x")
    assert studio.read(text).steps[1].needs == ("a",)


def test_outputs_of_a_pipeline_hold_its_steps_outputs(studio):
    text = PIPELINE.replace("steps:", "outputs: out\nsteps:") + "- {name: a, kind: command, run: a}"
    assert orders(studio, text)["a", 0].output_dir == f"{studio.home}/out/a"


def test_a_command_reads_the_tenants_storage_or_what_it_names(studio):
    studio.file("plates/x.png")
    assert orders(studio, COMMAND)["command", 0].reads == (str(studio.home), str(studio.films))
    assert orders(studio, COMMAND + "inputs: plates")["command", 0].reads == (f"{studio.films}/plates",)


def test_relative_inputs_are_looked_for_beside_the_file_then_where_outputs_go(studio):
    (studio.home / "a.mov").touch()
    text = "apiVersion: shisuan/v1\nkind: TranscodeJob\nname: x\ninput: a.mov"
    assert request(orders(studio, text)["transcode", 0])["input"] == f"{studio.home}/a.mov"
    studio.file("a.mov")
    assert request(orders(studio, text)["transcode", 0])["input"] == f"{studio.films}/a.mov"


def test_job_dir_is_the_files_folder(studio):
    assert orders(studio, COMMAND.replace("echo hello", "python3 ${job.dir}/t.py"))["command", 0].argv[2] == (
        f"python3 {studio.films}/t.py"
    )


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("shot.####.png", {"source": "pattern", "first": 3, "last": 8, "expect_frames": 6, "fps": "24"}),
        ("shot.%04d.png, frames: 4-8x2", {"source": "pattern", "first": 4, "last": 8, "step": 2, "expect_frames": 3}),
        (".", {"source": "folder", "first": -1, "last": -1, "expect_frames": 0}),
        ("take.mov", {"source": "video", "fps": "", "expect_frames": 0}),
        ("take.mov, fps: 23.976", {"source": "video", "fps": "24000/1001"}),
        ("take.mov, fps: 25", {"fps": "25", "crf": 18, "preset": "medium", "codec": "h264", "threads": 1}),
    ],
)
def test_what_is_encoded(studio, text, facts):
    studio.frames("shot.{:04d}.png", range(3, 9))
    studio.file("take.mov")
    made = orders(studio, "{apiVersion: shisuan/v1, kind: TranscodeJob, name: x, input: " + text + "}")["transcode", 0]
    assert request(made).items() >= facts.items()


def test_frames_on_disk_count_only_in_the_patterns_width(studio):
    studio.frames("a.{:04d}.png", range(1, 4))
    studio.frames("a.{:06d}.png", range(4, 9))
    made = orders(studio, "{apiVersion: shisuan/v1, kind: TranscodeJob, name: x, input: a.####.png}")["transcode", 0]
    assert request(made)["expect_frames"] == 3


def test_a_video_made_by_a_step_is_a_video(studio):
    studio.file("take.mov")
    text = PIPELINE + (
        "- {name: a, kind: transcode, input: take.mov}\n- {name: b, kind: transcode, input: '${steps.a.outputs}'}"
    )
    made = orders(studio, text)
    assert request(made["b", 0])["input"] == f"{studio.home}/jobs/j7/a/film.mp4"
    assert request(made["b", 0])["source"] == "video"


def test_folder_names_that_look_like_placeholders_stay(studio):
    studio.file("{work}/take.mov")
    made = orders(studio, "{apiVersion: shisuan/v1, kind: TranscodeJob, name: x, input: '{work}/take.mov'}")
    assert "{work}/take.mov" not in made["transcode", 0].argv[2]
    assert request(made["transcode", 0])["input"] == f"{studio.films}/{{work}}/take.mov"


def test_pointers_name_the_files_own_fields(studio):
    draft = studio.read(PIPELINE + "- {name: a, kind: command, run: a}\n- {name: b, kind: command, run: b}")
    assert draft.pointer("b", "card") == "steps[1].resources.accelerators"
    assert draft.pointer("b", "ranks") == "steps[1].num_nodes"
    assert draft.pointer("a", "something else") == "steps[0].resources"
    assert studio.read(COMMAND).pointer("command", "cpu") == "resources.cpus"


def test_facts_of_the_job(studio):
    draft = studio.read(COMMAND + "queue: night\npriority: high\ndeadline: +6h\nafter: [j3, j3, j1]\n")
    job = draft.job("j9", "again")
    assert (job.id, job.request_id, job.tenant, job.queue, job.priority) == ("j9", "again", "studio", "night", 70)
    assert job.deadline_ms - job.submitted_ms == 6 * 3_600_000
    assert job.after == ("j3", "j1")
    assert studio.read(COMMAND).queue == "day"


def test_chinese_names_and_bytes_are_welcome(studio):
    made = orders(studio, COMMAND.replace("hello\nrun", "视算 短片\nrun").encode() + b"outputs: ${job.name}")
    assert made["command", 0].output_dir == f"{studio.home}/视算 短片"


def test_command_line_goes_through_the_same_door(studio):
    text = command(["python3", "-c", "print('a: b # c')\n"], cpus=0.5, accelerators="H100:1", queue="", env={"A": "no"})
    job = studio.read(text).job("j1", "")
    made = order(job, job.steps[0], 0, 1)
    assert made.argv == ("python3", "-c", "print('a: b # c')\n")
    assert (job.name, job.steps[0].resources.cpu_milli, job.steps[0].resources.cards) == ("python3", 500, 1)
    assert dict(made.env)["A"] == "no"


def test_a_lone_word_is_a_program_and_a_lone_text_a_shells():
    assert parse(command(["/bin/true"]))["run"] == ["/bin/true"]
    assert parse(command(["echo a; echo b"]))["run"] == "echo a; echo b"
