"""What queues have used, forgotten by halves: the memory of fair share.

Use decays exactly as ``2 ** (-elapsed / half-life)`` in whole minutes, on integers alone, so that every machine and
every replay finds the same records. Minutes are counted on the clock, not from the last change: however often a
record is touched, the same time makes it forget the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from scheduler.model.policy import USAGE_HALF_LIFE_MS
from scheduler.model.queue import Amounts, QueueUse
from scheduler.model.units import MS_PER_SECOND
from scheduler.queueing.order import NONE, plus

DECAY_STEP_MS = 60_000
STEPS_PER_HALF_LIFE = USAGE_HALF_LIFE_MS // DECAY_STEP_MS
FRACTION_BITS = 64
STEP_FACTOR = 18_445_475_634_321_399_670
"""``2 ** (-1 / STEPS_PER_HALF_LIFE)`` in units of ``2 ** -FRACTION_BITS``, rounded down."""


def decayed(use: QueueUse, at_ms: int) -> Amounts:
    """What ``use`` counts for at ``at_ms``; an earlier instant than its own changes nothing."""
    return _decay(use.used, _steps(use.at_ms, at_ms))


def add(use: QueueUse | None, queue: str, amounts: Amounts, held_ms: int, at_ms: int) -> QueueUse:
    """``use`` (None: nothing yet) with a lease of ``queue`` that held ``amounts`` for ``held_ms`` up to ``at_ms``.

    Leases may close out of order: one from before the record's instant is decayed up to that instant.
    """
    before = use or QueueUse(name=queue, at_ms=at_ms, used=NONE)
    now_ms = max(before.at_ms, at_ms)
    cpu, memory, cards, instances = [amount * held_ms // MS_PER_SECOND for amount in amounts]
    new = _decay((cpu, memory, cards, instances), _steps(at_ms, now_ms))
    return QueueUse(name=queue, at_ms=now_ms, used=plus(decayed(before, now_ms), new))


def with_past(
    held: Mapping[str, Amounts], used: Mapping[str, Amounts], totals: Amounts, weight_permille: int
) -> dict[str, Amounts]:
    """By queue, what is held now plus ``weight_permille`` of what it held on average: what shares are measured on.

    ``used``: amount x seconds, decayed to now (open leases may be counted in). The average is over the time for which
    all use together would have filled the scarcest resource, so past shares add up to the whole of that resource
    and to no more than their part of the others, from the first hour of a farm on.
    """
    total = NONE
    for amounts in used.values():
        total = plus(total, amounts)
    busy_s = max(-(-part // whole) if whole > 0 else 0 for part, whole in zip(total, totals, strict=True))
    if not busy_s or not weight_permille:
        return dict(held)
    scale = busy_s * 1_000
    counted = dict(held)
    for queue, amounts in used.items():
        cpu, memory, cards, instances = (amount * weight_permille // scale for amount in amounts)
        counted[queue] = plus(counted.get(queue, NONE), (cpu, memory, cards, instances))
    return counted


def now_used(
    uses: Iterable[QueueUse], held: Mapping[str, Amounts], since: Mapping[str, Amounts], at_ms: int
) -> dict[str, Amounts]:
    """By queue, amount x seconds of closed leases (decayed) and of open ones up to ``at_ms``.

    ``held``: what each queue holds; ``since``: the sum over its open leases of amount x the instant of their grant.
    """
    used = {use.name: decayed(use, at_ms) for use in uses}
    for queue, amounts in held.items():
        from_ms = since.get(queue, NONE)
        cpu, memory, cards, instances = (
            max(0, amount * at_ms - start) // MS_PER_SECOND for amount, start in zip(amounts, from_ms, strict=True)
        )
        used[queue] = plus(used.get(queue, NONE), (cpu, memory, cards, instances))
    return used


def _steps(from_ms: int, to_ms: int) -> int:
    return max(0, to_ms // DECAY_STEP_MS - from_ms // DECAY_STEP_MS)


def _decay(amounts: Amounts, steps: int) -> Amounts:
    if not steps:
        return amounts
    halvings, rest = divmod(steps, STEPS_PER_HALF_LIFE)
    factor, power = 1 << FRACTION_BITS, STEP_FACTOR
    while rest:
        if rest & 1:
            factor = factor * power >> FRACTION_BITS
        power = power * power >> FRACTION_BITS
        rest >>= 1
    shift = FRACTION_BITS + halvings
    cpu, memory, cards, instances = (amount * factor >> shift for amount in amounts)
    return cpu, memory, cards, instances
