"""The whole control plane over the lanes: from the job file to the bill, on a park on paper."""

import time
from dataclasses import replace

import pytest
import yaml

from k8s.mapping import Cards
from k8s.names import LANE, LEASE
from scheduler import lanes, wiring
from scheduler.control import arguments
from scheduler.control.bootstrap import read_config
from scheduler.control.clock import SystemClock
from scheduler.control.lanes import KubernetesConfig
from scheduler.control.settings import Home, Settings
from scheduler.control.tokens import Tokens
from scheduler.model.errors import InvalidInput
from scheduler.store import open_store
from tests.kube_executor import SITE, KubeSite, paper_node
from tests.unit.api.conftest import TestClient
from tests.unit.chart.conftest import CHART
from tests.unit.control.world import new_database
from tests.unit.k8s.raw import H100, gpu, resource_slice
from workers.messages import Hello

pytestmark = pytest.mark.timeout(180)
COMMAND = "apiVersion: shisuan/v1\nkind: CommandJob\nname: c\nrun: 'true'\narray: 0-3\nresources: {cpus: 1}\n"
FILM = (
    "apiVersion: shisuan/v1\nkind: CommandJob\nname: f\nrun: 'true'\narray: 0-3\n"
    "resources: {cpus: 1, accelerators: 'L4:CARDS'}\n"
)
TRAIN = (
    "apiVersion: shisuan/v1\nkind: TrainJob\nname: t\nmodule: this\nnum_nodes: 2\n"
    "resources: {cpus: 1, memory: 1GiB, accelerators: 'H100:2'}\n"
)


class Installation:
    """A service on a park of two nodes of the pool lane with two H100 each, and one whose two L4 have names."""

    def __init__(self, folder):
        nodes = [paper_node(name, cpu="64", memory="64Gi", cards=2) for name in ("alpha", "beta")]
        for node in nodes:
            node["metadata"]["labels"] |= {key: value for key, value in H100.items() if "count" not in key}
            node["metadata"]["labels"][LANE] = "pool"
        nodes.append(paper_node("gamma", cpu="64", memory="64Gi"))
        nodes[-1]["metadata"]["labels"][LANE] = "pool"
        site = replace(SITE, warm_ms=1, cluster_idle_ms=1)
        self.kube = KubeSite(folder, site=site, nodes=nodes)
        cards = [gpu(f"gpu-{n}", f"GPU-{n}", product="NVIDIA L4", memory="23034Mi") for n in range(2)]
        self.kube.park.double.put(resource_slice(on="gamma", devices=cards))
        self.home = Home.of(str(folder / "home"))
        self.home.prepare()
        self.store = open_store(new_database(self.home.path))
        settings = Settings(home=str(self.home.path), roots=(str(folder),))
        self.executor = self.kube.connect()
        self.app, self.cycle, self.thread = wiring.build(settings, self.store, self.executor)
        self.http = TestClient(self.app, client=("127.0.0.1", 5000), raise_server_exceptions=False)
        self.headers = {"Authorization": f"Bearer {self.home.key.read_text().strip()}"}

    def close(self):
        self.cycle.stop()
        self.thread.join(10)
        self.executor.close()
        self.store.close()
        self.kube.remove()

    def get(self, path):
        return self.http.get(f"/v1{path}", headers=self.headers).json()

    def run(self, text):
        answer = self.http.post("/v1/jobs", json={"file": text}, headers=self.headers)
        assert answer.status_code == 201, answer.text
        return self.until(lambda: self._final(answer.json()["id"]))

    def _final(self, job_id):
        view = self.get(f"/jobs/{job_id}")
        return view if view["state"] in ("succeeded", "failed", "cancelled") else None

    @staticmethod
    def until(condition):
        end = time.monotonic() + 60
        while not (found := condition()):
            assert time.monotonic() < end
            time.sleep(0.02)
        return found


@pytest.fixture
def park(tmp_path):
    made = Installation(tmp_path)
    yield made
    made.close()


