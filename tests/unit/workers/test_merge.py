"""The merge on made-up pieces: exact, complete, and never quietly wrong."""

import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy
import OpenEXR
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from workers import merge_runner
from workers.mediacheck import BadMedia, check_exr

RUNNER = Path(merge_runner.__file__)
COLOR = {"display": "sRGB", "view": "Standard", "look": "", "exposure": 0.0, "gamma": 1.0}
OCIO = """ocio_profile_version: 2
roles: {scene_linear: linear, default: linear}
file_rules: [!<Rule> {name: Default, colorspace: default}]
displays:
  sRGB:
    - !<View> {name: Standard, colorspace: sRGB}
    - !<View> {name: Raw, colorspace: linear}
active_displays: []
active_views: []
colorspaces:
  - !<ColorSpace> {name: linear}
  - !<ColorSpace>
    name: sRGB
    from_scene_reference: !<ExponentWithLinearTransform> {gamma: 2.4, offset: 0.055, direction: inverse}
"""
PICTURE = ("V.Combined.R", "V.Combined.G", "V.Combined.B", "V.Combined.A")
GUIDES = (
    *(f"V.Denoising Albedo.{letter}" for letter in "RGB"),
    *(f"V.Denoising Normal.{letter}" for letter in "XYZ"),
    "V.Denoising Depth.Z",
)


def write_exr(path, channels):
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {name: numpy.ascontiguousarray(pixels) for name, pixels in channels.items()}).write(str(path))


def read_exr(path):
    with OpenEXR.File(str(path), separate_channels=True) as file:
        return {name: channel.pixels.copy() for name, channel in file.channels().items()}


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def edges(length, parts):
    return [length * part // parts for part in range(parts + 1)]


class Frame:
    """A frame's pieces on disk, and the request that merges them."""

    def __init__(self, folder, width=50, height=40, *, columns=1, rows=1, slices=1, channels=PICTURE, seed=1, **note):
        self.folder = folder / "tiles"
        self.out = folder / "out"
        self.folder.mkdir(parents=True)
        self.size, self.slices = (width, height), slices
        rng = numpy.random.default_rng(seed)
        shape = (slices, height, width)
        self.pixels = {
            name: rng.normal(1, 3, shape).astype(numpy.float16 if note.get("half") else numpy.float32)
            for name in channels
        }
        note.pop("half", None)
        across, down = edges(width, columns), edges(height, rows)
        self.names = []
        for tile in range(columns * rows):
            row, column = divmod(tile, columns)
            window = (across[column], down[row], across[column + 1], down[row + 1])
            for slice_ in range(slices):
                name = f"f.0005.t{tile:02d}" + (f".s{slice_}" if slices > 1 else "")
                self.names.append(name)
                self._piece(name, window, slice_, note)
        self.request = {
            "folder": str(self.folder),
            "prefix": "f.0005.t",
            "digits": 2,
            "columns": columns,
            "rows": rows,
            "slices": slices,
            "frame": 5,
            "width": width,
            "height": height,
            "denoise": 0,
            "passes": "all",
            "depth": "float",
            "bits": 8,
            "ocio": "",
            "threads": 1,
            "out": str(self.out),
            "exr": "f.0005.exr",
            "png": "",
            "small": "",
        }

    def _piece(self, name, window, slice_, note):
        left, top, right, bottom = window
        cut = {channel: pixels[slice_, top:bottom, left:right] for channel, pixels in self.pixels.items()}
        write_exr(self.folder / f"{name}.exr", cut)
        facts = {
            "frame": 5,
            "full": list(self.size),
            "window": list(window),
            "samples": 3 + slice_,
            "layers": ["V"],
            "denoise": False,
            "guides": [],
            "alpha": False,
            "color": COLOR,
            "engine": "CYCLES",
            "blender": "4.5.15 LTS",
            "device": "cpu",
            "warnings": [],
            "ms": {"open": 1, "sync": 20, "render": 300, "write": 4},
            "sha256": sha256(self.folder / f"{name}.exr"),
        }
        (self.folder / f"{name}.json").write_text(json.dumps({**facts, **note}))

    def note(self, at, **changed):
        path = self.folder / f"{self.names[at]}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))

    def exr(self, at):
        return self.folder / f"{self.names[at]}.exr"

    def rendered(self, at, channels):
        """Another picture as this piece's render would have left it."""
        write_exr(self.exr(at), channels)
        self.note(at, sha256=sha256(self.exr(at)))

    def merged(self, **changed):
        facts = merge_runner.merge({**self.request, **changed})
        return facts, read_exr(self.out / "f.0005.exr")

    def refusal(self, **changed):
        with pytest.raises(BadMedia) as caught:
            merge_runner.merge({**self.request, **changed})
        assert not self.out.exists() or list(self.out.iterdir()) == []
        return str(caught.value)


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(8, 70)] * 2), st.tuples(*[st.integers(1, 5)] * 2), st.booleans(), st.integers(0, 2**32))
def test_tiles_merge_bit_for_bit(tmp_path_factory, size, tiles, half, seed):
    columns, rows = tiles
    frame = Frame(tmp_path_factory.mktemp("m"), *size, columns=columns, rows=rows, half=half, seed=seed)
    _, found = frame.merged(depth="half" if half else "float")
    assert sorted(found) == ["B", "G", "R"]
    for letter in "RGB":
        wanted = frame.pixels[f"V.Combined.{letter}"][0]
        assert found[letter].dtype == wanted.dtype
        assert found[letter].tobytes() == wanted.tobytes()


