"""Colours and depth: 10 bits that are 10 bits, HLG and PQ proven in stream and container, OpenEXR to masters."""

import av
import numpy
import OpenEXR
import OpenImageIO
import pytest

from tests.live.encoding import Chunks, Here, make, write_frames
from workers import ffmpeg_binary
from workers.color import Static
from workers.containertags import container_tags
from workers.videocheck import bitstream, video_facts

WIDTH, HEIGHT = 512, 16
HDR10 = Static(
    display=(8500, 39850, 6550, 2300, 35400, 14600, 15635, 16450, 10_000_000, 50), max_cll=1000, max_fall=400
)
TRANSFERS = {"hlg": "arib-std-b67", "pq": "smpte2084", "bt709": "bt709"}


@pytest.fixture(scope="session")
def binary():
    return ffmpeg_binary.find().path


@pytest.fixture
def encode(tmp_path, monkeypatch):
    return Here(tmp_path, monkeypatch)


def ramp():
    """A line of grey from 0 to 1 in every row."""
    line = numpy.linspace(0, 1, WIDTH)
    return numpy.repeat(numpy.tile(line, (HEIGHT, 1))[..., None], 3, axis=2)


def write_deep(folder, count=3, picture=None, bits=16):
    """Numbered PNG of 16 bits (or 8)."""
    folder.mkdir(exist_ok=True)
    kind, most = ("uint16", 65_535) if bits == 16 else ("uint8", 255)
    pixels = numpy.rint((ramp() if picture is None else picture) * most).astype(kind)
    for n in range(1, count + 1):
        spec = OpenImageIO.ImageSpec(pixels.shape[1], pixels.shape[0], 3, kind)
        out = OpenImageIO.ImageOutput.create("a.png")
        out.open(str(folder / f"film.{n:04d}.png"), spec)
        out.write_image(pixels)
        out.close()
    return folder


def write_exr(folder, count=3, picture=None, **header):
    folder.mkdir(exist_ok=True)
    pixels = (ramp() if picture is None else picture).astype(numpy.float32)
    for n in range(1, count + 1):
        attributes = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, **header}
        OpenEXR.File(attributes, {"RGB": pixels}).write(str(folder / f"film.{n:04d}.exr"))
    return folder


def luma(path):
    """The middle line of the first frame's Y, as the fraction of the signal between black and white."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        bits = frame.format.components[0].bits
        plane = frame.planes[0]
        wide = numpy.uint8 if bits == 8 else numpy.uint16
        line = numpy.frombuffer(plane, wide).reshape(plane.height, -1)[plane.height // 2, : plane.width]
    return line, (line.astype(float) / 2 ** (bits - 8) - 16) / 219


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("color", ["hlg", "pq"])
def test_deep_pictures_become_hdr_films(encode, tmp_path, color, codec, ending):
    out = encode.out.with_suffix(f".{ending}")
    told = encode.done("folder", write_deep(tmp_path / "shots"), codec=codec, color=color, crf=1, out=str(out))
    assert (told["pix_fmt"], told["codec"], told["color"]["transfer"]) == ("yuv420p10le", codec, TRANSFERS[color])
    assert container_tags(out).transfer == bitstream(out)[0].transfer == TRANSFERS[color]
    line, signal = luma(out)
    assert len(set(line.tolist())) > 400  # 8 bits have 220
    assert abs(signal - numpy.linspace(0, 1, WIDTH)).max() < 0.005


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_ten_bits_of_bt709(encode, tmp_path, codec):
    told = encode.done("folder", write_deep(tmp_path / "shots"), codec=codec, bits=10, crf=1)
    assert (told["pix_fmt"], told["color"]["transfer"], told["warnings"]) == ("yuv420p10le", "bt709", [])
    assert len(set(luma(encode.out)[0].tolist())) > 400


def test_flat_pictures_cannot_be_hdr(encode, tmp_path):
    shots = write_frames(tmp_path / "shots", count=2)
    assert "the pictures have 8 bits, too few for HLG" in encode.fail("folder", shots, color="hlg")
    assert encode.done("folder", shots, bits=10)["warnings"] == [
        "the pictures have 8 bits: a film of 10 bits shows no more"
    ]


def test_pictures_of_mixed_depth_are_refused(encode, tmp_path):
    shots = write_deep(tmp_path / "shots", count=3)
    write_deep(tmp_path / "flat", count=2, bits=8)
    (tmp_path / "flat" / "film.0002.png").replace(shots / "film.0002.png")
    assert "frame 2 (film.0002.png) has 8 bits, the first one has 16 bits" in encode.fail("folder", shots)


# --- tags that get lost -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lie",
    [
        ("a.replace('arib-std-b67', 'bt709')", "color in the stream is bt2020/bt709/bt2020nc/tv"),
        ("a.replace('transfer=arib-std-b67:', '').replace('color_trc=arib-std-b67', 'color_trc=2')", "color in the st"),
        ("a.replace('yuv420p10le', 'yuv420p')", "pixel format is yuv420p, should be yuv420p10le"),
    ],
    ids=["another transfer", "no transfer", "8 bits"],
)
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_lost_tag_fails_the_task(encode, tmp_path, binary, codec, lie):
    change, says = lie
    encode.with_ffmpeg(tmp_path, binary, f"real([{change} for a in args])")
    assert says in encode.fail("folder", write_deep(tmp_path / "shots"), codec=codec, color="hlg")


@pytest.mark.parametrize("ending", ["mp4", "mov"])
def test_tag_lost_by_the_container_alone_fails_the_task(encode, tmp_path, binary, ending):
    """Players read the container's: the stream's own do not help."""
    body = f"""import subprocess
