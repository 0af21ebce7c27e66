"""The Philly pool: 68,510 trainings on 72 nodes with 8 cards, nothing known of how long any of them takes.

Jobs of up to 8 cards run on one node, larger ones on whole nodes. An eviction loses a minute of work. What runs is
decided by ``allot`` from an index that is learned from finished jobs; nodes are found by best fit, by evicting who is
not to run, and by moving small jobs away.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from benchmarks.traces import CARDS_PER_NODE, SECOND_MS, Trace, philly, rows
from scheduler.queueing.allot import allot
from scheduler.queueing.gittins import index_ms
from scheduler.queueing.item import Item, Supply

LOST_MS = 60 * SECOND_MS
PLAN_EVERY_MS = 60 * SECOND_MS
"""Evictions are considered no more often than this; between, what fits starts in the order of the index."""
HEAD = 200
"""Waiting jobs that a plan looks at."""
MOVED_MOST = 4
"""Cards of a job that is moved to make room for a larger one."""
MODEL = "P100"
ATOMS = 64
LEARNED_LEAST = 30
"""Finished jobs of a class before it is asked."""


@dataclass(slots=True)
class Task:
    """One job in the pool."""

    key: str
    cards: int
    classes: tuple[object, ...]
    """From the narrowest class of similar jobs to all of them."""
    arrival_ms: int
    left_ms: int
    """The truth; only the oracle orders look at it."""
    item: Item
    served_ms: int = 0
    start_ms: int = -1
    """Of the current run; -1: waits."""
    nodes: tuple[int, ...] = ()
    evicted: int = 0

    @property
    def end_ms(self) -> int:
        """Of the current run."""
        return self.start_ms + self.left_ms

    def seen(self, index: int) -> Item:
        """As the policy sees it."""
        place = (MODEL, 1) if self.start_ms >= 0 else None
        if (self.item.index_ms, self.item.running) != (index, place):
            self.item = replace(self.item, index_ms=index, running=place)
        return self.item

    def ran_ms(self, now: int) -> int:
        """Attained service per card."""
        return self.served_ms + (now - self.start_ms if self.start_ms >= 0 else 0)


@dataclass(slots=True)
class Learner:
    """Run times of finished jobs by class, as a few equally likely values."""

    seen: dict[object, list[int]] = field(default_factory=dict)
    atoms: dict[object, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    """With the number of finished jobs they were drawn from: drawn anew when a quarter more have finished."""
    known: dict[tuple[object, int, int], int] = field(default_factory=dict)

    def learn(self, classes: Sequence[object], ran_ms: int) -> None:
        """A job finished."""
        for name in classes:
            insort(self.seen.setdefault(name, []), ran_ms)

    def index_ms(self, classes: Sequence[object], ran_ms: int) -> int:
        """Index of a job that has run so long, in steps of a sixteenth."""
        for name in classes:
            count = len(self.seen.get(name, ()))
            if count < LEARNED_LEAST:
                continue
            drawn, atoms = self.atoms.get(name, (0, ()))
            if count * 4 >= drawn * 5:
                values = self.seen[name]
                drawn, atoms = count, tuple(values[(2 * at + 1) * count // (2 * ATOMS)] for at in range(ATOMS))
                self.atoms[name] = drawn, atoms
            key = name, drawn, _stepped(ran_ms)
            if key not in self.known:
                self.known[key] = index_ms(atoms, key[2])
            return self.known[key]
        return ran_ms + SECOND_MS


Order = Callable[["Pool", Task, int], int]
"""Least first."""


@dataclass(slots=True)
class Pool:
    """Nodes, who runs on them and who waits."""

    order: Order
    preempt: bool
    """Whether anything is evicted."""
    steer: bool = False
    """Whether ``allot`` decides (else: the order, strictly)."""
    skip: bool = True
    """Whether a job that does not fit lets others pass."""
    nodes: int = 72
    free: list[int] = field(default_factory=list)
    waiting: list[tuple[int, str]] = field(default_factory=list)
    """``(order, key)``, sorted. Who waits does not change its place."""
    tasks: dict[str, Task] = field(default_factory=dict)
    running: dict[str, Task] = field(default_factory=dict)
    ends: list[tuple[int, str]] = field(default_factory=list)
    done_ms: dict[str, int] = field(default_factory=dict)
    learner: Learner = field(default_factory=Learner)
    planned_ms: int = -PLAN_EVERY_MS
    evictions: int = 0

    def play(self, tasks: Sequence[Task]) -> float:
        """Run all jobs; mean time to completion in seconds."""
        self.free = [CARDS_PER_NODE] * self.nodes
        self.tasks = {task.key: task for task in tasks}
        coming = sorted(tasks, key=lambda t: (t.arrival_ms, t.key))[::-1]
        while coming or self.running:
            arrival = coming[-1].arrival_ms if coming else 2**60
            now = min(arrival, self.ends[0][0] if self.ends else 2**60)
            self._end(now)
            while coming and coming[-1].arrival_ms <= now:
                self._wait(coming.pop(), now)
            self._start(now)
        waits = (self.done_ms[task.key] - task.arrival_ms for task in tasks)
        return sum(waits) / len(tasks) / SECOND_MS

    def _end(self, now: int) -> None:
        while self.ends and self.ends[0][0] <= now:
            end, key = heapq.heappop(self.ends)
            task = self.running.get(key)
            if task is None or task.end_ms != end:
                continue
            self.done_ms[key] = end
            self.learner.learn(task.classes, task.ran_ms(end))
            self._leave(task)

    def _leave(self, task: Task) -> None:
        del self.running[task.key]
        for node, cards in _parts(task):
            self.free[node] += cards

    def _wait(self, task: Task, now: int) -> None:
        task.start_ms = -1
        insort(self.waiting, (self.order(self, task, now), task.key))

    def _start(self, now: int) -> None:
        """Start what can start, after evicting for whom that pays."""
        if not self.waiting:
            return
        if self.preempt and now >= self.planned_ms + PLAN_EVERY_MS:
            self.planned_ms = now
            self._plan(now)
        room = sum(self.free)
        least = 1
        for entry in list(self.waiting):
            task = self.tasks[entry[1]]
            if room < least:
                break
            if task.cards <= room and self._place(task, now):
                self.waiting.remove(entry)
                room -= task.cards
            elif not self.skip:
                break

    def _plan(self, now: int) -> None:
        targets = self._targets(now) if self.steer else self._strict(now)
        spare = {key for key in self.running if key not in targets}
        for entry in [e for e in islice(self.waiting, HEAD) if e[1] in targets]:
            task = self.tasks[entry[1]]
            if self._place(task, now) or (self._clear(task, spare, now) and self._place(task, now)):
                self.waiting.remove(entry)

    def _targets(self, now: int) -> set[str]:
        """Whom ``allot`` wants to run."""
        items = [replace(t.item, running=(MODEL, 1), index_ms=self.order(self, t, now)) for t in self.running.values()]
        items += [replace(self.tasks[key].item, index_ms=index) for index, key in islice(self.waiting, HEAD)]
        supply = Supply(cards=((MODEL, self.nodes * CARDS_PER_NODE),))
        return set(allot(items, supply, now).places)

    def _strict(self, now: int) -> set[str]:
        """Who comes first in the order as far as the cards go."""
        ranked = [(self.order(self, t, now), t.key) for t in self.running.values()]
        found: set[str] = set()
        room = self.nodes * CARDS_PER_NODE
        for _, key in sorted([*ranked, *islice(self.waiting, HEAD)]):
            if self.tasks[key].cards <= room:
                found.add(key)
                room -= self.tasks[key].cards
        return found

    def _place(self, task: Task, now: int) -> bool:
        if task.cards <= CARDS_PER_NODE:
            fits = [(free, node) for node, free in enumerate(self.free) if free >= task.cards]
            chosen: tuple[int, ...] = (min(fits)[1],) if fits else ()
        else:
            whole = [node for node, free in enumerate(self.free) if free == CARDS_PER_NODE]
            count = -(-task.cards // CARDS_PER_NODE)
            chosen = tuple(whole[:count]) if len(whole) >= count else ()
        if not chosen:
            return False
        task.nodes, task.start_ms = chosen, now
        for node, cards in _parts(task):
            self.free[node] -= cards
        self.running[task.key] = task
        heapq.heappush(self.ends, (task.end_ms, task.key))
        return True

    def _clear(self, task: Task, spare: set[str], now: int) -> bool:
        """Make room on the nodes where that takes the fewest cards from others; False: no room can be made."""
        count = -(-task.cards // CARDS_PER_NODE)
        each = min(task.cards, CARDS_PER_NODE)
        plans = sorted(self._cleared(each, spare))[:count]
        if len(plans) < count:
            return False
        for _, _, victims in plans:
            for victim in victims:
                self._evict(victim, spare, now)
        return True

    def _cleared(self, cards: int, spare: set[str]) -> Iterator[tuple[int, int, list[Task]]]:
        """``(cards taken, node, victims)`` per node that can be freed for so many cards."""
        there: dict[int, list[Task]] = {}
        for other in self.running.values():
            if len(other.nodes) == 1:
                there.setdefault(other.nodes[0], []).append(other)
        room = sum(self.free)
        for node, free in enumerate(self.free):
            got, victims = free, []
            for other in sorted(there.get(node, ()), key=lambda t: (t.key not in spare, -t.cards, t.key)):
                movable = self.steer and other.cards <= MOVED_MOST and room >= CARDS_PER_NODE
                if got >= cards or not (other.key in spare or movable):
                    break
                got += other.cards
                victims.append(other)
            if got >= cards:
                yield got - free, node, victims

    def _evict(self, task: Task, spare: set[str], now: int) -> None:
        ran = now - task.start_ms
        self._leave(task)
        task.served_ms += ran
        task.left_ms += LOST_MS - ran
        task.evicted += 1
        self.evictions += 1
        spare.discard(task.key)
        self._wait(task, now)


def _parts(task: Task) -> Iterator[tuple[int, int]]:
    for node in task.nodes:
        yield node, min(task.cards, CARDS_PER_NODE)


def tasks_of(folder: Path, trace: Trace) -> list[Task]:
    """The trace's jobs with the classes that tell them apart: virtual cluster and size."""
    clusters = [row["cluster"] for row in rows(folder / "philly" / "jobs_82k.csv.gz")]
    found: list[Task] = []
    for at, job in enumerate(trace.jobs):
        ask = job.steps[0].resources.cards * job.steps[0].ranks
        size = bisect_right((1, 2, 4, 8), ask)
        cluster = clusters[int(job.name.split()[1])]
        item = Item(key=f"{at:06}", remaining_ms=1, models=(MODEL,), cards_per_rank=ask, lose_ms=LOST_MS)
        found.append(
            Task(
                key=item.key,
                cards=ask,
                classes=((cluster, size), size, "all"),
                arrival_ms=job.submitted_ms,
                left_ms=trace.work_ms[job.id],
                item=replace(item, submitted_ms=job.submitted_ms),
            )
        )
    return found