def test_jobs_of_both_lanes_run_and_are_billed_and_the_rights_are_the_least(park):
    park.until(lambda: len(park.get("/nodes")["nodes"]) == 3)
    for text in (COMMAND, FILM.replace("CARDS", "1"), FILM.replace("CARDS", "0.5"), TRAIN):
        job = park.run(text)
        assert job["state"] == "succeeded", job
        assert {r["bucket"] for r in park.get(f"/usage?job={job['id']}")["records"]} <= {"starting", "held_charged"}
    double = park.kube.park.double
    lanes_now = {n["metadata"]["name"]: n["metadata"]["labels"].get(LANE) for n in double.objects("nodes")}
    assert (lanes_now["alpha"], lanes_now["beta"]) == ("job", "job"), "the training moved both"
    held = [one["devices"] for lease in park.get("/leases")["leases"] for one in lease["allocations"]]
    assert {device for devices in held for device in devices} >= {"GPU-0", "GPU-1"}
    leases = park.get("/leases")["leases"]
    assert all(one["closed_ms"] for one in leases)
    park.until(lambda: not double.objects("rayjobs"))
    park.until(lambda: not double.objects("rayclusters"))
    seen = [s for s in double.seen if s.resource and not s.resource.startswith("/")]
    used = {(s.group, s.resource, s.verb) for s in seen}
    table = yaml.safe_load((CHART / "files" / "rights.yaml").read_text("utf-8"))
    rows = [row for row in table if row["part"] in ("inventory", "lanes")]
    granted = {(row["group"], row["resource"], verb) for row in rows for verb in row["verbs"]}
    assert used <= granted
    unused = granted - used - {("resource.k8s.io", "resourceclaims", "create")}  # of what is applied and not there yet
    assert unused <= {("ray.io", "rayclusters", "get"), ("ray.io", "rayjobs", "get")}, "asked for a name that is taken"
    assert not [p for p in park.kube.park.workers() if LEASE in p["metadata"]["annotations"]]


def test_parts_of_cards_that_a_plugin_counts_are_refused_with_the_reason(park):
    park.until(lambda: len(park.get("/nodes")["nodes"]) == 3)
    text = FILM.replace("L4:CARDS", "H100:0.5")
    answer = park.http.post("/v1/jobs", json={"file": text}, headers=park.headers)
    assert answer.status_code >= 400
    assert "whole only (counted by a device plugin)" in answer.text


# ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────────────

LEAST = {"namespace": "park", "gateway": "shisuan.park.svc:7443", "images": {"default": "pool:1"}}


def test_the_shortest_section_is_enough():
    site = lanes.site_of(KubernetesConfig.model_validate(LEAST))
    assert (site.namespace, site.image("render"), site.warm_ms) == ("park", "pool:1", 300_000)
    assert [
        lanes.site_of(KubernetesConfig.model_validate(LEAST | said)).cards for said in ({}, {"cards": "claims"})
    ] == [
        Cards.AUTO,
        Cards.CLAIMS,
    ]


def mig(entry):
    return {"mig_configs": {"small": [entry]}}


