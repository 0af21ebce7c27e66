"""A chunked film from its job file to the published file: planned, run by an agent in its confinement, without Ray."""

import json

import pytest

from pipelines.plan import order
from scheduler import jobfile
from scheduler.model.queue import Queue, Tenant
from tests.live.encoding import make
from tests.live.stepping import run_step
from workers import ffmpeg_binary
from workers.agent import Agent
from workers.videocheck import audio_samples, video_facts

JOB = """
apiVersion: shisuan/v1
kind: TranscodeJob
name: master
input: take.mov
codec: hevc
bits: 10
preset: ultrafast
chunks: 3
outputs: film/master.mp4
resources: {cpus: 1, memory: 1GiB}
"""


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "storage"
    root.mkdir()
    shown = ["-f", "lavfi", "-i", "testsrc2=s=64x36:r=25:d=2", "-f", "lavfi", "-i", "sine=r=48000:d=2"]
    make(ffmpeg_binary.find().path, root / "take.mov", *shown, "-c:a", "pcm_s16le", "-timecode", "01:00:00:00")
    return root


def test_a_video_becomes_a_master_in_three_chunks(tmp_path, root):
    tenant = Tenant(name="studio", storage_roots=(str(root),))
    draft = jobfile.read(JOB, tenant=tenant, queues=(Queue(name="default"),), base_dir="", now_ms=0)
    job = draft.job("j1", "request")
    agent = Agent(node="n1", tenant="studio", home=tmp_path / "home", confinement="auto")
    facts = {}
    try:
        for step in job.steps:
            orders = tuple(order(job, step, index, 1) for index in range(step.count))
            reports = run_step(agent, step, orders, (str(root),))
            assert [end.state for end in reports] == ["succeeded"] * step.count, [end.message for end in reports]
            facts[step.name] = [json.loads(end.result) for end in reports]
    finally:
        agent.close()
    film = video_facts(root / "film" / "master.mp4")
    assert (film.frames, film.codec, film.pix_fmt, film.timecode) == (50, "hevc", "yuv420p10le", "01:00:00:00")
    assert audio_samples(root / "film" / "master.mp4")[0] == 96_000
    assert [(part["first"], part["end"]) for part in facts["transcode-chunks"]] == [(0, 16), (16, 33), (33, 50)]
    assert {part["ffmpeg"]["sha256"] for part in facts["transcode-chunks"]} == {
        facts["transcode"][0]["ffmpeg"]["sha256"]
    }
    assert facts["transcode"][0]["encoder"] == "libx265"
