"""Faults planted in a real installation: each job is refused or fails with a reason that names the fault, and nothing
wrong is published. Faults inside a running encoder (killed, stalled, a lost HLG tag) are in ``tests/live``.
"""

import os
import subprocess

import httpx
import pytest

from benchmarks.installation import Installation, wait_for
from tests.live.blender import command

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(300),
    pytest.mark.skipif(command() is None, reason="no Blender here: run make, or set SHISUAN_BLENDER"),
]

TEXTURE_GONE = """
import bpy
def build(seed, args):
    scene = bpy.context.scene
    bpy.ops.mesh.primitive_plane_add()
    bpy.ops.object.camera_add(location=(0, 0, 3))
    scene.camera = bpy.context.object
    image = bpy.data.images.new("wood", 4, 4)
    image.source, image.filepath = "FILE", "//wood.png"
    image.use_fake_user = True
"""
NAN_LOSS = """
import json, os, pathlib, sys, time
if os.environ.get("RANK", "0") == "0":
    pathlib.Path(os.environ["SHISUAN_OUTPUTS"], "model.pt").write_bytes(b"weights")
    for step, loss in ((1, 2.5), (2, float("nan"))):
        print("shisuan_metric: " + json.dumps({"step": step, "loss": loss}), flush=True)
time.sleep(60)
"""
HEAD = "apiVersion: shisuan/v1\nretries: 0\n"
SMALL = "resolution: 32x18\nsamples: 1\ndevice: cpu\n"
FAULTS = {
    "missing texture": (
        f"kind: RenderJob\nname: texture\nscene: {{script: gone.py}}\nframes: 1\n{SMALL}",
        ["needs files that are not there", "wood.png"],
    ),
    "corrupt blend": (
        f"kind: RenderJob\nname: corrupt\nscene: corrupt.blend\nframes: 1\n{SMALL}",
        ["corrupt.blend"],
    ),
    "truncated EXR": (
        "kind: TranscodeJob\nname: truncated\ninput: cut/cut.####.exr\nfps: 24\ncodec: hevc\nbits: 10\n",
        ["cut.0002.exr"],
    ),
    "NaN loss": (
        "kind: TrainJob\nname: nan\nscript: nan.py\ngrace: 2s\n",
        ["loss", "step 2"],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """An installation and a folder of planted material."""
    import numpy
    import OpenEXR

    folder = tmp_path_factory.mktemp("faults")
    (folder / "gone.py").write_text(TEXTURE_GONE)
    (folder / "nan.py").write_text(NAN_LOSS)
    (folder / "corrupt.blend").write_bytes(b"BLENDER-v405" + bytes(range(256)) * 8)
    for name in ("cut", "gap"):
        (folder / name).mkdir()
    pixels = numpy.linspace(0, 1, 32 * 64 * 3, dtype=numpy.float32).reshape(32, 64, 3)
    for number in range(1, 4):
        path = folder / "cut" / f"cut.{number:04d}.exr"
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        OpenEXR.File(header, {"RGB": pixels}).write(str(path))
    whole = (folder / "cut" / "cut.0002.exr").read_bytes()
    (folder / "cut" / "cut.0002.exr").write_bytes(whole[: len(whole) * 2 // 3])
    for number in (1, 2, 4):
        (folder / "gap" / f"gap.{number:04d}.png").write_bytes(b"not looked at: the gap is seen first")
    with Installation(folder / "home", "--root", str(folder)) as running:
        running.env |= {"FAULTS": str(folder)}
        yield running


def submit(studio, text):
    folder = studio.env["FAULTS"]
    key = (studio.home / "key").read_text().strip()
    return httpx.post(
        f"{studio.instance['url']}/v1/jobs",
        json={"file": HEAD + text, "base_dir": folder},
        headers={"Authorization": f"Bearer {key}"},
        timeout=60,
    )


def failed(studio, job_id):
    final = ("succeeded", "failed", "cancelled")
    return wait_for(f"{job_id} final", lambda: (j := studio.job(job_id))["state"] in final and j, deadline_s=120)


def published(studio, job_id, step):
    """Files of this step that somebody could take for results."""
    folder = studio.home / "storage" / "default" / "jobs" / job_id / step
    return [
        p.name for p in folder.rglob("*") if p.is_file() and ".shisuan" not in p.parts and "checkpoints" not in p.parts
    ]


def test_each_fault_fails_its_job_with_a_reason_and_publishes_nothing(studio):
    ids = {}
    for fault, (text, _) in FAULTS.items():
        answer = submit(studio, text)
        assert answer.is_success, (fault, answer.text)
        ids[fault] = answer.json()["id"]
    for fault, (_, words) in FAULTS.items():
        job = failed(studio, ids[fault])
        assert job["state"] == "failed", (fault, job)
        assert [word for word in words if word not in job["reason"]] == [], (fault, job["reason"])
        assert published(studio, ids[fault], job["steps"][-1]["name"]) == [], fault


def test_a_gap_in_a_sequence_is_refused_before_anything_is_stored(studio):
    before = len(studio.api("GET", "/jobs")["jobs"])
    answer = submit(studio, "kind: TranscodeJob\nname: gap\ninput: gap/gap.####.png\nfps: 24\n")
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert message.startswith("frames: 1 of 4 frames are not there: 3 of ")
    assert len(studio.api("GET", "/jobs")["jobs"]) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
def test_a_full_disk_fails_the_job_and_leaves_nothing_half_made(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        with Installation(tmp_path / "home", "--root", str(disk)) as running:
            text = f"{HEAD}kind: CommandJob\nname: big\nrun: head -c 1000000 /dev/zero >$SHISUAN_OUTPUTS/big.bin\n"
            job_id = running.submit(text + f"outputs: {disk}/big\n")
            job = failed(running, job_id)
            assert (job["state"], "No space left" in job["reason"]) == ("failed", True), job
            assert list(disk.rglob("big.bin*")) == []
    finally:
        subprocess.run(["umount", disk], check=True)
