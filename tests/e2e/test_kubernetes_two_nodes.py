"""From a job file to the bill over Kubernetes: two nodes that share no disk, real Ray in their pods, one lost midway.

The API server, KubeRay and the kubelets are doubles. The service, Ray, the bridges, agents, runners, torchrun and
Blender are real; inputs and outputs are named by URI, on a claim (the one folder that both nodes see) or in a bucket.
"""

from collections import Counter
from pathlib import Path

import pytest

from scheduler.control.observe import NOT_THERE
from tests.e2e.kubernetes import FINAL, Park
from tests.kills import invariants
from tests.live import blender
from tests.objects_server import KEYS, Bucket

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

SOON_S = 60.0
"""Half of what a silent node is waited for."""
MICRO_YUAN = {"cards": 7, "vcpus": 2, "gib": 16}
"""Per millisecond: what the prices below come to without a rest."""
CONFIG = """
tenants:
  - {name: lab, roots: [CLAIM/lab]}
  - {name: studio, roots: [CLAIM/studio]}
  - {name: far-lab, roots: [BUCKET/far-lab]}
  - {name: far-studio, roots: [BUCKET/far-studio]}
rates:
  - id: r1
    valid_from: 2026-01-01
    prices:
      - {sku: card, model: H100-SXM-80GB, yuan_per_hour: 25.2}
      - {sku: vcpu, yuan_per_hour: 7.2}
      - {sku: memory, yuan_per_hour: 57.6}
logs: {limit: 1MiB, keep_days: 30}
"""
SECRET = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bucket", "namespace": "park"}, "stringData": KEYS}
SCRIPT = """
import os, pathlib, sys, time
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
print("begun:", rank, flush=True)
while not pathlib.Path("go").exists():
    time.sleep(0.05)
if rank == 0:
    text = pathlib.Path(sys.argv[1]).read_text().strip()
    pathlib.Path(os.environ["SHISUAN_OUTPUTS"], "model.txt").write_text(f"{text} by {size}")
"""
TRAINING = """
apiVersion: shisuan/v1
kind: TrainJob
name: NAME
script: train/train.py
args: [PATH/corpus.txt]
inputs: [ROOT/corpus.txt]
outputs: ROOT/NAME
num_nodes: 2
resources: {cpus: 1, memory: 512MiB, accelerators: H100:CARDS}
retries: 0
"""
FRAMES = """
apiVersion: shisuan/v1
kind: CommandJob
name: NAME
array: 0-3
inputs: [ROOT/scene.txt]
outputs: ROOT/NAME
resources: {cpus: 1, memory: 512MiB, accelerators: H100:1}
run: |
  echo "frame $SHISUAN_TASK_INDEX"
  until [ -e go ]; do sleep 0.05; done
  echo "$(cat PATH/scene.txt) $SHISUAN_TASK_INDEX" > "$SHISUAN_OUTPUTS/$SHISUAN_TASK_INDEX.txt"
retries: 0
"""
FILM = """
apiVersion: shisuan/v1
kind: RenderJob
name: NAME
scene: {script: shot/heads.py, seed: 7, args: {frames: 2, heads: 2}}
frames: 1-2
outputs: ROOT/NAME
resolution: 32x18
samples: 1
device: cpu
resources: {cpus: 1, memory: 512MiB, accelerators: H100:1}
retries: 0
"""
FAILS = """
apiVersion: shisuan/v1
kind: CommandJob
name: NAME
resources: {cpus: 1, memory: 512MiB, accelerators: H100:1}
run: |
  echo "it begins"
  echo "and fails"
  exit 3
retries: 0
"""
HEADS = Path(__file__).parents[2] / "examples" / "scenes" / "heads.py"


class Claim:
    """The one folder that both nodes see."""

    tenants = ""
    """What the names of those whose files lie here begin with."""

    def __init__(self, folder):
        self._folder, self.uri, self.path = folder, f"file://{folder}", str(folder)

    def put(self, name, text):
        (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self._folder / name).write_text(text)

    def texts(self, prefix, hidden=True):
        paths = [path for path in (self._folder / prefix).rglob("*") if path.is_file()]
        shown = [path for path in paths if hidden or ".shisuan" not in path.parts]
        return {str(path.relative_to(self._folder / prefix)): path.read_text() for path in shown}


class Far(Bucket):
    """A bucket: nodes have nothing in common."""

    tenants = "far-"

    def __init__(self, objects, name):
        super().__init__(objects, name)
        self.uri = self.path = f"s3://{name}"


