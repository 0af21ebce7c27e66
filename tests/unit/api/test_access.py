import pytest

from scheduler.control.tokens import Tokens
from tests.unit.api.conftest import TestClient


def said(answer):
    return answer.status_code, answer.json()["error"]["kind"], answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "no API key: send the header 'Authorization: Bearer KEY'"),
        ("Basic abc", "the Authorization header must read 'Bearer KEY'"),
        ("Bearer ", "the Authorization header must read 'Bearer KEY'"),
        ("Bearer sk-wrong", "unknown API key"),
        ("Bearer attempt:x:1:y", "the attempt token is not one of this service"),
    ],
)
def test_a_wrong_key_is_refused_with_one_sentence(service, header, message):
    answer = service.http.get("/v1/jobs", headers={"Authorization": header} if header else {})
    assert said(answer) == (401, "Unauthorized", message)
    assert answer.headers["www-authenticate"] == "Bearer"


def test_expired_and_revoked_keys_open_nothing(service):
    key = service.key("alpha", expires_ms=service.clock.now + 1_000)
    assert service.get("/jobs", key=key).status_code == 200
    service.clock.now += 1_000
    assert "expired on 2027-01-15" in service.get("/jobs", key=key).json()["error"]["message"]
    other = service.call("POST", "/keys", {"tenant": "alpha"}).json()
    service.call("DELETE", f"/keys/{other['id']}")
    assert "was revoked on" in service.get("/jobs", key=other["key"]).json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/jobs/j1"),
        ("GET", "/jobs/j1/explain"),
        ("GET", "/jobs/j1/attempts"),
        ("GET", "/jobs/j1/logs"),
        ("GET", "/jobs/j1/events"),
        ("GET", "/leases?job=j1"),
        ("GET", "/usage?job=j1"),
        ("POST", "/jobs/j1/cancel"),
        ("POST", "/jobs/j1/hold"),
        ("POST", "/jobs/j1/release"),
        ("POST", "/jobs/j1/retry"),
        ("POST", "/jobs/j1/preempt"),
    ],
)
def test_another_tenants_job_does_not_exist(service, method, path):
    mine, theirs = service.key("alpha"), service.key("beta")
    service.submit(key=mine)
    service.finish("j1")
    body = {} if method == "POST" else None
    real = said(service.call(method, path, body, theirs))
    absent = said(service.call(method, path.replace("j1", "j9"), body, theirs))
    assert real == (404, "NotFound", "no job 'j1'")
    assert absent == (404, "NotFound", "no job 'j9'")


def test_lists_hold_only_the_callers_own(service):
    mine, theirs = service.key("alpha"), service.key("beta")
    service.submit(key=mine)
    service.finish("j1")
    for path, name in (("/jobs", "jobs"), ("/leases", "leases"), ("/usage", "records")):
        assert service.get(path, key=theirs).json()[name] == []
        assert len(service.get(path, key=mine).json()[name]) >= 1
        assert len(service.get(path).json()[name]) >= 1
    assert service.get("/status", key=theirs).json()["counts"]["jobs"] == {}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/keys", None),
        ("POST", "/keys", {"tenant": "alpha"}),
        ("DELETE", "/keys/k1", None),
        ("PUT", "/tenants/alpha", {}),
        ("PUT", "/queues/fast", {}),
        ("POST", "/nodes/n1/cordon", {}),
        ("POST", "/nodes/n1/uncordon", {}),
        ("POST", "/nodes/n1/drain", {"dry_run": True}),
    ],
)
def test_operators_verbs_are_closed_to_tenants(service, method, path, body):
    answer = service.call(method, path, body, service.key("alpha"))
    assert said(answer) == (403, "Forbidden", "this needs an operator's key")


def test_an_attempts_token_opens_its_own_page_and_nothing_else(service):
    job = service.submit().json()["id"]
    token = next(t.token for o in service.workers.known.values() for t in o.tasks)
    me = service.get("/attempts/self", key=token)
    assert (me.status_code, me.json()["attempt_id"]) == (200, f"{job}.command.0.a1")
    for method, path in (("GET", "/jobs"), ("GET", f"/jobs/{job}"), ("POST", "/jobs"), ("GET", "/status")):
        answer = service.call(method, path, None, token)
        assert said(answer)[:2] == (403, "Forbidden")
    service.finish(job)
    assert said(service.get("/attempts/self", key=token)) == (401, "Unauthorized", "the attempt of this token is over")


def test_an_api_key_is_no_attempt_token(service):
    assert said(service.get("/attempts/self"))[:2] == (401, "Unauthorized")


def test_tokens_end_and_cannot_be_changed():
    tokens = Tokens(b"s" * 32)
    token = tokens.make("j1.run.0.a1", 2_000)
    assert tokens.check(token, 1_999) == "j1.run.0.a1"
    for wrong, now_ms in ((token, 2_000), (token.replace("a1", "a2"), 0), (token.replace(":2000:", ":9000:"), 0)):
        with pytest.raises(Exception, match="token"):
            tokens.check(wrong, now_ms)


def test_keys_are_shown_once_and_listed_without_secret(service):
    made = service.call("POST", "/keys", {"tenant": "default", "label": "ci"}).json()
    assert made["key"].startswith("sk-")
    listed = service.get("/keys").json()["keys"]
    assert made["id"] in [k["id"] for k in listed]
    assert not any("key" in k for k in listed)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/healthz", "/v1/schema", "/metrics"])
def test_open_addresses_need_no_key_on_this_machine(service, path):
    assert service.http.get(path).status_code == 200


def test_metrics_from_elsewhere_need_an_operator(service):
    outside = TestClient(service.app, client=("192.0.2.7", 5000))
    assert outside.get("/metrics").status_code == 401
    assert outside.get("/metrics", headers={"Authorization": f"Bearer {service.operator}"}).status_code == 200
    tenant = service.key("alpha")
    assert outside.get("/metrics", headers={"Authorization": f"Bearer {tenant}"}).status_code == 403
