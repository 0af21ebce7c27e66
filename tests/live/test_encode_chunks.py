"""Films in chunks: no frame lost, doubled or moved, whatever the source's rate and groups; sound where it belongs."""

import json

import av
import numpy
import pytest

from tests.live.encoding import Chunks, Encode, here, make, write_frames
from workers import ffmpeg_binary
from workers.mediacheck import BadMedia
from workers.videocheck import audio_samples, video_facts

LOSSLESS = {"crf": 0}
TAGGED = "scale=out_color_matrix=bt709:out_range=tv,format=yuv420p,setparams=range=tv:colorspace=bt709"
# name -> (frames, rate, ending, encoder's words)
SOURCES = {
    "29.97": ("30000/1001", ".mp4", ["-c:v", "libx264", "-g", "30"]),
    "50p in Matroska": ("50", ".mkv", ["-c:v", "libx264", "-g", "50"]),
    "open groups, x264": ("25", ".mp4", ["-c:v", "libx264", "-x264-params", "open-gop=1:keyint=13:bframes=3"]),
    "open groups, x265": ("24", ".mp4", ["-c:v", "libx265", "-x265-params", "open-gop=1:keyint=11:log-level=none"]),
    "open groups, transport stream": ("30000/1001", ".ts", ["-c:v", "libx264", "-x264-params", "open-gop=1:keyint=9"]),
    "one group": ("24000/1001", ".mov", ["-c:v", "libx264", "-g", "999", "-bf", "2"]),
}


@pytest.fixture(scope="session")
def binary():
    return ffmpeg_binary.find().path


def picture(rate, frames):
    return ["-f", "lavfi", "-i", f"testsrc2=s=64x36:r={rate}", "-frames:v", str(frames), "-vf", TAGGED]


@pytest.mark.parametrize(("frames", "count"), [(231, 3), (201, 2)], ids=["chunks of 77", "chunks of 100 and 101"])
@pytest.mark.parametrize("name", SOURCES)
def test_every_frame_is_there_once_and_in_its_place(tmp_path, binary, name, frames, count):
    rate, ending, words = SOURCES[name]
    source = make(binary, tmp_path / f"in{ending}", *picture(rate, frames), *words)
    there = video_facts(source, hashes=True)
    assert there.frames == frames
    film = Chunks(tmp_path / "film", "video", source, count, **LOSSLESS)
    told = film.film()
    joined = video_facts(film.out, hashes=True)
    assert joined.hashes == there.hashes
    assert (told["frames"], told["fps"], joined.rate) == (frames, rate, there.average_rate)


def test_pictures_in_chunks_are_the_pictures_of_the_whole_film(tmp_path):
    shots = write_frames(tmp_path / "shots", count=23)
    over = {"fps": "24", **LOSSLESS}
    film = Chunks(tmp_path / "film", "folder", shots, 5, **over)
    told = film.film()
    whole = here("film", "folder", shots, tmp_path / "whole", out=str(tmp_path / "whole.mp4"), **over)
    assert told["frames_sha256"] == whole["frames_sha256"]
    ranges = [json.loads(path.read_text()) for path in sorted(film.parts.glob("*.json"))]
    assert [(part["first"], part["end"]) for part in ranges] == [(0, 4), (4, 9), (9, 13), (13, 18), (18, 23)]


def test_a_chunk_looks_only_at_its_own_pictures(tmp_path):
    shots = write_frames(tmp_path / "shots", count=6)
    (shots / "film.0006.png").write_bytes(b"cut off")
    film = Chunks(tmp_path / "film", "folder", shots, 2, fps="24")
    film.chunk(0)
    with pytest.raises(BadMedia, match="frame 6"):
        film.chunk(1)


def test_more_chunks_than_frames_are_refused(tmp_path):
    shots = write_frames(tmp_path / "shots", count=2)
    with pytest.raises(BadMedia, match="has 2 frames, too few for 3 chunks"):
        Chunks(tmp_path / "film", "folder", shots, 3, fps="24").chunk(0)


