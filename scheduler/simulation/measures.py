"""Figures of a run. Pure arithmetic on what it gave back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scheduler.model.job import JobState
from scheduler.model.units import WHOLE_CARD_MILLI
from scheduler.simulation.outcome import JobOutcome, Run, Span

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Steps:
    """A step function: ``values[i]`` from ``at_ms[i]`` until ``at_ms[i+1]``; 0 before the first instant."""

    at_ms: Ints
    values: Ints

    def area(self, start_ms: int, end_ms: int) -> int:
        """Sum of value x ms over ``[start_ms, end_ms)``."""
        if not len(self.at_ms) or end_ms <= start_ms:
            return 0
        edges = np.clip(np.append(self.at_ms, end_ms), start_ms, end_ms)
        return int(np.sum(np.diff(edges) * self.values))

    def at(self, instants_ms: Ints) -> Ints:
        """Values at these instants."""
        where = np.searchsorted(self.at_ms, instants_ms, side="right") - 1
        return np.where(where >= 0, self.values[np.maximum(where, 0)], 0) if len(self.values) else 0 * instants_ms


def steps_of(changes: Iterable[tuple[int, int]]) -> Steps:
    """The running sum of ``(instant, change)``."""
    table = np.array(sorted(changes), dtype=np.int64).reshape(-1, 2)
    if not len(table):
        return Steps(np.zeros(0, np.int64), np.zeros(0, np.int64))
    sums = np.cumsum(table[:, 1])
    last = np.append(table[1:, 0] != table[:-1, 0], True)
    return Steps(table[last, 0], sums[last])


def cards_held(spans: Iterable[Span]) -> Steps:
    """Thousandths of cards held over time."""
    return steps_of(change for s in spans for change in ((s.granted_ms, s.card_milli), (s.closed_ms, -s.card_milli)))


def cpus_held(spans: Iterable[Span]) -> Steps:
    """Thousandths of vCPUs held over time."""
    return steps_of(change for s in spans for change in ((s.granted_ms, s.cpu_milli), (s.closed_ms, -s.cpu_milli)))


def tasks_waiting(run: Run, queue: str = "") -> Steps:
    """Tasks that wait over time; of one queue, or of all."""
    return steps_of((at_ms, change) for at_ms, name, change in run.waiting if not queue or name == queue)


def cards_offered(run: Run) -> Steps:
    """Thousandths of cards the park had over time."""
    table = np.array([(at_ms, cards) for at_ms, cards, _ in run.park], dtype=np.int64).reshape(-1, 2)
    return Steps(table[:, 0], table[:, 1])


def cpus_offered(run: Run) -> Steps:
    """Thousandths of vCPUs the park had over time."""
    table = np.array([(at_ms, cpus) for at_ms, _, cpus in run.park], dtype=np.int64).reshape(-1, 2)
    return Steps(table[:, 0], table[:, 1])


def percentile(values: Sequence[int], permille: int) -> int:
    """The least value that at least ``permille`` thousandths of the values do not exceed; 0 of none."""
    if not values:
        return 0
    ranked = sorted(values)
    return ranked[max(-(-permille * len(ranked) // 1_000) - 1, 0)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A run, or the part of it that some jobs are, in numbers. Times in ms."""

    jobs: int
    succeeded: int
    unfinished: int
    wait_mean_ms: int
    wait_p50_ms: int
    wait_p90_ms: int
    wait_p99_ms: int
    jct_mean_ms: int
    jct_p50_ms: int
    jct_p99_ms: int
    makespan_ms: int
    """From the first submission to the last end."""
    deadlines: int
    deadlines_met: int
    preempted: int
    lost_ms: int
    cards_busy_permille: int
    """Of the cards offered from the first submission to the last end."""
    cards_idle_ms: int
    """Cards offered and not held in that time, x ms."""


def figures(run: Run, jobs: Sequence[JobOutcome] | None = None) -> Figures:
    """Of these jobs, or of all; the cards are always those of the whole run."""
    chosen = run.jobs if jobs is None else jobs
    ended = [job for job in chosen if job.state.is_final and job.finished_ms]
    waits = [job.wait_ms for job in chosen if job.was_granted]
    jcts = [job.jct_ms for job in ended if job.state is JobState.SUCCEEDED]
    due = [job for job in chosen if job.deadline_ms]
    start_ms = min((job.submitted_ms for job in run.jobs), default=run.start_ms)
    end_ms = max((span.closed_ms for span in run.spans), default=run.end_ms)
    offered = cards_offered(run).area(start_ms, end_ms)
    held = cards_held(run.spans).area(start_ms, end_ms)
    return Figures(
        jobs=len(chosen),
        succeeded=len(jcts),
        unfinished=len(chosen) - len(ended),
        wait_mean_ms=_mean(waits),
        wait_p50_ms=percentile(waits, 500),
        wait_p90_ms=percentile(waits, 900),
        wait_p99_ms=percentile(waits, 990),
        jct_mean_ms=_mean(jcts),
        jct_p50_ms=percentile(jcts, 500),
        jct_p99_ms=percentile(jcts, 990),
        makespan_ms=max((job.finished_ms for job in ended), default=start_ms)
        - min((job.submitted_ms for job in chosen), default=start_ms),
        deadlines=len(due),
        deadlines_met=sum(job.met_deadline for job in due),
        preempted=sum(job.preempted for job in chosen),
        lost_ms=sum(job.lost_ms for job in chosen),
        cards_busy_permille=1_000 * held // offered if offered else 0,
        cards_idle_ms=(offered - held) // WHOLE_CARD_MILLI,
    )


def share_error_permille(run: Run, weights: dict[str, int], start_ms: int, end_ms: int) -> int:
    """Largest distance between a queue's part of the card time held in a window and its part of the weights."""
    held = {
        queue: cards_held(span for span in run.spans if span.queue == queue).area(start_ms, end_ms) for queue in weights
    }
    total, weight = sum(held.values()), sum(weights.values())
    if not total or not weight:
        return 0
    return max(abs(1_000 * held[queue] // total - 1_000 * weights[queue] // weight) for queue in weights)


def _mean(values: Sequence[int]) -> int:
    return sum(values) // len(values) if values else 0
