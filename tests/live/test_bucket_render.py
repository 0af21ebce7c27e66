"""Frames of a scene that lies in a bucket: the resident Blender loads it once, and frames appear in the bucket."""

import json
from pathlib import Path

import pytest

from pipelines.plan import order
from scheduler import jobfile
from scheduler.model.queue import Queue, Tenant
from tests.live import blender
from tests.live.stepping import run_step
from workers.agent import Agent

pytestmark = [
    pytest.mark.blender,
    pytest.mark.skipif(blender.command() is None, reason="no Blender here (make builds .venv-blender)"),
]
SCENE = Path(__file__).parents[2] / "examples" / "scenes" / "heads.py"
JOB = """
apiVersion: shisuan/v1
kind: RenderJob
name: film
scene: {script: shot/heads.py, seed: 7, args: {frames: 4, heads: 2}}
frames: 1-3
resolution: 32x18
samples: 1
device: cpu
resources: {cpus: 2, memory: 2GiB}
"""


def test_a_scene_in_a_bucket_is_loaded_once_for_all_frames(tmp_path, bucket, s3_env):
    root = f"s3://{bucket.name}/studio"
    bucket.put("studio/shot/heads.py", SCENE.read_text("utf-8"))
    tenant = Tenant(name="studio", storage_roots=(root,))
    job = jobfile.read(JOB, tenant=tenant, queues=(Queue(name="default"),), base_dir="", now_ms=0).job("j1", "request")
    agent = Agent(node="n1", tenant="studio", home=tmp_path / "home", confinement="auto")
    facts = []
    try:
        for step in job.steps:
            orders = tuple(order(job, step, index, 1) for index in range(step.count))
            ended = run_step(agent, step, orders, (root,))
            assert [end.state for end in ended] == ["succeeded"] * step.count, [end.message for end in ended]
            facts = [json.loads(end.result) for end in ended]
    finally:
        agent.close()
    outputs = [uri for end in ended for uri in end.outputs]
    assert len(outputs) == 6
    for uri in outputs:
        assert bucket.client.head_object(Bucket=bucket.name, Key=uri.removeprefix(f"s3://{bucket.name}/"))
    assert [frame["resident"] for frame in facts] == [False, True, True]
    ours = f"GET /{bucket.name}/"  # the server has others' buckets too
    downloads = [line for line in s3_env.asked() if line.startswith(ours) and line.partition("?")[0].endswith(".blend")]
    assert len(downloads) == 1, "one copy serves all frames"
