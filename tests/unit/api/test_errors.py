import json

import pytest

from scheduler.api.errors import STATUS, status_of
from scheduler.model import errors

HELLO = "apiVersion: shisuan/v1\nkind: CommandJob\nname: hello\nrun: 'true'\n"


def tree(cls=errors.ShisuanError):
    yield cls
    for below in cls.__subclasses__():
        yield from tree(below)


def test_every_error_of_the_tree_has_a_status():
    for cls in tree():
        error = cls([]) if issubclass(cls, errors.InvalidInput) else cls("x")
        assert status_of(error) in set(STATUS.values())
    assert status_of(errors.OutsideRoots("x")) == 400


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        ({}, [("file", "field required")]),
        ({"file": 7}, [("file", "input should be a valid string")]),
        ({"fil": HELLO}, [("fil", "unknown field 'fil'")]),
        ([], [("body", "input should be a valid dictionary or object to extract fields from")]),
    ],
)
def test_a_malformed_request_points_at_the_field(service, body, problems):
    answer = service.post("/jobs", body)
    error = answer.json()["error"]
    assert (answer.status_code, error["kind"]) == (400, "InvalidInput")
    assert [(p["pointer"], p["message"]) for p in error["problems"]] == problems


def test_an_unknown_field_names_the_nearest(service):
    (problem,) = service.post("/jobs", {"fil": HELLO}).json()["error"]["problems"]
    assert problem["nearest"] == "file"
    assert "request_id" in problem["choices"]


def test_a_body_that_is_not_json_is_one_sentence(service):
    answer = service.http.post(
        "/v1/jobs",
        content=b"{file: x",
        headers={"Authorization": f"Bearer {service.operator}", "Content-Type": "application/json"},
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("the request's body is not JSON: ")


@pytest.mark.parametrize(
    ("text", "pointer"),
    [
        (HELLO + "queue: nowhere\n", "queue"),
        (HELLO + "comand: x\n", "comand"),
        (HELLO + "resources: {cpus: 64}\n", "resources.cpus"),
        (HELLO + "resources: {accelerators: 'H100:9'}\n", "resources.accelerators"),
        (HELLO + "after: [j77]\n", "after[0]"),
    ],
)
def test_a_wrong_job_file_points_at_its_field_and_stores_nothing(service, text, pointer):
    answer = service.submit(text)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert [p["pointer"] for p in error["problems"]] == [pointer]
    assert pointer in error["message"]
    assert service.get("/jobs").json()["jobs"] == []
    tried = service.post("/plan", {"file": text}).json()["error"]
    assert tried["message"] == error["message"]


def test_a_ten_megabyte_file_is_one_clear_error(service):
    answer = service.submit(HELLO + "#" * 10_000_000)
    assert answer.status_code == 413
    assert answer.json()["error"]["kind"] == "InvalidInput"
    assert answer.json()["error"]["message"].endswith("at most 2 MiB are accepted")


def test_a_body_without_declared_length_is_cut_off_too(service):
    def pieces():
        for _ in range(300):
            yield b"x" * 10_000

    answer = service.http.post("/v1/jobs", content=pieces(), headers={"Authorization": f"Bearer {service.operator}"})
    assert answer.status_code == 413
    assert "at most 2 MiB" in answer.json()["error"]["message"]


def test_an_unknown_address_and_method_have_the_same_shape(service):
    absent = service.get("/nothing")
    assert (absent.status_code, absent.json()["error"]["kind"]) == (404, "NotFound")
    assert "/v1/nothing" in absent.json()["error"]["message"]
    wrong = service.call("DELETE", "/jobs")
    assert wrong.status_code == 405
    assert "does not take DELETE" in wrong.json()["error"]["message"]


def test_our_own_mistakes_show_no_stack_trace(service, monkeypatch):
    monkeypatch.setattr(type(service.app.state.doors.service), "list_jobs", lambda *_, **__: 1 / 0)
    answer = service.get("/jobs")
    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "the service made a mistake; its log has the details"


HUGE = 10**30


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"/leases?start_ms={HUGE}", None),
        ("GET", f"/leases?after=l{HUGE}", None),
        ("GET", "/leases?after=x", None),
        ("GET", f"/usage?end_ms={HUGE}", None),
        ("GET", f"/jobs?limit={HUGE}", None),
        ("GET", f"/jobs/j{HUGE}", None),
        ("GET", "/jobs/%00", None),
        ("GET", "/jobs/%ff", None),
        ("GET", f"/jobs/j1/attempts?after=j1.command.{HUGE}.a1", None),
        ("GET", f"/jobs/j1/logs?task=command.{HUGE}", None),
        ("GET", "/jobs/j1/logs?task=command.1", None),
        ("GET", f"/jobs/j1/logs?task=command.0&attempt={HUGE}", None),
        ("GET", f"/jobs/j1/logs?offset={HUGE}", None),
        ("POST", "/jobs/j1/retry", {"step": "command", "indices": [HUGE]}),
        ("POST", "/jobs/j1/retry", {"step": "command", "indices": [-1]}),
        ("POST", "/keys", {"tenant": "default", "expires_ms": HUGE}),
        ("PUT", "/queues/q", {"weight": HUGE}),
        ("PUT", "/queues/%00", {}),
        ("PUT", "/tenants/%00", {}),
        ("POST", "/nodes/%00/cordon", {}),
        ("DELETE", "/keys/%00", None),
        ("POST", "/jobs", {"file": "\x00"}),
        ("POST", "/jobs", {"file": HELLO, "base_dir": "\x00"}),
        ("POST", "/jobs", {"file": HELLO, "request_id": "x" * 1_000}),
        ("POST", "/plan", {"file": "[" * 5_000}),
    ],
)
def test_absurd_values_are_the_users_mistake_and_never_ours(service, method, path, body):
    service.finish(service.submit().json()["id"])
    answer = service.call(method, path, body)
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["error"]["message"]


def test_text_that_no_database_likes_is_kept_or_refused(service):
    for words in ("\x00", "\ud800", "\U0001f600", "\u202e"):
        body = json.dumps({"file": HELLO, "request_id": words})
        headers = {"Authorization": f"Bearer {service.operator}", "Content-Type": "application/json"}
        answer = service.http.post("/v1/jobs", content=body.encode(), headers=headers)
        assert answer.status_code in (201, 400), answer.text
        again = service.http.post("/v1/jobs", content=body.encode(), headers=headers)
        assert again.json().get("id") == answer.json().get("id")


def test_an_unknown_state_lists_the_valid_ones(service):
    error = service.get("/jobs", state="runing").json()["error"]
    assert error["problems"][0]["nearest"] == "running"


def test_the_openapi_document_describes_every_answer(service):
    document = service.http.get("/openapi.json").json()
    assert document["info"]["title"] == "shisuan"
    for path, methods in document["paths"].items():
        for method, what in methods.items():
            assert what["summary"], (method, path)
    assert "JobView" in document["components"]["schemas"]
