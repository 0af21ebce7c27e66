"""How a server says no: a Status object."""

from collections.abc import Iterable, Mapping
from typing import Any

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class Refusal(Exception):
    """The request is not done; ``code`` is the HTTP status."""

    def __init__(
        self,
        code: int,
        message: str,
        *,
        reason: str = "",
        details: Mapping[str, Any] | None = None,
        causes: Iterable[tuple[str, str, str]] = (),
    ) -> None:
        """``causes``: reason, field and message of each."""
        self.code = code
        self.reason = reason or REASONS[code]
        listed = [{"reason": r, "field": f, "message": m} for r, f, m in causes]
        self.details = {**(details or {}), **({"causes": listed} if listed else {})}
        super().__init__(message)

    def status(self) -> dict[str, Any]:
        """The Status object."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": str(self),
            "reason": self.reason,
            **({"details": self.details} if self.details else {}),
            "code": self.code,
        }
