"""What the cluster is asked for: shapes of demand and how often each is asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scheduler.placement.fit import Demand


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Demands with their weights, heaviest first. Equal records must give an equal mix."""

    shares: tuple[tuple[Demand, int], ...] = ()


NOTHING = Wanted()
"""Nothing is known: placement then only packs tightly."""


def wanted_of(counts: Iterable[tuple[Demand, int]]) -> Wanted:
    """The mix of ``(demand, how often)``, whatever their order, tenants and speeds.

    Weights are coarse (powers of two and their halves between), so that a mix, and with it every score, changes only
    when demand has changed much.
    """
    sums: dict[Demand, int] = {}
    for demand, count in counts:
        plain = Demand(resources=demand.resources, lane=demand.lane)
        sums[plain] = sums.get(plain, 0) + count
    shares = [(demand, coarse(count)) for demand, count in sums.items() if count > 0]
    return Wanted(shares=tuple(sorted(shares, key=lambda share: (-share[1], repr(share[0])))))


def coarse(count: int) -> int:
    """The largest of 1, 2, 3, 4, 6, 8, 12, 16, ... that is not above ``count``."""
    power = 1 << (count.bit_length() - 1)
    return power + power // 2 if count >= power + power // 2 else power
