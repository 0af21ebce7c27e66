"""The smallest changes that would start a waiting step now. Each that is returned was tried on the real plan.

Within a kind of change the smallest is found by bisection where more of it never helps less (a smaller demand, a higher
priority, more nodes or seats), and for sets (leases that end, nodes and cards that come back) as in
:mod:`scheduler.engine.fewest`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice

from scheduler.engine.fewest import fewest
from scheduler.engine.recut import offer, with_cut
from scheduler.engine.relayout import best_offer
from scheduler.engine.state import State
from scheduler.engine.trials import Trials
from scheduler.model.job import JobRecord, Resources, Together
from scheduler.model.layout import laid_out
from scheduler.model.lease import Allocation, number_of
from scheduler.model.node import Health, Node, NodeState
from scheduler.model.plan import Change, ChangeKind
from scheduler.model.policy import Policy
from scheduler.model.queue import Queue
from scheduler.placement.fit import Demand, Features, demand_of
from scheduler.placement.view import device_millis, leasable
from scheduler.queueing.quota import ancestors
from scheduler.queueing.tasks import hurry

NODES_MOST = 64
"""More nodes, seats or leases than this are not an answer anybody can use."""
NODES_SURE = 8
PRIORITY_MOST = 100
SMALLER = {
    "cpu_milli": "{} thousandths of a vCPU",
    "memory_mib": "{} MiB of memory",
    "scratch_mib": "{} MiB of scratch",
    "cards": "{} cards",
    "card_milli": "{} thousandths of a card",
    "card_memory_mib": "cards of {} MiB",
}
"""Fields of Resources that can be asked for less of."""


def changes(state: State, job_id: str, step: str, now_ms: int, policy: Policy) -> tuple[Change, ...]:
    """One Change per kind (for SMALLER and the like: per resource) that alone would start the step's next task now."""
    trials = Trials(state, job_id, step, now_ms, policy)
    return tuple(change for find in FINDERS for change in find(trials))


def _release(trials: Trials) -> Iterator[Change]:
    if trials.record.held and trials.starts(record=replace(trials.record, held=False)):
        yield Change(kind=ChangeKind.RELEASE, message=f"release job {trials.record.job.id}")


def _retry(trials: Trials) -> Iterator[Change]:
    """Its owner's word that what failed may be tried again at once."""
    steps = tuple(hurry(done) if done.name == trials.step.name else done for done in trials.record.steps)
    if steps != trials.record.steps and trials.starts(record=replace(trials.record, steps=steps)):
        message = (
            f"retry step {trials.step.name} of job {trials.record.job.id}: what failed is then tried again at once"
        )
        yield Change(kind=ChangeKind.RETRY, target=trials.step.name, message=message)


def _smaller(trials: Trials) -> Iterator[Change]:
    ask = trials.step.resources
    for name, phrase in SMALLER.items():
        now = getattr(ask, name)
        least = 1 if name in ("cards", "card_milli") else 0

        def fits(value: int, name: str = name) -> bool:
            smaller: Resources = replace(ask, **{name: value})  # type: ignore[arg-type]  # SMALLER names only integers
            return trials.starts(step=replace(trials.step, resources=smaller))

        value = _largest(fits, least, now - 1)
        if value is not None:
            message = f"ask for {phrase.format(value)} instead of {now}"
            yield Change(kind=ChangeKind.SMALLER, target=name, amount=value, message=message)


def _fewer_ranks(trials: Trials) -> Iterator[Change]:
    step = trials.step
    if step.ranks > 1 and not step.ranks_min:
        ranks = _largest(lambda ranks: trials.starts(step=replace(step, ranks=ranks)), 1, step.ranks - 1)
        if ranks is not None:
            message = f"start with {ranks} ranks instead of {step.ranks}"
            yield Change(kind=ChangeKind.FEWER_RANKS, amount=ranks, message=message)


