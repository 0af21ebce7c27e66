"""What transcodes become: fields, chunks with their sound and join, cards; and what is refused, at which field."""

import json
from dataclasses import replace

import pytest

from pipelines.plan import order
from scheduler.model.catalogue import known_models
from scheduler.model.job import StepKind

JOB = "apiVersion: shisuan/v1\nkind: TranscodeJob\nname: film\n"
VIDEO = JOB + "input: take.mov\n"
FRAMES = JOB + "input: shot.####.png\n"
LIGHT = JOB + "input: light.####.exr\n"
PIPELINE = "apiVersion: shisuan/v1\nkind: Pipeline\nname: film\nsteps:\n"
RENDER = "- {name: r, kind: render, scene: shot.blend, frames: 1-24, outputs: frames}\n"
ENCODE = "- {name: e, kind: transcode, input: '${steps.r.outputs}', outputs: film.mp4, %s}\n"


@pytest.fixture
def films(studio):
    for name in ("take.mov", "shot.blend", "config.ocio"):
        studio.file(name)
    studio.frames("shot.{:04d}.png", range(1, 25))
    studio.frames("light.{:04d}.exr", range(1, 25))
    return studio


def job(studio, text, **changed):
    return studio.read(text, **changed).job("j7", "request")


def requests(made):
    """Every task's request by step and index, and its order."""
    found = {(step.name, at): order(made, step, at, 1) for step in made.steps for at in range(step.count)}
    return {key: (json.loads(task.argv[-1]), task) for key, task in found.items()}


def shape(made):
    return [(step.name, step.kind, step.count, step.needs) for step in made.steps]


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (VIDEO, {"codec": "h264", "bits": 0, "color": "", "crf": 18, "encoder": "auto", "audio": "aac", "op": "film"}),
        (VIDEO + "codec: hevc", {"codec": "hevc", "crf": 20}),
        (VIDEO + "codec: HEVC\ncrf: 0\nbits: 10\ncolor: pq", {"codec": "hevc", "crf": 0, "bits": 10, "color": "pq"}),
        (FRAMES + "color: hlg", {"color": "hlg", "bits": 0, "first": 1, "last": 24, "expect_frames": 24}),
        (VIDEO + "audio: copy\nthreads: 3\nencoder: software", {"audio": "copy", "threads": 3, "encoder": "software"}),
        (VIDEO + "resources: {cpus: 4}", {"threads": 4}),
        (LIGHT + "display: sRGB\nview: Filmic", {"source": "pattern", "display": "sRGB", "view": "Filmic", "ocio": ""}),
    ],
)
def test_fields_reach_the_runner(films, text, facts):
    asked, _ = requests(job(films, text))["transcode", 0]
    assert asked.items() >= facts.items()


def test_a_colour_configuration_may_be_read(films):
    asked, task = requests(job(films, LIGHT + "ocio: config.ocio"))["transcode", 0]
    assert asked["ocio"] == f"{films.films}/config.ocio"
    assert str(films.films) in task.reads


def test_frames_in_chunks_are_two_steps(films):
    made = job(films, PIPELINE + RENDER + ENCODE % "chunks: 5, codec: hevc, bits: 10")
    assert shape(made)[1:] == [
        ("e-chunks", StepKind.CHUNK, 5, ("r",)),
        ("e", StepKind.JOIN, 1, ("e-chunks", "r")),
    ]
    tasks = requests(replace(made, steps=made.steps[1:]))
    first, task = tasks["e-chunks", 0]
    last, _ = tasks["e-chunks", 4]
    assert (first["op"], first["chunk"], last["chunk"], first["chunks"]) == ("chunk", 0, 4, 5)
    assert first["expect_frames"] == last["expect_frames"] == 24
    assert task.outputs == ("chunk.0000.mp4", "chunk.0000.mp4.json")
    joined, whole = tasks["e", 0]
    assert joined["parts"] == f"{task.output_dir}/chunk.####.mp4" == f"{films.home}/jobs/j7/e-chunks/chunk.####.mp4"
    assert (joined["op"], joined["chunks"], joined["sound"], whole.outputs) == ("join", 5, "", ("film.mp4",))
    assert task.output_dir in whole.reads


def test_a_film_in_chunks_is_still_the_steps_output(films):
    text = PIPELINE + RENDER + ENCODE % "chunks: 2" + "- {name: tell, kind: command, run: 'ls ${steps.e.outputs}'}\n"
    made = job(films, text)
    assert made.steps[-1].needs == ("e",)
    assert f"ls {films.home}/film.mp4" in order(made, made.steps[-1], 0, 1).argv


def test_a_videos_sound_is_a_step_of_its_own(films):
    made = job(films, VIDEO + "chunks: 3")
    assert shape(made) == [
        ("transcode-chunks", StepKind.CHUNK, 3, ()),
        ("transcode-audio", StepKind.AUDIO, 1, ()),
        ("transcode", StepKind.JOIN, 1, ("transcode-chunks", "transcode-audio")),
    ]
    tasks = requests(made)
    asked, task = tasks["transcode-audio", 0]
    assert (asked["op"], task.outputs) == ("audio", ("*",))
    assert tasks["transcode", 0][0]["sound"] == task.output_dir == f"{films.home}/jobs/j7/transcode-audio"
    assert asked["out"] == "{work}/outputs/audio.m4a"


