"""One cycle's decision, as numbered steps. Reads the state, never changes it: equal states give equal plans."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from scheduler.engine.aim import aim, steer
from scheduler.engine.backoff import ends_ms
from scheduler.engine.candidates import NO_JOBS, Candidate, Kind, Line, sort_steps, waiting
from scheduler.engine.convert import conversions, drain
from scheduler.engine.defrag import by_rule
from scheduler.engine.evict import kind_of
from scheduler.engine.faults import set_prices
from scheduler.engine.passing import pass_over
from scheduler.engine.promised import keep_starts, recall, reserves
from scheduler.engine.reasons import reasons_of
from scheduler.engine.recut import cut_wake_ms, give_ups, recuts
from scheduler.engine.relayout import drain as drain_for_layout
from scheduler.engine.relayout import relayouts
from scheduler.engine.seats import guard, sit
from scheduler.engine.slots import keep
from scheduler.engine.state import State
from scheduler.engine.tracks import films
from scheduler.engine.trial import Trial
from scheduler.engine.wake import overtaken_ms, wake
from scheduler.model.job import JobRecord
from scheduler.model.lease import Lease, number_of
from scheduler.model.plan import Action, Keep, Plan, Preempt, ReasonKind, Start, Stop, Wait
from scheduler.model.policy import Backfill, Policy
from scheduler.model.queue import Amounts, Queue
from scheduler.queueing.order import NONE, Order, plus
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
    preempts: list[Preempt | Keep] = field(default_factory=list)
    """And seats kept for those who are moved, and for whom."""
    left_over: list[Candidate] = field(default_factory=list)
    """Steps with tasks left, in the order they were reached. Unless it is to be explained, of those of which nothing
    more comes only the first of each kind."""
    unseen: list[Candidate] = field(default_factory=list)
    """Those behind them, which were not looked at because nothing more starts: all if it is to be explained, else one.
    What is done depends on none of them."""
    reached: set[tuple[str, str]] = field(default_factory=set)
    """Steps that were passed over."""
    barred: Sequence[Wait] = ()
    """Steps that may not start, with the reason."""
    delayed: Mapping[tuple[str, str], Wait] = field(default_factory=dict)
    """By step that may start some tasks: those that failed and are not tried again yet."""
    steer_ms: int = 0
    """When the timetable of the objective wants something else; 0: never."""

    def grant(self, lease: Lease, amounts: Amounts) -> None:
        """A lease starts, and counts for its queue's share."""
        self.starts.append(Start(lease=lease))
        self.shares[lease.queue] = plus(self.shares.get(lease.queue, NONE), amounts)


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
    draft = drafted(state, now_ms, policy, jobs, queues, explain=waits)
    # 10. Move nodes between lanes for those who wait, cut cards for them, and move leases out of their way where a rule
    # allows it.
    moves: tuple[Action, ...] = (
        *conversions(draft.trial, draft.left_over),
        *give_ups(draft.trial),
        *recuts(draft.trial, draft.left_over),
        *relayouts(draft.trial, draft.left_over),
    )
    draft.preempts += by_rule(draft.trial, draft.left_over)
    kept = keep_starts(draft.trial, is_full=len(draft.starts) >= policy.starts_per_cycle)
    # 11. Say why everything else waits.
    actions: tuple[Action, ...] = (
        *_stops(state), *draft.preempts, *draft.starts, *reserves(draft.trial), *kept, *moves,
    )  # fmt: skip
    plan = Plan(now_ms=now_ms, actions=actions, waits=tuple(_waits(draft)) if waits else ())
    # 12. Say when something may change without an event.
    cut_ms = cut_wake_ms(draft.trial)
    if not (draft.left_over or draft.unseen or draft.barred or draft.delayed):
        return replace(plan, wake_ms=min(filter(None, (cut_ms, draft.steer_ms)), default=0))
    banned = any(reason.kind is ReasonKind.CALENDAR for wait in draft.barred for reason in wait.reasons)
    due_ms = ends_ms(chain(draft.barred, draft.delayed.values()))
    due = (draft.steer_ms, due_ms, cut_ms, overtaken_ms(draft.trial, draft.left_over))
    return replace(plan, wake_ms=wake(draft.trial, plan, due, banned=banned))


