"""``keys``: who may use the service. For operators."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from scheduler.cli.app import CLUSTER, app, session, verb
from scheduler.cli.session import plain, table
from scheduler.report import figures

keys = typer.Typer(help="Create, list and revoke keys (operators only).", no_args_is_help=True)
app.add_typer(
    keys, name="keys", rich_help_panel=CLUSTER, epilog="Example:  shisuan keys create --tenant studio-a --days 90"
)


@verb("create", to=keys, example="shisuan keys create --tenant studio-a --days 90")
def create(  # noqa: PLR0917 (each is an option)
    ctx: typer.Context,
    tenant: Annotated[str, typer.Option(help="Whose key.")],
    operator: Annotated[
        bool, typer.Option("--operator", metavar="", help="May also steer nodes, queues, tenants, keys.")
    ] = False,
    figures: Annotated[
        bool, typer.Option("--figures", metavar="", help="May read /metrics, and nothing else.")
    ] = False,
    label: Annotated[str, typer.Option(help="A note, such as a name.", show_default=False)] = "",
    days: Annotated[int, typer.Option(metavar="N", help="Expires after N days; 0: never.", min=0)] = 0,
) -> None:
    """Make a key and print it. It is shown this once: the service keeps only its hash."""
    if operator and figures:
        raise typer.BadParameter("a key is for one of them: operator or figures", param_hint="--figures")
    here = session(ctx)
    expires_ms = here.now_ms() + days * 86_400_000 if days else 0
    body = {
        "tenant": tenant,
        "role": "operator" if operator else "figures" if figures else "tenant",
        "label": label,
        "expires_ms": expires_ms,
    }
    value = here.client().post("/keys", body)

    def lines(out: Console) -> None:
        # The key alone on standard output, so that it can be piped into a file.
        out.print(plain(value["key"]), soft_wrap=True)
        here.say(f"Key {value.get('id', '')} for tenant {tenant}. It is shown this once; use it as SHISUAN_KEY.")

    here.show(value, lines)


@verb("list", to=keys, example="shisuan keys list")
def list_keys(ctx: typer.Context) -> None:
    """List keys, without their secrets."""
    here = session(ctx)
    value = here.client().get("/keys")
    here.show(value, lambda out: out.print(_table(value["keys"])))


def _table(listed: list[dict[str, Any]]) -> Any:
    rows = table("ID", "TENANT", "ROLE", "LABEL", "CREATED", "EXPIRES", "REVOKED")
    for key in listed:
        expires = figures.instant(key["expires_ms"]) if key.get("expires_ms") else "never"
        rows.add_row(
            plain(key["id"]),
            plain(key["tenant"]),
            plain(key.get("role", "")),
            plain(key.get("label", "")),
            figures.instant(key.get("created_ms", 0)),
            expires,
            figures.instant(key.get("revoked_ms", 0)),
        )
    return rows


@verb("revoke", to=keys, example="shisuan keys revoke k3")
def revoke(ctx: typer.Context, key_id: Annotated[str, typer.Argument(metavar="ID", help="From `keys list`.")]) -> None:
    """Make a key worthless, at once."""
    here = session(ctx)
    value = here.client().delete(f"/keys/{key_id}")
    here.show(value, lambda out: out.print(f"{plain(key_id)} revoked."))
