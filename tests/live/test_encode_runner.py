"""The encode runner with a real ffmpeg, and with ones that lie, die or hang."""

import signal
import subprocess
from pathlib import Path

import av
import pytest
from PIL import Image

from tests.live.encoding import COUNT, Encode, Here, make, names, write_frames
from workers import ffmpeg_binary
from workers.videocheck import video_facts


@pytest.fixture(scope="session")
def binary():
    return ffmpeg_binary.find().path


@pytest.fixture
def shots(tmp_path):
    return write_frames(tmp_path / "shots")


@pytest.fixture
def encode(tmp_path, monkeypatch):
    return Here(tmp_path, monkeypatch)


def test_folder_becomes_a_film_with_exactly_its_frames(tmp_path, shots):
    encode = Encode(tmp_path)  # the program itself, as the agent starts it
    result = encode.done("folder", shots, expect_frames=COUNT)
    assert (result["frames"], result["duration"], result["fps"]) == (COUNT, "1", "24")
    assert (result["codec"], result["pix_fmt"], result["width"], result["height"]) == ("h264", "yuv420p", 64, 36)
    assert result["color"] == {"primaries": "bt709", "transfer": "bt709", "matrix": "bt709", "range": "tv"}
    assert result["ffmpeg"]["version"]


@pytest.mark.parametrize("rate", ["24000/1001", "30000/1001", "25", "60"])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_duration_is_exact_at_every_rate(encode, shots, rate, ending):
    out = encode.out.with_suffix(f".{ending}")
    encode.done("folder", shots, fps=rate, out=str(out))
    facts = video_facts(out)
    numerator, _, denominator = rate.partition("/")
    wanted = COUNT * int(denominator or 1) / int(numerator)
    assert abs(float(facts.duration_s) - wanted) <= float(facts.tick_s)


def test_pattern_with_a_step_takes_these_frames(encode, shots):
    result = encode.done("pattern", shots / "film.####.png", first=1, last=23, step=2)
    assert result["frames"] == 12


def test_index_is_at_the_front(encode, shots):
    encode.done("folder", shots)
    data = encode.out.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_odd_sides_are_cut_and_told(encode, tmp_path):
    result = encode.done("folder", write_frames(tmp_path / "odd", count=3, size=(65, 37)))
    assert (result["width"], result["height"]) == (64, 36)
    assert "65x37" in result["warnings"][0]


def test_colours_survive(encode, tmp_path):
    folder = tmp_path / "flat"
    folder.mkdir()
    for n in range(3):
        Image.new("RGB", (64, 64), (200, 60, 30)).save(folder / f"{n}.png")
    encode.done("folder", folder, crf=1)
    with av.open(str(encode.out)) as container:
        frame = next(container.decode(video=0))
        luma = int(frame.to_ndarray()[32, 32])
    # BT.709: 16 + 219 * (0.2126 R + 0.7152 G + 0.0722 B) / 255
    assert abs(luma - (16 + 219 * (0.2126 * 200 + 0.7152 * 60 + 0.0722 * 30) / 255)) <= 1


def test_gap_in_the_sequence_is_named(encode, shots):
    (shots / "film.0007.png").unlink()
    assert encode.fail("folder", shots).endswith(f"1 of {COUNT} frames are missing in {shots}: 7")


def test_truncated_frame_is_named(encode, shots):
    frame = shots / "film.0005.png"
    frame.write_bytes(frame.read_bytes()[:-20])
    assert "frame 5 (film.0005.png)" in encode.fail("folder", shots)


def test_other_count_than_expected_is_refused(encode, shots):
    assert "has 24 frames, 25 were expected" in encode.fail("folder", shots, expect_frames=25)


def test_encoder_that_drops_frames_and_exits_with_0_is_caught(encode, shots, tmp_path, binary):
    encode.with_ffmpeg(tmp_path, binary, "os.unlink('00000020.png')\nreal(args)")
    assert "frame count is 20, should be 24" in encode.fail("folder", shots)


def test_encoder_that_writes_nothing_and_exits_with_0_is_caught(encode, shots, tmp_path, binary):
    encode.with_ffmpeg(tmp_path, binary, "sys.exit(0)")
    assert "the film that ffmpeg made is missing" in encode.fail("folder", shots)


def test_wrong_colour_tags_are_caught(encode, shots, tmp_path, binary):
    encode.with_ffmpeg(tmp_path, binary, "real([a.replace('primaries=bt709', 'primaries=bt2020') for a in args])")
    assert "color in the container is bt2020" in encode.fail("folder", shots)


def test_uneven_frames_are_caught(encode, shots, tmp_path, binary):
    late = "settb=1/24000,setpts='(N+0.4*eq(N,5))*1000',crop"
    encode.with_ffmpeg(
        tmp_path,
        binary,
        f"args = [a.replace('crop', {late!r}) for a in args]\n"
        "real([*args[:-2], '-enc_time_base', '1/24000', *args[-2:]])",
    )
    assert "not evenly spaced at 24 per second" in encode.fail("folder", shots)


