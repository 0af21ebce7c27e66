"""From a job file to the bill over Kubernetes: two nodes that share no disk, real Ray in their pods, one lost midway.

The API server, KubeRay and the kubelets are doubles. The service, Ray, the bridges, agents, runners and torchrun are
real; inputs and outputs are named by URI on a claim, the one folder that both nodes see.
"""

from collections import Counter

import pytest

from tests.e2e.kubernetes import Park
from tests.kills import invariants

pytestmark = [pytest.mark.ray, pytest.mark.timeout(240)]

MICRO_YUAN = {"cards": 7, "vcpus": 2, "gib": 16}
"""Per millisecond: what the prices below come to without a rest."""
CONFIG = """
tenants:
  - {name: lab, roots: [ROOT/lab]}
  - {name: studio, roots: [ROOT/studio]}
rates:
  - id: r1
    valid_from: 2026-01-01
    prices:
      - {sku: card, model: H100-SXM-80GB, yuan_per_hour: 25.2}
      - {sku: vcpu, yuan_per_hour: 7.2}
      - {sku: memory, yuan_per_hour: 57.6}
"""
SCRIPT = """
import os, pathlib, time
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
root = pathlib.Path("ROOT/lab")
print("begun:", rank, flush=True)
while not (root / "go").exists():
    time.sleep(0.05)
if rank == 0:
    text = (root / "corpus.txt").read_text().strip()
    pathlib.Path(os.environ["SHISUAN_OUTPUTS"], "model.txt").write_text(f"{text} by {size}")
"""
TRAINING = """
apiVersion: shisuan/v1
kind: TrainJob
name: NAME
script: train/train.py
inputs: [file://ROOT/lab]
outputs: file://ROOT/lab/NAME
num_nodes: 2
resources: {cpus: 1, memory: 512MiB, accelerators: H100:CARDS}
retries: 0
"""
FRAMES = """
apiVersion: shisuan/v1
kind: CommandJob
name: NAME
array: 0-3
inputs: [file://ROOT/studio]
outputs: file://ROOT/studio/NAME
resources: {cpus: 0.5, memory: 64MiB, accelerators: H100:1}
run: |
  echo "frame $SHISUAN_TASK_INDEX"
  until [ -e ROOT/studio/go ]; do sleep 0.05; done
  echo "$(cat ROOT/studio/scene.txt) $SHISUAN_TASK_INDEX" > "$SHISUAN_OUTPUTS/$SHISUAN_TASK_INDEX.txt"
retries: 0
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The claim."""
    root = tmp_path_factory.mktemp("claim")
    for name, text in (("lab/train/train.py", SCRIPT), ("lab/corpus.txt", "to be\n"), ("studio/scene.txt", "a shot\n")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text.replace("ROOT", str(root)))
    return root


@pytest.fixture(scope="module")
def park(tmp_path_factory, root):
    with Park(tmp_path_factory.mktemp("park"), CONFIG.replace("ROOT", str(root))) as park:
        yield park
    assert park.machines.processes() == set()


def submit(park, root, tenant, text, **words):
    for word, value in {"ROOT": root, **words}.items():
        text = text.replace(word, str(value))
    return park.submit_as(tenant, text, base_dir=str(root / tenant))


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


def test_from_a_file_through_rayjob_and_pool_to_the_bill_while_the_service_is_killed(park, root):
    training = submit(park, root, "lab", TRAINING, NAME="first", CARDS=2)
    frames = submit(park, root, "studio", FRAMES, NAME="kept")
    park.until(lambda: len(running(park, training)) == 1 and len(running(park, frames)) == 2)
    before = {job: states(park, job) for job in (training, frames)}
    (lease,) = park.api("GET", "/leases", params={"job": training})["leases"]
    assert sorted(held["node"] for held in lease["allocations"]) == ["a", "b"]
    park.replace()
    for tenant in ("lab", "studio"):
        (root / tenant / "go").touch()
    for job_id in (training, frames):
        job = park.ended(job_id)
        after = states(park, job_id)
        assert {state for state, _ in after.values()} == {"succeeded"}
        assert {attempt: node for attempt, (_, node) in after.items()}.items() >= {
            (attempt, node) for attempt, (_, node) in before[job_id].items()
        }
        invariants.check_leases(park, job)
        check_bill(park, job_id)
    assert (root / "lab" / "first" / "model.txt").read_text() == "to be by 4"  # a process per card
    park.until(lambda: not park.kube.double.objects("rayjobs"))
    check_logs_outlive_their_pods(park, training)


def test_a_node_is_lost_midway_in_both_lanes(park, root):
    for tenant in ("lab", "studio"):
        (root / tenant / "go").unlink(missing_ok=True)
    training = submit(park, root, "lab", TRAINING, NAME="second", CARDS=1)
    frames = submit(park, root, "studio", FRAMES, NAME="frames")
    park.until(lambda: len(running(park, training)) == 1 and len(running(park, frames)) == 4)
    (dies,) = running(park, training)
    (lease,) = park.api("GET", "/leases", params={"job": training})["leases"]
    ranks = [held["node"] for held in lease["allocations"]]
    # Two seconds after a line was printed at the latest it is where the node's end does not matter.
    kept = f"lab/.shisuan/logs/{training}@*/train/0.a1*.log"
    park.until(lambda: ["begun: " in path.read_text() for path in root.glob(kept)] == [True, True])
    (stays,) = {"a", "b"} - {dies}
    before = states(park, frames)
    assert {node for _, node in before.values()} == {dies, stays}
    park.kube.lose_node(dies)
    park.until(lambda: states(park, training)["train.0.a1"][0] == "lost")
    was = log_of(park, training, task="train.0", attempt=1, rank=[node == dies for node in ranks].index(True))
    assert "begun: " in was["text"]
    assert (was["end"], was["state"]) == (True, "lost")
    for tenant in ("lab", "studio"):
        (root / tenant / "go").touch()
    jobs = [park.ended(training), park.ended(frames)]
    for job, first in ((training, {"train.0.a1": ("running", dies)}), (frames, before)):
        after = states(park, job)
        for attempt, (_, node) in first.items():
            assert after[attempt] == ("lost" if node == dies else "succeeded", node)
        again = [after[attempt] for attempt in after.keys() - first.keys()]
        # Ray may notice before Kubernetes does: then one more was ordered on the dead node, and lost.
        assert set(again) <= {("succeeded", stays), ("lost", dies)}
        assert again.count(("succeeded", stays)) == [node for _, node in first.values()].count(dies)
    assert (root / "lab" / "second" / "model.txt").read_text() == "to be by 2"
    made = {path.name: path.read_text() for path in (root / "studio" / "frames").glob("*.txt")}
    assert made == {f"{n}.txt": f"a shot {n}\n" for n in range(4)}
    for job in jobs:
        invariants.check_leases(park, job)
        check_bill(park, job["id"])
    invariants.check_journal(park)
