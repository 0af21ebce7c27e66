"""What an OpenID issuer says of itself, its keys, and the tokens it signed (OpenID Connect Core, RFC 7519 and 8725)."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
from joserfc import jwt
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import extract_compact
from pydantic_core import PydanticCustomError

from scheduler.control.identity import OidcConfig, Person, Refused, person_of, require_safe
from scheduler.model.errors import InvalidInput, IssuerSilent, Problem

FRESH_S = 600.0
"""What the issuer said is asked for again after this long."""
PAUSE_S = 30.0
"""Between two questions because of an unknown key: anybody can make up tokens that name one."""
STALE_S = 86_400.0
"""Keys are believed for so long while the issuer does not answer."""
AGAIN_S = 5.0
"""After a question that was not answered: requests meanwhile are told so at once, or use what is known."""
ANSWER_S = 5.0
MOST_BYTES = 1 << 20
MOST_TOKEN = 16_384
KINDS = {"RS256": RSAKey, "ES256": ECKey}


class Issuer:
    """Fits :class:`scheduler.control.identity.Issuer`. Safe from several threads."""

    def __init__(
        self,
        config: OidcConfig,
        *,
        transport: httpx.BaseTransport | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Asks nothing yet: a service starts without its issuer. Raises InvalidInput for files it cannot use."""
        self.config = config
        try:
            verify = ssl.create_default_context(cafile=config.ca_file) if config.ca_file else True
        except OSError as error:
            raise InvalidInput([Problem("oidc.ca_file", f"cannot be used: {error}")]) from None
        self.http = httpx.Client(timeout=ANSWER_S, transport=transport, verify=verify)
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._says: Mapping[str, Any] = {}
        self._keys: dict[str, RSAKey | ECKey] = {}
        """By ``kid``; one without has the empty one."""
        self._fetched_s: float | None = None
        self._tried_s: float | None = None
        self._failure = ""
        """Of the last question; empty: it was answered."""

    def close(self) -> None:
        """Let go of the connections."""
        self.http.close()

    # ── what the issuer says ─────────────────────────────────────────────────────────────────────────────────────

    def says(self, name: str) -> str:
        """An address that the issuer names, empty when it does not. Raises IssuerSilent."""
        with self._lock:
            self._refresh()
            return str(self._says.get(name, ""))

    def _key(self, kid: str) -> RSAKey | ECKey | None:
        """Keys rotate: an unknown one is asked for, now and then."""
        with self._lock:
            self._refresh()
            if kid not in self._keys and self._is_due(PAUSE_S):
                self._refresh(0.0)
            return self._keys.get(kid)

    def _is_due(self, pause_s: float) -> bool:
        return self._tried_s is None or self._monotonic() >= self._tried_s + pause_s

    def _refresh(self, fresh_s: float = FRESH_S) -> None:
        now_s = self._monotonic()
        if self._fetched_s is not None and now_s < self._fetched_s + fresh_s:
            return
        if not self._failure or self._is_due(AGAIN_S):
            self._tried_s, self._failure = now_s, ""
            try:
                self._fetch()
                self._fetched_s = now_s
            except IssuerSilent as error:
                self._failure = str(error)
        if self._failure and (self._fetched_s is None or now_s >= self._fetched_s + STALE_S):
            raise IssuerSilent(self._failure)

    def _fetch(self) -> None:
        issuer = self.config.issuer
        says = self.fetch("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if says.get("issuer") != issuer:
            raise IssuerSilent(f"{issuer} calls itself {says.get('issuer')!r}: oidc.issuer must be that, to the letter")
        found: dict[str, RSAKey | ECKey] = {}
        for raw in self.fetch("GET", str(says.get("jwks_uri", ""))).get("keys", ()):
            if not isinstance(raw, Mapping) or raw.get("use", "sig") != "sig":
                continue
            try:
                key = next((kind for kind in KINDS.values() if kind.key_type == raw.get("kty")), None)
                if key is not None:
                    found[str(raw.get("kid", ""))] = key.import_key(dict(raw))
            except (JoseError, ValueError, KeyError, TypeError):
                continue  # a kind of key that we do not use must not keep out those that we do
        if not found:
            raise IssuerSilent(f"{issuer} publishes no key that can be used")
        self._says, self._keys = says, found

    def fetch(self, method: str, url: str, **more: Any) -> Mapping[str, Any]:
        """A JSON object from an address of the issuer. Raises IssuerSilent."""
        try:
            require_safe(url)
            with self.http.stream(method, url, headers={"Accept": "application/json"}, **more) as answer:
                body = b""
                for part in answer.iter_bytes():
                    body += part
                    if len(body) > MOST_BYTES:
                        raise IssuerSilent(f"{url} answers more than 1 MiB")
                told = _json(answer, body)
        except PydanticCustomError as error:
            raise IssuerSilent(f"the issuer names {url!r}, which {error.message()}") from None
        except httpx.HTTPError as error:
            raise IssuerSilent(f"{url} does not answer: {error or type(error).__name__}") from None
        if answer.status_code != httpx.codes.OK:
            why = told.get("error_description") or told.get("error") or answer.reason_phrase
            raise IssuerSilent(f"{url} answers {answer.status_code}: {why}")
        return told

    # ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────

    def person(self, token: str, now_ms: int) -> Person:
        """See the protocol."""
        return person_of(self.config, self.claims(token, self.config.audience, now_ms))

    def claims(self, token: str, audience: str, now_ms: int) -> Mapping[str, Any]:
        """What a token of this issuer for ``audience`` says, once it has been checked. Raises Refused, IssuerSilent."""
        claims = self._signed(token)
        told, ours = claims.get("iss"), self.config.issuer
        if told != ours:
            raise Refused(f"the token is of {told!r}, not of {ours}", f"令牌由 {told!r} 签发，而不是 {ours}")
        meant = claims.get("aud")
        if audience not in (meant if isinstance(meant, list) else [meant]):
            raise Refused(
                f"the token is for {meant!r}, not for {audience!r} (claim aud)",
                f"令牌的受众（声明 aud）是 {meant!r}，而不是 {audience!r}",
            )
        _in_time(claims, now_ms, self.config.leeway)
        return claims

    def _signed(self, token: str) -> Mapping[str, Any]:
        try:
            if len(token) > MOST_TOKEN:
                raise ValueError
            header = extract_compact(token.encode()).headers()
        except (JoseError, ValueError):
            raise Refused("this is not a token (JWT)", "这不是有效的令牌（JWT）") from None
        named, valid = header.get("alg"), self.config.algorithms
        if named not in valid:
            listed = ", ".join(valid)
            raise Refused(
                f"the token is signed by {named!r}, which is not accepted (valid: {listed})",
                f"不接受令牌的签名算法 {named!r}（可用：{listed}）",
            )
        kid = str(header.get("kid", ""))
        key = self._key(kid)
        if key is None:
            raise Refused(
                f"the issuer has no key {kid!r}, by which the token is signed", f"签发方没有令牌所用的密钥 {kid!r}"
            )
        try:
            return jwt.decode(token, key, algorithms=[named]).claims
        except BadSignatureError:
            raise Refused("the token's signature is wrong", "令牌的签名不正确") from None
        except (JoseError, ValueError) as error:
            raise Refused(f"the token cannot be read: {error}", f"无法读取令牌：{error}") from None


def _json(answer: httpx.Response, body: bytes) -> Mapping[str, Any]:
    try:
        told = httpx.Response(200, content=body).json()
    except ValueError:
        told = None
    if isinstance(told, Mapping):
        return told
    raise IssuerSilent(f"{answer.url} answers {answer.status_code} and no JSON object")


def _in_time(claims: Mapping[str, Any], now_ms: int, leeway_ms: int) -> None:
    def at_ms(name: str) -> int | None:
        told = claims.get(name)
        if told is None:
            return None
        if isinstance(told, bool) or not isinstance(told, int | float) or not 0 <= told < 1e11:
            raise Refused(f"the token's claim {name} is no time", f"令牌的声明 {name} 不是时间")
        return int(told * 1_000)

    expires_ms, begins_ms, issued_ms = at_ms("exp"), at_ms("nbf"), at_ms("iat")
    if expires_ms is None:
        raise Refused("the token never expires (no claim exp)", "令牌没有过期时间（缺少声明 exp）")
    if now_ms >= expires_ms + leeway_ms:
        ago_s = (now_ms - expires_ms) // 1_000
        raise Refused(f"the token expired {ago_s} s ago: get a new one", f"令牌已过期 {ago_s} 秒，请重新获取")
    begins_ms = max(begins_ms or 0, issued_ms or 0)
    if begins_ms > now_ms + leeway_ms:
        early_s = (begins_ms - now_ms) // 1_000
        raise Refused(
            f"the token begins in {early_s} s: the clocks of the issuer and of this service differ",
            f"令牌在 {early_s} 秒后才生效：签发方与本服务的时钟不一致",
        )
