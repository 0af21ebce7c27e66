"""Access tokens of an issuer in place of keys."""

import re

import pytest
from structlog.testing import capture_logs

from scheduler.control.identity import Person
from scheduler.model.event import JobCancelled
from scheduler.model.key import Role


def test_a_tenants_token_does_what_its_key_does(service, issuer):
    token = issuer.token()
    job = service.submit(key=token).json()["id"]
    assert service.get(f"/jobs/{job}", token).json()["tenant"] == "studio-a"
    other = service.submit().json()["id"]
    assert service.get(f"/jobs/{other}", token).status_code == 404, "another tenant's"
    refused = service.get("/keys", token)
    assert (refused.status_code, refused.json()["error"]["kind"]) == (403, "Forbidden")


def test_an_operators_token_needs_no_tenant(service, issuer):
    token = issuer.token(groups=["operators"], tenant=None)
    assert service.get("/keys", token).status_code == 200


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"exp": 1_799_990_000}, "the token expired 10000 s ago"),
        ({"aud": "payroll"}, "not for 'shisuan'"),
        ({"tenant": "studio-z"}, "tenant 'studio-z' is not known here"),
    ],
)
def test_a_refused_token_is_told_why_in_both_languages(service, issuer, changes, words):
    answer = service.get("/jobs", issuer.token(**changes))
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    error = answer.json()["error"]
    assert error["kind"] == "Unauthorized" or error["kind"] == "Refused"
    assert words in error["message"]
    assert re.search("令牌", error["message"])


def test_keys_are_still_good(service):
    assert service.get("/keys").status_code == 200


def test_a_silent_issuer_is_the_services_trouble_and_not_the_callers(service, issuer):
    service.get("/jobs", issuer.token())
    issuer.status = 503
    issuer_of = service.app.state.doors.operations._issuer
    kept, issuer_of._fetched_s = issuer_of._fetched_s, None
    try:
        answer = service.get("/jobs", issuer.token())
        assert (answer.status_code, answer.json()["error"]["kind"]) == (503, "IssuerSilent")
    finally:
        issuer_of._fetched_s, issuer_of._failure = kept, ""


def test_the_subject_is_kept_with_what_it_did(service, issuer):
    token = issuer.token(sub="bob@studio-a")
    job = service.submit(key=token).json()["id"]
    with capture_logs() as logs:
        service.post(f"/jobs/{job}/cancel", key=token)
        service.get("/jobs", token)
    assert [(one["by"], one["method"], one["path"]) for one in logs if one["event"] == "asked"] == [
        ("oidc:bob@studio-a", "POST", f"/v1/jobs/{job}/cancel")
    ]
    (fact,) = [event for _, event in service.store.journal_tail(50) if isinstance(event, JobCancelled)]
    assert fact.by == "studio-a (oidc:bob@studio-a)"


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def elsewhere(service, path, key):
    from starlette.testclient import TestClient

    client = TestClient(service.app, client=("10.0.0.9", 1), raise_server_exceptions=False)
    return client.get(path, headers={"Authorization": f"Bearer {key}"}).status_code


def test_who_may_read_figures_reads_nothing_else(service, issuer):
    key = service.key("default", role="figures")
    for secret in (key, issuer.token(groups=["prometheus"], tenant=None)):
        assert elsewhere(service, "/metrics", secret) == 200
        for path in ("/v1/jobs", "/v1/nodes", "/v1/status", "/v1/keys", "/v1/leases", "/v1/usage"):
            assert elsewhere(service, path, secret) == 403
        assert service.submit(key=secret).status_code == 403
    assert elsewhere(service, "/metrics", service.key("studio-a")) == 403
    assert elsewhere(service, "/metrics", service.operator) == 200


def test_a_person_of_no_tenant_of_ours_is_nobody(service):
    operations = service.app.state.doors.operations
    assert operations.admit(Person(subject="x", tenant="", role=Role.OPERATOR)).tenant == "default"
