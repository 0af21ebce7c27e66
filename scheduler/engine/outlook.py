"""When a waiting step is expected to start, and whether its job will meet its deadline.

Forecasts know the pool of nodes the step may use, who runs there and who is ahead by priority and age. They do not know
quotas, licences, windows of the calendar or jobs still to come; how wrong that makes them is learned and corrected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from scheduler.engine.candidates import Candidate, sort_steps
from scheduler.engine.ends import estimate_of
from scheduler.engine.state import State
from scheduler.model.job import JobRecord, Resources
from scheduler.model.lease import Allocation, LeaseRecord, number_of
from scheduler.model.policy import Policy
from scheduler.model.units import WHOLE_CARD_MILLI
from scheduler.placement.fit import capacity, fraction_room, free_whole, suitable
from scheduler.placement.view import NodeView
from scheduler.queueing import tasks
from scheduler.queueing.calibration import Calibration, bounds
from scheduler.queueing.durations import Estimate, worked_ms
from scheduler.queueing.histogram import ATOMS, quantile
from scheduler.queueing.lifecycle import find_step
from scheduler.queueing.pool import Ask, Pool, Running
from scheduler.queueing.promise import probability

AHEAD_MAX = 1_000
"""Steps ahead beyond which a forecast costs more than it is worth: none is made."""
SURE_PERMILLE = 900
"""A deadline that will be met with less than this is answered with a later one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """A forecast of one step's next start, in instants."""

    start_ms: tuple[int, int, int]
    """5, 50 and 95 % quantiles."""
    raw_ms: tuple[int, int, int]
    """The same before it was corrected."""
    permille: int = -1
    """Probability that a job of one task meets its deadline, in thousandths; -1: has none, or is of more tasks."""
    sure_ms: int = 0
    """The deadline that it would meet with ``SURE_PERMILLE``; 0: as ``permille``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a forecast needs, as values: asked beside the state, answered anywhere."""

    now_ms: int
    pool: Pool | None
    """None: it starts now."""
    ask: Ask
    seed: int
    calibration: Calibration
    runs: tuple[int, ...] = ()
    """Equally likely run times, for a job of one task with a deadline."""
    limit_ms: int = 0
    failures_per_hour: float = 0.0
    checkpoint_ms: int = 0
    restart_ms: int = 0
    least_ms: int = 0
    """It cannot start earlier than so long from now: it failed, and its next attempt is not due yet."""

    def answer(self) -> Outlook | None:
        """The forecast; None: no future starts it. The first one of a process takes seconds."""
        raw = (0,) * ATOMS
        if self.pool is not None:
            from scheduler.queueing.forecast import forecast  # loads Numba

            raw = forecast(self.pool, self.ask, self.seed)
        if not raw:
            return None
        raw = tuple(max(wait, self.least_ms) for wait in raw)
        waits = tuple(max(wait, self.least_ms) for wait in self.calibration.corrected(raw))
        permille, sure_ms = self._deadline(waits) if self.runs else (-1, 0)
        start_ms, raw_ms = _after(self.now_ms, waits), _after(self.now_ms, raw)
        return Outlook(start_ms=start_ms, raw_ms=raw_ms, permille=permille, sure_ms=sure_ms)

    def _deadline(self, waits: tuple[int, ...]) -> tuple[int, int]:
        chance = probability(
            waits,
            self.runs,
            self.limit_ms,
            failures_per_hour=self.failures_per_hour,
            lost_ms=self.checkpoint_ms,
            restart_ms=self.restart_ms + quantile(waits, 500),
        )
        sums = sorted(wait + run for wait in waits for run in self.runs)
        return self.calibration.promise(chance), self.now_ms + quantile(sums, SURE_PERMILLE)


def question(state: State, record: JobRecord, step_name: str, now_ms: int, policy: Policy) -> Question | None:
    """What to ask about a job's step, which may be one that is not in the state. What failed and is not due yet is
    asked about as if it were, and starts no earlier than it is.

    None: it waits for something else than its turn, or too much is ahead, or no node of the pool could run it.
    """
    now_ms = max(now_ms, state.at_ms)
    record, least_ms = _due(record, step_name, now_ms)
    entries, _, _ = sort_steps(state, now_ms, policy, {record.job.id: record})
    ranked = sorted(chain.from_iterable(entries.values()), key=lambda c: c.rank)
    at = next((i for i, c in enumerate(ranked) if c.key == (record.job.id, step_name)), None)
    if at is None or at > AHEAD_MAX:
        return None
    target, step = ranked[at], ranked[at].step
    found = _pool(state, target, ranked[:at], now_ms, policy)
    if found is None:
        return None
    is_dated = record.job.deadline_ms and len(record.job.steps) == step.count == 1
    kept_ms = target.kept_ms
    return Question(
        now_ms=now_ms,
        pool=found if found.free else None,
        ask=_ask(target),
        seed=number_of(record.job.id),
        calibration=state.calibration.copy(),
        runs=tuple(atom - kept_ms for atom in target.estimate.survivors(kept_ms)) if is_dated else (),
        limit_ms=record.job.deadline_ms - now_ms,
        failures_per_hour=policy.failures_per_hour * step.ranks,
        checkpoint_ms=step.checkpoint_ms,
        restart_ms=step.restart_ms,
        least_ms=least_ms,
    )