def test_all_layers_and_passes_are_kept_under_their_names(tmp_path):
    channels = (*PICTURE, "V.Depth.Z", "V.Normal.X", "V.CryptoObject00.r", "Back.Combined.R")
    frame = Frame(tmp_path, columns=2, rows=3, channels=channels)
    _, found = frame.merged()
    assert sorted(found) == sorted(channels)
    for name, pixels in found.items():
        assert pixels.tobytes() == frame.pixels[name][0].tobytes()


def test_half_rounds_colours_and_nothing_else(tmp_path):
    channels = (*PICTURE, "V.Depth.Z", "V.CryptoObject00.r")
    _, found = Frame(tmp_path, columns=2, channels=channels).merged(depth="half")
    kinds = {name: pixels.dtype.name for name, pixels in found.items()}
    assert {kinds[name] for name in PICTURE} == {"float16"}
    assert (kinds["V.Depth.Z"], kinds["V.CryptoObject00.r"]) == ("float32", "float32")


def test_half_clips_what_it_cannot_hold(tmp_path):
    frame = Frame(tmp_path, slices=2)
    for at in (0, 1):
        frame.rendered(at, {name: numpy.full((40, 50), 1e6, numpy.float32) for name in PICTURE})
    _, found = frame.merged(depth="half")
    assert found["R"].max() == 65504


def test_the_picture_alone_when_that_is_asked_for(tmp_path):
    frame = Frame(tmp_path, columns=2, channels=(*PICTURE, "V.Depth.Z"), alpha=True)
    _, found = frame.merged(passes="picture")
    assert sorted(found) == ["A", "B", "G", "R"]


def test_slices_are_averaged_by_their_samples(tmp_path):
    channels = (*PICTURE, "V.Mist.Z", "V.Depth.Z", "V.IndexOB.X", "V.Position.Y")
    frame = Frame(tmp_path, columns=2, slices=3, channels=channels)
    facts, found = frame.merged()
    weights = numpy.array([3, 4, 5.0]).reshape(3, 1, 1)
    for name in (*PICTURE, "V.Mist.Z"):
        exact = (frame.pixels[name].astype(float) * weights).sum(0) / 12
        assert found[name].tobytes() == exact.astype(numpy.float32).tobytes()
    for name in ("V.Depth.Z", "V.IndexOB.X", "V.Position.Y"):
        assert found[name].tobytes() == frame.pixels[name][0].tobytes(), "the first sample's value"
    assert (facts["samples"], facts["slices"], facts["tiles"]) == (12, 3, 2)


def test_denoising_takes_noise_away_and_leaves_the_other_passes(tmp_path):
    frame = Frame(tmp_path, 64, 48, columns=2, rows=2, channels=(*PICTURE, "V.Depth.Z", *GUIDES), denoise=True)
    _, noisy = frame.merged()
    facts, clean = frame.merged(denoise=-1)
    assert facts["denoised"]
    assert sorted(clean) == sorted((*PICTURE, "V.Depth.Z")), "guides nobody asked for are not kept"
    assert clean["V.Combined.R"].std() < noisy["V.Combined.R"].std() / 2
    assert clean["V.Depth.Z"].tobytes() == noisy["V.Depth.Z"].tobytes()
    assert clean["V.Combined.A"].tobytes() == noisy["V.Combined.A"].tobytes()


def test_guides_that_the_file_asked_for_stay(tmp_path):
    frame = Frame(tmp_path, channels=(*PICTURE, *GUIDES), guides=["V"])
    _, found = frame.merged()
    assert sorted(found) == sorted((*PICTURE, *GUIDES))


