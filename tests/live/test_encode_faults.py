"""An encoder that is killed, stopped or out of room leaves a reason and no film; the next attempt gives it."""

import os
import resource
import subprocess

import pytest

from tests.live.encoding import COUNT, Encode, Here, names, write_frames
from workers import ffmpeg_binary

KILLED_MIDWAY = """
import subprocess
at = args.index('-i')
args[at:at] = ['-re', '-stats_period', '0.1']  # as slow as the film runs, so that there is a middle
process = subprocess.Popen([REAL, *args], stdout=subprocess.PIPE)
for line in process.stdout:
    if line.startswith(b'frame=') and int(line[6:]) >= 2:
        process.send_signal(signal.SIGNAL)
        break
process.communicate()
sys.exit(0)  # the worst case: nobody would know
"""


@pytest.fixture(scope="session")
def binary():
    return ffmpeg_binary.find().path


@pytest.fixture
def shots(tmp_path):
    return write_frames(tmp_path / "shots")


@pytest.mark.parametrize("codec", ["h264", "hevc"])
@pytest.mark.parametrize(
    "ended", [("SIGKILL", "cannot be decoded"), ("SIGTERM", "frame count is"), ("SIGINT", "frame count is")]
)
def test_encoder_ended_midway_leaves_nothing_even_if_it_says_success(tmp_path, monkeypatch, binary, codec, ended):
    (name, says), shots = ended, write_frames(tmp_path / "long", count=48)
    encode = Here(tmp_path, monkeypatch)
    body = KILLED_MIDWAY.replace("REAL", repr(binary)).replace("SIGNAL", name)
    encode.with_ffmpeg(tmp_path, binary, body)
    told = encode.fail("folder", shots, codec=codec)
    assert told.startswith("the film that ffmpeg made ")
    assert says in told


def test_encoder_killed_while_light_is_fed_is_told(tmp_path, monkeypatch, binary):
    from tests.live.test_encode_color import write_exr

    encode = Here(tmp_path, monkeypatch)
    encode.with_ffmpeg(tmp_path, binary, "sys.stdin.buffer.read(100)\nos.kill(os.getpid(), signal.SIGKILL)")
    told = encode.fail("folder", write_exr(tmp_path / "light", count=20), color="hlg")
    assert told.startswith("ffmpeg was killed by SIGKILL")


def test_encoder_that_stops_reading_light_is_given_up(tmp_path, monkeypatch, binary):
    from tests.live.test_encode_color import write_exr

    encode = Here(tmp_path, monkeypatch)
    encode.with_ffmpeg(tmp_path, binary, "time.sleep(600)")
    told = encode.fail("folder", write_exr(tmp_path / "light", count=20), color="hlg", stall_s=1)
    assert "ffmpeg encoded nothing for" in told


def test_file_that_grows_too_large_is_told(tmp_path, shots):
    encode = Encode(tmp_path)
    encode.env["PYTHONDONTWRITEBYTECODE"] = "1"  # Python cuts its own caches off without a word
    argv = encode.argv("folder", shots, crf=0)

    def small():
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, 4_096))

    done = subprocess.run(argv, env=encode.env, capture_output=True, text=True, check=False, preexec_fn=small)
    assert done.returncode == 1
    assert "shisuan_fail: ffmpeg failed: the film is larger than a file may be here" in done.stdout
    assert names(encode.out.parent) == []


def full_disk(folder):
    """Runs the rest of argv with a file system of 64 KiB in ``folder``, in a mount namespace of its own."""
    return ["unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=64k tmpfs "$0" && exec "$@"', str(folder)]


def can_mount(folder):
    folder.mkdir()
    return subprocess.run([*full_disk(folder), "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
def test_full_disk_is_told(tmp_path):
    if not can_mount(tmp_path / "outputs"):
        pytest.skip("this container may not mount")
    encode = Encode(tmp_path)
    shots = write_frames(tmp_path / "noise", count=COUNT, size=(320, 180))
    listing = ["sh", "-c", '"$@"; code=$?; echo "left: $(ls -A "$0")"; exit $code', str(encode.out.parent)]
    argv = [*full_disk(encode.out.parent), *listing, *encode.argv("folder", shots, crf=0)]
    env = encode.env | {"PATH": os.environ["PATH"]}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "shisuan_fail: ffmpeg failed: the disk is full" in done.stdout
    assert done.stdout.splitlines()[-1] == "left: "


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_the_next_attempt_gives_the_same_bytes(tmp_path, monkeypatch, binary, shots, codec):
    encode = Here(tmp_path, monkeypatch)
    encode.with_ffmpeg(tmp_path, binary, "os.kill(os.getpid(), signal.SIGKILL)")
    encode.fail("folder", shots, codec=codec)
    (tmp_path / "ffmpeg").unlink()
    encode.with_ffmpeg(tmp_path, binary, "real(args)")
    found = set()
    for _ in range(2):
        encode.done("folder", shots, codec=codec, threads=2)
        found.add(encode.out.read_bytes())
        encode.out.unlink()
    assert len(found) == 1


# --- encoders by probe ------------------------------------------------------------------------------------------------


NVENC = """
names = {'h264_nvenc': 'libx264', 'hevc_nvenc': 'libx265'}
drop = {'-rc', '-cq', '-b:v', '-forced-idr', '-strict_gop', '-preset'}
args = [names.get(a, a) for i, a in enumerate(args) if a not in drop and (i == 0 or args[i - 1] not in drop)]
real([a.replace('p010le', 'yuv420p10le') for a in args])
"""
"""An ffmpeg whose NVENC is x264 or x265 in truth."""


def test_nvenc_without_a_card_is_refused_with_its_own_words(tmp_path, monkeypatch, shots):
    told = Here(tmp_path, monkeypatch).fail("folder", shots, codec="hevc", encoder="nvenc")
    assert told.startswith("NVENC cannot encode hevc with 8 bits on this node")
    assert "encoder: software" in told


def test_auto_without_a_card_does_not_try_one(tmp_path, monkeypatch, shots):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    told = Here(tmp_path, monkeypatch).done("folder", shots, codec="hevc", encoder="auto")
    assert (told["encoder"], told["warnings"]) == ("libx265", [])


def test_auto_with_a_card_that_cannot_encode_says_so_and_uses_the_cpu(tmp_path, monkeypatch, shots):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1")
    told = Here(tmp_path, monkeypatch).done("folder", shots, encoder="auto")
    assert told["encoder"] == "libx264"
    assert told["warnings"][0].startswith("the card is not used: ")


@pytest.mark.parametrize("encoder", ["auto", "nvenc"])
def test_a_card_that_encodes_is_used(tmp_path, monkeypatch, binary, shots, encoder):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1")
    fake = Here(tmp_path, monkeypatch)
    fake.with_ffmpeg(tmp_path, binary, NVENC, probes=True)
    told = fake.done("folder", shots, codec="hevc", bits=10, encoder=encoder)
    assert (told["encoder"], told["pix_fmt"]) == ("hevc_nvenc", "yuv420p10le")


def test_encoder_that_works_in_silence_is_waited_for(tmp_path, monkeypatch, binary, shots):
    encode = Here(tmp_path, monkeypatch)
    busy = "end = time.process_time() + 1.6\nwhile time.process_time() < end: pass\n"
    encode.with_ffmpeg(tmp_path, binary, busy + "real(args)")
    assert encode.done("folder", shots, stall_s=1)["frames"] == COUNT
