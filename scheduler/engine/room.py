"""How much room there would be on some nodes if leases ended."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from scheduler.model.lease import LeaseRecord


class Room:
    """How much room there would be on some nodes if leases ended. What is asked of a node is worked out once: hundreds
    of sets of leases are tried, and most of them differ on few nodes.
    """

    def __init__(
        self,
        leases: Mapping[str, LeaseRecord],
        now: dict[str, int],
        near: Iterable[Collection[str]],
        on: Callable[[str, frozenset[str]], int],
    ) -> None:
        self._leases = leases
        self._now = now
        self._groups = [(frozenset(group), sum(now[name] for name in group)) for group in near]
        self._on = on
        self._known: dict[tuple[str, frozenset[str]], int] = {}

    @property
    def names(self) -> Collection[str]:
        """The nodes."""
        return self._now.keys()

    def copies(self, ended: frozenset[str]) -> int:
        """The most copies that fit near enough to each other once these leases have ended."""
        by_node: dict[str, set[str]] = {}
        for key in ended:
            for allocation in self._leases[key].lease.allocations:
                by_node.setdefault(allocation.node, set()).add(key)
        gained = {name: self._gain(name, frozenset(keys)) for name, keys in by_node.items()}
        totals = (total + sum(gain for name, gain in gained.items() if name in group) for group, total in self._groups)
        return max(totals, default=0)

    def _gain(self, name: str, ended: frozenset[str]) -> int:
        if name not in self._now:
            return 0
        known = self._known.get((name, ended))
        if known is None:
            known = self._known[name, ended] = self._on(name, ended) - self._now[name]
        return known
