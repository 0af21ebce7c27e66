"""PURE. Usage records added up for people: per step and SKU, and where the cards' time went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scheduler.report import figures

BUCKETS = (
    "starting",
    "held_charged",
    "held_free",
    "switching",
    "free",
    "quarantined",
    "external",
    "unknown",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """What one step of one job used of one SKU, in one bucket. ``amount`` is exact, in the SKU's integer unit."""

    job_id: str
    step: str
    bucket: str
    free_reason: str
    sku: str
    model: str
    leases: int
    held_ms: int
    """Sum of the intervals' lengths."""
    amount: int

    @property
    def cells(self) -> tuple[str, ...]:
        """For a table: step, bucket, SKU, leases, held time, amount with its unit."""
        where = self.bucket.replace("_", " ") + (f" ({self.free_reason})" if self.free_reason else "")
        sku = f"{self.sku} {self.model}".strip()
        amount = f"{figures.hours(self.sku, self.amount)} {figures.sku_unit(self.sku)}"
        return (f"{self.job_id}.{self.step}", where, sku, str(self.leases), figures.duration(self.held_ms), amount)


HEADER = ("STEP", "BUCKET", "SKU", "LEASES", "HELD", "AMOUNT")


def totals(records: Iterable[Mapping[str, Any]]) -> tuple[Total, ...]:
    """Sums of the records of ``GET /v1/usage``, sorted by job, step, bucket and SKU."""
    amounts: defaultdict[tuple[str, ...], int] = defaultdict(int)
    lengths: defaultdict[tuple[str, ...], int] = defaultdict(int)
    leases: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for record in records:
        for quantity in record.get("quantities", ()):
            key = (
                str(record["job_id"]),
                str(record["step"]),
                str(record["bucket"]),
                str(record.get("free_reason", "")),
                str(quantity["sku"]),
                str(quantity.get("model", "")),
            )
            amounts[key] += int(quantity["amount"])
            lengths[key] += int(record["end_ms"]) - int(record["start_ms"])
            leases[key].add(str(record["lease_id"]))
    return tuple(_total(key, len(leases[key]), lengths[key], amounts[key]) for key in sorted(amounts, key=_order))


def _order(key: tuple[str, ...]) -> tuple[Any, ...]:
    job_id = key[0]
    number = int(job_id[1:]) if job_id[1:].isdigit() else 0
    bucket = BUCKETS.index(key[2]) if key[2] in BUCKETS else len(BUCKETS)
    return (number, job_id, key[1], bucket, *key[3:])


def _total(key: tuple[str, ...], leases: int, held_ms: int, amount: int) -> Total:
    job_id, step, bucket, free_reason, sku, model = key
    return Total(
        job_id=job_id,
        step=step,
        bucket=bucket,
        free_reason=free_reason,
        sku=sku,
        model=model,
        leases=leases,
        held_ms=held_ms,
        amount=amount,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Conservation:
    """Sealed time against leased time, over one job or all: each leased millisecond is in exactly one record."""

    leased_ms: int
    """Sum of the closed leases' lengths."""
    sealed_ms: int
    """Sum of the records' lengths."""
    gaps_ms: int
    """Leased but in no record."""
    overlaps_ms: int
    """In more than one record."""
    open_leases: int
    """Still held: their records follow when they close."""

    @property
    def error_ms(self) -> int:
        """0, or the books are wrong."""
        return self.gaps_ms + self.overlaps_ms

    @property
    def sentence(self) -> str:
        """For people."""
        held = f"{figures.duration(self.leased_ms)} leased = {figures.duration(self.sealed_ms)} recorded"
        text = f"{held}, error {self.error_ms} ms"
        return f"{text} ({figures.count(self.open_leases, 'lease')} still open)" if self.open_leases else text


def conserve(leases: Sequence[Mapping[str, Any]], records: Iterable[Mapping[str, Any]]) -> Conservation:
    """Compare the leases of ``GET /v1/leases`` with the records of ``GET /v1/usage``."""
    sealed: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for record in records:
        sealed[str(record["lease_id"])].append((int(record["start_ms"]), int(record["end_ms"])))
    closed = [lease for lease in leases if lease.get("closed_ms")]
    gaps_ms = overlaps_ms = 0
    for lease in closed:
        gap_ms, overlap_ms = _compare(sealed[str(lease["id"])], int(lease["granted_ms"]), int(lease["closed_ms"]))
        gaps_ms, overlaps_ms = gaps_ms + gap_ms, overlaps_ms + overlap_ms
    ids = {str(lease["id"]) for lease in closed}
    return Conservation(
        leased_ms=sum(int(lease["closed_ms"]) - int(lease["granted_ms"]) for lease in closed),
        sealed_ms=sum(end - start for key in ids for start, end in sealed[key]),
        gaps_ms=gaps_ms,
        overlaps_ms=overlaps_ms,
        open_leases=len(leases) - len(closed),
    )


def _compare(spans: list[tuple[int, int]], start_ms: int, end_ms: int) -> tuple[int, int]:
    """``(gap, overlap)`` in ms of the union of ``spans`` against ``[start_ms, end_ms)``."""
    gap_ms = overlap_ms = 0
    at_ms = start_ms
    for span_start, span_end in sorted(spans):
        gap_ms += max(0, span_start - at_ms)
        overlap_ms += max(0, min(at_ms, span_end) - span_start)
        at_ms = max(at_ms, span_end)
    return gap_ms + max(0, end_ms - at_ms), overlap_ms + max(0, at_ms - end_ms)
