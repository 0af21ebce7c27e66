"""Cards that a driver names, over Kubernetes with real Ray in the pods: two halves of one card beside each other, then
the whole card, each program shown the card that the plan chose, each lease billed by what it held.
"""

import json
from collections import Counter

import pytest

from tests.e2e.kubernetes import H100, Park
from tests.fakes.kuberay.park import node
from tests.kills import invariants
from tests.unit.k8s.raw import gpu, resource_slice

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

CARD = "GPU-6f3c0a4e-0000-4000-8000-000000000001"
CARD_MICRO_YUAN = 8
"""Per millisecond: what the price below comes to without a rest, for half a card too."""
CONFIG = """
tenants: [{name: studio, roots: [ROOT]}]
rates:
  - id: r1
    valid_from: 2026-01-01
    prices: [{sku: card, model: H100-SXM-80GB, yuan_per_hour: 28.8}]
"""
FRAMES = """
apiVersion: shisuan/v1
kind: CommandJob
name: NAME
array: ARRAY
outputs: file://ROOT/NAME
resources: {cpus: 0.5, memory: 64MiB, accelerators: H100:CARDS}
run: |
  until [ -e ROOT/go ]; do sleep 0.05; done
  echo "$CUDA_VISIBLE_DEVICES" > "$SHISUAN_OUTPUTS/$SHISUAN_TASK_INDEX.txt"
retries: 0
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("claim")


@pytest.fixture(scope="module")
def park(tmp_path_factory, root):
    labels = {key: value for key, value in H100.items() if key.startswith("shisuan")}
    cards = resource_slice(on="a", devices=[gpu("gpu-0", CARD)])
    config = CONFIG.replace("ROOT", str(root))
    with Park(tmp_path_factory.mktemp("park"), config, nodes=[node("a", labels=labels)], things=[cards]) as park:
        yield park
    assert park.machines.processes() == set()


def submit(park, root, **words):
    text = FRAMES
    for word, value in {"ROOT": root, **words}.items():
        text = text.replace(word, str(value))
    return park.submit_as("studio", text, base_dir=str(root))


def shown(root, name):
    return Counter(path.read_text().strip() for path in (root / name).glob("*.txt"))


def billed(park, job_id):
    """Micro-yuan of the statement, and what the leases held by the card's price."""
    leases = {one["id"]: one for one in park.api("GET", "/leases", params={"job": job_id})["leases"]}
    due_milli = 0
    for record in park.api("GET", "/usage", params={"job": job_id})["records"]:
        if record["bucket"] == "held_charged":
            (held,) = leases[record["lease_id"]]["allocations"]
            assert held["devices"] == [CARD]
            due_milli += (record["end_ms"] - record["start_ms"]) * CARD_MICRO_YUAN * (held["card_milli"] or 1_000)
    (statement,) = park.api("GET", "/statement", params={"job": job_id})["statements"]
    return statement["gross_micro_yuan"] * 1_000, due_milli


def test_halves_of_a_named_card_run_side_by_side_and_then_the_whole(park, root):
    halves = submit(park, root, NAME="halves", ARRAY="0-1", CARDS="0.5")
    park.until(lambda: [a["state"] for a in park.attempts(halves)] == ["running"] * 2)
    (claim,) = park.kube.double.objects("resourceclaims")
    assert len(claim["status"]["reservedFor"]) == 2, json.dumps(claim["status"])
    whole = submit(park, root, NAME="whole", ARRAY="0-0", CARDS="1")
    (root / "go").touch()
    for job_id, name, count in ((halves, "halves", 2), (whole, "whole", 1)):
        job = park.ended(job_id)
        assert shown(root, name) == {CARD: count}
        invariants.check_leases(park, job)
        charged, due = billed(park, job_id)
        assert charged == due > 0
    invariants.check_journal(park)
