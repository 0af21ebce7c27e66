"""Attempts of a real agent whose inputs, outputs and checkpoints lie in an S3-compatible store."""

import json
import os
from pathlib import Path

import pytest

from scheduler.model.errors import StorageError
from scheduler.model.lease import AttemptState
from scheduler.model.order import TaskOrder
from tests.unit.workers.helpers import lease, shell
from workers.objects import connect, place_of
from workers.staging import Inputs, mapped

SAVE = """
HERE=$SHISUAN_CHECKPOINT_DIR/step-$N
mkdir $HERE.tmp && echo weights $N > $HERE.tmp/model && mv $HERE.tmp $HERE
echo "shisuan_checkpoint: $N"
"""


@pytest.fixture(params=["none", "auto"])
def agent(request, run, s3_env):
    return run(confinement=request.param)


@pytest.fixture
def root(bucket):
    return f"s3://{bucket.name}/studio"


def do(agent, root, text, number=1, **fields):
    one, reader = agent
    one.submit([lease(shell(text, number=number, **fields), lease_id=f"l{number}", roots=(root,))])
    return reader.finished(f"j1.s.0.a{number}")


def test_inputs_are_brought_and_outputs_published(agent, bucket, root):
    bucket.put("studio/scene/a.blend", "scene")
    bucket.put("studio/scene/textures/wood.png", "wood")
    bucket.put("studio/sound.wav", "sound")
    text = f"cat {root}/scene/a.blend '{root}/scene'/textures/* {root}/sound.wav > $SHISUAN_OUTPUTS/all"
    text += "; env > $SHISUAN_OUTPUTS/env"
    fields = {"reads": (f"{root}/scene", f"{root}/sound.wav"), "output_dir": f"{root}/out", "outputs": ("*",)}
    end = do(agent, root, text, **fields)
    assert (end.state, end.message) == (AttemptState.SUCCEEDED, "")
    assert end.outputs == (f"{root}/out/all", f"{root}/out/env")
    made = bucket.texts("studio/out/", hidden=False)
    assert made["all"] == "scenewoodsound"
    assert "AWS" not in made["env"]
    assert "secret" not in made["env"]
    again = do(agent, root, "exit 9", number=2, **fields)
    assert (again.state, again.outputs) == (AttemptState.SUCCEEDED, end.outputs), "it was published already"


def test_the_next_attempt_goes_on_from_a_committed_checkpoint_on_another_node(run, bucket, root, tmp_path):
    kept = f"{root}/out/checkpoints/j1"
    end = do(run(), root, f"N=5; {SAVE} mkdir $SHISUAN_CHECKPOINT_DIR/step-9.tmp; exit 3", checkpoints=kept)
    assert (end.state, end.checkpoint_ms > 0) == (AttemptState.FAILED, True)
    assert json.loads(end.result)["checkpoint_dir"] == f"{kept}/a1"
    elsewhere = run(home=tmp_path / "elsewhere")
    end = do(
        elsewhere, root, f"cat $SHISUAN_RESUME_FROM/model; N=6; {SAVE} N=7; {SAVE} N=8; {SAVE}", 2, checkpoints=kept
    )
    assert end.state is AttemptState.SUCCEEDED
    assert json.loads(end.result)["resumed_from"] == f"{kept}/a1/step-5"
    assert elsewhere[0].read_log("j1.s.0.a2").text.startswith("weights 5\n")
    names = {name for name in bucket.texts("studio/out/checkpoints/j1/") if "/step-" in name}
    assert names == {"a2/step-7/model", "a2/step-8/model"}, "the newest two are kept"
    assert not list((tmp_path / "elsewhere").rglob("*.checkpoints"))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"reads": ("{root}/none",)}, "input {root}/none does not exist"),
        ({"reads": ("s3://other/x",)}, "s3://other/x is outside the tenant's storage roots: {root}"),
        ({"output_dir": "s3://other/x", "outputs": ("*",)}, "s3://other/x is outside the tenant's storage roots"),
        ({"checkpoints": "s3://other/x"}, "s3://other/x is outside the tenant's storage roots"),
    ],
)
def test_what_cannot_be_had_is_told(run, root, s3_env, fields, says):
    named = {
        key: tuple(v.format(root=root) for v in value) if key == "reads" else value for key, value in fields.items()
    }
    end = do(run(), root, "true", **named)
    assert end.state is AttemptState.FAILED
    assert says.format(root=root) in end.message


