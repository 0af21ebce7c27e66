"""The installation's Ed25519 key: made once, kept in the home, used to sign what leaves for the park's ledger.

Asymmetric on purpose: whoever can check a signature cannot make one.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from scheduler.control.tokens import write_private
from scheduler.model.errors import InvalidInput, Problem

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SCHEME = "v1a"
"""Standard Webhooks' name for Ed25519."""
PUBLIC_PREFIX = "whpk_"


class KeyFile:
    """The key at ``path``, read or made at its first use. ``may_make``: only the home's own is made."""

    def __init__(self, path: Path, *, may_make: bool) -> None:
        self._path = path
        self._may_make = may_make

    def sign(self, data: bytes) -> str:
        """``v1a,<base64>``. Raises InvalidInput when there is no usable key."""
        return f"{SCHEME},{base64.b64encode(self._key.sign(data)).decode()}"

    @cached_property
    def public(self) -> str:
        """``whpk_<base64 of the 32 bytes>``. Raises InvalidInput."""
        return PUBLIC_PREFIX + base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    @cached_property
    def source(self) -> str:
        """Names the installation: the first 16 hex digits of the public key's SHA-256. Raises InvalidInput."""
        return hashlib.sha256(self._key.public_key().public_bytes_raw()).hexdigest()[:16]

    @cached_property
    def _key(self) -> Ed25519PrivateKey:
        # Here and not above: the library costs memory that an installation without a feed need not spend.
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if self._may_make and not self._path.exists():
            made = Ed25519PrivateKey.generate()
            pem = made.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            write_private(self._path, pem)
        try:
            found = serialization.load_pem_private_key(self._path.read_bytes(), password=None)
        except OSError as error:
            raise self._refused(f"cannot be read: {error.strerror}") from None
        except (ValueError, TypeError):
            raise self._refused("holds no PEM private key without a password") from None
        if not isinstance(found, Ed25519PrivateKey):
            raise self._refused("holds a key of another kind; make one: openssl genpkey -algorithm ed25519")
        return found

    def _refused(self, why: str) -> InvalidInput:
        return InvalidInput([Problem("feed.key_file", f"{self._path} {why}")])
