"""The engine's memory: the records, and indexes over them that make a plan cheap.

Every index is a function of the records alone: a state built from a snapshot equals the one that grew by events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from scheduler.engine.queued import Queued
from scheduler.engine.touched import Touched, attempts_in_order, by_name, jobs_in_order, leases_in_order
from scheduler.model.job import Job, JobRecord
from scheduler.model.lease import Allocation, AttemptRecord, Lease, LeaseRecord, number_of
from scheduler.model.node import Health, Node
from scheduler.model.queue import Amounts, Queue, Reservation, Tenant
from scheduler.model.snapshot import Changes, Snapshot
from scheduler.placement.fit import Demand, Features, demand_of
from scheduler.placement.shapes import Shapes
from scheduler.placement.view import NodeView, totals
from scheduler.placement.wanted import wanted_of
from scheduler.queueing.calibration import Calibration
from scheduler.queueing.durations import Durations
from scheduler.queueing.lifecycle import find_step
from scheduler.queueing.order import NONE, amounts_of, minus, plus, times
from scheduler.queueing.quota import Share
from scheduler.queueing.usage import add

BLOCK, BLOCKS_JOBS = 64, 1_024
"""Placement prepares for the demand of the last so many jobs, looked at again after so many new ones."""
K = TypeVar("K")


class State:
    """Records by key; open leases and their attempts only. Changed through the ``put_*`` methods alone."""

    faulty: set[str]
    """Nodes with faults, forgotten or not."""
    cut: set[str]  # nodes with cards that were cut anew, or are being cut
    laid: set[str]  # nodes that can be put into layouts as a whole
    rules: int = 0
    """The engine version whose facts are applied; 0: this one."""

    def __init__(self, snapshot: Snapshot, features: Features) -> None:
        self.shapes = Shapes(features)
        self.at_ms = snapshot.at_ms
        self.next_job, self.next_lease = snapshot.next_job, snapshot.next_lease
        self.queues = {queue.name: queue for queue in snapshot.queues}
        self.uses = {use.name: use for use in snapshot.uses}
        self.reservations = {reservation.name: reservation for reservation in snapshot.reservations}
        self.tenants = {tenant.name: tenant for tenant in snapshot.tenants}
        self.jobs: dict[str, JobRecord] = {}
        self.leases: dict[str, LeaseRecord] = {}
        self.attempts = {attempt.id: attempt for attempt in snapshot.attempts}
        self.totals: Amounts = totals(snapshot.nodes)
        self.active: dict[str, JobRecord] = {}
        """Jobs that are not final, in order of submission: the only ones a plan looks at."""
        self.stopping: set[str] = set()
        """Open leases that are being stopped."""
        self.leases_of_job: dict[str, set[str]] = {}
        self.leases_of_step: dict[tuple[str, str], int] = {}
        """Open leases per job and step; absent means none."""
        self.leases_of_node: dict[str, dict[str, None]] = {}
        """Open leases with a part on a node, in order of granting; absent means none."""
        self.held: dict[str, Amounts] = {}
        """What each queue holds now; absent means nothing."""
        self.held_since: dict[str, Amounts] = {}
        """Sum over each queue's open leases of amounts x the instant of their grant: tells how long it has held."""
        self.kinds_held: dict[str, Amounts] = {}
        """Likewise by kind of job."""
        self.shapes_held: Counter[Demand] = Counter()
        """Open leases by the demand of one rank."""
        self.seats: Counter[str] = Counter()
        """Licence seats in use."""
        self.asks: dict[str, tuple[tuple[Demand, Amounts], ...]] = {}
        """By job that is not final, per step: what one rank asks for, what a lease holds; filled when asked."""
        self.queued: dict[str, Queued] = {}
        """By job that is not final, what of it waits, as of a version of its record; filled by plans."""
        self.durations = Durations()
        """What finished tasks teach about those that have not."""
        self.calibration = Calibration()
        """How right forecasts and promises were."""
        self.seated = {record.job.id for record in snapshot.jobs if any(step.seats for step in record.steps)}
        """Jobs for which seats are kept, and some for which none are any more."""
        self.promised = {record.job.id for record in snapshot.jobs if any(step.promised for step in record.steps)}
        """Jobs to which starts are promised, and some to which none are any more."""
        self.touched, self._block = Touched(), -1
        """Number of the last job whose demand placement knows; -1: the jobs are still being read."""
        for job in snapshot.jobs:
            self.put_job(job)
        self._describe(snapshot.nodes)
        self._fill(snapshot.leases)
        self._block = 0
        self._learn_demand()
        self.touched = Touched()

    def asks_of(self, job: Job) -> tuple[tuple[Demand, Amounts], ...]:
        """What each step of the job asks for; kept for jobs as they were submitted."""
        record = self.active.get(job.id)
        if record is None or record.job is not job:
            return _asks(job)
        known = self.asks.get(job.id)
        if known is None:
            known = self.asks[job.id] = _asks(job)
        return known

    @property
    def nodes(self) -> Mapping[str, NodeView]:
        """All nodes and what is free on them now."""
        return self.shapes.nodes

    def snapshot(self) -> Snapshot:
        """All records: every job ever submitted, open leases and their attempts."""
        return Snapshot(
            at_ms=self.at_ms,
            next_job=self.next_job,
            next_lease=self.next_lease,
            queues=by_name(self.queues.values()),
            uses=by_name(self.uses.values()),
            reservations=by_name(self.reservations.values()),
            tenants=by_name(self.tenants.values()),
            nodes=by_name(view.node for view in self.nodes.values()),
            jobs=jobs_in_order(self.jobs.values()),
            leases=leases_in_order(self.leases.values()),
            attempts=attempts_in_order(self.attempts.values()),
        )

    def take_changes(self) -> Changes:
        """What was touched since the last call."""
        touched, self.touched = self.touched, Touched()
        return Changes(
            at_ms=self.at_ms,
            next_job=self.next_job,
            next_lease=self.next_lease,
            queues=by_name(touched.queues.values()),
            uses=by_name(touched.uses.values()),
            reservations=by_name(touched.reservations.values()),
            tenants=by_name(touched.tenants.values()),
            nodes=by_name(touched.nodes.values()),
            jobs=jobs_in_order(touched.jobs.values()),
            leases=leases_in_order(touched.leases.values()),
            attempts=attempts_in_order(touched.attempts.values()),
        )

    def put_queue(self, queue: Queue) -> None:
        """A queue was created or changed."""
        self.queues[queue.name] = self.touched.queues[queue.name] = queue

    def put_reservation(self, reservation: Reservation) -> None:
        """A reservation was made, changed or cancelled."""
        self.reservations[reservation.name] = self.touched.reservations[reservation.name] = reservation

    def put_tenant(self, tenant: Tenant) -> None:
        """A tenant was created or changed."""
        self.tenants[tenant.name] = self.touched.tenants[tenant.name] = tenant

    def put_node(self, node: Node) -> None:
        """A node joined or changed. Devices it no longer reports stay, quarantined, while a lease holds them."""
        before = self.nodes.get(node.name)
        if before is not None:
            node = _keep_leased(node, before)
            if node == before.node:
                return
            self.totals = minus(self.totals, totals((before.node,)))
        self.touched.nodes[node.name] = node
        self._mark(node)
        self.shapes.set_node(node)
        self.totals = plus(self.totals, totals((node,)))

    def put_job(self, record: JobRecord) -> None:
        """A job is new or changed."""
        key = record.job.id
        before = self.jobs.get(key)
        self.durations.put(before, record)
        self.calibration.put(before, record)
        self.jobs[key] = self.touched.jobs[key] = record
        self._learn_demand()
        if record.state.is_final:
            self.active.pop(key, None)
            self.asks.pop(key, None)
            self.queued.pop(key, None)
            return
        newest = key if key in self.active else next(reversed(self.active), key)
        self.active[key] = record
        is_back = newest != key and number_of(key) < number_of(newest)
        if is_back:
            self.active = {job.job.id: job for job in jobs_in_order(self.active.values())}

    def put_attempt(self, attempt: AttemptRecord) -> None:
        """An attempt of an open lease is new or changed."""
        self.attempts[attempt.id] = self.touched.attempts[attempt.id] = attempt

    def put_lease(self, record: LeaseRecord) -> None:
        """An open lease changed; one that closed gives its resources back and is forgotten, with its attempts."""
        self.touched.leases[record.lease.id] = record
        if record.closed_ms:
            self._close(record)
            return
        self.leases[record.lease.id] = record
        if record.stopping:
            self.stopping.add(record.lease.id)

    def open_lease(self, record: LeaseRecord) -> None:
        """A lease takes its resources."""
        lease = record.lease
        self.touched.leases[lease.id] = record
        self._index(record)
        self._count(lease, 1)
        self._hold(lease)

    def _index(self, record: LeaseRecord) -> None:
        lease = record.lease
        self.leases[lease.id] = record
        if record.stopping:
            self.stopping.add(lease.id)
        self.leases_of_job.setdefault(lease.job_id, set()).add(lease.id)

    def _describe(self, nodes: Iterable[Node]) -> None:
        self.faulty, self.cut, self.laid = set(), set(), set()
        for node in nodes:
            self.shapes.set_node(node)
            self._mark(node)

    def _mark(self, node: Node) -> None:
        for names, is_one in ((self.faulty, node.faults_milli), (self.cut, node.cuts), (self.laid, node.layouts)):
            (names.add if is_one else names.discard)(node.name)

    def _fill(self, records: Iterable[LeaseRecord]) -> None:
        """Every open lease of a snapshot takes its resources; what is alike is added up before it is counted."""
        alike: dict[tuple[str, str, int], tuple[Lease, int, int]] = {}
        held: dict[str, tuple[int, int, int, str]] = {}
        for record in records:
            lease = record.lease
            self._index(record)
            key = (lease.job_id, lease.step, len(lease.allocations))
            first, count, granted_ms = alike.get(key, (lease, 0, 0))
            alike[key] = (first, count + 1, granted_ms + lease.granted_ms)
            for allocation in lease.allocations:
                self.leases_of_node.setdefault(allocation.node, {})[lease.id] = None
                if allocation.devices:
                    self.shapes.hold(allocation, lease.tenant)
                    continue
                cpu, memory, scratch, _ = held.get(allocation.node, (0, 0, 0, ""))
                held[allocation.node] = (
                    cpu + allocation.cpu_milli,
                    memory + allocation.memory_mib,
                    scratch + allocation.scratch_mib,
                    lease.tenant,
                )
        for first, count, granted_ms in alike.values():
            self._sum_up(first, count, granted_ms)
        for node, (cpu, memory, scratch, tenant) in held.items():
            self.shapes.hold(Allocation(node=node, cpu_milli=cpu, memory_mib=memory, scratch_mib=scratch), tenant)

    def leave(self, lease: Lease) -> None:
        """In a trial: an open lease lets go of its resources; its records stay. :meth:`enter` undoes it."""
        del self.leases[lease.id]
        self.stopping.discard(lease.id)
        self._give_back(lease)
        self._count(lease, -1)

    def enter(self, record: LeaseRecord) -> None:
        """In a trial: what :meth:`leave` let go is held again."""
        self.leases[record.lease.id] = record
        if record.stopping:
            self.stopping.add(record.lease.id)
        self._hold(record.lease)
        self._count(record.lease, 1)

    def drop_node(self, name: str) -> None:
        """In a trial: a node without leases was never there."""
        self.faulty.discard(name)
        self.shapes.drop_node(name)
        self.totals = totals(view.node for view in self.nodes.values())

    def attempts_of(self, lease: Lease) -> Iterator[AttemptRecord]:
        """Attempts of an open lease, in the order they run."""
        return (self.attempts[attempt_id] for attempt_id in lease.attempts)

    def models_of(self, lease: Lease) -> frozenset[str]:
        """Models of the cards an open lease holds."""
        devices = {device for allocation in lease.allocations for device in allocation.devices}
        nodes = (self.shapes.node(name) for name in {allocation.node for allocation in lease.allocations if devices})
        return frozenset(d.model for node in nodes if node is not None for d in node.devices if d.id in devices)

    def _hold(self, lease: Lease) -> None:
        for allocation in lease.allocations:
            self.shapes.hold(allocation, lease.tenant)

    def _give_back(self, lease: Lease) -> None:
        for allocation in lease.allocations:
            self.shapes.give_back(allocation, lease.tenant)

    def _learn_demand(self) -> None:
        """Let placement prepare for demand like that of the latest jobs: of the records alone, and seldom another."""
        block = (self.next_job - 1) // BLOCK * BLOCK
        if self._block < 0 or block == self._block:
            return
        self._block = block
        records = (self.jobs.get(f"j{number}") for number in range(max(block - BLOCKS_JOBS, 0) + 1, block + 1))
        self.shapes.set_mix(
            wanted_of(
                (demand_of(step, record.job.tenant), step.count * step.ranks)
                for record in records
                if record is not None
                for step in record.job.steps
            )
        )

    def _close(self, record: LeaseRecord) -> None:
        lease = record.lease
        del self.leases[lease.id]
        self.stopping.discard(lease.id)
        for attempt_id in lease.attempts:
            del self.attempts[attempt_id]
        self._give_back(lease)
        of_job = self.leases_of_job[lease.job_id]
        of_job.remove(lease.id)
        if not of_job:
            del self.leases_of_job[lease.job_id]
        amounts = self._count(lease, -1)
        held_ms, queue = record.closed_ms - lease.granted_ms, lease.queue
        self.uses[queue] = self.touched.uses[queue] = add(
            self.uses.get(queue), queue, amounts, held_ms, record.closed_ms
        )

    def _count(self, lease: Lease, sign: int) -> Amounts:
        """One open lease more or, with ``sign`` -1, fewer. What it holds."""
        for allocation in lease.allocations:
            on = self.leases_of_node.get(allocation.node)
            if on is None:
                on = self.leases_of_node[allocation.node] = {}
            if sign > 0:
                on[lease.id] = None
                continue
            on.pop(lease.id, None)
            if not on:
                del self.leases_of_node[allocation.node]
        return self._sum_up(lease, sign, sign * lease.granted_ms)

    def held_by(self, lease: Lease) -> Share:
        """Its queue, what it holds of that, and its job."""
        step, _ = find_step(self.jobs[lease.job_id], lease.step)
        return lease.queue, amounts_of(step.resources, len(lease.allocations)), lease.job_id

    def grace_ms(self, lease: Lease) -> int:
        """How long it may take to leave once it was told to."""
        return find_step(self.jobs[lease.job_id], lease.step)[0].grace_ms

    def _sum_up(self, lease: Lease, count: int, granted_ms: int) -> Amounts:
        """Sums over open leases: absent means nothing, so that a grown state equals a fresh one. What one holds.

        ``count``: leases of the same step as ``lease`` and as large; ``granted_ms``: the sum of their grants' instants.
        """
        job = self.jobs[lease.job_id].job
        position = next(at for at, step in enumerate(job.steps) if step.name == lease.step)
        step, (demand, amounts) = job.steps[position], self.asks_of(job)[position]
        ranks = len(lease.allocations)
        if ranks != step.ranks:
            amounts = amounts_of(step.resources, ranks)
        change = amounts if count == 1 else times(amounts, count)
        _sum(self.held, lease.queue, change)
        _sum(self.held_since, lease.queue, times(amounts, granted_ms))
        _sum(self.kinds_held, job.kind.value, change)
        _add(self.leases_of_step, (lease.job_id, lease.step), count)
        _add(self.shapes_held, demand, count)
        for name, seats in step.resources.licences:
            _add(self.seats, name, count * seats * ranks)
        return amounts


def _sum(sums: dict[str, Amounts], key: str, amounts: Amounts) -> None:
    total = plus(sums.get(key, NONE), amounts)
    if total == NONE:
        sums.pop(key, None)
    else:
        sums[key] = total


def _add(counts: dict[K, int], key: K, amount: int) -> None:
    total = counts.get(key, 0) + amount
    if total:
        counts[key] = total
    else:
        counts.pop(key, None)


def _asks(job: Job) -> tuple[tuple[Demand, Amounts], ...]:
    return tuple((demand_of(step, job.tenant), amounts_of(step.resources, step.ranks)) for step in job.steps)


def _keep_leased(node: Node, before: NodeView) -> Node:
    reported = {device.id for device in node.devices}
    missing = [d for d in before.node.devices if d.id in before.held and d.id not in reported]
    if not missing:
        return node
    gone = [replace(d, health=Health.QUARANTINED, health_reason="not reported by the node any more") for d in missing]
    return replace(node, devices=(*node.devices, *gone))