@pytest.fixture(scope="module")
def claim(tmp_path_factory):
    return stocked(Claim(tmp_path_factory.mktemp("claim")))


@pytest.fixture(scope="module")
def bucket(objects_server):
    from workers.objects import connect

    with pytest.MonkeyPatch.context() as patch:
        for name, value in objects_server.env.items():
            patch.setenv(name, value)
        yield stocked(Far(connect(), "two-nodes"))


def stocked(stock):
    """With what the jobs read."""
    lab, studio = f"{stock.tenants}lab", f"{stock.tenants}studio"
    stock.put(f"{lab}/train/train.py", SCRIPT)
    stock.put(f"{lab}/corpus.txt", "to be\n")
    stock.put(f"{studio}/scene.txt", "a shot\n")
    stock.put(f"{studio}/shot/heads.py", HEADS.read_text("utf-8"))
    return stock


@pytest.fixture(scope="module")
def park(tmp_path_factory, claim, bucket, objects_server):
    config = CONFIG.replace("CLAIM", claim.uri).replace("BUCKET", bucket.uri)
    s3 = {"endpoint": objects_server.url, "region": KEYS["AWS_REGION"], "secret": "bucket"}
    with Park(tmp_path_factory.mktemp("park"), config, things=[SECRET], s3=s3) as park:
        yield park
    assert park.machines.processes() == set()


def submit(park, stock, tenant, text, **words):
    tenant = f"{stock.tenants}{tenant}"
    for word, value in {"ROOT": f"{stock.uri}/{tenant}", "PATH": f"{stock.path}/{tenant}", **words}.items():
        text = text.replace(word, str(value))
    return park.submit_as(tenant, text, base_dir="")


def let_go(park):
    """What waits goes on: each attempt finds a file in its own work folder, which lies on its node's own disk."""
    for outputs in park.machines.folder.glob("*/*/volumes/home/nodes/*/*/work/*/outputs"):
        (outputs.parent / "go").touch()


def ended(park, job):
    """The job when it has succeeded. Also what begins later is let go."""
    park.until(lambda: let_go(park) or park.job(job)["state"] in FINAL)
    return park.ended(job)


def states(park, job):
    """State and node of each attempt, by its id without the job's."""
    return {a["id"].partition(".")[2]: (a["state"], a["node"]) for a in park.attempts(job)}


def running(park, job):
    """Where its running attempts run."""
    return [node for state, node in states(park, job).values() if state == "running"]


def log_of(park, job, **asked):
    return park.api("GET", f"/jobs/{job}/logs", params=asked)


def check_logs_outlive_their_pods(park, job):
    """Each rank's of a training whose RayJob is gone, and its end."""
    for rank in (0, 1):
        log = log_of(park, job, rank=rank)
        assert {f"begun: {2 * rank}\n", f"begun: {2 * rank + 1}\n"} <= set(log["text"].splitlines(keepends=True))
        assert (log["end"], log["state"], log["rank"], log["ranks"]) == (True, "succeeded", rank, 2)
        shown = park.run("logs", job, "--rank", str(rank))
        assert shown.stdout == log["text"]
        assert f"rank {rank} of 0 to 1: --rank N shows another's" in shown.stderr
    assert f"{job}.train.0.a1 has ranks 0 to 1, not 2" in park.run("logs", job, "--rank", "2", check=False).stderr


def check_bill(park, job_id):
    """A lease is charged for the time in which its attempts ran, less what a lost one ran after its last sign of life;
    the statement is that time by what the lease held, to the millionth of a yuan.
    """
    leases = park.api("GET", "/leases", params={"job": job_id})["leases"]
    attempts = {a["id"]: a for a in park.attempts(job_id)}
    records = park.api("GET", "/usage", params={"job": job_id})["records"]
    due = 0
    for lease in leases:
        length = Counter()
        for record in records:
            if record["lease_id"] == lease["id"]:
                length[record["bucket"]] += record["end_ms"] - record["start_ms"]
        ran = [attempts[a] for a in lease["attempts"] if attempts[a]["started_ms"]]
        assert length["held_charged"] + length["held_free"] == sum(a["finished_ms"] - a["started_ms"] for a in ran)
        assert any(a["state"] == "lost" for a in ran) or not length["held_free"]
        for held in lease["allocations"]:
            per_ms = MICRO_YUAN["cards"] * len(held["devices"]) * 1_024_000
            per_ms += MICRO_YUAN["vcpus"] * held["cpu_milli"] * 1_024 + MICRO_YUAN["gib"] * held["memory_mib"] * 1_000
            due += length["held_charged"] * per_ms
    (statement,) = park.api("GET", "/statement", params={"job": job_id, "lines": True})["statements"]
    assert statement["gross_micro_yuan"] * 1_024_000 == due > 0
    assert sum(line["gross_micro_yuan"] for line in statement["lines"]) == statement["gross_micro_yuan"]