def drafted(
    state: State,
    now_ms: int,
    policy: Policy,
    jobs: Mapping[str, JobRecord] = NO_JOBS,
    queues: Mapping[str, Queue] = NO_QUEUES,
    *,
    explain: bool = False,
) -> Draft:
    """Who starts, who is stopped, and what is kept for whom. ``now_ms`` is not before the state's."""
    draft = _drafted(state, now_ms, policy, jobs, queues, explain=explain, strict=False)
    if policy.promises_max > 1 and draft.trial.promises and draft.starts and not draft.trial.holds():
        return _drafted(state, now_ms, policy, jobs, queues, explain=explain, strict=True)
    return draft


def _drafted(
    state: State,
    now_ms: int,
    policy: Policy,
    jobs: Mapping[str, JobRecord],
    queues: Mapping[str, Queue],
    *,
    explain: bool,
    strict: bool,
) -> Draft:
    """``strict``: see :attr:`Guard.is_strict`."""
    set_prices(state, now_ms, policy)
    tree = tuple({**state.queues, **queues}.values())
    # 1. Sort the steps that wait: those that may start, by queue, and those that may not, with the reason.
    lines, barred, delayed = sort_steps(state, now_ms, policy, jobs)
    entries: Mapping[str, Sequence[Candidate]] = lines
    # 2. What is left to take, and every limit on taking it.
    counted = any(queue.jobs_max for queue in tree)
    jobs_now = ((r.lease.queue, r.lease.job_id) for r in state.leases.values()) if counted else ()
    quotas = Quotas(tree, state.held, state.totals, jobs_now)
    used = now_used(state.uses.values(), state.held, state.held_since, now_ms)
    shares = with_past(state.held, used, state.totals, policy.usage_weight_permille)
    draft = Draft(trial=Trial(state, now_ms, policy, quotas), explain=explain, shares=shares)
    draft.barred, draft.delayed = barred, delayed
    draft.trial.guard.is_strict = strict
    # 3. Keep the slots and tracks of promised deadlines; those whose time has come start.
    _keep_promises(draft, [c for line in lines.values() if line.has_special for c in line if c.job.is_promised])
    # 4. Whoever was moved, or others were moved for, sits down on the seats that are kept for them.
    for job_id in sorted((key for key in state.seated if key in state.active), key=number_of):
        _seat(draft, state.active[job_id], entries)
    # 5. Steer gangs to the cards that serve the policy's objective.
    wanted = aim(state, (c for cs in entries.values() for c in cs), now_ms, policy)
    draft.steer_ms = wanted.wake_ms
    draft.preempts += wanted.stops
    draft.trial.expected.stop(stop.lease_id for stop in wanted.stops)
    if wanted.steered:
        steered = _only(entries, wanted.steered)
        for candidate in chain.from_iterable(steered.values()):
            steer(candidate, wanted.places.get(candidate.key))
        _place_all(draft, Order(tree, state.totals, draft.shares, steered))
        entries = _only(entries, wanted.steered, inside=False)
    if state.promised and policy.promises_max > 1:
        recall(draft.trial, lines, wanted.steered)
    # 6. Who others were stopped for comes next, so that nobody was stopped in vain.
    first = {c.key for line in lines.values() if line.has_special for c in line if c.is_next}
    if first:
        _place_all(draft, Order(tree, state.totals, draft.shares, _only(entries, first)))
        entries = _only(entries, first, inside=False)
    over, unseen = len(draft.left_over), len(draft.unseen)
    # 7. Kinds of job below their floor go first, until they reach it.
    if policy.floors:
        kinds = {floor.kind for floor in policy.floors}
        below = {queue: [c for c in cs if c.job.kind in kinds] for queue, cs in entries.items()}
        _place_all(draft, Order(tree, state.totals, draft.shares, below), draft.trial.is_below_floor)
    # 8. Then queues that hold less than they are guaranteed, so that what is taken back for them is theirs.
    if any(any(queue.guaranteed) for queue in tree):
        _place_all(draft, Order(tree, state.totals, draft.shares, entries), draft.trial.is_guaranteed)
    # 9. Everybody, by fair share, priority and age: one lease at a time; who does not fit keeps an expected start.
    # Where several do, all are promised theirs before anybody starts ahead of his turn.
    del draft.left_over[over:], draft.unseen[unseen:]
    if policy.promises_max > 1:
        draft.trial.in_turn = True
        _place_all(draft, Order(tree, state.totals, draft.shares, entries))
        draft.trial.in_turn = False
        del draft.left_over[over:], draft.unseen[unseen:]
    _place_all(draft, Order(tree, state.totals, draft.shares, entries))
    return draft


