"""The cluster and what was used of it: ``nodes``, ``queues``, ``usage``, ``cordon``,
``uncordon``, ``drain``.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from scheduler.cli.app import CLUSTER, session, verb
from scheduler.cli.jobs import job_id
from scheduler.cli.session import coloured, plain, table
from scheduler.report import figures
from scheduler.report import usage as sums


@verb("nodes", panel=CLUSTER, example="shisuan nodes")
def nodes(ctx: typer.Context) -> None:
    """List nodes and their cards, with what is free now."""
    here = session(ctx)
    value = here.client().get("/nodes")
    here.show(value, lambda out: _nodes(out, value["nodes"]))


def _nodes(out: Console, listed: list[dict[str, Any]]) -> None:
    if not listed:
        out.print("No node has reported yet. `shisuan status` says what the runtime is doing.")
        return
    out.print(node_table(listed))
    cards = [(node, device) for node in listed for device in node.get("devices", ())]
    if cards:
        out.print()
        out.print(_cards(cards))
    if any(device.get("simulated") for _, device in cards):
        out.print("\n[yellow]SIMULATED[/] cards exist only on paper: no program sees them, and they are never billed.")


def node_table(listed: list[dict[str, Any]]) -> Table:
    """One line per node: free of total."""
    rows = table("NODE", "STATE", "CPUS FREE", "MEMORY FREE", "CARDS FREE", "FAULTS", "NOTE")
    for node in listed:
        devices = node.get("devices", ())
        there = node.get("state") != "lost"
        free = sum(1 for d in devices if there and not d.get("lease_id") and d.get("health", "ok") == "ok")
        faults = int(node.get("faults_milli", 0))
        last = f"{node['fault_reason']}, {figures.instant(node['fault_ms'])}" if faults else ""
        cpu, memory = int(node["cpu_milli"]), int(node["memory_mib"])
        rows.add_row(
            plain(node["name"]),
            coloured(node.get("state", "ready")),
            f"{figures.cpus(int(node.get('cpu_milli_free', cpu)) * there)} of {cpu / 1000:g}",
            f"{figures.memory(int(node.get('memory_mib_free', memory)) * there)} of {figures.memory(memory)}",
            f"{free} of {len(devices)}" if devices else "no cards",
            f"{faults / 1000:.1f}" if faults else "",
            plain(
                "; ".join(
                    note for note in (node.get("state_reason", ""), *map(_cut, node.get("cuts", ())), last) if note
                )
            ),
        )
    return rows


def _cut(cut: dict[str, Any]) -> str:
    """What is to be said of the last cut of a card; nothing of one that went well."""
    what = f"{cut['card'] or 'cards'} into {cut['layout']}"
    since = figures.instant(cut["since_ms"])
    if not cut["ended_ms"]:
        return f"cutting {what} since {since}"
    return f"could not cut {what} ({since}): {cut['problem']}" if cut["problem"] else ""


def _cards(cards: list[tuple[dict[str, Any], dict[str, Any]]]) -> Table:
    rows = table("CARD", "MODEL", "MEMORY", "HEALTH", "HELD BY", "ID")
    for node, device in cards:
        model = plain(device["model"]) + (f" {plain(device['profile'])}" if device.get("profile") else "")
        badge = " [yellow]SIMULATED[/]" if device.get("simulated") else ""
        health = coloured(device.get("health", "ok"))
        if device.get("health_reason"):
            health += f" {plain(device['health_reason'])}"
        rows.add_row(
            f"{plain(node['name'])} {device.get('index', 0)}",
            model + badge,
            figures.memory(int(device.get("memory_mib", 0))),
            health,
            plain(device.get("job_id", "")),
            plain(device["id"]),
        )
    return rows


Why = Annotated[str, typer.Option(help="Shown to everyone who asks why.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen and do nothing.")]
NodeName = Annotated[str, typer.Argument(metavar="NODE")]


@verb("cordon", panel=CLUSTER, example="shisuan cordon node7 (operators only)")
def cordon(ctx: typer.Context, node: NodeName, reason: Why = "", dry_run: DryRun = False) -> None:
    """Start nothing new on a node; what runs there goes on."""
    here = session(ctx)
    value = here.client().post(f"/nodes/{node}/cordon", {"reason": reason, "dry_run": dry_run})
    undo = f"{plain(node)} cordoned. Undo: {here.command('uncordon ' + node)}"
    here.show(value, lambda out: out.print(_would(value) if dry_run else undo))


@verb("uncordon", panel=CLUSTER, example="shisuan uncordon node7 (operators only)")
def uncordon(ctx: typer.Context, node: NodeName, dry_run: DryRun = False) -> None:
    """Let a node take work again."""
    here = session(ctx)
    value = here.client().post(f"/nodes/{node}/uncordon", {"dry_run": dry_run})
    done = f"{plain(node)} takes work again."
    here.show(value, lambda out: out.print(_would(value) if dry_run or value["state"] != "ready" else done))


def _would(node: dict[str, Any]) -> str:
    """How a node is, or would be."""
    why = f" ({plain(node['state_reason'])})" if node["state_reason"] else ""
    return f"{plain(node['name'])}: {coloured(node['state'])}{why}"


@verb("drain", panel=CLUSTER, example="shisuan drain node7 --dry-run (operators only)")
def drain(ctx: typer.Context, node: NodeName, reason: Why = "", dry_run: DryRun = False) -> None:
    """Empty a node: start nothing new, and move away what runs there.

    What runs gets SIGTERM, and SIGKILL after its grace; a training saves a checkpoint. It waits again and goes on
    elsewhere, not counted against retries, and its time since the last checkpoint is free. Gangs leave as a whole.
    """
    here = session(ctx)
    value = here.client().post(f"/nodes/{node}/drain", {"reason": reason, "dry_run": dry_run})

    def lines(out: Console) -> None:
        out.print(_would(value["node"]))
        if value["stops"]:
            rows = table("LEASE", "JOB", "TENANT", "CARDS HERE", "ON", right=("CARDS HERE",))
            for stop in value["stops"]:
                cells = (stop["lease_id"], stop["job_id"], stop["tenant"], str(stop["cards"]), ", ".join(stop["nodes"]))
                rows.add_row(*map(plain, cells))
            out.print(rows)
        left = value["stopping"] + (0 if dry_run else len(value["stops"]))
        if dry_run:
            out.print(
                f"Nothing was done. {len(value['stops'])} leases would be stopped, {left} are being stopped already."
            )
        else:
            out.print(f"{left} leases are being stopped. Undo: {here.command('uncordon ' + node)}")

    here.show(value, lines)


@verb("queues", panel=CLUSTER, example="shisuan queues")
def queues(ctx: typer.Context) -> None:
    """List queues, their weights and how busy they are."""
    here = session(ctx)
    value = here.client().get("/queues")

    def lines(out: Console) -> None:
        names = ("QUEUE", "PARENT", "WEIGHT", "GUARANTEED", "LIMIT", "WAITING", "RUNNING")
        rows = table(*names, right=("WEIGHT", "WAITING", "RUNNING"))
        for queue in value["queues"]:
            busy = (f"{queue.get(what, 0):,}" for what in ("waiting", "running"))
            quota = (_amounts(queue.get(what, {})) for what in ("guaranteed", "limit"))
            weight = str(queue.get("weight", 100))
            rows.add_row(plain(queue["name"]), plain(queue.get("parent", "")), weight, *quota, *busy)
        out.print(rows)

    here.show(value, lines)


def _amounts(amounts: dict[str, int]) -> str:
    units = (("card_milli", "cards"), ("mig_milli", "MIG"), ("cpu_milli", "CPUs"))
    told = [f"{amounts[key] / 1000:g} {unit}" for key, unit in units if key in amounts]
    return ", ".join([*told, figures.memory(amounts["memory_mib"])] if "memory_mib" in amounts else told)


@verb("usage", panel=CLUSTER, example="shisuan usage j17")
def usage(
    ctx: typer.Context,
    job: Annotated[str, typer.Argument(metavar="[JOB]", help="Only this job.", show_default=False)] = "",
) -> None:
    """Add up sealed usage, and check it against the leases."""
    here = session(ctx)
    key = job_id(job) if job else ""
    value = {"records": here.client().pages("/usage", "records", job=key)}
    leases = [] if here.is_json else here.client().pages("/leases", "leases", job=key)
    here.show(value, lambda out: show_usage(out, value["records"], leases))


def show_usage(out: Console, records: list[dict[str, Any]], leases: list[dict[str, Any]]) -> None:
    """Totals per step, and the check."""
    rows = table(*sums.HEADER, right=("LEASES", "HELD", "AMOUNT"))
    for total in sums.totals(records):
        rows.add_row(*(plain(cell) for cell in total.cells))
    out.print(rows if records else "No usage is sealed yet: a record is written when a lease ends.")
    out.print(f"check: {sums.conserve(leases, records).sentence}")
    if any(record.get("simulated") for record in records):
        out.print("Time of [yellow]SIMULATED[/] cards is not counted: only CPU and memory are.")
