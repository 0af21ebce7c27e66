"""Limits of queues and seats of licences that a promised start needs: what starts before it must not use them up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from scheduler.engine.candidates import Candidate
from scheduler.engine.guard import Promise
from scheduler.queueing.quota import Quotas, Share


class Headroom:
    """Works on one plan's trial: ``quotas`` and ``seats`` are what that has left so far.

    Who is at a limit is promised nothing. So it is not enough that the limit lets a promised step start when its time
    comes: it must do so in every plan until then.
    """

    def __init__(self, quotas: Quotas, seats: Mapping[str, int]) -> None:
        self._quotas = quotas
        self._seats = seats
        self._owners: list[tuple[Promise, Candidate]] = []

    @property
    def owners(self) -> tuple[tuple[Promise, Candidate], ...]:
        """The promises in order, and whose they are."""
        return tuple(self._owners)

    def keep(self, promise: Promise, owner: Candidate) -> None:
        """A start is promised."""
        self._owners.append((promise, owner))

    def drop(self, promise: Promise) -> None:
        """It has begun."""
        self._owners = [kept for kept in self._owners if kept[0] is not promise]

    def replace(self, before: Promise, after: Promise) -> None:
        """Its start is promised otherwise: elsewhere, or at another time."""
        self._owners = [(after if promise is before else promise, owner) for promise, owner in self._owners]

    def allows(self, owner: Candidate) -> bool:
        """Whether the limits let a step start beside all that were promised a start before it."""
        return not self._owners or self._passes([candidate for _, candidate in self._owners], owner)

    def needed_by(self, candidate: Candidate) -> Promise | None:
        """The first promise whose step a limit would hold back if the candidate had started now."""
        taken = [candidate]
        for promise, owner in self._owners:
            if owner is not candidate:
                if not self._passes(taken, owner):
                    return promise
                taken.append(owner)
        return None

    def _passes(self, taken: list[Candidate], asking: Candidate) -> bool:
        """Whether the limits let one start once those others hold what they ask for."""
        seats = Counter[str]()
        for each in (*taken, asking):
            for name, n in each.step.resources.licences:
                seats[name] += n * each.step.ranks
        if any(self._seats.get(name, 0) < seats[name] for name, _ in asking.step.resources.licences):
            return False
        with self._quotas.as_if((), [_share(each) for each in taken]):
            return self._quotas.block(asking.queue, asking.amounts, asking.job.id) is None


def _share(candidate: Candidate) -> Share:
    return candidate.queue, candidate.amounts, candidate.job.id
