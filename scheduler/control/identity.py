"""People whom an OpenID issuer knows: the ``oidc`` section of the configuration, and who of its tokens may do what."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from scheduler.control.strict import Strict
from scheduler.jobfile.quantity import duration_ms
from scheduler.model.errors import Unauthorized
from scheduler.model.key import Role

Duration = Annotated[int, BeforeValidator(duration_ms)]
LOCAL = ("127.0.0.1", "localhost", "::1")
RANK = (Role.OPERATOR, Role.TENANT, Role.FIGURES)
"""Who is in several groups has the first of these roles."""
SUBJECT = 200
"""Longest subject that is kept, in characters. OpenID Connect allows 255 of ASCII."""


class Refused(Unauthorized):
    """A token or a sign-in that is not accepted, said in both languages."""

    def __init__(self, en: str, zh: str = "") -> None:
        self.en, self.zh = en, zh or en
        super().__init__(f"{en}（{zh}）" if zh else en)

    def said(self, language: str) -> str:
        """In one language."""
        return self.zh if language == "zh" else self.en


class OidcConfig(Strict):
    """Which issuer is believed, and what its claims mean here. Without ``client_id`` the page has no sign-in by it."""

    issuer: str
    """As its tokens name it, to the letter."""
    audience: str
    """Of access tokens that the API takes."""
    algorithms: Annotated[list[Literal["RS256", "ES256"]], Field(min_length=1)] = ["RS256", "ES256"]  # noqa: RUF012
    tenant_claim: str = "tenant"
    tenants: Annotated[dict[str, str], Field(default_factory=dict)]
    """Value of the claim → tenant; empty: the value is the tenant's name."""
    role_claim: str = "groups"
    roles: Annotated[dict[str, Role], Field(default_factory=dict)]
    """Value of the claim, or one of its values, → role; empty: everybody of a tenant has the role ``tenant``."""
    leeway: Duration = 60_000
    """How far the issuer's clock and ours may differ."""
    client_id: str = ""
    client_secret_file: str = ""
    """Empty: a public client, which PKCE alone protects."""
    redirect_url: str = ""
    """``https://HOST/sign-in/oidc/back``, as the issuer knows it."""
    scopes: Annotated[list[str], Field(default_factory=lambda: ["openid", "profile"])]
    label: str = "OpenID Connect"
    """What the page calls the issuer."""
    session: Duration = 8 * 3_600_000
    """How long a sign-in on the page lasts."""
    ca_file: str = ""
    """Certificates by which the issuer is checked, in place of the system's."""

    @field_validator("issuer", "redirect_url")
    @classmethod
    def is_safe(cls, url: str) -> str:
        """Whoever can change what the issuer says can be anybody."""
        if url:
            require_safe(url)
        return url

    @model_validator(mode="after")
    def is_whole(self) -> OidcConfig:
        """A sign-in needs an address to come back to."""
        if bool(self.client_id) != bool(self.redirect_url):
            raise PydanticCustomError("oidc_client", "client_id and redirect_url go together: give both or neither")
        if self.client_id and "openid" not in self.scopes:
            raise PydanticCustomError("oidc_scopes", "scopes must contain openid")
        return self


