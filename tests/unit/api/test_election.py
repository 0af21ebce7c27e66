"""A candidate from its start to its end, over the API server double; what it leads is a stand-in."""

import threading

import pytest
import yaml

from scheduler.control.settings import Settings
from scheduler.election import Candidate
from scheduler.model.errors import StaleEpoch, StoreError
from tests.fakes.kube.server import FakeKubernetes
from tests.kube_server import kubeconfig

LIMIT_S = 60


class Leading:
    """A service whose database and cycle do what the test says."""

    app = "the application"

    def __init__(self):
        self.still = 0
        self.trouble = None
        self.ended = threading.Event()

    def still_ms(self):
        return self.still

    def check(self):
        if self.trouble is not None:
            raise self.trouble

    def end(self):
        self.ended.set()


class World:
    """One candidate."""

    def __init__(self, double, folder):
        self.double, self.leading = double, Leading()
        self.begun, self.died = threading.Event(), threading.Event()
        self.why = ""
        self.failure = None
        (folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig(double.url)), encoding="utf-8")
        settings = Settings(
            home=str(folder), elect="park/shisuan", lease_s=2, kubeconfig=str(folder / "kubeconfig"),
            publish="shisuan", port=8080,
        )  # fmt: skip
        self.candidate = Candidate(settings, warm=lambda: None, begin=self.begin, die=self.die)

    def begin(self):
        if self.failure is not None:
            raise self.failure
        self.begun.set()
        return self.leading

    def die(self, why, error):
        self.why = self.why or f"{why}: {error}"
        self.died.set()

    def holder(self):
        return self.double.get("leases", "shisuan", "park")["spec"]["holderIdentity"]


@pytest.fixture
def world(tmp_path):
    with FakeKubernetes() as double:
        double.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "park"}})
        made = World(double, tmp_path)
        yield made
        made.candidate.end()


def leads(world):
    world.candidate.start()
    assert world.begun.wait(LIMIT_S)


def test_it_leads_points_the_service_to_itself_and_gives_the_lease_away_at_its_end(world):
    leads(world)
    while world.double.get("endpointslices", "shisuan", "park") is None:
        assert not world.died.wait(0.01)
    assert world.holder()
    world.candidate.end()
    assert world.leading.ended.is_set()
    assert world.holder() == ""
    assert not world.died.is_set(), world.why


@pytest.mark.parametrize(
    ("trouble", "said", "holds"),
    [
        (StoreError("no route"), "the database has not answered for", False),
        (StaleEpoch("another process took the epoch after 1"), "another process took the epoch after 1", True),
    ],
    ids=["silent", "another's"],
)
def test_an_idle_leader_notices_what_its_database_says(world, trouble, said, holds):
    leads(world)
    world.leading.trouble = trouble
    assert world.died.wait(LIMIT_S)
    assert said in world.why
    assert bool(world.holder()) == holds  # a successor need not wait for one that is cut off alone


def test_a_leader_whose_cycle_hangs_gives_the_lease_away(world):
    leads(world)
    world.leading.still = 3_600_000
    assert world.died.wait(LIMIT_S)
    assert "its cycle has not come round for 3600.0 s" in world.why
    assert world.holder() == ""


def test_who_is_elected_and_cannot_load_ends(world):
    world.failure = StoreError("a newer shisuan wrote it")
    world.candidate.start()
    assert world.died.wait(LIMIT_S)
    assert world.why == "elected, but it cannot lead: a newer shisuan wrote it"
