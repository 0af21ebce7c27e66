"""A small film and a training run side by side, and anything killed at seeded moments: nothing is lost or doubled.

A seed fixes who dies and when. ``make test`` has 5 runs of 2 kills each, ``make soak`` 12 of 5.
Each is held against one run that nobody disturbed: the same pixels, the same film, the same weights to the last bit.
"""

import hashlib
import json
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import av
import httpx
import pytest

from benchmarks.installation import Installation, wait_for
from tests.kills import invariants
from tests.kills.test_kills import ROLES, kill_one
from tests.live.blender import ROOT, command

pytestmark = [
    pytest.mark.ray,
    pytest.mark.blender,
    pytest.mark.timeout(400),
    pytest.mark.skipif(command() is None, reason="no Blender here: run make, or set SHISUAN_BLENDER"),
]

FOLDER = Path(__file__).parent
EXAMPLES = ROOT / "examples"
NODES = "nodes: [{name: alpha, cpus: 1.5, memory: 4GiB}, {name: beta, cpus: 1.5, memory: 4GiB}]\n"
PARK = f"""
queues: [{{name: film, weight: 60}}, {{name: training, weight: 40}}]
tenants:
  - {{name: studio, queues: [film], roots: [own, {EXAMPLES}]}}
  - {{name: lab, queues: [training], roots: [own, {EXAMPLES}]}}
"""
FINAL = ("succeeded", "failed", "cancelled")
MOMENTS = {2: (range(8), range(9, 17)), 5: tuple(range(first, first + 4) for first in range(0, 20, 4))}
"""Signs of progress (attempts begun and ended, tenths of the training) after which so many kills come."""


@dataclass(frozen=True)
class Made:
    """What must be the same however often things died."""

    pixels: dict[str, str]
    film: tuple[str, ...]
    weights: str
    losses: str


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    folder = tmp_path_factory.mktemp("main")
    (folder / "nodes.yaml").write_text(NODES)
    (folder / "park.yaml").write_text(PARK)
    flags = ("--nodes", str(folder / "nodes.yaml"), "--config", str(folder / "park.yaml"))
    with Installation(folder / "home", *flags) as running:
        yield running
    assert running.processes() == []


@pytest.fixture(scope="module")
def undisturbed(installation):
    """The same two jobs, left alone."""
    jobs = submit(installation, "calm")
    return made(installation, finished(installation, jobs), "calm")


def submit(installation, name):
    """The film for the studio, the training for the lab; their ids."""
    ids = []
    for tenant in ("studio", "lab"):
        file = FOLDER / ("film.yaml" if tenant == "studio" else "train.yaml")
        key = (installation.home / "keys" / tenant).read_text().strip()
        answer = httpx.post(
            f"{installation.instance['url']}/v1/jobs",
            json={"file": file.read_text().replace("NAME", name), "base_dir": str(EXAMPLES)},
            headers={"Authorization": f"Bearer {key}"},
            timeout=60,
        )
        assert answer.is_success, answer.text
        ids.append(answer.json()["id"])
    return ids


def progress(installation, ids):
    """How far both are; grows with every attempt and every tenth of the training, and not by the clock."""
    signs = 0
    for job_id in ids:
        for attempt in installation.attempts(job_id):
            signs += (attempt["started_ms"] > 0) + (attempt["finished_ms"] > 0)
            if attempt["step"] == "train" and attempt["state"] in ("running", "succeeded"):
                signs += attempt["progress_milli"] // 100
    return signs


def finished(installation, ids, deadline_s=240):
    return [installation.wait(job_id, deadline_s=deadline_s) for job_id in ids]


def made(installation, jobs, name):
    """What the jobs published, read from the files."""
    storage = installation.home / "storage"
    frames = sorted((storage / "studio" / name / "frames").glob("*.exr"))
    film = storage / "studio" / name / "film.mp4"
    with av.open(str(film)) as container:
        pictures = tuple(
            hashlib.sha256(f.to_ndarray(format="rgb24").tobytes()).hexdigest() for f in container.decode(video=0)
        )
    facts = next(json.loads(a["facts"]) for a in installation.attempts(jobs[1]["id"]) if a["state"] == "succeeded")
    losses = (storage / "lab" / name / "loss.csv").read_text()
    pixels = {path.name.replace(name, "NAME"): pixels_of(path) for path in frames}
    return Made(pixels=pixels, film=pictures, weights=facts["weights_sha256"], losses=losses)


