"""``dataclasses.replace`` for our frozen, slotted records without ``__post_init__``, in a fraction of its time.

Every recorded fact makes a few new versions of records; ``replace`` walks all their fields in Python for each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from itertools import repeat
from operator import attrgetter, call
from typing import Any, TypeVar

T = TypeVar("T")


def replace(record: T, /, **changes: Any) -> T:
    """A copy with some fields changed. Raises KeyError for a field it does not have."""
    cls: Any = type(record)
    get, setters, by_name = _slots(cls)
    copy = object.__new__(cls)
    any(map(call, setters, repeat(copy), get(record)))  # setters give None: "any" goes through all of them
    for name, value in changes.items():
        by_name[name](copy, value)
    made: T = copy
    return made


Setter = Callable[[Any, Any], None]


@cache
def _slots(cls: Any) -> tuple[Callable[[Any], tuple[Any, ...]], tuple[Setter, ...], Mapping[str, Setter]]:
    names = [field.name for field in fields(cls)]
    by_name: dict[str, Setter] = {name: getattr(cls, name).__set__ for name in names}
    # A name more than there are setters, so that even one field comes as a tuple.
    return attrgetter(*names, "__class__"), tuple(by_name.values()), by_name
