"""Nodes that move between the pool and the job lane, where those who wait gain more than the move costs.

An idle node moves at once. For a gang busy ones are kept free of anything that would not end before the rest have: they
drain, and move when nothing holds them any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from scheduler.engine.candidates import Candidate
from scheduler.engine.trial import Trial
from scheduler.model.lease import Allocation
from scheduler.model.node import Lane, NodeState
from scheduler.model.plan import Convert, Preempt
from scheduler.placement.fit import capacity
from scheduler.placement.view import NodeView

GAIN = 2
"""Work that waits must take so many times as long as the move, on the nodes that move."""
LOOKED_AT = 16
"""Waiting steps for which a plan looks for nodes in the other lane."""


def drain(trial: Trial, candidate: Candidate) -> tuple[Preempt, ...]:
    """A gang is next and does not fit in its lane: keep nodes of the other lane for it, where that is sooner.

    What leaves for it is stopped on nodes that hold nothing else: they move next.
    """
    if candidate.step.ranks == 1 or not candidate.left or candidate.blocked is not None or not trial.has_lanes:
        return ()
    trial.lanes_kept.add(Lane(candidate.demand.lane))
    nodes = tuple(_nodes_for(trial, candidate))
    trial.moves.update({node: Lane(candidate.demand.lane) for node in nodes if is_idle(trial, node)})
    return trial.leave_now(candidate, (node for node in nodes if node not in trial.moves))


def conversions(trial: Trial, left_over: Sequence[Candidate]) -> tuple[Convert, ...]:
    """Moves to begin now: what was kept for gangs, and idle nodes for single tasks at the front of the order."""
    if not trial.has_lanes:
        return ()
    waiting = (c for c in left_over if c.left and c.blocked is None and c.step.ranks == 1)
    for candidate in islice(waiting, LOOKED_AT):
        for node in _nodes_for(trial, candidate):
            if is_idle(trial, node):
                trial.moves[node] = Lane(candidate.demand.lane)
    if not trial.moves:
        return ()
    cost = cost_ms(trial)
    return tuple(Convert(node=name, lane=trial.moves[name], cost_ms=cost) for name in sorted(trial.moves))


def cost_ms(trial: Trial) -> int:
    """What a move takes: the median of the last one of each node, or what the policy says before any was seen."""
    seen = sorted(view.node.moved_ms for view in trial.state.nodes.values() if view.node.moved_ms)
    return seen[len(seen) // 2] if seen else trial.policy.convert_ms


def _nodes_for(trial: Trial, candidate: Candidate) -> Iterator[str]:
    lane, step = Lane(candidate.demand.lane), candidate.step
    wanted = step.ranks if step.ranks > 1 else candidate.left
    if step.ranks > 1:
        wanted -= trial.search.most(candidate.demand, step.together)
    wanted -= sum(_copies(trial, candidate, view) for view in trial.state.nodes.values() if view.node.moving_to is lane)
    if wanted <= 0 or (step.ranks == 1 and candidate.run_ms * wanted < GAIN * cost_ms(trial)):
        return
    offers = sorted(_offers(trial, candidate, lane))
    if step.ranks > 1 and sum(copies for _, _, copies, _ in offers) < wanted:
        return
    chosen: list[str] = []
    ready_ms = trial.now_ms
    for free_ms, _, copies, name in offers:
        if wanted <= 0 or (step.ranks == 1 and free_ms > trial.now_ms):
            break
        chosen.append(name)
        wanted -= copies
        ready_ms = max(ready_ms, free_ms)
    if step.ranks > 1 and not _keep(trial, candidate, chosen, ready_ms):
        return
    if ready_ms > trial.now_ms + cost_ms(trial):
        return  # what is idle can still be used by short work until the last of them is free
    yield from chosen


def is_idle(trial: Trial, node: str) -> bool:
    """Nobody is on it, or starts there in this plan."""
    return node not in trial.state.leases_of_node and not trial.expected.starts_on(node)


def _offers(trial: Trial, candidate: Candidate, lane: Lane) -> Iterator[tuple[int, int, int, str]]:
    """``(when it is free, -copies, copies, node)`` of nodes in the other lane that nobody has been promised."""
    kept = trial.lanes_kept if candidate.step.ranks == 1 else ()
    leave = trial.leave(candidate) if candidate.step.ranks > 1 else ""
    for name, view in trial.state.nodes.items():
        node = view.node
        other = node.lane not in (Lane.ANY, lane) and node.state is NodeState.READY
        if not other or node.lane in kept or name in trial.guard.nodes or name in trial.moves:
            continue
        copies = _copies(trial, candidate, view)
        if copies:
            yield trial.expected.empty_ms(name, leave), -copies, copies, name


def _copies(trial: Trial, candidate: Candidate, view: NodeView) -> int:
    """What would fit on the node if it were empty and in the candidate's lane."""
    there = replace(view.node, lane=Lane(candidate.demand.lane), state=NodeState.READY)
    return capacity(NodeView.empty(there), candidate.demand, trial.state.shapes.features)


def _keep(trial: Trial, candidate: Candidate, nodes: Sequence[str], ready_ms: int) -> bool:
    """Let the nodes drain for the gang; False where its own lane has a place for it as soon."""
    start_ms = ready_ms + cost_ms(trial)
    own = trial.promise_of(candidate)
    full = own is None and len(trial.promises) >= trial.policy.promises_max
    if full or (own is not None and own.start_ms <= start_ms):
        return False
    all_of = (whole_node(trial, name) for name in nodes)
    is_first, end_ms = bool(trial.leave(candidate)), start_ms + candidate.run_ms
    trial.keep(candidate.promise(all_of, ready_ms, end_ms, is_first=is_first, is_drain=True), instead_of=own)
    return True


def whole_node(trial: Trial, name: str) -> Allocation:
    """All that it has but for its devices, which may change until then."""
    node = trial.state.nodes[name].node
    return Allocation(node=name, cpu_milli=node.cpu_milli, memory_mib=node.memory_mib)
