"""observe → plan → record → apply: the one thread that changes anything."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import structlog

from scheduler.control.dispatch import Dispatch
from scheduler.control.metrics import Metrics
from scheduler.control.observe import Observer, Reaction
from scheduler.control.ports import Clock, Executor, Store
from scheduler.control.sealing import Sealer
from scheduler.control.settings import Limits
from scheduler.engine import VERSION, Engine
from scheduler.model.errors import ExecutorError, ShisuanError, StoreError
from scheduler.model.event import (
    AttemptFinished,
    AttemptsSeen,
    EngineStarted,
    Event,
    LeaseGranted,
    LeaseStopping,
    NodeSeen,
    UsageSealed,
)
from scheduler.model.lease import AttemptState
from scheduler.model.node import CardCut, Lane
from scheduler.model.order import LeaseOrder, Report, ReportKind
from scheduler.model.plan import Start, Stop
from scheduler.model.policy import Policy

log = structlog.get_logger("shisuan.cycle")
T = TypeVar("T")
Decide = Callable[[Engine, int], tuple[Sequence[Event], T]]
"""A user's verb: sees the state and the instant, raises a ShisuanError or gives the facts to record and the answer."""


class Runtime(Executor, Protocol):
    """The executor, with a way to end its ``poll`` early."""

    def wake(self) -> None:
        """Make a blocked poll return."""
        ...


@dataclass(slots=True)
class Command:
    """A verb on its way to the cycle, and where its caller waits."""

    decide: Decide[Any]
    done: Future[Any]


@dataclass(slots=True)
class Batch:
    """One cycle's work: what was observed, what is recorded, what is to be told to the workers."""

    now_ms: int
    events: list[Event] = field(default_factory=list)
    answers: list[tuple[Future[Any], Any]] = field(default_factory=list)
    cursors: list[str] = field(default_factory=list)
    start: list[str] = field(default_factory=list)
    orders: list[LeaseOrder] = field(default_factory=list)
    """What ``start`` expands to."""
    stop: dict[str, str] = field(default_factory=dict)
    """Lease id → reason."""
    move: dict[str, Lane] = field(default_factory=dict)
    """Node → the lane it is to serve."""
    recut: dict[str, tuple[CardCut, ...]] = field(default_factory=dict)
    """Node that was ever cut → the cuts that are under way there."""


