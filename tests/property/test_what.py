"""Every smallest change that is named is one, and is the smallest: held against trying everything.

Small parks, so that trying everything is possible: each value below (or above) the one named, each smaller set of
leases, nodes or cards, each smaller number of new nodes. "Starts": a plan of a fresh engine starts more of it.
"""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.engine.plan import make_plan
from scheduler.engine.state import State
from scheduler.model.job import JobRecord, Resources, Step
from scheduler.model.lease import AttemptState
from scheduler.model.node import Health, NodeState
from scheduler.model.plan import Change, ChangeKind, Start
from scheduler.model.policy import Backfill, Policy
from scheduler.model.queue import Queue
from scheduler.model.snapshot import Snapshot
from scheduler.placement.view import leasable
from tests.builders import FEATURES, Park, a_job, a_node, a_step
from tests.property.test_reasons import TENANTS, random_node, random_step

QUEUES = (
    Queue(name="film", weight=200, limit=(-1, -1, 3_000, -1)),
    Queue(name="ai", limit=(4_000, -1, -1, -1)),
)


class World:
    """A park as values that an oracle changes."""

    def __init__(self, park: Park, job_id: str, policy: Policy | None = None) -> None:
        self.snapshot: Snapshot = park.engine.snapshot()
        self.now_ms, self.policy, self.job_id = park.now_ms, policy or park.policy, job_id
        self.anyway = self.started()

    def record(self) -> JobRecord:
        return next(r for r in self.snapshot.jobs if r.job.id == self.job_id)

    @property
    def step(self) -> Step:
        return self.record().job.steps[0]

    @property
    def ask(self) -> Resources:
        return self.step.resources

    def started(self, *, record=None, policy=None, queues=(), nodes=(), without=()) -> int:
        """Tasks of the job that start in the park with these changes."""
        changed = {n.name: n for n in nodes}
        snapshot = replace(
            self.snapshot,
            queues=tuple({q.name: q for q in (*self.snapshot.queues, *queues)}.values()),
            nodes=tuple(sorted({**{n.name: n for n in self.snapshot.nodes}, **changed}.values(), key=lambda n: n.name)),
            leases=tuple(r for r in self.snapshot.leases if r.lease.id not in without),
            attempts=tuple(a for a in self.snapshot.attempts if a.lease_id not in without),
        )
        record = record or self.record()
        # What runs of it holds what was asked for when it started: in a snapshot it would hold what is asked for now.
        asks_anew = record.job.steps != self.record().job.steps
        runs = any(r.lease.job_id == self.job_id for r in snapshot.leases)
        instead = {self.job_id: record} if asks_anew and runs else {}
        if not instead:
            snapshot = replace(snapshot, jobs=tuple(record if r.job.id == self.job_id else r for r in snapshot.jobs))
        plan = make_plan(State(snapshot, FEATURES), self.now_ms, policy or self.policy, instead)
        mine = (a.lease for a in plan.actions if isinstance(a, Start) and a.lease.job_id == self.job_id)
        return sum(len(lease.attempts) for lease in mine)

    def starts_more(self, **changes) -> bool:
        """More than starts anyway. Fewer is no help: new nodes may start a job ahead, which takes the queue's limit."""
        return self.started(**changes) > self.anyway

    def with_step(self, **changes) -> JobRecord:
        record = self.record()
        step = replace(record.job.steps[0], **changes)
        return replace(record, job=replace(record.job, steps=(step,)))

    def with_ask(self, **changes) -> JobRecord:
        return self.with_step(resources=replace(self.record().job.steps[0].resources, **changes))

    def with_job(self, **changes) -> JobRecord:
        record = self.record()
        return replace(record, job=replace(record.job, **changes))


def cure(world: World, keys) -> list:
    nodes = {n.name: n for n in world.snapshot.nodes}
    for key in keys:
        name, _, device = key.partition("/")
        if device:
            healthy = tuple(replace(d, health=Health.OK) if d.id == device else d for d in nodes[name].devices)
            nodes[name] = replace(nodes[name], devices=healthy)
        else:
            nodes[name] = replace(nodes[name], state=NodeState.READY)
    return list(nodes.values())


