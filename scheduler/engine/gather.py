"""Cards that lie apart are put together: under an objective small gangs move where a large one is to run.

An objective counts cards by model. A gang of whole nodes may so be given a place while what is free lies in crumbs on
many nodes: then smaller ones that have room elsewhere go there, if all of them together lose less time by moving than
the gang would wait for them to end.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from scheduler.engine.candidates import Candidate
from scheduler.model.job import Together
from scheduler.placement.defrag import Goal, Rearrangement, rearrange
from scheduler.placement.fit import Features
from scheduler.placement.room import Mover, room_sets
from scheduler.placement.view import NodeView
from scheduler.queueing.item import Place

TRIES = 200
"""Seats tried for each way."""
WAYS = 4
"""Ways looked at for each gang until one is worth it."""


def gather(
    views: Mapping[str, NodeView],
    asking: Iterable[tuple[Candidate, Place]],
    movers: Sequence[Mover],
    left_ms: Mapping[str, int],
    features: Features,
) -> list[str]:
    """Leases that are to move, so that those who have a place find one.

    ``views``: the nodes when all that is being stopped is gone. A mover's price is its restart and the work since its
    last checkpoint, in ms; it is likely to run for ``left_ms``. Any order of ``asking`` and ``movers`` gives the same.
    """
    found: dict[str, Mover] = {}
    large = [(c, place) for c, place in asking if _may_lack_a_node(c)]
    for candidate, (model, ranks) in sorted(large, key=lambda each: (-each[0].step.resources.cards, each[0].key)):
        ask = replace(candidate.demand.resources, card_models=(model,))
        goal = Goal(demand=replace(candidate.demand, resources=ask), tenant=candidate.job.tenant, ranks=ranks)
        able = [m for m in movers if m.lease_id not in found and m.demand.resources.cards < ask.cards]
        way = _worth_it(views, able, goal, left_ms, features)
        if way is None:
            continue
        known = {m.lease_id: m for m in able}
        moved = {move.lease_id: known[move.lease_id] for move in way.moves}
        views = _after(views, way, goal, moved)
        found |= moved
    return list(found)


def _worth_it(
    views: Mapping[str, NodeView], able: Sequence[Mover], goal: Goal, left_ms: Mapping[str, int], features: Features
) -> Rearrangement | None:
    """The cheapest moves of which the last lease would run for longer than all lose: else whoever ends first stays."""
    for _ in range(WAYS):
        if next(room_sets(views, able, goal.demand, goal.ranks, features), None) is None:
            return None  # which rearrange would learn by trying all of them
        way = rearrange(views, able, goal, features, tries=TRIES)
        if way is None or not way.moves or way.price < max(left_ms[move.lease_id] for move in way.moves):
            return way
        _, first = min((left_ms[move.lease_id], move.lease_id) for move in way.moves)
        able = [mover for mover in able if mover.lease_id != first]
    return None


def _may_lack_a_node(candidate: Candidate) -> bool:
    """Enough cards may be free and no place among them. Ranks that must lie near to each other are not looked at."""
    step = candidate.step
    return step.resources.cards > 1 and (step.ranks == 1 or step.together is Together.ANYWHERE)


def _after(
    views: Mapping[str, NodeView], way: Rearrangement, goal: Goal, moved: Mapping[str, Mover]
) -> dict[str, NodeView]:
    after = dict(views)
    for held in (held for mover in moved.values() for held in mover.allocations):
        after[held.node] = after[held.node].give_back(held)
    taken = [(place, moved[move.lease_id].tenant) for move in way.moves for place in move.places]
    for place, tenant in (*taken, *((place, goal.tenant) for place in way.goal)):
        after[place.node] = after[place.node].take(place, tenant)
    return after