def published(stock, folder):
    """The outputs there, without what a training keeps of its own."""
    found = stock.texts(f"{folder}/", hidden=False)
    return {name: text for name, text in found.items() if not name.startswith("checkpoints/")}


def said_in(bucket, tenant, job):
    """Lines of its own that were brought, of all its logs."""
    logs = bucket.texts(f"far-{tenant}/.shisuan/logs/{job}@").values()
    return sorted(line for log in logs for line in log.splitlines(keepends=True) if line.startswith(("begun", "frame")))


def placed(server, bucket, *folders):
    """Final names as the server was asked to give them: each as often as it was."""
    asked = (line.partition("?")[0].split(" ", 1) for line in server.asked())
    keys = [path.removeprefix(f"/{bucket.name}/") for method, path in asked if method == "PUT"]
    hidden = ("/.shisuan/", "/checkpoints/")
    return sorted(key for key in keys if key.startswith(folders) and not any(word in key for word in hidden))


def test_from_a_file_through_rayjob_and_pool_to_the_bill_while_the_service_is_killed(park, claim):
    training = submit(park, claim, "lab", TRAINING, NAME="first", CARDS=2)
    frames = submit(park, claim, "studio", FRAMES, NAME="kept")
    park.until(lambda: len(running(park, training)) == 1 and len(running(park, frames)) == 2)
    before = {job: states(park, job) for job in (training, frames)}
    (lease,) = park.api("GET", "/leases", params={"job": training})["leases"]
    assert sorted(held["node"] for held in lease["allocations"]) == ["a", "b"]
    park.replace()
    for job_id in (training, frames):
        job = ended(park, job_id)
        after = states(park, job_id)
        assert {state for state, _ in after.values()} == {"succeeded"}
        assert {attempt: node for attempt, (_, node) in after.items()}.items() >= {
            (attempt, node) for attempt, (_, node) in before[job_id].items()
        }
        invariants.check_leases(park, job)
        check_bill(park, job_id)
    assert published(claim, "lab/first") == {"model.txt": "to be by 4"}  # a process per card
    assert published(claim, "studio/kept") == {f"{n}.txt": f"a shot {n}\n" for n in range(4)}
    park.until(lambda: not park.kube.double.objects("rayjobs"))
    check_logs_outlive_their_pods(park, training)


def test_a_node_is_lost_in_both_lanes_while_no_service_is_there(park, bucket, objects_server):
    training = submit(park, bucket, "lab", TRAINING, NAME="second", CARDS=1)
    frames = submit(park, bucket, "studio", FRAMES, NAME="frames")
    park.until(lambda: len(running(park, training)) == 1 and len(running(park, frames)) == 4)
    (dies,) = running(park, training)
    (stays,) = {"a", "b"} - {dies}
    (lease,) = park.api("GET", "/leases", params={"job": training})["leases"]
    ranks = [held["node"] for held in lease["allocations"]]
    # Two seconds after a line was printed at the latest it is where the node's end does not matter.
    park.until(lambda: said_in(bucket, "lab", training) == ["begun: 0\n", "begun: 1\n"])
    park.until(lambda: said_in(bucket, "studio", frames) == [f"frame {n}\n" for n in range(4)])
    before = states(park, frames)
    assert {node for _, node in before.values()} == {dies, stays}
    park.kill()
    park.kube.lose_node(dies)
    park.up()
    park.until(lambda: states(park, training)["train.0.a1"][0] == "lost")
    was = log_of(park, training, task="train.0", attempt=1, rank=ranks.index(dies))
    assert f"begun: {ranks.index(dies)}\n" in was["text"]
    assert (was["end"], was["state"]) == (True, "lost")
    for index in [name.split(".")[1] for name, (_, node) in before.items() if node == dies]:
        was = log_of(park, frames, task=f"command.{index}", attempt=1)
        assert (was["text"], was["end"], was["state"]) == (f"frame {index}\n", True, "lost")
    jobs = [ended(park, training), ended(park, frames)]
    for job, first in ((training, {"train.0.a1": ("running", dies)}), (frames, before)):
        after = states(park, job)
        for attempt, (_, node) in first.items():
            assert after[attempt] == ("lost" if node == dies else "succeeded", node)
        again = [after[attempt] for attempt in after.keys() - first.keys()]
        # Ray may notice before Kubernetes does: then one more was ordered on the dead node, and lost.
        assert set(again) <= {("succeeded", stays), ("lost", dies)}
        assert again.count(("succeeded", stays)) == [node for _, node in first.values()].count(dies)
    assert published(bucket, "far-lab/second") == {"model.txt": "to be by 2"}
    made = {f"{n}.txt": f"a shot {n}\n" for n in range(4)}
    assert published(bucket, "far-studio/frames") == made
    written = ["far-lab/second/model.txt", *(f"far-studio/frames/{name}" for name in sorted(made))]
    assert placed(objects_server, bucket, "far-lab/second/", "far-studio/frames/") == written
    for job in jobs:
        invariants.check_leases(park, job)
        check_bill(park, job["id"])
    invariants.check_journal(park)
    park.kube.return_node(dies)


