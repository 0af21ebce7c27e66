"""Pieces of a frame as the resident Blender makes them: exact, complete, refused where they could not be."""

import json
import os
import resource

import numpy
import OpenEXR
import pytest

from tests.live.blender import Client, command, frame

pytestmark = [
    pytest.mark.blender,
    pytest.mark.skipif(command() is None, reason="no Blender here: run make, or set SHISUAN_BLENDER"),
]
SCENE = """
import bpy
def build(seed, args):
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.render.resolution_x, scene.render.resolution_y = 61, 37
    scene.cycles.samples = 4
    bpy.ops.mesh.primitive_monkey_add()
    bpy.ops.object.light_add(type="SUN")
    bpy.ops.object.camera_add(location=(0, -4, 0), rotation=(1.5708, 0, 0))
    scene.camera = bpy.context.object
    layer = scene.view_layers[0]
    EXTRA
"""
PASSES = "layer.use_pass_z = layer.use_pass_normal = layer.use_pass_cryptomatte_object = True"


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    with Client(tmp_path_factory.mktemp("resident")) as client:
        yield client


@pytest.fixture
def scene(runner, tmp_path):
    def make(extra="pass"):
        script = tmp_path / "scene.py"
        script.write_text(SCENE.replace("EXTRA", "\n    ".join(extra.splitlines())))
        runner.done(op="scene", script=str(script), seed=1, args={}, save=str(tmp_path / "scene.blend"))
        return tmp_path / "scene.blend"

    make.runner = runner
    return make


def tile(blend, out, window=(0, 0, 0, 0), offset=0, length=0, **over):
    left, top, right, bottom = window
    place = {"left": left, "top": top, "right": right, "bottom": bottom, "offset": offset, "length": length}
    size = {"width": 61, "height": 37, "denoise": 0, "exr": "t.exr", "note": "t.json"}
    return {**frame(blend, 1, out), **size, **place, "op": "tile", **over}


def channels(path):
    with OpenEXR.File(str(path), separate_channels=True) as file:
        return {name: channel.pixels.copy() for name, channel in file.channels().items()}


def test_every_pass_of_a_tile_is_that_of_the_frame(runner, scene, tmp_path):
    blend = scene(PASSES)
    runner.done(**frame(blend, 1, tmp_path, width=61, height=37, denoise=0, passes="all"))
    whole = channels(tmp_path / "f.0001.exr")
    assert {"ViewLayer.Combined.R", "ViewLayer.Depth.Z", "ViewLayer.Normal.X", "ViewLayer.CryptoObject00.r"} <= {*whole}
    for left, top, right, bottom in ((0, 0, 20, 12), (20, 12, 61, 37), (7, 30, 8, 37)):
        made = runner.done(**tile(blend, tmp_path, (left, top, right, bottom)))
        assert (made["width"], made["height"], made["resident"]) == (right - left, bottom - top, True)
        found = channels(tmp_path / "t.exr")
        assert sorted(found) == sorted(whole)
        for name, pixels in found.items():
            assert pixels.tobytes() == numpy.ascontiguousarray(whole[name][top:bottom, left:right]).tobytes(), name
    note = json.loads((tmp_path / "t.json").read_text())
    assert (note["window"], note["full"], note["layers"], note["denoise"]) == (
        [7, 30, 8, 37],
        [61, 37],
        ["ViewLayer"],
        False,
    )
    assert note["color"]["view"] == "AgX"


def test_a_frame_after_tiles_is_whole_again(runner, scene, tmp_path):
    blend = scene()
    runner.done(**frame(blend, 1, tmp_path))
    before = channels(tmp_path / "f.0001.exr")
    runner.done(**tile(blend, tmp_path, (5, 5, 9, 9), offset=1, length=2))
    assert runner.done(**frame(blend, 1, tmp_path))["resident"]
    after = channels(tmp_path / "f.0001.exr")
    assert {name: p.tobytes() for name, p in after.items()} == {name: p.tobytes() for name, p in before.items()}


def test_the_picture_alone_and_half_values(runner, scene, tmp_path):
    runner.done(**frame(scene(PASSES), 1, tmp_path, passes="picture", depth="half", bits=16))
    assert {name: p.dtype.name for name, p in channels(tmp_path / "f.0001.exr").items()} == dict.fromkeys(
        "RGB", "float16"
    )
    assert (tmp_path / "f.0001.png").read_bytes()[24] == 16


def test_no_png_when_it_is_off(runner, scene, tmp_path):
    runner.done(**frame(scene(), 1, tmp_path / "out", png=""))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["f.0001.exr"]


def test_albedo_and_normals_come_with_a_tile_that_will_be_denoised(runner, scene, tmp_path):
    blend = scene("scene.cycles.use_denoising = True")
    runner.done(**tile(blend, tmp_path, (0, 0, 61, 20), denoise=-1))
    assert "ViewLayer.Denoising Albedo.R" in channels(tmp_path / "t.exr")
    note = json.loads((tmp_path / "t.json").read_text())
    assert (note["denoise"], note["guides"]) == (True, [])


COMPOSITOR = """scene.use_nodes = True
nodes, links = scene.node_tree.nodes, scene.node_tree.links
blur = nodes.new("CompositorNodeBlur")
links.new(nodes["Render Layers"].outputs["Image"], blur.inputs["Image"])
links.new(blur.outputs["Image"], nodes["Composite"].inputs["Image"])"""


@pytest.mark.parametrize(
    ("extra", "length", "says"),
    [
        (COMPOSITOR, 0, "the compositor needs the whole picture"),
        ("layer.use_pass_cryptomatte_object = True", 2, "Cryptomatte passes cannot be averaged"),
        ("scene.render.use_multiview = True", 0, "stereo pictures cannot be rendered in tiles"),
    ],
)
def test_what_pieces_would_spoil_is_refused(scene, tmp_path, extra, length, says):
    assert says in scene.runner.refusal(**tile(scene(extra), tmp_path, (0, 0, 30, 37), length=length))


def test_slices_say_that_they_take_every_sample(runner, scene, tmp_path):
    made = runner.done(**tile(scene("scene.cycles.use_adaptive_sampling = True"), tmp_path, offset=2, length=2))
    assert made["samples"] == 2
    assert made["warnings"] == ["adaptive sampling was left out: every pixel takes all samples of its slices"]


def test_a_texture_that_is_gone_is_named(runner, scene, tmp_path):
    blend = scene(
        f'image = bpy.data.images.new("wood", 4, 4)\nimage.filepath = {str(tmp_path / "wood.png")!r}\n'
        'image.source = "FILE"\nimage.use_fake_user = True'
    )
    assert "wood.png" in runner.refusal(**tile(blend, tmp_path, (0, 0, 30, 37)))


def test_a_full_disk_is_told_and_leaves_no_file(scene, tmp_path):
    blend, room = scene(), 60_000
    with Client(tmp_path) as client:
        assert client.done(**frame(blend, 1, tmp_path / "before", width=200, height=200))
        # A limit on file size stands for a disk without room: Python ignores the signal, writing fails.
        resource.prlimit(client.process.pid, resource.RLIMIT_FSIZE, (room, room))
        reason = client.refusal(**frame(blend, 1, tmp_path / "out", width=200, height=200))
        assert "is the disk full?" in reason or os.strerror(27) in reason, reason
    assert list((tmp_path / "out").iterdir()) == []
