"""The exception tree. Every error a user can cause is one of these; faces map classes to exit codes and HTTP statuses.

::

    ShisuanError
    ├── InvalidInput          the request cannot be accepted; carries one Problem per mistake
    ├── NotFound              no such job, node, queue, tenant, attempt
    ├── Conflict              the verb does not fit the present state (cancel a finished job, reuse of a request id)
    ├── Unauthorized          no key, an unknown key, an expired key
    ├── Forbidden             a valid key that may not do this
    ├── StaleEpoch            another leader writes now; this process must stop
    ├── StoreError            the database refused or is unreachable
    ├── IssuerSilent          the OpenID issuer does not answer, or not as it should
    ├── ExecutorError         Ray, Kubernetes or a node did not do what was asked (k8s.errors has a branch of its own)
    └── StorageError
        ├── OutsideRoots      a path outside the tenant's storage roots
        ├── Fenced            an older attempt tried to publish
        └── OutputMissing     a finished runner left no output, or a truncated one
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: where (a dotted pointer such as ``steps[2].resources.cpus``), what, and what would be valid."""

    pointer: str
    message: str
    choices: tuple[str, ...] = ()
    nearest: str = ""

    def __str__(self) -> str:
        text = f"{self.pointer}: {self.message}" if self.pointer else self.message
        if self.nearest:
            text += f"; did you mean {self.nearest!r}?"
        if self.choices:
            text += f" (valid: {', '.join(self.choices)})"
        return text


def unknown(pointer: str, what: str, got: str, choices: Iterable[str]) -> Problem:
    """A Problem for a name that is not among ``choices``, with the nearest valid name where one is close."""
    valid = tuple(sorted(choices))
    close = get_close_matches(got, valid, n=1)
    return Problem(pointer, f"unknown {what} {got!r}", valid, close[0] if close else "")


class ShisuanError(Exception):
    """Root of the tree."""


class InvalidInput(ShisuanError):
    """The request cannot be accepted; nothing was stored."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(p) for p in self.problems))


class NotFound(ShisuanError):
    """The named thing does not exist, or belongs to another tenant."""


class Conflict(ShisuanError):
    """The verb does not fit the present state."""


class Unauthorized(ShisuanError):
    """No key, an unknown key or an expired key."""


class Forbidden(ShisuanError):
    """A valid key that may not do this."""


class StaleEpoch(ShisuanError):
    """Another process took the leader's epoch; nothing was written."""


class StoreError(ShisuanError):
    """The database refused or is unreachable."""


class IssuerSilent(ShisuanError):
    """The OpenID issuer does not answer, or not as it should: nobody can be told by its tokens now."""


class ExecutorError(ShisuanError):
    """Ray, Kubernetes or a node did not do what was asked."""


class StorageError(ShisuanError):
    """Inputs or outputs could not be read or published."""


class OutsideRoots(StorageError):
    """A path outside the tenant's storage roots."""


class Fenced(StorageError):
    """A newer attempt holds the task: this one may not publish."""


class OutputMissing(StorageError):
    """A runner said it finished but its output is missing or damaged."""
