"""Moves that would make room for a step that waits, with their price. Planned for whoever asks; made by a rule only.

What may be moved: leases that may be stopped at all, whose job's budget of preemptions is not used up, that no deadline
was promised for, and that neither stop already nor would run into what is kept for others at their new place. They stop
as any preempted lease does, free of charge from their last checkpoint on, and their tasks go on at seats that are kept
for them (:mod:`scheduler.engine.seats`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from scheduler.engine.candidates import Candidate
from scheduler.engine.ends import estimate_of, left_ms
from scheduler.engine.guard import Promise
from scheduler.engine.trial import Trial
from scheduler.model.job import Seat
from scheduler.model.lease import LeaseRecord
from scheduler.model.plan import Keep, Preempt
from scheduler.model.policy import Objective, Preemption
from scheduler.placement.defrag import EXACT_TRIES, Goal, rearrange
from scheduler.placement.fit import demand_of
from scheduler.placement.room import Mover
from scheduler.queueing.calendar import Bands
from scheduler.queueing.lifecycle import find_step
from scheduler.queueing.preempt import lost_of, spared
from scheduler.queueing.quota import ancestors
from scheduler.queueing.rank import weight_milli

LOOKED_AT = 16
"""Waiting steps for which one plan looks for moves."""
RULE_TRIES = 200
"""Seats that a rule tries for each of them, as it does in every cycle: some 20 ms at most. People wait longer."""
SEAT_MS = 60_000
"""A seat is kept for so much longer than what leaves it may take: then something else than expected has happened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """One lease that would move."""

    lease_id: str
    job_id: str
    step: str
    nodes: tuple[str, ...]
    """Where it runs, one per rank."""
    to: tuple[str, ...]
    lost_ms: int
    """Work since its last checkpoint, and its restart."""
    price: int
    """The same in card-thousandths x ms: what the park pays for."""
    stops_first: bool
    """It stands in the way of one before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Moves that let the next lease of a step start."""

    job_id: str
    step: str
    nodes: tuple[str, ...]
    """Where it would start, one per rank."""
    moves: tuple[Moved, ...]
    """In an order in which each new place is free."""
    price: int
    """Lost: card-thousandths x ms."""
    bound: int
    """No moves that make room for it lose less."""
    gain: int
    """Card-thousandths x ms of its work that are done sooner."""
    sooner_ms: int
    """How much sooner it would start."""
    until_ms: int
    """Until when the seats would be kept."""

    @property
    def actions(self) -> tuple[Keep | Preempt, ...]:
        """What carries it out: all seats first, so that nobody else takes them."""
        reason = f"moved to make room for job {self.job_id}"
        goal = Keep(job_id=self.job_id, step=self.step, seat=Seat(nodes=self.nodes, until_ms=self.until_ms))
        seats = (Keep(job_id=m.job_id, step=m.step, seat=Seat(nodes=m.to, until_ms=self.until_ms)) for m in self.moves)
        stops = (
            Preempt(lease_id=m.lease_id, for_job=self.job_id, reason=f"{reason}; goes on on {', '.join(m.to)}")
            for m in self.moves
        )
        return goal, *seats, *stops


def proposals(
    trial: Trial, left_over: Sequence[Candidate], job_id: str = "", *, tries: int = EXACT_TRIES
) -> Iterator[Proposal]:
    """For each step that waits for room and for nothing else, in their order; ``job_id``: of this job only.

    ``tries``: how long to look for each, as in :func:`scheduler.placement.defrag.rearrange`.
    None while an earlier rearrangement is under way, or where an objective moves gangs by itself.
    """
    if trial.awaited or trial.policy.objective is not Objective.ORDER or trial.policy.preemption is Preemption.NEVER:
        return
    waiting = (c for c in left_over if c.left and c.blocked is None and (not job_id or c.job.id == job_id))
    movers: list[Mover] | None = None
    for candidate in islice(waiting, LOOKED_AT):
        ranks = candidate.step.ranks
        if trial.limit(candidate) is not None or trial.search.most(candidate.demand, candidate.step.together) >= ranks:
            continue
        movers = _movers(trial) if movers is None else movers
        found = _proposal(trial, candidate, movers, tries)
        if found is not None:
            yield found


def by_rule(trial: Trial, left_over: Sequence[Candidate]) -> tuple[Keep | Preempt, ...]:
    """The first moves in the order of those who wait that gain as much as the policy asks for."""
    least = trial.policy.defragment_permille
    if not least:
        return ()
    found = proposals(trial, left_over, tries=RULE_TRIES)
    best = next((p for p in found if p.gain * 1_000 >= p.price * least), None)
    return () if best is None else best.actions