MIG_AT = "kubernetes.mig_configs.small[0]"
WRONG = {
    "no port": ({"gateway": "shisuan"}, "kubernetes.gateway", "HOST:PORT"),
    "no kind": (
        {"images": {"paint": "x"}},
        "kubernetes.images",
        "no kind of step is called paint; valid: default",
    ),
    "no image": ({"images": {}}, "kubernetes.images", "at least 1"),
    "no lane": ({"lane": "fast"}, "kubernetes.lane", "pool"),
    "no cards": ({"cards": "all"}, "kubernetes.cards", "'auto', 'plugin' or 'claims'"),
    "no field": ({"image": "x"}, "kubernetes", "image"),
    "no time": ({"warm": "soon"}, "kubernetes.warm", "soon"),
    "no profile": (mig({"devices": "all", "mig-enabled": True, "mig-devices": {"9g.1gb": 1}}), MIG_AT, "1g.10gb"),
    "no MIG": (mig({"devices": "all", "mig-enabled": False, "mig-devices": {"1g.10gb": 1}}), MIG_AT, "mig-enabled is"),
    "no devices": (mig({"mig-enabled": True}), f"{MIG_AT}.devices", "required"),
    "no such entry": (mig({"devices": "all", "mig_enabled": True}), MIG_AT, "mig_enabled"),
    "no count": (mig({"devices": "all", "mig-enabled": True, "mig-devices": {"1g.10gb": 0}}), MIG_AT, "1"),
    "no entries": ({"mig_configs": {"small": []}}, "kubernetes.mig_configs", "at least 1"),
    "no label": (
        {"mig_configs": {"-small": [{"devices": "all", "mig-enabled": False}]}},
        "kubernetes.mig_configs",
        "-",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_in_the_section_points_at_its_field(tmp_path, case):
    fields, where, words = WRONG[case]
    path = tmp_path / "park.yaml"
    path.write_text(yaml.safe_dump({"kubernetes": LEAST | fields}), encoding="utf-8")
    with pytest.raises(InvalidInput) as refused:
        read_config(str(path))
    (problem,) = refused.value.problems
    assert problem.pointer.startswith(where)
    assert words in problem.message or words in problem.pointer


def test_configurations_of_the_mig_manager_are_read_as_its_file_has_them(tmp_path):
    told = """
      kubernetes:
        mig_configs:
          all-balanced:
            - device-filter: ["0x233110DE", "0x233010DE"]
              devices: all
              mig-enabled: true
              mig-devices: {"1g.10gb": 2, "2g.20gb": 1, "3g.40gb": 1}
          first: [{devices: [0], mig-enabled: true, mig-devices: {"7g.80gb": 1}}, {devices: [1], mig-enabled: false}]
    """
    path = tmp_path / "park.yaml"
    told = yaml.safe_load(told)["kubernetes"]
    path.write_text(yaml.safe_dump({"kubernetes": LEAST | told}), encoding="utf-8")
    config = read_config(str(path)).kubernetes
    balanced, first = lanes.site_of(config).mig_configs
    (entry,) = balanced.entries
    assert (entry.devices, entry.profiles) == (None, (("1g.10gb", 2), ("2g.20gb", 1), ("3g.40gb", 1)))
    assert [(one.devices, one.mig_on) for one in first.entries] == [((0,), True), ((1,), False)]


def test_what_only_an_embedded_ray_understands_is_refused(tmp_path):
    asked = arguments.parser().parse_args(["--home", str(tmp_path), "--kubernetes", "--cards", "8xH100", "--ray", "x"])
    with pytest.raises(InvalidInput) as refused:
        arguments.settings(asked)
    assert [p.pointer for p in refused.value.problems] == ["--ray", "--cards", "--config"]


# ── admission ────────────────────────────────────────────────────────────────────────────────────────────────────────


class Store:
    """As much of one as admission asks."""

    held = 3

    def token_secret(self):
        return b"s" * 32

    def epoch(self):
        return self.held


@pytest.fixture
def door(tmp_path, monkeypatch):
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(KUBECONFIG), encoding="utf-8")
    settings = Settings(home=str(tmp_path), kubeconfig=str(path))
    made = lanes.Lanes(settings, KubernetesConfig.model_validate(LEAST), Store(), SystemClock())
    made._epoch = 3
    carried = {"job-l5": ("job", frozenset({"j5.a.0.a1"}))}
    monkeypatch.setattr(made.executor, "carries", lambda name: carried.get(name, ("", frozenset())))
    yield made
    made.executor.close()


KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "x",
    "clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:1"}}],
    "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    "users": [{"name": "x", "user": {}}],
}
TOKENS = Tokens(b"s" * 32)


@pytest.mark.parametrize(
    ("cluster", "token", "why"),
    [
        ("pool-a", TOKENS.derive("bridge/pool-a"), ""),
        ("pool-a", TOKENS.derive("bridge/pool-b"), "the token is not this cluster's"),
        ("pool-a", TOKENS.make("j5.a.0.a1", 1 << 50), "the token is not this cluster's"),
        ("job-l5", TOKENS.make("j5.a.0.a1", 1), ""),
        ("job-l5", TOKENS.make("j6.a.0.a1", 1 << 50), "the token is another attempt's"),
        ("job-l5", TOKENS.derive("bridge/job-l5"), "this is not an attempt token"),
    ],
    ids=["pool", "another's", "attempt at a pool", "job, expired long ago", "another job's", "derived at a job"],
)
def test_a_bridge_shows_whose_it_is(door, cluster, token, why):
    assert door._admit(Hello(cluster=cluster, token=token)) == why


def test_nobody_is_admitted_by_a_service_that_leads_no_longer(door):
    door._store.held = 4
    hello = Hello(cluster="pool-a", token=TOKENS.derive("bridge/pool-a"))
    assert door._admit(hello) == "this service leads no longer"
    assert not door._may_write()
