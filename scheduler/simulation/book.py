"""Keeps count while a simulation runs."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.engine import Engine
from scheduler.model.job import Job, JobRecord
from scheduler.model.lease import AttemptState, Lease
from scheduler.model.node import DeviceKind, Node, NodeState
from scheduler.model.units import WHOLE_CARD_MILLI
from scheduler.placement.view import leasable
from scheduler.simulation.outcome import NEVER, Run, Span, Tally


@dataclass(slots=True)
class Open:
    """A lease that is not closed, and how many of its attempts have not ended."""

    lease: Lease
    kind: str
    card_milli: int
    cpu_milli: int
    left: int


class Book:
    """Everything a :class:`Run` is made from."""

    def __init__(self, start_ms: int) -> None:
        self.plans = 0
        self._start_ms = start_ms
        self._tallies: dict[str, Tally] = {}
        self._open: dict[str, Open] = {}
        self._lease_of: dict[str, str] = {}
        self._spans: list[Span] = []
        self._waiting: list[tuple[int, str, int]] = []
        self._model: dict[str, str] = {}
        self._offered: dict[str, tuple[int, int]] = {}
        self._park: list[tuple[int, int, int]] = []
        self._total = (0, 0)

    def node(self, node: Node, at_ms: int) -> None:
        """A node reported."""
        self._model.update({device.id: device.model for device in node.devices})
        cards = sum(WHOLE_CARD_MILLI for d in leasable(node) if d.kind is DeviceKind.CARD)
        ready = node.state is not NodeState.LOST
        self._offer(node.name, (cards, node.cpu_milli) if ready else (0, 0), at_ms)

    def node_lost(self, name: str, at_ms: int) -> None:
        """A node is gone."""
        self._offer(name, (0, 0), at_ms)

    def _offer(self, name: str, amounts: tuple[int, int], at_ms: int) -> None:
        before = self._offered.get(name, (0, 0))
        self._offered[name] = amounts
        self._total = (self._total[0] + amounts[0] - before[0], self._total[1] + amounts[1] - before[1])
        if self._park and self._park[-1][0] == at_ms:
            self._park.pop()
        self._park.append((at_ms, *self._total))

    def models(self, lease: Lease) -> tuple[str, ...]:
        """Model of the first card of each rank."""
        return tuple(self._model.get(held.devices[0], "") for held in lease.allocations if held.devices)

    def tasks(self, engine: Engine, job_id: str, at_ms: int) -> None:
        """A job may have other tasks waiting than before."""
        record = engine.job(job_id)
        if record is not None:
            self._count(record, at_ms)

    def _count(self, record: JobRecord, at_ms: int) -> None:
        tally = self._tallies.get(record.job.id)
        if tally is None:
            tally = self._tallies[record.job.id] = Tally()
        waiting = sum(len(step.waiting) for step in record.steps)
        if waiting != tally.waiting:
            self._waiting.append((at_ms, record.job.queue, waiting - tally.waiting))
            tally.waiting = waiting

    def known(self, record: JobRecord, at_ms: int) -> None:
        """A job that was there at the beginning; one that has ended is left out."""
        if not record.state.is_final:
            self._tallies[record.job.id] = Tally(granted_ms=record.started_ms or NEVER)
            self._count(record, at_ms)

    def granted(self, job: Job, lease: Lease, left: int) -> None:
        """A lease opened, with ``left`` attempts that have not ended."""
        tally = self._tallies.setdefault(job.id, Tally())
        if tally.granted_ms == NEVER:
            tally.granted_ms = lease.granted_ms
        self._open[lease.id] = Open(
            lease=lease,
            kind=job.kind.value,
            card_milli=sum(a.card_milli or len(a.devices) * WHOLE_CARD_MILLI for a in lease.allocations),
            cpu_milli=sum(a.cpu_milli for a in lease.allocations),
            left=left,
        )
        for attempt_id in lease.attempts:
            self._lease_of[attempt_id] = lease.id

    def ended(self, engine: Engine, attempt_id: str, state: AttemptState, at_ms: int) -> None:
        """An attempt ended; its lease closes with the last one."""
        lease_id = self._lease_of.pop(attempt_id, "")
        held = self._open.get(lease_id)
        if held is None:
            return
        held.left -= 1
        if not held.left:
            del self._open[lease_id]
            self._span(held, at_ms, state)
            engine.take_changes()  # nobody else takes them, and they would pile up

    def _span(self, held: Open, closed_ms: int, state: AttemptState | None) -> None:
        lease = held.lease
        closed_ms = max(closed_ms, lease.granted_ms)
        self._tallies[lease.job_id].card_ms += held.card_milli * (closed_ms - lease.granted_ms) // WHOLE_CARD_MILLI
        self._spans.append(
            Span(
                lease_id=lease.id,
                job_id=lease.job_id,
                step=lease.step,
                tenant=lease.tenant,
                queue=lease.queue,
                kind=held.kind,
                attempts=lease.attempts,
                nodes=tuple(allocation.node for allocation in lease.allocations),
                devices=tuple(device for allocation in lease.allocations for device in allocation.devices),
                card_milli=held.card_milli,
                cpu_milli=held.cpu_milli,
                granted_ms=lease.granted_ms,
                closed_ms=closed_ms,
                state=state,
            )
        )

    def preempted(self, job_id: str) -> None:
        """An attempt was stopped by the park."""
        self._tallies[job_id].preempted += 1

    def lost(self, job_id: str, ms: int) -> None:
        """Time was in vain."""
        self._tallies[job_id].lost_ms += max(ms, 0)

    def close(self, engine: Engine, end_ms: int) -> Run:
        """The run, with leases that are still open cut at ``end_ms``."""
        for held in self._open.values():
            self._span(held, end_ms, None)
        return Run(
            jobs=tuple(self._tallies[r.job.id].outcome(r) for r in engine.jobs() if r.job.id in self._tallies),
            spans=tuple(sorted(self._spans, key=lambda span: int(span.lease_id[1:]))),
            waiting=tuple(self._waiting),
            park=tuple(self._park),
            nodes=tuple(engine.nodes()),
            start_ms=self._start_ms,
            end_ms=end_ms,
            plans=self.plans,
        )
