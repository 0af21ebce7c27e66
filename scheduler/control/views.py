"""How records look from outside: plain JSON values, the same for the API, the page and the CLI."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from scheduler.control import measured
from scheduler.control.deadline_shapes import KeptView, SlotView
from scheduler.control.node_shapes import CutView, DeviceView, NodeView
from scheduler.control.observe import Progress
from scheduler.control.shapes import (
    AttemptView,
    JobView,
    KeyView,
    LeaseView,
    QueueView,
    ReasonView,
    StepView,
    TenantView,
    UsageView,
    WaitView,
)
from scheduler.model.job import JobRecord, Slot, Step, StepRecord, Track
from scheduler.model.key import ApiKey
from scheduler.model.lease import AttemptRecord, Lease, LeaseRecord, parse_attempt_id
from scheduler.model.money import yuan
from scheduler.model.node import CardCut, Device, Node
from scheduler.model.plan import Reason, Wait
from scheduler.model.queue import Amounts, Queue, Tenant
from scheduler.model.usage import UsageRecord
from scheduler.queueing.health import faults_milli

Running = Mapping[tuple[str, str], Sequence[Progress]]
"""Progress of what runs, by (job id, step name)."""


def running_progress(progress: Mapping[str, Progress]) -> dict[tuple[str, str], list[Progress]]:
    """Group the memory's progress by job and step."""
    grouped: dict[tuple[str, str], list[Progress]] = {}
    for attempt, value in list(progress.items()):
        job_id, step, _, _ = parse_attempt_id(attempt)
        grouped.setdefault((job_id, step), []).append(value)
    return grouped


def job(record: JobRecord, running: Running) -> JobView:
    """A job and its steps."""
    asked = record.job
    pairs = list(zip(asked.steps, record.steps, strict=True))
    done = sum(_step_done_milli(p, running.get((asked.id, s.name), ())) for s, p in pairs)
    return {
        "id": asked.id,
        "name": asked.name,
        "kind": asked.kind.value,
        "tenant": asked.tenant,
        "queue": asked.queue,
        "priority": asked.priority,
        "state": record.state.value,
        "reason": record.reason,
        "submitted_ms": asked.submitted_ms,
        "started_ms": record.started_ms,
        "finished_ms": record.finished_ms,
        "deadline_ms": asked.deadline_ms,
        "slot": slot(asked.slot),
        "kept": kept(asked.tracks),
        "deadline_permille": asked.promise_permille,
        "steps": [_step(s, p, running.get((asked.id, s.name), ())) for s, p in pairs],
        "progress_milli": done // max(1, sum(s.count for s in asked.steps)),
    }


def slot(found: Slot | None) -> SlotView | None:
    """What was promised."""
    if found is None:
        return None
    return {
        "model": found.model,
        "ranks": found.ranks,
        "nodes": sorted(set(found.nodes)),
        "start_ms": found.start_ms,
        "end_ms": found.end_ms,
    }


def kept(tracks: Sequence[Track]) -> list[KeptView]:
    """What was promised to a film, by step in the order in which they begin."""
    steps: dict[str, list[Track]] = {}
    for track in sorted(tracks, key=lambda track: (track.start_ms, track.end_ms)):
        steps.setdefault(track.step, []).append(track)
    return [
        {
            "step": name,
            "tasks": sum(track.tasks * track.copies for track in mine),
            "places": max(sum(t.copies for t in mine if t.start_ms <= at.start_ms < t.end_ms) for at in mine),
            "nodes": sorted({track.node for track in mine}),
            "start_ms": mine[0].start_ms,
            "end_ms": max(track.end_ms for track in mine),
        }
        for name, mine in steps.items()
    ]


