"""What a file tells the scheduler: expectations, licences, bands, distances, elastic trainings."""

import pytest

from scheduler.model.job import Together

HEAD = "apiVersion: shisuan/v1\nkind: {}Job\nname: x\n"
COMMAND = HEAD.format("Command") + "run: 'true'\n"
TRAIN = HEAD.format("Train") + "module: gpt\n"


def step(studio, text, **changed):
    (found,) = studio.read(text, **changed).steps
    return found


def test_what_is_not_said_is_as_before(studio):
    plain = step(studio, COMMAND)
    assert (plain.run_ms_expected, plain.preemptible, plain.together) == (0, True, Together.ANYWHERE)
    assert (plain.ranks_min, plain.checkpoint_ms, plain.resources.licences) == (0, 0, ())
    assert studio.read(COMMAND).band == ""


def test_the_back_off_between_retries(studio):
    plain = step(studio, COMMAND)
    assert (plain.backoff_ms, plain.backoff_max_ms) == (10_000, 600_000)
    said = step(studio, COMMAND + "backoff: 30s\nbackoff_max: 2m")
    assert (said.backoff_ms, said.backoff_max_ms) == (30_000, 120_000)
    none = step(studio, COMMAND + "backoff: 0")
    assert none.backoff_ms == 0
    long = step(studio, COMMAND + "backoff: 1h")
    assert (long.backoff_ms, long.backoff_max_ms) == (3_600_000, 3_600_000)


def test_every_step_of_a_film_has_it(studio):
    studio.frames("plates/take.{:04d}.png", range(1, 25))
    text = HEAD.format("Transcode") + "input: plates/take.####.png\nchunks: 4\nbackoff: 7s\n"
    assert {each.backoff_ms for each in studio.read(text).steps} == {7_000}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("backoff: 2h", "backoff: must be at most 1h, got '2h'"),
        ("backoff: true", "backoff: must be a duration such as 90s, 30m, 1h30m or 2d, got true"),
        ("backoff: soon", "backoff: must be a duration such as 90s, 30m, 1h30m or 2d, got 'soon'"),
        ("backoff_max: 2d", "backoff_max: must be at most 1d, got '2d'"),
        ("backoff_max: 0", "backoff_max: must be longer than nothing and at most 365d, got 0"),
        (
            "backoff: 1m\nbackoff_max: 30s",
            "backoff_max: is shorter than backoff, which is 60s: make it at least as long",
        ),
    ],
)
def test_a_back_off_that_is_none(studio, lines, said):
    assert studio.refusal(COMMAND + lines) == said


def test_expectation_licences_and_distance_of_a_command(studio):
    found = step(
        studio,
        COMMAND
        + "expected: 40m\npreemptible: false\ntogether: Rack\nnum_nodes: 2\n"
        + "resources: {licences: {nuke: 2, houdini: 1}}",
        licences={"nuke": 2, "houdini": 8},
    )
    assert (found.run_ms_expected, found.preemptible, found.together) == (2_400_000, False, Together.RACK)
    assert found.resources.licences == (("houdini", 1), ("nuke", 2))


@pytest.mark.parametrize(
    ("licences", "said"),
    [
        ({"nuke": 1}, "resources.licences.nuke: asks for 2 seats; the park has 1"),
        ({"houdini": 8}, "resources.licences.nuke: the park has no licence 'nuke' (valid: houdini)"),
        ({}, "resources.licences.nuke: the park has no licence 'nuke'"),
    ],
)
def test_licences_that_the_park_lacks_are_refused(studio, licences, said):
    assert studio.refusal(COMMAND + "resources: {licences: {nuke: 2}}", licences=licences) == said


def test_a_band_must_be_one_of_the_parks(studio):
    assert studio.read(COMMAND + "band: valley", bands=["valley"]).job("j1", "").band == "valley"
    said = studio.refusal(COMMAND + "band: vally", bands=["valley", "day"])
    assert said == "band: unknown price band 'vally'; did you mean 'valley'? (valid: day, valley)"
    assert studio.refusal(COMMAND + "band: night", bands=[]) == "band: unknown price band 'night'"


def test_an_elastic_training(studio):
    found = step(studio, TRAIN + "num_nodes: 4\nmin_nodes: 2\ncheckpoint_every: 10m\nexpected: 3h\ntogether: rack")
    assert (found.ranks, found.ranks_min, found.checkpoint_ms, found.run_ms_expected) == (4, 2, 600_000, 10_800_000)
    assert found.together is Together.RACK
    assert step(studio, TRAIN + "num_nodes: 4\nmin_nodes: 4").ranks_min == 0


def test_what_is_expected_of_a_frame_is_shared_by_its_pieces_and_no_merge_takes_a_licence(studio):
    studio.file("shots/010.blend")
    text = (
        HEAD.format("Render") + "scene: shots/010.blend\nframes: 1-2\nresolution: 640x360\ntiles: 2x2\nexpected: 8m\n"
    )
    pieces, merge = studio.read(text + "resources: {licences: {renderman: 1}}\npreemptible: false").steps
    assert (pieces.run_ms_expected, merge.run_ms_expected) == (120_000, 0)
    assert (pieces.resources.licences, merge.resources.licences) == ((("renderman", 1),), ())
    assert not pieces.preemptible
    assert not merge.preemptible


def test_what_is_expected_of_a_film_is_shared_by_its_chunks(studio):
    studio.frames("plates/take.{:04d}.png", range(1, 25))
    text = HEAD.format("Transcode") + "input: plates/take.####.png\nchunks: 4\nexpected: 8m\n"
    chunks, *others = studio.read(text).steps
    assert chunks.run_ms_expected == 120_000
    assert {other.run_ms_expected for other in others} == {0}
