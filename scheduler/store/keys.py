"""API keys: a random secret shown once, of which the database keeps the SHA-256."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from datetime import UTC, datetime

import sqlalchemy as sa

from scheduler.model.errors import NotFound, Unauthorized
from scheduler.model.key import ApiKey, Role
from scheduler.store import rows, tables
from scheduler.store.database import Database

PREFIX = "sk-"
SECRET_BYTES = 32


class Keys:
    """The store's keys. They are written outside the epoch: an operator may add one while the service runs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_key(
        self, tenant: str, role: Role | str = Role.TENANT, expires_ms: int = 0, label: str = "", *, now_ms: int = 0
    ) -> tuple[str, str]:
        """A new key: its id and its secret, which cannot be had again. ``now_ms`` 0: the wall clock."""
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        key_id, insert = _new(secret, tenant, role, expires_ms, label, now_ms)
        with self._database.write() as connection:
            connection.execute(insert)
        return key_id, secret

    def keep_key(self, secret: str, tenant: str, role: Role | str, label: str = "") -> None:
        """A secret that was made elsewhere is a key from now on. One that is known stays as it is, revoked or not."""
        with self._database.write() as connection:
            keys = tables.api_keys
            if connection.execute(sa.select(keys.c.id).where(keys.c.sha256 == _digest(secret))).first() is None:
                connection.execute(_new(secret, tenant, role, 0, label, 0)[1])

    def find_key(self, secret: str, now_ms: int) -> ApiKey:
        """Whose key this is. Raises Unauthorized when it is unknown, expired or revoked."""
        digest = _digest(secret)
        with self._database.read() as connection:
            found = connection.execute(sa.select(tables.api_keys).where(tables.api_keys.c.sha256 == digest)).first()
        # The index looks up a hash of what was sent, so its timing tells nothing about any stored secret.
        if found is None or not hmac.compare_digest(found.sha256, digest):
            raise Unauthorized("unknown API key")
        key = rows.api_key(found)
        if key.revoked_ms:
            raise Unauthorized(f"API key {key.id} was revoked on {_date(key.revoked_ms)}")
        if key.expires_ms and key.expires_ms <= now_ms:
            raise Unauthorized(f"API key {key.id} expired on {_date(key.expires_ms)}")
        return key

    def list_keys(self, tenant: str = "") -> tuple[ApiKey, ...]:
        """Every key ever made (of one tenant), in order of creation, without secrets."""
        keys = tables.api_keys
        statement = sa.select(keys).where(keys.c.tenant == tenant) if tenant else sa.select(keys)
        with self._database.read() as connection:
            found = [rows.api_key(row) for row in connection.execute(statement)]
        return tuple(sorted(found, key=lambda key: (key.created_ms, key.id)))

    def revoke_key(self, key_id: str, *, now_ms: int = 0) -> None:
        """From now on the key opens nothing; harmless twice. Raises NotFound."""
        keys = tables.api_keys.c
        with self._database.write() as connection:
            if connection.execute(sa.select(keys.id).where(keys.id == key_id)).first() is None:
                raise NotFound(f"no API key {key_id!r}")
            connection.execute(
                sa.update(tables.api_keys)
                .where(keys.id == key_id, keys.revoked_ms == 0)
                .values(revoked_ms=now_ms or _now_ms())
            )


def _new(  # noqa: PLR0917 (a row)
    secret: str, tenant: str, role: Role | str, expires_ms: int, label: str, now_ms: int
) -> tuple[str, sa.Insert]:
    key_id = f"k{secrets.token_hex(4)}"
    return key_id, tables.api_keys.insert().values(
        id=key_id, tenant=tenant, role=Role(role).value, sha256=_digest(secret), label=label,
        created_ms=now_ms or _now_ms(), expires_ms=expires_ms, revoked_ms=0,
    )  # fmt: skip


def _digest(secret: str) -> str:
    # A fast hash is right here: the secret has 256 random bits, so there is nothing to guess.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _date(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d")
