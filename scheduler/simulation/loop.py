"""The loop: take what happens at an instant, plan, carry the plan out, schedule what follows from it.

What happens at one instant is ordered by rank, then by the order in which it was scheduled, as in simpy: the order of
the heap is total, so equal scenarios give equal runs.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum
from typing import Any

from scheduler.engine import Engine
from scheduler.model.errors import ShisuanError
from scheduler.model.event import (
    AttemptFinished,
    AttemptStarted,
    Event,
    JobCancelled,
    JobHeld,
    JobReleased,
    JobRetried,
    JobSubmitted,
    LeaseGranted,
    LeaseStopping,
    NodeLost,
    NodeSeen,
    QueueSet,
    TenantSet,
)
from scheduler.model.job import Job
from scheduler.model.lease import AttemptState, Lease, LeaseRecord, parse_attempt_id
from scheduler.model.plan import Convert, Plan, Recut, Stop
from scheduler.queueing.lifecycle import find_step
from scheduler.simulation.book import Book
from scheduler.simulation.lanes import Lanes, cut, on_node
from scheduler.simulation.outcome import Run
from scheduler.simulation.running import Running, ended
from scheduler.simulation.scenario import Point, Scenario, Starting

Watch = Callable[[Engine, Plan], object]
"""Called with each plan before it is carried out; must change nothing."""
FRUITLESS_MAX = 2_000
"""Plans in a row without an action while nothing else is to come: then nothing ever will."""


class Rank(IntEnum):
    """Order of what happens at one instant. A recording's own order takes the place of these, from 0 on."""

    OUTSIDE = -4
    END = -3
    START = -2
    SUBMIT = -1
    TICK = 2**62


