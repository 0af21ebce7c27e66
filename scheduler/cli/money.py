"""Money: ``statement``, ``rates``, ``vouchers``, ``ledger``."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from scheduler.cli.app import MONEY, app, session, verb
from scheduler.cli.exits import CliError, Exit
from scheduler.cli.jobs import job_id
from scheduler.cli.session import Session, plain, table
from scheduler.ledger.months import CHINA
from scheduler.model.money import yuan
from scheduler.report import figures
from scheduler.report import money as told

EXAMPLE = "[yellow]EXAMPLE PRICES[/]: made up to try things out; nobody's offer."


@verb("statement", panel=MONEY, example="shisuan statement --month 2026-11\nshisuan statement --job j17 --lines")
def statement(
    ctx: typer.Context,
    month: Annotated[str, typer.Option(metavar="YYYY-MM", help="Default: the present month, China time.")] = "",
    job: Annotated[str, typer.Option(metavar="JOB", help="Everything of one job instead.", show_default=False)] = "",
    tenant: Annotated[str, typer.Option(help="For operators; default: every tenant.", show_default=False)] = "",
    lines: Annotated[
        bool, typer.Option("--lines", metavar="", help="Every single line, with its usage record and ledger number.")
    ] = False,
) -> None:
    """Show what was used, what it costs, who pays, and why.

    Rows are exact sums; only the amount to pay is rounded, once, to fen.
    """
    here = session(ctx)
    key = job_id(job) if job else ""
    query = {"month": month, "job": key, "tenant": tenant, "lines": "true" if lines else ""}
    value = here.client().get("/statement", **query)
    here.show(value, lambda out: show_statements(out, value, month))


def show_statements(out: Console, value: dict[str, Any], month: str = "") -> None:
    """Each tenant's statement: rows with their reasons, then the totals."""
    if not value["statements"]:
        out.print("Nothing was booked in this time.")
    for number, one in enumerate(value["statements"]):
        if number:
            out.print()
        period = f"job {one['job_id']}" if one["job_id"] else month or "this month"
        out.print(f"[bold]{plain(one['tenant'])}[/], {period}", soft_wrap=True)
        if one["example"]:
            out.print(EXAMPLE)
        if not one["rows"]:
            out.print("Nothing was booked in this time.")
            continue
        out.print(_rows(one["rows"]))
        if one["lines"]:
            out.print(_lines(one["lines"]))
        out.print(_totals(one))
    out.print(f"\nledger: up to transaction {value['ledger_seq']}, hash {value['ledger_hash'][:16]}…", soft_wrap=True)


def _rows(listed: list[dict[str, Any]]) -> Any:
    rows = table(
        *("JOB", "STEP", "WHAT", "QUANTITY", "YUAN/H", "AT LIST", "TO PAY", "WHY"),
        right=("QUANTITY", "YUAN/H", "AT LIST", "TO PAY"),
    )
    last = ""
    for row in listed:
        head = f"{row['job_id']} {row['job_name']}".strip()
        rows.add_row(
            plain(head) if head != last else "",
            plain(row["step"]),
            plain(told.what(row)),
            told.quantity(row["sku"], row["amount"]),
            yuan(row["hourly_micro_yuan"]),
            yuan(row["gross_micro_yuan"]),
            yuan(row["due_micro_yuan"]),
            plain("; ".join(told.why(row))),
        )
        last = head
    return rows


def _lines(listed: list[dict[str, Any]]) -> Any:
    rows = table(
        *("LEDGER", "USAGE RECORD", "WHAT", "FROM", "QUANTITY", "RATE", "AT LIST", "TO PAY", "WHY"),
        right=("LEDGER", "QUANTITY", "AT LIST", "TO PAY"),
    )
    for line in listed:
        rows.add_row(
            str(line["ledger_seq"]),
            plain(line["usage_id"]),
            plain(told.what(line)),
            figures.instant(line["start_ms"], CHINA),
            told.quantity(line["sku"], line["amount"]),
            plain(line["rate"]),
            yuan(line["gross_micro_yuan"]),
            yuan(line["due_micro_yuan"]),
            plain("; ".join(told.why(line))),
        )
    return rows


