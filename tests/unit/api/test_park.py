from dataclasses import replace

import pytest

from scheduler.control.bootstrap import read_config
from scheduler.model.errors import InvalidInput
from scheduler.model.node import NodeState
from scheduler.model.order import Report, ReportKind
from tests.unit.api.conftest import Installation
from tests.unit.control.world import NODE

CONFIG = """
queues:
  - {name: film, weight: 300}
  - {name: night, parent: film}
tenants:
  - {name: studio-a, display_name: Studio A, queues: [night]}
"""


def message(answer):
    return answer.json()["error"]["message"]


def test_a_cordoned_node_takes_nothing_new_and_stays_so_when_it_reports_again(service):
    assert service.post("/nodes/n1/cordon", {"reason": "new fan"}).json()["state"] == "cordoned"
    service.workers.connect()
    service.settle()
    (node,) = service.get("/nodes").json()["nodes"]
    assert (node["state"], node["state_reason"]) == ("cordoned", "new fan")
    job = service.submit().json()
    assert job["state"] == "waiting"
    service.post("/nodes/n1/uncordon")
    assert service.finish(job["id"])["state"] == "succeeded"


def test_a_cordoned_node_that_goes_away_comes_back_cordoned(service):
    service.post("/nodes/n1/cordon", {"reason": "new fan"})
    service.workers.mail.append(Report(kind=ReportKind.NODE_GONE, node="n1"))
    service.settle()
    assert service.get("/nodes").json()["nodes"][0]["state"] == "cordoned"
    assert service.post("/nodes/n1/uncordon").json()["state"] == "lost"
    service.workers.connect()
    service.settle()
    assert service.get("/nodes").json()["nodes"][0]["state"] == "ready"


def reports(service, state, reason=""):
    """The runtime says so of its node."""
    service.workers.mail.append(
        Report(kind=ReportKind.NODE, node="n1", facts=replace(NODE, state=state, state_reason=reason))
    )
    service.settle()


def shown(service):
    (node,) = service.get("/nodes").json()["nodes"]
    return node["state"], node["state_reason"]


def test_what_the_runtime_takes_out_it_brings_back(service):
    reports(service, NodeState.UNREADY, "cordoned in Kubernetes")
    assert shown(service) == ("unready", "cordoned in Kubernetes")
    assert service.submit().json()["state"] == "waiting"
    reports(service, NodeState.READY)
    assert shown(service) == ("ready", "")
    assert service.finish("j1")["state"] == "succeeded"


def test_an_operators_cordon_and_the_runtimes_word_are_two_things(service):
    reports(service, NodeState.UNREADY, "cordoned in Kubernetes")
    service.post("/nodes/n1/cordon", {"reason": "new fan"})
    assert shown(service) == ("cordoned", "new fan")
    service.post("/nodes/n1/uncordon")
    assert shown(service) == ("unready", "cordoned in Kubernetes")
    service.post("/nodes/n1/cordon", {"reason": "new fan"})
    reports(service, NodeState.READY)
    assert shown(service) == ("cordoned", "new fan")
    service.post("/nodes/n1/uncordon")
    assert shown(service) == ("ready", "")


def test_an_unready_node_that_goes_away_is_lost(service):
    reports(service, NodeState.UNREADY, "cordoned in Kubernetes")
    service.workers.mail.append(Report(kind=ReportKind.NODE_GONE, node="n1", message="deleted"))
    service.settle()
    assert shown(service) == ("lost", "deleted")


def test_a_drained_node_gives_back_what_runs_and_takes_nothing_new(service):
    service.submit()
    tried = service.post("/nodes/n1/drain", {"reason": "new fan", "dry_run": True}).json()
    assert [(s["job_id"], s["nodes"], s["cards"]) for s in tried["stops"]] == [("j1", ["n1"], 0)]
    assert (tried["dry_run"], tried["node"]["state"], shown(service)[0]) == (True, "cordoned", "ready")
    assert service.workers.stopped == []
    done = service.post("/nodes/n1/drain", {"reason": "new fan"}).json()
    assert done == {**tried, "dry_run": False}
    service.settle()
    assert service.workers.stopped == [tried["stops"][0]["lease_id"]]
    assert shown(service) == ("cordoned", "new fan")
    assert service.get("/jobs/j1").json()["state"] == "waiting"
    again = service.post("/nodes/n1/drain").json()
    assert (again["stops"], again["stopping"]) == ([], 0)
    service.post("/nodes/n1/uncordon")
    assert service.finish("j1")["state"] == "succeeded"
    usage = service.get("/usage", job="j1").json()["records"]
    assert {r["reason"] for r in usage if r["bucket"] == "held_free"} <= {"preempted"}


def test_cordon_and_uncordon_can_be_tried(service):
    assert service.post("/nodes/n1/cordon", {"dry_run": True}).json()["state"] == "cordoned"
    assert shown(service)[0] == "ready"
    service.post("/nodes/n1/cordon")
    assert service.post("/nodes/n1/uncordon", {"dry_run": True}).json()["state"] == "ready"
    assert shown(service)[0] == "cordoned"


def test_an_unknown_node_lists_the_known_ones(service):
    assert message(service.post("/nodes/n9/cordon")) == "no node 'n9' (there are: n1)"


