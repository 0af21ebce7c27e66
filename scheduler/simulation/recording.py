"""A journal read back into what came from outside and how each attempt went: the scenario that it records.

A grant carries the instant of its cycle and so do users' verbs, nodes and sealed usage; starts and ends carry their
own, earlier instants. An event reached the engine in the cycle of the next one whose instant is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from scheduler.engine import Engine
from scheduler.model.event import (
    AttemptFinished,
    AttemptsSeen,
    AttemptStarted,
    ChargeReversed,
    Event,
    LeaseGranted,
    LeaseStopping,
    NodeLost,
    PolicySet,
    RateCardSet,
    SeatKept,
    StartsPromised,
    UsageSealed,
    VoucherGranted,
    VoucherRevoked,
)
from scheduler.model.lease import AttemptState, Lease
from scheduler.model.plan import Start
from scheduler.model.policy import Policy
from scheduler.model.snapshot import Snapshot
from scheduler.simulation.scenario import Point

OWN_INSTANT = (AttemptStarted, AttemptFinished, AttemptsSeen)
"""Events whose instant is not that of the cycle which heard of them."""
NOT_ENGINE = (AttemptsSeen, UsageSealed, RateCardSet, PolicySet, VoucherGranted, VoucherRevoked, ChargeReversed)
"""Events that no plan depends on."""


@dataclass(slots=True)
class Tried:
    """An attempt as it was recorded. Instants are 0 where they never came."""

    id: str
    lease: Lease
    models: tuple[str, ...]
    granted_ms: int
    """When it could begin: at the grant, or when the attempt before it on its lease had ended."""
    started_ms: int = 0
    start_told_ms: int = 0
    start_rank: int = -1
    stopped_ms: int = 0
    """When a stop of its lease was decided while it had not ended."""
    finished_ms: int = 0
    told_ms: int = 0
    end_rank: int = -1
    state: AttemptState | None = None
    """None: it had not ended when the recording did."""
    reason: str = ""
    saved_at_ms: int = 0
    node_lost: bool = False
    """A node was lost with it."""


@dataclass(slots=True)
class Recording:
    """What a journal says, as far as a simulation needs it."""

    snapshot: Snapshot
    """Where the engine stood at the beginning."""
    begin_ms: int = 0
    end_ms: int = 0
    outside: list[Event] = field(default_factory=list)
    """Facts that nobody inside decided, at the instants of their cycles; a LeaseStopping names an attempt."""
    outside_ranks: list[int] = field(default_factory=list)
    grants: list[LeaseGranted] = field(default_factory=list)
    attempts: dict[str, Tried] = field(default_factory=dict)
    plans: list[Point] = field(default_factory=list)
    """Where something was decided."""
    pauses: list[tuple[Point, Point]] = field(default_factory=list)
    """Half-open intervals in which the engine would have started something and nothing was: the runtime was down."""
    planned_alike: int = 0
    """Grants that this engine's plan gives too, from the recorded state."""


def cycle_instants(events: Sequence[Event]) -> list[int]:
    """For each event, the instant of the cycle that recorded it, or of a later one in which nothing came between."""
    instants = [0] * len(events)
    after_ms = max((event.at_ms for event in events), default=0)
    for at in range(len(events) - 1, -1, -1):
        event = events[at]
        if not isinstance(event, OWN_INSTANT):
            after_ms = min(after_ms, event.at_ms)
        instants[at] = after_ms
    return instants


def read(
    events: Sequence[Event],
    policy: Policy,
    *,
    features: Mapping[str, frozenset[str]],
    start: Snapshot | None = None,
) -> Recording:
    """The recording of these events, which follow ``start`` (none: the journal's beginning)."""
    return _Reader(events, policy, features, start or Snapshot()).read()


