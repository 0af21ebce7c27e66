"""Whether a deadline can be promised: yes, on these nodes from then on, with a probability; or no, and what would do.

A new job gets what the next plan leaves: behind what it starts, what it keeps for those who are next, and all slots
that were promised before. Nothing that comes later may delay a slot (:mod:`scheduler.engine.slots`), so a promise fails
only when something runs longer than anything like it did, or a node is lost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from scheduler.engine import slots
from scheduler.engine.candidates import Candidate, candidate_of
from scheduler.engine.ends import estimate_of, ran_ms, rate_of
from scheduler.engine.plan import drafted
from scheduler.engine.state import State
from scheduler.engine.trial import Trial
from scheduler.engine.what import blank, kinds
from scheduler.model.job import JobRecord, Slot, Step
from scheduler.model.plan import Change, ChangeKind
from scheduler.model.policy import Policy
from scheduler.placement.view import leasable
from scheduler.queueing.durations import Estimate
from scheduler.queueing.lifecycle import find_step
from scheduler.queueing.promise import probability
from scheduler.queueing.rate import FULL_PERMILLE, work_rate_permille

MINUTE_MS = 60_000
NODES_MOST = 64
"""More nodes than this are not an answer anybody can use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The answer to a job with a deadline."""

    slot: Slot | None = None
    """Kept for it if it is submitted so; None: no."""
    permille: int = 0
    """Probability, in thousandths, that it ends in time in its slot."""
    reason: str = ""
    """Why nobody could promise it anything, whatever is free."""
    changes: tuple[Change, ...] = ()
    """Where the answer is no: the smallest change of each kind that makes it yes, each tried."""


def admit(state: State, record: JobRecord, now_ms: int, policy: Policy, *, changes: bool = False) -> Admission:
    """The answer to a job that is not in the state. ``changes``: also what would turn a no into a yes."""
    now_ms = max(now_ms, state.at_ms)
    reason = _never(state, record, policy)
    if reason:
        return Admission(reason=reason)
    trial = drafted(state, now_ms, policy).trial
    candidate = candidate_of(state, record, 0, now_ms, policy)
    slot = slots.find(trial, candidate, record.job.deadline_ms)
    if slot is not None:
        return Admission(slot=slot, permille=state.calibration.promise(_chance(trial, candidate, slot)))
    return Admission(changes=tuple(_changes(trial, record)) if changes else ())


def _never(state: State, record: JobRecord, policy: Policy) -> str:
    job = record.job
    if len(job.steps) > 1 or job.steps[0].count > 1:
        return "a slot is kept for jobs of one task or one gang only"
    if job.steps[0].resources.licences:
        return "a slot cannot keep floating licences"
    if job.band or job.after or record.held:
        return "a slot is kept only for what may start at any time: not held, after other jobs or in a price band"
    if job.tenant in policy.unfunded:
        return f"the budget of tenant {job.tenant} is used up"
    return ""


# ── yes ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _chance(trial: Trial, candidate: Candidate, slot: Slot) -> int:
    """Probability, in thousandths, that what must end before the slot does, that its nodes live, and that it ends.

    A failure while it runs is survived where checkpoints, and the time until another place is free, leave enough of the
    time to the deadline; one before it starts counts as a miss.
    """
    step, deadline_ms = candidate.step, candidate.job.deadline_ms
    rate = max(work_rate_permille(step, slot.ranks, slot.model), 1)
    runs = tuple(
        (atom - candidate.kept_ms) * FULL_PERMILLE // rate for atom in candidate.estimate.survivors(candidate.kept_ms)
    )
    per_hour = trial.policy.failures_per_hour * len(set(slot.nodes))
    elsewhere = slots.soonest(trial, candidate, but=frozenset(slot.nodes))
    again_ms = elsewhere.start_ms - trial.now_ms if elsewhere is not None else deadline_ms
    chance = probability(
        (slot.start_ms - trial.now_ms,),
        runs,
        deadline_ms - trial.now_ms,
        failures_per_hour=per_hour,
        lost_ms=step.checkpoint_ms,
        restart_ms=step.restart_ms + again_ms + slots.SWITCH_MS,
    )
    alive = math.exp(-per_hour * (slot.start_ms - trial.now_ms) / 3_600_000)
    spare_ms = deadline_ms - slot.end_ms
    return math.floor(chance * alive * _free_by(trial, slot, slot.start_ms + spare_ms))


def _free_by(trial: Trial, slot: Slot, latest_ms: int) -> float:
    """Probability that whatever must have left the slot's nodes when it begins has done so by an instant."""
    leases = {
        key
        for name in set(slot.nodes)
        for _, _, key in trial.expected.ends(name)
        if trial.expected.last_end_ms(key) <= slot.start_ms
    }
    chance = 1.0
    for key in sorted(leases):
        estimate, did_ms, rate = _progress(trial, key)
        atoms = estimate.survivors(did_ms)
        allowed_ms = did_ms + (latest_ms - trial.now_ms) * rate // FULL_PERMILLE
        chance *= sum(atom <= allowed_ms for atom in atoms) / len(atoms)
    return chance


