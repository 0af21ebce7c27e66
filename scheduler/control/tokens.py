"""Attempt tokens: what a runner shows when it asks the API about itself. Signed, short-lived, good for nothing else."""

from __future__ import annotations

import hmac
import os
from pathlib import Path

from scheduler.model.errors import Unauthorized

PREFIX = "attempt:"


class Tokens:
    """Makes and checks tokens ``attempt:<attempt id>:<expiry ms>:<hex HMAC-SHA256>``. Nothing is stored per token."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < 32:
            raise ValueError("the token secret must have at least 32 bytes")
        self._secret = secret

    def make(self, attempt_id: str, expires_ms: int) -> str:
        """A token for this attempt, valid before ``expires_ms`` (Unix ms)."""
        return f"{PREFIX}{attempt_id}:{expires_ms}:{self._sign(attempt_id, expires_ms)}"

    def check(self, token: str, now_ms: int) -> str:
        """The attempt id of a valid token. Raises Unauthorized."""
        parts = token.removeprefix(PREFIX).split(":")
        if not token.startswith(PREFIX) or len(parts) != 3 or not parts[1].isdecimal() or len(parts[1]) > 16:
            raise Unauthorized("this is not an attempt token")
        attempt_id, expires_ms, signature = parts[0], int(parts[1]), parts[2]
        if not hmac.compare_digest(signature.encode(), self._sign(attempt_id, expires_ms).encode()):
            raise Unauthorized("the attempt token is not one of this service")
        if now_ms >= expires_ms:
            raise Unauthorized("the attempt token has expired")
        return attempt_id

    def derive(self, text: str) -> str:
        """A secret of its own for whatever ``text`` names: the same for the same text, from the same database."""
        return hmac.digest(self._secret, b"derived\0" + text.encode(), "sha256").hex()

    def _sign(self, attempt_id: str, expires_ms: int) -> str:
        return hmac.digest(self._secret, f"{attempt_id}:{expires_ms}".encode(), "sha256").hex()


def write_private(path: Path, data: bytes) -> None:
    """Create or replace a file that only its owner may read, atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
