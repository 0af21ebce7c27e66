"""API keys as the faces see them; the secret itself is never kept, only its SHA-256."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a key may do."""

    TENANT = "tenant"
    """See and change its tenant's own jobs."""
    OPERATOR = "operator"
    """Everything, for every tenant: keys, tenants, queues, nodes."""
    FIGURES = "figures"
    """Read ``/metrics``, which names nobody, and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """One key. ``expires_ms`` and ``revoked_ms`` are Unix time in ms; 0: never."""

    id: str
    """``k`` and eight hex digits; safe to show and to log."""
    tenant: str
    role: Role = Role.TENANT
    label: str = ""
    created_ms: int = 0
    expires_ms: int = 0
    revoked_ms: int = 0
