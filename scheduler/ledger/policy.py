"""What a policy version would pay of one line: min(ratio x eligible time, voucher left, cap, pool left), cut down.

Sums stay exact until the last step: everything is kept in units of ``micro-yuan x 10,000 x line length``, and each
voucher's part is cut once, to the policy's own unit. So a voucher valid for half of a line pays for exactly that half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scheduler.ledger.months import year_range_ms
from scheduler.model.money import Limit, PolicyStatus, PolicyVersion, RatedLine, Subsidy, Voucher

BASIS = 10_000
"""Basis points of the whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What is left under one policy version for one tenant, in micro-yuan. None: no such bound."""

    vouchers: Mapping[str, int]
    cap: int | None = None
    pool: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What one version pays of one line; without parts, ``limit`` says why."""

    policy: str
    parts: tuple[Subsidy, ...] = ()
    limit: Limit = Limit.RATIO
    note: str = ""

    @property
    def micro_yuan(self) -> int:
        """Over all parts."""
        return sum(part.micro_yuan for part in self.parts)


def window_ms(version: PolicyVersion) -> tuple[int, int]:
    """When service must have been used: the version's validity inside its pool's year."""
    start_ms, end_ms = year_range_ms(version.pool.fiscal_year)
    return max(start_ms, version.valid_from_ms), min(end_ms, version.valid_to_ms)


def refusal(version: PolicyVersion, line: RatedLine, purpose: str) -> Limit | None:
    """Why this version does not pay for this kind of line at all; None when it does."""
    if version.status is not PolicyStatus.IN_FORCE:
        return Limit.DRAFT
    if line.sku not in version.skus:
        return Limit.NOT_IN_POLICY
    if version.purposes and purpose not in version.purposes:
        return Limit.PURPOSE
    return None


def pays_all(version: PolicyVersion, vouchers: Sequence[Voucher], room: Room, now_ms: int) -> bool:
    """Whether the version pays whole prices now, of lines it pays for at all, and has something left."""
    start_ms, end_ms = window_ms(version)
    if version.status is not PolicyStatus.IN_FORCE or version.ratio_bp < BASIS or not start_ms <= now_ms < end_ms:
        return False
    if room.cap == 0 or room.pool == 0:
        return False
    return any(v.valid_from_ms <= now_ms < v.valid_to_ms and not v.excluded and room.vouchers[v.id] for v in vouchers)


def offer(version: PolicyVersion, vouchers: Sequence[Voucher], line: RatedLine, room: Room, purpose: str) -> Offer:
    """What ``vouchers`` (all of this version, in the order they burn) pay of ``line``."""
    refused = refusal(version, line, purpose)
    if refused is not None:
        return Offer(policy=version.id, limit=refused, note=version.id)
    able = [v for v in vouchers if not v.excluded]
    if not able:
        return Offer(policy=version.id, limit=Limit.EXCLUDED, note=vouchers[0].excluded)
    taken, limit = _take(version, able, line, room)
    scale, cut = BASIS * (line.end_ms - line.start_ms), version.truncation_micro_yuan
    parts = tuple(
        Subsidy(voucher=v.id, policy=version.id, micro_yuan=whole, limit=limit, payout=version.payout)
        for v in able
        if (whole := taken[v.id] // scale // cut * cut)
    )
    if not parts and any(taken.values()):
        limit = Limit.TRUNCATED
    return Offer(policy=version.id, parts=parts, limit=limit, note="" if parts else version.id)


def _take(
    version: PolicyVersion, vouchers: Sequence[Voucher], line: RatedLine, room: Room
) -> tuple[dict[str, int], Limit]:
    """Scaled amount per voucher, and what bound it last."""
    scale = BASIS * (line.end_ms - line.start_ms)
    left = {v.id: room.vouchers[v.id] * scale for v in vouchers}
    bounds = {Limit.TENANT_CAP: room.cap, Limit.POOL_LEFT: room.pool}
    shared = {name: amount * scale for name, amount in bounds.items() if amount is not None}
    taken = dict.fromkeys(left, 0)
    low, high = window_ms(version)
    limit, paid_ms = Limit.OUTSIDE_VALIDITY, 0
    for start_ms, end_ms in _slices(line, (low, high), vouchers):
        want = line.gross_micro_yuan * version.ratio_bp * (end_ms - start_ms)
        valid = [v for v in vouchers if low <= start_ms < high and v.valid_from_ms <= start_ms < v.valid_to_ms]
        if not valid:
            continue
        paid_ms += end_ms - start_ms
        limit = Limit.RATIO if limit is Limit.OUTSIDE_VALIDITY else limit
        for voucher in valid:
            got = min(want, left[voucher.id], *shared.values())
            want -= got
            left[voucher.id] -= got
            taken[voucher.id] += got
            for name in shared:
                shared[name] -= got
        if want:
            limit = next((name for name in shared if not shared[name]), Limit.VOUCHER_LEFT)
    if limit is Limit.RATIO and paid_ms < line.end_ms - line.start_ms:
        limit = Limit.PARTLY_VALID
    return taken, limit


def _slices(line: RatedLine, window: tuple[int, int], vouchers: Sequence[Voucher]) -> list[tuple[int, int]]:
    """The line's time, cut wherever validity begins or ends."""
    edges = {*window, *(v.valid_from_ms for v in vouchers), *(v.valid_to_ms for v in vouchers)}
    inside = sorted(at for at in edges if line.start_ms < at < line.end_ms)
    return list(zip([line.start_ms, *inside], [*inside, line.end_ms], strict=True))