code = subprocess.run([{binary!r}, *args]).returncode
data = open(args[-2], 'rb').read()
open(args[-2], 'wb').write(data.replace(b'colr', b'free'))
sys.exit(code)"""
    encode.with_ffmpeg(tmp_path, binary, body)
    out = encode.out.with_suffix(f".{ending}")
    told = encode.fail("folder", write_deep(tmp_path / "shots"), codec="hevc", color="hlg", out=str(out))
    assert "color in the container is none/none/none/none, should be bt2020/arib-std-b67" in told


# --- videos -----------------------------------------------------------------------------------------------------------


def hdr_video(binary, path, transfer, frames=12, *, static=None, pixels="yuv420p10le"):
    tags = f"color_primaries=bt2020:color_trc={transfer}:colorspace=bt2020nc:range=tv"
    graph = f"scale=out_color_matrix=bt2020:out_range=tv,format={pixels},setparams={tags}"
    words = "log-level=none:hdr10=1" + (
        f":master-display={static.mastering_text}:max-cll={static.max_cll},{static.max_fall}" if static else ""
    )
    shown = ["-f", "lavfi", "-i", "testsrc2=s=64x36:r=25", "-frames:v", str(frames), "-vf", graph]
    return make(binary, path, *shown, "-c:v", "libx265", "-x265-params", words)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_hdr_video_stays_hdr(encode, tmp_path, binary, codec):
    source = hdr_video(binary, tmp_path / "in.mp4", "arib-std-b67")
    told = encode.done("video", source, fps="", codec=codec)
    assert (told["pix_fmt"], told["color"]["transfer"]) == ("yuv420p10le", "arib-std-b67")


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_hdr10_numbers_arrive(encode, tmp_path, binary, codec, ending):
    source = hdr_video(binary, tmp_path / "in.mp4", "smpte2084", static=HDR10)
    out = encode.out.with_suffix(f".{ending}")
    encode.done("video", source, fps="", codec=codec, out=str(out))
    assert bitstream(out)[1] == HDR10


def test_hdr10_numbers_arrive_through_chunks(tmp_path, binary):
    source = hdr_video(binary, tmp_path / "in.mp4", "smpte2084", static=HDR10)
    film = Chunks(tmp_path / "film", "video", source, 3, codec="hevc")
    film.film()
    assert bitstream(film.out)[1] == HDR10


def test_numbers_that_change_fail_the_task(encode, tmp_path, binary):
    source = hdr_video(binary, tmp_path / "in.mp4", "smpte2084", static=HDR10)
    encode.with_ffmpeg(tmp_path, binary, "real([a.replace('max-cll=1000', 'max-cll=4000') for a in args])")
    assert "HDR10 metadata is G(8500" in encode.fail("video", source, fps="", codec="hevc")


@pytest.mark.parametrize(
    "case",
    [
        ("smpte2084", {"color": "hlg"}, "is PQ (smpte2084): it cannot become hlg"),
        ("arib-std-b67", {"color": "bt709"}, "is HDR (arib-std-b67): bt709 would need tone mapping"),
        ("arib-std-b67", {"bits": 8}, "HLG needs 10 bits, 8 are asked for"),
        ("bt709", {}, "has the wide colours of bt2020"),
    ],
)
def test_what_cannot_be_kept_is_refused(encode, tmp_path, binary, case):
    transfer, over, says = case
    source = hdr_video(binary, tmp_path / "in.mp4", transfer)
    assert says in encode.fail("video", source, fps="", codec="hevc", **over)


def test_sdr_cannot_become_hdr(encode, tmp_path, binary):
    tagged = "format=yuv420p10le,setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709"
    shown = ["-f", "lavfi", "-i", "testsrc=s=64x36:r=25:d=0.2", "-vf", tagged]
    source = make(binary, tmp_path / "in.mp4", *shown, "-c:v", "libx265")
    assert "is SDR (bt709): it cannot become hlg" in encode.fail("video", source, fps="", color="hlg")


def test_deep_video_stays_deep_unless_the_job_says(encode, tmp_path, binary):
    shown = ["-f", "lavfi", "-i", "testsrc=s=64x36:r=25:d=0.2", "-vf", "format=yuv422p10le"]
    source = make(binary, tmp_path / "in.mov", *shown, "-c:v", "prores_ks")
    assert encode.done("video", source, fps="")["pix_fmt"] == "yuv420p10le"
    cut = encode.done("video", source, fps="", bits=8)
    assert (cut["pix_fmt"], cut["warnings"]) == ("yuv420p", [f"{source} has 10 bits, the film 8"])


def test_interlaced_video_is_refused(encode, tmp_path, binary):
    shown = ["-f", "lavfi", "-i", "testsrc=s=64x36:r=25:d=0.4", "-vf", "setfield=tff,interlace"]
    source = make(binary, tmp_path / "in.mov", *shown, "-c:v", "prores_ks", "-flags", "+ildct+ilme")
    assert "is interlaced" in encode.fail("video", source, fps="")


# --- OpenEXR ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("color", "white"), [("hlg", 0.75), ("pq", 0.5807)])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_light_becomes_hdr_with_reference_white(encode, tmp_path, color, white, codec):
    """BT.2408: diffuse white is 75 % of HLG and 203 cd/m² of PQ, which is 58 % of the signal."""
    told = encode.done("folder", write_exr(tmp_path / "shots"), color=color, codec=codec, crf=1)
    assert (told["pix_fmt"], told["frames"]) == ("yuv420p10le", 3)
    line, signal = luma(encode.out)
    assert abs(signal[-1] - white) < 0.005
    assert len(set(line.tolist())) > 200
    assert (numpy.diff(line.astype(int)) >= -1).all()


def test_light_becomes_bt709_by_a_display_and_a_view(encode, tmp_path):
    shots = write_exr(tmp_path / "shots")
    told = encode.done("folder", shots, bits=10, crf=1, view="Un-tone-mapped")
    line, signal = luma(encode.out)
    # Rec.1886 undoes itself: light to the power of 1/2.4.
    assert abs(signal - numpy.linspace(0, 1, WIDTH) ** (1 / 2.4))[8:].max() < 0.01
    assert len(set(line.tolist())) > 300
    assert told["look"] == "Rec.1886 Rec.709 - Display, Un-tone-mapped"
    encode.out.unlink()
    assert "view 'Filmic' is not one of Rec.1886" in encode.fail("folder", shots, view="Filmic")


def test_light_with_values_that_are_no_numbers_is_refused(encode, tmp_path):
    picture = ramp()
    picture[3, 4, 1] = numpy.nan
    shots = write_exr(tmp_path / "shots")
    write_exr(tmp_path / "bad", count=1, picture=picture)
    (tmp_path / "bad" / "film.0001.exr").replace(shots / "film.0002.exr")
    assert "film.0002.exr holds 1 values that are not finite" in encode.fail("folder", shots, color="hlg")


def test_truncated_light_is_refused_before_encoding(encode, tmp_path):
    shots = write_exr(tmp_path / "shots")
    frame = shots / "film.0002.exr"
    frame.write_bytes(frame.read_bytes()[:-30])
    assert "frame 2 (film.0002.exr) is incomplete: chunk" in encode.fail("folder", shots, color="hlg")


def test_gap_in_the_light_is_named(encode, tmp_path):
    shots = write_exr(tmp_path / "shots")
    (shots / "film.0002.exr").unlink()
    assert f"1 of 3 frames are missing in {shots}: 2" in encode.fail("folder", shots, color="hlg")


def test_light_in_chunks_is_the_light_of_the_whole_film(tmp_path):
    film = Chunks(tmp_path / "film", "folder", write_exr(tmp_path / "shots", count=5), 2, color="hlg", fps="24")
    assert film.film()["color"]["transfer"] == "arib-std-b67"
    assert video_facts(film.out).frames == 5


def test_a_folder_with_both_means_the_previews(encode, tmp_path):
    shots = write_deep(tmp_path / "shots", count=2, bits=8)
    write_exr(shots, count=3)
    assert encode.done("folder", shots)["frames"] == 2
