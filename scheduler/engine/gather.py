"""Cards that lie apart are put together: under an objective small gangs move where a large one is to run.

An objective counts cards by model. A gang of whole nodes may so be given a place while what is free lies in crumbs on
many nodes: then smaller ones that have room elsewhere go there, if all of them together lose less time by moving than
the gang would wait for them to end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from scheduler.engine.candidates import Candidate
from scheduler.model.job import Together
from scheduler.model.lease import Allocation
from scheduler.placement.fit import Demand, Features, capacity
from scheduler.placement.future import allocate
from scheduler.placement.view import NodeView
from scheduler.queueing.item import Place

Views = dict[str, NodeView]


@dataclass(frozen=True, slots=True, kw_only=True)
class Movable:
    """A lease on one node that may be stopped to go on elsewhere."""

    lease_id: str
    tenant: str
    demand: Demand
    allocation: Allocation
    lose_ms: int
    """Its restart, and the work since its last checkpoint."""
    left_ms: int
    """It is likely to run for so long."""


def gather(
    views: Views, asking: Iterable[tuple[Candidate, Place]], movable: Sequence[Movable], features: Features
) -> list[str]:
    """Leases that are to move, so that those who have a place find one.

    ``views``: the nodes when all that is being stopped is gone. Any order of ``asking`` and ``movable`` gives the same.
    """
    found: list[str] = []
    large = [(c, place) for c, place in asking if _may_lack_a_node(c)]
    for candidate, (model, ranks) in sorted(large, key=lambda each: (-each[0].step.resources.cards, each[0].key)):
        ask = replace(candidate.demand.resources, card_models=(model,))
        demand, tenant = replace(candidate.demand, resources=ask), candidate.job.tenant
        after, moved = dict(views), list[str]()
        for _ in range(ranks - _put(after, demand, tenant, ranks, features)):
            left = [m for m in movable if m.lease_id not in found and m.lease_id not in moved]
            way = _clear(after, demand, tenant, left, features)
            if not way:
                break
            moved += way
        else:
            views, found = after, [*found, *moved]
    return found


def _may_lack_a_node(candidate: Candidate) -> bool:
    """Enough cards may be free and no place among them. Ranks that must lie near to each other are not looked at."""
    step = candidate.step
    return step.resources.cards > 1 and (step.ranks == 1 or step.together is Together.ANYWHERE)


def _put(views: Views, demand: Demand, tenant: str, copies: int, features: Features) -> int:
    """Take room for so many copies, on the fullest nodes first; how many found some."""
    rooms = sorted((fits, name) for name, view in views.items() if (fits := capacity(view, demand, features)))
    left = copies
    for fits, name in rooms:
        for _ in range(min(fits, left)):
            views[name] = views[name].take(allocate(views[name], demand, features), tenant)
            left -= 1
    return copies - left


def _clear(views: Views, demand: Demand, tenant: str, movable: Sequence[Movable], features: Features) -> list[str]:
    """Take room for one copy on the node where least is lost by moving; who moves. Empty: on none is that worth it."""
    there: dict[str, list[Movable]] = {}
    for each in movable:
        if each.demand.resources.cards < demand.resources.cards:
            there.setdefault(each.allocation.node, []).append(each)
    ways = [way for name, here in there.items() if (way := _way(views[name], demand, here, features))]
    for way in sorted(ways, key=lambda way: (sum(m.lose_ms for m in way), way[0].allocation.node)):
        if sum(m.lose_ms for m in way) >= max(m.left_ms for m in way):
            continue
        after, name = dict(views), way[0].allocation.node
        for each in way:
            after[name] = after[name].give_back(each.allocation)
        after[name] = after[name].take(allocate(after[name], demand, features), tenant)
        if all(_put(after, each.demand, each.tenant, 1, features) for each in way):
            views.update(after)
            return [each.lease_id for each in way]
    return []


def _way(view: NodeView, demand: Demand, here: Iterable[Movable], features: Features) -> list[Movable]:
    """Of those on a node who lose least per card, as many as make room for one copy, largest first; empty: none do."""
    way: list[Movable] = []
    for each in sorted(here, key=lambda m: (m.lose_ms // m.demand.resources.cards, m.lease_id)):
        way.append(each)
        view = view.give_back(each.allocation)
        if capacity(view, demand, features):
            return sorted(way, key=lambda m: (-m.demand.resources.cards, m.lease_id))
    return []
