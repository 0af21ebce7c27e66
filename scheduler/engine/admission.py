"""Whether a deadline can be promised: yes, on these nodes from then on, with a probability; or no, and what would do.

A new job gets what the next plan leaves: behind what it starts, what it keeps for those who are next, and all that was
promised before. Nothing that comes later may delay a slot (:mod:`scheduler.engine.slots`) or a film's tracks
(:mod:`scheduler.engine.tracks`), so a promise fails only when something runs longer than anything like it did, or a
node is lost.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from scheduler.engine import films, slots
from scheduler.engine.candidates import Candidate, candidate_of
from scheduler.engine.plan import drafted
from scheduler.engine.state import State
from scheduler.engine.trial import Trial
from scheduler.engine.what import blank, kinds
from scheduler.model.job import Job, JobRecord, Slot, Step, Track
from scheduler.model.node import Node
from scheduler.model.plan import Change, ChangeKind
from scheduler.model.policy import Policy
from scheduler.placement.view import leasable
from scheduler.queueing.promise import probability
from scheduler.queueing.rate import FULL_PERMILLE, work_rate_permille

MINUTE_MS = 60_000
NODES_MOST = 64
"""More nodes than this are not an answer anybody can use."""
LATER_MINUTES = 60 * 24 * 60
"""A deadline later by more than this, two months, is no answer either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The answer to a job with a deadline."""

    slot: Slot | None = None
    """Kept for its one task or gang if it is submitted so."""
    tracks: tuple[Track, ...] = ()
    """Likewise for many tasks, or several steps. Neither: no."""
    permille: int = 0
    """Probability, in thousandths, that it ends in time there."""
    reason: str = ""
    """Why nobody could promise it anything, whatever is free."""
    changes: tuple[Change, ...] = ()
    """Where the answer is no: the smallest change of each kind that makes it yes, each tried."""

    @property
    def is_yes(self) -> bool:
        """The deadline can be promised."""
        return self.slot is not None or bool(self.tracks)


def admit(state: State, record: JobRecord, now_ms: int, policy: Policy, *, changes: bool = False) -> Admission:
    """The answer to a job that is not in the state. ``changes``: also what would turn a no into a yes."""
    now_ms = max(now_ms, state.at_ms)
    reason = _never(state, record, policy)
    if reason:
        return Admission(reason=reason)
    trial = drafted(state, now_ms, policy).trial
    found = _film(trial, record) if _is_film(record.job) else _alone(trial, record)
    return replace(found, changes=tuple(_changes(trial, record))) if changes and not found.is_yes else found


def _alone(trial: Trial, record: JobRecord) -> Admission:
    """One task or one gang: a slot."""
    candidate = candidate_of(trial.state, record, 0, trial.now_ms, trial.policy)
    slot = slots.find(trial, candidate, record.job.deadline_ms)
    if slot is None:
        return Admission()
    return Admission(slot=slot, permille=trial.state.calibration.promise(_chance(trial, candidate, slot)))


def _film(trial: Trial, record: JobRecord) -> Admission:
    """Many tasks, or several steps: tracks."""
    found = films.tracks(trial, record)
    if not found:
        return Admission()
    return Admission(tracks=found, permille=trial.state.calibration.promise(films.permille(trial, record, found)))


def _is_film(job: Job) -> bool:
    return len(job.steps) > 1 or job.steps[0].count > 1


def _never(state: State, record: JobRecord, policy: Policy) -> str:
    job = record.job
    if _is_film(job) and any(step.ranks > 1 for step in job.steps):
        return "time is kept for one gang, or for tasks of one or several steps, but not for several gangs or both"
    if any(step.resources.licences for step in job.steps):
        return "time cannot be kept for floating licences"
    if job.band or job.after or record.held:
        return "time is kept only for what may start at any time: not held, after other jobs or in a price band"
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
        estimate, did_ms, rate = trial.expected.progress(key)
        atoms = estimate.survivors(did_ms)
        allowed_ms = did_ms + (latest_ms - trial.now_ms) * rate // FULL_PERMILLE
        chance *= sum(atom <= allowed_ms for atom in atoms) / len(atoms)
    return chance


# ── no ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _changes(trial: Trial, record: JobRecord) -> Iterator[Change]:
    """Later, smaller, wider, elsewhere, more: each of them was tried."""
    yield from _later(trial, record)
    yield from _fewer_ranks(trial, record)
    yield from _more_at_once(trial, record)
    yield from _other_card(trial, record)
    yield from _more_nodes(trial, record)


def _fits(trial: Trial, record: JobRecord, step: Step) -> bool:
    """Whether it would do with one of its steps changed so."""
    steps = tuple(step if other.name == step.name else other for other in record.job.steps)
    return _fits_so(trial, replace(record, job=replace(record.job, steps=steps)))


def _fits_so(trial: Trial, record: JobRecord) -> bool:
    if _is_film(record.job):
        return bool(films.tracks(trial, record))
    candidate = candidate_of(trial.state, record, 0, trial.now_ms, trial.policy)
    return slots.find(trial, candidate, record.job.deadline_ms) is not None


def _later(trial: Trial, record: JobRecord) -> Iterator[Change]:
    deadline_ms = _film_later(trial, record) if _is_film(record.job) else _alone_later(trial, record)
    if deadline_ms:
        minutes = -(-(deadline_ms - record.job.deadline_ms) // MINUTE_MS)
        message = f"let it end {minutes} minutes later" if minutes > 1 else "let it end a minute later"
        yield Change(kind=ChangeKind.DEADLINE, amount=deadline_ms, message=message)


def _alone_later(trial: Trial, record: JobRecord) -> int:
    candidate = candidate_of(trial.state, record, 0, trial.now_ms, trial.policy)
    slot = slots.soonest(trial, candidate)
    return -(-slot.end_ms // MINUTE_MS) * MINUTE_MS if slot is not None else 0


def _film_later(trial: Trial, record: JobRecord) -> int:
    """A deadline on the minute that would do while a minute less would not; 0: none within two months."""
    base = record.job.deadline_ms // MINUTE_MS
    minutes = _least(
        LATER_MINUTES,
        lambda more: _fits_so(trial, replace(record, job=replace(record.job, deadline_ms=(base + more) * MINUTE_MS))),
    )
    return (base + minutes) * MINUTE_MS if minutes else 0


def _least(most: int, is_enough: Callable[[int], bool]) -> int:
    """A number from 1 on that is enough while the one before it is not; 0: none up to ``most`` was found."""
    low, high = 0, 1
    while not is_enough(high):
        if high >= most:
            return 0
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _fewer_ranks(trial: Trial, record: JobRecord) -> Iterator[Change]:
    """A gang of a fixed size, taking longer in proportion."""
    step = record.job.steps[0]
    for ranks in range(step.ranks - 1, 0, -1) if not step.ranks_min else ():
        longer_ms = step.run_ms_expected * step.ranks // ranks
        if step.run_ms_expected and _fits(trial, record, replace(step, ranks=ranks, run_ms_expected=longer_ms)):
            message = f"run it with {ranks} ranks instead of {step.ranks}, if it then takes no more than in proportion"
            yield Change(kind=ChangeKind.FEWER_RANKS, amount=ranks, message=message)
            return


def _more_at_once(trial: Trial, record: JobRecord) -> Iterator[Change]:
    """A step's own limit on tasks at once."""
    for step in record.job.steps if _is_film(record.job) else ():
        most = step.count - step.max_parallel
        if not step.max_parallel or most <= 0:
            continue

        def is_enough(more: int, step: Step = step) -> bool:
            return _fits(trial, record, replace(step, max_parallel=step.max_parallel + more))

        more = _least(most, is_enough)
        if more:
            at_once = step.max_parallel + more
            message = f"let {at_once} tasks of step {step.name} run at once instead of {step.max_parallel}"
            yield Change(kind=ChangeKind.PARALLEL, target=step.name, amount=at_once, message=message)


