"""Old rows read by today's program."""

import pytest

from scheduler.model.errors import StoreError
from scheduler.model.event import EVENT_VERSION, JobHeld
from scheduler.store.upcast import UPCASTERS, lift, read_event

RENAMED = {("JobPaused", 0): lambda body: ("JobHeld", {"at_ms": body["at_s"] * 1000, "job_id": body["job"]})}


def test_an_old_row_is_lifted_to_today():
    event = read_event("JobPaused", 0, {"at_s": 5, "job": "j1"}, upcasters=RENAMED)
    assert event == JobHeld(at_ms=5000, job_id="j1")


def test_a_kind_without_an_upcaster_is_the_same_in_the_next_version():
    assert read_event("JobHeld", 0, {"at_ms": 5, "job_id": "j1"}, upcasters=RENAMED) == JobHeld(at_ms=5, job_id="j1")


def test_todays_rows_are_not_lifted():
    body = {"at_s": 5, "job": "j1"}
    assert lift("JobPaused", EVENT_VERSION, body, upcasters=RENAMED) == ("JobPaused", body)


@pytest.mark.parametrize(
    ("kind", "version", "body", "message"),
    [
        ("JobHeld", EVENT_VERSION + 1, {}, "this shisuan knows up to"),
        ("JobEaten", EVENT_VERSION, {}, "unknown event 'JobEaten'"),
        ("JobHeld", EVENT_VERSION, {"at_ms": 1, "job_id": "j1", "mood": "bad"}, "damaged JobHeld: .*mood"),
        ("JobHeld", EVENT_VERSION, {"at_ms": 1}, "damaged JobHeld"),
        ("JobHeld", EVENT_VERSION, [], "damaged JobHeld"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(kind, version, body, message):
    with pytest.raises(StoreError, match=message):
        read_event(kind, version, body)


def test_upcasters_lead_to_versions_that_exist():
    assert all(0 <= version < EVENT_VERSION for _, version in UPCASTERS)