def _other_card(trials: Trials) -> Iterator[Change]:
    ask = trials.step.resources
    if not ask.card_models:
        return
    models = {device.model for view in trials.world.nodes.values() for device in leasable(view.node)}
    for model in sorted(models - set(ask.card_models)):
        wider = replace(ask, card_models=tuple(sorted((*ask.card_models, model))))
        if trials.starts(step=replace(trials.step, resources=wider)):
            yield Change(kind=ChangeKind.OTHER_CARD, target=model, message=f"accept card model {model} as well")


def _conditions(trials: Trials) -> Iterator[Change]:
    """Labels, taints and nearness that it could do without, one at a time."""
    step, ask = trials.step, trials.step.resources
    for label in ask.labels:
        fewer: Resources = replace(ask, labels=tuple(other for other in ask.labels if other != label))
        if trials.starts(step=replace(step, resources=fewer)):
            name = "=".join(label)
            yield Change(kind=ChangeKind.LABEL, target=name, message=f"do without label {name}")
    taints = {taint for view in trials.world.nodes.values() for taint in view.node.taints} - set(ask.tolerations)
    for taint in sorted(taints):
        wider = replace(ask, tolerations=tuple(sorted((*ask.tolerations, taint))))
        if trials.starts(step=replace(step, resources=wider)):
            yield Change(kind=ChangeKind.TOLERATE, target=taint, message=f"tolerate taint {taint}")
    if step.together is not Together.ANYWHERE and trials.starts(step=replace(step, together=Together.ANYWHERE)):
        message = f"let its ranks be anywhere, not on one {step.together.value}"
        yield Change(kind=ChangeKind.APART, target=step.together.value, message=message)


def _priority(trials: Trials) -> Iterator[Change]:
    job = trials.record.job

    def starts(priority: int) -> bool:
        return trials.starts(record=replace(trials.record, job=replace(job, priority=priority)))

    priority = _smallest(starts, job.priority + 1, PRIORITY_MOST)
    if priority is not None:
        message = f"raise its priority from {job.priority} to {priority}"
        yield Change(kind=ChangeKind.PRIORITY, amount=priority, message=message)


def _limits(trials: Trials) -> Iterator[Change]:
    """The step's own limit, a queue's, seats of a licence, the budget, the price band."""
    step, policy = trials.step, trials.policy
    if step.max_parallel:
        most = step.max_parallel + step.count
        parallel = _smallest(lambda n: trials.starts(step=replace(step, max_parallel=n)), step.max_parallel + 1, most)
        if parallel is not None:
            message = f"let {parallel} of its tasks run at once instead of {step.max_parallel}"
            yield Change(kind=ChangeKind.PARALLEL, amount=parallel, message=message)
    for name, _ in step.resources.licences:
        seats = dict(policy.licences)

        def enough(more: int, name: str = name, seats: dict[str, int] = seats) -> bool:
            wider = tuple(sorted((seats | {name: seats.get(name, 0) + more}).items()))
            return trials.starts(policy=replace(policy, licences=wider))

        more = _smallest(enough, 1, NODES_MOST)
        if more is not None:
            message = f"add {more} seats of licence {name}"
            yield Change(kind=ChangeKind.LICENCE, target=name, amount=more, message=message)
    tenant = trials.record.job.tenant
    funded = replace(policy, unfunded=tuple(name for name in policy.unfunded if name != tenant))
    if tenant in policy.unfunded and trials.starts(policy=funded):
        yield Change(kind=ChangeKind.BUDGET, target=tenant, message=f"raise the budget of tenant {tenant}")
    anytime: JobRecord = replace(trials.record, job=replace(trials.record.job, band=""))
    if trials.record.job.band and trials.starts(record=anytime):
        band = trials.record.job.band
        yield Change(kind=ChangeKind.ANY_TIME, target=band, message=f"let it start outside price band {band}")


