"""Checkpoints of real attempts in a real agent: what a runner may write, and what the next one begins with."""

import json

import pytest

from scheduler.model.lease import AttemptState
from tests.unit.workers.helpers import lease, shell

SAVE = """
HERE=$SHISUAN_CHECKPOINT_DIR/step-$N
echo weights > $HERE.tmp && mv $HERE.tmp $HERE
echo "shisuan_metric: {\\"step\\": $N, \\"loss\\": 2}"
echo "shisuan_checkpoint: $N"
"""


@pytest.fixture(params=["none", "auto"])
def agent(request, run):
    return run(confinement=request.param)


def train(agent, root, number, text, **fields):
    one, reader = agent
    one_task = shell(text, number=number, checkpoints=str(root / "checkpoints"), **fields)
    one.submit([lease(one_task, lease_id=f"l{number}", roots=(str(root),))])
    return reader


def test_the_next_attempt_goes_on_from_what_was_committed(agent, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    end = train(agent, root, 1, f"N=5; {SAVE} exit 3").finished()
    assert (end.state, end.checkpoint_ms > 0) == (AttemptState.FAILED, True)
    facts = json.loads(end.result)
    assert (facts["checkpoints"], facts["metrics"][0]["loss"]) == ([5], 2)
    again = f"cat $SHISUAN_RESUME_FROM && echo x > $SHISUAN_RESUME_FROM; N=6; {SAVE}"
    end = train(agent, root, 2, again).finished("j1.s.0.a2")
    assert end.state is AttemptState.SUCCEEDED
    assert json.loads(end.result)["resumed_from"] == f"{root}/checkpoints/a1/step-5"
    if agent[0].level().startswith("bubblewrap"):
        assert (root / "checkpoints/a1/step-5").read_text() == "weights\n", "an earlier attempt's folder is read-only"
    assert (root / "checkpoints/a2/step-6").exists()


def test_a_runner_may_write_its_own_checkpoints_and_nothing_else_there(run, tmp_path):
    agent = run(confinement="auto")
    if not agent[0].level().startswith("bubblewrap"):
        pytest.skip("no bubblewrap here")
    root = tmp_path / "root"
    root.mkdir()
    above = '"$SHISUAN_CHECKPOINT_DIR/.." "$SHISUAN_CHECKPOINT_DIR/../.."'
    text = f"for place in {above} $SHISUAN_CHECKPOINT_DIR; do touch $place/x; done; true"
    assert train(agent, root, 1, text).finished().state is AttemptState.SUCCEEDED
    assert [str(p.relative_to(root)) for p in root.rglob("x")] == ["checkpoints/a1/x"]


def test_stopped_it_saves_and_says_when(agent, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    text = f"save() {{ N=8; {SAVE} exit 0; }}; trap save TERM; N=2; {SAVE} while :; do sleep 0.02; done"
    reader = train(agent, root, 1, text, grace_ms=20_000)
    reader.wait(lambda r: r.message.startswith("step 2"), "the first checkpoint")
    agent[0].stop(["l1"], "preempted by an operator")
    end = reader.finished()
    assert (end.state, end.message) == (AttemptState.PREEMPTED, "preempted by an operator")
    assert json.loads(end.result)["checkpoints"] == [8]
    assert 0 < end.checkpoint_ms <= end.at_ms


def test_what_is_only_said_counts_for_nothing(agent, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    end = train(agent, root, 1, "echo shisuan_checkpoint: 9").finished()
    assert end.checkpoint_ms == 0
    facts = json.loads(end.result)
    assert "checkpoints" not in facts
    assert facts["checkpoint_problem"] == "step-9 does not count: it is not there, or a later attempt has begun"


def test_a_bad_loss_spoils_the_checkpoint_after_it(agent, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    bad = 'echo "shisuan_metric: {\\"step\\": 7, \\"loss\\": NaN}"'
    train(agent, root, 1, f"N=5; {SAVE} N=6; {SAVE} {bad}; N=7; {SAVE} exit 1").finished()
    end = train(agent, root, 2, "true").finished("j1.s.0.a2")
    assert json.loads(end.result)["resumed_from"] == f"{root}/checkpoints/a1/step-5"
