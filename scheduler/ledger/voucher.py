"""Which vouchers burn for a line: in a declared order, for the time they are valid, and only under the best policy.

Two policies never pay for one line (从优不重复): each version's offer is worked out alone, the largest wins, and the
line keeps the others' amounts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from scheduler.ledger.policy import Offer, Room, offer
from scheduler.model.money import Limit, PolicyVersion, RatedLine, Voucher

RoomOf = Callable[[PolicyVersion, Sequence[Voucher]], Room]


class Purse:
    """A tenant's vouchers in the order they burn: priority, the one that ends first, the one granted first."""

    def __init__(self) -> None:
        self._granted: list[Voucher] = []
        self.by_policy: dict[str, list[Voucher]] = {}

    def add(self, voucher: Voucher) -> None:
        """A voucher granted after all those before it."""
        self._granted.append(voucher)
        order = {v.id: place for place, v in enumerate(self._granted)}
        mine = self.by_policy.setdefault(voucher.policy, [])
        mine.append(voucher)
        mine.sort(key=lambda v: (v.priority, v.valid_to_ms, order[v.id]))

    def remove(self, voucher_id: str) -> None:
        """A revoked voucher pays for nothing any more, not even for time that is sealed late."""
        self._granted = [v for v in self._granted if v.id != voucher_id]
        for policy, vouchers in list(self.by_policy.items()):
            kept = [v for v in vouchers if v.id != voucher_id]
            if kept:
                self.by_policy[policy] = kept
            else:
                del self.by_policy[policy]


def subsidise(
    line: RatedLine,
    purse: Purse | None,
    policies: Mapping[str, PolicyVersion],
    room_of: RoomOf,
    *,
    purpose: str,
) -> RatedLine:
    """The line with what vouchers pay of it, or with the reason why none does."""
    if purse is None or not purse.by_policy:
        return replace(line, limit=Limit.NO_VOUCHER)
    offers = list(_offers(line, purse, policies, room_of, purpose))
    best = max(offers, key=lambda o: o.micro_yuan)  # the first of equals: versions stand in the order of first grants
    if not best.parts:
        told = next((o for o in offers if o.limit not in _WEAK), offers[0])
        return replace(line, limit=told.limit, limit_note=told.note)
    others = tuple((o.policy, o.micro_yuan) for o in offers if o is not best and o.parts)
    return replace(line, subsidies=best.parts, passed_over=others)


_WEAK = (Limit.OUTSIDE_VALIDITY, Limit.NOT_IN_POLICY, Limit.DRAFT)
"""Reasons that say less than any other: shown only when no version has a better one."""


def _offers(
    line: RatedLine, purse: Purse, policies: Mapping[str, PolicyVersion], room_of: RoomOf, purpose: str
) -> Iterable[Offer]:
    for policy, vouchers in purse.by_policy.items():
        version = policies.get(policy)
        if version is None:
            yield Offer(policy=policy, limit=Limit.DRAFT, note=policy)
        else:
            yield offer(version, vouchers, line, room_of(version, vouchers), purpose)