def _queue_limits(trials: Trials) -> Iterator[Change]:
    """Raise one limit, in one resource, of its queue or one above it; or let a queue have one more job."""
    for name in ancestors(trials.world.queues, trials.record.job.queue):
        queue = trials.world.queues.get(name)
        if queue is None:
            continue
        for at, resource in enumerate(("cpu_milli", "memory_mib", "card_milli", "mig_milli")):
            limit = queue.limit[at]
            if limit < 0:
                continue

            def starts(value: int, queue: Queue = queue, at: int = at) -> bool:
                cpu, memory, cards, instances = (value if i == at else old for i, old in enumerate(queue.limit))
                wider = replace(queue, limit=(cpu, memory, cards, instances))
                return trials.starts(queues={queue.name: wider})

            value = _smallest(starts, limit + 1, max(trials.world.totals[at], limit + 1))
            if value is not None:
                message = f"raise the {resource} limit of queue {name} from {limit} to {value}"
                yield Change(kind=ChangeKind.QUEUE_LIMIT, target=name, names=(resource,), amount=value, message=message)


def _end_leases(trials: Trials) -> Iterator[Change]:
    held = {lease_id: record.lease.allocations for lease_id, record in trials.world.leases.items()}
    crowd = {node: len(on) for node, on in trials.world.leases_of_node.items()}
    leases = sorted(held, key=number_of)
    by_node = sorted(leases, key=lambda lease_id: min((crowd[a.node], a.node) for a in held[lease_id]))
    largest_first = sorted(leases, key=lambda lease_id: _freed(held[lease_id]), reverse=True)
    chosen = sorted(fewest((leases, by_node, largest_first), trials.starts_without, NODES_MOST), key=number_of)
    if chosen:
        message = f"wait for {len(chosen)} running leases to end, or stop them: {', '.join(chosen)}"
        yield Change(kind=ChangeKind.END_LEASES, names=tuple(chosen), amount=len(chosen), message=message)


def _freed(allocations: Iterable[Allocation]) -> tuple[int, int]:
    """What the end of a lease gives back: cards (thousandths) and vCPU."""
    cards = sum(milli for held in allocations for _, milli in device_millis(held))
    return cards, sum(held.cpu_milli for held in allocations)


def _heal(trials: Trials) -> Iterator[Change]:
    """Nodes and cards that are out: the fewest that must come back. What strangers hold is not ours to bring back."""
    sick = {key: node for view in trials.world.nodes.values() for key, node in _cures(view.node)}

    def fits(cured: frozenset[str]) -> bool:
        nodes: dict[str, Node] = {}
        for key in sorted(cured):
            name, _, device = key.partition("/")
            node = nodes.get(name, trials.world.nodes[name].node)
            if device:
                healthy = tuple(replace(d, health=Health.OK) if d.id == device else d for d in node.devices)
                nodes[name] = replace(node, devices=healthy)
            else:
                nodes[name] = replace(node, state=NodeState.READY)
        return trials.starts_with_nodes(nodes.values())

    chosen = tuple(sorted(fewest([sorted(sick)], fits, NODES_MOST)))
    if chosen:
        message = f"bring back {', '.join(chosen)}"
        yield Change(kind=ChangeKind.HEAL, names=chosen, amount=len(chosen), message=message)


def _recut(trials: Trials) -> Iterator[Change]:
    """Cards of one node that could be cut into what it asks for, where least is destroyed for it."""
    demand, features = demand_of(trials.step, trials.record.job.tenant), trials.world.shapes.features
    yield from islice(_laid_out(trials, demand, features), 1)
    if not demand.resources.mig_profile:
        return
    offers = [o for v in trials.world.nodes.values() if (o := offer(v, demand, features)) is not None]
    for found in sorted(offers, key=lambda found: (found.slices_lost, found.node)):
        if trials.starts_with_nodes([with_cut(trials.world.nodes[found.node].node, found)]):
            told = [(card, ", ".join(f"{p.profile} at {p.start}" for p in layout)) for card, layout in found.layouts]
            cards = tuple(card for card, _ in found.layouts)
            message = f"cut anew on node {found.node}: {'; '.join(f'{card} into {layout}' for card, layout in told)}"
            yield Change(kind=ChangeKind.RECUT, target=found.node, names=cards, amount=len(cards), message=message)
            return


