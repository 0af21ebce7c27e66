"""What the workers say becomes facts for the engine. Reports may repeat, come late or out of order: facts do not."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import takewhile

from scheduler.engine import Engine
from scheduler.model.event import AttemptFinished, AttemptsSeen, AttemptStarted, Event, NodeLost, NodeSeen
from scheduler.model.lease import AttemptRecord, AttemptState, LeaseRecord
from scheduler.model.node import NodeState
from scheduler.model.order import Report, ReportKind

RECORD_SIGNS_MS = 30_000
"""Signs of life are recorded this often: two journal rows a minute, half a minute of charge at stake."""
SIGNS_PER_CYCLE = 1_000
"""So many attempts are looked at in one cycle: after a restart with 140,000 of them their rows would come before the
first decision, and take longer than all else.
"""
REMIND_MS = 15_000
"""A message may be dropped while the line to the workers breaks: it is said again after this long."""
SILENT = "it did not come back with the runtime"
NOT_THERE = "the runtime has no node of this name any more"
"""Why a node is lost that the runtime did not name when it came up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Last progress of a running attempt; lives in memory only."""

    milli: int
    """0–1000."""
    message: str = ""


@dataclass(slots=True)
class Reaction:
    """What a report leads to: facts to record, and orders to repeat once they are recorded."""

    events: list[Event] = field(default_factory=list)
    start: list[str] = field(default_factory=list)
    """Lease ids whose order may never have arrived; repeating it is harmless."""
    stop: list[str] = field(default_factory=list)
    """Lease ids that should not run any more."""


class Observer:
    """Turns reports into events. Holds only what may be forgotten: progress, signs of life, the runtime's state."""

    def __init__(self, *, silence_ms: int, declared: Collection[str] | None = None) -> None:
        """``declared``: the only nodes there can be, None when the runtime itself knows. Others are not waited for."""
        self._silence_ms = silence_ms
        self._declared = declared
        self.runtime_up = False
        self.runtime_message = "starting"
        self.progress: dict[str, Progress] = {}
        self.heartbeats: dict[str, int] = {}
        """Last sign of life per attempt (worker's clock, clamped): time after it is free when the attempt is lost."""
        self.gone: set[str] = set()
        """Nodes known not to answer; a cordoned one keeps its state meanwhile, so that it comes back cordoned."""
        self.unready: dict[str, str] = {}
        """Nodes whose runtime says that they take nothing new, and why; an operator's cordon goes before."""
        self._seen_ms = 0
        self._unsigned: list[str] = []
        """Attempts whose sign of life is still to be looked at in this round of them."""
        self._reminded_ms = 0
        self._silent_leases: dict[str, int] = {}
        """By limit, the earliest first, so that a cycle looks at none but those that are over it."""
        self._silent_nodes: dict[str, tuple[int, str]] = {}
        """Limit, and what is said of a node that was not heard of by then."""

    @property
    def has_signs(self) -> bool:
        """There are signs of life to look at without waiting for anything to happen."""
        return bool(self._unsigned)

    def expect(self, lease_id: str, now_ms: int) -> None:
        """An order went out (perhaps again): someone must speak of this lease within ``silence_ms`` of the first."""
        self._silent_leases.setdefault(lease_id, now_ms + self._silence_ms)

    def forget(self, attempts: Iterable[str], lease_id: str) -> None:
        """The lease closed."""
        self._silent_leases.pop(lease_id, None)
        for attempt in attempts:
            self.progress.pop(attempt, None)
            self.heartbeats.pop(attempt, None)

    def react(self, report: Report, engine: Engine, now_ms: int) -> Reaction:
        """Facts in this report that are new."""
        match report.kind:
            case ReportKind.STARTED:
                return self._started(report, engine, now_ms)
            case ReportKind.FINISHED:
                return self._finished(report, engine, now_ms)
            case ReportKind.PROGRESS:
                return self._progress(report, engine, now_ms)
            case ReportKind.NODE:
                return self._node(report, engine, now_ms)
            case ReportKind.NODE_GONE:
                return self._node_gone(report.node, report.message or "the node is gone", engine, now_ms)
            case ReportKind.INVENTORY:
                return self._inventory(report, engine, now_ms)
            case ReportKind.RUNTIME_UP:
                return self._runtime_up(report, engine, now_ms)
            case ReportKind.RUNTIME_DOWN:
                self.runtime_up, self.runtime_message = False, report.message or "the runtime is down"
        return Reaction()

    def overdue(self, engine: Engine, now_ms: int) -> Iterator[Reaction]:
        """Nodes and leases nobody has spoken of for too long are lost, each given lazily: apply one before the next.

        Says nothing while the runtime is down.
        """
        if not self.runtime_up:
            return
        for name, why in [(n, why) for n, (limit_ms, why) in self._silent_nodes.items() if now_ms >= limit_ms]:
            yield self._node_gone(name, why, engine, now_ms)
        for lease_id in list(takewhile(lambda i: now_ms >= self._silent_leases[i], self._silent_leases)):
            del self._silent_leases[lease_id]
            record = engine.lease(lease_id)
            if record is not None and not record.closed_ms:
                yield Reaction(_lost(record, engine, "no worker answered for it", now_ms), stop=[lease_id])

    def reminder(self, engine: Engine, now_ms: int) -> Reaction:
        """Now and then, while the runtime is up: orders nobody has answered yet, and stops that had no end."""
        reaction = Reaction()
        if not self.runtime_up or now_ms < self._reminded_ms + REMIND_MS:
            return reaction
        self._reminded_ms = now_ms
        reaction.stop += [record.lease.id for record in engine.stopping()]
        for lease_id in self._silent_leases:
            record = engine.lease(lease_id)
            if record is not None and not record.stopping and not _began(record, engine):
                reaction.start.append(lease_id)
        return reaction

    def signs(self, engine: Engine, now_ms: int) -> tuple[Event, ...]:
        """Signs of life worth recording, now and then: a service that dies must not make charged time free."""
        if not self._unsigned:
            if now_ms < self._seen_ms + RECORD_SIGNS_MS:
                return ()
            self._seen_ms = now_ms
            self._unsigned = list(self.heartbeats)
        some, self._unsigned = self._unsigned[:SIGNS_PER_CYCLE], self._unsigned[SIGNS_PER_CYCLE:]
        by_instant: dict[int, list[str]] = {}
        for attempt_id in some:
            attempt, at_ms = engine.attempt(attempt_id), self.heartbeats.get(attempt_id, 0)
            if attempt is None or attempt.state is not AttemptState.RUNNING:
                continue
            if at_ms >= attempt.heartbeat_ms + RECORD_SIGNS_MS:
                by_instant.setdefault(at_ms, []).append(attempt_id)
        return tuple(
            AttemptsSeen(at_ms=at_ms, attempt_ids=tuple(sorted(ids))) for at_ms, ids in sorted(by_instant.items())
        )

    def _started(self, report: Report, engine: Engine, now_ms: int) -> Reaction:
        attempt = self._alive(report, engine, now_ms)
        if attempt is None or attempt.state is not AttemptState.LEASED:
            return Reaction()
        at_ms = _clamp(report.at_ms, _floor_ms(attempt, engine), now_ms)
        return Reaction([AttemptStarted(at_ms=at_ms, attempt_id=attempt.id)])

    def _finished(self, report: Report, engine: Engine, now_ms: int) -> Reaction:
        attempt = self._alive(report, engine, now_ms)
        if attempt is None or attempt.state.is_final or report.state is None or not report.state.is_final:
            return Reaction()
        self.progress.pop(attempt.id, None)
        at_ms = _clamp(report.at_ms, _floor_ms(attempt, engine), now_ms)
        saved_ms = _clamp(report.checkpoint_ms, attempt.started_ms, at_ms) if report.checkpoint_ms else 0
        return Reaction(
            [
                AttemptFinished(
                    at_ms=at_ms,
                    attempt_id=attempt.id,
                    state=_end_state(report.state, attempt, engine),
                    exit_code=report.exit_code,
                    reason=report.message,
                    outputs=report.outputs,
                    facts=report.result,
                    checkpoint_ms=saved_ms,
                    measured=report.measured,
                )
            ]
        )

    def _progress(self, report: Report, engine: Engine, now_ms: int) -> Reaction:
        attempt = self._alive(report, engine, now_ms)
        if attempt is not None and not attempt.state.is_final:
            self.progress[attempt.id] = Progress(milli=_clamp(report.progress_milli, 0, 1000), message=report.message)
        return Reaction()

    def _alive(self, report: Report, engine: Engine, now_ms: int) -> AttemptRecord | None:
        """The attempt this report speaks of, with its sign of life noted; None when it is long over."""
        attempt = engine.attempt(report.attempt_id)
        if attempt is None:
            return None
        self._silent_leases.pop(attempt.lease_id, None)
        if not attempt.state.is_final and report.state is not AttemptState.LOST:
            known_ms = self.heartbeats.get(attempt.id, 0)
            self.heartbeats[attempt.id] = max(known_ms, _clamp(report.at_ms, 0, now_ms))
        return attempt

    def _node(self, report: Report, engine: Engine, now_ms: int) -> Reaction:
        if report.facts is None:
            return Reaction()
        known = engine.node(report.facts.name)
        self._silent_nodes.pop(report.facts.name, None)
        self.gone.discard(report.facts.name)
        seen = report.facts
        if known is not None:  # a node does not know what is held against it
            faults = (known.faults_milli, known.faults_ms, known.fault_reason)
            seen = replace(seen, faults_milli=faults[0], faults_ms=faults[1], fault_reason=faults[2])
        self.unready.pop(seen.name, None)
        if seen.state is NodeState.UNREADY:
            self.unready[seen.name] = seen.state_reason
        if known is not None and known.state is NodeState.CORDONED and known.moving_to is None:
            seen = replace(seen, state=NodeState.CORDONED, state_reason=known.state_reason)
        return Reaction([] if seen == known else [NodeSeen(at_ms=now_ms, node=seen)])

    def _node_gone(self, name: str, reason: str, engine: Engine, now_ms: int) -> Reaction:
        self._silent_nodes.pop(name, None)
        known = engine.node(name)
        if known is None:
            return Reaction()
        self.gone.add(name)
        reaction = Reaction()
        for record in _on_node(engine, name):
            reaction.events += _lost(record, engine, f"node {name}: {reason}", now_ms)
            if len(record.lease.allocations) > 1:
                reaction.stop.append(record.lease.id)
        if known.state in (NodeState.READY, NodeState.UNREADY):
            reaction.events.append(NodeLost(at_ms=now_ms, node=name, reason=reason))
        return reaction

    def _runtime_up(self, report: Report, engine: Engine, now_ms: int) -> Reaction:
        """Repeat what may not have arrived, and give every node and lease time to speak. Nodes that are not there any
        more get none: they are lost with the next :meth:`overdue`.
        """
        self.runtime_up, self.runtime_message = True, ""
        limit_ms = now_ms + self._silence_ms
        known = {node.name for node in engine.nodes() if node.state is not NodeState.LOST}
        there, gone = self._declared, SILENT
        if report.nodes is not None:
            there, gone = report.nodes, NOT_THERE
        away = known - set(there) if there is not None else set()
        self._silent_nodes = {name: (now_ms, gone) if name in away else (limit_ms, SILENT) for name in sorted(known)}
        reaction = Reaction()
        self._silent_leases.clear()
        for record in engine.leases():
            self._silent_leases[record.lease.id] = limit_ms
            if record.stopping:
                reaction.stop.append(record.lease.id)
            elif not _began(record, engine):
                reaction.start.append(record.lease.id)
        return reaction

    def _inventory(self, report: Report, engine: Engine, now_ms: int) -> Reaction:
        """What we hold open and the agent does not know is lost if it had begun, and ordered again if it had not;
        what the agent runs and we closed is stopped.
        """
        reaction = Reaction()
        known_there = set(report.leases)
        for lease_id in report.leases:
            record = engine.lease(lease_id)
            if record is None or record.closed_ms or record.stopping:
                reaction.stop.append(lease_id)
            if record is not None and not record.closed_ms:
                self._silent_leases.pop(lease_id, None)
                for attempt_id in record.lease.attempts:
                    attempt = engine.attempt(attempt_id)
                    if attempt is not None and not attempt.state.is_final:
                        heard_ms = self.heartbeats.get(attempt_id, 0)
                        self.heartbeats[attempt_id] = _clamp(report.at_ms, heard_ms, now_ms)
        for record in _on_node(engine, report.node):
            if record.lease.id in known_there or (report.tenant and record.lease.tenant != report.tenant):
                continue
            if _began(record, engine) or record.stopping:
                reaction.events += _lost(record, engine, "the worker does not know of it any more", now_ms)
                reaction.stop.append(record.lease.id)
            else:
                reaction.start.append(record.lease.id)
        return reaction


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


