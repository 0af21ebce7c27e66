"""The geometry of MIG: where on a card an instance can lie, and the cheapest new cut that makes room for one.

A card has memory slices in a row. A profile occupies some of them, from starts that are multiples of their number: on
an A100 or H100 ``1g`` at 0 to 6, ``2g`` at 0, 2 and 4, ``3g`` at 0 and 4, ``4g`` and ``7g`` at 0. Compute slices, which
profiles name (``3g``: three), are bounded too: two of ``3g`` fill all memory and strand one of seven of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from scheduler.model.board import Board, MigProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """An instance on a card."""

    profile: str
    start: int
    """Its first memory slice."""
    is_idle: bool = True
    """Nobody holds any part of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recut:
    """A planned change of a card. Only data: whoever carries it out asks again whether the instances are still idle."""

    destroy: tuple[Instance, ...]
    create: Instance
    slices_lost: int
    """Memory slices of what is destroyed."""


def starts(board: Board, profile: str) -> tuple[int, ...]:
    """Memory slices at which an instance may begin, if the card is empty. Raises KeyError for an unknown profile.

    Variants with or without media engines (``+me``, ``-me``, ``+gfx``) lie where their plain profile does.
    """
    known = {p.name: p for p in board.mig}
    wanted = known[profile]
    plain = known.get(_plain(profile), wanted)
    return tuple(range(0, plain.most * plain.memory_slices, plain.memory_slices))


def place(board: Board, instances: Sequence[Instance], profile: str) -> int | None:
    """Where the profile can be added beside these instances; None: nowhere.

    Of several starts the last one, so that the large profiles, which must begin at 0, stay possible.
    """
    known = {p.name: p for p in board.mig}
    wanted = known[profile]
    if sum(instance.profile == profile for instance in instances) >= wanted.most:
        return None
    if sum(compute(i.profile) for i in instances) + compute(profile) > _compute_slices(board):
        return None
    taken = {s for i in instances for s in range(i.start, i.start + known[i.profile].memory_slices)}
    free = (at for at in reversed(starts(board, profile)) if taken.isdisjoint(range(at, at + wanted.memory_slices)))
    return next(free, None)


def recut(board: Board, instances: Sequence[Instance], profile: str) -> Recut | None:
    """The change that yields an instance of ``profile`` and destroys least: fewest memory slices, then instances.

    Only idle instances are destroyed. None: not even that makes room.
    """
    slices = {p.name: p.memory_slices for p in board.mig}
    idle = sorted((i for i in instances if i.is_idle), key=lambda i: i.start)
    best: Recut | None = None
    for count in range(len(idle) + 1):
        for gone in combinations(idle, count):
            lost = sum(slices[i.profile] for i in gone)
            if best is not None and lost >= best.slices_lost:
                continue
            at = place(board, [i for i in instances if i not in gone], profile)
            if at is not None:
                best = Recut(destroy=gone, create=Instance(profile=profile, start=at), slices_lost=lost)
    return best


def compute(profile: str) -> int:
    """Compute slices a profile names: 3 of ``3g.40gb``."""
    return int(profile.partition("g.")[0])


def _compute_slices(board: Board) -> int:
    return max(compute(p.name) for p in board.mig)


def _plain(profile: str) -> str:
    return profile.partition("+")[0].partition("-")[0]


def whole(board: Board) -> MigProfile:
    """The profile that takes the whole card."""
    return max(board.mig, key=lambda p: (p.memory_slices, p.name))