def _stepped(ran_ms: int) -> int:
    """Down to a sixteenth: who runs is not overtaken with every second."""
    shift = max(ran_ms.bit_length() - 5, 0)
    return ran_ms >> shift << shift


def learned(pool: Pool, task: Task, now: int) -> int:
    """Ours: the Gittins index of what similar jobs took."""
    return pool.learner.index_ms(task.classes, task.ran_ms(now))


def fifo(pool: Pool, task: Task, now: int) -> int:
    """First come, first served."""
    del pool, now
    return task.arrival_ms


def sjf(pool: Pool, task: Task, now: int) -> int:
    """Shortest job first, by the truth."""
    del pool, now
    return task.left_ms


def las(pool: Pool, task: Task, now: int) -> int:
    """Least attained service first, in card time, in the same steps as ours (Tiresias' 2D-LAS has two or three)."""
    del pool
    return (_stepped(task.ran_ms(now)) + 1) * task.cards


def seconds(folder: Path, order: Order, *, preempt: bool, steer: bool = False, every: int = 1) -> float:
    """Mean completion time of the pool under an order. ``every``: one job in so many, on as many fewer nodes."""
    pool = Pool(order=order, preempt=preempt, steer=steer, nodes=72 // every)
    return pool.play(tasks_of(folder, philly(folder, every=every)))