def _totals(one: dict[str, Any]) -> Any:
    rows = table("", "", right=("",))
    rows.show_header = False
    rows.add_row("at list prices", yuan(one["gross_micro_yuan"]))
    rows.add_row("deducted by vouchers", yuan(-one["deducted_micro_yuan"]))
    rows.add_row("exactly to pay", yuan(one["due_micro_yuan"]))
    rows.add_row("rounding to fen", yuan(one["rounding_micro_yuan"]))
    rows.add_row("[bold]to pay[/]", f"[bold]{told.fen(one['due_fen'])} yuan[/]")
    if one["granted_micro_yuan"]:
        rows.add_row("granted to you afterwards", yuan(one["granted_micro_yuan"]))
    return rows


@verb("rates", panel=MONEY, example="shisuan rates")
def rates(
    ctx: typer.Context,
    every: Annotated[bool, typer.Option("--all", metavar="", help="Also versions not in force now.")] = False,
) -> None:
    """Show what an hour costs."""
    here = session(ctx)
    value = here.client().get("/rates")

    def lines(out: Console) -> None:
        for card in value["rates"]:
            if card["in_force"] or every:
                _card(out, card)

    here.show(value, lines)


def _card(out: Console, card: dict[str, Any]) -> None:
    state = "in force" if card["in_force"] else "not in force now"
    since = figures.instant(card["valid_from_ms"], CHINA)
    out.print(f"[bold]{plain(card['id'])}[/] {state}; valid from {since}", soft_wrap=True)
    if card["example"]:
        out.print(EXAMPLE)
    rows = table("WHAT", "MODEL", "YUAN/H", "VOUCHERS", "TAX CLASS", right=("YUAN/H",))
    for price in card["prices"]:
        model = "any other" if price["model"] == "*" else plain(price["model"])
        pays = "yes" if price["voucher"] else "no"
        rows.add_row(price["sku"], model, yuan(price["hourly_micro_yuan"]), pays, plain(price["tax"]))
    out.print(rows)


vouchers = typer.Typer(help="List vouchers; grant and revoke them (operators only).", invoke_without_command=True)
app.add_typer(vouchers, name="vouchers", rich_help_panel=MONEY, epilog="Example:  shisuan vouchers")


@vouchers.callback()
def list_vouchers(ctx: typer.Context) -> None:
    """List vouchers and what is left of them; `grant` and `revoke` are for operators."""
    if ctx.invoked_subcommand is None:
        show_vouchers(session(ctx))


@verb("list", to=vouchers, example="shisuan vouchers list")
def list_verb(ctx: typer.Context) -> None:
    """List vouchers and what is left of them."""
    show_vouchers(session(ctx))


def show_vouchers(here: Session) -> None:
    """The list, with the policies that the vouchers stand under."""
    value = here.client().get("/vouchers")
    policies = [] if here.is_json else here.client().get("/policies")["policies"]
    here.show(value, lambda out: show_voucher_list(out, value["vouchers"], policies))


def show_voucher_list(out: Console, listed: list[dict[str, Any]], policies: list[dict[str, Any]]) -> None:
    """Vouchers and what is left of them, after the policies they stand under."""
    if policies:
        out.print(_policies(policies))
        out.print()
    if not listed:
        out.print("No vouchers.")
        return
    rows = table(
        *("VOUCHER", "TENANT", "POLICY", "STATE", "AMOUNT", "LEFT", "PAID", "VALID UNTIL", "NOTE"),
        right=("AMOUNT", "LEFT", "PAID"),
    )
    for one in listed:
        rows.add_row(
            plain(one["id"]),
            plain(one["tenant"]),
            plain(one["policy"]),
            plain(one["state"].replace("_", " ")),
            yuan(one["amount_micro_yuan"]),
            yuan(one["left_micro_yuan"]),
            yuan(one["burnt_micro_yuan"]),
            figures.instant(one["valid_to_ms"], CHINA),
            plain(one["excluded"]),
        )
    out.print(rows)


def _policies(listed: list[dict[str, Any]]) -> Any:
    rows = table(
        *("POLICY", "STATUS", "OWNER", "SHARE", "YEAR", "POOL", "AVAILABLE", "SET ASIDE", "TO CLAIM", "LAPSED"),
        right=("SHARE", "POOL", "AVAILABLE", "SET ASIDE", "TO CLAIM", "LAPSED"),
    )
    for one in listed:
        pool = one["pool"] or {}
        kinds = ("amount", "available", "reserved", "committed", "lapsed")
        amounts = (pool.get(f"{kind}_micro_yuan") for kind in kinds)
        rows.add_row(
            plain(one["id"]) + (" [yellow]EXAMPLE[/]" if one["example"] else ""),
            plain(one["status"].replace("_", " ")),
            plain(one["owner"]),
            f"{one['ratio_bp'] // 100}.{one['ratio_bp'] % 100:02d} %",
            str(one["fiscal_year"]),
            *(yuan(amount) if amount is not None else "–" for amount in amounts),
        )
    return rows


