"""Starts that were promised, as records: where several are promised at a time, each plan begins with those of the last.

Promises that are made anew in each plan, one after the other, hold for the first only: whoever is ahead may find
another place that is as good for it and in the way of who comes behind. So they are recorded, each with its place. A
plan makes one earlier where that takes nothing from the others (compression, as in conservative backfilling: Mu'alem
and Feitelson, IEEE TPDS 12(6), 2001), and keeps it otherwise.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from scheduler.engine.candidates import Candidate, Line
from scheduler.engine.guard import Promise
from scheduler.engine.trial import Trial
from scheduler.model.job import KeptStart
from scheduler.model.lease import number_of
from scheduler.model.plan import KeepStarts, Reserve
from scheduler.placement.fit import allotted


def recall(trial: Trial, lines: Mapping[str, Line], steered: Collection[tuple[str, str]]) -> None:
    """Begin with the starts that the last plan promised to who still waits and may start. ``steered``: steps that have
    had their turn.
    """
    state = trial.state
    for job_id in sorted((key for key in state.promised if key in state.active), key=number_of):
        record = state.active[job_id]
        line = lines.get(record.job.queue)
        for done in record.steps:
            key, kept = (job_id, done.name), done.promised
            if kept is None or line is None or key in steered:
                continue
            candidate = line.find(key)
            if candidate is not None:
                trial.starts.recorded[key] = _promise(trial, candidate, kept)
                trial.expected.call_by(job_id, kept.start_ms)


def _promise(trial: Trial, candidate: Candidate, kept: KeptStart) -> Promise:
    trial.set_chunk(candidate)
    ask, start_ms = candidate.demand.resources, max(kept.start_ms, trial.now_ms)
    places = (allotted(ask, node, devices) for node, devices in kept.places)
    return candidate.promise(places, start_ms, start_ms + candidate.run_ms)


def keep_starts(trial: Trial, *, is_full: bool) -> Iterator[KeepStarts]:
    """Record what this plan promises, if that is not what is recorded. With one promise at a time there is no need.

    ``is_full``: it starts all it may, and did not come to everybody.
    """
    before = {
        (job_id, done.name, done.promised)
        for job_id in trial.state.promised
        for done in trial.state.jobs[job_id].steps
        if done.promised is not None
    }
    promises = (*trial.promises, *(trial.starts.recorded.values() if is_full else ()))
    starts = [_kept(p) for p in promises if not p.is_drain] if trial.promises_max > 1 else []
    if before != set(starts):
        yield KeepStarts(starts=tuple(sorted(starts, key=lambda start: (number_of(start[0]), start[1]))))


def _kept(promise: Promise) -> tuple[str, str, KeptStart]:
    places = tuple((allocation.node, allocation.devices) for allocation in promise.allocations)
    return promise.job_id, promise.step, KeptStart(start_ms=promise.start_ms, places=places)


def reserves(trial: Trial) -> Iterator[Reserve]:
    """Slots, promised starts and tracks as actions."""
    for p in (*trial.slots.values(), *trial.promises):
        yield Reserve(job_id=p.job_id, step=p.step, nodes=p.nodes, start_ms=p.start_ms)
    for (job_id, step), tracks in trial.slots.films.items():
        for start_ms in sorted({p.start_ms for p in tracks if p.start_ms > trial.now_ms}):
            nodes = {name for p in tracks if p.start_ms == start_ms for name in p.nodes}
            yield Reserve(job_id=job_id, step=step, nodes=tuple(sorted(nodes)), start_ms=start_ms)
