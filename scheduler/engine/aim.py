"""Which gangs are to run where now, where the policy steers them towards an objective.

Steered are single-task steps on whole cards, but for those that have a slot. Everything else starts in the order of its
queue on what they leave.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from scheduler.engine.candidates import Candidate
from scheduler.engine.ends import LIKELY_PERMILLE, estimate_of, left_ms
from scheduler.engine.gather import gather
from scheduler.engine.state import State
from scheduler.model.job import Job, Step
from scheduler.model.lease import LeaseRecord
from scheduler.model.node import DeviceKind, Health, NodeState
from scheduler.model.plan import Preempt, Reason, ReasonKind
from scheduler.model.policy import Objective, Policy
from scheduler.placement.fit import demand_of
from scheduler.placement.room import Mover
from scheduler.placement.view import leasable
from scheduler.queueing import gittins
from scheduler.queueing.allot import allot
from scheduler.queueing.item import NEVER_MS, Item, Place, Supply, item_of
from scheduler.queueing.lifecycle import find_step
from scheduler.queueing.rate import FULL_PERMILLE, work_rate_permille

TIMETABLE_PERMILLE = 900
"""Quantile of the work left for which cards are sought that end it by its deadline, where there are any: those that are
just enough for the likely work would end half of what owners misjudge too late."""
STAY_LEAST_MS = 60_000
STAY_RESTARTS = 5
"""A lease is left alone until it has run so many times as long as its restart takes. So no more than a sixth of the
time is lost to restarts, however often the best plan changes: else gangs of like size can change places for ever."""
Key = tuple[str, str]
"""``(job, step)``"""


@dataclass(slots=True)
class Aim:
    """What one plan steers towards."""

    places: dict[Key, Place] = field(default_factory=dict)
    """Where steered steps are to run now."""
    steered: frozenset[Key] = frozenset()
    """Those without a place are to have none."""
    stops: tuple[Preempt, ...] = ()
    wake_ms: int = 0


def aim(state: State, candidates: Iterable[Candidate], now_ms: int, policy: Policy) -> Aim:
    """Places for all steered steps, and the leases that are to move, shrink or make way."""
    if policy.objective is Objective.ORDER:
        return Aim()
    waiting = {c.key: c for c in candidates if _is_steered(c.job, c.step)}
    held = dict(_held(state))
    running = {key: record for key, record in held.items() if not record.stopping}
    if not waiting and not running:
        return Aim()
    supply = _supply(state, held)
    models = [model for model, _ in supply.cards]
    items = [_waiting_item(c, models) for c in waiting.values()]
    settled_ms = {key: _settled_ms(state, key, record) for key, record in running.items()}
    for key, record in running.items():
        item = _running_item(state, key, record, models, now_ms)
        items.append(replace(item, settles_ms=settled_ms[key]))
    items += [_stopping_item(state, *each, models, now_ms) for each in held.items() if _comes_back(state, *each)]
    found = allot(items, supply, now_ms, policy.objective, margin_ms=policy.margin_ms)
    keys = {_text(key): key for key in (*waiting, *held)}
    places = {keys[text]: place for text, place in found.places.items()}
    moved = ((key, r) for key, r in running.items() if _moves(state, key, r, places.get(key)))
    stops = tuple(_stop(state, key, record, places.get(key)) for key, record in moved)
    asking = [(c, place) for key, c in waiting.items() if (place := places.get(key)) is not None]
    if any(c.step.resources.cards > 1 for c, _ in asking):
        lost_ms = {item.key: item.lose_ms for item in items}
        rest_ms = {r.lease.id: left_ms(state, r, now_ms, estimate_of(state, *key)) for key, r in running.items()}
        settled = [(key, r, lost_ms[_text(key)]) for key, r in running.items() if now_ms >= settled_ms[key]]
        stops += tuple(_gathered(state, asking, settled, {stop.lease_id for stop in stops}, rest_ms))
    marks = [found.wake_ms, *(settled_ms.values() if waiting else ())]
    wake_ms = min((mark for mark in marks if now_ms < mark < NEVER_MS), default=0)
    return Aim(places=places, steered=frozenset(keys.values()), stops=stops, wake_ms=wake_ms)


def _gathered(
    state: State,
    asking: list[tuple[Candidate, Place]],
    settled: list[tuple[Key, LeaseRecord, int]],
    stopped: set[str],
    rest_ms: dict[str, int],
) -> Iterator[Preempt]:
    """Stops of who moves to another node, so that those who have a place find one; nobody who has a deadline moves.

    ``settled``: with what each loses. ``rest_ms``: how much longer each lease is likely to run.
    """
    views = dict(state.nodes)
    for record in state.leases.values():
        if record.stopping or record.lease.id in stopped:
            for allocation in record.lease.allocations:
                views[allocation.node] = views[allocation.node].give_back(allocation)
    movers: list[Mover] = []
    for key, record, lose_ms in settled:
        job, lease = state.jobs[key[0]], record.lease
        step, _ = find_step(job, key[1])
        alone = len(lease.allocations) == 1
        if job.job.deadline_ms or not step.preemptible or not alone or lease.id in stopped:
            continue
        movers.append(
            Mover(
                lease_id=lease.id,
                tenant=lease.tenant,
                demand=demand_of(step, lease.tenant),
                allocations=lease.allocations,
                price=lose_ms,
            )
        )
    for lease_id in gather(views, asking, movers, rest_ms, state.shapes.features):
        record = state.leases[lease_id]
        reason = "goes on on another node, so that a larger gang finds its cards on one"
        yield Preempt(lease_id=lease_id, for_job=record.lease.job_id, reason=reason, place=_place(state, record))


def steer(candidate: Candidate, place: Place | None) -> None:
    """Let a steered candidate start at its place only, or not at all for now."""
    candidate.place = place
    if place is None:
        message = "the cards it could have are better used by other gangs now"
        candidate.blocked = Reason(kind=ReasonKind.ORDER, message=message)
    else:
        ask = replace(candidate.demand.resources, card_models=(place[0],))
        candidate.demand = replace(candidate.demand, resources=ask)


def _is_steered(job: Job, step: Step) -> bool:
    whole = step.count == 1 and step.resources.cards > 0 and not step.resources.mig_profile
    return whole and not job.is_promised


def _held(state: State) -> Iterator[tuple[Key, LeaseRecord]]:
    """Leases of steered steps, those that are being stopped too: their cards are as good as free for those they stop
    for, and nobody else is to be stopped for the same.
    """
    for record in state.leases.values():
        job = state.jobs[record.lease.job_id]
        step, _ = find_step(job, record.lease.step)
        if _is_steered(job.job, step):
            yield (job.job.id, step.name), record


def _comes_back(state: State, key: Key, record: LeaseRecord) -> bool:
    job = state.jobs[key[0]]
    return record.stopping and not (job.held or job.cancelled or job.failing)


def _supply(state: State, held: dict[Key, LeaseRecord]) -> Supply:
    """Healthy cards by model that nobody else holds."""
    steered = {device for r in held.values() for a in r.lease.allocations for device in a.devices}
    cards: dict[str, int] = {}
    for view in state.nodes.values():
        if view.node.state is not NodeState.READY:
            continue
        for device in leasable(view.node):
            ours = device.id in steered or device.id not in view.held
            if ours and device.kind is DeviceKind.CARD and device.health is Health.OK:
                cards[device.model] = cards.get(device.model, 0) + 1
    return Supply(cards=tuple(sorted(cards.items())))


def _waiting_item(candidate: Candidate, models: list[str]) -> Item:
    estimate, kept_ms = candidate.estimate, candidate.kept_ms
    remaining_ms = estimate.left(kept_ms)  # as of what runs: else it seems shorter while it waits
    item = item_of(candidate.step, key=_text(candidate.key), remaining_ms=remaining_ms, models=models)
    restart_ms = candidate.step.restart_ms if candidate.record.preempted or candidate.record.worked else 0
    known = candidate.step.run_ms_expected or candidate.record.run_count
    index_ms = 0 if known else gittins.index_ms(estimate.atoms, candidate.served_ms)
    item = replace(item, lose_ms=restart_ms, index_ms=index_ms, running=candidate.record.goes_on)
    return _of_job(item, candidate.job, estimate.left(kept_ms, TIMETABLE_PERMILLE))


def _of_job(item: Item, job: Job, careful_ms: int) -> Item:
    return replace(
        item,
        careful_ms=careful_ms if job.deadline_ms else 0,
        deadline_ms=job.deadline_ms,
        submitted_ms=job.submitted_ms,
        weight=max(1, job.priority),
    )


def _running_item(state: State, key: Key, record: LeaseRecord, models: list[str], now_ms: int) -> Item:
    job = state.jobs[key[0]]
    step, done = find_step(job, key[1])
    estimate, place = estimate_of(state, *key), _place(state, record)
    rate = max(1, work_rate_permille(step, place[1], place[0]))

    def work_ms(permille: int) -> int:
        return max(1, left_ms(state, record, now_ms, estimate, permille) * rate // FULL_PERMILLE)

    ran_ms = now_ms - record.lease.granted_ms
    lost_ms = ran_ms % step.checkpoint_ms if step.checkpoint_ms else ran_ms
    item = item_of(step, key=_text(key), remaining_ms=work_ms(LIKELY_PERMILLE), models=models)
    ran_ms += done.served_ms // step.ranks
    known = step.run_ms_expected or done.run_count
    index_ms = 0 if known else gittins.index_ms(estimate.atoms, ran_ms)
    item = replace(item, running=place, lose_ms=step.restart_ms + lost_ms, index_ms=index_ms)
    return _of_job(item, job.job, work_ms(TIMETABLE_PERMILLE) if job.job.deadline_ms else 0)


def _settled_ms(state: State, key: Key, record: LeaseRecord) -> int:
    """From when on a lease may be stopped for the objective."""
    step, _ = find_step(state.jobs[key[0]], key[1])
    return record.lease.granted_ms + max(STAY_LEAST_MS, STAY_RESTARTS * step.restart_ms)


def _stopping_item(state: State, key: Key, record: LeaseRecord, models: list[str], now_ms: int) -> Item:
    """As it will wait once it has stopped, with the rest of its work, not of its grace."""
    step, done = find_step(state.jobs[key[0]], key[1])
    item = _running_item(state, key, replace(record, stopping=False), models, now_ms)
    return replace(item, running=done.goes_on, lose_ms=step.restart_ms)


def _place(state: State, record: LeaseRecord) -> Place:
    return min(state.models_of(record.lease), default=""), len(record.lease.allocations)


def _moves(state: State, key: Key, record: LeaseRecord, place: Place | None) -> bool:
    step, _ = find_step(state.jobs[key[0]], key[1])
    return step.preemptible and place != _place(state, record)


def _stop(state: State, key: Key, record: LeaseRecord, place: Place | None) -> Preempt:
    now = _place(state, record)
    if place is None:
        reason = "makes way for gangs that gain more from its cards"
    elif place[0] != now[0]:
        reason = f"goes on on {place[1]} ranks of {place[0]}"
    else:
        reason = f"goes on with {place[1]} ranks instead of {now[1]}"
    return Preempt(lease_id=record.lease.id, for_job=key[0], reason=reason, place=place)


def _text(key: Key) -> str:
    return f"{key[0]}.{key[1]}"
