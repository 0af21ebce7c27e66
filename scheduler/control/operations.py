"""Verbs about the park rather than a job: nodes, queues, tenants, keys, status. Changing them needs an operator."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from scheduler.control import dump, views
from scheduler.control.access import Caller, require_operator
from scheduler.control.cycle import Cycle
from scheduler.control.delivery import FeedView
from scheduler.control.identity import Issuer, Person, Refused, unknown_tenant
from scheduler.control.node_shapes import NodeView
from scheduler.control.ports import KeyRing
from scheduler.control.settings import Home
from scheduler.control.shapes import KeyView, NewKey, QueueView, StatusView, TenantView
from scheduler.engine import Engine
from scheduler.model import catalogue
from scheduler.model.errors import Forbidden, InvalidInput, Problem, Unauthorized, unknown
from scheduler.model.event import Event, QueueSet, TenantSet
from scheduler.model.key import ApiKey, Role
from scheduler.model.node import Health, NodeState
from scheduler.model.queue import Queue, Tenant
from scheduler.model.usage import Bucket

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""Names of tenants and queues become folder names and metric labels (RFC 1123 labels)."""
MOST_WEIGHT = 1_000_000


NOBODYS = "default"
"""The tenant of operators who belong to none; every installation has it."""
JWT = "eyJ"
"""The beginning of every one: a brace and a quote in base64."""


def is_token(secret: str) -> bool:
    """An issuer's, not a key of ours."""
    return secret.startswith(JWT) and secret.count(".") == 2


def _allowed(caller: Caller, *, figures: bool) -> Caller:
    if caller.role is Role.FIGURES and not figures:
        raise Forbidden("a key for figures opens nothing but /metrics")
    return caller


