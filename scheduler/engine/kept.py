"""The slots that one plan keeps, and what they mean for the limits of their queues."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from scheduler.engine.guard import Promise
from scheduler.engine.state import State
from scheduler.model.queue import Amounts
from scheduler.queueing.calendar import FOREVER_MS
from scheduler.queueing.order import amounts_of
from scheduler.queueing.quota import Block, Quotas, Share

Key = tuple[str, str]
"""``(job, step)``"""


class Slots(dict[Key, Promise]):
    """By step, what is kept for it. Its queue holds it while it lasts, for everybody who would still run then."""

    def __init__(self, state: State, quotas: Quotas) -> None:
        super().__init__()
        self.films: dict[Key, list[Promise]] = {}
        """By step of a film, a promise for each copy of its tracks in which nothing runs yet."""
        self._state = state
        self._quotas = quotas

    def __bool__(self) -> bool:
        return bool(len(self) or self.films)

    def kept(self) -> Iterator[tuple[Key, Promise]]:
        """Everything that is kept, slots first."""
        yield from self.items()
        yield from ((key, promise) for key, promises in self.films.items() for promise in promises)

    def block(self, queue: str, amounts: Amounts, mine: Key, last_ms: int) -> Block | None:
        """What the limits say against ``amounts`` more from now until an instant; None: nothing."""
        if not self:
            return self._quotas.block(queue, amounts, mine[0])
        with self._quotas.as_if((), self._shares(p for key, p in self.kept() if key != mine and p.start_ms < last_ms)):
            return self._quotas.block(queue, amounts, mine[0])

    def opens_ms(  # noqa: PLR0917 (all of them decide)
        self, queue: str, amounts: Amounts, mine: Key, start_ms: int, end_ms: int, last_end_ms: Callable[[str], int]
    ) -> int:
        """When the limits of a queue may let it take ``amounts`` for a stretch of time: at its start, or after the next
        end of something; FOREVER_MS: never. ``last_end_ms``: by lease, when it has ended at the latest.
        """
        others = [p for key, p in self.kept() if key != mine]
        with self._quotas.as_if((), self._shares(others)):
            if self._quotas.block(queue, amounts, mine[0]) is None:
                return start_ms
        ends = {key: last_end_ms(key) for key in self._state.leases}
        over = (self._state.leases[key].lease for key, at in ends.items() if at <= start_ms)
        beside = self._shares(p for p in others if p.start_ms < end_ms and p.end_ms > start_ms)
        with self._quotas.as_if(map(self._state.held_by, over), beside):
            if self._quotas.block(queue, amounts, mine[0]) is None:
                return start_ms
        later = [*ends.values(), *(p.end_ms for p in others)]
        return min((at for at in later if at > start_ms), default=FOREVER_MS)

    def _shares(self, promises: Iterable[Promise]) -> list[Share]:
        jobs = self._state.jobs
        return [
            (jobs[p.job_id].job.queue, amounts_of(p.demand.resources, len(p.allocations)), p.job_id) for p in promises
        ]
