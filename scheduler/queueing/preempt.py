"""stub"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Victim:
    lease_id: str
    cost: int


def choose(victims: Sequence[Victim], fits: Callable[[frozenset[str]], bool]) -> tuple[str, ...]:
    kept = sorted(victims, key=lambda v: (v.cost, v.lease_id))
    if not fits(frozenset(v.lease_id for v in kept)):
        return ()
    for v in sorted(kept, key=lambda v: (-v.cost, v.lease_id)):
        rest = [k for k in kept if k is not v]
        if fits(frozenset(k.lease_id for k in rest)):
            kept = rest
    return tuple(sorted(v.lease_id for v in kept))
