"""Whether the deadline of a film can be promised: many tasks, or several steps, on tracks that are kept for them.

Each step gets a window of the time to the deadline: behind the windows of the steps it needs, and of a length in
proportion to what it takes with the whole park. In its window its tracks are looked for in what the next plan leaves.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from scheduler.engine.candidates import Candidate, candidate_of
from scheduler.engine.lay import Laying
from scheduler.engine.slots import SWITCH_MS
from scheduler.engine.trial import Trial
from scheduler.model.job import JobRecord, Track
from scheduler.model.lease import number_of
from scheduler.placement.fit import capacity
from scheduler.placement.view import NodeView
from scheduler.queueing.film import Lane, Part, Reel, careful_task_ms, chance, length_ms
from scheduler.queueing.rate import FULL_PERMILLE, work_rate_permille


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """When a step is to run."""

    candidate: Candidate
    task_ms: int
    start_ms: int
    end_ms: int


def tracks(trial: Trial, record: JobRecord) -> tuple[Track, ...]:
    """Tracks on which all steps end by the deadline; none: there are not enough. The trial is left as it was."""
    with _laid(trial, record) as found:
        return found


def permille(trial: Trial, record: JobRecord, found: tuple[Track, ...]) -> int:
    """Probability, in thousandths, that a film ends in time on its tracks."""
    parts: list[Part] = []
    ends: dict[str, tuple[int, ...]] = {}
    for candidate in _in_order(trial, record):
        step = candidate.step
        lanes: list[Lane] = []
        for track in (track for track in found if track.step == step.name):
            behind = _behind(trial, track)
            ends |= behind
            rate = max(work_rate_permille(step, 1, track.model), 1)
            start_ms = max(track.start_ms - trial.now_ms, 0)
            lane = Lane(node=track.node, start_ms=start_ms, rate_permille=rate, behind=tuple(sorted(behind)))
            lanes += [lane] * track.copies
        means = candidate.estimate.atoms
        parts.append(Part(name=step.name, count=step.count, means=means, lanes=tuple(lanes), needs=step.needs))
    reel = Reel(
        parts=tuple(parts),
        limit_ms=record.job.deadline_ms - trial.now_ms,
        ends=ends,
        failures_per_hour=trial.policy.failures_per_hour,
    )
    return chance(reel, number_of(record.job.id))


@contextmanager
def _laid(trial: Trial, record: JobRecord) -> Iterator[tuple[Track, ...]]:
    layings: list[Laying] = []
    is_whole = False
    for window in _windows(trial, record):
        candidate, count = window.candidate, window.candidate.step.count
        most = candidate.step.max_parallel or count
        laying = Laying(trial, candidate, window.task_ms, window.start_ms, window.end_ms, count, most)
        layings.append(laying)
        is_whole = laying.run()
        if not is_whole:
            break
    yield tuple(track for laying in layings for track, _ in laying.found) if is_whole else ()
    for laying in layings:
        laying.drop()


def _windows(trial: Trial, record: JobRecord) -> list[Window]:
    """One per step, those that are needed first; none: the deadline is too near even for an empty park."""
    over: dict[str, int] = {}
    steps: list[tuple[Candidate, int, int]] = []
    for candidate in _in_order(trial, record):
        task_ms = careful_task_ms(candidate.estimate, candidate.record)
        begins = max((over[name] for name in candidate.step.needs), default=0)
        over[candidate.step.name] = begins + _alone_ms(trial, candidate, task_ms)
        steps.append((candidate, task_ms, begins))
    whole, now_ms = max(over.values()), trial.now_ms
    span_ms = record.job.deadline_ms - now_ms
    if whole > span_ms:
        return []
    return [
        Window(
            candidate=candidate,
            task_ms=task_ms,
            start_ms=now_ms + span_ms * begins // whole,
            end_ms=now_ms + span_ms * over[candidate.step.name] // whole,
        )
        for candidate, task_ms, begins in steps
    ]


def _alone_ms(trial: Trial, candidate: Candidate, task_ms: int) -> int:
    """What a step takes at full speed with every place in the park that it may have."""
    state, step = trial.state, candidate.step
    names = state.shapes.possible(state.shapes.of(candidate.demand))
    views = (NodeView.empty(state.nodes[name].node) for name in names)
    places = sum(capacity(view, candidate.demand, state.shapes.features) for view in views)
    wide = max(min(places, step.count, step.max_parallel or step.count), 1)
    return SWITCH_MS + length_ms(-(-step.count // wide), task_ms)


def _in_order(trial: Trial, record: JobRecord) -> list[Candidate]:
    """The steps, each behind those that it needs."""
    found: dict[str, Candidate] = {}
    steps = list(enumerate(record.job.steps))
    while steps:
        position, step = next(each for each in steps if all(name in found for name in each[1].needs))
        steps.remove((position, step))
        found[step.name] = candidate_of(trial.state, record, position, trial.now_ms, trial.policy)
    return list(found.values())


def _behind(trial: Trial, track: Track) -> dict[str, tuple[int, ...]]:
    """By lease that must have left its node before a track begins: when it may have done so, counted from now."""
    found: dict[str, tuple[int, ...]] = {}
    for _, _, key in trial.expected.ends(track.node) if track.start_ms > trial.now_ms else ():
        if trial.expected.last_end_ms(key) <= track.start_ms:
            estimate, did_ms, rate = trial.expected.progress(key)
            found[key] = tuple((atom - did_ms) * FULL_PERMILLE // rate for atom in estimate.survivors(did_ms))
    return found
