"""One cycle's decision, as numbered steps. Reads the state, never changes it: equal states give equal plans."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from scheduler.engine.aim import aim, steer
from scheduler.engine.candidates import NO_JOBS, Candidate, sort_steps, waiting
from scheduler.engine.convert import conversions, drain
from scheduler.engine.reasons import reasons_of
from scheduler.engine.state import State, number_of
from scheduler.engine.trial import Trial
from scheduler.engine.wake import wake
from scheduler.model.job import JobRecord
from scheduler.model.plan import Action, Plan, Preempt, ReasonKind, Start, Stop, Wait
from scheduler.model.policy import Backfill, Policy
from scheduler.model.queue import Amounts, Queue
from scheduler.queueing.order import NONE, Order, amounts_of, plus
from scheduler.queueing.quota import Quotas
from scheduler.queueing.usage import now_used, with_past

NO_QUEUES: Mapping[str, Queue] = {}


@dataclass(slots=True)
class Draft:
    """A plan being made."""

    trial: Trial
    explain: bool
    """Every step that waits is visited, so that it can be said why."""
    shares: dict[str, Amounts]
    """By queue, what counts for its share: held, with what this plan starts, and used."""
    starts: list[Start] = field(default_factory=list)
    preempts: list[Preempt] = field(default_factory=list)
    left_over: list[Candidate] = field(default_factory=list)
    """Steps with tasks left, in the order they were reached."""


def make_plan(
    state: State,
    now_ms: int,
    policy: Policy,
    jobs: Mapping[str, JobRecord] = NO_JOBS,
    queues: Mapping[str, Queue] = NO_QUEUES,
    *,
    waits: bool = True,
) -> Plan:
    """What to do now. ``jobs`` and ``queues``: these as they are here, not as the state has them, or in addition.

    ``waits``: whether to say why the rest waits, which costs as much again and changes nothing of what is done.
    """
    now_ms = max(now_ms, state.at_ms)
    tree = tuple({**state.queues, **queues}.values())
    # 1. Stop what belongs to jobs that are to end.
    stops = tuple(_stops(state))
    # 2. Sort the steps that wait: those that may start, by queue, and those that may not, with the reason.
    entries, barred = sort_steps(state, now_ms, policy, jobs)
    # 3. What is left to take, and every limit on taking it.
    counted = any(queue.jobs_max for queue in tree)
    jobs_now = ((r.lease.queue, r.lease.job_id) for r in state.leases.values()) if counted else ()
    quotas = Quotas(tree, state.held, state.totals, jobs_now)
    used = now_used(state.uses.values(), state.held, state.held_since, now_ms)
    shares = with_past(state.held, used, state.totals, policy.usage_weight_permille)
    draft = Draft(trial=Trial(state, now_ms, policy, quotas), explain=waits, shares=shares)
    # 4. Steer gangs: to the cards that keep what was promised, or that serve the policy's objective.
    wanted = aim(state, (c for cs in entries.values() for c in cs), now_ms, policy)
    draft.preempts += wanted.stops
    draft.trial.stopped.update(stop.lease_id for stop in wanted.stops)
    if wanted.steered:
        steered = _only(entries, wanted.steered)
        for candidate in chain.from_iterable(steered.values()):
            steer(candidate, wanted.places.get(candidate.key))
        _place_all(draft, Order(tree, state.totals, draft.shares, steered))
        entries = _only(entries, wanted.steered, inside=False)
    # 5. Who others were stopped for comes next, so that nobody was stopped in vain.
    first = {c.key for cs in entries.values() for c in cs if c.is_next}
    if first:
        _place_all(draft, Order(tree, state.totals, draft.shares, _only(entries, first)))
        entries = _only(entries, first, inside=False)
    unsteered = len(draft.left_over)
    # 6. Kinds of job below their floor go first, until they reach it.
    if policy.floors:
        kinds = {floor.kind for floor in policy.floors}
        below = {queue: [c for c in cs if c.job.kind in kinds] for queue, cs in entries.items()}
        _place_all(draft, Order(tree, state.totals, draft.shares, below), draft.trial.is_below_floor)
    # 7. Then queues that hold less than they are guaranteed, so that what is taken back for them is theirs.
    if any(any(queue.guaranteed) for queue in tree):
        _place_all(draft, Order(tree, state.totals, draft.shares, entries), draft.trial.is_guaranteed)
    # 8. Everybody, by fair share, priority and age: one lease at a time; who does not fit keeps an expected start.
    del draft.left_over[unsteered:]
    _place_all(draft, Order(tree, state.totals, draft.shares, entries))
    # 9. Move nodes between lanes for those who wait.
    moves = conversions(draft.trial, draft.left_over)
    # 10. Say why everything else waits.
    told: Iterable[Wait] = ()
    if waits:
        told = (_wait(draft, candidate, position) for position, candidate in enumerate(draft.left_over, start=1))
    actions: tuple[Action, ...] = (*stops, *draft.preempts, *draft.starts, *draft.trial.reserves(), *moves)
    plan = Plan(now_ms=now_ms, actions=actions, waits=(*told, *barred) if waits else ())
    # 11. Say when something may change without an event.
    if not (draft.left_over or barred):
        return plan
    banned = any(reason.kind is ReasonKind.CALENDAR for wait in barred for reason in wait.reasons)
    return replace(plan, wake_ms=wake(draft.trial, plan, wanted.wake_ms, banned=banned))


def _only(
    entries: Mapping[str, Sequence[Candidate]], keys: Collection[tuple[str, str]], *, inside: bool = True
) -> dict[str, list[Candidate]]:
    """The entries with these keys, or all others."""
    return {queue: [c for c in cs if (c.key in keys) is inside] for queue, cs in entries.items()}


def _stops(state: State) -> Iterator[Stop]:
    for record in state.active.values():
        if not (record.cancelled or record.failing):
            continue
        for lease_id in sorted(state.leases_of_job.get(record.job.id, ()), key=number_of):
            if not state.leases[lease_id].stopping:
                yield Stop(lease_id=lease_id, reason=record.reason)


def _place_all(draft: Draft, order: Order[Candidate], only: Callable[[Candidate], bool] | None = None) -> None:
    """Leases for everything that fits. ``only``: as long as this is true of it; others come later."""
    trial, explain = draft.trial, draft.explain
    while (candidate := order.peek()) is not None:
        full = bool(trial.shut) or len(draft.starts) >= trial.policy.starts_per_cycle
        lease = None
        wanted = only is None or only(candidate)
        if candidate.left and wanted and not full:
            lease = trial.start(candidate, f"l{trial.state.next_lease + len(draft.starts)}")
        if lease is not None:
            draft.starts.append(Start(lease=lease))
            amounts = amounts_of(candidate.step.resources, len(lease.allocations))
            draft.shares[lease.queue] = plus(draft.shares.get(lease.queue, NONE), amounts)
            order.charge(amounts)
            continue
        order.drop()
        if not candidate.left:
            continue
        draft.left_over.append(candidate)
        if full and not explain:
            break  # nothing more starts, and nobody asks why
        if only is None and not full:
            draft.preempts += trial.pass_over(candidate)
            draft.preempts += drain(trial, candidate)
            if trial.policy.backfill is Backfill.NONE and candidate.blocked is None:
                trial.shut = candidate.job.id


def _wait(draft: Draft, candidate: Candidate, position: int) -> Wait:
    reasons = reasons_of(draft.trial, candidate)
    return waiting(candidate.job, candidate.step, candidate.left, position, reasons)
