"""Addresses under ``/v1`` about the park: nodes, queues, tenants, keys, status; and what an attempt may ask."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from scheduler import jobfile
from scheduler.api.doors import Authorization, Open, Who, bearer
from scheduler.api.schemas import (
    CordonBody,
    KeyBody,
    PruneBody,
    QueueBody,
    RearrangeBody,
    ReservationBody,
    TenantBody,
    TryBody,
)
from scheduler.control import terms
from scheduler.control.defrag import RearrangementList, RearrangementView
from scheduler.control.housekeeping import PruneView
from scheduler.control.maintenance import DrainView
from scheduler.control.node_shapes import NodeList, NodeView
from scheduler.control.reservations import Wish
from scheduler.control.shapes import (
    KeyList,
    KeyView,
    NewKey,
    QueueList,
    QueueView,
    ReservationList,
    ReservationView,
    SelfView,
    StatusView,
    TenantView,
)
from scheduler.model.queue import Tenant

router = APIRouter(prefix="/v1")


@router.get("/status", tags=["park"], summary="The service at a glance")
def status(open_doors: Open, who: Who) -> StatusView:
    """Version, runtime, counts; `simulated` when some cards exist on paper only."""
    return open_doors.operations.status(who)


@router.get("/nodes", tags=["park"], summary="Nodes and their devices")
def nodes(open_doors: Open, who: Who) -> NodeList:
    """What there is and what is free."""
    return {"nodes": open_doors.operations.nodes(who)}


@router.get("/queues", tags=["park"], summary="Queues")
def queues(open_doors: Open, who: Who) -> QueueList:
    """The ones you may submit to."""
    return {"queues": open_doors.operations.queues(who)}


@router.get("/schema", tags=["park"], summary="JSON Schema of job files")
def schema() -> dict[str, Any]:
    """For editors. Needs no key."""
    return jobfile.schema()


@router.get("/attempts/self", tags=["runners"], summary="What a running attempt may know")
def whoami(open_doors: Open, authorization: Authorization = "") -> SelfView:
    """Needs the attempt's own token (`SHISUAN_TOKEN`); nothing else is open to it."""
    attempt = open_doors.tokens.check(bearer(authorization), open_doors.cycle.now_ms())
    return open_doors.service.whoami(attempt)


@router.post("/nodes/{name}/cordon", tags=["operators"], summary="Take nothing new on a node")
def cordon(open_doors: Open, who: Who, name: str, body: CordonBody | None = None) -> NodeView:
    """What runs there goes on."""
    told = body or CordonBody()
    return open_doors.maintenance.cordon(who, name, told.reason, dry_run=told.dry_run)


@router.post("/nodes/{name}/uncordon", tags=["operators"], summary="Use a node again")
def uncordon(open_doors: Open, who: Who, name: str, body: TryBody | None = None) -> NodeView:
    """Undo cordon and drain."""
    return open_doors.maintenance.uncordon(who, name, dry_run=(body or TryBody()).dry_run)


@router.post("/nodes/{name}/drain", tags=["operators"], summary="Empty a node")
def drain(open_doors: Open, who: Who, name: str, body: CordonBody | None = None) -> DrainView:
    """Cordon it and stop what runs there, with its grace; it waits again and goes on elsewhere."""
    told = body or CordonBody()
    return open_doors.maintenance.drain(who, name, told.reason, dry_run=told.dry_run)


@router.post("/logs/prune", tags=["operators"], summary="Delete logs of work that ended long ago")
def prune_logs(open_doors: Open, who: Who, body: PruneBody | None = None) -> PruneView:
    """What a pass of the rule `logs.keep_days` does by itself every six hours."""
    told = body or PruneBody()
    return open_doors.housekeeping.prune(who, keep_days=told.keep_days, dry_run=told.dry_run)


