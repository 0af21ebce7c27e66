"""Moves over HTTP: shown to operators only, made by their id, recorded with who asked, refused once it changed."""

from dataclasses import replace

from scheduler.model.event import LeaseStopping, SeatKept
from scheduler.model.order import Report, ReportKind
from tests.unit.control.world import NODE

JOB = "kind: CommandJob\napiVersion: shisuan/v1\nname: {}\nrun: sleep 9\nexpected: 2h\nresources: {{cpus: {}}}\n"


def start(service, name, cpus):
    """A job that runs; its id."""
    job_id = service.submit(JOB.format(name, cpus)).json()["id"]
    service.settle()
    for attempt in [a for a in service.workers.ran if a.startswith(f"{job_id}.")]:
        service.workers.begin(attempt)
    service.settle()
    return job_id


def scattered(service):
    """Two nodes of four vCPUs with two free on each; a job that needs four waits. Its id."""
    second = replace(NODE, name="n2")
    service.workers.nodes["n2"] = second
    service.workers.say(Report(kind=ReportKind.NODE, node="n2", facts=second))
    service.settle()
    first, _, third, _ = (start(service, name, 2) for name in "abcd")
    service.clock.now += 60_000
    for ended in (first, third):
        service.workers.finish(f"{ended}.command.0.a1")
    service.settle()
    return start(service, "big", 4)


def test_moves_are_shown_made_and_recorded(service):
    big = scattered(service)
    (plan,) = service.get("/rearrangements", job=big).json()["rearrangements"]
    assert service.get("/rearrangements").json()["rearrangements"] == [plan]
    (move,) = plan["moves"]
    assert (plan["job_id"], move["nodes"], move["to"]) == (big, plan["nodes"], move["to"])
    assert move["lost_ms"] == 60_000
    assert plan["lost_card_milli_ms"] == plan["least_card_milli_ms"] == move["lost_card_milli_ms"] > 0
    made = service.post("/rearrangements", {"job": big, "id": plan["id"]})
    assert made.json()["moves"] == plan["moves"]
    service.settle()
    events = [event for _, event in service.store.journal()]
    (stop,) = [e for e in events if isinstance(e, LeaseStopping)]
    assert (stop.lease_id, stop.charged) == (move["lease_id"], False)
    assert f"make room for job {big}" in stop.reason
    assert {(e.job_id, e.seat.nodes) for e in events if isinstance(e, SeatKept)} == {
        (big, tuple(plan["nodes"])),
        (move["job_id"], tuple(move["to"])),
    }
    assert all(e.by for e in events if isinstance(e, SeatKept))
    leases = service.get("/leases", job=big).json()["leases"]
    assert [held["node"] for lease in leases for held in lease["allocations"]] == plan["nodes"]


def test_only_operators_and_only_what_would_be_moved_now(service):
    big = scattered(service)
    for answer in (
        service.get("/rearrangements", key=service.key("studio")),
        service.call("POST", "/rearrangements", {"job": big, "id": "x"}, service.key("studio")),
    ):
        assert answer.status_code == 403
    answer = service.post("/rearrangements", {"job": big, "id": "000000000000"})
    assert (answer.status_code, "look again" in answer.text) == (409, True)
    assert service.post("/rearrangements", {"job": "j99", "id": "x"}).status_code == 404
    answer = service.get("/rearrangements", job="j1")
    assert answer.json() == {"rearrangements": []}
