"""The resident Blender as the agent meets it: real renders, real kills, hostile and broken files."""

import json
import os
import signal

import numpy
import OpenEXR
import pytest
from PIL import Image

from tests.live.blender import ROOT, Client, command, frame, pixels
from workers.mediacheck import check_exr, check_png

pytestmark = [
    pytest.mark.blender,
    pytest.mark.skipif(command() is None, reason="no Blender here: run make, or set SHISUAN_BLENDER"),
]
HEADS = ROOT / "examples" / "scenes" / "heads.py"

CUBE = """
import bpy
def build(seed, args):
    print("noise on stdout")
    scene = bpy.context.scene
    scene.render.engine = "CYCLES"
    scene.render.resolution_x, scene.render.resolution_y = 40, 20
    scene.cycles.samples = 2
    bpy.ops.mesh.primitive_cube_add()
    if args.get("light", True):
        bpy.ops.object.light_add(type="SUN")
    if args.get("camera", True):
        bpy.ops.object.camera_add(location=(0, -6, 0), rotation=(1.5708, 0, 0))
        scene.camera = bpy.context.object
    EXTRA
"""


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    with Client(tmp_path_factory.mktemp("resident")) as client:
        yield client


@pytest.fixture(scope="module")
def heads(runner, tmp_path_factory):
    save = tmp_path_factory.mktemp("heads") / "heads.blend"
    runner.done(op="scene", script=str(HEADS), seed=7, args={"heads": 12}, save=str(save))
    return save


@pytest.fixture
def scene(runner, tmp_path):
    """Makes a .blend of a cube; ``extra`` lines go into ``build``, ``args`` may drop light or camera."""

    def make(extra="", **args):
        script = tmp_path / "cube.py"
        script.write_text(CUBE.replace("EXTRA", "\n    ".join(["pass", *extra.splitlines()])))
        save = tmp_path / "cube.blend"
        runner.done(op="scene", script=str(script), seed=1, args=args, save=str(save))
        return save

    return make


def test_same_seed_gives_the_same_film_and_another_seed_another(runner, heads, tmp_path):
    films = {}
    for name, seed in (("again", 7), ("other", 8)):
        blend = tmp_path / f"{name}.blend"
        runner.done(op="scene", script=str(HEADS), seed=seed, args={"heads": 12}, save=str(blend))
        runner.done(**frame(blend, 5, tmp_path / name))
        films[name] = pixels(tmp_path / name / "f.0005.exr")
    runner.done(**frame(heads, 5, tmp_path / "first"))
    first = pixels(tmp_path / "first" / "f.0005.exr")
    assert films["again"] == first
    assert films["other"] != first


def test_resident_frame_equals_that_of_a_fresh_process(runner, heads, tmp_path):
    first = runner.done(**frame(heads, 1, tmp_path))
    warm = runner.done(**frame(heads, 2, tmp_path))
    with Client(tmp_path) as fresh:
        cold = fresh.done(**frame(heads, 2, tmp_path / "fresh"))
    assert (warm["resident"], cold["resident"]) == (True, False)
    assert pixels(tmp_path / "f.0002.exr") == pixels(tmp_path / "fresh" / "f.0002.exr")
    assert pixels(tmp_path / "f.0001.exr") != pixels(tmp_path / "f.0002.exr")
    print(f"\nms: first {first['ms']}, resident {warm['ms']}, fresh process {cold['ms']}")


def test_frame_files_are_whole_and_the_result_tells_what_was_used(runner, heads, tmp_path):
    result = runner.done(**frame(heads, 3, tmp_path, samples=5))
    exr, png = check_exr(tmp_path / "f.0003.exr"), check_png(tmp_path / "f.0003.png", decode=True)
    assert (exr.width, exr.height, exr.not_finite, exr.black) == (96, 54, 0, False)
    assert (png.width, png.height, png.bit_depth) == (96, 54, 8)
    assert (result["frame"], result["samples"], result["device"]) == (3, 5, "cpu")
    assert (result["width"], result["height"], result["warnings"]) == (96, 54, [])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f.0003.exr", "f.0003.png"]


def test_zero_means_as_in_the_file_even_after_another_request(runner, scene, tmp_path):
    blend = scene()
    runner.done(**frame(blend, 1, tmp_path, width=64, height=32, samples=3, seed=9))
    own = runner.done(**frame(blend, 1, tmp_path, width=0, height=0, samples=0))
    assert own["resident"]
    assert (own["width"], own["height"], own["samples"]) == (40, 20, 2)


def test_blend_published_anew_is_opened_anew(runner, scene, tmp_path):
    runner.done(**frame(scene(), 1, tmp_path))
    again = runner.done(**frame(scene(), 1, tmp_path))
    assert not again["resident"]


def test_protocol_carries_nothing_but_protocol(runner, scene, tmp_path):
    before = len(runner.lines)
    runner.done(**frame(scene(), 1, tmp_path))
    said = [line for line in runner.lines[before:] if line]
    assert said
    assert all(line.startswith("shisuan_") for line in said)
    assert "noise on stdout" in runner.stderr_file.read_text()


def test_progress_rises_to_a_hundred(runner, scene, tmp_path):
    before = len(runner.lines)
    blend = scene()
    runner.done(**frame(blend, 1, tmp_path, samples=32))
    told = [int(line.split()[1]) for line in runner.lines[before:] if line.startswith("shisuan_progress")]
    assert told == sorted(set(told))
    assert (told[0], told[-1]) == (0, 100)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "is not there or may not be read"),
        (b"no blend at all", "cannot open broken.blend"),
        (b"", "cannot open broken.blend"),
    ],
)
def test_blend_that_is_none_is_refused(runner, tmp_path, content, says):
    blend = tmp_path / "broken.blend"
    if content is not None:
        blend.write_bytes(content)
    reason = runner.refusal(**frame(blend, 1, tmp_path))
    assert says in reason
    assert "broken.blend" in reason