def test_it_reports_what_the_tiles_took(tmp_path):
    facts, _ = Frame(tmp_path, columns=2, rows=2).merged()
    assert facts["tiles_ms"] == {"open": 4, "sync": 80, "render": 1200, "write": 16}
    assert set(facts["ms"]) == {"check", "merge", "denoise", "write", "preview", "verify"}
    assert (facts["width"], facts["height"], facts["frame"], facts["black"]) == (50, 40, 5, False)


def test_slices_alone_take_the_pieces_size(tmp_path):
    facts, _ = Frame(tmp_path, slices=2).merged(width=0, height=0)
    assert (facts["width"], facts["height"]) == (50, 40)


def test_a_black_frame_is_told_and_a_black_tile_is_not(tmp_path):
    frame = Frame(tmp_path, columns=2)
    frame.rendered(0, {name: numpy.zeros((40, 25), numpy.float32) for name in PICTURE})
    frame.note(0, warnings=["frame 5 is entirely black", "something else"])
    facts, _ = frame.merged()
    assert (facts["black"], facts["warnings"]) == (False, ["something else"])
    frame.rendered(1, {name: numpy.zeros((40, 25), numpy.float32) for name in PICTURE})
    assert frame.merged()[0]["black"]


# --- what must not be published ---------------------------------------------------------------------------------------


def test_missing_pieces_are_named(tmp_path):
    frame = Frame(tmp_path, columns=3)
    frame.exr(1).unlink()
    (frame.folder / "f.0005.t02.json").unlink()
    reason = frame.refusal()
    assert reason.startswith("2 files of the tiles of frame 5 are missing")
    assert reason.endswith("f.0005.t01.exr, f.0005.t02.json")


@pytest.mark.parametrize(("left", "says"), [(0, "is empty"), (200, "cut off"), (-300, "cut off|incomplete")])
def test_a_truncated_tile_is_named(tmp_path, left, says):
    frame = Frame(tmp_path, columns=2)
    content = frame.exr(1).read_bytes()
    frame.exr(1).write_bytes(content[:left])
    reason = frame.refusal()
    assert "tile f.0005.t01.exr" in reason
    assert any(word in reason for word in says.split("|")), reason


def test_a_tile_with_a_damaged_middle_is_named(tmp_path):
    frame = Frame(tmp_path, 64, 64, columns=2)
    content = bytearray(frame.exr(1).read_bytes())
    content[-2000:-1000] = bytes(1000)
    frame.exr(1).write_bytes(content)
    assert frame.refusal() == "tile f.0005.t01.exr is damaged: it is not as its render left it"


@pytest.mark.parametrize("value", [numpy.nan, numpy.inf, -numpy.inf])
def test_values_that_are_not_numbers_are_named(tmp_path, value):
    frame = Frame(tmp_path, columns=2)
    pixels = {name: numpy.ones((40, 25), numpy.float32) for name in PICTURE}
    pixels["V.Combined.G"][3, 4] = value
    frame.rendered(1, pixels)
    assert frame.refusal() == "tile f.0005.t01.exr has 1 values that are not numbers (NaN or infinity)"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"frame": 6}, "is of frame 6, not of 5"),
        ({"window": [0, 0, 25, 40]}, "does not join its neighbours"),
        ({"window": [25, 0, 49, 40]}, "end at column 49 of 50"),
        ({"color": {**COLOR, "view": "Raw"}}, "differ in color"),
        ({"blender": "4.2.1"}, "differ in blender"),
        ({"full": [60, 40]}, "differ in full"),
        ({"samples": 0}, "is not a note about a tile"),
    ],
)
def test_a_tile_of_something_else_is_refused(tmp_path, changed, says):
    frame = Frame(tmp_path, columns=2)
    frame.note(1, **changed)
    assert says in frame.refusal()


def test_a_note_that_cannot_be_read_is_named(tmp_path):
    frame = Frame(tmp_path, columns=2)
    (frame.folder / "f.0005.t01.json").write_text("{")
    assert "f.0005.t01.json cannot be read" in frame.refusal()


def test_a_tile_of_another_size_is_refused(tmp_path):
    frame = Frame(tmp_path, columns=2)
    frame.rendered(1, {name: numpy.ones((40, 24), numpy.float32) for name in PICTURE})
    assert "is of 24x40 pixels, not of 25x40" in frame.refusal()


def test_a_tile_with_other_passes_is_refused(tmp_path):
    frame = Frame(tmp_path, columns=2)
    frame.rendered(1, {name: numpy.ones((40, 25), numpy.float32) for name in (*PICTURE, "V.Depth.Z")})
    assert "hold different passes" in frame.refusal()