def _laid_out(trials: Trials, demand: Demand, features: Features) -> Iterator[Change]:
    """Nodes on which nobody is, each in its cheapest layout for the demand."""
    idle = [v.node for name, v in trials.world.nodes.items() if name not in trials.world.leases_of_node]
    offers = [o for node in idle if node.layouts and (o := best_offer(node, demand, features)) is not None]
    for found in sorted(offers, key=lambda found: found.order):
        if trials.starts_with_nodes([laid_out(trials.world.nodes[found.node].node, found.name)]):
            message = f"put node {found.node} into layout {found.name}"
            names = (found.name,)
            yield Change(kind=ChangeKind.RECUT, target=found.node, names=names, amount=1, message=message)


def _cures(node: Node) -> Iterator[tuple[str, Node]]:
    if node.state is not NodeState.READY:
        yield node.name, node
    yield from ((f"{node.name}/{d.id}", node) for d in leasable(node) if d.health is Health.QUARANTINED)


def _add_nodes(trials: Trials) -> Iterator[Change]:
    """Copies of a node there is, empty and healthy: for each kind of node the fewest that are enough."""
    for kind, name in kinds(trials.world):

        def enough(count: int, kind: Node = kind) -> bool:
            return trials.starts_with_nodes(blank(kind, f"\0new-{i}") for i in range(count))

        # More nodes change every queue's share, so few may help where more do not: the first are tried one by one.
        few = next((count for count in range(1, NODES_SURE + 1) if enough(count)), None)
        count = few or _smallest(enough, NODES_SURE + 1, NODES_MOST)
        if count is not None:
            message = f"add {count} nodes like {name}" if count > 1 else f"add a node like {name}"
            yield Change(kind=ChangeKind.ADD_NODES, target=name, amount=count, message=message)


def kinds(state: State) -> list[tuple[Node, str]]:
    """Each kind of node as an empty, healthy one without a name, and the first node of that kind, in order of those."""
    found: dict[Node, str] = {}
    for name in sorted(state.nodes):
        found.setdefault(blank(state.nodes[name].node, ""), name)
    return sorted(found.items(), key=lambda kind: kind[1])


def blank(node: Node, name: str) -> Node:
    """The node under another name, empty and healthy, its devices named by their places."""
    parents = {device.id: f"{name}/{at}" for at, device in enumerate(node.devices)}
    devices = tuple(
        replace(
            device,
            id=parents[device.id],
            parent=parents.get(device.parent, ""),
            island=f"{name}/{device.island.removeprefix(node.name)}" if device.island else "",
            health=Health.OK,
            health_reason="",
        )
        for device in node.devices
    )
    node = replace(node, faults_milli=0, faults_ms=0, fault_reason="", cuts=())
    return replace(node, name=name, devices=devices, state=NodeState.READY, state_reason="")


def _reservation(trials: Trials) -> Iterator[Change]:
    for reservation in sorted(trials.world.reservations.values(), key=lambda r: r.name):
        if not reservation.cancelled and trials.starts_with_reservation(replace(reservation, cancelled=True)):
            message = f"cancel reservation {reservation.name}"
            yield Change(kind=ChangeKind.CANCEL_RESERVATION, target=reservation.name, message=message)


def _smallest(works: Callable[[int], bool], low: int, high: int) -> int | None:
    """The least value in ``[low, high]`` that works, if more never works less; None when not even ``high`` does."""
    if low > high or not works(high):
        return None
    if works(low):
        return low
    low += 1
    while low < high:
        middle = (low + high) // 2
        if works(middle):
            high = middle
        else:
            low = middle + 1
    return high


def _largest(works: Callable[[int], bool], low: int, high: int) -> int | None:
    """The greatest value in ``[low, high]`` that works, if less never works less; None when not even ``low`` does."""
    found = _smallest(lambda value: works(high - value + low), low, high)
    return None if found is None else high - found + low


FINDERS: tuple[Callable[[Trials], Iterator[Change]], ...] = (
    _release, _retry, _smaller, _fewer_ranks, _other_card, _conditions, _priority, _limits, _queue_limits, _reservation,
    _recut,
    _heal, _end_leases, _add_nodes,
)  # fmt: skip
"""Cheapest for everybody first."""
