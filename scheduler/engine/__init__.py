"""PURE. Placement and queueing together: ``Engine.from_snapshot``, ``apply``, ``plan``."""

from scheduler.engine.core import Engine

__all__ = ["Engine"]