def copies(world: World, name: str, count: int) -> list:
    like = next(n for n in world.snapshot.nodes if n.name == name)
    found = []
    for i in range(count):
        new = f"\0new-{i}"
        ids = {d.id: f"{new}/{at}" for at, d in enumerate(like.devices)}
        devices = tuple(
            replace(
                d,
                id=ids[d.id],
                parent=ids.get(d.parent, ""),
                island=f"{new}/{d.island}" if d.island else "",
                health=Health.OK,
            )
            for d in like.devices
        )
        found.append(replace(like, name=new, devices=devices, state=NodeState.READY, state_reason=""))
    return found


def smaller(world: World, change: Change) -> None:
    now, unit = getattr(world.ask, change.target), 1 if change.target == "cards" else 50
    assert world.starts_more(record=world.with_ask(**{change.target: change.amount}))
    for value in {change.amount + 1, *range(change.amount + unit, now, unit)} - {now}:
        assert not world.starts_more(record=world.with_ask(**{change.target: value})), value


def fewer_ranks(world: World, change: Change) -> None:
    more = range(change.amount + 1, world.step.ranks)
    assert world.starts_more(record=world.with_step(ranks=change.amount))
    assert not any(world.starts_more(record=world.with_step(ranks=ranks)) for ranks in more)


def priority(world: World, change: Change) -> None:
    lower = range(world.record().job.priority + 1, change.amount)
    assert world.starts_more(record=world.with_job(priority=change.amount))
    assert not any(world.starts_more(record=world.with_job(priority=p)) for p in lower)


def parallel(world: World, change: Change) -> None:
    assert world.starts_more(record=world.with_step(max_parallel=change.amount))
    assert not world.starts_more(record=world.with_step(max_parallel=change.amount - 1))


def queue_limit(world: World, change: Change) -> None:
    queue = next(q for q in world.snapshot.queues if q.name == change.target)
    at = ("cpu_milli", "memory_mib", "card_milli", "mig_milli").index(change.names[0])

    def with_limit(value: int) -> bool:
        wider = replace(queue, limit=tuple(value if i == at else old for i, old in enumerate(queue.limit)))
        return world.starts_more(queues=[wider])

    assert with_limit(change.amount)
    assert not any(with_limit(value) for value in (*range(queue.limit[at], change.amount, 50), change.amount - 1))


def end_leases(world: World, change: Change) -> None:
    assert world.starts_more(without=change.names)
    running = [record.lease.id for record in world.snapshot.leases]
    for few in range(1, len(change.names)):
        assert not any(world.starts_more(without=some) for some in combinations(running, few))


def heal(world: World, change: Change) -> None:
    assert world.starts_more(nodes=cure(world, change.names))
    sick = [n.name for n in world.snapshot.nodes if n.state is not NodeState.READY]
    sick += [f"{n.name}/{d.id}" for n in world.snapshot.nodes for d in leasable(n) if d.health is not Health.OK]
    for few in range(1, len(change.names)):
        assert not any(world.starts_more(nodes=cure(world, some)) for some in combinations(sick, few))


def add_nodes(world: World, change: Change) -> None:
    assert world.starts_more(nodes=copies(world, change.target, change.amount))
    assert not any(world.starts_more(nodes=copies(world, change.target, n)) for n in range(1, change.amount))


def other_card(world: World, change: Change) -> None:
    assert world.starts_more(record=world.with_ask(card_models=tuple(sorted((*world.ask.card_models, change.target)))))


def label(world: World, change: Change) -> None:
    fewer = tuple(label for label in world.ask.labels if "=".join(label) != change.target)
    assert world.starts_more(record=world.with_ask(labels=fewer))


def tolerate(world: World, change: Change) -> None:
    assert world.starts_more(record=world.with_ask(tolerations=tuple(sorted((*world.ask.tolerations, change.target)))))


def release(world: World, change: Change) -> None:
    assert world.starts_more(record=replace(world.record(), held=False))


def retry(world: World, change: Change) -> None:
    assert world.record().steps[0].later
    assert world.starts_more(record=replace(world.record(), steps=(replace(world.record().steps[0], later=()),)))


