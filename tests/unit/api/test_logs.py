"""Old logs over HTTP: the rule, the trial, and who may."""

import pytest

from scheduler.control.bootstrap import read_config
from scheduler.model.errors import InvalidInput
from scheduler.model.units import MS_PER_DAY
from tests.unit.api.conftest import Installation


def test_logs_on_the_nodes_go_by_the_rule(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("logs: {limit: 8MiB, keep_days: 30}\n")
    service = Installation(tmp_path, config=str(config))
    try:
        job = service.submit().json()["id"]
        service.finish(job)
        assert next(iter(service.workers.known.values())).log_mib == 8
        log = service.home.path / "nodes" / "n1" / "default" / "logs" / f"{job}.command.0.a1.log"
        log.parent.mkdir(parents=True)
        log.write_text("hello\n")
        assert service.post("/logs/prune").json()["files"] == 0
        service.clock.now += 31 * MS_PER_DAY
        trial = service.post("/logs/prune", {"dry_run": True}).json()
        assert (trial["files"], trial["bytes"], [one["job_id"] for one in trial["jobs"]]) == (1, 6, [job])
        assert log.exists()
        assert service.post("/logs/prune").json()["files"] == 1
        assert not log.exists()
        assert service.post("/logs/prune").json()["files"] == 0
        assert service.get(f"/jobs/{job}").json()["state"] == "succeeded"
    finally:
        service.close()


def test_without_a_rule_nothing_goes_unless_an_operator_says_how_many_days(service):
    refused = service.post("/logs/prune")
    assert (refused.status_code, refused.json()["error"]["problems"][0]["pointer"]) == (400, "keep_days")
    assert service.post("/logs/prune", {"keep_days": 1}).json()["files"] == 0
    assert service.post("/logs/prune", {"keep_days": -1}).status_code == 400
    assert service.post("/logs/prune", {"keep_days": 1}, service.key("studio")).status_code == 403


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("logs: {keep_days: 0}", "logs.keep_days"),
        ("logs: {keep_days: often}", "logs.keep_days"),
        ("logs: {limit: 8GiB}", "logs.limit"),
        ("logs: {limit: much}", "logs.limit: must be a size such as 8GiB"),
        ("logs: {keep: 30}", "unknown field 'keep'"),
    ],
)
def test_a_wrong_rule_is_refused_at_its_field(tmp_path, text, said):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(InvalidInput) as refused:
        read_config(str(tmp_path / "config.yaml"))
    assert said in str(refused.value)