def _progress(trial: Trial, lease_id: str) -> tuple[Estimate, int, int]:
    """What a lease's task takes, how much of it is done, and at what rate it works."""
    begun = trial.expected.begun(lease_id)
    if begun is not None:
        return begun.estimate, begun.kept_ms, FULL_PERMILLE
    record = trial.state.leases[lease_id]
    step, _ = find_step(trial.state.jobs[record.lease.job_id], record.lease.step)
    estimate = estimate_of(trial.state, record.lease.job_id, record.lease.step)
    rate = rate_of(trial.state, step, record)
    return estimate, ran_ms(trial.state, record, trial.now_ms) * rate // FULL_PERMILLE, rate


# ── no ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _changes(trial: Trial, record: JobRecord) -> Iterator[Change]:
    """Later, smaller, elsewhere, more: each of them was tried."""
    yield from _later(trial, record)
    yield from _fewer_ranks(trial, record)
    yield from _other_card(trial, record)
    yield from _more_nodes(trial, record)


def _fits(trial: Trial, record: JobRecord, step: Step) -> bool:
    changed = replace(record, job=replace(record.job, steps=(step,)))
    candidate = candidate_of(trial.state, changed, 0, trial.now_ms, trial.policy)
    return slots.find(trial, candidate, record.job.deadline_ms) is not None


def _later(trial: Trial, record: JobRecord) -> Iterator[Change]:
    candidate = candidate_of(trial.state, record, 0, trial.now_ms, trial.policy)
    slot = slots.soonest(trial, candidate)
    if slot is not None:
        deadline_ms = -(-slot.end_ms // MINUTE_MS) * MINUTE_MS
        minutes = -(-(deadline_ms - record.job.deadline_ms) // MINUTE_MS)
        message = f"let it end {minutes} minutes later" if minutes > 1 else "let it end a minute later"
        yield Change(kind=ChangeKind.DEADLINE, amount=deadline_ms, message=message)


def _fewer_ranks(trial: Trial, record: JobRecord) -> Iterator[Change]:
    """A gang of a fixed size, taking longer in proportion."""
    step = record.job.steps[0]
    for ranks in range(step.ranks - 1, 0, -1) if not step.ranks_min else ():
        longer_ms = step.run_ms_expected * step.ranks // ranks
        if step.run_ms_expected and _fits(trial, record, replace(step, ranks=ranks, run_ms_expected=longer_ms)):
            message = f"run it with {ranks} ranks instead of {step.ranks}, if it then takes no more than in proportion"
            yield Change(kind=ChangeKind.FEWER_RANKS, amount=ranks, message=message)
            return


def _other_card(trial: Trial, record: JobRecord) -> Iterator[Change]:
    step = record.job.steps[0]
    ask = step.resources
    models = {device.model for view in trial.state.nodes.values() for device in leasable(view.node)}
    for model in sorted(models - set(ask.card_models)) if ask.card_models else ():
        wider = replace(ask, card_models=tuple(sorted((*ask.card_models, model))))
        if _fits(trial, record, replace(step, resources=wider)):
            yield Change(kind=ChangeKind.OTHER_CARD, target=model, message=f"accept card model {model} as well")


def _more_nodes(trial: Trial, record: JobRecord) -> Iterator[Change]:
    """Copies of a node there is, empty and healthy: for each kind of node the fewest that are enough."""
    for kind, name in kinds(trial.state):
        world = State(trial.state.snapshot(), trial.state.shapes.features)
        for count in range(1, min(record.job.steps[0].ranks, NODES_MOST) + 1):
            world.put_node(blank(kind, f"\0new-{count}"))
            if admit(world, record, trial.now_ms, trial.policy).slot is not None:
                message = f"add {count} nodes like {name}" if count > 1 else f"add a node like {name}"
                yield Change(kind=ChangeKind.ADD_NODES, target=name, amount=count, message=message)
                break
