"""Queues form the fair-share tree; a tenant submits into queues it may use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A node of the fair-share tree. Shares are weights among siblings."""

    name: str
    parent: str = ""
    weight: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A studio or a team. Storage roots are absolute paths or URIs its jobs may read and write."""

    name: str
    display_name: str = ""
    queues: tuple[str, ...] = ("default",)
    """First one is used when a job names none."""
    storage_roots: tuple[str, ...] = ()
    """First one resolves relative output paths."""
    subsidy_excluded: str = ""
    """Why no voucher pays for this tenant (a related party of the operator, the park's own use); empty: they do."""