def test_killed_encoder_is_told_and_leaves_no_file(encode, shots, tmp_path, binary):
    encode.with_ffmpeg(tmp_path, binary, "open(args[-2], 'wb').write(b'half')\nos.kill(os.getpid(), signal.SIGKILL)")
    assert "ffmpeg was killed by SIGKILL" in encode.fail("folder", shots)


def test_encoder_that_hangs_is_stopped(encode, shots, tmp_path, binary):
    encode.with_ffmpeg(tmp_path, binary, "print('frame=3', flush=True)\ntime.sleep(600)")
    assert "(at frame 3): stopped" in encode.fail("folder", shots, stall_s=1)


def test_sigterm_stops_the_encoder_and_leaves_no_file(encode, shots, tmp_path, binary):
    encode.with_ffmpeg(
        tmp_path,
        binary,
        "print(f'pid {os.getpid()}', file=sys.stderr, flush=True)\n"
        "open(args[-2], 'wb').write(b'half')\nprint('frame=3', flush=True)\ntime.sleep(600)",
    )
    log = tmp_path / "log"
    with log.open("wb") as stderr:
        process = subprocess.Popen(encode.argv("folder", shots), env=encode.env, stdout=subprocess.PIPE, stderr=stderr)
    for line in process.stdout:
        if line == b"shisuan_progress: 12\n":
            break
    process.send_signal(signal.SIGTERM)
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait(timeout=60) == 143
    assert b"shisuan_done" not in rest
    assert names(encode.out.parent) == []
    encoder = int(log.read_text().split()[1])
    assert not Path(f"/proc/{encoder}").exists()


def test_video_is_encoded_frame_by_frame(encode, shots, tmp_path):
    first = Encode(tmp_path / "first")
    (tmp_path / "first").mkdir()
    first.done("folder", shots, fps="24000/1001")
    result = encode.done("video", first.out, fps="", expect_frames=COUNT)
    assert (result["frames"], result["fps"]) == (COUNT, "24000/1001")


def test_sound_is_kept(encode, tmp_path, binary):
    source = make(
        binary,
        tmp_path / "in.mov",
        "-f",
        "lavfi",
        "-i",
        "testsrc=s=64x36:r=25:d=1",
        "-f",
        "lavfi",
        "-i",
        "sine=d=1",
        "-c:a",
        "pcm_s16le",
    )
    result = encode.done("video", source, fps="")
    assert (result["frames"], result["audio"], result["duration"]) == (25, "aac", "1")


def test_another_rate_conforms(encode, tmp_path, binary):
    source = make(binary, tmp_path / "in.mp4", "-f", "lavfi", "-i", "testsrc=s=64x36:r=25:d=2")
    result = encode.done("video", source, fps="50", expect_frames=100)
    assert (result["frames"], result["duration"]) == (100, "2")


def test_variable_frame_rate_needs_a_rate(encode, tmp_path, binary):
    source = make(
        binary,
        tmp_path / "in.mkv",
        "-f",
        "lavfi",
        "-i",
        "testsrc=s=64x36:r=25:d=2",
        "-vf",
        "select='not(eq(n,7)+eq(n,8)+eq(n,20))'",
        "-fps_mode",
        "vfr",
    )
    assert "variable frame rate" in encode.fail("video", source, fps="")
    assert encode.done("video", source, fps="25")["frames"] == 50


def test_hdr_source_is_refused(encode, tmp_path, binary):
    source = make(
        binary,
        tmp_path / "in.mp4",
        "-f",
        "lavfi",
        "-i",
        "testsrc=s=64x36:r=25:d=0.2",
        "-vf",
        "format=yuv420p10le,setparams=color_trc=smpte2084:color_primaries=bt2020:colorspace=bt2020nc",
    )
    assert "HDR (smpte2084): bt709 would need tone mapping" in encode.fail("video", source, fps="", color="bt709")
    assert "PQ needs 10 bits, 8 are asked for" in encode.fail("video", source, fps="", bits=8)


def test_cut_off_source_is_refused(encode, shots, tmp_path):
    first = Encode(tmp_path / "first")
    (tmp_path / "first").mkdir()
    first.done("folder", shots)
    data = first.out.read_bytes()
    first.out.write_bytes(data[: len(data) * 2 // 3])
    assert "is cut off: it lists 24 frames" in encode.fail("video", first.out, fps="")


@pytest.mark.parametrize("path", ["none.mp4", "text.mp4"])
def test_video_that_is_none_is_refused(encode, tmp_path, path):
    (tmp_path / "text.mp4").write_text("no video")
    assert path in encode.fail("video", tmp_path / path, fps="")


@pytest.mark.parametrize(
    ("over", "says"), [({"codec": "av1"}, "codec 'av1' is not supported"), ({"fps": ""}, "set fps")]
)
def test_request_that_cannot_be_done(encode, shots, over, says):
    assert says in encode.fail("folder", shots, **over)


def test_ffmpeg_that_cannot_encode_is_told(encode, shots):
    encode.env["SHISUAN_FFMPEG"] = "/bin/false"
    assert "/bin/false: exit code 1" in encode.fail("folder", shots)