def _unfinished(record: LeaseRecord, engine: Engine) -> Iterator[AttemptRecord]:
    for attempt_id in record.lease.attempts:
        attempt = engine.attempt(attempt_id)
        if attempt is not None and not attempt.state.is_final:
            yield attempt


def _began(record: LeaseRecord, engine: Engine) -> bool:
    for attempt_id in record.lease.attempts:
        attempt = engine.attempt(attempt_id)
        if attempt is not None and attempt.state is not AttemptState.LEASED:
            return True
    return False


def _on_node(engine: Engine, node: str) -> list[LeaseRecord]:
    return [record for record in engine.leases_on(node) if not record.closed_ms]


def _lost(record: LeaseRecord, engine: Engine, reason: str, now_ms: int) -> list[Event]:
    """Every unfinished attempt of the lease ends. One that was being stopped ends as what it was stopped for."""
    return [
        AttemptFinished(
            at_ms=now_ms,
            attempt_id=attempt.id,
            state=_stopped_as(record, engine) if record.stopping else AttemptState.LOST,
            reason=reason,
        )
        for attempt in _unfinished(record, engine)
    ]


def _end_state(said: AttemptState, attempt: AttemptRecord, engine: Engine) -> AttemptState:
    """Workers know that they stopped something, not on whose behalf."""
    record = engine.lease(attempt.lease_id)
    if said in (AttemptState.CANCELLED, AttemptState.PREEMPTED) and record is not None:
        return _stopped_as(record, engine)
    return said


def _stopped_as(record: LeaseRecord, engine: Engine) -> AttemptState:
    job = engine.job(record.lease.job_id)
    return AttemptState.CANCELLED if job is not None and (job.cancelled or job.failing) else AttemptState.PREEMPTED


def _floor_ms(attempt: AttemptRecord, engine: Engine) -> int:
    """An attempt can start or end no earlier than its lease, itself, and what ran before it on the same lease."""
    record = engine.lease(attempt.lease_id)
    floor_ms = max(attempt.started_ms, record.lease.granted_ms if record else 0)
    for other_id in record.lease.attempts if record else ():
        other = engine.attempt(other_id)
        if other is not None and other.state.is_final:
            floor_ms = max(floor_ms, other.finished_ms)
    return floor_ms