def _proposal(trial: Trial, candidate: Candidate, movers: Sequence[Mover], tries: int) -> Proposal | None:
    step, own = candidate.step, trial.promise_of(candidate)
    if own is not None:
        trial.guard.drop(own)
    goal = Goal(
        demand=candidate.demand,
        tenant=candidate.job.tenant,
        ranks=step.ranks,
        together=step.together,
        barred=trial.barred(candidate),
    )
    kept = trial.guard.nodes  # where somebody else was promised his start
    free = [replace(mover, barred=mover.barred | kept) for mover in movers] if kept else movers
    found = rearrange(trial.search.nodes, free, goal, trial.state.shapes.features, trial.search.rooms, tries=tries)
    if own is not None:
        trial.guard.add(own)
    if found is None or not found.moves:
        return None
    moves = tuple(
        _moved(trial, trial.state.leases[move.lease_id], tuple(p.node for p in move.places), move.stops_first)
        for move in found.moves
    )
    steps = [find_step(trial.state.jobs[m.job_id], m.step)[0] for m in moves]
    free_ms = trial.now_ms + max(s.grace_ms for s in steps)
    sooner_ms = _sooner_ms(trial, candidate, own, free_ms)
    if sooner_ms <= 0:
        return None
    return Proposal(
        job_id=candidate.job.id,
        step=step.name,
        nodes=tuple(place.node for place in found.goal),
        moves=moves,
        price=found.price,
        bound=found.bound,
        gain=weight_milli(step.resources) * step.ranks * sooner_ms,
        sooner_ms=sooner_ms,
        until_ms=free_ms + SEAT_MS,
    )


def _sooner_ms(trial: Trial, candidate: Candidate, own: Promise | None, free_ms: int) -> int:
    """How much sooner than by waiting, at most as long as its work takes: later the room would be used anyway."""
    start_ms = own.start_ms if own is not None else None
    if own is None:
        found = trial.guard.earliest(
            candidate.demand,
            candidate.step.ranks,
            candidate.job.tenant,
            trial.state.shapes.possible(trial.state.shapes.of(candidate.demand)),
            trial.now_ms,
            together=candidate.step.together,
        )
        start_ms = found[0] if found is not None else None
    most = candidate.likely_ms
    return most if start_ms is None else min(start_ms - free_ms, most)


def _movers(trial: Trial) -> list[Mover]:
    return [_mover(trial, record) for record in trial.state.leases.values() if _may_move(trial, record)]


def _may_move(trial: Trial, record: LeaseRecord) -> bool:
    """It may be stopped, and nothing but room is needed for it to go on."""
    state, policy = trial.state, trial.policy
    record_of_job = state.jobs[record.lease.job_id]
    job, (step, _) = record_of_job.job, find_step(record_of_job, record.lease.step)
    stays = record.stopping or record.lease.id in trial.expected.stopped or not step.preemptible or job.is_promised
    ends = record_of_job.cancelled or record_of_job.failing or spared(record_of_job, policy)
    waits = record_of_job.held or job.tenant in policy.unfunded
    waits = waits or bool(job.band and not Bands(policy.bands).is_open(job.band, trial.now_ms))
    there = all(held.node in trial.search.nodes for held in record.lease.allocations)
    return there and not (stays or ends or waits)


def _mover(trial: Trial, record: LeaseRecord) -> Mover:
    lease = record.lease
    step, _ = find_step(trial.state.jobs[lease.job_id], lease.step)
    return Mover(
        lease_id=lease.id,
        tenant=lease.tenant,
        demand=demand_of(step, lease.tenant),
        allocations=lease.allocations,
        price=_lost_ms(trial, record) * weight_milli(step.resources) * len(lease.allocations),
        together=step.together,
        barred=_closed(trial, record) if trial.calendar.nodes else frozenset(),
    )


def _closed(trial: Trial, record: LeaseRecord) -> frozenset[str]:
    """Nodes whose reservation it would run into."""
    lease = record.lease
    queues = ancestors(trial.state.queues, lease.queue)
    estimate = estimate_of(trial.state, lease.job_id, lease.step)
    end_ms = trial.now_ms + left_ms(trial.state, record, trial.now_ms, estimate)
    return frozenset(n for n in trial.calendar.nodes if trial.calendar.closed(n, queues, trial.now_ms, end_ms))


def _lost_ms(trial: Trial, record: LeaseRecord) -> int:
    step, _ = find_step(trial.state.jobs[record.lease.job_id], record.lease.step)
    return lost_of(step, record, trial.state.attempts_of(record.lease), trial.now_ms) + step.restart_ms


def _moved(trial: Trial, record: LeaseRecord, to: tuple[str, ...], stops_first: bool) -> Moved:
    lease, lost_ms = record.lease, _lost_ms(trial, record)
    step, _ = find_step(trial.state.jobs[lease.job_id], lease.step)
    return Moved(
        lease_id=lease.id,
        job_id=lease.job_id,
        step=lease.step,
        nodes=tuple(held.node for held in lease.allocations),
        to=to,
        lost_ms=lost_ms,
        price=lost_ms * weight_milli(step.resources) * len(lease.allocations),
        stops_first=stops_first,
    )