def test_nodes_show_what_is_free(service):
    service.submit()
    (node,) = service.get("/nodes").json()["nodes"]
    assert node["cpu_milli_free"] == 3_000


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/queues/a", {"parent": "b"}, "parent: unknown queue 'b' (valid: default)"),
        ("/queues/default", {"parent": "default"}, "parent: queue 'default' would be its own ancestor"),
        ("/queues/a", {"weight": 0}, "weight: must be 1 to 1000000, not 0"),
        (
            "/queues/a",
            {"guaranteed": {"cards": 8}, "limit": {"cards": 4}},
            "limit.cards: is less than the queue is guaranteed (cards)",
        ),
        ("/queues/a", {"lends": {"cpus": 1}}, "lends.cpus: is more than the queue is guaranteed (cpus)"),
        ("/queues/a", {"limit": {"gpus": 1}}, "limit.gpus: unknown field 'gpus'"),
        ("/queues/a", {"limit": {"memory": "much"}}, "limit.memory: value error, must be a size such as 8GiB"),
        ("/tenants/a", {"queues": ["b"]}, "queues[0]: unknown queue 'b' (valid: default)"),
        (
            "/tenants/a",
            {"storage_roots": ["here"]},
            "storage_roots[0]: 'here' is not an absolute path or s3://bucket/prefix",
        ),
        (
            "/tenants/a",
            {"storage_roots": ["s3://Bad/x"]},
            "storage_roots[0]: 's3://Bad/x' is not an absolute path or s3",
        ),
        ("/tenants/a", {"storage_roots": ["gs://b/x"]}, "storage_roots[0]: 'gs://b/x' is not an absolute path or s3"),
        ("/tenants/..", {}, None),
        ("/tenants/A_B", {}, "name: 'A_B' must be lower-case"),
    ],
)
def test_wrong_queues_and_tenants_are_refused(service, path, body, said):
    answer = service.call("PUT", path, body)
    assert answer.status_code in (400, 404, 405)
    if said:
        assert message(answer).startswith(said)


def test_a_new_tenant_has_a_folder_of_its_own(service):
    made = service.call("PUT", "/tenants/alpha", {"display_name": "Alpha"}).json()
    assert made["storage_roots"] == [str(service.home.storage("alpha"))]
    assert service.home.storage("alpha").is_dir()


def test_a_tenant_sees_only_the_queues_it_may_use(service):
    service.call("PUT", "/queues/secret", {})
    key = service.key("alpha")
    assert [q["name"] for q in service.get("/queues", key=key).json()["queues"]] == ["default"]
    assert [q["name"] for q in service.get("/queues").json()["queues"]] == ["default", "secret"]


def test_the_configuration_makes_tenants_queues_and_private_keys(tmp_path):
    file = tmp_path / "park.yaml"
    file.write_text(CONFIG)
    made = Installation(tmp_path, config=str(file))
    key_file = made.home.keys / "studio-a"
    assert key_file.stat().st_mode & 0o777 == 0o600
    key = key_file.read_text().strip()
    assert [q["name"] for q in made.get("/queues", key=key).json()["queues"]] == ["night"]
    assert made.submit(key=key).json()["queue"] == "night"
    made.close()
    again = Installation(tmp_path, config=str(file))
    assert (again.operator, key_file.read_text().strip()) == (made.operator, key)
    again.close()


def test_roots_of_the_configuration_may_be_relative_or_the_tenants_own(tmp_path):
    file = tmp_path / "config" / "park.yaml"
    file.parent.mkdir()
    file.write_text("tenants: [{name: a, roots: [own, films, .]}, {name: b, roots: [./own]}]")
    made = Installation(tmp_path, config=str(file))
    try:
        roots = {t["name"]: t["storage_roots"] for t in made.get("/tenants").json()["tenants"]}
        assert roots["a"] == [str(made.home.storage("a")), str(file.parent / "films"), str(file.parent)]
        assert made.home.storage("a").is_dir()
        assert roots["b"] == [str(file.parent / "own")]
    finally:
        made.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("queues: [{nme: x}]", "queues[0].nme: unknown field 'nme'; did you mean 'name'"),
        ("queues: [{}]", "queues[0].name"),
        ("queues: {", "not YAML"),
        ("tenants: 7", "tenants"),
    ],
)
def test_a_wrong_configuration_points_at_the_field(tmp_path, text, said):
    file = tmp_path / "park.yaml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=said.replace("[", r"\[")):
        read_config(str(file))


def test_the_first_key_is_private_and_kept(service):
    assert service.home.key.stat().st_mode & 0o777 == 0o600


def test_metrics_count_jobs_by_state_with_few_labels(service):
    job = service.submit().json()["id"]
    service.finish(job)
    text = service.http.get("/metrics").text
    assert 'shisuan_jobs{state="succeeded"} 1.0' in text
    assert "shisuan_runtime_up 1.0" in text
    assert 'shisuan_reports_total{kind="finished"} 1.0' in text
    assert job not in text


def test_status_says_how_things_are(service):
    service.submit(hold=True)
    status = service.get("/status").json()
    assert status["runtime"] == {"state": "up", "message": ""}
    assert status["counts"]["jobs"] == {"held": 1}
    assert status["counts"]["nodes"] == {"ready": 1}
    assert status["simulated"] is False


def test_a_tenants_name_is_checked_before_its_own_folder_is_made(tmp_path):
    file = tmp_path / "park.yaml"
    file.write_text("tenants: [{name: ../../elsewhere, roots: [own]}]")
    with pytest.raises(InvalidInput, match="elsewhere"):
        Installation(tmp_path, config=str(file))
    assert not (tmp_path / "elsewhere").exists()