def test_variable_rate_cannot_be_cut_but_conformed_it_can(tmp_path, binary):
    uneven = ["-vf", "select='not(eq(n,7)+eq(n,8)+eq(n,20))'", "-fps_mode", "vfr"]
    source = make(binary, tmp_path / "in.mkv", "-f", "lavfi", "-i", "testsrc=s=64x36:r=25:d=2", *uneven)
    with pytest.raises(BadMedia, match="variable frame rate"):
        Chunks(tmp_path / "a", "video", source, 2).chunk(0)
    with pytest.raises(BadMedia, match="conform it first, with a transcode that has fps and no chunks"):
        Chunks(tmp_path / "b", "video", source, 2, fps="25").chunk(0)
    conformed = tmp_path / "even.mp4"
    here("film", "video", source, tmp_path / "c", fps="25", out=str(conformed))
    assert Chunks(tmp_path / "d", "video", conformed, 2).film()["frames"] == 50


# --- sound ------------------------------------------------------------------------------------------------------------

RATE = 48_000


def flash_and_beep(binary, path, every, frames, *, late_s=0.0, words=("-c:a", "pcm_s16le")):
    """25 frames per second; every so many frames a white one, with a beep that begins at the same moment."""
    flash = f"drawbox=c=white:t=fill:enable='not(mod(n,{every}))'"
    beep = f"aevalsrc='0.8*cos(2*PI*1000*(t+{late_s}))*lt(mod(t+{late_s},{every}/25),0.04)':s={RATE}:d={frames / 25}"
    sound = ["-itsoffset", str(late_s), "-f", "lavfi", "-i", beep]
    shown = ["-f", "lavfi", "-i", "color=black:s=64x36:r=25", *sound, "-frames:v", str(frames), "-vf", flash]
    return make(binary, path, *shown, *words)


