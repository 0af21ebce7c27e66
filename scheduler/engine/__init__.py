"""PURE. Placement and queueing together: ``Engine.from_snapshot``, ``apply``, ``plan``."""

from scheduler.engine.core import Engine

__all__ = ["VERSION", "Engine"]

VERSION = 9
"""Raised with each change after which equal facts may lead to another plan."""
