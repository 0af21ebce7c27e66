"""How the loops of placement are compiled: by Numba, kept on disk, exact arithmetic.

Numba counts references to every array it touches, which costs more here than all arithmetic. Functions that make no
arrays are therefore compiled without; whoever calls them from outside holds the arrays (``entry``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])
_njit = cast(Any, njit)


def entry(function: F) -> F:
    """Called from Python."""
    return cast(F, _njit(cache=True)(function))


def kernel(function: F) -> F:
    """Called from compiled code; makes no arrays."""
    return cast(F, _njit(cache=True, _nrt=False)(function))


def inlined(function: F) -> F:
    """Likewise, and put where it is called: handing over all arrays would take longer than the work."""
    return cast(F, _njit(cache=True, _nrt=False, forceinline=True)(function))


def called(function: F) -> F:
    """Likewise, but called from Python: with numbers, and arrays that the caller holds."""
    return kernel(function)
