"""Moves of running leases that would make room for what waits: shown with their price, made when an operator says."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from typing_extensions import TypedDict

from scheduler.control.access import Caller, require_operator
from scheduler.control.cycle import Cycle
from scheduler.engine import Engine
from scheduler.engine.defrag import Proposal
from scheduler.model.codec import dumps
from scheduler.model.errors import Conflict, NotFound
from scheduler.model.event import Event, SeatKept
from scheduler.model.plan import Plan


class MoveView(TypedDict):
    """One lease that would stop and go on elsewhere. ``stops_first``: it stands in the way of one before it."""

    lease_id: str
    job_id: str
    step: str
    nodes: list[str]
    to: list[str]
    lost_ms: int
    lost_card_milli_ms: int
    stops_first: bool


class RearrangementView(TypedDict):
    """Moves that let the next lease of a step start. Card time in thousandths of a card x ms."""

    id: str
    """Names exactly these moves."""
    job_id: str
    step: str
    nodes: list[str]
    moves: list[MoveView]
    lost_card_milli_ms: int
    least_card_milli_ms: int
    """No moves that make room for it lose less."""
    gained_card_milli_ms: int
    """Of its work, done sooner."""
    sooner_ms: int
    kept_until_ms: int
    """When the places, if they were kept now, would be everybody's again."""


class RearrangementList(TypedDict):
    """What gains most for what it loses first."""

    rearrangements: list[RearrangementView]


class Defragmentation:
    """Every method takes the caller first and raises only ShisuanErrors."""

    def __init__(self, cycle: Cycle) -> None:
        self._cycle = cycle

    def look(self, caller: Caller, job_id: str = "") -> RearrangementList:
        """Moves that would each let a step start that waits for room; nothing is moved. Raises Forbidden, NotFound."""
        require_operator(caller)
        with self._cycle.state() as engine:
            found = list(engine.rearrangements(self._cycle.now_ms(), self._cycle.policy, job_id))
        found.sort(key=lambda p: (-p.gain * 1_000 // max(1, p.price), p.job_id, p.step))
        return {"rearrangements": [view(p) for p in found]}

    def apply(self, caller: Caller, job_id: str, plan_id: str) -> RearrangementView:
        """Make the moves of this id: what moves stops now, with its grace to save a checkpoint, and goes on elsewhere.

        Raises Forbidden, NotFound; Conflict when these moves are not what would be proposed now.
        """
        require_operator(caller)

        def decide(engine: Engine, now_ms: int) -> tuple[Sequence[Event], Proposal]:
            found = {name_of(p): p for p in engine.rearrangements(now_ms, self._cycle.policy, job_id)}
            if not found:
                raise NotFound(f"no moves would let job {job_id} start now")
            if plan_id not in found:
                raise Conflict(f"the park has changed, and {plan_id} is not what would be moved now: look again")
            chosen = found[plan_id]
            events = engine.events_of(Plan(now_ms=now_ms, actions=chosen.actions))
            by = caller.key_id or caller.tenant
            return [replace(e, by=by) if isinstance(e, SeatKept) else e for e in events], chosen

        return view(self._cycle.call(decide))


def name_of(proposal: Proposal) -> str:
    """The id of its moves, whatever they cost by now."""
    moves = tuple((move.lease_id, *move.to) for move in proposal.moves)
    said = (proposal.job_id, proposal.step, proposal.nodes, moves)
    return hashlib.sha256(dumps(said).encode()).hexdigest()[:12]


def view(proposal: Proposal) -> RearrangementView:
    """As the faces show it."""
    return {
        "id": name_of(proposal),
        "job_id": proposal.job_id,
        "step": proposal.step,
        "nodes": list(proposal.nodes),
        "moves": [
            {
                "lease_id": move.lease_id,
                "job_id": move.job_id,
                "step": move.step,
                "nodes": list(move.nodes),
                "to": list(move.to),
                "lost_ms": move.lost_ms,
                "lost_card_milli_ms": move.price,
                "stops_first": move.stops_first,
            }
            for move in proposal.moves
        ],
        "lost_card_milli_ms": proposal.price,
        "least_card_milli_ms": proposal.bound,
        "gained_card_milli_ms": proposal.gain,
        "sooner_ms": proposal.sooner_ms,
        "kept_until_ms": proposal.until_ms,
    }