def _due(record: JobRecord, step_name: str, now_ms: int) -> tuple[JobRecord, int]:
    """The job as if nothing of the step had to wait before its next attempt, and how long its first task has to."""
    _, done = find_step(record, step_name)
    later = tasks.delayed(done, now_ms)
    if not later:
        return record, 0
    steps = tuple(tasks.hurry(step) if step is done else step for step in record.steps)
    least_ms = 0 if tasks.ready(done, now_ms).spans else min(at for _, at in later) - now_ms
    return replace(record, steps=steps), least_ms


def _after(now_ms: int, waits: tuple[int, ...]) -> tuple[int, int, int]:
    low, middle, high = bounds(waits)
    return now_ms + low, now_ms + middle, now_ms + high


def _pool(state: State, target: Candidate, ahead: list[Candidate], now_ms: int, policy: Policy) -> Pool | None:
    """The nodes the target may use, who runs there, who is ahead. Without nodes: it starts now. None: nowhere."""
    features, ask = state.shapes.features, target.step.resources
    views = [v for v in state.nodes.values() if capacity(NodeView.empty(v.node), target.demand, features) > 0]
    if not views:
        return None
    rivals = [c for c in ahead if _competes(c.step.resources, ask)]
    ranks = target.step.ranks_min or target.step.ranks
    if not rivals and sum(capacity(v, target.demand, features) for v in views) >= ranks:
        return Pool(free=(), running=())
    nodes = {view.node.name: at for at, view in enumerate(views)}
    leases = (r for r in state.leases.values() if any(a.node in nodes for a in r.lease.allocations))
    return Pool(
        free=tuple(_free(state, view, target) for view in views),
        running=tuple(chain.from_iterable(_running(state, r, ask, nodes, now_ms) for r in leases)),
        ahead=tuple(_ask(c) for c in rivals),
        backfill=policy.backfill,
    )


def _ask(candidate: Candidate) -> Ask:
    step = candidate.step
    return Ask(
        ranks=step.ranks_min or step.ranks,
        amount=max(_amount(step.resources), 1),
        count=candidate.left,
        elapsed_ms=candidate.kept_ms,
        estimate=candidate.estimate,
    )


def _amount(ask: Resources) -> int:
    """What one place takes of what is counted: thousandths of cards (or MIG instances), or of vCPUs."""
    return ask.cards * WHOLE_CARD_MILLI or ask.card_milli or ask.cpu_milli


def _competes(other: Resources, ask: Resources) -> bool:
    """Whether both take of the same: cards of a model both may use, or vCPUs."""
    cards = bool(ask.cards or ask.card_milli)
    models = not other.card_models or not ask.card_models or bool(set(other.card_models) & set(ask.card_models))
    return cards == bool(other.cards or other.card_milli) and other.mig_profile == ask.mig_profile and models


def _free(state: State, view: NodeView, target: Candidate) -> int:
    ask = target.step.resources
    if not (ask.cards or ask.card_milli):
        return view.cpu_milli
    devices = suitable(view.devices, ask, state.shapes.features)
    if ask.cards:
        return len(free_whole(view, devices)) * WHOLE_CARD_MILLI
    return sum(fraction_room(view, device, target.job.tenant) for device in devices)


def _running(
    state: State, record: LeaseRecord, ask: Resources, nodes: dict[str, int], now_ms: int
) -> Iterator[Running]:
    lease = record.lease
    estimate, elapsed = _progress(state, record, now_ms)
    by_amount: dict[int, list[int]] = {}
    for place in lease.allocations:
        if place.node in nodes:
            for amount, times in _held(place, ask):
                by_amount.setdefault(amount, []).extend([nodes[place.node]] * times)
    for amount, places in sorted(by_amount.items()):
        yield Running(nodes=tuple(places), amount=amount, elapsed_ms=elapsed, estimate=estimate)


def _held(place: Allocation, ask: Resources) -> Iterable[tuple[int, int]]:
    """``(amount, times)`` an allocation holds of what is counted."""
    if not (ask.cards or ask.card_milli):
        return ((place.cpu_milli, 1),) if place.cpu_milli else ()
    return ((place.card_milli or WHOLE_CARD_MILLI, len(place.devices)),) if place.devices else ()


def _progress(state: State, record: LeaseRecord, now_ms: int) -> tuple[Estimate, int]:
    """What the rest of the lease's attempts take together, and how far the first of them is."""
    lease = record.lease
    estimate = estimate_of(state, lease.job_id, lease.step)
    left = [a for a in state.attempts_of(lease) if not a.state.is_final]
    if not left:
        return Estimate(atoms=(1,) * ATOMS, source=estimate.source), 0
    done = next(d for d in state.jobs[lease.job_id].steps if d.name == lease.step)
    elapsed = now_ms - (left[0].started_ms or lease.granted_ms) + worked_ms(done, left[0].index)
    more = (len(left) - 1) * estimate.median_ms
    return Estimate(atoms=tuple(atom + more for atom in estimate.atoms), source=estimate.source), max(elapsed, 0)