ORACLES = {
    ChangeKind.SMALLER: smaller,
    ChangeKind.FEWER_RANKS: fewer_ranks,
    ChangeKind.PRIORITY: priority,
    ChangeKind.PARALLEL: parallel,
    ChangeKind.QUEUE_LIMIT: queue_limit,
    ChangeKind.END_LEASES: end_leases,
    ChangeKind.HEAL: heal,
    ChangeKind.ADD_NODES: add_nodes,
    ChangeKind.OTHER_CARD: other_card,
    ChangeKind.LABEL: label,
    ChangeKind.TOLERATE: tolerate,
    ChangeKind.RELEASE: release,
    ChangeKind.RETRY: retry,
}
"""Each asserts that the change works, and that nothing smaller of its kind does."""


def missed(world: World, found: set[ChangeKind]) -> None:
    """What is not offered would indeed not help: a look at the extremes of each kind."""
    job, ask = world.record().job, world.ask
    if ChangeKind.PRIORITY not in found and job.priority < 100:
        assert not world.starts_more(record=world.with_job(priority=100))
    if ChangeKind.END_LEASES not in found:
        assert not world.starts_more(without=[r.lease.id for r in world.snapshot.leases])
    if ChangeKind.SMALLER not in found and ask.cpu_milli:
        assert not world.starts_more(record=world.with_ask(cpu_milli=0))
    if ChangeKind.ADD_NODES not in found:
        for node in world.snapshot.nodes:
            assert not world.starts_more(nodes=copies(world, node.name, 3))


def a_park(rng: random.Random) -> Park:
    park = Park(*(random_node(rng, f"n{i}") for i in range(rng.choice((1, 2, 3)))), queues=QUEUES)
    park.policy = Policy(backfill=rng.choice(list(Backfill)))
    for number in range(1, rng.choice((3, 5, 8))):
        step = replace(random_step(rng), count=rng.choice((1, 2)), max_parallel=rng.choice((0, 0, 1)))
        step = replace(step, backoff_ms=rng.choice((0, 90_000)))
        queue, priority = rng.choice(("film", "ai")), rng.choice((30, 50, 70))
        park.submit(
            a_job(number, step, tenant=rng.choice(TENANTS), queue=queue, priority=priority), held=rng.random() < 0.1
        )
    park.cycle()
    for attempt_id in park.open_attempts():
        if rng.random() < 0.3:
            ended = rng.choice((AttemptState.SUCCEEDED, AttemptState.FAILED))
            park.run(attempt_id, ms=rng.choice((1_000, 60_000)), state=ended)
    return park


def explore(seed: int) -> int:
    rng = random.Random(seed)
    park = a_park(rng)
    tried = 0
    for wait in park.plan().waits:
        record = park.job(wait.job_id)
        world = World(park, record.job.id)
        found = park.engine.changes(record.job.id, wait.step, park.now_ms, park.policy)
        for change in found:
            ORACLES[change.kind](world, change)
        if not record.held:
            missed(world, {change.kind for change in found})
        tried += len(found)
    return tried


def test_a_promise_that_moved_to_nodes_of_another_lane_is_the_one_that_is_kept():
    """With several promises, a start that waits for nodes to move between lanes had two: the plan found neither."""
    a_park(random.Random(5178))


def test_a_smaller_set_of_leases_is_named_where_more_of_them_help_as_well_and_others_do_not():
    """More room starts somebody ahead: of leases 2 and 3 the end of the third helps, that of both does not."""
    explore(120)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_change_named_is_the_smallest_that_starts_it(seed):
    explore(seed)


@pytest.mark.soak
@pytest.mark.timeout(1_200)
@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_change_named_is_the_smallest_in_many_parks(seed):
    explore(seed)


def test_changes_are_named_for_a_card_job_behind_a_full_farm():
    park = Park(a_node("n1", cpus=4, cards=2))
    park.submit(a_job(1, a_step(cards=2)))
    park.cycle()
    park.submit(a_job(2, a_step(cards=1)))
    messages = [change.message for change in park.engine.changes("j2", "work", park.now_ms, park.policy)]
    assert messages == ["wait for 1 running leases to end, or stop them: l1", "add a node like n1"]
