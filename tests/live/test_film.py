"""A whole film without Ray: a newcomer's job file, expanded by the planners, run by an agent in its confinement."""

import pytest

from pipelines.plan import order
from scheduler import jobfile
from scheduler.model.queue import Queue, Tenant
from tests.live.blender import ROOT, command
from tests.live.stepping import run_step
from workers.agent import Agent
from workers.mediacheck import check_exr
from workers.videocheck import video_facts

EXAMPLES = ROOT / "examples"

pytestmark = [
    pytest.mark.blender,
    pytest.mark.skipif(command() is None, reason="no Blender here: run make, or set SHISUAN_BLENDER"),
]


def small(text):
    """The example with three little frames."""
    for was, now in (("24}", "3, heads: 12}"), ("1-24", "1-3"), ("320x180", "96x54"), ("samples: 16", "samples: 2")):
        assert was in text
        text = text.replace(was, now)
    return text


@pytest.mark.parametrize("confinement", ["auto", "none"])
def test_the_example_becomes_a_film(tmp_path, confinement):
    root = tmp_path / "storage"
    root.mkdir()
    tenant = Tenant(name="studio", storage_roots=(str(root), str(EXAMPLES)))
    draft = jobfile.read(
        small((EXAMPLES / "shot.yaml").read_text()),
        tenant=tenant,
        queues=(Queue(name="default"),),
        base_dir=str(EXAMPLES),
        now_ms=0,
    )
    job = draft.job("j1", "request")
    agent = Agent(node="n1", tenant="studio", home=tmp_path / "home", confinement=confinement)
    try:
        for step in job.steps:
            orders = tuple(order(job, step, index, 1) for index in range(step.count))
            ends = run_step(agent, step, orders, (str(root), str(EXAMPLES)), cpu_milli=2_000)
            assert [end.state for end in ends] == ["succeeded"] * step.count, [end.message for end in ends]
    finally:
        agent.close()
    facts = video_facts(root / "shot" / "shot.mp4")
    assert (facts.frames, facts.width, facts.height, str(facts.duration_s)) == (3, 96, 54, "1/8")
    assert check_exr(root / "shot" / "frames" / "shot.0003.exr").width == 96