@verb(
    "grant",
    to=vouchers,
    example="shisuan vouchers grant --tenant studio-a --policy p1 --amount 50000 --valid-until 2026-12-31",
)
def grant(
    ctx: typer.Context,
    tenant: Annotated[str, typer.Option(help="Who gets it.")],
    policy: Annotated[str, typer.Option(help="Policy version, from `shisuan vouchers`.")],
    amount: Annotated[str, typer.Option(metavar="YUAN", help="Such as 50000 or 0.5.")],
    valid_until: Annotated[str, typer.Option(metavar="DATE", help="The end of that day, China time.")],
    *,
    valid_from: Annotated[str, typer.Option(metavar="DATE", help="Default: now.", show_default=False)] = "",
    priority: Annotated[int, typer.Option(metavar="N", help="Smaller burns first.")] = 100,
    voucher_id: Annotated[str, typer.Option("--id", help="Default: the service gives one.", show_default=False)] = "",
) -> None:
    """Give a tenant a voucher (operators only)."""
    here = session(ctx)
    body = {
        "tenant": tenant,
        "policy": policy,
        "yuan": amount,
        "valid_until": valid_until,
        "valid_from": valid_from,
        "priority": priority,
        "id": voucher_id,
    }
    value = here.client().post("/vouchers", body)
    amount_text = yuan(value["amount_micro_yuan"])
    here.show(value, lambda out: out.print(f"{plain(value['id'])}: {amount_text} yuan for {plain(tenant)}."))


@verb("revoke", to=vouchers, example="shisuan vouchers revoke v3 --reason 'granted twice'")
def revoke(
    ctx: typer.Context,
    voucher: Annotated[str, typer.Argument(metavar="VOUCHER")],
    reason: Annotated[str, typer.Option(help="Stands in the ledger.")],
) -> None:
    """Give what is left of a voucher back to its pool (operators only)."""
    here = session(ctx)
    value = here.client().post(f"/vouchers/{voucher}/revoke", {"reason": reason})
    here.show(value, lambda out: out.print(f"{plain(voucher)} revoked; what it paid stays paid."))


ledger = typer.Typer(help="Prove that the ledger is what was recorded (operators only).", no_args_is_help=True)
app.add_typer(ledger, name="ledger", rich_help_panel=MONEY, epilog="Example:  shisuan ledger verify")


@verb("verify", to=ledger, example="shisuan ledger verify\nshisuan ledger verify --database sqlite:////copy/shisuan.db")
def verify(
    ctx: typer.Context,
    database: Annotated[
        str, typer.Option(metavar="URL", help="Check this database instead, without a service.", show_default=False)
    ] = "",
) -> None:
    """Book everything recorded again and compare: every hash, every sum, every balance.

    Exit code 0: all agrees; 1: the answer says what differs first.
    """
    here = session(ctx)
    value = _offline(database) if database else here.client().get("/ledger/verify")
    here.show(value, lambda out: show_verdict(out, value))
    if not value["ok"]:
        raise typer.Exit(Exit.FAILED)


def _offline(url: str) -> dict[str, Any]:
    from scheduler.control.audit import audit, view
    from scheduler.model.errors import ShisuanError
    from scheduler.store import open_store

    try:
        store = open_store(url)
        try:
            store.verify()
            return dict(view(audit(store)))
        finally:
            store.close()
    except ShisuanError as error:
        raise CliError(str(error), Exit.FAILED) from error


def show_verdict(out: Console, value: dict[str, Any]) -> None:
    """What the ledger's verification found."""
    if value["ok"]:
        out.print(f"{value['ledger_seq']} transactions: each comes from the journal, sums to zero and is unchanged.")
    else:
        out.print(plain(value["difference"]), soft_wrap=True)
    out.print(f"last hash: {value['ledger_hash']}", soft_wrap=True)
    waiting = value["journal_seq"] - value["ledger_cursor"]
    if waiting > 0:
        out.print(f"journal rows not looked at by the ledger yet: {waiting}")
