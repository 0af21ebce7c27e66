"""Old journal rows read by today's program: each function lifts one kind of event by one version.

An event's version changes only when its meaning or shape does; a new field with a default needs none (see codec).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, get_args

from scheduler.model.codec import decode
from scheduler.model.errors import StoreError
from scheduler.model.event import EVENT_VERSION, Event

Upcaster = Callable[[dict[str, Any]], tuple[str, dict[str, Any]]]
"""Takes the body as it was written; returns the kind (it may have been renamed) and the body of the next version."""

UPCASTERS: Mapping[tuple[str, int], Upcaster] = MappingProxyType({})
"""``(kind, version)`` → how to reach ``version + 1``. A kind without an entry is the same in the next version."""

KINDS: Mapping[str, type] = MappingProxyType({cls.__name__: cls for cls in get_args(Event)})


def lift(
    kind: str, version: int, body: dict[str, Any], *, upcasters: Mapping[tuple[str, int], Upcaster] = UPCASTERS
) -> tuple[str, dict[str, Any]]:
    """Kind and body at today's version. Raises StoreError when a newer program wrote the row."""
    if version > EVENT_VERSION:
        raise StoreError(f"the journal holds {kind} version {version}; this shisuan knows up to {EVENT_VERSION}")
    for at in range(version, EVENT_VERSION):
        upcaster = upcasters.get((kind, at))
        if upcaster is not None:
            kind, body = upcaster(body)
    return kind, body


def read_event(
    kind: str, version: int, body: dict[str, Any], *, upcasters: Mapping[tuple[str, int], Upcaster] = UPCASTERS
) -> Event:
    """The event of one journal row. Raises StoreError when a newer program wrote it or the row makes no sense."""
    kind, body = lift(kind, version, body, upcasters=upcasters)
    if kind not in KINDS:
        raise StoreError(f"the journal holds an unknown event {kind!r}")
    try:
        event: Event = decode(KINDS[kind], body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"the journal holds a damaged {kind}: {error}") from error
    return event