def _step(step: Step, record: StepRecord, running: Sequence[Progress]) -> StepView:
    return {
        "name": step.name,
        "kind": step.kind.value,
        "count": step.count,
        "ranks": step.ranks,
        "needs": list(step.needs),
        "waiting": len(record.waiting),
        "running": len(record.running),
        "succeeded": len(record.succeeded),
        "failed": len(record.failed),
        "cancelled": len(record.cancelled),
        "progress_milli": _step_done_milli(record, running) // max(1, step.count),
        "eta_ms": eta_ms(record, running),
        "message": running[-1].message if running else "",
    }


def _step_done_milli(record: StepRecord, running: Sequence[Progress]) -> int:
    """Thousandths of tasks done: whole ones, and parts of what runs."""
    return 1000 * len(record.succeeded) + sum(p.milli for p in running[: len(record.running)])


def eta_ms(record: StepRecord, running: Sequence[Progress]) -> int:
    """Time until the step's last task is done: its tasks' mean run time, as many side by side as run now.

    What runs is counted by the progress it reports. 0 while no task has succeeded yet or none runs.
    """
    slots = len(record.running)
    if not slots or not record.run_ms_mean:
        return 0
    parts = [p.milli for p in running[:slots]]
    left_milli = 1000 * (slots - len(parts)) + sum(1000 - milli for milli in parts)
    rounds = -(-len(record.waiting) // slots)
    # What waits follows as slots come free, one by one: their mean time left counts. Without it, the slowest ends last.
    own = record.run_ms_mean * left_milli // (1000 * slots) if record.waiting.spans else _slowest(record, parts, slots)
    return max(1, own + rounds * record.run_ms_mean)


def _slowest(record: StepRecord, parts: Sequence[int], slots: int) -> int:
    least = min(parts) if len(parts) == slots else 0
    return record.run_ms_mean * (1000 - least) // 1000


def attempt(record: AttemptRecord, progress: Progress | None, node: str) -> AttemptView:
    """One try of one task."""
    return {
        "id": record.id,
        "job_id": record.job_id,
        "step": record.step,
        "index": record.index,
        "number": record.number,
        "state": record.state.value,
        "node": node,
        "lease_id": record.lease_id,
        "started_ms": record.started_ms,
        "finished_ms": record.finished_ms,
        "exit_code": record.exit_code,
        "reason": record.reason,
        "outputs": list(record.outputs),
        "facts": record.facts,
        "checkpoint_ms": record.checkpoint_ms,
        "progress_milli": 1000 if record.state.value == "succeeded" else progress.milli if progress else 0,
        "message": progress.message if progress else "",
        "measured": measured.view(record.measured) if record.measured is not None else None,
    }


def lease(record: LeaseRecord) -> LeaseView:
    """Who holds what, since when."""
    held = record.lease
    return {
        "id": held.id,
        "job_id": held.job_id,
        "step": held.step,
        "tenant": held.tenant,
        "queue": held.queue,
        "granted_ms": held.granted_ms,
        "closed_ms": record.closed_ms,
        "stopping": record.stopping,
        "attempts": list(held.attempts),
        "allocations": [
            {
                "node": a.node,
                "devices": list(a.devices),
                "card_milli": a.card_milli,
                "cpu_milli": a.cpu_milli,
                "memory_mib": a.memory_mib,
                "scratch_mib": a.scratch_mib,
            }
            for a in held.allocations
        ],
    }


def node(record: Node, leases: Iterable[LeaseRecord], now_ms: int) -> NodeView:
    """A node, its devices, what is free of it now, and what speaks against it."""
    faults = faults_milli(record, now_ms)
    held = [a for r in leases for a in r.lease.allocations if a.node == record.name]
    holders = {d: r.lease for r in leases for a in r.lease.allocations if a.node == record.name for d in a.devices}
    return {
        "name": record.name,
        "state": record.state.value,
        "state_reason": record.state_reason,
        "lane": record.lane.value,
        "rack": record.rack,
        "labels": dict(record.labels),
        "taints": list(record.taints),
        "cpu_milli": record.cpu_milli,
        "memory_mib": record.memory_mib,
        "scratch_mib": record.scratch_mib,
        "cpu_milli_free": record.cpu_milli - sum(a.cpu_milli for a in held),
        "memory_mib_free": record.memory_mib - sum(a.memory_mib for a in held),
        "simulated": any(d.simulated for d in record.devices),
        "faults_milli": faults,
        "fault_reason": record.fault_reason if faults else "",
        "fault_ms": record.faults_ms if faults else 0,
        "layout": record.layout,
        "layouts": [layout.name for layout in record.layouts],
        "cuts": [_cut(cut) for cut in record.cuts],
        "devices": [_device(d, holders) for d in record.devices],
    }


def _cut(record: CardCut) -> CutView:
    return {
        "card": record.card,
        "layout": record.name or ", ".join(f"{place.profile}@{place.start}" for place in record.layout) or "empty",
        "since_ms": record.since_ms,
        "ended_ms": record.ended_ms,
        "problem": record.problem,
    }


def _device(record: Device, holders: Mapping[str, Lease]) -> DeviceView:
    holder = holders.get(record.id)
    return {
        "id": record.id,
        "index": record.index,
        "model": record.model,
        "kind": record.kind.value,
        "profile": record.profile,
        "parent": record.parent,
        "memory_mib": record.memory_mib,
        "island": record.island,
        "simulated": record.simulated,
        "health": record.health.value,
        "health_reason": record.health_reason,
        "job_id": holder.job_id if holder else "",
        "lease_id": holder.id if holder else "",
    }


def wait(record: Wait) -> WaitView:
    """Why a step's tasks do not start now."""
    return {
        "job_id": record.job_id,
        "step": record.step,
        "tasks": record.tasks,
        "position": record.position,
        "reasons": [_reason(r) for r in record.reasons],
    }


def _reason(record: Reason) -> ReasonView:
    said: ReasonView = {"kind": record.kind.value, "resource": record.resource, "message": record.message}
    if record.until_ms:
        said["until_ms"] = record.until_ms
    return said


def usage(record: UsageRecord) -> UsageView:
    """A sealed interval, with every field spelled out."""
    return {
        "id": record.id,
        "lease_id": record.lease_id,
        "job_id": record.job_id,
        "step": record.step,
        "tenant": record.tenant,
        "queue": record.queue,
        "start_ms": record.start_ms,
        "end_ms": record.end_ms,
        "bucket": record.bucket.value,
        "free_reason": record.free_reason,
        "devices": list(record.devices),
        "quantities": [{"sku": q.sku.value, "model": q.model, "amount": q.amount} for q in record.quantities],
        "simulated": record.simulated,
        "purpose": record.purpose,
        "evidence": record.evidence,
    }


def key(record: ApiKey) -> KeyView:
    """A key without its secret."""
    return {
        "id": record.id,
        "tenant": record.tenant,
        "role": record.role.value,
        "label": record.label,
        "created_ms": record.created_ms,
        "expires_ms": record.expires_ms,
        "revoked_ms": record.revoked_ms,
    }


def queue(record: Queue, waiting: int, running: int) -> QueueView:
    """A queue; the counts are tasks."""
    return {
        "name": record.name,
        "parent": record.parent,
        "weight": record.weight,
        "guaranteed": {name: amount for name, amount in _amounts(record.guaranteed).items() if amount},
        "limit": _amounts(record.limit),
        "lends": _amounts(record.lends),
        "jobs_max": record.jobs_max,
        "waiting": waiting,
        "running": running,
    }


def _amounts(amounts: Amounts) -> dict[str, int]:
    names = ("cpu_milli", "memory_mib", "card_milli", "mig_milli")
    return {name: amount for name, amount in zip(names, amounts, strict=True) if amount >= 0}


def tenant(record: Tenant) -> TenantView:
    """A tenant."""
    return {
        "name": record.name,
        "display_name": record.display_name,
        "queues": list(record.queues),
        "storage_roots": list(record.storage_roots),
        "subsidy_excluded": record.subsidy_excluded,
        "budget": None if record.budget_micro_yuan < 0 else yuan(record.budget_micro_yuan),
    }