def _keep_promises(draft: Draft, promised: Sequence[Candidate]) -> None:
    """All that is recorded is kept before anything that was lost is sought anew."""
    found = films(draft.trial, {c.key: c for c in promised})
    for candidate in keep(draft.trial, promised):
        _start(draft, candidate)
    for film in found:
        film.make_up()
    for film in found:
        for copy in film.turns():
            there = film.at(copy)
            if _start(draft, there) is not None:
                film.began(copy, there)
        film.rest()


def _seat(draft: Draft, record: JobRecord, entries: Mapping[str, Sequence[Candidate]]) -> None:
    waiting = {c.step.name: c for c in entries.get(record.job.queue, ()) if c.job.id == record.job.id}
    for step, done in zip(record.job.steps, record.steps, strict=True):
        candidate = waiting.get(step.name)
        if candidate is None:
            guard(draft.trial, record.job, step, done)
            continue
        for lease in sit(draft.trial, candidate, draft.trial.state.next_lease + len(draft.starts)):
            draft.grant(lease, candidate.amounts_on(len(lease.allocations)))


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
    trial, explain, policy = draft.trial, draft.explain, draft.trial.policy
    # Nobody asks what keeps each of those that are left over: kinds of which nothing more comes are not looked at.
    hasty = not (explain or trial.has_lanes or policy.defragment_permille or policy.backfill is Backfill.NONE)
    over = set[Kind]()
    while True:
        full = bool(trial.shut) or len(draft.starts) >= policy.starts_per_cycle
        if over and not full:
            order.skip(lambda line, at: _past(line, at, over))
        candidate = order.peek()
        if candidate is None or (trial.in_turn and len(trial.promises) >= trial.promises_max):
            break
        wanted = only is None or only(candidate)
        amounts = _start(draft, candidate) if candidate.left and wanted and not full else None
        if amounts is not None:
            order.charge(amounts)
            continue
        order.drop()
        if not candidate.left:
            continue
        if full:
            draft.unseen.append(candidate)
            if explain:
                continue
            break  # nothing more starts, and nobody asks why
        draft.left_over.append(candidate)
        if only is None and candidate.key not in draft.reached:
            draft.reached.add(candidate.key)
            draft.preempts += pass_over(trial, candidate)
            draft.preempts += drain(trial, candidate)
            drain_for_layout(trial, candidate)
            if hasty and _is_over_for(trial, candidate):
                over.add(kind_of(candidate))
            if policy.backfill is Backfill.NONE and candidate.blocked is None:
                trial.shut = candidate.job.id


def _past(line: Sequence[Candidate], at: int, over: Collection[Kind]) -> int:
    """The first place from ``at`` on whose candidate is of none of these kinds."""
    if isinstance(line, Line):
        return line.past(at, over)
    return next((to for to in range(at, len(line)) if kind_of(line[to]) not in over), len(line))


def _is_over_for(trial: Trial, candidate: Candidate) -> bool:
    """The candidate was passed over, and so will all others of its kind be in this plan, without any effect.

    There is no room for them, no card is cut for them, nothing is promised to them, they may stop nobody, and the plan
    has noted enough of those ahead. All that only grows during a plan.
    """
    step = candidate.step
    return (
        not step.resources.mig_profile
        and trial.search.is_hopeless(candidate.demand, step.ranks, step.together)
        and trial.evictor.is_full
        and not trial.needs_promise(candidate)
        and trial.evictor.has_given_up(candidate)
    )


def _start(draft: Draft, candidate: Candidate) -> Amounts | None:
    """Start the candidate's next lease; what it holds. None: it does not start now."""
    lease = draft.trial.start(candidate, f"l{draft.trial.state.next_lease + len(draft.starts)}")
    if lease is None:
        return None
    amounts = candidate.amounts_on(len(lease.allocations))
    draft.grant(lease, amounts)
    return amounts


def _waits(draft: Draft) -> Iterator[Wait]:
    """One for each step of which something waits: those in the order first."""
    delayed = dict(draft.delayed)
    for position, candidate in enumerate(chain(draft.left_over, draft.unseen), start=1):
        reasons, left = reasons_of(draft.trial, candidate), candidate.left
        later = delayed.pop(candidate.key, None)
        if later is not None:
            reasons, left = (*reasons, *later.reasons), left + later.tasks
        yield waiting(candidate.job, candidate.step, left, position, reasons)
    yield from draft.barred
    yield from delayed.values()