class Operations:
    """The park. Every method takes the caller first and raises only ShisuanErrors."""

    def __init__(
        self,
        cycle: Cycle,
        keys: KeyRing,
        home: Home,
        *,
        version: str,
        feed: Callable[[], FeedView] | None = None,
        issuer: Issuer | None = None,
    ) -> None:
        self._cycle = cycle
        self._keys = keys
        self._home = home
        self._version = version
        self._feed = feed
        self._issuer = issuer
        self._started_ms = cycle.now_ms()

    # ── who asks ─────────────────────────────────────────────────────────────────────────────────────────────────

    def authenticate(self, secret: str, *, figures: bool = False) -> Caller:
        """Whose key or access token this is. ``figures``: only those are asked for.

        Raises Unauthorized, IssuerSilent, Forbidden for who may see figures only.
        """
        if is_token(secret):
            if self._issuer is None:
                raise Refused(
                    "this service knows no OpenID issuer: show an API key",
                    "本服务未配置 OpenID 签发方，请使用 API 密钥",
                )
            return self.admit(self._issuer.person(secret, self._cycle.now_ms()), figures=figures)
        key = self._keys.find_key(secret, self._cycle.now_ms())
        if not self._has_tenant(key.tenant):
            raise Unauthorized(f"API key {key.id} belongs to no tenant any more")
        return _allowed(Caller(tenant=key.tenant, role=key.role, key_id=key.id), figures=figures)

    def admit(self, person: Person, *, figures: bool = False) -> Caller:
        """Somebody whom the issuer vouches for. Raises Refused, Forbidden as :meth:`authenticate`."""
        tenant = person.tenant or NOBODYS
        if not self._has_tenant(tenant):
            raise unknown_tenant(tenant)
        made = Caller(tenant=tenant, role=person.role, key_id=f"oidc:{person.subject}", is_person=True)
        return _allowed(made, figures=figures)

    def _has_tenant(self, name: str) -> bool:
        with self._cycle.state() as engine:
            return any(t.name == name for t in engine.tenants())

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────

    def nodes(self, caller: Caller) -> list[NodeView]:
        """Every node and what is free; a tenant does not learn which jobs of others hold the rest."""
        with self._cycle.state() as engine:
            nodes, leases = tuple(engine.nodes()), tuple(engine.leases())
        tenants = {r.lease.id: r.lease.tenant for r in leases}
        now_ms = self._cycle.now_ms()
        shown = [views.node(n, leases, now_ms) for n in sorted(nodes, key=lambda n: n.name)]
        for device in (d for n in shown for d in n["devices"]):
            if device["lease_id"] and not caller.sees(tenants[device["lease_id"]]):
                device["lease_id"] = device["job_id"] = "other"
        return shown

    def queues(self, caller: Caller) -> list[QueueView]:
        """The queues this caller may submit to (an operator: all), and how many tasks wait and run in them."""
        waiting: Counter[str] = Counter()
        running: Counter[str] = Counter()
        with self._cycle.state() as engine:
            queues, jobs = tuple(engine.queues()), tuple(engine.jobs())
            mine = next((t.queues for t in engine.tenants() if t.name == caller.tenant), ())
        for record in jobs:
            if not record.state.is_final and caller.sees(record.job.tenant):
                waiting[record.job.queue] += sum(len(s.waiting) for s in record.steps)
                running[record.job.queue] += sum(len(s.running) for s in record.steps)
        return [
            views.queue(q, waiting[q.name], running[q.name])
            for q in sorted(queues, key=lambda q: q.name)
            if caller.is_operator or q.name in mine
        ]

    def status(self, caller: Caller) -> StatusView:
        """The service at a glance; a tenant's counts are its own."""
        with self._cycle.state() as engine:
            jobs, nodes = tuple(engine.jobs()), tuple(engine.nodes())
            cards = cards_by_bucket(engine)
        mine = [r for r in jobs if caller.sees(r.job.tenant)]
        active = [r for r in mine if not r.state.is_final]
        observer = self._cycle.observer
        state = "up" if observer.runtime_up else "starting" if observer.runtime_message == "starting" else "down"
        return {
            "version": self._version,
            "started_ms": self._started_ms,
            "now_ms": self._cycle.now_ms(),
            "runtime": {"state": state, "message": "" if state == "up" else observer.runtime_message},
            "counts": {
                "jobs": dict(Counter(r.state.value for r in mine)),
                "tasks": {
                    "waiting": sum(len(s.waiting) for r in active for s in r.steps),
                    "running": sum(len(s.running) for r in active for s in r.steps),
                },
                "nodes": dict(Counter(n.state.value for n in nodes)),
                "cards": cards,
            },
            "simulated": any(d.simulated for n in nodes if n.state is not NodeState.LOST for d in n.devices),
            "feed": self._feed() if self._feed is not None and caller.is_operator else None,
        }

    def dump(self, caller: Caller) -> dict[str, Any]:
        """The cycle that would run now, for a replay elsewhere. Raises Forbidden."""
        require_operator(caller)
        with self._cycle.state() as engine:
            snapshot = engine.snapshot()
        return dump.dump(snapshot, self._cycle.now_ms(), self._cycle.policy, catalogue.FEATURES)

    # ── changing ─────────────────────────────────────────────────────────────────────────────────────────────────

    def set_queue(self, caller: Caller, queue: Queue) -> QueueView:
        """Create or change a queue. Raises Forbidden, InvalidInput."""
        require_operator(caller)

        def make(engine: Engine, now_ms: int) -> Event:
            check_queue(engine, queue)
            return QueueSet(at_ms=now_ms, queue=queue)

        self._record(make)
        return views.queue(queue, 0, 0)

    def set_tenant(self, caller: Caller, tenant: Tenant) -> TenantView:
        """Create or change a tenant; one without storage roots gets a folder of its own. Raises Forbidden,
        InvalidInput.
        """
        require_operator(caller)
        made = self.with_root(tenant)

        def make(engine: Engine, now_ms: int) -> Event:
            check_tenant(engine, made)
            return TenantSet(at_ms=now_ms, tenant=made)

        self._record(make)
        return views.tenant(made)

    def tenants(self, caller: Caller) -> list[TenantView]:
        """Every tenant (a tenant's key: itself)."""
        with self._cycle.state() as engine:
            found = tuple(engine.tenants())
        return [views.tenant(t) for t in sorted(found, key=lambda t: t.name) if caller.sees(t.name)]

    def add_key(
        self, caller: Caller, *, tenant: str, role: str = Role.TENANT.value, label: str = "", expires_ms: int = 0
    ) -> NewKey:
        """Make a key; its secret is in the answer and nowhere else. Raises Forbidden, InvalidInput."""
        require_operator(caller)
        with self._cycle.state() as engine:
            names = [t.name for t in engine.tenants()]
        problems = [] if tenant in names else [unknown("tenant", "tenant", tenant, names)]
        if role not in list(Role):
            problems.append(unknown("role", "role", role, list(Role)))
        if expires_ms and expires_ms <= self._cycle.now_ms():
            problems.append(Problem("expires_ms", "lies in the past"))
        if problems:
            raise InvalidInput(problems)
        key_id, secret = self._keys.add_key(tenant, role, expires_ms, label, now_ms=self._cycle.now_ms())
        made = next(k for k in self._keys.list_keys(tenant) if k.id == key_id)
        return {**views.key(made), "key": secret}

    def list_keys(self, caller: Caller) -> list[KeyView]:
        """Every key, without its secret. Raises Forbidden."""
        require_operator(caller)
        return [views.key(k) for k in self._keys.list_keys()]

    def revoke_key(self, caller: Caller, key_id: str) -> KeyView:
        """The key opens nothing any more. Raises Forbidden, NotFound."""
        require_operator(caller)
        self._keys.revoke_key(key_id, now_ms=self._cycle.now_ms())
        return views.key(self._find_key(key_id))

    # ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────

    def with_root(self, tenant: Tenant) -> Tenant:
        """The tenant, with its folder under the home as storage root when it names none. Creates that folder."""
        return tenant if tenant.storage_roots else replace(tenant, storage_roots=(self.own_root(tenant.name),))

    def own_root(self, name: str) -> str:
        """A tenant's folder under the home, which is made when it is not there. Raises InvalidInput."""
        if NAME.fullmatch(name) is None:
            raise InvalidInput([Problem("name", f"{name!r} {NAME_RULE}")])
        root = self._home.storage(name)
        root.mkdir(parents=True, exist_ok=True)
        return str(root.resolve())

    def _find_key(self, key_id: str) -> ApiKey:
        return next(k for k in self._keys.list_keys() if k.id == key_id)

    def _record(self, make: Callable[[Engine, int], Event]) -> None:
        def decide(engine: Engine, now_ms: int) -> tuple[Sequence[Event], None]:
            return (make(engine, now_ms),), None

        self._cycle.call(decide)


