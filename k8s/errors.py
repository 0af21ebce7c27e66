"""What a Kubernetes API server says no to. Callers catch by what they can do about it.

::

    scheduler.model.errors.ExecutorError
    └── KubernetesError       the API server did not do what was asked
        ├── Unanswered        no answer or half of one: whether it was done is not known; look before doing more
        ├── Busy              not now (429, 500, 502, 503, 504): the door has tried again as often as it may
        ├── NotAllowed        no or expired credentials (401), or a role without this verb (403)
        ├── Absent            no such object or kind (404)
        ├── AlreadyThere      created under a name that is taken (409)
        ├── Stale             the object is not the one (409, or 422 to a patch), or not in the version, that was meant
        │   └── Contested     fields to be applied belong to another manager
        ├── HistoryGone       the version to go on from is forgotten (410): list again
        ├── BudgetSpent       an eviction that a PodDisruptionBudget forbids at present (429)
        └── Malformed         the object breaks its schema or the request makes no sense (400, 405, 415, 422; UNTYPED)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from scheduler.model.errors import ExecutorError


class KubernetesError(ExecutorError):
    """The API server did not do what was asked."""

    def __init__(
        self, message: str, *, status: int = 0, retry_after_s: float = 0.0, causes: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status; 0: there was none."""
        self.retry_after_s = retry_after_s
        """How long the server asks to wait; 0: it does not say."""
        self.causes = causes
        """``field: message`` of each."""


class Unanswered(KubernetesError):
    """No answer, or half of one: whether it was done is not known."""


class Busy(KubernetesError):
    """Not now."""


class NotAllowed(KubernetesError):
    """No or expired credentials, or a role without this verb."""


class Absent(KubernetesError):
    """No such object or kind."""


class AlreadyThere(KubernetesError):
    """The name is taken."""


class Stale(KubernetesError):
    """The object is not the one, or not in the version, that was meant."""


class Contested(Stale):
    """Fields to be applied belong to another manager."""


class HistoryGone(KubernetesError):
    """The version to go on from is forgotten."""


class BudgetSpent(KubernetesError):
    """A PodDisruptionBudget forbids the eviction at present."""


class Malformed(KubernetesError):
    """The object breaks its schema, or the request makes no sense."""


BY_STATUS: Mapping[int, type[KubernetesError]] = {
    400: Malformed,
    401: NotAllowed,
    403: NotAllowed,
    404: Absent,
    405: Malformed,
    409: Stale,
    410: HistoryGone,
    413: Malformed,
    415: Malformed,
    422: Malformed,
    429: Busy,
}
"""5xx is Busy."""
BY_REASON: Mapping[str, type[KubernetesError]] = {
    "AlreadyExists": AlreadyThere,
    "FieldManagerConflict": Contested,
    "DisruptionBudget": BudgetSpent,
}
"""Reasons of a Status, or of its causes, that say more than the HTTP status does."""

BY_FIELD: Mapping[str, type[KubernetesError]] = {"metadata.uid": Stale}
"""Fields that only our preconditions name: a patch meant for another object is answered 422, "field is immutable"."""

UNTYPED = "failed to create typed patch object"
"""How the message begins when fields to be applied are none of the kind's. The status is 500 then, up to 1.36 at least,
and it is no trouble that passes.
"""


def refusal(status: int, body: bytes | Mapping[str, Any], retry_after: str = "") -> KubernetesError:
    """The error for an answer, or for the Status object in a watch. A proxy's HTML is no Status: it is cut short."""
    told = body if isinstance(body, Mapping) else _status_object(body)
    details = told.get("details") or {}
    causes = [cause for cause in details.get("causes") or () if isinstance(cause, Mapping)]
    reasons = [str(told.get("reason", "")), *(str(cause.get("reason", "")) for cause in causes)]
    named = [BY_REASON[reason] for reason in reasons if reason in BY_REASON]
    named += [BY_FIELD[field] for field in (str(cause.get("field", "")) for cause in causes) if field in BY_FIELD]
    message = str(told.get("message") or f"HTTP status {status}")
    named += [Malformed] if message.startswith(UNTYPED) else []
    kind = named[-1] if named else BY_STATUS.get(status, Busy if status >= 500 else KubernetesError)
    asked = retry_after or str(details.get("retryAfterSeconds", ""))
    return kind(
        message,
        status=status,
        retry_after_s=float(asked) if asked.isdecimal() else 0.0,
        causes=tuple(f"{cause.get('field', '')}: {cause.get('message', '')}" for cause in causes),
    )


def _status_object(body: bytes) -> Mapping[str, Any]:
    try:
        told = json.loads(body)
    except ValueError:
        return {"message": body[:200].decode("utf-8", "replace").strip()}
    return told if isinstance(told, Mapping) else {}
