"""PURE. Statements for people: quantities with units, and the reason behind each amount in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scheduler.model.money import yuan
from scheduler.report import figures

LIMITS = {
    "ratio": "",
    "voucher_left": "the voucher had no more",
    "tenant_cap": "the tenant's cap under the policy is reached",
    "pool_left": "the pool had no more",
    "partly_valid": "only a part of the time lies inside the validity",
    "free": "",
    "no_price": "",
    "not_eligible": "vouchers do not pay for this",
    "excluded": "no voucher pays: {note}",
    "no_voucher": "no voucher",
    "draft": "the policy {note} is a draft and pays nothing",
    "not_in_policy": "the policy {note} does not name this",
    "purpose": "the policy {note} is for other kinds of work",
    "outside_validity": "outside the validity of {note}",
    "truncated": "less than the smallest amount of {note}",
}
FREE = {
    "starting": "free: being started",
    "lost": "free: the park lost it",
    "preempted": "free: preempted by the park",
    "simulated": "simulated cards are never billed",
    "no_price": "NO PRICE is recorded for this",
}


def unit(sku: str) -> str:
    """``card-hours`` …"""
    return figures.sku_unit(sku)


def quantity(sku: str, amount: int) -> str:
    """Hours of the SKU; negative for what was taken back."""
    return ("-" if amount < 0 else "") + figures.hours(sku, abs(amount))


def what(row: Mapping[str, Any]) -> str:
    """``H100-SXM-80GB card-hours``."""
    return f"{row['model']} {unit(str(row['sku']))}".strip()


def why(row: Mapping[str, Any]) -> list[str]:
    """Why the row costs what it costs: free time, who pays, what bound the subsidy, which policy was passed over."""
    if row["free"]:
        return [FREE.get(str(row["free"]), f"free: {row['free']}")]
    told = []
    if row.get("reversal") or row.get("corrects"):
        told.append("taken back" + (f": {row['note']}" if row.get("note") else ""))
    for part in row["subsidies"]:
        later = ", paid to you afterwards" if part["payout"] == "grant" else ""
        bound = LIMITS.get(str(part["limit"]), "")
        told.append(
            f"{part['voucher']} ({part['policy']}, {part['owner']}) pays {yuan(int(part['micro_yuan']))}{later}"
            + (f": {bound}" if bound else "")
        )
    if not row["subsidies"]:
        bound = LIMITS.get(str(row["limit"]), str(row["limit"])).format(note=row["limit_note"])
        told += [bound] if bound else []
    for policy, offered in dict(row.get("passed_over", {})).items():
        told.append(f"{policy} would have paid {yuan(int(offered))}: never both, the better one pays")
    if row.get("fallback"):
        told.append("price of a model without its own")
    return told


def fen(amount_fen: int) -> str:
    """``12.34`` yuan from fen."""
    return f"{'-' if amount_fen < 0 else ''}{abs(amount_fen) // 100}.{abs(amount_fen) % 100:02d}"


def cost(view: Mapping[str, Any]) -> str:
    """``12.30 yuan, of which vouchers pay 3.69; running now: 0.51``."""
    gross, due, running = (int(view[k]) for k in _COST)
    parts = [f"{yuan(gross)} yuan"]
    if gross != due:
        parts.append(f"vouchers deduct {yuan(gross - due)}")
    if running:
        parts.append(f"and {yuan(running)} for what runs now")
    return ", ".join(parts) + (" (EXAMPLE PRICES)" if view.get("example") else "")


_COST = ("sealed_gross_micro_yuan", "sealed_due_micro_yuan", "running_micro_yuan")
_BASES = {
    "same_scene": "{mean} a task in your jobs with the same scene",
    "same_name": "{mean} a task in your jobs of this name",
    "same_kind": "{mean} a task in your steps of this kind",
    "unknown": "you have run nothing like it yet",
}


def basis(price: Mapping[str, Any]) -> str:
    """Where an estimate's run time comes from."""
    return _BASES[str(price["basis"])].format(mean=figures.duration(int(price["run_ms_mean"])))


def span(low: int, high: int) -> str:
    """One amount, or from the cheapest model to the dearest."""
    return yuan(low) if low == high else f"{yuan(low)} to {yuan(high)}"
