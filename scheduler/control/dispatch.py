"""From a lease to what the workers are told: one LeaseOrder per rank, each attempt expanded by its planner."""

from __future__ import annotations

from pipelines import plan
from scheduler.control.log_rule import LogRule
from scheduler.control.tokens import Tokens
from scheduler.engine import Engine
from scheduler.model.changed import replace
from scheduler.model.job import Job, Step, StepRecord
from scheduler.model.lease import Lease, parse_attempt_id
from scheduler.model.order import LeaseOrder, TaskOrder
from scheduler.queueing.lifecycle import find_step
from scheduler.queueing.tasks import stale_before


class Dispatch:
    """Builds orders. The same lease always gives the same work, so that an order may be repeated."""

    def __init__(self, tokens: Tokens, *, token_ms: int, logs: LogRule | None = None) -> None:
        self._tokens = tokens
        self._token_ms = token_ms
        self._logs = logs or LogRule()

    def orders(self, engine: Engine, lease: Lease, now_ms: int) -> tuple[LeaseOrder, ...]:
        """One order per rank. Raises ValueError, KeyError or TypeError when a step's spec cannot be expanded."""
        record = engine.job(lease.job_id)
        if record is None:
            raise KeyError(f"lease {lease.id} belongs to no known job")
        step, done = find_step(record, lease.step)
        tenant = engine.tenant(lease.tenant)
        if tenant is None:
            raise KeyError(f"lease {lease.id} belongs to no known tenant")
        roots = tenant.storage_roots
        tasks = tuple(self._task(record.job, step, done, attempt, roots, now_ms) for attempt in lease.attempts)
        simulated = _simulated(engine, lease)
        return tuple(
            LeaseOrder(
                lease_id=lease.id,
                tenant=lease.tenant,
                node=held.node,
                submitted_ms=record.job.submitted_ms,
                rank=rank,
                ranks=len(lease.allocations),
                devices=held.devices,
                simulated=not simulated.isdisjoint(held.devices),
                cpu_milli=held.cpu_milli,
                memory_mib=held.memory_mib,
                scratch_mib=held.scratch_mib,
                card_milli=held.card_milli,
                kind=step.kind.value,
                lane=step.lane,
                warm_key=step.warm_key,
                roots=roots,
                log_mib=self._logs.limit_mib,
                tasks=tasks,
            )
            for rank, held in enumerate(lease.allocations)
        )

    def _task(  # noqa: PLR0917 (each is a different thing)
        self, job: Job, step: Step, done: StepRecord, attempt_id: str, roots: tuple[str, ...], now_ms: int
    ) -> TaskOrder:
        _, _, index, number = parse_attempt_id(attempt_id)
        order = plan.order(job, step, index, number)
        life_ms = step.timeout_ms + step.grace_ms if step.timeout_ms else self._token_ms
        token = self._tokens.make(attempt_id, now_ms + max(life_ms, self._token_ms))
        kept = self._logs.place(roots, job, order.output_dir, attempt_id)
        stale = stale_before(done, index) if done.redone else 0
        return replace(order, token=token, stale_before=stale, kept_log=kept)


def _simulated(engine: Engine, lease: Lease) -> frozenset[str]:
    """Devices of the lease that exist on paper only."""
    nodes = (engine.node(held.node) for held in lease.allocations if held.devices)
    paper = [device.id for node in nodes if node is not None for device in node.devices if device.simulated]
    return frozenset(paper).intersection(device for held in lease.allocations for device in held.devices)