@router.get("/tenants", tags=["operators"], summary="Tenants")
def tenants(open_doors: Open, who: Who) -> dict[str, list[TenantView]]:
    """All of them; a tenant's key sees itself."""
    return {"tenants": open_doors.operations.tenants(who)}


@router.put("/tenants/{name}", tags=["operators"], summary="Create or change a tenant")
def put_tenant(open_doors: Open, who: Who, name: str, body: TenantBody) -> TenantView:
    """Without storage roots it gets a folder of its own."""
    return open_doors.operations.set_tenant(
        who,
        Tenant(
            name=name,
            display_name=body.display_name,
            queues=tuple(body.queues),
            storage_roots=tuple(body.storage_roots),
            subsidy_excluded=body.subsidy_excluded,
            budget_micro_yuan=-1 if body.budget is None else terms.parsed(terms.micro_yuan, body.budget, "budget"),
        ),
    )


@router.put("/queues/{name}", tags=["operators"], summary="Create or change a queue")
def put_queue(open_doors: Open, who: Who, name: str, body: QueueBody) -> QueueView:
    """Its weight is its share among queues of the same parent; what is left out is as for a new queue."""
    return open_doors.operations.set_queue(who, body.queue(name))


@router.get("/reservations", tags=["park"], summary="Reservations")
def reservations(open_doors: Open, who: Who) -> ReservationList:
    """Nodes kept for someone, past and cancelled ones included."""
    return {"reservations": open_doors.reservations.list(who)}


@router.put("/reservations/{name}", tags=["operators"], summary="Keep nodes for a window of time")
def put_reservation(open_doors: Open, who: Who, name: str, body: ReservationBody) -> ReservationView:
    """What cannot end before the window opens does not start there."""
    fields = body.model_dump(exclude={"nodes", "queues"})
    return open_doors.reservations.add(
        who, Wish(name=name, nodes=tuple(body.nodes), queues=tuple(body.queues), **fields)
    )


@router.delete("/reservations/{name}", tags=["operators"], summary="Cancel a reservation")
def cancel_reservation(open_doors: Open, who: Who, name: str) -> ReservationView:
    """Its nodes are open to everybody again."""
    return open_doors.reservations.cancel(who, name)


@router.get("/rearrangements", tags=["operators"], summary="Moves that would make room")
def rearrangements(open_doors: Open, who: Who, job: str = "") -> RearrangementList:
    """For each step that waits for room only: which leases would move where, and what is lost and gained."""
    return open_doors.defragmentation.look(who, job)


@router.post("/rearrangements", tags=["operators"], summary="Make these moves")
def rearrange(open_doors: Open, who: Who, body: RearrangeBody) -> RearrangementView:
    """What moves stops now, free of charge from its last checkpoint on, and goes on at the place kept for it."""
    return open_doors.defragmentation.apply(who, body.job, body.id)


@router.get("/cycle", tags=["operators"], summary="What the engine knows and would decide now")
def dump_cycle(open_doors: Open, who: Who) -> dict[str, Any]:
    """Snapshot, policy, instant and plan: the file of `shisuan cycle`. Job files and outputs are left out."""
    return open_doors.operations.dump(who)


@router.post("/keys", status_code=201, tags=["operators"], summary="Make a key")
def add_key(open_doors: Open, who: Who, body: KeyBody) -> NewKey:
    """The answer is the only place where its secret is shown."""
    return open_doors.operations.add_key(
        who, tenant=body.tenant, role=body.role, label=body.label, expires_ms=body.expires_ms
    )


@router.get("/keys", tags=["operators"], summary="Keys, without their secrets")
def list_keys(open_doors: Open, who: Who) -> KeyList:
    """Every key ever made."""
    return {"keys": open_doors.operations.list_keys(who)}


@router.delete("/keys/{key_id}", tags=["operators"], summary="Revoke a key")
def revoke_key(open_doors: Open, who: Who, key_id: str) -> KeyView:
    """It opens nothing from now on."""
    return open_doors.operations.revoke_key(who, key_id)