class Simulation:
    """One run of a scenario. ``keep``: also keep every event, for a journal."""

    def __init__(self, scenario: Scenario, *, watch: Watch | None = None, keep: bool = False) -> None:
        self.engine = Engine.from_snapshot(scenario.start, features=scenario.features)
        self.events: list[Event] = []
        self.dropped: list[str] = []
        """Facts from outside that did not fit what had become of the jobs."""
        self.now_ms = scenario.begin_ms
        self._scenario = scenario
        self._watch = watch
        self._keep = keep
        self._book = Book(scenario.begin_ms)
        self._heap: list[tuple[int, int, int, Callable[[Any], None], Any]] = []
        self._sequence = 0
        self._running: dict[str, Running] = {}
        self._kept: dict[tuple[str, str, int], int] = {}
        self._queued: dict[str, list[str]] = {}
        """Lease id to its attempts that have not begun, of leases with several."""
        self._lanes = Lanes(scenario.seed, scenario.convert_ms)
        self._stale = False
        self._planned_ms = -1
        self._fruitless = 0
        self._ticks: set[int] = set()
        self._wake_ms = 0
        """When the last plan wants to be made anew; 0: never. Each plan says so anew, as in the service's cycle."""

    def run(self) -> Run:
        """To the end of the scenario."""
        self._set_up()
        until_ms, heap = self._scenario.until_ms, self._heap
        while heap and not (until_ms and heap[0][0] > until_ms):
            self.now_ms = heap[0][0]
            while heap and heap[0][0] == self.now_ms:
                _, _, _, happen, what = heapq.heappop(heap)
                happen(what)
            if self._stale:
                self._plan_in_time()
        return self._book.close(self.engine, max(self.now_ms, until_ms))

    # ── what happens ─────────────────────────────────────────────────────────────────────────────────────────────

    def _set_up(self) -> None:
        scenario = self._scenario
        for view in self.engine.nodes():
            self._book.node(view, self.now_ms)
        for queue in scenario.queues:
            self._apply(QueueSet(at_ms=self.now_ms, queue=queue))
        for tenant in scenario.tenants:
            self._apply(TenantSet(at_ms=self.now_ms, tenant=tenant))
        for node in scenario.nodes:
            self._apply(NodeSeen(at_ms=self.now_ms, node=node))
        for job in scenario.jobs:
            self._push(job.submitted_ms, Rank.SUBMIT, self._submit, job)
        ranks = scenario.outside_ranks or [Rank.OUTSIDE] * len(scenario.outside)
        for event, rank in zip(scenario.outside, ranks, strict=True):
            self._push(event.at_ms, rank, self._happen, event)
        for record in self.engine.jobs():
            self._book.known(record, self.now_ms)
        for lease in self.engine.leases():
            self._resume(lease)
        for at_ms, rank in scenario.plans:
            self._push(at_ms, rank, self._plan, rank)

    def _push(self, at_ms: int, rank: int, happen: Callable[[Any], None], what: Any) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (at_ms, rank, self._sequence, happen, what))

    def _apply(self, event: Event) -> None:
        self.engine.apply(event)
        self._stale = True
        if self._keep:
            self.events.append(event)
        if isinstance(event, JobSubmitted):
            self._book.tasks(self.engine, event.job.id, self.now_ms)
        elif isinstance(event, NodeSeen):
            self._book.node(event.node, self.now_ms)

    def _submit(self, job: Job) -> None:
        if self._scenario.admits:
            job = self.engine.promised(job, self.now_ms, self._scenario.policy)
        self._apply(JobSubmitted(at_ms=job.submitted_ms, job=job))

    def _happen(self, event: Event) -> None:
        """A fact from outside."""
        if isinstance(event, NodeLost):
            self._lose(event)
        elif isinstance(event, LeaseStopping):
            running = self._running.get(event.lease_id)
            if running is not None:
                self._stop(replace(event, lease_id=running.lease.id))
        else:
            try:
                self._apply(event)
            except ShisuanError as refused:  # a user's verb that fits the recorded run and not this one
                self.dropped.append(f"{type(event).__name__}: {refused}")
                return
            if isinstance(event, JobHeld | JobReleased | JobCancelled | JobRetried):
                self._book.tasks(self.engine, event.job_id, self.now_ms)

    def _lose(self, event: NodeLost) -> None:
        """What runs on the node ends, then the node is gone."""
        for record in on_node(self.engine, event.node):
            self._queued.pop(record.lease.id, None)
            for attempt_id in record.lease.attempts:
                attempt = self.engine.attempt(attempt_id)
                if attempt is None or attempt.state.is_final:
                    continue
                running = self._running.get(attempt_id)
                if running is None:
                    self._finish(attempt_id, self.now_ms, AttemptState.LOST, event.reason, 0)
                else:
                    running.end_ms, running.state, running.reason = self.now_ms, AttemptState.LOST, event.reason
                    self._ended((attempt_id, running.version))
        self._lanes.forget(event.node)
        self._apply(event)
        self._book.node_lost(event.node, self.now_ms)

    def _tell_lanes(self) -> None:
        for seen in self._lanes.drained(self.engine, self.now_ms):
            self._push(seen.at_ms, Rank.OUTSIDE, self._apply, seen)

    def _cut(self, action: Recut) -> None:
        self._apply(cut(self.engine, action, self.now_ms))

    # ── attempts ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, lease: Lease, attempt_id: str, at_ms: int) -> None:
        """The attempt is next on its lease at ``at_ms``."""
        job_id, step_name, index, number = parse_attempt_id(attempt_id)
        record = self.engine.job(job_id)
        assert record is not None
        step, _ = find_step(record, step_name)
        kept_ms = self._kept.get((job_id, step_name, index), 0)
        models = self._book.models(lease)
        script = self._scenario.truth.script(
            Starting(job=record.job, step=step, index=index, number=number, lease=lease, models=models, kept_ms=kept_ms)
        )
        started_ms = at_ms + script.start_ms
        running = Running(
            lease=lease,
            step=step,
            script=script,
            kept_ms=kept_ms,
            began_ms=at_ms,
            started_ms=started_ms,
            end_ms=started_ms + script.run_ms,
            state=script.state,
            reason=script.reason,
        )
        self._running[attempt_id] = running
        stopping = self.engine.lease(lease.id)
        if stopping is not None and stopping.stopping:
            running.stop(at_ms + script.stop_behind_ms, self._stopped_as(job_id), stopping.stop_reason)
        self._announce(attempt_id, running)
        told_ms = max(running.end_ms + script.told_ms, self.now_ms)
        self._push(told_ms, _ranked(script.end_rank, Rank.END), self._ended, (attempt_id, running.version))

    def _announce(self, attempt_id: str, running: Running) -> None:
        """Somebody hears of the start, unless it never comes or was heard of before the scenario began."""
        script, known = running.script, self.engine.attempt(attempt_id)
        stopped = running.end_ms <= running.started_ms and script.start_rank < 0
        if not script.starts or stopped or (known is not None and known.state is not AttemptState.LEASED):
            return
        event = AttemptStarted(at_ms=running.started_ms, attempt_id=attempt_id)
        told_ms = running.started_ms + script.start_told_ms
        if told_ms <= self.now_ms and script.start_rank < 0:
            self._started(event)
        else:
            self._push(max(told_ms, self.now_ms), _ranked(script.start_rank, Rank.START), self._started, event)

    def _resume(self, record: LeaseRecord) -> None:
        """A lease that was open when the scenario begins: the first attempt that has not ended runs."""
        job = self.engine.job(record.lease.job_id)
        left = [a for a in record.lease.attempts if not self._is_over(a)]
        if job is None or not left:
            return
        self._book.granted(job.job, record.lease, len(left))
        if left[1:]:
            self._queued[record.lease.id] = left[1:]
        over = [self.engine.attempt(a) for a in record.lease.attempts if a not in left]
        ended_ms = max((attempt.finished_ms for attempt in over if attempt is not None), default=0)
        self._begin(record.lease, left[0], max(record.lease.granted_ms, ended_ms))

    def _is_over(self, attempt_id: str) -> bool:
        attempt = self.engine.attempt(attempt_id)
        return attempt is None or attempt.state.is_final

    def _started(self, event: AttemptStarted) -> None:
        running = self._running.get(event.attempt_id)
        if running is None or running.end_ms < event.at_ms:
            return
        stale = self._stale
        self._apply(event)
        # It frees and takes nothing; in a recording, the service planned after it all the same.
        self._stale = stale or running.script.start_rank >= 0

    def _ended(self, what: tuple[str, int]) -> None:
        attempt_id, version = what
        running = self._running.get(attempt_id)
        if running is None or running.version != version:
            return
        del self._running[attempt_id]
        end_ms = max(running.end_ms, running.lease.granted_ms)
        left = ended(running, end_ms)
        job_id, step, index, _ = parse_attempt_id(attempt_id)
        self._kept[job_id, step, index] = left.kept_ms
        self._book.lost(job_id, left.lost_ms)
        self._finish(attempt_id, end_ms, running.state, running.reason, left.saved_at_ms)
        self._next(running.lease, end_ms)

    def _next(self, lease: Lease, at_ms: int) -> None:
        """The attempts behind one that ended: the next one begins, or all end when the lease is being stopped."""
        queued = self._queued.get(lease.id)
        if queued:
            self._begin(lease, queued.pop(0), at_ms)

    def _finish(self, attempt_id: str, end_ms: int, state: AttemptState, reason: str, saved_ms: int) -> None:
        self._apply(
            AttemptFinished(at_ms=end_ms, attempt_id=attempt_id, state=state, reason=reason, checkpoint_ms=saved_ms)
        )
        job_id = attempt_id.partition(".")[0]
        self._book.tasks(self.engine, job_id, self.now_ms)
        if state is AttemptState.PREEMPTED:
            self._book.preempted(job_id)
        self._book.ended(self.engine, attempt_id, state, end_ms)
        self._tell_lanes()

    # ── plans ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _plan_in_time(self) -> None:
        due_ms = self._planned_ms + self._scenario.cycle_ms
        if self._planned_ms >= 0 and self.now_ms < due_ms:
            self._tick_at(due_ms)
            return
        while self._stale:
            self._stale = False
            self._plan(Rank.TICK)
            if self._scenario.cycle_ms:
                break
        if self._stale:
            self._tick_at(self.now_ms + self._scenario.cycle_ms)

    def _plan(self, rank: int) -> None:
        scenario = self._scenario
        plan = self.engine.plan(self.now_ms, scenario.policy, waits=self._watch is not None)
        if self._is_paused((self.now_ms, rank)):
            plan = replace(plan, actions=tuple(a for a in plan.actions if isinstance(a, Stop)))
        self._planned_ms = self.now_ms
        self._book.plans += 1
        if self._watch is not None:
            self._watch(self.engine, plan)
        starts = 0
        for event in self.engine.events_of(plan):
            if isinstance(event, LeaseGranted):
                starts += 1
                self._grant(event)
            elif isinstance(event, LeaseStopping):
                self._stop(event)
            else:
                self._apply(event)
        for action in plan.actions:
            if isinstance(action, Convert):
                self._lanes.begin(action)
            elif isinstance(action, Recut):
                self._push(self.now_ms + action.cost_ms, Rank.OUTSIDE, self._cut, action)
        self._tell_lanes()
        self._stale = starts >= scenario.policy.starts_per_cycle  # a full plan may have more to give
        self._wake(plan)

    def _is_paused(self, point: Point) -> bool:
        pauses = self._scenario.pauses
        at = bisect_right(pauses, point, key=lambda pause: pause[0]) - 1
        return at >= 0 and point < pauses[at][1]

    def _grant(self, event: LeaseGranted) -> None:
        self._apply(event)
        lease = event.lease
        record = self.engine.job(lease.job_id)
        assert record is not None
        self._book.granted(record.job, lease, len(lease.attempts))
        self._book.tasks(self.engine, lease.job_id, self.now_ms)
        if len(lease.attempts) > 1:
            self._queued[lease.id] = list(lease.attempts[1:])
        self._begin(lease, lease.attempts[0], self.now_ms)

    def _stop(self, event: LeaseStopping) -> None:
        """The attempt that runs ends after its grace, unless it ends before by itself; those behind it end then."""
        self._apply(event)
        record = self.engine.lease(event.lease_id)
        if record is None:
            return
        state = self._stopped_as(record.lease.job_id)
        for attempt_id in record.lease.attempts:
            running = self._running.get(attempt_id)
            if running is None:
                continue
            if running.stop(self.now_ms + running.script.stop_ms, state, event.reason):
                rank = _ranked(running.script.end_rank, Rank.END)
                self._push(running.end_ms + running.script.told_ms, rank, self._ended, (attempt_id, running.version))

    def _stopped_as(self, job_id: str) -> AttemptState:
        job = self.engine.job(job_id)
        return AttemptState.CANCELLED if job is not None and (job.cancelled or job.failing) else AttemptState.PREEMPTED

    def _wake(self, plan: Plan) -> None:
        """Plan again when the plan says so, unless nothing else happens and nothing came of it for long."""
        idle = not plan.actions and not self._heap
        self._fruitless = self._fruitless + 1 if idle else 0
        wakes = plan.wake_ms > self.now_ms and self._scenario.wakes and self._fruitless < FRUITLESS_MAX
        self._wake_ms = plan.wake_ms if wakes else 0
        if wakes:
            self._tick_at(plan.wake_ms)

    def _tick_at(self, at_ms: int) -> None:
        if at_ms not in self._ticks:
            self._ticks.add(at_ms)
            self._push(at_ms, Rank.TICK, self._ticked, at_ms)

    def _ticked(self, at_ms: int) -> None:
        self._ticks.discard(at_ms)
        if at_ms == self._wake_ms:
            self._stale = True


def _ranked(rank: int, usual: Rank) -> int:
    return usual if rank < 0 else rank


def simulate(scenario: Scenario, *, watch: Watch | None = None) -> Run:
    """The scenario's run."""
    return Simulation(scenario, watch=watch).run()
