"""Reservations over HTTP: made, seen, cancelled; every mistake points at its field."""

import pytest

HOUR = 3_600_000
NOW_MS = 1_800_000_000_000
EVENT = {"kind": "event", "nodes": ["n1"], "queues": ["default"], "start": "+1h", "length": "2h", "reason": "gala"}


def message(answer):
    return answer.json()["error"]["message"]


def put(service, name="gala", key=None, **changes):
    return service.call("PUT", f"/reservations/{name}", {**EVENT, **changes}, key)


def test_an_event_is_made_seen_by_tenants_and_cancelled(service):
    made = put(service).json()
    now_ms = service.cycle.now_ms()
    assert (made["state"], made["start_ms"] - now_ms, made["end_ms"] - now_ms) == ("coming", HOUR, 3 * HOUR)
    assert (made["nodes"], made["queues"], made["reason"], made["every_ms"]) == (["n1"], ["default"], "gala", 0)
    (seen,) = service.get("/reservations", key=service.key("studio")).json()["reservations"]
    assert seen == made
    assert service.call("DELETE", "/reservations/gala").json()["state"] == "cancelled"
    assert service.call("DELETE", "/reservations/gala").status_code == 200
    assert put(service, start="now", length="1h").json()["state"] == "now"


def test_maintenance_repeats_and_says_when_it_is_next(service):
    made = put(service, "patches", kind="maintenance", queues=[], start="2027-01-10T02:00", length="4h", every="7d")
    view = made.json()
    assert view["start_ms"] < NOW_MS < view["next_start_ms"]
    assert (view["next_start_ms"] - view["start_ms"]) % (7 * 24 * HOUR) == 0
    assert (view["state"], view["repeats"]) == ("coming", 0)


def test_the_same_again_is_harmless_and_another_under_its_name_is_refused(service):
    fixed = {"start": "2030-01-01T00:00", "end": "2030-01-02"}
    fixed = {**{k: v for k, v in EVENT.items() if k != "length"}, **fixed}
    first = service.call("PUT", "/reservations/gala", fixed).json()
    assert first["end_ms"] - first["start_ms"] == 48 * HOUR, "a date as an end means the end of that day"
    assert service.call("PUT", "/reservations/gala", fixed).json() == first
    answer = service.call("PUT", "/reservations/gala", {**fixed, "reason": "another"})
    assert answer.status_code == 409
    assert "cancel it first" in message(answer)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"kind": "party"}, "kind: unknown kind of reservation 'party' (valid: event, maintenance)"),
        ({"nodes": []}, "nodes: must name at least one node (valid: n1)"),
        ({"nodes": ["n9"]}, "nodes[0]: unknown node 'n9' (valid: n1)"),
        ({"queues": ["live"]}, "queues[0]: unknown queue 'live' (valid: default)"),
        ({"queues": []}, "queues: an event is for the jobs of some queue (valid: default)"),
        ({"kind": "maintenance"}, "queues: maintenance keeps nodes for nobody"),
        ({"start": "soon"}, "start: 'soon' is not a date such as 2026-01-01"),
        ({"start": "+soon"}, "start: must be a duration such as 90s"),
        ({"length": ""}, "end: say when it ends: either end or length"),
        ({"end": "2030-01-01"}, "end: say when it ends: either end or length"),
        ({"length": "long"}, "length: must be a duration such as 90s"),
        ({"length": "", "end": "2020-01-01"}, "end: lies before the start"),
        ({"start": "2020-01-01", "length": "1h"}, "end: lies in the past"),
        ({"every": "1h"}, "every: is shorter than the window itself"),
        ({"repeats": 3}, "every: is needed with repeats"),
        ({"every": "7d", "repeats": -1}, "repeats: must be 0 (until it is cancelled) to 10,000"),
        ({"reasno": "x"}, "reasno: unknown field 'reasno'; did you mean 'reason'?"),
    ],
)
def test_a_mistake_points_at_its_field(service, changes, said):
    answer = put(service, **changes)
    assert answer.status_code == 400
    assert message(answer).startswith(said), message(answer)
    assert service.get("/reservations").json() == {"reservations": []}


def test_only_operators_make_and_cancel(service):
    key = service.key("studio")
    assert put(service, key=key).status_code == 403
    assert service.call("DELETE", "/reservations/gala", key=key).status_code == 403
    assert put(service, "Gala").status_code == 400
    answer = service.call("DELETE", "/reservations/gala")
    assert (answer.status_code, message(answer)) == (404, "no reservation 'gala' (there are: none)")


def test_a_job_waits_for_the_end_of_maintenance_and_says_so(service):
    assert put(service, kind="maintenance", queues=[], start="now", length="1h").json()["state"] == "now"
    job = service.submit().json()["id"]
    service.settle()
    assert service.get(f"/jobs/{job}").json()["state"] == "waiting"
    waits = service.get(f"/jobs/{job}/explain").json()["waits"]
    assert [(r["kind"], r["resource"]) for wait in waits for r in wait["reasons"]] == [("reservation", "gala")]
    service.call("DELETE", "/reservations/gala")
    assert service.finish(job)["state"] == "succeeded"


def test_the_queue_of_an_event_uses_its_nodes_in_its_window(service):
    put(service, start="now", length="1h")
    assert service.finish(service.submit().json()["id"])["state"] == "succeeded"