def pixels_of(path):
    """Of the pixels, not of the file: its header says when it was rendered."""
    import OpenEXR

    with OpenEXR.File(str(path)) as file:
        channels = file.channels()
        return hashlib.sha256(b"".join(channels[n].pixels.tobytes() for n in sorted(channels))).hexdigest()


def check_attempts(installation, job, *, runner_killed):
    """One success per task; what the park lost is LOST, and only a killed runner is the task's own failure."""
    states = {}
    for attempt in installation.attempts(job["id"]):
        states.setdefault((attempt["step"], attempt["index"]), []).append(attempt["state"])
    assert len(states) == sum(step["count"] for step in job["steps"])
    allowed = {"succeeded", "lost", "failed"} if runner_killed else {"succeeded", "lost"}
    for task, ends in states.items():
        assert Counter(ends)["succeeded"] == 1, (task, ends)
        assert set(ends) <= allowed, (task, ends)


def check_bill(installation, job):
    """Charged is exactly what attempts ran, less what a lost one ran after its last recorded sign of life."""
    leases = installation.api("GET", "/leases", params={"job": job["id"]})["leases"]
    attempts = {a["id"]: a for a in installation.attempts(job["id"])}
    records = installation.api("GET", "/usage", params={"job": job["id"]})["records"]
    for lease in leases:
        mine = [r for r in records if r["lease_id"] == lease["id"]]
        length = Counter()
        for record in mine:
            length[record["bucket"]] += record["end_ms"] - record["start_ms"]
        ran = [attempts[a] for a in lease["attempts"] if attempts[a]["started_ms"]]
        whole = sum(a["finished_ms"] - a["started_ms"] for a in ran)
        lost = any(a["state"] == "lost" for a in ran)
        assert length["held_charged"] + length["held_free"] == whole, (lease, mine)
        assert lost or not length["held_free"], (lease, mine)
        assert {r["free_reason"] for r in mine if r["bucket"] == "held_free"} <= {"lost"}
    assert len({r["id"] for r in records}) == len(records)


def check_no_orphans(installation):
    """Only Blenders that wait for the next frame are left; a new agent killed those of a dead one."""

    def left():
        words = [" ".join(process.cmdline()) for process in installation.role("runner")]
        return [text for text in words if "blender_runner" not in text]

    wait_for("no runner left", lambda: not left(), deadline_s=20)
    assert len(installation.role("service")) == len(installation.role("bridge")) == 1


def run_and_kill(installation, seed, undisturbed, kills):
    chance = random.Random(seed)
    name = f"kill-{seed}"
    victims = [ROLES[(seed + n * (1 + seed // len(ROLES))) % len(ROLES)] for n in range(kills)]
    ids = submit(installation, name)
    killed = []
    for role, moments in zip(victims, MOMENTS[kills], strict=True):
        moment = chance.choice(moments)
        wait_for(f"progress {moment}", lambda m=moment: progress(installation, ids) >= m, deadline_s=200, every_s=0.05)
        killed.append((role, moment, kill_one(installation, role, chance)))
        if role == "service":
            installation.up()
    print(f"seed {seed}: {ids} killed {killed}")
    jobs = finished(installation, ids)
    for job in jobs:
        check_attempts(installation, job, runner_killed="runner" in victims)
        invariants.check_leases(installation, job)
        check_bill(installation, job)
    leases = [one for job in ids for one in installation.api("GET", "/leases", params={"job": job})["leases"]]
    invariants.check_capacity(installation, leases)
    assert made(installation, jobs, name) == undisturbed
    for tenant in ("studio", "lab"):
        left = (installation.home / "storage" / tenant / name).rglob("*")
        assert not [p for p in left if ".partial." in p.name or ".tmp" in p.name or ".new" in p.suffix]
    check_no_orphans(installation)


@pytest.mark.parametrize("seed", range(5))
def test_film_and_training_survive_two_kills(installation, undisturbed, seed):
    run_and_kill(installation, seed, undisturbed, 2)
    if seed == 4:
        invariants.check_journal(installation)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [pytest.param(s, id=f"{('left', 'right')[s % 2]}-{s}") for s in range(5, 17)])
def test_film_and_training_survive_kills_often(installation, undisturbed, seed):
    run_and_kill(installation, seed, undisturbed, 5)
    if seed >= 15:
        invariants.check_journal(installation)
