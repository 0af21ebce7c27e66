"""Slots: stretches of time on named nodes that were promised to jobs with a deadline, and that nobody may delay.

A slot is recorded with its job. Each plan keeps those that have not begun before it places anything: in the guard, at
their start, on their nodes. One whose nodes are lost, closed or held by what overstays is sought anew, for this plan;
one whose time has come starts first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from scheduler.engine.candidates import Candidate
from scheduler.engine.guard import Promise
from scheduler.engine.trial import Trial
from scheduler.model.job import Slot, Step
from scheduler.model.lease import Allocation, number_of
from scheduler.placement.fit import Demand, capacity, demand_of
from scheduler.placement.view import NodeView, leasable
from scheduler.queueing.calendar import FOREVER_MS
from scheduler.queueing.item import Place
from scheduler.queueing.order import amounts_of
from scheduler.queueing.quota import ancestors
from scheduler.queueing.rate import FULL_PERMILLE, work_rate_permille

SWITCH_MS = 10_000
"""A slot lasts so much longer than its run: an end must be noticed, and a start takes its time."""
TRIES = 32
"""Starts that are tried against the limits of its queue."""


def keep(trial: Trial, candidates: Iterable[Candidate]) -> list[Candidate]:
    """Keep the slots of all candidates that have one; those that are to start now, in order."""
    slotted = [(c, c.job.slot) for c in candidates if c.job.slot is not None]
    slotted.sort(key=lambda found: (found[1].start_ms, number_of(found[0].job.id)))
    lost: list[Candidate] = []
    for candidate, slot in slotted:
        steer(candidate, slot)
        promise = _recorded(trial, candidate, slot)
        if promise is None:
            lost.append(candidate)
        else:
            trial.keep_slot(promise)
    for candidate in lost:
        _seek_anew(trial, candidate)
    due = [c for c, _ in slotted if c.key in trial.slots and trial.slots[c.key].start_ms <= trial.now_ms]
    for candidate in due:
        candidate.slot_nodes = tuple(a.node for a in trial.slots[candidate.key].allocations)
    return due


def steer(candidate: Candidate, slot: Slot) -> None:
    """It may run as its slot says only: on cards of that model, with so many ranks."""
    candidate.place = slot.model, slot.ranks
    candidate.demand = on_model(candidate.demand, slot.model)


def find(trial: Trial, candidate: Candidate, by_ms: int) -> Slot | None:
    """The stretch of least card time that ends by an instant, in what runs and what was promised leave; then the
    earliest. None: there is none.
    """
    options = sorted((ranks * length, length, ranks, model) for model, ranks, length in places(trial, candidate))
    best: tuple[int, int, Slot] | None = None
    for cost, length, ranks, model in options:
        if best is not None and cost > best[0]:
            break
        slot = _first(trial, candidate, (model, ranks), length, by_ms)
        if slot is not None and (best is None or (cost, slot.start_ms) < best[:2]):
            best = cost, slot.start_ms, slot
    return None if best is None else best[2]


def places(trial: Trial, candidate: Candidate) -> Iterator[tuple[str, int, int]]:
    """``(card model, ranks, length of its slot)`` of each way to run it."""
    step, shapes = candidate.step, trial.state.shapes
    ask = step.resources
    models = {""}
    if ask.cards or ask.card_milli:
        nodes = (trial.state.nodes[name].node for name in shapes.possible(shapes.of(candidate.demand)))
        models = {device.model for node in nodes for device in leasable(node)}
        models &= set(ask.card_models) or models
    for model in sorted(models):
        for ranks in _sizes(step):
            yield model, ranks, length_ms(candidate, (model, ranks))


def length_ms(candidate: Candidate, place: Place) -> int:
    """How long a slot of this kind lasts."""
    rate = max(work_rate_permille(candidate.step, place[1], place[0]), 1)
    work_ms = candidate.careful_ms - candidate.restart_ms
    return candidate.restart_ms + work_ms * FULL_PERMILLE // rate + SWITCH_MS


def _sizes(step: Step) -> list[int]:
    if not step.ranks_min:
        return [step.ranks]
    return sorted({step.ranks, step.ranks_min, *(n for n, _ in step.scaling if step.ranks_min <= n <= step.ranks)})


def on_model(demand: Demand, model: str) -> Demand:
    """The demand where cards of one model only will do; an empty model: as it is."""
    return replace(demand, resources=replace(demand.resources, card_models=(model,))) if model else demand


def _recorded(trial: Trial, candidate: Candidate, slot: Slot) -> Promise | None:
    """The slot as it was promised; None: it cannot be kept so."""
    promise = _promise(trial, candidate, slot)
    queues = ancestors(trial.state.queues, candidate.queue)
    is_late = slot.start_ms < trial.now_ms and promise.end_ms > slot.end_ms
    if is_late or any(trial.calendar.closed(n, queues, promise.start_ms, slot.end_ms) for n in promise.nodes):
        return None
    for name in promise.nodes:
        view = trial.search.nodes.get(name)
        if view is None:
            return None
        view = view if slot.start_ms <= trial.now_ms else NodeView.empty(view.node)
        if capacity(view, candidate.demand, trial.state.shapes.features) < promise.copies(name):
            return None
    return promise


def _promise(trial: Trial, candidate: Candidate, slot: Slot) -> Promise:
    """The slot for the guard; one that begins late lasts as long as the step still takes."""
    late_ms = trial.now_ms + length_ms(candidate, (slot.model, slot.ranks)) if slot.start_ms < trial.now_ms else 0
    start_ms, end_ms = max(slot.start_ms, trial.now_ms), late_ms or slot.end_ms
    return candidate.promise((Allocation(node=name) for name in slot.nodes), start_ms, end_ms, is_slot=True)


def _seek_anew(trial: Trial, candidate: Candidate) -> None:
    """Another slot that ends in time, or the one that ends first."""
    candidate.demand, candidate.place = demand_of(candidate.step, candidate.job.tenant), None
    slot = find(trial, candidate, candidate.job.deadline_ms) or soonest(trial, candidate)
    if slot is not None:
        steer(candidate, slot)
        trial.keep_slot(_promise(trial, candidate, slot))


def soonest(trial: Trial, candidate: Candidate, *, but: Collection[str] = ()) -> Slot | None:
    """The slot that ends first, however late; None: it will never run here. ``but``: without these nodes."""
    ways = places(trial, candidate)
    found = (_first(trial, candidate, (model, ranks), length, FOREVER_MS, but) for model, ranks, length in ways)
    slots = [slot for slot in found if slot is not None]
    return min(slots, key=lambda slot: (slot.end_ms, slot.ranks, slot.model), default=None)


def _first(  # noqa: PLR0917 (all of them decide)
    trial: Trial, candidate: Candidate, place: Place, length: int, by_ms: int, but: Collection[str] = ()
) -> Slot | None:
    """The first slot of one kind that ends in time and within every limit."""
    model, ranks = place
    shapes, demand = trial.state.shapes, on_model(candidate.demand, model)
    names = [name for name in shapes.possible(shapes.of(demand)) if name not in but]
    gaps = trial.starts.gaps(trial.expected.lasts)
    asked = replace(trial.starts.stretch(candidate, ranks, length), demand=demand, latest_ms=by_ms - length)
    amounts = amounts_of(demand.resources, ranks)
    for _ in range(TRIES):
        found = gaps.earliest(asked, names)
        if found is None:
            return None
        start_ms, seats = found
        opens_ms = trial.slots.opens_ms(
            candidate.queue, amounts, candidate.key, start_ms, start_ms + length, trial.expected.last_end_ms
        )
        if opens_ms == start_ms:
            nodes = tuple(seat.node for seat in seats)
            return Slot(model=model, ranks=ranks, start_ms=start_ms, end_ms=start_ms + length, nodes=nodes)
        if opens_ms > asked.latest_ms:
            return None
        asked = replace(asked, from_ms=opens_ms)
    return None
