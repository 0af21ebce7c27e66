"""Promised films: many tasks, or several steps, each on tracks that nothing later may delay.

Random parks as in :mod:`tests.property.test_deadlines`, where most jobs with a deadline are films. Owners are right, or
wrong by as much as the engine reckons with, and frames differ.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from scheduler.engine import Engine
from scheduler.engine.slots import SWITCH_MS
from scheduler.model import codec
from scheduler.model.event import Event
from scheduler.model.job import Job, JobState, Step
from scheduler.model.plan import Plan
from scheduler.model.policy import Backfill
from scheduler.model.snapshot import Snapshot
from scheduler.queueing.film import length_ms, room
from scheduler.simulation.loop import Simulation
from scheduler.simulation.scenario import Scenario
from scheduler.simulation.workload import Workload
from tests.builders import FEATURES, Park, a_job, a_node, a_step
from tests.property.test_deadlines import HOUR_MS, MINUTE_MS, World

Truth = Callable[[Job, Step, int], int]


class FilmWorld(World):
    """Likewise, with films."""

    def __init__(self, seed: int, *, jobs: int = 25, any_backfill: bool = False) -> None:
        super().__init__(seed, jobs=jobs)
        if not any_backfill and self.policy.backfill is Backfill.CONSERVATIVE:
            self.policy = replace(self.policy, backfill=Backfill.EASY)  # the same promises in a third of the time

    def _job(self, number: int, at_ms: int) -> Job:
        job = super()._job(number, at_ms)
        one = job.steps[0]
        if self.random.random() < 0.6 or one.ranks > 1:
            return job
        self.work_ms[job.id] = run_ms = self.work_ms[job.id] // 4
        count = self.random.choice((2, 5, 12, 30))
        film = replace(one, count=count, run_ms_expected=run_ms, max_parallel=self.random.choice((0, 0, 2)))
        steps = (film,)
        if self.random.random() < 0.4:
            last = a_step("join", count=self.random.choice((1, 3)), run_ms_expected=run_ms, needs=("work",))
            steps = (film, last)
        work_ms = run_ms * max(count / 4, 2) * len(steps)
        slack = self.random.choice((1.5, 3, 6))
        return replace(job, steps=steps, deadline_ms=at_ms + int(slack * work_ms) + 5 * MINUTE_MS)

    def roll(
        self,
        truth: Truth | None = None,
        outside: tuple[Event, ...] = (),
        watch: Callable[[Engine, Plan], object] | None = None,
    ) -> Simulation:
        """To the end."""
        work = truth or (lambda job, step, index: self.work_ms[job.id])
        simulation = Simulation(
            Scenario(
                policy=self.policy,
                truth=Workload(work_ms=work, stop_ms=0),
                nodes=self.nodes,
                queues=self.queues,
                jobs=self.jobs,
                outside=outside,
                admits=True,
                features=FEATURES,
                until_ms=self.jobs[-1].submitted_ms + 12 * HOUR_MS,
            ),
            watch=watch,
            keep=True,
        )
        simulation.run()
        return simulation

    def uncertain(self, seed: int) -> Truth:
        """Owners wrong by a third, and frames that differ by as much, both drawn from what names a task."""

        def work_ms(job: Job, step: Step, index: int) -> int:
            at = [s.name for s in job.steps].index(step.name)
            mean = np.random.default_rng([seed, int(job.id[1:]), at]).lognormal(0, 0.35)
            own = np.random.default_rng([seed, int(job.id[1:]), at, index]).lognormal(-0.06, 0.35)
            return max(int(self.work_ms[job.id] * mean * (own if step.count > 1 else 1)), 1)

        return work_ms


def films(simulation: Simulation) -> list[tuple[Job, bool]]:
    """Films whose deadline was promised, and whether it was kept."""
    records = [r for r in simulation.engine.jobs() if r.job.tracks]
    return [(r.job, r.state is JobState.SUCCEEDED and r.finished_ms <= r.job.deadline_ms) for r in records]


def known_times(seeds: range) -> None:
    made = 0
    for seed in seeds:
        simulation = FilmWorld(seed, any_backfill=len(seeds) > 5).roll()
        missed = [
            r.job.id
            for r in simulation.engine.jobs()
            if r.job.is_promised and not (r.state is JobState.SUCCEEDED and r.finished_ms <= r.job.deadline_ms)
        ]
        assert missed == [], f"seed {seed}"
        made += len(films(simulation))
    assert made >= 2 * len(seeds), "too few films were promised: nothing was tested"


def statistically(seeds: range, play: Callable[[FilmWorld, int], Simulation]) -> None:
    """Misses are at most what was left to certainty, and three deviations as if those of a park came together."""
    expected = variance = 0.0
    missed = made = 0
    for seed in seeds:
        found = films(play(FilmWorld(seed), seed))
        chances = [1 - job.promise_permille / 1_000 for job, _ in found]
        expected += sum(chances)
        variance += len(found) * sum(chance * (1 - chance) for chance in chances)
        missed += sum(not kept for _, kept in found)
        made += len(found)
    assert made >= 2 * len(seeds)
    most = expected + 3 * math.sqrt(variance)
    assert missed <= most, f"{missed} of {made} missed, {expected:.1f} were to be expected"


def test_no_promised_film_is_late_where_run_times_are_known() -> None:
    known_times(range(3))


def test_no_more_films_are_late_than_was_said_where_owners_are_wrong_and_frames_differ() -> None:
    statistically(range(20, 23), lambda world, seed: world.roll(world.uncertain(seed)))


def test_no_more_films_are_late_than_was_said_where_nodes_fail() -> None:
    statistically(range(40, 42), lambda world, seed: world.roll(outside=world.failures()))


def test_a_fresh_engine_keeps_the_same_tracks_and_a_replay_tells_the_same() -> None:
    world = FilmWorld(4)
    plans = [0, 0]

    def look(engine: Engine, plan: Plan) -> None:
        plans[0] += 1
        if plans[0] % 5 == 0 and any(record.job.tracks for record in engine.jobs()):
            fresh = Engine.from_snapshot(engine.snapshot(), features=FEATURES)
            assert fresh.plan(plan.now_ms, world.policy, waits=False).actions == plan.actions
            plans[1] += 1

    simulation = world.roll(watch=look)
    assert plans[1] >= 10, "no plan with films was compared"
    again = Engine.from_snapshot(Snapshot(), features=FEATURES)
    for event in simulation.events:
        again.apply(codec.loads(Event, codec.dumps(event, tagged=True)))
    assert again.snapshot() == simulation.engine.snapshot()


@pytest.mark.parametrize("seed", range(8))
def test_promises_together_never_need_more_than_the_park_has(seed: int) -> None:
    rng = random.Random(seed)
    park = Park(*(a_node(f"n{i}", cards=rng.choice((1, 2, 4)), cpus=16) for i in range(3)))
    cards = {node.name: len(node.devices) for node in park.engine.nodes()}
    for number in range(1, 25):
        gang = rng.random() < 0.2
        step = a_step(
            count=1 if gang else rng.randint(1, 20),
            ranks=2 if gang else 1,
            cards=1,
            run_ms_expected=rng.randint(1, 20) * MINUTE_MS,
        )
        job = a_job(number, step, deadline_ms=park.now_ms + rng.randint(1, 12) * HOUR_MS)
        park.submit(park.engine.promised(job, park.now_ms, park.policy))
    promised = [r.job for r in park.engine.jobs() if r.job.is_promised]
    assert sum(bool(job.tracks) for job in promised) >= 3
    slots = [job.slot for job in promised if job.slot is not None]
    held = [(name, s.start_ms, s.end_ms - SWITCH_MS, 1) for s in slots for name in s.nodes]  # a margin, not a need
    held += [(t.node, t.start_ms, t.end_ms, t.copies) for job in promised for t in job.tracks]
    for node, at_ms, _, _ in held:
        taken = sum(n for name, start_ms, end_ms, n in held if name == node and start_ms <= at_ms < end_ms)
        assert taken <= cards[node]


@pytest.mark.parametrize("seed", range(50))
def test_a_stretch_has_room_for_what_is_as_long_as_it(seed: int) -> None:
    rng = random.Random(seed)
    tasks, task_ms = rng.randint(1, 5_000), rng.randint(1, 10_000_000)
    assert room(length_ms(tasks, task_ms), task_ms) == tasks
    assert room(length_ms(tasks, task_ms) - 1, task_ms) == tasks - 1
    # What was long enough for all is long enough for the rest, once some ran as long as their mean.
    assert room(length_ms(tasks, task_ms) - length_ms(1, 0) - task_ms, task_ms) >= tasks - 1


@pytest.mark.soak
@pytest.mark.timeout(1_200)
def test_no_promised_film_is_late_in_many_parks() -> None:
    known_times(range(100, 125))


@pytest.mark.soak
@pytest.mark.timeout(1_200)
def test_no_more_films_are_late_than_was_said_in_many_parks() -> None:
    statistically(range(200, 220), lambda world, seed: world.roll(world.uncertain(seed), world.failures()))
