"""The smallest changes that would start a waiting step now. Each one returned has been tried on the real plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from scheduler.engine.plan import make_plan
from scheduler.engine.state import State
from scheduler.model.job import JobRecord, Step
from scheduler.model.lease import LeaseRecord
from scheduler.model.node import Node
from scheduler.model.plan import Start
from scheduler.model.policy import Policy
from scheduler.model.queue import Queue

NODES_MOST = 64
"""More nodes than this are not an answer anybody can use."""
SMALLER = {
    "cpu_milli": "vCPU (thousandths)", "memory_mib": "MiB of memory", "scratch_mib": "MiB of scratch", "cards": "cards",
    "card_milli": "thousandths of a card", "card_memory_mib": "MiB on each card",
}  # fmt: skip
ENDED = -1


class Trials:
    """One waiting step, and what the plan would do with it in a world that differs a little."""

    def __init__(self, state: State, job_id: str, step: str, now_ms: int, policy: Policy) -> None:
        self.world = State(state.snapshot(), state.shapes.features)
        self.record = state.jobs[job_id]
        self.step = next(s for s in self.record.job.steps if s.name == step)
        self.now_ms = max(now_ms, state.at_ms)
        self.policy = policy
        self.base = self._started()

    def starts(
        self,
        *,
        job: JobRecord | None = None,
        step: Step | None = None,
        policy: Policy | None = None,
        queues: Mapping[str, Queue] | None = None,
    ) -> bool:
        """Whether more of the step starts in a world with these in place of the real ones."""
        record = job or self.record
        if step is not None:
            steps = tuple(step if s.name == step.name else s for s in record.job.steps)
            record = replace(record, job=replace(record.job, steps=steps))
        return self._started(record, policy, queues or {}) > self.base

    def starts_without(self, leases: Iterable[LeaseRecord]) -> bool:
        """Whether it would if these leases had ended."""
        gone = list(leases)
        for record in gone:
            self.world.leave(record.lease)
        try:
            return self.starts()
        finally:
            for record in gone:
                self.world.enter(record)

    def starts_with_nodes(self, nodes: Iterable[Node]) -> bool:
        """Whether it would with these nodes, in place of those of the same names or in addition."""
        new, known = list(nodes), self.world.nodes
        before = [known[node.name].node for node in new if node.name in known]
        added = [node.name for node in new if node.name not in known]
        for node in new:
            self.world.put_node(node)
        try:
            return self.starts()
        finally:
            for name in added:
                self.world.drop_node(name)
            for node in before:
                self.world.put_node(node)

    def _started(
        self, record: JobRecord | None = None, policy: Policy | None = None, queues: Mapping[str, Queue] | None = None
    ) -> int:
        jobs = {record.job.id: record} if record is not None else {}
        plan = make_plan(self.world, self.now_ms, policy or self.policy, jobs, queues or {})
        key = (self.record.job.id, self.step.name)
        leases = (a.lease for a in plan.actions if isinstance(a, Start))
        return sum(len(lease.attempts) for lease in leases if (lease.job_id, lease.step) == key)
