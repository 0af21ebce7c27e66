import json
import time

import pytest

HELLO = "apiVersion: shisuan/v1\nkind: CommandJob\nname: hello\nrun: 'true'\n"
ARRAY = HELLO + "array: 0-2\n"
HUGE_ARRAY = HELLO + "array: 0-99999\n"


def events_of(text):
    """(event, data) pairs of a finished stream."""
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in lines:
            yield lines["event"], json.loads(lines["data"])


def test_a_job_is_submitted_runs_and_leaves_usage(service):
    answer = service.submit(ARRAY)
    assert answer.status_code == 201
    job = service.finish(answer.json()["id"])
    assert (job["state"], job["progress_milli"]) == ("succeeded", 1000)
    assert [a["state"] for a in job["attempts"]] == ["succeeded"] * 3
    assert len(job["outputs"]) == 3
    records = service.get("/usage", job=job["id"]).json()["records"]
    assert {r["bucket"] for r in records} <= {"starting", "held_charged"}
    leases = service.get("/leases", job=job["id"]).json()["leases"]
    assert {r["lease_id"] for r in records} <= {one["id"] for one in leases}


def test_the_same_request_gives_the_same_job(service):
    first = service.submit(request_id="r1").json()
    again = service.submit(request_id="r1")
    assert (again.status_code, again.json()["id"]) == (201, first["id"])
    assert len(service.get("/jobs").json()["jobs"]) == 1


def test_a_request_id_used_for_something_else_is_a_conflict(service):
    first = service.submit(request_id="r1").json()
    other = service.submit(ARRAY, request_id="r1")
    assert other.status_code == 409
    assert first["id"] in other.json()["error"]["message"]


def test_two_tenants_may_use_the_same_request_id(service):
    mine, theirs = service.key("alpha"), service.key("beta")
    ids = {service.submit(key=k, request_id="r1").json()["id"] for k in (mine, theirs)}
    assert len(ids) == 2


def test_a_held_job_waits_until_it_is_released(service):
    job = service.submit(hold=True).json()
    assert job["state"] == "held"
    waits = service.get(f"/jobs/{job['id']}/explain").json()["waits"]
    assert [r["kind"] for w in waits for r in w["reasons"]] == ["held"]
    service.post(f"/jobs/{job['id']}/release")
    assert service.finish(job["id"])["state"] == "succeeded"


def test_cancel_ends_a_job_and_retry_runs_it_again(service):
    job = service.submit().json()["id"]
    service.post(f"/jobs/{job}/cancel")
    service.settle()
    assert service.get(f"/jobs/{job}").json()["state"] == "cancelled"
    assert service.post(f"/jobs/{job}/retry").json()["state"] in ("waiting", "running")
    assert service.finish(job)["state"] == "succeeded"


def test_a_preempted_job_is_held_or_runs_again(service):
    job = service.submit().json()["id"]
    assert service.post(f"/jobs/{job}/preempt", {"hold": True}).status_code == 200
    service.settle()
    assert service.get(f"/jobs/{job}").json()["state"] == "held"
    again = service.post(f"/jobs/{job}/preempt")
    assert (again.status_code, again.json()["error"]["message"]) == (409, f"nothing of job {job} runs now")
    service.post(f"/jobs/{job}/release")
    assert service.finish(job)["state"] == "succeeded"
    assert [a["state"] for a in service.get(f"/jobs/{job}/attempts").json()["attempts"]] == ["preempted", "succeeded"]


def test_a_finished_job_cannot_be_cancelled(service):
    job = service.submit().json()["id"]
    service.finish(job)
    answer = service.post(f"/jobs/{job}/cancel")
    assert answer.status_code == 409
    assert answer.json()["error"]["message"] == f"job {job} has already succeeded and cannot be cancelled"


def test_a_trial_says_what_would_start_and_stores_nothing(service):
    trial = service.post("/plan", {"file": ARRAY}).json()
    assert trial["tasks"] == 3
    assert trial["starts"][0]["nodes"] == ["n1"]
    assert service.get("/jobs").json() == {"jobs": []}


def test_jobs_are_listed_newest_first_and_by_state(service):
    ids = [service.submit().json()["id"] for _ in range(3)]
    service.submit(hold=True)
    listed = service.get("/jobs", limit=2).json()["jobs"]
    assert [j["id"] for j in listed] == ["j4", "j3"]
    held = service.get("/jobs", state="held").json()["jobs"]
    assert [j["id"] for j in held] == ["j4"]
    assert ids == ["j1", "j2", "j3"]