def require_safe(url: str) -> None:
    """Raises a pydantic error for an address that could be listened to."""
    parts = urlsplit(url)
    if not parts.hostname or (parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOCAL)):
        raise PydanticCustomError("oidc_url", "must be https://HOST…, or http:// on this machine")


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody the issuer vouches for."""

    subject: str
    tenant: str
    role: Role


class Issuer(Protocol):
    """Checks what an OpenID issuer signed."""

    def person(self, token: str, now_ms: int) -> Person:
        """Whose access token this is. Raises Refused, IssuerSilent."""
        ...


class SignIn(Protocol):
    """The authorization code flow, for the page."""

    label: str
    is_https: bool
    """The page is reached by TLS, whatever a proxy in front of this service speaks to it."""

    def begin(self, back: str, now_ms: int) -> tuple[str, str]:
        """Where to send the browser, and what it must bring back in a cookie. Raises IssuerSilent."""
        ...

    def end(self, cookie: str, query: Mapping[str, str], now_ms: int) -> tuple[Person, int, str]:
        """Who signed in, until when (Unix ms), and where they wanted to go. Raises Refused, IssuerSilent."""
        ...


def person_of(config: OidcConfig, claims: Mapping[str, Any]) -> Person:
    """Who this is here. Raises Refused with the claim that is missing or means nothing."""
    subject = claims.get("sub")
    if not isinstance(subject, str) or not subject or len(subject) > SUBJECT or not subject.isprintable():
        raise Refused("the token names no subject (claim sub)", "令牌未指明主体（声明 sub）")
    role = _role(config, claims)
    return Person(subject=subject, tenant=_tenant(config, claims, role), role=role)


def _role(config: OidcConfig, claims: Mapping[str, Any]) -> Role:
    if not config.roles:
        return Role.TENANT
    told = claims.get(config.role_claim)
    groups = [told] if isinstance(told, str) else told if isinstance(told, list) else []
    mine = {config.roles[group] for group in groups if isinstance(group, str) and group in config.roles}
    found = next((role for role in RANK if role in mine), None)
    if found is None:
        known = ", ".join(sorted(config.roles))
        raise Refused(
            f"nothing in the token's claim {config.role_claim!r} gives a role here (what does: {known})",
            f"令牌的声明 {config.role_claim!r} 中没有任何值对应此处的角色（有对应的值：{known}）",
        )
    return found


def _tenant(config: OidcConfig, claims: Mapping[str, Any], role: Role) -> str:
    told = claims.get(config.tenant_claim)
    if not isinstance(told, str) or not told:
        if role is not Role.TENANT:
            return ""  # sees everything, or figures only: it need belong to nobody
        name = config.tenant_claim
        raise Refused(f"the token names no tenant (claim {name})", f"令牌未指明租户（声明 {name}）")
    if config.tenants and told not in config.tenants:
        raise unknown_tenant(told)
    return config.tenants.get(told, told)


def unknown_tenant(name: str) -> Refused:
    """The token's tenant is none of ours."""
    return Refused(f"the token's tenant {name!r} is not known here", f"令牌中的租户 {name!r} 在此处不存在")


class Sessions:
    """Sign-ins on the page: a signed text in a cookie, good for nothing else. Nothing is stored, so that any service of
    the same database accepts it.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def make(self, told: Mapping[str, Any], expires_ms: int) -> str:
        """``told`` under our signature, valid before ``expires_ms`` (Unix ms)."""
        body = json.dumps({**told, "expires_ms": expires_ms}, separators=(",", ":")).encode()
        text = base64.urlsafe_b64encode(body).decode()
        return f"{text}.{self._sign(text)}"

    def check(self, text: str, now_ms: int) -> dict[str, Any]:
        """What was told. Raises Refused."""
        body, _, signature = text.partition(".")
        if not hmac.compare_digest(signature.encode("utf-8", "surrogateescape"), self._sign(body).encode()):
            raise Refused("this sign-in is not one of this service", "该登录不是由本服务签发的")
        told: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body))
        if now_ms >= told["expires_ms"]:
            raise Refused("the sign-in has expired: sign in again", "登录已过期，请重新登录")
        return told

    def of(self, person: Person, expires_ms: int) -> str:
        """The session of somebody who signed in."""
        told = {"sub": person.subject, "tenant": person.tenant, "role": person.role.value}
        return self.make({"is": "session", **told}, expires_ms)

    def person(self, text: str, now_ms: int) -> Person:
        """Whose session this is. Raises Refused."""
        told = self.check(text, now_ms)
        if told.get("is") != "session":
            raise Refused("this is no sign-in", "这不是登录凭证")
        return Person(subject=told["sub"], tenant=told["tenant"], role=Role(told["role"]))

    def derive(self, text: str) -> str:
        """A secret of its own for whatever ``text`` names."""
        return hmac.digest(self._secret, b"derived\0" + text.encode(), "sha256").hex()

    def _sign(self, text: str) -> str:
        return hmac.digest(self._secret, b"signed\0" + text.encode("utf-8", "surrogateescape"), "sha256").hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """Everything about people whom an issuer knows."""

    sessions: Sessions
    issuer: Issuer | None = None
    """None: nobody is known but by key."""
    sign_in: SignIn | None = None
    """None: the page has no sign-in but by key."""