class _Reader:
    """Walks the journal beside an engine, plans where a cycle planned, and tells decisions from facts."""

    def __init__(
        self, events: Sequence[Event], policy: Policy, features: Mapping[str, frozenset[str]], start: Snapshot
    ) -> None:
        self._events = events
        self._policy = policy
        self._engine = Engine.from_snapshot(start, features=features)
        self._instants = cycle_instants(events)
        self._models = {d.id: d.model for node in start.nodes for d in node.devices}
        self._paused: Point | None = None
        self._stale = False
        self._lost: dict[str, int] = {}
        """When each node was lost last."""
        self._lost_now: list[Tried] = []
        """Attempts lost in this cycle."""
        self.found = Recording(snapshot=start, begin_ms=self._instants[0] if events else start.at_ms)
        for record in self._engine.leases():
            self._lease(record.lease)
        for attempt in start.attempts:
            tried = self.found.attempts[attempt.id]
            tried.started_ms, tried.finished_ms = attempt.started_ms, attempt.finished_ms
            tried.state = attempt.state if attempt.state.is_final else None
        for record in self._engine.leases():
            for before, behind in pairwise(record.lease.attempts):
                ended_ms = self.found.attempts[before].finished_ms
                self.found.attempts[behind].granted_ms = ended_ms or record.lease.granted_ms

    def read(self) -> Recording:
        at, events = 0, self._events
        while at < len(events):
            now_ms = self._instants[at]
            end = self._facts(at, now_ms)
            at = self._decisions(end, now_ms) if self._stale else end
        self.found.end_ms = self._instants[-1] if events else self.found.begin_ms
        if self._paused is not None:
            self.found.pauses.append((self._paused, (self.found.end_ms + 1, 0)))
        return self.found

    def _facts(self, at: int, now_ms: int) -> int:
        """Take in what a cycle heard; the position of its first decision, or of the next cycle."""
        self._lost_now.clear()
        while at < len(self._events) and self._instants[at] == now_ms:
            event = self._events[at]
            if (
                isinstance(event, LeaseGranted)
                or (isinstance(event, LeaseStopping) and self._is_planned(event, now_ms))
                or (isinstance(event, SeatKept) and not event.by)
                or isinstance(event, StartsPromised)
            ):
                self._stale = True
                break
            self._fact(event, at, now_ms)
            at += 1
        return at

    def _is_planned(self, event: LeaseStopping, now_ms: int) -> bool:
        plan = self._engine.plan(now_ms, self._policy)
        return any(getattr(action, "lease_id", "") == event.lease_id for action in plan.actions)

    def _fact(self, event: Event, rank: int, now_ms: int) -> None:
        if isinstance(event, AttemptStarted):
            tried = self.found.attempts[event.attempt_id]
            tried.started_ms, tried.start_told_ms, tried.start_rank = event.at_ms, now_ms, rank
        elif isinstance(event, AttemptFinished):
            self._finished(event, rank, now_ms)
        elif isinstance(event, LeaseStopping):
            running = self._stopping(event, now_ms)
            if running:
                self._outside(replace(event, lease_id=running), rank)
        elif not isinstance(event, NOT_ENGINE):
            self._outside(event, rank)
        self._engine.apply(event)
        self._stale = self._stale or not isinstance(event, NOT_ENGINE)
        self._engine.take_changes()

    def _outside(self, event: Event, rank: int) -> None:
        self.found.outside.append(event)
        self.found.outside_ranks.append(rank)
        node = getattr(event, "node", None)
        if isinstance(event, NodeLost):
            self._lost[event.node] = event.at_ms
            for tried in self._lost_now:
                tried.node_lost = tried.node_lost or self._with_node(tried)
        elif node is not None:
            self._models.update({device.id: device.model for device in node.devices})

    def _finished(self, event: AttemptFinished, rank: int, now_ms: int) -> None:
        tried = self.found.attempts.get(event.attempt_id)
        if tried is None or tried.state is not None:
            return
        tried.finished_ms = max(event.at_ms, tried.lease.granted_ms, tried.started_ms)
        tried.told_ms, tried.end_rank, tried.state, tried.reason = now_ms, rank, event.state, event.reason
        tried.saved_at_ms = event.checkpoint_ms
        if event.state is AttemptState.LOST:
            self._lost_now.append(tried)
            tried.node_lost = self._with_node(tried)
        behind = tried.lease.attempts.index(tried.id) + 1
        if behind < len(tried.lease.attempts):
            self.found.attempts[tried.lease.attempts[behind]].granted_ms = tried.finished_ms

    def _with_node(self, tried: Tried) -> bool:
        return any(self._lost.get(held.node) == tried.told_ms for held in tried.lease.allocations)

    def _stopping(self, event: LeaseStopping, now_ms: int) -> str:
        """Note the stop; the attempt that runs on the lease, empty when there is none."""
        record = self._engine.lease(event.lease_id)
        left = [self.found.attempts[a] for a in record.lease.attempts] if record is not None else []
        left = [tried for tried in left if tried.state is None]
        for tried in left:
            tried.stopped_ms = tried.stopped_ms or now_ms
        return left[0].id if left else ""

    def _decisions(self, first: int, now_ms: int) -> int:
        """Compare what the cycle decided with what this engine would; the position after its decisions."""
        self._stale = False
        plan = self._engine.plan(now_ms, self._policy)
        wanted = {action.lease for action in plan.actions if isinstance(action, Start)}
        stops = {getattr(action, "lease_id", "") for action in plan.actions}
        granted: list[LeaseGranted] = []
        at = first
        while at < len(self._events) and self._events[at].at_ms == now_ms:
            event = self._events[at]
            if isinstance(event, LeaseGranted):
                if granted and granted[-1].lease in wanted and event.lease not in wanted:
                    break  # of a second cycle at the same instant
                self._lease(event.lease)
                granted.append(event)
            elif isinstance(event, LeaseStopping) and event.lease_id in stops and not granted:
                self._stopping(event, now_ms)
            elif not (isinstance(event, SeatKept) and not event.by and not granted):
                if not isinstance(event, StartsPromised):
                    break
                self._engine.apply(event)
                at += 1
                break  # the last that a plan does: what follows is of a second cycle
            self._engine.apply(event)
            at += 1
        self._engine.take_changes()
        self.found.planned_alike += sum(event.lease in wanted for event in granted)
        self.found.grants += granted
        if at > first:
            self.found.plans.append((now_ms, first))
        if granted:
            self._resumed((now_ms, first))
        if self._paused is None and (len(granted) >= self._policy.starts_per_cycle or (wanted and not granted)):
            self._paused = (now_ms, at)
        return at

    def _resumed(self, point: Point) -> None:
        if self._paused is not None:
            self.found.pauses.append((self._paused, point))
            self._paused = None

    def _lease(self, lease: Lease) -> None:
        models = tuple(self._models.get(held.devices[0], "") for held in lease.allocations if held.devices)
        for attempt_id in lease.attempts:
            self.found.attempts[attempt_id] = Tried(
                id=attempt_id, lease=lease, models=models, granted_ms=lease.granted_ms
            )