def beginnings(path):
    """Seconds at which flashes and beeps begin."""
    with av.open(str(path)) as container:
        bright = [float(f.time) for f in container.decode(video=0) if f.to_ndarray()[:36, :64].mean() > 128]
    with av.open(str(path)) as container:
        loud = numpy.concatenate([abs(f.to_ndarray()[0]) for f in container.decode(audio=0)]) > 0.4
    at = numpy.flatnonzero(loud)
    begins = [int(n) for n, before in zip(at, [-RATE, *at[:-1]], strict=True) if n - before > RATE // 10]
    return bright, [n / RATE for n in begins]


@pytest.mark.parametrize("late_s", [0.0, 0.23], ids=["together", "sound begins later"])
def test_sound_stays_with_the_picture_at_every_join(tmp_path, binary, late_s):
    source = flash_and_beep(binary, tmp_path / "in.mov", 77, 231, late_s=late_s)
    film = Chunks(tmp_path / "film", "video", source, 3)
    told = film.film()
    flashes, beeps = beginnings(film.out)
    assert told["audio"] == "aac"
    assert flashes == [0, 3.08, 6.16]
    later = beeps if late_s == 0 else [0.0, *beeps]  # the first beep was over before the sound began
    assert len(later) == 3
    assert all(abs(beep - flash) <= 0.001 for beep, flash in zip(later[1:], flashes[1:], strict=True))


def test_sound_is_as_long_as_the_source_to_the_sample(tmp_path, binary):
    source = flash_and_beep(binary, tmp_path / "in.mov", 10, 50)
    film = Chunks(tmp_path / "film", "video", source, 5)
    film.film()
    assert audio_samples(film.out)[0] == audio_samples(source)[0] == 2 * RATE


def test_copied_sound_is_copied(tmp_path, binary):
    source = flash_and_beep(binary, tmp_path / "in.mov", 10, 50, words=("-c:a", "ac3"))
    film = Chunks(tmp_path / "film", "video", source, 2, audio="copy")
    assert film.film()["audio"] == "ac3"


@pytest.mark.parametrize("audio", ["aac", "none"])
def test_film_without_sound_is_silent(tmp_path, binary, audio):
    words = ["-an"] if audio == "aac" else []
    source = flash_and_beep(binary, tmp_path / "in.mov", 10, 20, words=(*words, "-c:a", "pcm_s16le"))
    assert Chunks(tmp_path / "film", "video", source, 2, audio=audio).film()["audio"] == ""


@pytest.mark.parametrize("ending", ["mov", "mkv"])
@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_every_container_takes_the_join(tmp_path, binary, ending, codec):
    words = ("-c:a", "pcm_s16le", "-timecode", "10:00:00:00")
    source = flash_and_beep(binary, tmp_path / "in.mov", 10, 33, words=words)
    film = Chunks(tmp_path / "film", "video", source, 2, codec=codec, bits=10)
    for number in range(2):
        film.chunk(number)
    film.sound()
    told = film.join(out=str(tmp_path / f"film.{ending}"))
    assert (told["frames"], told["audio"], told["pix_fmt"]) == (33, "aac", "yuv420p10le")
    assert told["timecode"] == "10:00:00:00"


def test_timecode_is_written_once_at_the_end(tmp_path, binary):
    source = make(binary, tmp_path / "in.mov", *picture("25", 30), "-timecode", "10:00:00:00")
    film = Chunks(tmp_path / "film", "video", source, 3)
    assert film.film()["timecode"] == "10:00:00:00"
    assert all(video_facts(part).timecode == "" for part in film.parts.glob("*.mp4"))


# --- joins that must not succeed --------------------------------------------------------------------------------------


@pytest.fixture
def parts(tmp_path):
    film = Chunks(tmp_path / "film", "folder", write_frames(tmp_path / "shots", count=12), 3, fps="24")
    for number in range(3):
        film.chunk(number)
    return film


def refused(film, **over):
    with pytest.raises(BadMedia) as caught:
        film.join(**over)
    assert not film.out.exists()
    return str(caught.value)


def test_missing_chunk_is_told(parts):
    (parts.parts / "chunk.0001.mp4.json").unlink()
    assert "chunk chunk.0001.mp4 was not finished" in refused(parts)


def test_chunk_in_anothers_place_is_refused(parts):
    for ending in (".mp4", ".mp4.json"):
        (parts.parts / f"chunk.0001{ending}").write_bytes((parts.parts / f"chunk.0002{ending}").read_bytes())
    assert "chunk 1 holds frames 8 to 11 as number 2, should begin at 4" in refused(parts)


def test_picture_of_another_chunk_is_refused(parts):
    (parts.parts / "chunk.0001.mp4").write_bytes((parts.parts / "chunk.0002.mp4").read_bytes())
    assert "frame 4 of the joined film is not the one its chunk has" in refused(parts)


def test_too_few_chunks_are_refused(parts):
    assert "the chunks hold 8 of 12 frames" in refused(parts, chunks=2)


def test_chunk_made_with_other_settings_is_refused(parts):
    parts.over["bits"] = 10
    parts.chunk(1)
    assert "chunk 1 was not made like chunk 0" in refused(parts)


def test_a_retry_gives_the_same_bits(parts):
    before = {path.name: path.read_bytes() for path in parts.parts.glob("*.mp4")}
    parts.chunk(2)
    assert {path.name: path.read_bytes() for path in parts.parts.glob("*.mp4")} == before


def test_the_join_runs_as_a_program(parts, tmp_path):
    for number in range(3):
        parts.chunk(number)
    encode = Encode(tmp_path)
    words = {"op": "join", "chunks": 3, "parts": f"{parts.parts}/chunk.####.mp4"}
    told = encode.done("folder", parts.path, **words)
    assert (told["frames"], told["chunks"], told["codec"]) == (12, 3, "h264")
