"""One waiting step in a world that differs a little: would the real plan start more of it?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from scheduler.engine.plan import make_plan
from scheduler.engine.state import State
from scheduler.model.job import JobRecord, Step
from scheduler.model.node import Node
from scheduler.model.plan import Start
from scheduler.model.policy import Policy
from scheduler.model.queue import Queue, Reservation

NO_QUEUES: Mapping[str, Queue] = {}


class Trials:
    """Plans on a state of its own; each question leaves it as it was."""

    def __init__(self, state: State, job_id: str, step: str, now_ms: int, policy: Policy) -> None:
        self.world = State(state.snapshot(), state.shapes.features)
        self.record = state.jobs[job_id]
        self.step = next(s for s in self.record.job.steps if s.name == step)
        self.now_ms = max(now_ms, state.at_ms)
        self.policy = policy
        self.base = self._started(self.record, policy, NO_QUEUES)

    def starts(
        self,
        *,
        record: JobRecord | None = None,
        step: Step | None = None,
        policy: Policy | None = None,
        queues: Mapping[str, Queue] = NO_QUEUES,
    ) -> bool:
        """Whether more of the step starts with these in place of the real ones."""
        record = record or self.record
        if step is not None:
            steps = tuple(step if s.name == step.name else s for s in record.job.steps)
            record = replace(record, job=replace(record.job, steps=steps))
        return self._started(record, policy or self.policy, queues) > self.base

    def starts_without(self, lease_ids: Iterable[str]) -> bool:
        """Whether it does once these leases have ended."""
        gone = [self.world.leases[lease_id] for lease_id in sorted(lease_ids)]
        for record in gone:
            self.world.leave(record.lease)
        try:
            return self.starts()
        finally:
            for record in gone:
                self.world.enter(record)

    def starts_with_nodes(self, nodes: Iterable[Node]) -> bool:
        """Whether it does with these nodes in place of those of the same names, or in addition."""
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

    def starts_with_reservation(self, reservation: Reservation) -> bool:
        """Whether it does with a reservation like this."""
        before = self.world.reservations[reservation.name]
        self.world.put_reservation(reservation)
        try:
            return self.starts()
        finally:
            self.world.put_reservation(before)

    def _started(self, record: JobRecord, policy: Policy, queues: Mapping[str, Queue]) -> int:
        plan = make_plan(self.world, self.now_ms, policy, {record.job.id: record}, queues)
        key = (self.record.job.id, self.step.name)
        leases = (a.lease for a in plan.actions if isinstance(a, Start))
        return sum(len(lease.attempts) for lease in leases if (lease.job_id, lease.step) == key)