def test_a_hundred_thousand_tasks_are_one_small_record(service):
    began = time.monotonic()
    answer = service.submit(HUGE_ARRAY)
    assert answer.status_code == 201
    assert sum(s["waiting"] + s["running"] for s in answer.json()["steps"]) == 100_000
    # Not an assertion about time: this only keeps a quadratic mistake from passing unnoticed.
    assert time.monotonic() - began < 60


def test_job_events_end_with_the_final_state(service):
    job = service.submit().json()["id"]
    service.finish(job)
    answer = service.get(f"/jobs/{job}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = list(events_of(answer.text))
    assert [kind for kind, _ in found] == ["job"]
    assert found[-1][1]["state"] == "succeeded"


def test_logs_are_read_in_pieces_and_followed_to_the_end(service):
    job = service.submit().json()["id"]
    service.finish(job)
    whole = service.get(f"/jobs/{job}/logs", task="command.0").json()
    assert whole["text"] == f"hello from {job}.command.0.a1\n"
    assert whole["end"]
    rest = service.get(f"/jobs/{job}/logs", task="command.0", offset=6).json()
    assert rest["text"] == whole["text"][6:]
    followed = list(events_of(service.get(f"/jobs/{job}/logs", follow=1).text))
    assert [kind for kind, _ in followed] == ["log", "end"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"task": "nope.0"}, "task: unknown step 'nope' (valid: command)"),
        ({"task": "command.x"}, "task: 'command.x' is not STEP.INDEX, such as command.0"),
        ({"task": "command.0", "attempt": 7}, "task command.0 of job j1 has one attempt, 1: not 7"),
        ({"task": "command.0", "rank": 1}, "rank: j1.command.0.a1 has rank 0 alone, not 1"),
        ({"offset": -1}, "offset: input should be greater than or equal to 0"),
    ],
)
def test_wrong_log_requests_say_what_is_wrong(service, query, said):
    service.finish(service.submit().json()["id"])
    assert service.get("/jobs/j1/logs", **query).json()["error"]["message"] == said


def test_attempts_are_listed_by_step(service):
    job = service.submit(ARRAY).json()["id"]
    service.finish(job)
    listed = service.get(f"/jobs/{job}/attempts", step="command").json()["attempts"]
    assert [a["index"] for a in listed] == [0, 1, 2]


def test_a_description_shows_the_attempts_that_ended_last(service):
    job = service.submit(HELLO + "array: 0-29\n").json()["id"]
    shown = service.finish(job)["attempts"]
    ended = [a["finished_ms"] for a in shown]
    assert len(shown) == 20
    assert ended == sorted(ended)
    everything = service.get(f"/jobs/{job}/attempts").json()["attempts"]
    assert ended[-1] == max(a["finished_ms"] for a in everything)
    assert {a["node"] for a in everything} == {"n1"}


def test_usage_and_leases_are_cut_to_an_interval(service):
    service.finish(service.submit().json()["id"])
    now = service.clock.now
    for path, name in (("/usage", "records"), ("/leases", "leases")):
        assert service.get(path, start_ms=now + 1).json()[name] == []
        assert len(service.get(path, end_ms=now + 1).json()[name]) >= 1


def test_lists_go_on_after_the_last_one_seen(service):
    job = service.submit(ARRAY).json()["id"]
    service.finish(job)
    listed = service.get(f"/jobs/{job}/attempts", after=f"{job}.command.1.a1").json()["attempts"]
    assert [a["index"] for a in listed] == [2]
    leases = service.get("/leases", job=job).json()["leases"]
    rest = service.get("/leases", job=job, after=leases[0]["id"]).json()["leases"]
    assert [one["id"] for one in rest] == [one["id"] for one in leases[1:]]
    wrong = service.get(f"/jobs/{job}/attempts", after="x").json()["error"]["message"]
    assert wrong == "after: 'x' is not an attempt's id, such as j1.render.0.a1"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"step": "nope"}, "step: unknown step 'nope' (valid: command)"),
        ({"step": "command", "indices": [3]}, "indices: step command has tasks 0 to 0, not 3"),
        ({"indices": [0]}, "step: is needed when indices are given (valid: command)"),
    ],
)
def test_wrong_retries_say_what_is_wrong(service, body, said):
    job = service.submit().json()["id"]
    answer = service.post(f"/jobs/{job}/retry", body)
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, said)