class Cycle:
    """Owns the engine. Others read it under :meth:`state` and change it through :meth:`call`.

    Crash-only: an exception from the store or the engine ends :meth:`run`, and the process with it. Whatever was
    recorded is repeated to the workers by the next process; whatever was not recorded never happened.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        epoch: int,
        store: Store,
        executor: Runtime,
        clock: Clock,
        dispatch: Dispatch,
        policy: Policy | None = None,
        limits: Limits | None = None,
        metrics: Metrics | None = None,
        declared: Collection[str] | None = None,
        after_commit: Sequence[Callable[[], object]] = (),
    ) -> None:
        """``after_commit`` are called after each transaction; they must not block."""
        self._engine = engine
        self._epoch = epoch
        self._store = store
        self._executor = executor
        self._clock = clock
        self._dispatch = dispatch
        self.policy = policy or Policy()
        self.limits = limits or Limits()
        self.metrics = metrics or Metrics()
        self.observer = Observer(silence_ms=self.limits.silence_ms, declared=declared)
        self._sealer = Sealer()
        self._after_commit = tuple(after_commit)
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._own_reports: list[Report] = []
        self._unheard: list[Report] = []
        """Reports that came and are for later cycles, because this one has heard of enough ends."""
        self._lock = threading.RLock()
        self._last_ms = engine.now_ms
        self._turned_ms = clock.now_ms()
        self._stale_plan = True
        self._wake_ms = 0
        """When a plan is due without anything having happened; 0: never."""
        self._announced: Policy | None = None
        self._has_more = False
        """The last plan gave all the starts that one cycle may have."""
        self._stopping = threading.Event()
        self._urgent = threading.Event()

    # ── other threads ────────────────────────────────────────────────────────────────────────────────────────────

    def call(self, decide: Decide[T]) -> T:
        """Run a verb inside the next cycle; returns its answer once its facts are in the database.

        Raises the verb's own ShisuanError, or StoreError when the cycle does not come round in time.
        """
        done: Future[T] = Future()
        self._commands.put(Command(decide, done))
        self._urgent.set()
        self._executor.wake()
        try:
            return done.result(timeout=self.limits.call_timeout_ms / 1000)
        except TimeoutError:
            raise StoreError("the service is too busy to answer; the request may still be carried out") from None

    @contextmanager
    def state(self) -> Iterator[Engine]:
        """The engine at rest, showing only what is recorded. Keep it short: the cycle waits meanwhile."""
        with self._lock:
            yield self._engine

    def now_ms(self) -> int:
        """The service's clock: wall time that never goes back past what is recorded."""
        return max(self._last_ms, self._clock.now_ms())

    def set_unfunded(self, tenants: tuple[str, ...]) -> None:
        """Whose budget is used up, sorted: from the next plan on nothing of theirs starts. Any thread."""
        if tenants != self.policy.unfunded:
            self.policy = replace(self.policy, unfunded=tenants)
            self._urgent.set()
            self._executor.wake()

    @property
    def epoch(self) -> int:
        """Under which it records."""
        return self._epoch

    def still_ms(self) -> int:
        """How long ago the cycle last came round: a second when idle, longer when a plan or a transaction hangs."""
        return max(0, self._clock.now_ms() - self._turned_ms)

    def stop(self) -> None:
        """Make :meth:`run` return after the cycle it is in."""
        self._stopping.set()
        self._urgent.set()
        self._executor.wake()

    # ── the one thread ───────────────────────────────────────────────────────────────────────────────────────────

    def run(self) -> None:
        """Cycle until :meth:`stop`. Anything raised here must end the process."""
        while not self._stopping.is_set():
            busy_s = self.once(self.limits.tick_ms)
            if busy_s:
                self._breathe(busy_s)

    def _breathe(self, busy_s: float) -> None:
        """After a transaction, let reports gather for about twice as long as it took: one commit then carries many.

        Ends at once for a user's verb; what one cycle may hear or start no more of waits for nobody.
        """
        self._urgent.clear()
        if self._commands.empty() and not (self._has_more or self._unheard):
            self._urgent.wait(min(2 * busy_s, self.limits.gather_ms / 1000))

    def once(self, timeout_ms: int) -> float:
        """One cycle. Waits up to ``timeout_ms`` for something to do; seconds of work, 0 when nothing was recorded."""
        waiting = not self._commands.empty() or self._own_reports or self._unheard or self.observer.has_signs
        reports = self._executor.poll(0 if waiting else timeout_ms)  # 1. observe: what workers say,
        began = time.perf_counter()
        with self._lock:
            batch = Batch(self._tick())
            self._hear(batch, reports)  # ...what they should have said by now,
            self._obey(batch)  # 2. ...and what users want
            self._announce(batch)
            self._decide(batch)  # 3. plan
            self._record(batch)  # 4. seal usage, then one transaction; meanwhile expand what starts
        self._tell(batch)  # 5. apply: start, stop, acknowledge
        self._answer(batch)  # 6. users hear of it
        self._turned_ms = self._clock.now_ms()
        busy_s = time.perf_counter() - began
        self.metrics.cycle_seconds.observe(busy_s)
        return busy_s if batch.events else 0.0

    def _tick(self) -> int:
        self._last_ms = self.now_ms()
        return self._last_ms

    def _apply(self, batch: Batch, event: Event) -> None:
        self._sealer.before(self._engine, event)
        self._engine.apply(event)  # refuses what does not fit the state before it changes anything
        batch.events.append(event)
        if isinstance(event, NodeSeen) and (node := self._engine.node(event.node.name)) is not None and node.cuts:
            batch.recut[node.name] = tuple(cut for cut in node.cuts if not cut.ended_ms)  # it may not have heard yet
        if not isinstance(event, AttemptsSeen):  # the one fact that frees and takes nothing
            self._stale_plan = True

    def _hear(self, batch: Batch, reports: Sequence[Report]) -> None:
        heard = [*self._own_reports, *self._unheard, *reports]
        self._own_reports, self._unheard, ends = [], [], 0
        for at, report in enumerate(heard):
            if ends >= self.limits.ends_per_cycle:
                self._unheard = heard[at:]
                del heard[at:]
                break
            reaction = self.observer.react(report, self._engine, batch.now_ms)
            self._react(batch, reaction)
            ends += report.kind is ReportKind.FINISHED and bool(reaction.events)
            if report.cursor:
                batch.cursors.append(report.cursor)
            if report.kind in (ReportKind.RUNTIME_UP, ReportKind.RUNTIME_DOWN):
                self._stale_plan = True
                log.info(report.kind.value, message=report.message)
            if report.kind is ReportKind.RUNTIME_UP:  # it may not have heard, or have forgotten
                batch.move |= {n.name: n.moving_to for n in self._engine.nodes() if n.moving_to is not None}
        self.metrics.count_reports(heard)
        if not self._unheard:  # else somebody may have spoken already of what seems silent
            for reaction in self.observer.overdue(self._engine, batch.now_ms):
                self._react(batch, reaction)
        self._react(batch, self.observer.reminder(self._engine, batch.now_ms))
        for event in self.observer.signs(self._engine, batch.now_ms):
            self._apply(batch, event)

    def _react(self, batch: Batch, reaction: Reaction) -> None:
        for event in reaction.events:
            self._apply(batch, event)
        batch.start += reaction.start
        for lease_id in reaction.stop:
            batch.stop[lease_id] = self._why_stop(lease_id)

    def _why_stop(self, lease_id: str) -> str:
        record = self._engine.lease(lease_id)
        if record is not None and record.stop_reason:
            return record.stop_reason
        job = self._engine.job(record.lease.job_id) if record is not None else None
        return job.reason if job is not None and job.reason else "its lease is over"

    def _obey(self, batch: Batch) -> None:
        while not self._commands.empty():
            command = self._commands.get()
            if not command.done.set_running_or_notify_cancel():
                continue
            recorded = len(batch.events)
            try:
                events, answer = command.decide(self._engine, batch.now_ms)
                for event in events:
                    self._apply(batch, event)
                    if isinstance(event, LeaseStopping):
                        batch.stop[event.lease_id] = event.reason
            except ShisuanError as error:
                if len(batch.events) > recorded:
                    raise  # half a verb was applied: only a restart from the database is safe
                answer = error
            batch.answers.append((command.done, answer))

    def _announce(self, batch: Batch) -> None:
        """Whoever replays the journal must know by which rules it was written."""
        if self._announced is not self.policy:
            self._announced = self.policy
            self._apply(batch, EngineStarted(at_ms=batch.now_ms, engine=VERSION, policy=self.policy))

    def _decide(self, batch: Batch) -> None:
        self._has_more = False
        if not self._stale_plan and not 0 < self._wake_ms <= batch.now_ms:
            return
        plan = self._engine.plan(batch.now_ms, self.policy, waits=False)
        if not self.observer.runtime_up:
            plan = replace(plan, actions=tuple(a for a in plan.actions if isinstance(a, Stop)))
        for event in self._engine.events_of(plan):
            self._apply(batch, event)
            if isinstance(event, LeaseGranted):
                batch.start.append(event.lease.id)
            elif isinstance(event, LeaseStopping):
                batch.stop[event.lease_id] = event.reason
            elif isinstance(event, NodeSeen) and event.node.moving_to is not None:
                batch.move[event.node.name] = event.node.moving_to
        # A full plan may have more to give; a wait for an instant ends without an event.
        self._wake_ms = plan.wake_ms
        starts = sum(isinstance(a, Start) for a in plan.actions)
        self._has_more = starts >= self.policy.starts_per_cycle
        self._stale_plan = self._has_more

    def _expand(self, batch: Batch) -> None:
        """What the workers will be told of the leases that start; changes nothing else that anybody sees."""
        for lease_id in dict.fromkeys(batch.start):
            record = self._engine.lease(lease_id)
            if record is None or record.closed_ms or record.stopping:
                continue
            try:
                batch.orders += self._dispatch.orders(self._engine, record.lease, batch.now_ms)
            except (ValueError, KeyError, TypeError, IndexError) as error:
                log.exception("order_impossible", lease_id=lease_id, job_id=record.lease.job_id)
                self._fail(record.lease.attempts, f"the step cannot be carried out: {error}")
            else:
                self.observer.expect(lease_id, batch.now_ms)

    def _fail(self, attempts: Sequence[str], reason: str) -> None:
        """What no planner can expand ends as failed in the next cycle, as if a worker had said so."""
        for attempt_id in attempts:
            self._own_reports.append(
                Report(
                    kind=ReportKind.FINISHED,
                    at_ms=self._last_ms,
                    attempt_id=attempt_id,
                    state=AttemptState.FAILED,
                    message=reason,
                )
            )

    def _record(self, batch: Batch) -> None:
        if not batch.events:
            self._expand(batch)
            return
        changes = self._engine.take_changes()
        for record in self._sealer.seal(self._engine, changes, self.observer.heartbeats):
            event = UsageSealed(at_ms=batch.now_ms, record=record)
            self._engine.apply(event)
            batch.events.append(event)
        for lease in changes.leases:
            if lease.closed_ms:
                self.observer.forget(lease.lease.attempts, lease.lease.id)
        began = time.perf_counter()
        self._store.commit(self._epoch, batch.events, changes, lambda: self._expand(batch))
        self.metrics.commit_seconds.observe(time.perf_counter() - began)
        self.metrics.count_events(batch.events)
        for wake in self._after_commit:
            wake()
        log_facts(batch.events)

    def _tell(self, batch: Batch) -> None:
        try:
            if batch.move:
                self._executor.move(batch.move)
            if batch.recut:
                self._executor.recut(batch.recut)
            if batch.orders:
                self._executor.start(batch.orders)
                self.metrics.starts.inc(len({o.lease_id for o in batch.orders}))
            reasons: dict[str, list[str]] = {}
            for lease_id, reason in batch.stop.items():
                reasons.setdefault(reason, []).append(lease_id)
            for reason, lease_ids in reasons.items():
                self._executor.stop(lease_ids, reason)
            if batch.cursors:
                self._executor.acknowledge(batch.cursors)
        except ExecutorError as error:
            # Recorded but not delivered: repeated when the runtime reports that it is up, or found silent later.
            log.warning("executor_refused", error=str(error))

    def _answer(self, batch: Batch) -> None:
        for done, answer in batch.answers:
            if isinstance(answer, ShisuanError):
                done.set_exception(answer)
            else:
                done.set_result(answer)


def log_facts(events: Sequence[Event]) -> None:
    """One line per fact worth a person's eye."""
    for event in events:
        if isinstance(event, AttemptFinished) and event.state is not AttemptState.SUCCEEDED:
            log.info("attempt_ended", attempt_id=event.attempt_id, state=event.state.value, reason=event.reason)