def test_what_did_not_change_is_not_brought_again(s3_env, bucket, root, tmp_path):
    inputs, place = Inputs(tmp_path / "inputs"), place_of(f"{root}/scene")
    bucket.put("studio/scene/a", "a1")
    bucket.put("studio/scene/b", "b1")
    first = Path(inputs.fetch(place, "l1"))
    asked = len([line for line in s3_env.asked() if line.startswith("GET /") and "/scene/" in line])
    assert inputs.fetch(place, "l2") == str(first)
    bucket.put("studio/scene/b", "b2")
    second = Path(inputs.fetch(place, "l3"))
    assert [(second / name).read_text() for name in "ab"] == ["a1", "b2"]
    assert (first / "b").read_text() == "b1", "who runs keeps what it began with"
    now = len([line for line in s3_env.asked() if line.startswith("GET /") and "/scene/" in line])
    assert now - asked == 1


def test_what_no_lease_holds_makes_room(bucket, root, tmp_path):
    inputs = Inputs(tmp_path / "inputs", limit_bytes=10)
    paths = []
    for number in (1, 2, 3):
        bucket.put(f"studio/{number}", "x" * 6)
        paths.append(inputs.fetch(place_of(f"{root}/{number}"), f"l{number}"))
        if number == 1:
            inputs.release("l1")
    assert [os.path.exists(path) for path in paths] == [False, True, True]  # noqa: PTH110
    assert len(list((tmp_path / "inputs/objects").iterdir())) == 2


@pytest.mark.parametrize("key", ["../../x", "a/../../x", "./x", "a//b"])
def test_keys_that_lead_out_of_the_folder_are_refused(bucket, root, tmp_path, key):
    bucket.put(f"studio/scene/{key}", "x")
    with pytest.raises(StorageError, match="which is no file's path"):
        Inputs(tmp_path / "inputs").fetch(place_of(f"{root}/scene"), "l1")


def test_a_key_and_keys_below_it_are_no_folder(bucket, root, tmp_path):
    bucket.put("studio/scene/a", "x")
    bucket.put("studio/scene/a/b", "x")
    with pytest.raises(StorageError, match="a key and keys below it"):
        Inputs(tmp_path / "inputs").fetch(place_of(f"{root}/scene"), "l1")


def test_bytes_that_are_not_what_was_written_are_refused(bucket, root, tmp_path):
    bucket.client.put_object(Bucket=bucket.name, Key="studio/x", Body=b"x", Metadata={"shisuan-sha256": "0" * 64})
    with pytest.raises(StorageError, match="is damaged"):
        Inputs(tmp_path / "inputs").fetch(place_of(f"{root}/x"), "l1")
    assert list((tmp_path / "inputs/trees").iterdir()) == []


def test_only_whole_uris_are_replaced_and_json_stays_json():
    staged = (("s3://b/cut", "/c/cut"), ("s3://b/cut/a", "/d/a"), ('s3://b/"{work}"', '/e/"{work}"'))
    words = ("s3://b/cut", "s3://b/cut2", "in=s3://b/cut/a:s3://b/cut/b.mov", "s3://b/cut.mov")
    request = json.dumps({"in": "s3://b/cut/x", "odd": 's3://b/"{work}"'}).replace("{work", "\\u007bwork")
    task = TaskOrder(attempt_id="j1.s.0.a1", number=1, argv=words, env=(("IN", "s3://b/cut"),), request=request)
    done = mapped(task, staged)
    assert done.argv == ("/c/cut", "s3://b/cut2", "in=/d/a:/c/cut/b.mov", "s3://b/cut.mov")
    assert done.env == (("IN", "/c/cut"),)
    assert json.loads(done.request) == {"in": "/c/cut/x", "odd": '/e/"{work}"'}
    assert "{work}" not in done.request


def test_one_connection_serves_a_process(s3_env):
    assert connect() is connect()
