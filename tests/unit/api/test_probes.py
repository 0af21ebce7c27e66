"""What Kubernetes asks: is it alive, and may it be sent requests."""

from pathlib import Path

import yaml

GOLDEN = Path(__file__).parents[2] / "golden" / "chart" / "minimal.yaml"


def test_the_charts_probes_ask_for_addresses_that_there_are(service):
    (deployment,) = (o for o in yaml.safe_load_all(GOLDEN.read_text("utf-8")) if o["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    paths = [container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("startup", "liveness", "readiness")]
    assert paths == ["/healthz", "/healthz", "/readyz"]
    assert [service.http.get(path).status_code for path in paths] == [200, 200, 200]


def test_a_service_whose_cycle_turns_is_alive_and_ready(service):
    assert service.http.get("/healthz").status_code == 200
    answer = service.http.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready"})


def test_a_service_whose_cycle_hangs_is_alive_and_not_ready(service):
    with service.cycle.state():  # holds the cycle up, as a database that does not answer would
        service.clock.now += service.cycle.limits.still_ms + 7_000
        answer = service.http.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "the cycle has not come round for 22 s"})
        assert service.http.get("/healthz").status_code == 200
    service.settle()
    assert service.http.get("/readyz").status_code == 200
