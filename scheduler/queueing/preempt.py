"""Whose leases are stopped for whom: who may be stopped, what a stop costs, and the cheapest set that is enough.

Nobody is stopped by someone it displaced. A lease taken for a guarantee is covered by it, and what is covered is not
reclaimed (:meth:`scheduler.queueing.quota.Quotas.may_reclaim`). One taken for priority is a class ahead of what it
displaced, in the same queue; a queue reclaims nothing from itself, and waiting makes nobody preempt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scheduler.model.job import JobRecord, Step
from scheduler.model.lease import AttemptRecord, AttemptState, LeaseRecord
from scheduler.model.policy import Policy, Preemption
from scheduler.queueing.rank import weight_milli

EXACT_MAX = 12
"""Candidates up to which the cheapest set is found exactly: at most 2**12 sets, most of them cut off."""
SWAPS_MAX = 64
"""Exchanges tried on a larger instance."""
GROUPS_MAX = 32
"""Nodes whose own leases are tried as a set on a larger instance, cheapest for their size first."""
ENTITLED_FACTOR = 4
"""A lease within its queue's guarantee costs as much as four borrowed ones that would lose the same."""

Fits = Callable[[frozenset[str]], bool]
Key = tuple[int, int, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    """A lease that may be stopped."""

    lease_id: str
    cost: int
    """What a stop loses, see :func:`cost_of`; not negative."""
    freed: int = 1
    """How much a stop gives back, in any one unit; for the order in which large instances are tried."""
    nodes: tuple[str, ...] = ()
    """Where."""


class Ground(StrEnum):
    """Why a lease may be stopped for someone."""

    PROMISE = "promise"
    """It was granted on the condition that it leaves for whoever asks."""
    GUARANTEE = "guarantee"
    PRIORITY = "priority"
    AHEAD = "ahead"
    """Policy ALWAYS only: whoever asks is ahead in the order. The caller weighs gain against cost."""


def ground(
    policy: Policy, step: Step, job: JobRecord, lease: LeaseRecord, *, priority: int, queue: str, reclaims: bool
) -> Ground | None:
    """Why ``lease`` (of ``step`` of ``job``) may be stopped for a job of ``priority`` in ``queue``; None: it may not.

    ``reclaims``: the queue may take its guarantee back from this lease. Priorities are those of the job files: waiting
    makes nobody preempt. AHEAD is given for equal or lower priority of the same queue.
    """
    if policy.preemption is Preemption.NEVER or lease.stopping or not step.preemptible or spared(job, policy):
        return None
    if reclaims:
        return Ground.GUARANTEE
    if job.job.queue != queue:
        return None
    if priority - job.job.priority >= max(1, policy.preempt_gap):
        return Ground.PRIORITY
    if policy.preemption is Preemption.ALWAYS and priority >= job.job.priority:
        return Ground.AHEAD
    return None


def spared(job: JobRecord, policy: Policy) -> bool:
    """The job's budget is used up: its tasks were preempted ``preempted_max`` times each, on average."""
    tasks = sum(step.count for step in job.job.steps)
    return sum(step.preempted for step in job.steps) >= policy.preempted_max * max(1, tasks)


def unit_ms(step: Step, tasks: int, task_ms: int) -> int:
    """What a lease of ``tasks`` tasks must run before a stop leaves anything of it; 0: nothing before its end.

    A checkpoint behind the restart, or, of several tasks one after the other, the first (``task_ms`` each).
    """
    if step.checkpoint_ms:
        return step.restart_ms + step.checkpoint_ms
    return task_ms if tasks > 1 else 0


def cost_of(
    step: Step, lease: LeaseRecord, attempts: Iterable[AttemptRecord], now_ms: int, *, priority: int, entitled: bool
) -> int:
    """What stopping ``lease`` now loses: card-thousandths x ms, weighed by priority and entitlement.

    The time of the attempt that runs since its last checkpoint (they come every ``checkpoint_ms``) or its start, plus
    the restart. Attempts that ended are kept, those that did not begin lose nothing; before the first start counts what
    was spent on getting there.
    """
    lost_ms = lost_of(step, lease, attempts, now_ms) + step.restart_ms
    weighed = lost_ms * weight_milli(step.resources) * len(lease.lease.allocations)
    return weighed * (100 + priority) * (ENTITLED_FACTOR if entitled else 1) // 100


def lost_of(step: Step, lease: LeaseRecord, attempts: Iterable[AttemptRecord], now_ms: int) -> int:
    """Milliseconds of work that stopping ``lease`` now would lose."""
    tried = tuple(attempts)
    running = [attempt for attempt in tried if attempt.state is AttemptState.RUNNING]
    if running:
        ran_ms = max(0, now_ms - max(attempt.started_ms for attempt in running))
        return ran_ms % step.checkpoint_ms if step.checkpoint_ms else ran_ms
    ended_ms = max((attempt.finished_ms for attempt in tried if attempt.state.is_final), default=0)
    return max(0, now_ms - max(lease.lease.granted_ms, ended_ms))


def choose(victims: Sequence[Victim], fits: Fits, allowed: Fits | None = None) -> tuple[str, ...]:
    """The cheapest leases whose end is enough, sorted; empty when no set of them is (or nothing need end).

    ``fits`` says whether the job fits once exactly these have ended; ending more never makes it fit less. ``allowed``
    says whether these may end together; if so, then fewer of them may. Up to EXACT_MAX victims the result is the
    optimum by cost, then number, then names; beyond, each victim in it is needed.
    """
    if fits(frozenset()) or not fits(_names(victims)):
        return ()
    rules = _Rules(fits, allowed)
    return _exact(victims, rules) if len(victims) <= EXACT_MAX else _large(victims, rules)


class _Rules:
    """What the caller says, each set asked for once."""

    def __init__(self, fits: Fits, allowed: Fits | None) -> None:
        self._fits = fits
        self._allowed = allowed
        self._known: dict[frozenset[str], bool] = {}

    def fits(self, ended: frozenset[str]) -> bool:
        if ended not in self._known:
            self._known[ended] = self._fits(ended)
        return self._known[ended]

    def allowed(self, ended: frozenset[str]) -> bool:
        return self._allowed is None or self._allowed(ended)

    def enough(self, victims: Iterable[Victim]) -> bool:
        return self.fits(_names(victims))

    def together(self, victims: Iterable[Victim]) -> list[Victim]:
        """``victims`` without those that may not end beside the ones before them."""
        kept: list[Victim] = []
        for victim in victims:
            if self.allowed(_names((*kept, victim))):
                kept.append(victim)
        return kept


def _exact(victims: Sequence[Victim], rules: _Rules) -> tuple[str, ...]:
    """Branch and bound."""
    order = sorted(victims, key=lambda v: (-v.cost, v.lease_id))  # the dearest first: most are shown to be needless
    best: Key = (sum(v.cost for v in victims), len(victims) + 1, ())

    def search(at: int, taken: tuple[Victim, ...]) -> None:
        nonlocal best
        key = _key(taken)
        ended = frozenset(key[2])
        if key[:2] > best[:2] or not rules.allowed(ended):
            return
        if rules.fits(ended):
            best = min(best, key)
            return
        rest = order[at:]
        if not rest or not rules.fits(ended.union(v.lease_id for v in rest)):
            return
        if (key[0] + min(v.cost for v in rest), key[1] + 1) > best[:2]:
            return
        search(at + 1, taken)
        search(at + 1, (*taken, order[at]))

    search(0, ())
    return best[2]


def _large(victims: Sequence[Victim], rules: _Rules) -> tuple[str, ...]:
    """Several greedy starts, each made irreducible and improved; the cheapest result."""
    singly = [(v,) for v in sorted(victims, key=lambda v: _ratio((v,)))]
    groups = _by_node(victims)
    best: Key | None = None
    for start in (_prefix(singly, rules), _prefix(groups, rules)):
        if start:
            key = _key(_improve(_irreducible(start, rules), singly, rules))
            best = key if best is None else min(best, key)
    for group in groups[:GROUPS_MAX]:
        if (best is None or min(v.cost for v in group) < best[0]) and rules.enough(group):
            start = rules.together(group)
            if rules.enough(start):
                key = _key(_improve(_irreducible(start, rules), singly, rules))
                best = key if best is None else min(best, key)
    return best[2] if best is not None else ()


def _by_node(victims: Sequence[Victim]) -> list[tuple[Victim, ...]]:
    """The leases of each node, cheapest for their size first."""
    groups: dict[str, list[Victim]] = {}
    for victim in victims:
        for node in victim.nodes or ("",):
            groups.setdefault(node, []).append(victim)
    return sorted((tuple(group) for group in groups.values()), key=_ratio)


def _prefix(groups: Sequence[tuple[Victim, ...]], rules: _Rules) -> list[Victim]:
    """The shortest run of groups from the first on that is enough, by bisection; longer where not all may end."""
    low, high = 0, len(groups)
    while low < high:
        middle = (low + high) // 2
        if rules.enough(v for group in groups[:middle] for v in group):
            high = middle
        else:
            low = middle + 1
    unique = {v.lease_id: v for group in groups[:low] for v in group}
    kept = rules.together(unique.values())
    for group in groups[low : low + GROUPS_MAX]:
        if rules.enough(kept):
            break
        kept = rules.together((*kept, *(v for v in group if v not in kept)))
    return kept if rules.enough(kept) else []


def _irreducible(taken: Sequence[Victim], rules: _Rules) -> list[Victim]:
    """``taken`` without what is not needed, the dearest left out first."""
    kept = sorted(taken, key=lambda v: (-v.cost, v.lease_id))
    for victim in tuple(kept):
        fewer = [v for v in kept if v is not victim]
        if rules.enough(fewer):
            kept = fewer
    return kept


def _improve(taken: list[Victim], singly: Sequence[tuple[Victim]], rules: _Rules) -> list[Victim]:
    """Exact among what is taken and the best of the rest where that is few, else cheaper ones swapped in."""
    inside = _names(taken)
    rest = [v for (v,) in singly if v.lease_id not in inside]
    if len(taken) < EXACT_MAX:
        pool = {v.lease_id: v for v in (*taken, *rest[: EXACT_MAX - len(taken)])}
        return [pool[name] for name in _exact(tuple(pool.values()), rules)]
    tries = SWAPS_MAX
    for victim in sorted(taken, key=lambda v: (-v.cost, v.lease_id)):
        for other in rest:
            if other.cost >= victim.cost or not tries:
                continue
            tries -= 1
            swapped = [*(v for v in taken if v is not victim), other]
            if rules.enough(swapped) and rules.allowed(_names(swapped)):
                taken = swapped
                rest = [v for v in rest if v is not other]
                break
    return _irreducible(taken, rules)


def _ratio(group: Sequence[Victim]) -> tuple[int, int, str]:
    """Cost per amount freed, in parts of a million."""
    cost, freed = sum(v.cost for v in group), sum(v.freed for v in group)
    return cost * 1_000_000 // max(1, freed), cost, min(v.lease_id for v in group)


def _names(victims: Iterable[Victim]) -> frozenset[str]:
    return frozenset(victim.lease_id for victim in victims)


def _key(victims: Sequence[Victim]) -> Key:
    return sum(v.cost for v in victims), len(victims), tuple(sorted(v.lease_id for v in victims))