def _other_card(trial: Trial, record: JobRecord) -> Iterator[Change]:
    models = {device.model for view in trial.state.nodes.values() for device in leasable(view.node)}
    for step in record.job.steps:
        ask = step.resources
        for model in sorted(models - set(ask.card_models)) if ask.card_models else ():
            wider = replace(ask, card_models=tuple(sorted((*ask.card_models, model))))
            if _fits(trial, record, replace(step, resources=wider)):
                where = f" for step {step.name}" if len(record.job.steps) > 1 else ""
                message = f"accept card model {model} as well{where}"
                yield Change(kind=ChangeKind.OTHER_CARD, target=model, message=message)


def _more_nodes(trial: Trial, record: JobRecord) -> Iterator[Change]:
    """Copies of a node there is, empty and healthy: for each kind of node the fewest that are enough."""
    most = min(max(step.count * step.ranks for step in record.job.steps), NODES_MOST)
    for kind, name in kinds(trial.state):

        def is_enough(count: int, kind: Node = kind) -> bool:
            world = State(trial.state.snapshot(), trial.state.shapes.features)
            for number in range(1, count + 1):
                world.put_node(blank(kind, f"\0new-{number}"))
            return admit(world, record, trial.now_ms, trial.policy).is_yes

        count = _least(most, is_enough)
        if count:
            message = f"add {count} nodes like {name}" if count > 1 else f"add a node like {name}"
            yield Change(kind=ChangeKind.ADD_NODES, target=name, amount=count, message=message)