ROOT_OF_OBJECTS = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/(?!\.{1,2}(/|$))[^/\0]+)*/?")
"""A bucket, and the beginning of the keys in it."""
NAME_RULE = "must be lower-case letters, digits and '-', start and end with a letter or digit, and have at most 63"


def check_queue(engine: Engine, queue: Queue, pointer: str = "") -> None:
    """Raises InvalidInput with every mistake; ``pointer`` is where the queue stands in a configuration file."""
    names = {q.name: q for q in engine.queues()}
    problems = _name_problems(queue.name, f"{pointer}name")
    if not 1 <= queue.weight <= MOST_WEIGHT:
        problems.append(Problem(f"{pointer}weight", f"must be 1 to {MOST_WEIGHT}, not {queue.weight}"))
    if queue.parent and queue.parent not in names:
        problems.append(unknown(f"{pointer}parent", "queue", queue.parent, names))
    above, seen = queue.parent, {queue.name}
    while above:
        if above in seen:
            problems.append(Problem(f"{pointer}parent", f"queue {queue.name!r} would be its own ancestor"))
            break
        seen.add(above)
        above = names[above].parent if above in names else ""
    problems += _quota_problems(queue, names, pointer)
    if problems:
        raise InvalidInput(problems)


def _quota_problems(queue: Queue, names: dict[str, Queue], pointer: str) -> list[Problem]:
    """A limit below the guarantee, more lent than guaranteed, more guaranteed to children than the parent may hold."""
    found: list[Problem] = []
    siblings = [q for q in names.values() if q.parent == queue.parent and q.name != queue.name]
    parent = names.get(queue.parent)
    for at, what in enumerate(("cpus", "memory", "cards", "mig")):
        mine, limit = queue.guaranteed[at], queue.limit[at]
        if 0 <= limit < mine:
            found.append(Problem(f"{pointer}limit.{what}", f"is less than the queue is guaranteed ({what})"))
        if queue.lends[at] > mine:
            found.append(Problem(f"{pointer}lends.{what}", f"is more than the queue is guaranteed ({what})"))
        together = mine + sum(q.guaranteed[at] for q in siblings)
        if mine and parent is not None and 0 <= parent.limit[at] < together:
            message = f"with its siblings it would be guaranteed more than {parent.name!r} may hold"
            found.append(Problem(f"{pointer}guaranteed.{what}", message))
    return found


def check_tenant(engine: Engine, tenant: Tenant, pointer: str = "") -> None:
    """Raises InvalidInput with every mistake; ``pointer`` is where the tenant stands in a configuration file."""
    names = [q.name for q in engine.queues()]
    problems = _name_problems(tenant.name, f"{pointer}name")
    if not tenant.queues:
        problems.append(Problem(f"{pointer}queues", "must name at least one queue", tuple(sorted(names))))
    for position, queue in enumerate(tenant.queues):
        if queue not in names:
            problems.append(unknown(f"{pointer}queues[{position}]", "queue", queue, names))
    for position, root in enumerate(tenant.storage_roots):
        if not Path(root.removeprefix("file://")).is_absolute() and not ROOT_OF_OBJECTS.fullmatch(root):
            problems.append(
                Problem(
                    f"{pointer}storage_roots[{position}]", f"{root!r} is not an absolute path or s3://bucket/prefix"
                )
            )
    if problems:
        raise InvalidInput(problems)


def _name_problems(name: str, pointer: str) -> list[Problem]:
    return [] if NAME.fullmatch(name) else [Problem(pointer, f"{name!r} {NAME_RULE}")]


def cards_by_bucket(engine: Engine) -> dict[str, int]:
    """How many devices are in which bucket of DESIGN's time account at this moment."""
    buckets: Counter[str] = Counter()
    held: dict[str, bool] = {}
    for record in engine.leases():
        attempts = (engine.attempt(a) for a in record.lease.attempts)
        began = any(a is not None and a.started_ms for a in attempts)
        held.update({d: began for a in record.lease.allocations for d in a.devices})
    for node in engine.nodes():
        for device in node.devices:
            if device.id in held:
                bucket = Bucket.HELD_CHARGED if held[device.id] else Bucket.STARTING
            elif node.state is NodeState.LOST:
                bucket = Bucket.UNKNOWN
            elif device.health is Health.EXTERNAL:
                bucket = Bucket.EXTERNAL
            elif device.health is Health.QUARANTINED or node.state is not NodeState.READY:
                bucket = Bucket.QUARANTINED
            else:
                bucket = Bucket.FREE
            buckets[bucket.value] += 1
    return dict(buckets)
