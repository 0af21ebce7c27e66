"""Random parks under backfill, and a witness that holds every plan to the starts that were reserved before it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from unittest.mock import patch

from scheduler.engine import Engine, plan
from scheduler.engine.candidates import Candidate
from scheduler.engine.evict import Evictor
from scheduler.engine.guard import Promise
from scheduler.engine.trial import Trial
from scheduler.model.event import Event, JobCancelled, JobHeld, ReservationSet
from scheduler.model.job import Job, JobKind, Seat, Step, Together
from scheduler.model.lease import Lease
from scheduler.model.plan import Plan, Preempt, Start
from scheduler.model.policy import Backfill, Floor, Policy
from scheduler.model.queue import UNLIMITED, Queue, Reservation, ReservationKind
from scheduler.model.snapshot import Snapshot
from scheduler.simulation.loop import Simulation
from scheduler.simulation.scenario import Scenario
from scheduler.simulation.workload import Workload
from tests.builders import FEATURES, a_job, a_node, a_step

S = 1_000
WARM_UP = 6
"""Jobs at the beginning from which the engine learns how right owners are."""
SAID_PERMILLE = 960
"""What tasks take of what their owner says, who rounds up: what is learned is then at least the truth, and the time
limit of each task cuts it down to that."""
ALLOWANCE_MS = 1
"""In the plan that stops what leaves for it a start is promised a millisecond later, behind what was stopped before."""
Key = tuple[str, str]
Ahead = dict[Key, tuple[int, tuple[str, ...]]]


class World:
    """One random park and its load. Every run time is known exactly, unless ``early``: then some jobs are cancelled."""

    def __init__(
        self, seed: int, backfill: Backfill, *, early: bool = False, wide: bool = False, jobs: int = 40
    ) -> None:
        self.random = random.Random(f"{seed} {backfill} {early}")
        draw = self.random
        self.nodes = [
            a_node(f"n{i}", cards=cards, cpus=draw.choice((4, 8)) + 2 * cards, model="H100", rack=f"r{i % 2}")
            for i, cards in enumerate(draw.choices((2, 2, 4, 8), k=draw.randint(2, 5)))
        ]
        self.cards = sum(len(node.devices) for node in self.nodes)
        names = ("film",) if draw.random() < 0.4 else ("film", "ai", "lab")
        limit = (-1, -1, 1_000 * max(self.cards * 2 // 3, 2), -1)
        self.queues = [
            Queue(name=name, weight=draw.choice((100, 200)), limit=draw.choice(((-1,) * 4, limit))) for name in names
        ]
        self.policy = Policy(
            backfill=backfill, licences=(("nuke", draw.choice((1, 3))),), reservations_max=draw.choice((2, 4, 8))
        )
        self.work_ms: dict[str, int] = {}
        self.jobs: list[Job] = [self._warm_up(number) for number in range(1, WARM_UP + 1)]
        gap_ms = draw.choice((5, 10, 20)) * S * 16 // self.cards
        at_ms = 10 * S
        for number in range(WARM_UP + 1, WARM_UP + jobs + 1):
            at_ms += 1 + int(draw.expovariate(1 / gap_ms))
            self.jobs.append(self._job(number, at_ms))
        self.cancels: tuple[Event, ...] = tuple(self._cancels(at_ms) if early else ())
        self.wide = wide
        self.windows: tuple[Event, ...] = ()
        if wide:
            self._widen(random.Random(f"wide {seed} {backfill} {early}"), at_ms)

    def _warm_up(self, number: int) -> Job:
        return a_job(number, self._known(f"j{number}", S), submitted_ms=1, queue=self.queues[0].name)

    def _known(self, job_id: str, run_ms: int, **changes: object) -> Step:
        """A step whose tasks take that long, which the engine will know exactly."""
        self.work_ms[job_id] = run_ms
        return a_step(run_ms_expected=-(-run_ms * 1_000 // SAID_PERMILLE), timeout_ms=run_ms, **changes)

    def _job(self, number: int, at_ms: int) -> Job:
        draw = self.random
        shapes = (self._gang, self._gang, self._single, self._single, self._sliced, self._sliced, self._saving)
        run_ms, changes = draw.choice(shapes)()
        asks = changes.pop("resources", {})
        if draw.random() < 0.1:
            asks = asks | {"licences": (("nuke", 1),)}
        step = self._known(f"j{number}", run_ms, resources=asks, **changes)
        queue = draw.choice(self.queues).name
        return a_job(number, step, submitted_ms=at_ms, queue=queue, priority=draw.choice((50, 50, 50, 45, 60)))

    def _run_ms(self, median_s: int) -> int:
        return int(self.random.lognormvariate(math.log(median_s * S), 0.8))

    def _gang(self) -> tuple[int, dict[str, object]]:
        draw = self.random
        together = draw.choice((Together.ANYWHERE, Together.ANYWHERE, Together.RACK))
        ranks, cards = draw.choice((2, 2, 3, 4)), draw.choice((0, 1, 2, 2, 4))
        return self._run_ms(60), {
            "ranks": ranks, "cards": cards, "cpus": draw.choice((1, 2, 4)), "together": together, "preemptible": False,
        }  # fmt: skip

    def _single(self) -> tuple[int, dict[str, object]]:
        draw = self.random
        cards = draw.choice((0, 0, 1, 1, 2, 4))
        milli = 400 if not cards and draw.random() < 0.5 else 0
        return self._run_ms(40), {
            "count": draw.choice((1, 1, 2)), "cards": cards, "cpus": draw.choice((1, 3)),
            "resources": {"card_milli": milli}, "preemptible": draw.random() < 0.5,
        }  # fmt: skip

    def _sliced(self) -> tuple[int, dict[str, object]]:
        """Two slices on one lease: it may leave between them."""
        draw = self.random
        return self._run_ms(25), {
            "count": 2, "chunk": 2, "cards": draw.choice((0, 1, 1, 2)), "cpus": draw.choice((1, 2)),
            "grace_ms": draw.choice((0, 2, 2, 5)) * S, "preemptible": draw.random() < 0.9,
        }  # fmt: skip

    def _saving(self) -> tuple[int, dict[str, object]]:
        """It writes checkpoints: it may leave behind any of them."""
        draw = self.random
        return self._run_ms(150), {
            "cards": draw.choice((1, 2)), "cpus": 1, "checkpoint_ms": draw.choice((5, 20)) * S,
            "grace_ms": draw.choice((0, 2, 10)) * S,
        }  # fmt: skip

    def _widen(self, draw: random.Random, until_ms: int) -> None:
        """Everything else that a park may have: guarantees, floors, windows, deadlines, classes, elastic gangs."""
        if draw.random() < 0.5:
            guaranteed = (0, 0, 1_000 * max(self.cards // 3, 1), 0)
            self.queues[-1] = replace(self.queues[-1], guaranteed=guaranteed)
        floors = (Floor(kind=JobKind.TRANSCODE.value, permille=200),) if draw.random() < 0.3 else ()
        self.policy = replace(self.policy, floors=floors, starts_per_cycle=draw.choice((200, 200, 3)))
        for at in range(WARM_UP, len(self.jobs)):
            self.jobs[at] = self._special(draw, self.jobs[at])
        for number in range(draw.choice((0, 0, 1, 2))):
            start_ms = draw.randint(until_ms // 10, until_ms)
            window = Reservation(
                name=f"w{number}", kind=ReservationKind.MAINTENANCE, nodes=(draw.choice(self.nodes).name,),
                start_ms=start_ms, end_ms=start_ms + draw.choice((30, 120)) * S,
            )  # fmt: skip
            self.windows += (ReservationSet(at_ms=2, reservation=window),)

    def _special(self, draw: random.Random, job: Job) -> Job:
        step = job.steps[0]
        if step.ranks > 2 and draw.random() < 0.4:
            flat = tuple((ranks, 1_000) for ranks in range(2, step.ranks + 1))
            step = replace(step, ranks_min=2, scaling=flat)
        if step.count > 1 and not step.chunk and draw.random() < 0.4:
            step = replace(step, max_parallel=1)
        kind = JobKind.TRANSCODE if draw.random() < 0.2 else job.kind
        priority = 80 if draw.random() < 0.05 else job.priority
        deadline_ms = 0
        if draw.random() < 0.12 and all(queue.limit == UNLIMITED for queue in self.queues):
            deadline_ms = job.submitted_ms + draw.choice((3, 6, 12)) * self.work_ms[job.id] + 120 * S
        return replace(job, steps=(step,), kind=kind, priority=priority, deadline_ms=deadline_ms)

    def _cancels(self, until_ms: int) -> Iterator[Event]:
        """Some jobs end before their time, which teaches nobody anything about run times."""
        chosen = self.random.sample(self.jobs[WARM_UP:], len(self.jobs) // 4)
        for job in chosen:
            yield JobCancelled(
                at_ms=job.submitted_ms + self.random.randint(1, max(until_ms // 4, 2)), job_id=job.id, by="owner"
            )

    def alone(self, start: Snapshot, key: Key, at_ms: int) -> int:
        """When a waiting step starts from here on if nothing else does: what runs ends as it will."""
        others = [record.job.id for record in start.jobs if record.job.id != key[0] and not record.state.is_final]
        work_ms, granted = self.work_ms, list[int]()
        scenario = Scenario(
            policy=replace(self.policy, backfill=Backfill.NONE),
            truth=Workload(work_ms=lambda job, step, index: work_ms[job.id]),
            start=start,
            begin_ms=at_ms,
            queues=(),
            outside=tuple(JobHeld(at_ms=at_ms, job_id=job_id) for job_id in others),
            features=FEATURES,
        )

        def watch(engine: Engine, plan: Plan) -> None:
            leases = (action.lease for action in plan.actions if isinstance(action, Start))
            granted.extend(lease.granted_ms for lease in leases if (lease.job_id, lease.step) == key)

        Simulation(scenario, watch=watch).run()
        return granted[0]

    def scenario(self) -> Scenario:
        work_ms = self.work_ms
        return Scenario(
            policy=self.policy,
            truth=Workload(work_ms=lambda job, step, index: work_ms[job.id]),
            nodes=self.nodes,
            queues=self.queues,
            jobs=self.jobs,
            admits=self.wide,
            outside=tuple(sorted((*self.windows, *self.cancels), key=lambda event: event.at_ms)),
            features=FEATURES,
        )


# ── the witness ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Did:
    """One thing a plan did, in the order in which it did it."""

    what: str
    """``start``, ``promise``, ``pass`` (reached and left waiting) or ``taken`` (others would take its room)."""
    key: Key
    start_ms: int = 0
    nodes: tuple[str, ...] = ()


class Spied(Trial):
    """Notes the order in which a plan starts and promises; decides nothing."""

    log: list[Did]
    asking: Key | None = None
    """The step for which others may be stopped."""

    def __init__(self, *given: object) -> None:
        Spied.log = []
        super().__init__(*given)  # type: ignore[arg-type]

    def start(self, candidate: Candidate, lease_id: str, seat: Seat | None = None) -> Lease | None:
        lease = super().start(candidate, lease_id, seat)
        if lease is not None:
            nodes = tuple(sorted({allocation.node for allocation in lease.allocations}))
            self.log.append(Did("start", candidate.key, self.now_ms, nodes))
        return lease

    def keep(self, promise: Promise, instead_of: Promise | None = None) -> None:
        super().keep(promise, instead_of)
        self.log.append(Did("promise", (promise.job_id, promise.step), promise.start_ms, promise.nodes))


def passes_over(trial: Trial, candidate: Candidate) -> tuple[Preempt, ...]:
    """Likewise: notes who was reached and left waiting."""
    Spied.log.append(Did("pass", candidate.key))
    Spied.asking = candidate.key
    stops = PASS_OVER(trial, candidate)
    Spied.asking = None
    return stops


@dataclass(slots=True)
class Kept:
    """A promise that binds later plans."""

    key: Key
    made_ms: int
    start_ms: int
    ahead: Ahead
    """Who was promised a start ahead of it, when and where."""


@dataclass(frozen=True, slots=True)
class Reached:
    """How a plan came to a step that was promised a start."""

    did: Did | None
    """Its start, or its promise anew; None: neither."""
    ahead: Ahead
    """Who was promised a start ahead of it this time."""


def reached(kept: Kept, log: tuple[Did, ...]) -> Reached | None:
    """None: the promise is void, because something else than backfill happened ahead of it."""
    if any(did.what == "taken" and (did.key == kept.key or did.key in kept.ahead) for did in log):
        return None
    order, at, started, ahead = list(kept.ahead), 0, set[Key](), Ahead()
    for did in log:
        if did.what in {"pass", "taken"}:
            continue
        if did.key == kept.key:
            return Reached(did, ahead) if kept.ahead.keys() <= ahead.keys() | started else None
        if did.key not in order[at:] or did.key in started:
            return None  # it goes ahead by the order, which has changed
        if did.what == "start" and did.start_ms < kept.ahead[did.key][0]:
            return None  # it is early
        at = order.index(did.key)
        if did.what == "start":
            started.add(did.key)
        elif did.start_ms > kept.ahead[did.key][0] + ALLOWANCE_MS:
            return None  # it is late, which is held against its own promise
        else:
            ahead[did.key] = did.start_ms, did.nodes
    return Reached(None, ahead)


@dataclass(slots=True)
class Witness:
    """Called with each plan. ``first_only``: holds a plan to the promise to who was first only."""

    first_only: bool
    bound: dict[Key, Kept] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    first: list[tuple[Snapshot, Key, int, int]] = field(default_factory=list)
    """Of promises to who is first, made by plans that start nothing ahead: records, step, instant and the start."""
    made: int = 0
    started: int = 0
    void: int = 0
    backfilled: int = 0

    def __call__(self, engine: Engine, plan: Plan) -> None:
        log = tuple(Spied.log)
        for kept in tuple(self.bound.values()):
            self._hold(engine, plan, kept, log)
        self._note(engine, plan, log)

    def _hold(self, engine: Engine, plan: Plan, kept: Kept, log: tuple[Did, ...]) -> None:
        """One promise against what a plan did."""
        record = engine.job(kept.key[0])
        found = reached(kept, log)
        if record is None or record.state.is_final or record.cancelled or found is None:
            del self.bound[kept.key]
            self.void += found is None
        elif found.did is None:
            if plan.now_ms > kept.start_ms:
                self._break(kept, f"has no start at {plan.now_ms}")
        elif found.did.start_ms > kept.start_ms + (ALLOWANCE_MS if found.did.what == "promise" else 0):
            self._break(kept, f"{found.did} in the plan of {plan.now_ms}")
        elif found.did.what == "start":
            del self.bound[kept.key]
            self.started += 1
        else:
            kept.start_ms, kept.ahead = min(kept.start_ms, found.did.start_ms), found.ahead

    def _break(self, kept: Kept, how: str) -> None:
        self.broken.append(f"{kept}: {how}")
        del self.bound[kept.key]

    def _note(self, engine: Engine, plan: Plan, log: tuple[Did, ...]) -> None:
        ahead: Ahead = {}
        taken = {did.key for did in log if did.what == "taken"}
        for did in log:
            if did.what == "promise":
                unsure = did.key in taken or not taken.isdisjoint(ahead)
                if not unsure and did.key not in self.bound and not (ahead and self.first_only):
                    self.bound[did.key] = Kept(did.key, plan.now_ms, did.start_ms, dict(ahead))
                    self.made += 1
                    alone = not any(other.what == "start" for other in log[: log.index(did)])
                    if alone and not ahead and not any(record.stopping for record in engine.leases()):
                        self.first.append((engine.snapshot(), did.key, plan.now_ms, did.start_ms))
                ahead[did.key] = did.start_ms, did.nodes
            elif did.what == "start":
                self.backfilled += bool(ahead)
                self.bound.pop(did.key, None)


def taken_by_others(evictor: Evictor, candidate: Candidate, chosen: Sequence[str]) -> bool:
    """Likewise: nobody is stopped for the candidate, because somebody ahead without a promise would take the room."""
    found = TAKEN(evictor, candidate, chosen)
    if found:
        Spied.log.append(Did("taken", candidate.key))
    return found


def stays_above(evictor: Evictor, leases: frozenset[str]) -> bool:
    """Likewise: what leaves for a promised start is not told, because a floor or a guarantee would be short then."""
    found = STAYS(evictor, leases)
    if not found and Spied.asking is not None:
        Spied.log.append(Did("taken", Spied.asking))
    return found


TAKEN, STAYS, PASS_OVER = Evictor._taken_by_others, Evictor._stays_above, plan.pass_over


@contextmanager
def spying() -> Iterator[None]:
    """Plans are made on trials that tell what they did."""
    with (
        patch("scheduler.engine.plan.Trial", Spied),
        patch("scheduler.engine.plan.pass_over", passes_over),
        patch.object(Evictor, "_taken_by_others", taken_by_others),
        patch.object(Evictor, "_stays_above", stays_above),
    ):
        yield


def watched(world: World, *, first_only: bool) -> tuple[Witness, Simulation]:
    """The world to its end, with a witness."""
    witness = Witness(first_only=first_only)
    simulation = Simulation(world.scenario(), watch=witness)
    with spying():
        simulation.run()
    return witness, simulation
