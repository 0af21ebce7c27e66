"""Canonical text is written without dictionaries; it must be the text that JSON's own encoder gives, byte for byte."""

import copy
import dataclasses
import inspect
import json
import pickle
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler.model import changed, codec
from scheduler.model.event import AttemptFinished, Event, LeaseGranted, UsageSealed
from scheduler.model.job import Job, JobRecord, Resources, StepRecord
from scheduler.model.lease import Allocation, AttemptRecord, AttemptState, Lease, LeaseRecord
from scheduler.model.money import Txn
from scheduler.model.node import Node
from scheduler.model.order import LeaseOrder, Report
from scheduler.model.plan import Plan
from scheduler.model.ranges import Ranges
from scheduler.model.usage import UsageRecord
from scheduler.placement.fit import Demand
from scheduler.store import rows
from scheduler.store.chain import part, rows_of

FEW = settings(max_examples=20, deadline=None)
RECORDS = (Job, JobRecord, StepRecord, LeaseRecord, AttemptRecord, UsageRecord, Node, LeaseOrder, Report, Plan, Txn)


def slowly(value, *, tagged=False):
    out = codec.encode(value, tagged=tagged)
    return json.dumps(out, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@pytest.mark.parametrize("cls", [*RECORDS, *get_args(Event)], ids=lambda cls: cls.__name__)
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_text_is_that_of_the_dictionaries(cls, data):
    value = data.draw(st.from_type(cls))
    assert codec.dumps(value) == slowly(value)
    assert codec.dumps(value, tagged=True) == slowly(value, tagged=True)
    assert codec.decode(cls, json.loads(codec.dumps(value))) == value


@FEW
@given(st.lists(st.integers(0, 10_000), max_size=60))
def test_long_ranges_are_written_alike(indices):
    record = StepRecord(name="render", waiting=Ranges.of(indices), worked=tuple((i, i) for i in indices))
    assert codec.dumps(record) == slowly(record)


@FEW
@given(st.from_type(LeaseRecord))
def test_a_field_left_out_leaves_the_others_as_they_are(record):
    expected = codec.encode(record)
    del expected["lease"]
    assert codec.dumps_without(record, "lease") == json.dumps(
        expected, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )


@pytest.mark.parametrize("text", ["", 'a"b\\c\n\t\x00\x7f', "视算", "\u2028", "\ud83d\ude00", "x\udc80"])
def test_texts_of_every_kind(text):
    value = AttemptFinished(at_ms=1, attempt_id=text, state=AttemptState.FAILED, exit_code=-1, outputs=(text,))
    assert codec.dumps(value) == slowly(value)


@FEW
@given(st.from_type(UsageRecord))
def test_what_an_event_holds_is_cut_out_of_its_text(used):
    held = Allocation(node='n"lease":{}', cpu_milli=1)
    lease = Lease(id="l1", job_id="j1", step="s", tenant="t", queue="q", allocations=(held,), attempts=(), granted_ms=1)
    granted, sealed = rows_of([LeaseGranted(at_ms=1, lease=lease), UsageSealed(at_ms=2, record=used)], 0, bytes(32))
    assert part(granted.body, "lease") == codec.dumps(lease)
    assert part(sealed.body, "record") == rows.text_of(used)


@FEW
@given(st.from_type(AttemptRecord), st.from_type(Resources))
def test_replace_is_that_of_dataclasses(attempt, resources):
    changes = {"state": AttemptState.LOST, "finished_ms": 5}
    assert changed.replace(attempt, **changes) == dataclasses.replace(attempt, **changes)
    assert changed.replace(resources) == resources
    assert changed.replace(Ranges(((1, 2),)), spans=()) == Ranges()
    with pytest.raises(AttributeError):
        changed.replace(resources, no_such_field=1)


@FEW
@given(st.from_type(AttemptRecord))
def test_records_made_quickly_are_those_of_dataclasses(attempt):
    values = {field.name: getattr(attempt, field.name) for field in dataclasses.fields(AttemptRecord)}
    slow = object.__new__(AttemptRecord)
    AttemptRecord.__init__.__wrapped__(slow, **values)
    assert AttemptRecord(**values) == slow
    assert inspect.signature(AttemptRecord) == inspect.signature(AttemptRecord.__init__.__wrapped__.__get__(slow))
    with pytest.raises(dataclasses.FrozenInstanceError):
        attempt.id = "another"
    with pytest.raises(TypeError, match="id"):
        AttemptRecord(lease_id="l1")
    assert pickle.loads(pickle.dumps(attempt)) == copy.deepcopy(attempt) == attempt


def test_a_record_that_works_something_out_is_not_made_quickly():
    with pytest.raises(TypeError, match="Demand works something out"):
        changed.quick(Demand)


def test_what_lacks_a_field_or_has_one_too_many_is_refused():
    with pytest.raises(TypeError, match="Allocation needs 'node'"):
        codec.decode(Allocation, {"cpu_milli": 1})
    with pytest.raises(ValueError, match=r"Allocation has no field \['colour'\]"):
        codec.decode(Allocation, {"node": "n", "colour": "red"})


def test_a_number_that_is_none_is_not_written():
    with pytest.raises(ValueError, match="Unknown format code 'd'"):
        codec.dumps(Allocation(node="n", cpu_milli="4"))
