"""Who asks, and what they may see. A tenant learns nothing of other tenants, not even that something exists."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler.model.errors import Forbidden, NotFound
from scheduler.model.job import JobRecord
from scheduler.model.key import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The holder of a valid key, or somebody whom the OpenID issuer vouches for."""

    tenant: str
    role: Role = Role.TENANT
    key_id: str = ""
    """Of the key, or ``oidc:`` and the subject: who is recorded to have done it."""
    is_person: bool = False
    """Known by the issuer, not by a key."""

    @property
    def is_operator(self) -> bool:
        """Sees and may change everything."""
        return self.role is Role.OPERATOR

    @property
    def scope(self) -> str:
        """The tenant whose things are listed; empty: everyone's."""
        return "" if self.is_operator else self.tenant

    def sees(self, tenant: str) -> bool:
        """Whether this tenant's things exist for the caller."""
        return self.is_operator or tenant == self.tenant


def visible(caller: Caller, record: JobRecord | None, job_id: str) -> JobRecord:
    """The job, when it exists for this caller. Raises NotFound."""
    if record is None or not caller.sees(record.job.tenant):
        raise NotFound(f"no job {job_id!r}")
    return record


def require_figures(caller: Caller) -> None:
    """Raises Forbidden for a tenant's key."""
    if caller.role is Role.TENANT:
        raise Forbidden("this needs a key for figures, or an operator's")


def require_operator(caller: Caller) -> None:
    """Raises Forbidden for a tenant's key."""
    if not caller.is_operator:
        raise Forbidden("this needs an operator's key")
