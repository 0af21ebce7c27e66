"""The engine: placement and queueing together behind one small interface."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from scheduler.engine import apply as facts
from scheduler.engine import what
from scheduler.engine.admission import Admission, admit
from scheduler.engine.defrag import Proposal, proposals
from scheduler.engine.outlook import Question, question
from scheduler.engine.plan import drafted, make_plan
from scheduler.engine.recut import could_cut, cutting
from scheduler.engine.relayout import could_lay_out
from scheduler.engine.state import State
from scheduler.model.errors import NotFound
from scheduler.model.event import (
    Event,
    JobCancelled,
    JobHeld,
    JobReleased,
    JobRetried,
    LeaseGranted,
    LeaseStopping,
    NodeSeen,
    SeatKept,
    StartsPromised,
)
from scheduler.model.job import Job, JobRecord
from scheduler.model.lease import AttemptRecord, LeaseRecord, number_of
from scheduler.model.node import Node, NodeState
from scheduler.model.plan import (
    Change,
    Convert,
    GiveUpRecut,
    Keep,
    KeepStarts,
    Plan,
    Preempt,
    Reason,
    Recut,
    Start,
    Stop,
    Wait,
)
from scheduler.model.policy import Policy
from scheduler.model.queue import Queue, Reservation, Tenant
from scheduler.model.snapshot import Changes, Snapshot
from scheduler.placement.fit import Demand, demand_of
from scheduler.placement.why import never
from scheduler.queueing import lifecycle

NO_FEATURES: Mapping[str, frozenset[str]] = {}


def moving(node: Node, action: Convert, now_ms: int) -> Node:
    """The node from the decision on: it takes no work until it is in its new lane."""
    reason = f"moving to lane {action.lane.value}"
    return replace(node, state=NodeState.CORDONED, state_reason=reason, moving_to=action.lane, moving_since_ms=now_ms)


class Engine:
    """State that grows by events and a plan that is a pure function of it.

    After any events, ``plan`` equals that of ``Engine.from_snapshot(engine.snapshot())`` byte for byte. There is no
    clock, no randomness and no I/O inside. Not thread-safe.
    """

    def __init__(self, state: State) -> None:
        self._state = state

    @classmethod
    def from_snapshot(cls, snapshot: Snapshot, *, features: Mapping[str, frozenset[str]] = NO_FEATURES) -> Engine:
        """An engine that stands where ``snapshot`` was taken. ``features``: the catalogue's features per card model."""
        return cls(State(snapshot, features))

    @property
    def now_ms(self) -> int:
        """The largest instant of any event so far; plans are never made for an earlier one."""
        return self._state.at_ms

    def apply(self, event: Event) -> None:
        """Take in one recorded fact. A fact already known changes nothing.

        Raises NotFound or Conflict for one that cannot be, with the state as it was.
        """
        facts.apply(self._state, event)

    def check(self, event: JobHeld | JobReleased | JobCancelled | JobRetried) -> JobRecord:
        """The job's record as this verb would leave it; the state is untouched. Raises NotFound or Conflict."""
        return facts.verb(self._state, event)

    def plan(self, now_ms: int, policy: Policy, *, waits: bool = True) -> Plan:
        """What to do now; changes nothing. Without ``waits`` the plan does the same and says of nobody why he waits."""
        return make_plan(self._state, now_ms, policy, waits=waits)

    def events_of(self, plan: Plan) -> tuple[Event, ...]:
        """The facts to record and apply when ``plan`` is carried out, in its order."""
        events: list[Event] = []
        for action in plan.actions:
            if isinstance(action, Start):
                events.append(LeaseGranted(at_ms=plan.now_ms, lease=action.lease))
            elif isinstance(action, Stop | Preempt):
                other = action.for_job if isinstance(action, Preempt) else ""
                place = action.place if isinstance(action, Preempt) else None
                stop = LeaseStopping(at_ms=plan.now_ms, lease_id=action.lease_id, reason=action.reason, for_job=other)
                events.append(replace(stop, place=place) if place is not None else stop)
            elif isinstance(action, Keep):
                events.append(SeatKept(at_ms=plan.now_ms, job_id=action.job_id, step=action.step, seat=action.seat))
            elif isinstance(action, KeepStarts):
                events.append(StartsPromised(at_ms=plan.now_ms, starts=action.starts))
            elif isinstance(action, Convert):
                node = moving(self._state.nodes[action.node].node, action, plan.now_ms)
                events.append(NodeSeen(at_ms=plan.now_ms, node=node))
            elif isinstance(action, Recut | GiveUpRecut):
                node = cutting(self._state.nodes[action.node].node, action, plan.now_ms)
                events.append(NodeSeen(at_ms=plan.now_ms, node=node))
        return tuple(events)

    def take_changes(self) -> Changes:
        """Records touched since the last call: closed leases and their last attempts appear here one last time."""
        return self._state.take_changes()

    def snapshot(self) -> Snapshot:
        """The records as values: every job, open leases and their attempts. Equals the store's ``load``."""
        return self._state.snapshot()

    def explain(self, job_id: str, now_ms: int, policy: Policy) -> tuple[Wait, ...]:
        """Why each step of the job that has waiting tasks does not start them all now. Raises NotFound."""
        if job_id not in self._state.jobs:
            raise NotFound(f"no job {job_id!r}")
        return tuple(wait for wait in self.plan(now_ms, policy).waits if wait.job_id == job_id)

    def changes(self, job_id: str, step: str, now_ms: int, policy: Policy) -> tuple[Change, ...]:
        """Smallest changes that would each start the step's next task now; none known: it must wait. Raises NotFound.

        Takes as long as some dozens of plans: for people, not for the cycle.
        """
        record = self._state.jobs.get(job_id)
        if record is None:
            raise NotFound(f"no job {job_id!r}")
        _, done = lifecycle.find_step(record, step)
        return what.changes(self._state, job_id, step, now_ms, policy) if done.waiting.spans else ()

    def rearrangements(self, now_ms: int, policy: Policy, job_id: str = "") -> tuple[Proposal, ...]:
        """Moves of running leases that would each let a step start that waits for room; ``job_id``: of this job only.

        Nothing is moved: see :attr:`Proposal.actions`. For people, not for the cycle. Raises NotFound.
        """
        if job_id and job_id not in self._state.jobs:
            raise NotFound(f"no job {job_id!r}")
        draft = drafted(self._state, max(now_ms, self._state.at_ms), policy, explain=True)
        return tuple(proposals(draft.trial, (*draft.left_over, *draft.unseen), job_id))

    def outlook(self, job_id: str, step: str, now_ms: int, policy: Policy) -> Question | None:
        """When is the step's next task expected to start? None: nobody can say. Raises NotFound."""
        record = self._state.jobs.get(job_id)
        if record is None:
            raise NotFound(f"no job {job_id!r}")
        return question(self._state, record, step, now_ms, policy)

    def expected(self, job: Job, now_ms: int, policy: Policy) -> Question | None:
        """When would a job's first step be expected to start, were it submitted now? None: nobody can say."""
        job = replace(job, id=self.next_job_id(), submitted_ms=now_ms)
        return question(self._state, lifecycle.submitted(job, held=False), job.steps[0].name, now_ms, policy)

    def admit(self, job: Job, now_ms: int, policy: Policy, *, changes: bool = False) -> Admission:
        """Can the deadline of a job be promised, were it submitted now? ``changes``: and if not, what would do.

        Without ``changes`` it takes as long as a plan, with them as some dozens.
        """
        job = replace(job, id=self.next_job_id(), submitted_ms=now_ms, slot=None, tracks=())
        return admit(self._state, lifecycle.submitted(job, held=False), now_ms, policy, changes=changes)

    def promised(self, job: Job, now_ms: int, policy: Policy) -> Job:
        """The job as it is to be submitted: with a slot or tracks if it has a deadline that can be promised."""
        found = self.admit(job, now_ms, policy) if job.deadline_ms else Admission()
        if not found.is_yes:
            return job
        return replace(job, slot=found.slot, tracks=found.tracks, promise_permille=found.permille)

    def impossible(self, job: Job, *, recut: bool = False) -> tuple[tuple[str, Reason], ...]:
        """``(step name, reason)`` for each step that no node, even empty, healthy and uncordoned, could ever run.

        ``recut``: not even with its cards cut anew.

        Empty while no node has joined: nothing is known then.
        """
        nodes = [view.node for view in self._state.nodes.values()]
        if not nodes:
            return ()
        found = (
            (
                s.name,
                never(nodes, demand_of(s, job.tenant), s.ranks_min or s.ranks, self._state.shapes.features, s.together),
            )
            for s in job.steps
            if not (recut and self._could_cut(demand_of(s, job.tenant)))
        )
        return tuple((name, reason) for name, reason in found if reason is not None)

    def _could_cut(self, demand: Demand) -> bool:
        nodes, features = [view.node for view in self._state.nodes.values()], self._state.shapes.features
        if demand.resources.mig_profile and any(could_cut(node, demand, features) for node in nodes):
            return True
        return any(could_lay_out(node, demand, features) for node in nodes)

    def trial(self, job: Job, now_ms: int, policy: Policy) -> Plan:
        """What would start now, and what would wait and why, if ``job`` were submitted: its own part of the plan.

        The state is untouched. The job's id is replaced by the next free one.
        """
        job = replace(job, id=self.next_job_id())
        plan = make_plan(self._state, now_ms, policy, jobs={job.id: lifecycle.submitted(job, held=False)})
        return Plan(
            now_ms=plan.now_ms,
            actions=tuple(a for a in plan.actions if isinstance(a, Start) and a.lease.job_id == job.id),
            waits=tuple(wait for wait in plan.waits if wait.job_id == job.id),
        )

    def next_job_id(self) -> str:
        """The id the next submitted job must carry."""
        return f"j{self._state.next_job}"

    def job(self, job_id: str) -> JobRecord | None:
        """A job, finished ones included."""
        return self._state.jobs.get(job_id)

    def jobs(self) -> Iterable[JobRecord]:
        """All jobs in order of submission."""
        return self._state.jobs.values()

    def lease(self, lease_id: str) -> LeaseRecord | None:
        """An open lease."""
        return self._state.leases.get(lease_id)

    def leases(self) -> Iterable[LeaseRecord]:
        """Open leases in order of granting."""
        return self._state.leases.values()

    def stopping(self) -> Iterable[LeaseRecord]:
        """Open leases that are being stopped, in order of granting."""
        return tuple(self._state.leases[lease_id] for lease_id in sorted(self._state.stopping, key=number_of))

    def leases_on(self, node: str) -> Iterable[LeaseRecord]:
        """Open leases with a part on this node, in order of granting."""
        return tuple(self._state.leases[lease_id] for lease_id in self._state.leases_of_node.get(node, ()))

    def attempt(self, attempt_id: str) -> AttemptRecord | None:
        """An attempt of an open lease."""
        return self._state.attempts.get(attempt_id)

    def nodes(self) -> Iterable[Node]:
        """All nodes, lost ones included."""
        return (view.node for view in self._state.nodes.values())

    def node(self, name: str) -> Node | None:
        """The node of this name."""
        return self._state.shapes.node(name)

    def queues(self) -> Iterable[Queue]:
        """All queues."""
        return self._state.queues.values()

    def tenant(self, name: str) -> Tenant | None:
        """The tenant of this name."""
        return self._state.tenants.get(name)

    def reservations(self) -> Iterable[Reservation]:
        """All reservations, cancelled and past ones included."""
        return self._state.reservations.values()

    def tenants(self) -> Iterable[Tenant]:
        """All tenants."""
        return self._state.tenants.values()
