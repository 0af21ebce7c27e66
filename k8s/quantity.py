"""Kubernetes' quantities as integers: ``1500m``, ``2Gi``, ``1e3``."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from scheduler.model.units import MILLI

_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d{1,3})|([numkKMGTPE]i?))?")
_SUFFIX = {"n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1_000), "k": Fraction(1_000)}
_SUFFIX |= {letter: Fraction(1_000**power) for power, letter in enumerate("MGTPE", 2)}
_SUFFIX |= {f"{letter}i": Fraction(1_024**power) for power, letter in enumerate("KMGTPE", 1)}
_BYTES_PER_MIB = 1 << 20


@lru_cache(maxsize=4_096)
def exact(text: object) -> Fraction:
    """The number a quantity means. Raises ValueError."""
    if isinstance(text, Fraction):
        return text
    found = _FORM.fullmatch(str(text).strip())
    if found is None or (found[3] and found[3] not in _SUFFIX):
        raise ValueError(f"{text!r} is not a quantity of Kubernetes")
    number = Fraction(found[1] + (found[2] or ""))
    return number * _SUFFIX[found[3]] if found[3] else number


def count(text: object) -> int:
    """Whole units, rounded down. Raises ValueError."""
    return int(exact(text) // 1)


def milli(text: object) -> int:
    """Thousandths, rounded up, as Kubernetes rounds what pods ask for. Raises ValueError."""
    return int(-(-exact(text) * MILLI // 1))


def mib(text: object) -> int:
    """MiB, rounded up, as what is asked for. Raises ValueError."""
    return int(-(-exact(text) // _BYTES_PER_MIB))


def whole_mib(text: object) -> int:
    """MiB, rounded down, as what there is. Raises ValueError."""
    return int(exact(text) // _BYTES_PER_MIB)
