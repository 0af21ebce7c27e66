"""A park's random life, and what must hold after everything that happens in it."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import fields, replace

from scheduler.engine import Engine
from scheduler.ledger.conservation import buckets, error, inventory
from scheduler.ledger.meter import seal
from scheduler.model.codec import dumps
from scheduler.model.errors import Conflict
from scheduler.model.event import AttemptsSeen, JobCancelled, JobHeld, JobReleased, JobRetried, LeaseStopping, SeatKept
from scheduler.model.job import JobState, Resources, Seat, Step
from scheduler.model.lease import AttemptState
from scheduler.model.node import Health, NodeState
from scheduler.model.plan import Start, Wait
from scheduler.model.policy import Policy
from scheduler.model.queue import Queue
from scheduler.model.snapshot import Snapshot
from tests.builders import FEATURES, Park, a_job, a_mig, a_node, a_step

QUEUES = (
    Queue(name="film", weight=200),
    Queue(name="film-a", parent="film"),
    Queue(name="film-b", parent="film", weight=300),
    Queue(name="ai"),
)
NODES = (
    a_node("cpu1", cpus=4),
    a_node("gpu1", cpus=8, cards=4, island=2),
    a_node("gpu2", cpus=4, cards=2, model="L4", taints=("hot",), labels=(("rack", "r1"),)),
    a_node("mig1", cpus=4, devices=(*a_node("mig1", cards=1).devices, a_mig("mig1", 0, 0), a_mig("mig1", 0, 1))),
)
ASKS = (
    Resources(),
    Resources(cpu_milli=500),
    Resources(cpu_milli=3_000, memory_mib=9_000),
    Resources(cards=1),
    Resources(cards=2, same_island=True, cpu_milli=2_000),
    Resources(cards=3, cpu_milli=500),
    Resources(card_milli=400, cpu_milli=250),
    Resources(card_milli=700, cpu_milli=0),
    Resources(cards=1, mig_profile="1g.10gb"),
    Resources(cards=1, features=("rt",), tolerations=("hot",)),
    Resources(cards=9),
)
BAD_ENDS = (AttemptState.FAILED, AttemptState.TIMED_OUT, AttemptState.LOST, AttemptState.PREEMPTED)


class Life:
    """Random things happen, by weight; :meth:`check` after each."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.park = Park(*NODES, queues=QUEUES)
        self.park.policy = Policy(
            starts_per_cycle=self.random.choice((3, 2_000)), defragment_permille=self.random.choice((0, 0, 1))
        )
        self.numbers = 0

    def step(self) -> None:
        """One thing happens."""
        happening = self.random.choices(
            (self.submit, self.cycle, self.work, self.verb, self.trouble), weights=(4, 8, 16, 3, 1)
        )[0]
        happening()

    def submit(self) -> None:
        chained = self.random.random() < 0.4
        steps = [self._step(f"s{at}") for at in range(self.random.choice((1, 1, 2, 3)))]
        if chained:
            steps = [replace(s, needs=(f"s{at - 1}",) if at else ()) for at, s in enumerate(steps)]
        self.numbers += 1
        after = (f"j{self.random.randrange(1, self.numbers)}",) if self.numbers > 1 and self._odds(0.1) else ()
        job = a_job(
            self.numbers,
            *steps,
            queue=self.random.choice(("film", "film-a", "film-b", "ai", "nobody-described-me")),
            tenant=self.random.choice(("a", "b")),
            priority=self.random.choice((50, 80)),
            after=after,
        )
        self.park.submit(job, held=self._odds(0.1))

    def _step(self, name: str) -> Step:
        ask = self.random.choice(ASKS)
        return a_step(
            name,
            self.random.choice((1, 2, 6, 30)),
            ranks=self.random.choice((1, 1, 1, 2, 3)),
            retries=self.random.choice((0, 1, 2)),
            backoff_ms=self.random.choice((0, 10, 4_000)),
            backoff_max_ms=self.random.choice((0, 6_000)),
            max_parallel=self.random.choice((0, 0, 0, 2)),
            chunk=self.random.choice((0, 0, 0, 3)),
            warm_key=self.random.choice(("", "scene")),
            resources={f.name: getattr(ask, f.name) for f in fields(ask)},
        )

    def cycle(self) -> None:
        self.park.cycle()

    def work(self) -> None:
        """Time passes, and something happens to some open attempts: in a chunk, to its next one."""
        self.park.wait(self.random.choice((0, 1, 30, 3_000)))
        for record in list(self.park.engine.leases()):
            attempts = [self.park.engine.attempt(a) for a in record.lease.attempts]
            attempt = next((a for a in attempts if not a.state.is_final), None)
            if attempt is None or self._odds(0.3):
                continue
            if attempt.state is AttemptState.LEASED and self._odds(0.9):
                self.park.start(attempt.id)
                self.park.wait(self.random.choice((0, 2, 20)))
            if self._odds(0.2):
                self.park.tell(AttemptsSeen(at_ms=self.park.now_ms, attempt_ids=(attempt.id,)))
            elif record.stopping:
                saved_ms = self.random.choice((0, self.park.now_ms, self.park.now_ms - 15))
                self.park.end(
                    attempt.id,
                    self.random.choice((AttemptState.CANCELLED, AttemptState.PREEMPTED)),
                    checkpoint_ms=saved_ms,
                )
            elif self._odds(0.8):
                self.park.end(attempt.id)
            else:
                self.park.end(attempt.id, self.random.choice(BAD_ENDS), "bad luck")
                self.park.end(attempt.id, AttemptState.FAILED)  # late repeats are harmless

    def verb(self) -> None:
        if not self.numbers:
            return
        at_ms, job_id = self.park.now_ms, f"j{self.random.randrange(1, self.numbers + 1)}"
        ended = [r.job.id for r in self.park.engine.jobs() if r.state in (JobState.FAILED, JobState.CANCELLED)]
        if ended and self._odds(0.4):
            self.attempt_verb(JobRetried(at_ms=at_ms, job_id=self.random.choice(ended)))
            return
        indices = tuple(self.random.sample(range(6), 2))
        for record in [r for r in self.park.engine.leases() if r.lease.job_id == job_id and self._odds(0.3)]:
            stop = LeaseStopping(
                at_ms=at_ms, lease_id=record.lease.id, reason="preempted by an operator", charged=self._odds(0.5)
            )
            self.park.tell(stop, stop)
            if self._odds(0.5):
                self.seat(job_id, record.lease.step)
        self.attempt_verb(
            self.random.choice(
                (
                    JobHeld(at_ms=at_ms, job_id=job_id),
                    JobReleased(at_ms=at_ms, job_id=job_id),
                    JobReleased(at_ms=at_ms, job_id=job_id),
                    JobCancelled(at_ms=at_ms, job_id=job_id, by="owner"),
                    JobRetried(at_ms=at_ms, job_id=job_id),
                    JobRetried(at_ms=at_ms, job_id=job_id, step="s0", indices=indices),
                    JobRetried(at_ms=at_ms, job_id=job_id, step="s0", indices=indices, redo=True),
                )
            )
        )

    def seat(self, job_id: str, step: str) -> None:
        """Some place is kept for a while for what is stopped, whether it fits there or not."""
        nodes = tuple(self.random.choice(NODES).name for _ in range(self.random.choice((1, 1, 2))))
        until_ms = self.park.now_ms + self.random.choice((10, 3_000, 30_000))
        fact = SeatKept(at_ms=self.park.now_ms, job_id=job_id, step=step, seat=Seat(nodes=nodes, until_ms=until_ms))
        self.park.tell(fact, fact)

    def attempt_verb(self, event: JobHeld | JobReleased | JobCancelled | JobRetried) -> None:
        before = self.park.engine.snapshot()
        try:
            self.park.tell(event)
        except Conflict:
            assert self.park.engine.snapshot() == before, "a refused verb changed something"

    def trouble(self) -> None:
        node = self.random.choice(NODES)
        if self._odds(0.5):
            self.park.lose(node.name)
        sick = self._odds(0.3)
        devices = tuple(
            replace(d, health=Health.QUARANTINED if sick and d.index == 0 else Health.OK) for d in node.devices
        )
        if self._odds(0.2):
            devices = devices[1:]
        state = self.random.choice((NodeState.READY, NodeState.READY, NodeState.CORDONED))
        self.park.see(replace(node, devices=devices, state=state))

    def _odds(self, chance: float) -> bool:
        return self.random.random() < chance

    def check(self) -> None:
        self._nothing_is_oversubscribed()
        self._a_fresh_engine_plans_the_same()
        self._every_index_is_in_exactly_one_state()
        self._every_waiting_step_says_why()
        self._running_tasks_are_those_with_open_attempts()

    def _nothing_is_oversubscribed(self) -> None:
        used: Counter[tuple[str, str]] = Counter()
        tenants: dict[str, str] = {}
        for record in self.park.engine.leases():
            step = next(s for s in self.park.job(record.lease.job_id).job.steps if s.name == record.lease.step)
            assert len(record.lease.allocations) == step.ranks, "a gang was split"
            for allocation in record.lease.allocations:
                used[allocation.node, "cpu"] += allocation.cpu_milli
                used[allocation.node, "memory"] += allocation.memory_mib
                for device in allocation.devices:
                    used[device, "card"] += allocation.card_milli or 1_000
                    assert tenants.setdefault(device, record.lease.tenant) == record.lease.tenant
        for node in self.park.engine.nodes():
            assert used[node.name, "cpu"] <= node.cpu_milli
            assert used[node.name, "memory"] <= node.memory_mib
        assert all(amount <= 1_000 for (_, kind), amount in used.items() if kind == "card")

    def _a_fresh_engine_plans_the_same(self) -> None:
        snapshot = self.park.engine.snapshot()
        fresh = Engine.from_snapshot(snapshot, features=FEATURES)
        mine, other = self.park.plan(), fresh.plan(self.park.now_ms, self.park.policy)
        assert dumps(mine) == dumps(other)
        assert dumps(self.park.plan()) == dumps(mine), "planning changed something"
        told = self.park.engine.plan(self.park.now_ms, self.park.policy, waits=False)
        assert (told.actions, told.wake_ms) == (mine.actions, mine.wake_ms), "explaining changed what is done"
        assert fresh.snapshot() == snapshot == self.park.engine.snapshot()
        assert fresh._state.durations == self.park.engine._state.durations
        assert fresh._state.calibration == self.park.engine._state.calibration

    def _every_index_is_in_exactly_one_state(self) -> None:
        for record in self.park.engine.jobs():
            for step, done in zip(record.job.steps, record.steps, strict=True):
                sets = (done.waiting, done.running, done.succeeded, done.failed, done.cancelled)
                assert sorted(i for indices in sets for i in indices) == list(range(step.count))

    def _every_waiting_step_says_why(self) -> None:
        plan = self.park.plan()
        waits = {(wait.job_id, wait.step): wait for wait in plan.waits}
        assert len(waits) == len(plan.waits)
        starting: Counter[tuple[str, str]] = Counter()
        for action in plan.actions:
            if isinstance(action, Start):
                starting[action.lease.job_id, action.lease.step] += len(action.lease.attempts)
        for record in self.park.engine.jobs():
            for done in record.steps:
                key = (record.job.id, done.name)
                _check_wait(waits.pop(key, None), len(done.waiting) - starting[key])
        assert not waits
        positions = [wait.position for wait in plan.waits if wait.position]
        assert positions == list(range(1, len(positions) + 1))

    def _running_tasks_are_those_with_open_attempts(self) -> None:
        mine = Counter((a.job_id, a.step, a.index) for a in map(self.park.engine.attempt, self.park.open_attempts()))
        theirs = Counter(
            (record.job.id, done.name, index)
            for record in self.park.engine.jobs()
            for done in record.steps
            for index in done.running
        )
        assert mine == theirs

    def check_replay(self) -> None:
        """The journal through a fresh engine gives the live records."""
        again = Engine.from_snapshot(Snapshot(), features=FEATURES)
        for event in self.park.journal:
            again.apply(event)
        assert dumps(again.snapshot()) == dumps(self.park.engine.snapshot())

    def check_usage(self) -> None:
        """Buckets sum to devices x period; each lease's records cover it without gap or overlap."""
        leases = [*self.park.closed, *self.park.engine.leases()]
        held = [(record, [self.park.attempts[a] for a in record.lease.attempts]) for record in leases]
        end_ms = self.park.now_ms + 1
        rows = buckets(inventory(self.park.journal), held, 500, end_ms)
        assert error(rows, 500, end_ms) == 0
        for record, attempts in held:
            if record.closed_ms:
                spans = [(u.start_ms, u.end_ms) for u in seal(record, attempts, {})]
                edges = [record.lease.granted_ms, *(end for _, end in spans)]
                assert [start for start, _ in spans] == edges[:-1]
                assert edges[-1] == record.closed_ms

    def check_everything_can_end(self) -> None:
        """With all nodes healthy and nobody holding or failing anything, every job that can run does."""
        for node in NODES:
            self.park.see(node)
        self.park.wait(30_000)  # no seat is kept for so long
        for record in list(self.park.engine.jobs()):
            if not record.state.is_final and not record.cancelled and not record.failing:
                self.attempt_verb(JobReleased(at_ms=self.park.now_ms, job_id=record.job.id))
        self.park.finish_all()
        for record in self.park.engine.jobs():
            assert record.state.is_final or self._stuck_for_good(record.job.id), record

    def _stuck_for_good(self, job_id: str) -> bool:
        """A step of it can never run here, or it starts after a job that has not succeeded."""
        waits = self.park.engine.explain(job_id, self.park.now_ms, self.park.policy)
        never = any(reason.kind.value == "never_fits" for wait in waits for reason in wait.reasons)
        return never or any(
            self.park.job(other).state is not JobState.SUCCEEDED for other in self.park.job(job_id).job.after
        )


def _check_wait(wait: Wait | None, left: int) -> None:
    if not left:
        assert wait is None
        return
    assert wait is not None
    assert wait.tasks == left
    assert wait.reasons
    assert all(reason.message for reason in wait.reasons)
