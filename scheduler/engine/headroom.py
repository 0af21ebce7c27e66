"""What queues may hold and licences have seats for when a promised start comes: what starts before leaves it that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from scheduler.engine.candidates import Candidate
from scheduler.engine.expected import Expected
from scheduler.engine.guard import Promise, Stay
from scheduler.engine.state import State
from scheduler.model.queue import Amounts
from scheduler.queueing.lifecycle import find_step
from scheduler.queueing.quota import Quotas, Share


@dataclass(slots=True)
class _Then:
    """The limits as they will be at a promised start, if everything goes on as expected."""

    promise: Promise
    owner: Candidate
    quotas: Quotas
    seats: Counter[str]
    """Free seats of the licences that the start needs."""

    def passes(self) -> bool:
        """Whether the limits let it start then."""
        owner = self.owner
        enough = all(self.seats[name] >= n * owner.step.ranks for name, n in owner.step.resources.licences)
        return enough and self.quotas.block(owner.queue, owner.amounts, owner.job.id) is None


class Headroom:
    """Works on one plan's trial: ``quotas`` and ``seats`` are what that has left so far."""

    def __init__(self, state: State, quotas: Quotas, seats: dict[str, int], expected: Expected) -> None:
        self._state = state
        self._quotas = quotas
        self._seats = seats
        self._expected = expected
        self._owners: list[tuple[Promise, Candidate]] = []
        self._known: dict[int, _Then] = {}
        """By promise; worked out when somebody comes near a limit."""

    def keep(self, promise: Promise, owner: Candidate) -> None:
        """A start is promised."""
        self._owners.append((promise, owner))
        self._known.clear()

    def drop(self, promise: Promise) -> None:
        """It has begun."""
        self._owners = [kept for kept in self._owners if kept[0] is not promise]
        self._known.clear()

    @property
    def owners(self) -> tuple[tuple[Promise, Candidate], ...]:
        """The promises in order, and whose they are."""
        return tuple(self._owners)

    def allows(self, promise: Promise, owner: Candidate) -> bool:
        """Whether the limits will let it start then, beside the starts that were promised before it."""
        return not self._owners or self._then(promise, owner).passes()

    def delayed(self, candidate: Candidate, amounts: Amounts, stay: Stay) -> Promise | None:
        """The first promise whose start a limit would forbid if the candidate held ``amounts`` for so long."""
        for promise, owner in self._owners:
            if promise.start_ms >= stay.until_ms(promise) or owner is candidate or self._is_far(owner, candidate):
                continue
            then = self._known.get(id(promise)) or self._known.setdefault(id(promise), self._then(promise, owner))
            if not then.passes():
                continue  # not this one's doing
            with_it = _taken(then, candidate, amounts, 1)
            passes = with_it.passes()
            _taken(then, candidate, amounts, -1)
            if not passes:
                return promise
        return None

    def start(self, candidate: Candidate, amounts: Amounts, stay: Stay) -> None:
        """The plan starts a lease of the candidate."""
        for then in self._known.values():
            if then.promise.start_ms < stay.until_ms(then.promise):
                _taken(then, candidate, amounts, 1)

    def _is_far(self, owner: Candidate, candidate: Candidate) -> bool:
        """Both would pass all limits now, beside everything that is held: what ends until then only helps."""
        for name, seats in owner.step.resources.licences:
            mine = dict(candidate.step.resources.licences).get(name, 0) * candidate.step.ranks
            if mine and self._seats.get(name, 0) < seats * owner.step.ranks + mine:
                return False
        with self._quotas.as_if((), ((candidate.queue, candidate.amounts, candidate.job.id),)):
            return self._quotas.block(owner.queue, owner.amounts, owner.job.id) is None

    def _then(self, promise: Promise, owner: Candidate) -> _Then:
        quotas, seats = self._quotas.copy(), Counter(dict(self._seats))
        for (queue, amounts, job_id), licences, ranks in self._ended(promise):
            quotas.give(queue, amounts, job_id)
            for name, n in licences:
                seats[name] += n * ranks
        for other, its in self._owners:
            if other is not promise and other.start_ms <= promise.start_ms < other.end_ms:
                quotas.take(its.queue, its.amounts, its.job.id)
                for name, n in its.step.resources.licences:
                    seats[name] -= n * its.step.ranks
        return _Then(promise, owner, quotas, seats)

    def _ended(self, promise: Promise) -> Iterator[tuple[Share, tuple[tuple[str, int], ...], int]]:
        """What will have ended when it starts: running leases, and those of this plan."""
        for record in self._state.leases.values():
            if self._expected.end_ms(record, promise.leave) <= promise.start_ms:
                lease = record.lease
                step, _ = find_step(self._state.jobs[lease.job_id], lease.step)
                yield self._state.held_by(lease), step.resources.licences, len(lease.allocations)
        for candidate, ranks, end_ms in self._expected.of_plan():
            if end_ms <= promise.start_ms:
                share = candidate.queue, candidate.amounts_on(ranks), candidate.job.id
                yield share, candidate.step.resources.licences, ranks


def _taken(then: _Then, candidate: Candidate, amounts: Amounts, sign: int) -> _Then:
    """With the candidate in it (``sign`` 1), or without it again (-1)."""
    change = then.quotas.take if sign > 0 else then.quotas.give
    change(candidate.queue, amounts, candidate.job.id)
    for name, n in candidate.step.resources.licences:
        then.seats[name] -= sign * n * candidate.step.ranks
    return then
