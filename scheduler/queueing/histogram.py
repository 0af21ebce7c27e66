"""Counts of positive integers in buckets of equal ratio: sums, so the order of what was counted leaves no trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

SUB_BITS = 3
"""Eight buckets between a number and its double: what comes out is within 7 % of what went in."""
FINE_BITS = 10
"""A thousand of them: numbers below 2,048 come out as they went in, larger ones within a thousandth."""
ATOMS = 20
"""Equally likely values that stand for a distribution: enough for its 5 and 95 % quantiles."""


def bucket_of(value: int, sub_bits: int = SUB_BITS) -> int:
    """The bucket of a number; those below 1 count as 1."""
    value = max(value, 1)
    shift = value.bit_length() - 1 - sub_bits
    if shift <= 0:
        return value
    return (shift << sub_bits) + (value >> shift)


def edge_of(bucket: int, sub_bits: int = SUB_BITS) -> int:
    """The least number in a bucket."""
    shift = max((bucket >> sub_bits) - 1, 0)
    return (bucket - (shift << sub_bits)) << shift


def quantile(values: Sequence[int], permille: int) -> int:
    """A quantile of sorted, equally likely values, each standing for the middle of its share; straight between them."""
    at = min(max(2 * permille * len(values) - 1_000, 0), 2_000 * (len(values) - 1))
    low, part = divmod(at, 2_000)
    high = min(low + 1, len(values) - 1)
    return values[low] + (values[high] - values[low]) * part // 2_000


@dataclass(slots=True)
class Histogram:
    """Equal to another when the same counts were added and not taken away again, in any order."""

    sub_bits: int = SUB_BITS
    """A number and its double are so many powers of two of buckets apart."""
    counts: dict[int, int] = field(default_factory=dict)
    total: int = 0
    _atoms: tuple[int, ...] = field(default=(), compare=False, repr=False)

    def add(self, value: int, count: int) -> None:
        """Count ``value`` ``count`` times more; a negative count takes it away again."""
        bucket = bucket_of(value, self.sub_bits)
        self.total += count
        self.counts[bucket] = self.counts.get(bucket, 0) + count
        if not self.counts[bucket]:
            del self.counts[bucket]
        self._atoms = ()

    def atoms(self) -> tuple[int, ...]:
        """``ATOMS`` equally likely values, sorted; straight lines within a bucket. Empty when nothing was counted."""
        if not self._atoms and self.total > 0:
            self._atoms = tuple(self._middles())
        return self._atoms

    def _middles(self) -> Iterator[int]:
        """Where the counts reach 1, 3, 5 … parts of ``2 x ATOMS``."""
        below, part = 0, 1
        for bucket in sorted(self.counts):
            low, count = edge_of(bucket, self.sub_bits), self.counts[bucket]
            width = edge_of(bucket + 1, self.sub_bits) - low
            while part < 2 * ATOMS and (below + count) * 2 * ATOMS >= part * self.total:
                yield low + width * (part * self.total - below * 2 * ATOMS) // (count * 2 * ATOMS)
                part += 2
            below += count


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """All counts together."""
    whole = Histogram()
    for histogram in histograms:
        whole.total += histogram.total
        for bucket, count in histogram.counts.items():
            whole.counts[bucket] = whole.counts.get(bucket, 0) + count
    return whole
