"""A still in tiles and slices, from the job file to the merged picture, run by an agent in its confinement."""

import json

import numpy
import OpenEXR
import pytest
from PIL import Image

from pipelines.plan import order
from scheduler import jobfile
from scheduler.model.queue import Queue, Tenant
from tests.live.blender import ROOT, command
from tests.live.stepping import run_step
from workers.agent import Agent

EXAMPLES = ROOT / "examples"
JOB = """
apiVersion: shisuan/v1
kind: Pipeline
name: still
steps:
  - {{name: whole, kind: render, {same}, outputs: whole}}
  - {{name: cut, kind: render, {same}, {cut}, outputs: cut}}
"""
SAME = (
    "scene: {script: scenes/heads.py, seed: 7, args: {frames: 12, heads: 12}}, frames: 5, resolution: 101x53, "
    "samples: 4, denoise: false"
)

pytestmark = [
    pytest.mark.blender,
    pytest.mark.skipif(command() is None, reason="no Blender here: run make, or set SHISUAN_BLENDER"),
]


def channels(path):
    with OpenEXR.File(str(path), separate_channels=True) as file:
        return {name: channel.pixels.copy() for name, channel in file.channels().items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Both pictures, and the merge's facts."""
    root = tmp_path_factory.mktemp("still") / "storage"
    root.mkdir()
    roots = (str(root), str(EXAMPLES))
    draft = jobfile.read(
        JOB.format(same=SAME, cut="tiles: 3x2, slices: 2"),
        tenant=Tenant(name="studio", storage_roots=roots),
        queues=(Queue(name="default"),),
        base_dir=str(EXAMPLES),
        now_ms=0,
    )
    job, facts = draft.job("j1", "request"), {}
    agent = Agent(node="n1", tenant="studio", home=root.parent / "home", confinement="auto")
    try:
        for step in job.steps:
            orders = tuple(order(job, step, index, 1) for index in range(step.count))
            ends = run_step(agent, step, orders, roots)
            assert [end.state for end in ends] == ["succeeded"] * step.count, [end.message for end in ends]
            facts[step.name] = [json.loads(end.result) for end in ends]
    finally:
        agent.close()
    return root, facts


def test_tiles_and_slices_merge_into_the_frame_rendered_whole(made):
    root, _ = made
    whole, merged = channels(root / "whole" / "still.0005.exr"), channels(root / "cut" / "still.0005.exr")
    assert sorted(merged) == sorted(whole) == ["B", "G", "R"]
    for name, wanted in whole.items():
        assert merged[name].shape == wanted.shape == (53, 101)
        scale = numpy.abs(wanted).max()
        assert numpy.abs(merged[name].astype(float) - wanted).max() <= 1e-6 * scale


def test_its_preview_looks_as_blenders_own(made):
    root, _ = made
    whole, merged = (numpy.asarray(Image.open(root / step / "still.0005.png")).astype(int) for step in ("whole", "cut"))
    assert numpy.abs(whole - merged).max() <= 2
    assert whole.max() > 150


def test_the_merge_reports_what_its_tiles_took(made):
    _, facts = made
    (merge,) = facts["cut"]
    tiles = facts["cut-tiles"]
    assert len(tiles) == merge["tiles"] * merge["slices"] == 12
    for part in ("open", "sync", "render", "write"):
        assert merge["tiles_ms"][part] == sum(tile["ms"][part] for tile in tiles)
    assert [tile["resident"] for tile in tiles] == [False, *[True] * 11]
    assert facts["whole-scene"][0]["triangles"] > 100_000
