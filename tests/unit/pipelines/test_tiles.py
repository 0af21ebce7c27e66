"""Cutting a frame: every pixel and every sample is rendered by exactly one task."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines import tiles
from pipelines.merge import MergeSpec
from pipelines.plan import order
from pipelines.render import RenderSpec
from pipelines.tiles import Cut, Piece
from scheduler.model import codec
from scheduler.model.job import Job, JobKind, Step, StepKind

CUTS = st.builds(Cut, columns=st.integers(1, 64), rows=st.integers(1, 64), slices=st.integers(1, 32))


@given(CUTS, st.integers(0, 10_000_000))
def test_task_number_and_piece_are_each_others_inverse(cut, index):
    piece = tiles.piece_at(cut, index)
    assert 0 <= piece.tile < cut.tiles
    assert 0 <= piece.slice < cut.slices
    assert tiles.index_of(cut, piece) == index


@given(st.integers(8, 20_000), st.integers(8, 20_000), CUTS)
def test_windows_cover_the_frame_without_overlap(width, height, cut):
    cut = replace(cut, columns=min(cut.columns, width), rows=min(cut.rows, height))
    found = [tiles.window(cut, tile, width, height) for tile in range(cut.tiles)]
    assert sum((w.right - w.left) * (w.bottom - w.top) for w in found) == width * height
    for number, w in enumerate(found):
        assert 0 <= w.left < w.right <= width
        assert 0 <= w.top < w.bottom <= height
        row, column = divmod(number, cut.columns)
        if column:
            assert (w.left, w.top) == (found[number - 1].right, found[number - 1].top)
        if row:
            assert (w.top, w.left) == (found[number - cut.columns].bottom, found[number - cut.columns].left)
    sizes = {w.right - w.left for w in found}
    assert max(sizes) - min(sizes) <= 1


@given(CUTS, st.integers(1, 100_000))
def test_slices_share_out_every_sample_once(cut, samples):
    cut = replace(cut, slices=min(cut.slices, samples))
    spans = [tiles.sample_span(cut, slice_, samples) for slice_ in range(cut.slices)]
    assert [at for at, _ in spans] == [sum(length for _, length in spans[:n]) for n in range(len(spans))]
    assert sum(length for _, length in spans) == samples
    assert all(length > 0 for _, length in spans)


@given(CUTS)
def test_no_two_pieces_of_a_frame_share_a_name(cut):
    cut = replace(cut, columns=min(cut.columns, 12), rows=min(cut.rows, 12), slices=min(cut.slices, 4))
    names = [tiles.piece_name("film", 7, tiles.piece_at(cut, n), cut) for n in range(cut.pieces)]
    assert len(set(names)) == cut.pieces


@pytest.mark.parametrize(
    ("cut", "tile", "slice_", "name"),
    [
        (Cut(columns=4, rows=4), 3, 0, "film.0001.t03"),
        (Cut(columns=4, rows=4, slices=2), 3, 1, "film.0001.t03.s1"),
        (Cut(slices=2), 0, 1, "film.0001.t00.s1"),
        (Cut(columns=16, rows=16), 9, 0, "film.0001.t009"),
    ],
)
def test_names_of_pieces(cut, tile, slice_, name):
    assert tiles.piece_name("film", 1, Piece(position=0, tile=tile, slice=slice_), cut) == name


def test_a_tile_that_is_not_there_is_refused():
    with pytest.raises(IndexError, match="tile 4 must be in"):
        tiles.window(Cut(columns=2, rows=2), 4, 100, 100)


PIECES = RenderSpec(
    blend="/films/a.blend",
    frames=((3, 5, 1),),
    width=101,
    height=53,
    samples=8,
    base="film",
    cut=Cut(columns=3, rows=2, slices=2),
    output_dir="/films/tiles",
)


def orders(kind, spec, count):
    step = Step(name="work", kind=kind, count=count, spec=codec.dumps(spec))
    job = Job(id="j1", name="n", tenant="t", queue="q", kind=JobKind.PIPELINE, steps=(step,), submitted_ms=1)
    return [order(job, step, index, 1) for index in range(count)]


def test_the_merge_asks_for_exactly_the_files_the_pieces_leave():
    made = orders(StepKind.RENDER, PIECES, 24)
    left = {name for one in made for name in one.outputs}
    assert len(left) == 48
    merge = MergeSpec(
        folder="/films/tiles", frames=PIECES.frames, cut=PIECES.cut, width=101, height=53, base="film", output_dir="/o"
    )
    wanted = set()
    for one in orders(StepKind.MERGE, merge, 2):
        asked = json.loads(one.argv[2])
        for tile in range(asked["columns"] * asked["rows"]):
            for slice_ in range(asked["slices"]):
                name = f"{asked['prefix']}{tile:0{asked['digits']}d}" + (f".s{slice_}" if asked["slices"] > 1 else "")
                wanted |= {f"{name}.exr", f"{name}.json"}
    assert wanted == left


@pytest.mark.parametrize(
    ("changed", "depth"),
    [
        ({"depth": "half", "denoise": 0, "cut": Cut(columns=2)}, "half"),
        ({"depth": "half", "denoise": 0}, "float"),
        ({"depth": "half", "denoise": 1, "cut": Cut(columns=2)}, "float"),
        ({"depth": "half", "cut": Cut(columns=2)}, "float"),
    ],
)
def test_a_piece_is_rounded_only_when_the_merge_does_not_compute_with_it(changed, depth):
    made = orders(StepKind.RENDER, replace(PIECES, **changed), 1)
    assert json.loads(made[0].request)["depth"] == depth


def test_slices_alone_render_the_whole_window_at_the_files_own_size():
    made = orders(StepKind.RENDER, replace(PIECES, width=0, height=0, cut=Cut(slices=2)), 4)
    asked = [json.loads(one.request) for one in made]
    assert [(a["frame"], a["left"], a["right"], a["offset"], a["length"]) for a in asked] == [
        (3, 0, 0, 0, 4),
        (3, 0, 0, 4, 4),
        (4, 0, 0, 0, 4),
        (4, 0, 0, 4, 4),
    ]


def test_small_frames_get_no_small_picture():
    spec = MergeSpec(
        folder="/t", frames=((1, 2, 1),), cut=Cut(columns=2), width=1280, height=720, base="f", output_dir="/o"
    )
    assert orders(StepKind.MERGE, spec, 1)[0].outputs == ("f.0001.exr", "f.0001.png")
    wide = replace(spec, width=1281)
    assert orders(StepKind.MERGE, wide, 1)[0].outputs == ("f.0001.exr", "f.0001.png", "f.0001.small.jpg")
    assert orders(StepKind.MERGE, replace(wide, png_bits=0), 1)[0].outputs == ("f.0001.exr",)
