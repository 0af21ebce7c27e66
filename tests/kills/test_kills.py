"""Kill anything at a seeded moment: every task still ends with one published output, and every record agrees.

A seed fixes who dies and after how many attempt starts. ``make test`` runs 20 seeds, ``make soak`` 200.
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path

import pytest

from benchmarks.installation import Installation, kill, wait_for
from tests.kills import invariants

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

ROLES = ("service", "bridge", "agent", "runner", "head")
VICTIMS = tuple((role,) for role in ROLES) + tuple(combinations(ROLES, 2))
TINY = (Path(__file__).parent / "tiny.yaml").read_text(encoding="utf-8")
NODES = """
nodes:
  - {name: alpha, cpus: 2, memory: 4GiB, cards: 2xH100}
  - {name: beta, cpus: 2, memory: 4GiB, cards: 2xH100}
"""


@contextmanager
def installed(folder: Path, *flags: str) -> Iterator[Installation]:
    (folder / "nodes.yaml").write_text(NODES, encoding="utf-8")
    with Installation(folder / "home", "--nodes", str(folder / "nodes.yaml"), *flags) as running:
        yield running
    assert running.processes() == []


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    with installed(tmp_path_factory.mktemp("kills")) as running:
        yield running


def started(installation: Installation, job_id: str) -> int:
    return sum(a["started_ms"] > 0 for a in installation.attempts(job_id))


def kill_one(installation: Installation, role: str, chance: random.Random) -> int:
    """SIGKILL one process of a role. Runners live for moments: look again until one is hit or none comes any more."""
    end = time.monotonic() + 2
    while time.monotonic() < end:
        found = installation.role(role)
        if found and kill([chance.choice(found)]):
            return 1
        if role != "runner":
            break
    return 0


def run_and_kill(installation: Installation, seed: int, *, replay: bool) -> None:
    chance = random.Random(seed)
    victims = VICTIMS[seed % len(VICTIMS)]
    moment = chance.randrange(42)
    name = f"tiny-{seed}-{chance.randrange(10**6)}"
    job_id = installation.submit(TINY.replace("tiny", name))
    wait_for(f"{moment} starts", lambda: started(installation, job_id) >= moment, deadline_s=60, every_s=0.01)
    killed = {role: kill_one(installation, role, chance) for role in victims}
    print(f"seed {seed}: after {moment} starts of {job_id} killed {killed}")
    if "service" in victims:
        installation.up()
    job = installation.wait(job_id, deadline_s=120)
    invariants.check_attempts(installation, job, runner_killed="runner" in victims)
    invariants.check_leases(installation, job)
    invariants.check_outputs(installation.home / "storage" / "default" / name)
    invariants.check_no_orphans(installation)
    if replay:
        invariants.check_journal(installation)


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_lost_when_anything_dies(installation, seed):
    run_and_kill(installation, seed, replay=True)


@pytest.mark.postgres
def test_nothing_is_lost_on_postgresql_either(postgres_url, tmp_path):
    with installed(tmp_path, "--database", postgres_url) as running:
        for seed in (0, 2, 4):  # the service, an agent, the head
            run_and_kill(running, seed, replay=True)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [pytest.param(s, id=f"{('left', 'right')[s % 2]}-{s}") for s in range(20, 220)])
def test_nothing_is_lost_when_anything_dies_often(installation, seed):
    """``make soak`` runs the seeds ``left`` and ``right`` side by side, each on an installation of its own."""
    run_and_kill(installation, seed, replay=seed % 20 >= 18)  # replay reads the whole, growing journal
