"""A light pool of cards: first come, first served, with EASY backfill from learned run times, and forecasts on the way.

It shares no code with the forecast's own futures. Decisions use what was learned by then; only ends use the truth.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.traces import Trace
from scheduler.model.job import Job, Step
from scheduler.model.policy import Backfill
from scheduler.queueing.durations import Durations, Estimate
from scheduler.queueing.lifecycle import submitted
from scheduler.queueing.pool import Arrivals, Ask, Pool, Running

RECENT = 64
"""Arrivals the pressure is read from."""


@dataclass(slots=True)
class Lease:
    """A running job."""

    job: int
    places: tuple[int, ...]
    start_ms: int
    estimate: Estimate


@dataclass(slots=True)
class Waiting:
    """A waiting job, with the estimate it had when it came."""

    job: int
    ranks: int
    cards: int
    estimate: Estimate


@dataclass
class World:
    """``asked`` is called at each submission, before the pass that may start the job."""

    trace: Trace
    backfill: Backfill = Backfill.EASY
    durations: Durations = field(default_factory=Durations)
    now_ms: int = 0
    starts: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.free = [sum(device.model != "" for device in node.devices) for node in self.trace.nodes]
        self.running: dict[int, Lease] = {}
        self.waiting: list[Waiting] = []
        self.recent: list[tuple[int, Waiting]] = []

    def run(self, asked: Callable[[World, int, Waiting], None], began: Callable[[World, int], None]) -> None:
        """Play the whole trace."""
        ends: list[tuple[int, int]] = []
        jobs = self.trace.jobs
        at = 0
        while at < len(jobs) or ends:
            arrives = at < len(jobs) and (not ends or jobs[at].submitted_ms < ends[0][0])
            self.now_ms = jobs[at].submitted_ms if arrives else ends[0][0]
            if arrives:
                entry = self._entry(at)
                self.waiting.append(entry)
                asked(self, at, entry)
                self.recent = [*self.recent[-RECENT + 1 :], (self.now_ms, entry)]
                at += 1
            else:
                while ends and ends[0][0] == self.now_ms:
                    self._end(heapq.heappop(ends)[1])
            for job in self._schedule():
                heapq.heappush(ends, (self.now_ms + self.trace.work_ms[jobs[job].id], job))
                self.starts[job] = self.now_ms
                began(self, job)

    def pool(self) -> Pool:
        """What a forecast may know about the job that came last."""
        running = tuple(
            Running(
                nodes=lease.places,
                amount=self._cards(lease.job),
                elapsed_ms=self.now_ms - lease.start_ms,
                estimate=lease.estimate,
            )
            for lease in self.running.values()
        )
        ahead = tuple(Ask(ranks=w.ranks, amount=w.cards, estimate=w.estimate) for w in self.waiting[:-1])
        return Pool(
            free=tuple(self.free), running=running, ahead=ahead, arrivals=self._pressure(), backfill=self.backfill
        )

    def _pressure(self) -> tuple[Arrivals, ...]:
        if len(self.recent) < 2:
            return ()
        gap_ms = max((self.now_ms - self.recent[0][0]) // len(self.recent), 1)
        asks = tuple(Ask(ranks=w.ranks, amount=w.cards, estimate=w.estimate) for _, w in self.recent)
        return (Arrivals(gap_ms=gap_ms, asks=asks),)

    def _step(self, job: int) -> tuple[Job, Step]:
        found = self.trace.jobs[job]
        return found, found.steps[0]

    def _cards(self, job: int) -> int:
        return self.trace.jobs[job].steps[0].resources.cards

    def _entry(self, job: int) -> Waiting:
        found, step = self._step(job)
        record = submitted(found, held=False)
        estimate = self.durations.estimate(found, step, record.steps[0])
        return Waiting(job, step.ranks, step.resources.cards, estimate)

    def _end(self, job: int) -> None:
        lease = self.running.pop(job)
        for node in lease.places:
            self.free[node] += self._cards(job)
        found, step = self._step(job)
        done = submitted(found, held=False).steps[0]
        done = done.__class__(name=done.name, run_ms_mean=self.trace.work_ms[found.id], run_count=1)
        self.durations.add(found, step, done, 1)

    def _schedule(self) -> list[int]:
        """One pass over the queue: jobs that start now."""
        begun: list[int] = []
        while self.waiting and (places := _fit(self.free, self.waiting[0])):
            begun.append(self._start(self.waiting.pop(0), places))
        widest = max(self.free)
        if self.backfill is Backfill.NONE or not any(w.cards <= widest for w in self.waiting[1:]):
            return begun
        shadow_ms, spare = self._shadow(self.waiting[0]) if self.backfill is Backfill.EASY else (2**60, self.free)
        kept = self.waiting[:1]
        for entry in self.waiting[1:]:
            places: tuple[int, ...] = ()
            if entry.cards <= widest:
                late = self.now_ms + entry.estimate.median_ms > shadow_ms
                room = [min(f, s) for f, s in zip(self.free, spare, strict=True)] if late else self.free
                places = _fit(room, entry)
            if not places:
                kept.append(entry)
                continue
            if late and spare is not self.free:
                for node in places:
                    spare[node] -= entry.cards
            begun.append(self._start(entry, places))
            widest = max(self.free)
        self.waiting = kept
        return begun

    def _start(self, entry: Waiting, places: tuple[int, ...]) -> int:
        for node in places:
            self.free[node] -= entry.cards
        self.running[entry.job] = Lease(entry.job, places, self.now_ms, entry.estimate)
        return entry.job

    def _shadow(self, head: Waiting) -> tuple[int, list[int]]:
        """When the head is expected to start, and what it leaves free then."""
        spare = list(self.free)
        left = sorted((lease.estimate.left(self.now_ms - lease.start_ms), lease.job) for lease in self.running.values())
        for left_ms, job in left:
            for node in self.running[job].places:
                spare[node] += self._cards(job)
            places = _fit(spare, head)
            if places:
                for node in places:
                    spare[node] -= head.cards
                return self.now_ms + left_ms, spare
        return 2**60, spare


def _fit(free: Sequence[int], entry: Waiting) -> tuple[int, ...]:
    """The fullest nodes the job fits on; empty when it does not."""
    if entry.ranks == 1:
        best = min((f * 4096 + n for n, f in enumerate(free) if f >= entry.cards), default=-1)
        return (best % 4096,) if best >= 0 else ()
    nodes = np.array(free)
    places = np.flatnonzero(nodes >= entry.cards)[: entry.ranks]
    return tuple(int(node) for node in places) if len(places) == entry.ranks else ()
