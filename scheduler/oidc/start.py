"""The issuer as the configuration file asks for it."""

from __future__ import annotations

from pathlib import Path

from scheduler.control.identity import OidcConfig, People, Sessions
from scheduler.control.tokens import Tokens


def open_oidc(config: OidcConfig | None, folder: Path, tokens: Tokens) -> People:
    """Relative files start at ``folder``. Raises InvalidInput for files that cannot be used."""
    sessions = Sessions(tokens.derive("sign-in"))
    if config is None:
        return People(sessions=sessions)
    from scheduler.oidc.issuer import Issuer  # only for those who have an issuer: it takes memory
    from scheduler.oidc.signin import SignIn

    if config.ca_file:
        config = config.model_copy(update={"ca_file": str(folder / config.ca_file)})
    issuer = Issuer(config)
    return People(
        sessions=sessions, issuer=issuer, sign_in=SignIn(issuer, sessions, folder) if config.client_id else None
    )
