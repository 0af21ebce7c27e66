"""Kubernetes' quantities (``1500m``, ``2Gi``, ``1e3``) as integers. They are exact to a billionth, and so is this."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

_NANO = 10**9
_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d{1,3})|([numkKMGTPE]i?))?")
_SUFFIX = {"n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1_000), "k": Fraction(1_000)}
_SUFFIX |= {letter: Fraction(1_000**power) for power, letter in enumerate("MGTPE", 2)}
_SUFFIX |= {f"{letter}i": Fraction(1_024**power) for power, letter in enumerate("KMGTPE", 1)}
_NANO_PER_MILLI = _NANO // 1_000
_NANO_PER_MIB = _NANO << 20


@lru_cache(maxsize=4_096)
def nano(text: object) -> int:
    """Billionths, rounded up, as a server does. Raises ValueError."""
    found = _FORM.fullmatch(str(text).strip())
    if found is None or (found[3] and found[3] not in _SUFFIX):
        raise ValueError(f"{text!r} is not a quantity of Kubernetes")
    number = Fraction(found[1] + (found[2] or "")) * (_SUFFIX[found[3]] if found[3] else 1)
    return int(-(-number * _NANO // 1))


def whole(amount: int) -> int:
    """Billionths as whole units, rounded down."""
    return amount // _NANO


def milli(amount: int) -> int:
    """Billionths as thousandths, rounded up, as Kubernetes rounds processors."""
    return -(-amount // _NANO_PER_MILLI)


def mib(amount: int) -> int:
    """Billionths of bytes as MiB, rounded up, as what is asked for."""
    return -(-amount // _NANO_PER_MIB)


def whole_mib(amount: int) -> int:
    """Billionths of bytes as MiB, rounded down, as what there is."""
    return amount // _NANO_PER_MIB
