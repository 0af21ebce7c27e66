"""A chunked film whose nodes share no disk: all of it lies in a bucket, and a node is lost between the chunks."""

import pytest

from pipelines.plan import order
from scheduler import jobfile
from scheduler.model.queue import Queue, Tenant
from tests.live.encoding import make
from tests.live.stepping import run_step
from workers import ffmpeg_binary
from workers.agent import Agent
from workers.videocheck import video_facts

JOB = """
apiVersion: shisuan/v1
kind: TranscodeJob
name: master
input: takes/take.mov
codec: h264
preset: ultrafast
chunks: 3
outputs: film/master.mp4
resources: {cpus: 1, memory: 1GiB}
"""


@pytest.fixture
def nodes(tmp_path):
    made = [Agent(node=name, tenant="studio", home=tmp_path / name, confinement="auto") for name in ("node1", "node2")]
    yield made
    for agent in made:
        agent.close()


def test_a_film_is_made_by_two_nodes_and_a_bucket(tmp_path, bucket, nodes):
    root = f"s3://{bucket.name}/studio"
    make(ffmpeg_binary.find().path, tmp_path / "take.mov", "-f", "lavfi", "-i", "testsrc2=s=64x36:r=25:d=2")
    bucket.put("studio/takes/take.mov", (tmp_path / "take.mov").read_bytes())
    tenant = Tenant(name="studio", storage_roots=(root,))
    job = jobfile.read(JOB, tenant=tenant, queues=(Queue(name="default"),), base_dir="", now_ms=0).job("j1", "request")
    one, two = nodes
    chunks, *others = job.steps
    ended = run_step(one, chunks, (order(job, chunks, 0, 1),), (root,))
    assert [end.state for end in ended] == ["succeeded"], ended
    one.close()
    for step in (chunks, *others):
        number = 2 if step is chunks else 1
        orders = tuple(order(job, step, index, number) for index in range(step.count))
        ended = run_step(two, step, orders, (root,))
        assert [end.state for end in ended] == ["succeeded"] * step.count, [end.message for end in ended]
    bucket.client.download_file(bucket.name, "studio/film/master.mp4", str(tmp_path / "master.mp4"))
    film = video_facts(tmp_path / "master.mp4")
    assert (film.frames, film.codec) == (50, "h264")
    assert ended[0].outputs == (f"{root}/film/master.mp4",)
