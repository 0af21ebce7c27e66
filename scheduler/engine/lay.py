"""Where the tasks of a film would run, one after the other: tracks on named nodes, in what is left of the park."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from scheduler.engine.candidates import Candidate
from scheduler.engine.gaps import Gaps, Stretch
from scheduler.engine.guard import Promise
from scheduler.engine.slots import SWITCH_MS, on_model
from scheduler.engine.trial import Trial
from scheduler.model.job import Step, Track
from scheduler.model.lease import Allocation
from scheduler.placement.view import leasable
from scheduler.queueing.film import length_ms, room
from scheduler.queueing.order import amounts_of
from scheduler.queueing.rate import FULL_PERMILLE, work_rate_permille

TRIES = 64
"""Times that the limits of its queue may say no."""

Best = tuple[int, int, str, str, int]
"""``(-tasks, start, node, model, copies)``: the least is the one to take."""


def rated_ms(step: Step, model: str, task_ms: int) -> int:
    """What a task of so much work takes on cards of a model."""
    return task_ms * FULL_PERMILLE // max(work_rate_permille(step, 1, model), 1)


@dataclass
class Laying:
    """One step's tracks being looked for. What is found is kept in the guard at once: :meth:`drop` undoes that."""

    trial: Trial
    candidate: Candidate
    task_ms: int
    """The careful mean of its tasks, at full speed."""
    from_ms: int
    by_ms: int
    left: int
    """Tasks that have no place yet."""
    most: int
    """Copies that may still be added."""
    found: list[tuple[Track, list[Promise]]] = field(default_factory=list)
    _opens: dict[str, int] = field(default_factory=dict)
    """By node, since when the limits of the queue may allow more."""

    def run(self) -> bool:
        """Look for tracks, those for most tasks first, so that few are needed; True: every task has a place."""
        gaps = self.trial.starts.gaps(self.trial.expected.lasts)
        shapes = self.trial.state.shapes
        heap = [best for name in shapes.possible(shapes.of(self.candidate.demand)) for best in self._on(gaps, name)]
        heapq.heapify(heap)
        tries = TRIES
        while self.left > 0 and self.most > 0 and heap and tries:
            tasks, start_ms, name, model, copies = heapq.heappop(heap)
            if -tasks > self.left:  # the rest needs less time than it offered
                heap = [best for best in heap if best[2] != name]
                again: Iterator[Best] = self._on(gaps, name)
            else:
                copies = min(copies, -(-self.left // -tasks), self.most)
                tries -= not self._take(-tasks, start_ms, name, model, copies)
                heap = [best for best in heap if best[2] != name]
                again = self._on(gaps, name)
            heap.extend(again)
            heapq.heapify(heap)
        return self.left <= 0

    def drop(self) -> None:
        """Keep nothing of what was found."""
        for _, promises in self.found:
            for promise in promises:
                self.trial.guard.drop(promise)

    def _on(self, gaps: Gaps, name: str) -> Iterator[Best]:
        """The best opening on a node for each card model it has."""
        for model in _models(self.trial, self.candidate, name):
            task_ms = rated_ms(self.candidate.step, model, self.task_ms)
            asked = replace(self._stretch(), demand=on_model(self.candidate.demand, model))
            asked = replace(asked, from_ms=max(asked.from_ms, self._opens.get(name, 0)))
            fitting = (
                (min(room(end_ms - start_ms - SWITCH_MS, task_ms), self.left), -start_ms, copies)
                for start_ms, end_ms, copies in gaps.openings(asked, name, self.by_ms)
            )
            tasks, start_ms, copies = max(fitting, default=(0, 0, 0))
            if tasks:
                yield -tasks, -start_ms, name, model, copies

    def _stretch(self) -> Stretch:
        return replace(self.trial.starts.stretch(self.candidate, 1, 1), from_ms=self.from_ms)

    def _take(self, tasks: int, start_ms: int, name: str, model: str, copies: int) -> bool:
        """Keep a track, as wide as the limits of the queue let it be; False: not then."""
        candidate, trial = self.candidate, self.trial
        end_ms = start_ms + SWITCH_MS + length_ms(tasks, rated_ms(candidate.step, model, self.task_ms))
        mine = sum(track.copies for track, _ in self.found if track.start_ms < end_ms and track.end_ms > start_ms)
        opens_ms = start_ms
        for wide in range(copies, 0, -1):
            amounts = amounts_of(candidate.step.resources, mine + wide)
            opens_ms = trial.slots.opens_ms(
                candidate.queue, amounts, candidate.key, start_ms, end_ms, trial.expected.last_end_ms
            )
            if opens_ms == start_ms:
                break
        else:
            self._opens[name] = opens_ms
            return False
        track = Track(
            step=candidate.step.name,
            node=name,
            model=model,
            copies=wide,
            tasks=tasks,
            start_ms=start_ms,
            end_ms=end_ms,
        )
        promises = [promised(candidate, track, start_ms) for _ in range(wide)]
        for promise in promises:
            trial.guard.add(promise)
        self.found.append((track, promises))
        self.left -= tasks * wide
        self.most -= wide
        return True


def promised(candidate: Candidate, track: Track, start_ms: int) -> Promise:
    """One copy of a track for the guard, from an instant on."""
    there = candidate.promise((Allocation(node=track.node),), start_ms, track.end_ms, is_slot=True)
    return replace(there, demand=on_model(candidate.demand, track.model))


def _models(trial: Trial, candidate: Candidate, name: str) -> list[str]:
    ask = candidate.step.resources
    if not (ask.cards or ask.card_milli):
        return [""]
    models = {device.model for device in leasable(trial.state.nodes[name].node)}
    return sorted(models & set(ask.card_models) if ask.card_models else models)