def test_truncated_blend_is_refused_and_the_runner_lives_on(runner, scene, tmp_path):
    blend = scene()
    cut = tmp_path / "cut.blend"
    cut.write_bytes(blend.read_bytes()[: blend.stat().st_size // 2])
    assert "cut.blend" in runner.refusal(**frame(cut, 1, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    runner.done(**frame(blend, 1, tmp_path / "out"))


def test_scene_without_camera_is_refused(runner, tmp_path):
    script = tmp_path / "no_camera.py"
    script.write_text("def build(seed, args):\n    pass\n")
    reason = runner.refusal(op="scene", script=str(script), seed=1, args={}, save=str(tmp_path / "x.blend"))
    assert "no camera" in reason
    assert not (tmp_path / "x.blend").exists()


def test_blend_without_camera_is_refused(runner, scene, tmp_path):
    blind = tmp_path / "blind.blend"
    scene(f"""camera, scene.camera = scene.camera, None
bpy.ops.wm.save_as_mainfile(filepath={str(blind)!r}, copy=True)
scene.camera = camera""")
    assert "blind.blend has no camera" in runner.refusal(**frame(blind, 1, tmp_path))


def test_missing_texture_is_named(runner, scene, tmp_path):
    texture = tmp_path / "bricks.png"
    Image.new("RGB", (4, 4), "red").save(texture)
    blend = scene(f"""image = bpy.data.images.load({str(texture)!r})
made = bpy.data.materials.new("wall")
made.use_nodes = True
made.node_tree.nodes.new("ShaderNodeTexImage").image = image
bpy.data.objects["Cube"].data.materials.append(made)""")
    runner.done(**frame(blend, 1, tmp_path))
    texture.unlink()
    reason = runner.refusal(**frame(blend, 1, tmp_path))
    assert "image 'bricks.png'" in reason
    assert str(texture) in reason


def test_python_inside_a_blend_is_not_run(runner, scene, tmp_path):
    mark = tmp_path / "pwned"
    blend = scene(f"""text = bpy.data.texts.new("evil.py")
text.write("open({str(mark)!r}, 'w')")
text.use_module = True
driver = bpy.data.objects["Cube"].driver_add("location", 0).driver
driver.expression = "open({str(mark)!r}, 'w').close() or 0.0" """)
    mark.unlink(missing_ok=True)
    result = runner.done(**frame(blend, 1, tmp_path))
    assert not mark.exists()
    assert any("was not run" in warning for warning in result["warnings"])


def test_black_frame_is_told(runner, scene, tmp_path):
    night = "scene.world = bpy.data.worlds.new('night')\nscene.world.color = (0, 0, 0)"
    result = runner.done(**frame(scene(night, light=False), 1, tmp_path))
    assert result["black"]
    assert result["warnings"] == ["frame 1 is entirely black"]


def test_frame_with_nan_is_refused_and_leaves_no_file(runner, scene, tmp_path):
    picture = numpy.full((20, 40, 3), numpy.nan, dtype=numpy.float32)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"RGB": picture}).write(str(tmp_path / "nan.exr"))
    blend = scene(f"""scene.use_nodes = True
nodes = scene.node_tree.nodes
image = nodes.new("CompositorNodeImage")
image.image = bpy.data.images.load({str(tmp_path / "nan.exr")!r})
scene.node_tree.links.new(image.outputs["Image"], nodes["Composite"].inputs["Image"])""")
    out = tmp_path / "out"
    reason = runner.refusal(**frame(blend, 1, out, width=40, height=20))
    assert "not numbers" in reason
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def build(seed, args):\n    return 1 / 0\n", "failed in line 2: ZeroDivisionError"),
        ("def build(seed, args:\n", "SyntaxError"),
        ("x = 1\n", "no function build(seed, args)"),
        ("import sys\ndef build(seed, args):\n    sys.exit(3)\n", "failed in line 3: SystemExit"),
    ],
)
def test_broken_scene_script_is_told_with_its_line(runner, tmp_path, source, says):
    script = tmp_path / "mine.py"
    script.write_text(source)
    reason = runner.refusal(op="scene", script=str(script), seed=1, args={}, save=str(tmp_path / "x.blend"))
    assert "mine.py" in reason
    assert says in reason


@pytest.mark.parametrize("text", ["{", "[]", '{"op": "dance"}', '{"op": "frame"}', "7"])
def test_unreadable_request_is_answered(runner, text):
    runner.send(text)
    word, _ = runner.answer()
    assert word == "fail"


def test_card_that_is_not_there_is_refused(runner, scene, tmp_path):
    assert "no optix device" in runner.refusal(**frame(scene(), 1, tmp_path, device="optix"))


def test_killed_in_the_middle_leaves_no_file_under_its_name(heads, tmp_path):
    with Client(tmp_path) as client:
        client.send(json.dumps(frame(heads, 1, tmp_path / "out", samples=4096, width=640, height=360)))
        client.wait_for_log("Sample 1/4096")
        os.killpg(client.process.pid, signal.SIGKILL)
        assert client.answer() == ("ended", None)
    left = list((tmp_path / "out").iterdir()) if (tmp_path / "out").exists() else []
    assert [p.name for p in left if not p.name.startswith(".")] == []


def test_it_ends_when_its_requests_end(tmp_path):
    with Client(tmp_path) as client:
        client.process.stdin.close()
        assert client.process.wait(timeout=60) == 0
