"""What of a job waits, as its record says: worked out once per version of the record, not in every plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scheduler.model.job import JobRecord, Step
from scheduler.model.lease import number_of
from scheduler.model.plan import Reason, ReasonKind
from scheduler.model.policy import Policy
from scheduler.queueing.lifecycle import find_step
from scheduler.queueing.rank import Rank, aged_priority, ages_ms, sorted_by
from scheduler.queueing.tasks import is_done


@dataclass(slots=True)
class Queued:
    """A function of the record alone; :meth:`ranks` remembers its last answer."""

    record: JobRecord
    number: int
    """The job's."""
    steps: tuple[tuple[int, tuple[Reason, ...]], ...]
    """``(position, why it may not start yet)`` of each step with waiting tasks; no reasons: the record knows none."""
    is_conditional: bool
    """Held, or due only after other jobs or in a price band: whether it may start is asked in every plan."""
    is_delayed: bool
    """Some of its tasks failed and may have to wait before they are tried again: how many is asked in every plan."""
    is_special: bool
    """Its deadline was promised, or others were stopped for it."""
    policy: Policy | None = None
    known: tuple[Rank, ...] = ()
    """Ranks of its steps under ``policy`` from ``from_ms`` on and before ``until_ms``."""
    from_ms: int = 0
    until_ms: int = 0

    @classmethod
    def of(cls, record: JobRecord) -> Queued:
        """From a version of the record."""
        job = record.job
        steps = tuple(
            (position, tuple(_needs(record, step)) if step.needs else ())
            for position, (step, done) in enumerate(zip(job.steps, record.steps, strict=True))
            if done.waiting.spans
        )
        return cls(
            record=record,
            number=number_of(job.id),
            steps=steps,
            is_conditional=record.held or bool(job.after or job.band),
            is_delayed=any(done.later for done in record.steps),
            is_special=record.is_next or job.is_promised,
        )

    def ranks(self, now_ms: int, policy: Policy) -> tuple[Rank, ...]:
        """Of each of ``steps``. They change with the policy, and as a job that waits gains priority."""
        if policy is not self.policy or not self.from_ms <= now_ms < self.until_ms:
            self.policy, self.from_ms, self.until_ms = policy, now_ms, ages_ms(self.record, now_ms, policy)
            priority, by = -aged_priority(self.record, now_ms, policy), sorted_by(self.record, policy.sort)
            self.known = tuple([(priority, by, self.number, position) for position, _ in self.steps])
        return self.known


def _needs(record: JobRecord, step: Step) -> Iterator[Reason]:
    for name in step.needs:
        other_step, done = find_step(record, name)
        if not is_done(other_step, done):
            message = f"starts after step {name} has succeeded: {len(done.succeeded)} of {other_step.count} tasks have"
            yield Reason(kind=ReasonKind.DEPENDENCY, resource=name, message=message)
