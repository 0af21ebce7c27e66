"""The sign-in on the page: authorization code with PKCE (RFC 6749, 7636, 9207; OpenID Connect Core 1.0, 3.1)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

import httpx

from scheduler.control.identity import Person, Refused, Sessions, person_of
from scheduler.model.errors import InvalidInput, IssuerSilent, Problem
from scheduler.oidc.issuer import Issuer

PATIENCE_MS = 600_000
"""Between leaving for the issuer and coming back."""


class SignIn:
    """Fits :class:`scheduler.control.identity.SignIn`. Keeps nothing: whichever service of the database the browser
    comes back to can go on, because verifier and nonce follow from the state and our secret.
    """

    def __init__(self, issuer: Issuer, sessions: Sessions, folder: Path) -> None:
        """``folder``: where a relative ``client_secret_file`` starts. Raises InvalidInput."""
        self._issuer, self._sessions, self._config = issuer, sessions, issuer.config
        self.label, self.is_https = self._config.label, self._config.redirect_url.startswith("https:")
        self._secret = ""
        if self._config.client_secret_file:
            try:
                self._secret = (folder / self._config.client_secret_file).read_text("utf-8").strip()
            except (OSError, ValueError) as error:
                raise InvalidInput([Problem("oidc.client_secret_file", f"cannot be read: {error}")]) from None

    def begin(self, back: str, now_ms: int) -> tuple[str, str]:
        """See the protocol."""
        endpoint, state = self._address("authorization_endpoint"), secrets.token_urlsafe(32)
        asked = {
            "response_type": "code",
            "client_id": self._config.client_id,
            "redirect_uri": self._config.redirect_url,
            "scope": " ".join(self._config.scopes),
            "state": state,
            "nonce": self._nonce(state),
            "code_challenge": challenge(self._verifier(state)),
            "code_challenge_method": "S256",
        }
        cookie = self._sessions.make({"is": "leaving", "state": state, "back": back}, now_ms + PATIENCE_MS)
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(asked)}", cookie

    def end(self, cookie: str, query: Mapping[str, str], now_ms: int) -> tuple[Person, int, str]:
        """See the protocol."""
        if not cookie:
            raise Refused(
                "this browser did not begin this sign-in, or took too long: try again",
                "本次登录不是从此浏览器发起的，或耗时过长，请重试",
            )
        left = self._sessions.check(cookie, now_ms)
        state = str(left.get("state", ""))
        if left.get("is") != "leaving" or not hmac.compare_digest(query.get("state", "").encode(), state.encode()):
            raise Refused("the answer belongs to another sign-in: try again", "返回的应答属于另一次登录，请重试")
        if query.get("iss", self._config.issuer) != self._config.issuer:
            raise Refused(f"the answer is of {query['iss']!r}", f"应答来自 {query['iss']!r}")
        if "error" in query or not query.get("code"):
            why = query.get("error_description") or query.get("error") or "no code"
            raise Refused(f"the issuer refused: {why}", f"签发方拒绝了登录：{why}")
        token = self._redeem(query["code"], state)
        claims = self._issuer.claims(token, self._config.client_id, now_ms)
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), self._nonce(state).encode()):
            raise Refused("the token was made for another sign-in: try again", "令牌属于另一次登录，请重试")
        if claims.get("azp", self._config.client_id) != self._config.client_id:
            raise Refused("the token was made for another client", "令牌是为另一个客户端签发的")
        return person_of(self._config, claims), now_ms + self._config.session, str(left["back"])

    def _redeem(self, code: str, state: str) -> str:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._config.redirect_url,
            "code_verifier": self._verifier(state),
        }
        if not self._secret:
            form["client_id"] = self._config.client_id
        auth = httpx.BasicAuth(_quoted(self._config.client_id), _quoted(self._secret)) if self._secret else None
        told = self._issuer.fetch("POST", self._address("token_endpoint"), data=form, auth=auth)
        token = told.get("id_token")
        if not isinstance(token, str):
            raise Refused("the issuer gave no ID token", "签发方没有返回 ID 令牌")
        return token

    def _address(self, name: str) -> str:
        found = self._issuer.says(name)
        if not found:
            raise IssuerSilent(f"{self._config.issuer} names no {name}")
        return found

    def _nonce(self, state: str) -> str:
        return self._sessions.derive(f"nonce/{state}")

    def _verifier(self, state: str) -> str:
        return self._sessions.derive(f"verifier/{state}")


def challenge(verifier: str) -> str:
    """RFC 7636, section 4.2: S256."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def _quoted(text: str) -> str:
    """RFC 6749, section 2.3.1: as a form has it, before Basic."""
    return urlencode({"": text})[1:]