def test_another_resolution_than_asked_for_is_refused(tmp_path):
    assert "are of 50x40 pixels, 60x40 were asked for" in Frame(tmp_path).refusal(width=60)


def test_tiles_of_different_devices_are_merged_with_a_warning(tmp_path):
    frame = Frame(tmp_path, columns=2)
    frame.note(1, device="cuda")
    facts, _ = frame.merged()
    assert facts["warnings"] == ["its tiles were rendered on different kinds of device: cpu, cuda"]


# --- the preview ------------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.ocio"
    path.write_text(OCIO)
    return str(path)


def srgb(linear):
    linear = linear.astype(float).clip(0, 1)
    return numpy.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("changed", [{}, {"exposure": -1.5}, {"gamma": 1.5}])
def test_the_png_shows_the_scenes_view(tmp_path, config, changed):
    frame = Frame(tmp_path, 150, 140, columns=2, rows=2, color={**COLOR, **changed})
    frame.merged(png="f.0005.png", ocio=config)
    seen = numpy.asarray(Image.open(frame.out / "f.0005.png")).astype(int)
    light = numpy.stack([frame.pixels[f"V.Combined.{letter}"][0] for letter in "RGB"], axis=2)
    light = light * 2.0 ** changed.get("exposure", 0)
    wanted = srgb(light) ** (1 / changed.get("gamma", 1.0)) * 255
    assert numpy.abs(seen - wanted).max() <= 1


def test_a_transparent_background_stays_transparent(tmp_path, config):
    frame = Frame(tmp_path, alpha=True)
    pixels = {name: numpy.full((40, 50), 0.25, numpy.float32) for name in PICTURE}
    pixels["V.Combined.A"][:] = 0.5
    frame.rendered(0, pixels)
    frame.merged(png="f.0005.png", ocio=config)
    picture = Image.open(frame.out / "f.0005.png")
    assert picture.mode == "RGBA"
    assert picture.getpixel((3, 3)) == (188, 188, 188, 128), "light is 0.5 where it shines; PNG holds it undimmed"


def test_a_png_of_16_bits_has_16_bits(tmp_path, config):
    frame = Frame(tmp_path)
    frame.merged(png="f.0005.png", ocio=config, bits=16)
    assert (frame.out / "f.0005.png").read_bytes()[24] == 16


def test_a_wide_frame_gets_a_small_picture(tmp_path, config):
    frame = Frame(tmp_path, 2600, 30, columns=2, rows=2)
    pixels = {name: numpy.full((15, 1300), 0.5, numpy.float32) for name in PICTURE}
    for at in range(4):
        frame.rendered(at, pixels)
    frame.merged(png="f.0005.png", ocio=config, small="f.0005.small.jpg")
    small = Image.open(frame.out / "f.0005.small.jpg")
    assert small.size == (866, 10)
    assert all(abs(value - 188) <= 2 for value in small.getpixel((400, 5)))


@pytest.mark.parametrize(
    ("changed", "says"), [({"view": "AgX"}, "no view 'AgX'"), ({"display": "P3"}, "no display 'P3'")]
)
def test_a_view_that_is_not_known_is_refused(tmp_path, config, changed, says):
    frame = Frame(tmp_path, color={**COLOR, **changed})
    assert says in frame.refusal(png="f.0005.png", ocio=config)


def test_a_node_without_blender_says_what_to_do(tmp_path):
    assert "set png: off" in Frame(tmp_path).refusal(png="f.0005.png")


# --- as a process -----------------------------------------------------------------------------------------------------


def run(request, **options):
    argv = [sys.executable, "-P", str(RUNNER), json.dumps(request) if isinstance(request, dict) else request]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, **options)


def test_the_process_says_done(tmp_path):
    frame = Frame(tmp_path, columns=2)
    done = run(frame.request)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout.partition("shisuan_done: ")[2])["tiles"] == 2
    assert check_exr(frame.out / "f.0005.exr").not_finite == 0


@pytest.mark.parametrize("request_text", ["{", "{}", "[]"])
def test_a_request_that_cannot_be_read_is_answered(request_text):
    done = run(request_text)
    assert done.returncode == 1
    assert "shisuan_fail: the request cannot be read" in done.stdout


def test_a_disk_that_runs_full_publishes_nothing(tmp_path):
    frame = Frame(tmp_path, 300, 300, columns=2)
    limit = frame.exr(0).stat().st_size  # half of what the merged picture takes

    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = run(frame.request, preexec_fn=small_disk, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 1
    assert "shisuan_fail: the merged picture" in done.stdout
    assert list(frame.out.iterdir()) == []
