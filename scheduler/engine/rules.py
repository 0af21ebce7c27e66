"""Facts are applied by the rules of the engine that recorded them, as their journal says (``EngineStarted``)."""

from __future__ import annotations

from scheduler.engine.state import State


def since(state: State, version: int) -> bool:
    """Whether the facts that are applied come from an engine of this version or a newer one."""
    return state.rules == 0 or state.rules >= version