def test_a_node_is_deleted_while_no_service_is_there(park, bucket):
    """Nobody speaks of it any more: the list of those there are says so at once."""
    park.until(
        lambda: [n["state"] for n in park.api("GET", "/nodes")["nodes"] if n["name"] in ("a", "b")] == ["ready"] * 2
    )
    frames = submit(park, bucket, "studio", FRAMES, NAME="fewer")
    park.until(lambda: len(running(park, frames)) == 4)
    before = states(park, frames)
    goes, stays = sorted({node for _, node in before.values()})
    park.until(lambda: said_in(bucket, "studio", frames) == [f"frame {n}\n" for n in range(4)])
    park.kill()
    park.kube.remove_node(goes)
    park.up()
    theirs = {attempt for attempt, (_, node) in before.items() if node == goes}
    park.until(lambda: {states(park, frames)[attempt][0] for attempt in theirs} == {"lost"}, deadline_s=SOON_S)
    reasons = {a["reason"] for a in park.attempts(frames) if a["state"] == "lost"}
    assert reasons == {f"node {goes}: {NOT_THERE}"}
    job = ended(park, frames)
    after = states(park, frames)
    assert {attempt: after[attempt] for attempt in before} == {
        attempt: ("lost", goes) if attempt in theirs else ("succeeded", stays) for attempt in before
    }
    assert {after[attempt] for attempt in after.keys() - before.keys()} == {("succeeded", stays)}
    assert published(bucket, "far-studio/fewer") == {f"{n}.txt": f"a shot {n}\n" for n in range(4)}
    invariants.check_leases(park, job)
    check_bill(park, frames)


@pytest.mark.blender
@pytest.mark.skipif(blender.command() is None, reason="no Blender here (make builds .venv-blender)")
def test_blender_renders_a_film_in_the_bucket_on_pool_pods(park, bucket, objects_server, tmp_path):
    job = park.ended(submit(park, bucket, "studio", FILM, NAME="film"))
    done = Counter((a["step"], a["state"]) for a in park.attempts(job["id"]))
    assert done == {("scene", "succeeded"): 1, ("render", "succeeded"): 2}
    frames = [f"film.000{n}.exr" for n in (1, 2)]
    names = [f"far-studio/film/{name}" for frame in frames for name in (frame, frame.replace("exr", "png"))]
    assert placed(objects_server, bucket, "far-studio/film/") == names
    for name in frames:
        bucket.client.download_file(bucket.name, f"far-studio/film/{name}", str(tmp_path / name))
    first, second = (blender.pixels(tmp_path / name) for name in frames)
    assert len(first) == len(second) == 32 * 18 * 3 * 4
    assert first != second, "the camera flies"
    invariants.check_leases(park, job)
    check_bill(park, job["id"])


def test_a_log_outlives_its_pod(park, bucket):
    job = submit(park, bucket, "studio", FAILS, NAME="fails")
    park.until(lambda: park.job(job)["state"] == "failed")
    whole = "it begins\nand fails\n"
    assert log_of(park, job)["text"] == whole, "told before the end was"
    for pod in park.kube.pods(node_type="worker"):
        park.kube.double.remove("pods", pod["metadata"]["name"], "park")
    shown = park.run("logs", job)
    assert shown.stdout == whole
    assert f"==> {job}.command.0.a{len(park.attempts(job))} failed: exit code 3 <==" in shown.stderr
    before = bucket.texts("far-studio/.shisuan/logs/")
    assert "0 files" in park.run("prune", "--keep-days", "1", "--dry-run").stdout
    assert bucket.texts("far-studio/.shisuan/logs/") == before
