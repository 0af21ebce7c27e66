"""What the cluster is asked for: shapes of demand and how often each is asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from scheduler.placement.fit import Demand

PARTS = 1_000_000
"""Weights are parts of this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Demands with their weights in millionths, heaviest first. Equal records must give an equal mix."""

    shares: tuple[tuple[Demand, int], ...] = ()


NO_MIX = Mix()
"""Nothing is known: placement then only packs tightly."""


def mix_of(counts: Iterable[tuple[Demand, int]], *, cover_permille: int = 950) -> Mix:
    """The most frequent demands that make up ``cover_permille`` of all tasks, whatever their order and tenants.

    The cut is FGD's ("typical pods", ATC'23 section 5). Tenants and speeds do not matter to what can be used.
    """
    sums: dict[Demand, int] = {}
    for demand, count in counts:
        plain = Demand(resources=demand.resources, lane=demand.lane)
        sums[plain] = sums.get(plain, 0) + count
    total = sum(sums.values())
    if total <= 0:
        return NO_MIX
    shares: list[tuple[Demand, int]] = []
    covered = 0
    for demand, count in sorted(sums.items(), key=lambda entry: (-entry[1], repr(entry[0]))):
        if covered * 1_000 >= total * cover_permille:
            break
        covered += count
        shares.append((demand, count))
    return Mix(shares=tuple((demand, count * PARTS // covered) for demand, count in shares))
