"""What one commit costs: rows that did not change are not written again."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

from scheduler.model.job import Job, JobKind, JobRecord, JobState, Step, StepKind, StepRecord
from scheduler.model.ranges import Ranges
from scheduler.model.snapshot import Changes
from scheduler.store import open_store


@pytest.fixture
def store(tmp_path):
    opened = open_store(f"sqlite:///{tmp_path / 'x.db'}")
    yield opened
    opened.close()


@pytest.fixture
def written(store):
    """Every row written into a projection since the last ``clear``: ``(table, parameters)``."""
    seen = []

    def note(_, __, statement, parameters, *rest):
        if statement.startswith("INSERT INTO"):
            table = statement.split()[2]
            seen.extend((table, row) for row in (parameters if isinstance(parameters, list) else [parameters]))

    sa.event.listen(store._database._writer, "before_cursor_execute", note)
    return seen


def a_job(tasks=100_000, steps=3):
    names = [f"s{n}" for n in range(steps)]
    job = Job(
        id="j1", name="film", tenant="t", queue="q", kind=JobKind.PIPELINE, submitted_ms=1, source="x" * 50_000,
        steps=tuple(Step(name=name, kind=StepKind.COMMAND, count=tasks) for name in names),
    )  # fmt: skip
    progress = tuple(StepRecord(name=name, waiting=Ranges.span(0, tasks)) for name in names)
    return JobRecord(job=job, state=JobState.RUNNING, steps=progress)


def next_task(record, index):
    first, *rest = record.steps
    moved = replace(first, waiting=first.waiting.remove(index), succeeded=first.succeeded.add(index))
    return replace(record, steps=(moved, *rest))


def commit(store, epoch, record):
    store.commit(epoch, [], Changes(at_ms=1, next_job=2, next_lease=1, jobs=(record,)))


def test_a_task_of_a_large_job_writes_one_small_row(store, written):
    epoch, record = store.acquire_epoch("me"), a_job()
    commit(store, epoch, record)
    written.clear()
    for index in range(5):
        record = next_task(record, index)
        commit(store, epoch, record)
    assert [table for table, _ in written] == ["steps"] * 5
    assert max(sum(len(str(value)) for value in row) for _, row in written) < 300
    assert store.job("j1") == record


def test_the_head_is_written_when_it_changes(store, written):
    epoch, record = store.acquire_epoch("me"), a_job()
    commit(store, epoch, record)
    written.clear()
    record = replace(record, held=True, reason="because")
    commit(store, epoch, record)
    assert [table for table, _ in written] == ["jobs"]
    assert store.job("j1") == record


def test_a_writer_that_comes_back_takes_nothing_for_granted(store, tmp_path):
    first, second = a_job(), next_task(a_job(), 0)
    commit(store, store.acquire_epoch("me"), first)
    other = open_store(f"sqlite:///{tmp_path / 'x.db'}")
    commit(other, other.acquire_epoch("other"), second)
    other.close()
    commit(store, store.acquire_epoch("me again"), first)
    assert store.job("j1") == first


def test_a_failed_commit_is_not_remembered(store):
    epoch, record = store.acquire_epoch("me"), a_job()
    commit(store, epoch, record)
    moved = next_task(record, 0)
    sa.event.listen(store._database._writer, "commit", _fail, once=True)
    with pytest.raises(RuntimeError):
        commit(store, epoch, moved)
    commit(store, epoch, moved)
    assert store.job("j1") == moved


def _fail(connection):
    raise RuntimeError("the disk is on fire")
