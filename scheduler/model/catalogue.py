"""The card catalogue: boards by id, by the name the driver gives them, and by the short names people use.

The table is ``catalogue.yaml``, where every value has a unit, source, date and confidence; ``bin/catalogue`` writes
``catalogue_table.py`` from it, because the core reads no files. A test keeps the two equal.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from scheduler.model.board import Board
from scheduler.model.catalogue_table import BOARDS

UNKNOWN = "unknown"
"""The model of a device that no board of the catalogue matches: it runs jobs that name no model and no feature."""

MIB_PER_GIB = 1_024
_LEAST_SHARE_MILLI, _MOST_SHARE_MILLI = 880, 1_030
"""Measured memory of a whole card, in thousandths of nominal: ECC and firmware take up to 7 % (B300, GDDR6 boards)."""

BY_ID: Mapping[str, Board] = MappingProxyType({board.id: board for board in BOARDS})
"""Every board."""

FEATURES: Mapping[str, frozenset[str]] = MappingProxyType({board.id: board.features for board in BOARDS})
"""Features per model, as ``Engine.from_snapshot`` takes them."""


def known_models() -> tuple[str, ...]:
    """Ids of all boards, sorted."""
    return tuple(sorted(BY_ID))


def mig_profiles() -> tuple[str, ...]:
    """Every MIG profile some board can be cut into, sorted: the valid values of a job's ``accelerators``."""
    return tuple(sorted({profile.name for board in BOARDS for profile in board.mig}))


def known_features() -> tuple[str, ...]:
    """Every feature some board has, sorted: the valid values of a job's ``features``."""
    return tuple(sorted(frozenset().union(*FEATURES.values())))


def features(model: str) -> frozenset[str]:
    """What a card of this model can do; nothing is promised for a model that is not in the catalogue."""
    return FEATURES.get(model, frozenset())


def nominal_mib(model: str) -> int:
    """What NVML shows of an empty card of this model, else the maker's figure. Raises KeyError."""
    board = BY_ID[model]
    return board.visible_mib or board.memory_gib * MIB_PER_GIB


def island(model: str, node: str) -> str:
    """NVLink island of a card on a node, where all cards of this model in a machine are joined; else empty."""
    return f"{node}-nvlink" if "SXM" in model else ""


def by_nvml_name(name: str, memory_mib: int = 0) -> str:
    """Id of the board with this driver name whose memory fits what was measured, else ``unknown``.

    Names repeat (two kinds of H20) and virtual GPUs carry their board's name with a part of its memory, so a name alone
    proves nothing; ``memory_mib`` 0 means that it could not be measured.
    """
    wanted = _plain(name)
    named = [board for board in BOARDS if wanted in map(_plain, board.nvml_names)]
    fitting = [board for board in named if not memory_mib or _fits(board, memory_mib)]
    return fitting[0].id if len(fitting) == 1 else UNKNOWN


def resolve_alias(name: str, models: Collection[str] = BY_ID.keys()) -> tuple[str, ...]:
    """Ids among ``models`` that a short name means, sorted; empty when it means none.

    ``H100``: each H100. ``A100-80GB``: both of 80 GB. ``RTX4090``, ``rtx 4090``, ``NVIDIA L40S``: spelling is free.
    The name's words must begin with the id's first ones, and its further words must be among the id's.
    """
    exact = tuple(model for model in models if model.lower() == name.strip().lower())
    if exact:
        return exact
    wanted = [word for word in _words(name) if word not in ("nvidia", "geforce", "tesla")]
    return tuple(sorted(model for model in models if _means(wanted, _words(model))))


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]


def _means(wanted: Sequence[str], words: Sequence[str]) -> bool:
    starts = {"".join(words[:count]): count for count in range(1, len(words) + 1)}
    for used in range(len(wanted), 0, -1):
        count = starts.get("".join(wanted[:used]))
        if count is not None:
            return set(wanted[used:]) <= set(words[count:])
    return False


def _plain(name: str) -> str:
    words = name.casefold().split()
    return " ".join(words[1:] if words[:1] == ["nvidia"] else words)


def _fits(board: Board, memory_mib: int) -> bool:
    nominal_mib = board.memory_gib * MIB_PER_GIB
    return _LEAST_SHARE_MILLI * nominal_mib <= memory_mib * 1_000 <= _MOST_SHARE_MILLI * nominal_mib
