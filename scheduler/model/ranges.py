"""A set of task indices as sorted half-open ranges, so that 100,000 waiting tasks cost a few bytes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from scheduler.model.changed import quick


@quick
@dataclass(frozen=True, slots=True)
class Ranges:
    """Immutable set of non-negative integers; ``spans`` are sorted, disjoint, non-adjacent ``(start, end)`` pairs."""

    spans: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, indices: Iterable[int]) -> Ranges:
        """The set holding exactly ``indices`` (any order, duplicates allowed)."""
        spans: list[tuple[int, int]] = []
        for i in sorted(set(indices)):
            if spans and spans[-1][1] == i:
                spans[-1] = (spans[-1][0], i + 1)
            else:
                spans.append((i, i + 1))
        return cls(tuple(spans))

    @classmethod
    def span(cls, start: int, end: int) -> Ranges:
        """All integers in ``[start, end)``."""
        return cls(((start, end),)) if start < end else cls()

    def __len__(self) -> int:
        return sum(end - start for start, end in self.spans)

    def __iter__(self) -> Iterator[int]:
        for start, end in self.spans:
            yield from range(start, end)

    def __contains__(self, index: int) -> bool:
        at = bisect_right(self.spans, (index, float("inf"))) - 1
        return at >= 0 and index < self.spans[at][1]

    def first(self, count: int) -> tuple[int, ...]:
        """The ``count`` smallest members (fewer when the set is smaller)."""
        taken: list[int] = []
        for start, end in self.spans:
            taken.extend(range(start, min(end, start + count - len(taken))))
            if len(taken) == count:
                break
        return tuple(taken)

    def add(self, index: int) -> Ranges:
        """This set with ``index`` in it."""
        if index in self:
            return self
        at = bisect_right(self.spans, (index, float("inf")))
        start, end = index, index + 1
        left, right = at, at
        if at > 0 and self.spans[at - 1][1] == index:
            start, left = self.spans[at - 1][0], at - 1
        if at < len(self.spans) and self.spans[at][0] == index + 1:
            end, right = self.spans[at][1], at + 1
        return Ranges((*self.spans[:left], (start, end), *self.spans[right:]))

    def remove(self, index: int) -> Ranges:
        """This set without ``index``."""
        at = bisect_right(self.spans, (index, float("inf"))) - 1
        if at < 0 or index >= self.spans[at][1]:
            return self
        start, end = self.spans[at]
        kept = tuple(s for s in ((start, index), (index + 1, end)) if s[0] < s[1])
        return Ranges((*self.spans[:at], *kept, *self.spans[at + 1 :]))

    def union(self, other: Ranges) -> Ranges:
        """All members of either set."""
        merged: list[tuple[int, int]] = []
        for start, end in sorted((*self.spans, *other.spans)):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], end))
            else:
                merged.append((start, end))
        return Ranges(tuple(merged))