@pytest.mark.parametrize(("audio", "reads_source"), [("copy", True), ("none", False)])
def test_sound_that_is_not_encoded_needs_no_step(films, audio, reads_source):
    made = job(films, VIDEO + f"chunks: 3\naudio: {audio}")
    assert [step.name for step in made.steps] == ["transcode-chunks", "transcode"]
    assert (f"{films.films}/take.mov" in requests(made)["transcode", 0][1].reads) is reads_source


@pytest.mark.parametrize(("most", "count"), [(24, 1), (23, 2), (7, 4), (1, 24)])
def test_chunk_frames_is_the_most_a_chunk_has(films, most, count):
    made = job(films, FRAMES + f"chunk_frames: {most}")
    assert made.steps[0].count == count
    assert len(made.steps) == (1 if count == 1 else 2)


# --- cards ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "feature"),
    [
        ("codec: hevc", "nvenc:hevc"),
        ("codec: hevc\nbits: 10", "nvenc:hevc-10bit"),
        ("codec: hevc\ncolor: hlg", "nvenc:hevc-10bit"),
        ("codec: h264\nbits: 10", "nvenc:h264-10bit"),
    ],
)
def test_nvenc_asks_for_cards_that_have_it(films, words, feature):
    made = job(films, VIDEO + f"encoder: nvenc\n{words}\nchunks: 2\nresources: {{accelerators: 1}}")
    assert [(step.resources.cards, step.resources.features) for step in made.steps] == [
        (1, (feature,)),
        (0, ()),
        (0, ()),
    ]


BAD = {
    "HLG in 8 bits": (VIDEO + "color: hlg\nbits: 8", "bits: color hlg needs 10 bits: 8 would show steps"),
    "bits": (VIDEO + "bits: 12", "bits: must be a number of bits, got 12 (valid: 8, 10)"),
    "color": (VIDEO + "color: hdr", "color: unknown color 'hdr'"),
    "color's choices": (VIDEO + "color: hdr", "(valid: bt709, hlg, pq)"),
    "encoder": (VIDEO + "encoder: qsv", "encoder: unknown encoder 'qsv' (valid: auto, software, nvenc)"),
    "audio": (VIDEO + "audio: mp3", "(valid: aac, copy, none)"),
    "sound of frames": (FRAMES + "audio: copy", "audio: numbered frames have no sound; leave audio out (valid: none)"),
    "nvenc without a card": (
        VIDEO + "encoder: nvenc",
        "encoder: nvenc encodes on a card, but none is asked for; write accelerators: 1 (valid: auto, software)",
    ),
    "nvenc on a card without": (
        VIDEO + "encoder: nvenc\ncodec: hevc\nresources: {accelerators: H100}",
        "encoder: no H100-PCIE-80GB, H100-SXM-80GB has nvenc:hevc; these have (valid: L40S, RTX-4090)",
    ),
    "chunks and chunk_frames": (FRAMES + "chunks: 2\nchunk_frames: 5", "chunk_frames: chunks and chunk_frames exclude"),
    "more chunks than frames": (
        FRAMES + "chunks: 25",
        "chunks: 25 chunks of 24 frames would leave some empty; write 24 or less",
    ),
    "chunk_frames of a video": (
        VIDEO + "chunk_frames: 100",
        "chunk_frames: nobody knows at submission how many frames there are; write chunks instead",
    ),
    "one chunk": (VIDEO + "chunks: 1", "chunks: must be a whole number from 2 to 9999, got 1"),
    "a view for a video": (VIDEO + "view: Filmic", "display: display, view and ocio are for OpenEXR frames to bt709"),
    "a view for HLG": (LIGHT + "color: hlg\nview: Filmic", "but color hlg has a conversion of its own"),
    "no such configuration": (LIGHT + "ocio: nowhere.ocio", "ocio: 'nowhere.ocio': there is no file"),
    "a name that chunks take": (
        PIPELINE
        + "- {name: e-chunks, kind: command, run: a}\n- {name: e, kind: transcode, input: take.mov, chunks: 2}\n",
        "steps[1].name: the name 'e-chunks' for the chunks of step 'e' is taken by steps[0]",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_owner_reads_where_and_why(films, name):
    text, says = BAD[name]
    assert says in films.refusal(text)


def test_the_real_catalogue_knows_which_cards_encode_ten_bits_of_h264(films):
    text = VIDEO + "encoder: nvenc\nbits: 10\nresources: {accelerators: L40S}"
    told = films.refusal(text, models=known_models())
    assert "no L40S has nvenc:h264-10bit" in told
    assert "RTX-PRO-6000-Server" in told
