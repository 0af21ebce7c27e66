"""What a service says before it leads, and when it does."""

import warnings

import pytest

from scheduler.api.standby import Front

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # httpx is what the CLI uses, too
    from starlette.testclient import TestClient


@pytest.fixture
def front():
    return Front()


@pytest.fixture
def http(front):
    return TestClient(front, raise_server_exceptions=False)


@pytest.mark.parametrize("path", ["/healthz", "/v1/healthz"])
def test_a_standby_lives(http, path):
    answer = http.get(path)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_a_standby_is_not_ready_and_says_why(front, http):
    front.says = "a candidate for the Lease as pod-1"
    answer = http.get("/readyz")
    assert answer.status_code == 503
    assert "standby (a candidate for the Lease as pod-1)" in answer.json()["status"]


def test_a_standby_is_warm_when_it_could_lead_at_once(front, http):
    assert http.get("/warmz").status_code == 503
    front.is_warm = True
    assert http.get("/warmz").status_code == 200


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/jobs"), ("GET", "/"), ("GET", "/metrics"), ("PUT", "/x")])
def test_everything_else_is_refused_for_a_moment_in_the_apis_own_shape(http, method, path):
    answer = http.request(method, path, json={})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    error = answer.json()["error"]
    assert (error["kind"], error["problems"]) == ("Standby", [])
    assert "standby" in error["message"]


def test_a_leader_answers_with_its_application(front, service):
    front.serve(service.app)
    http = TestClient(front)
    assert http.get("/readyz").json() == {"status": "ready"}
    assert http.get("/warmz").json() == {"status": "ready"}
    assert http.get("/healthz").status_code == 200
    assert http.get("/v1/status", headers={"Authorization": f"Bearer {service.operator}"}).status_code == 200
