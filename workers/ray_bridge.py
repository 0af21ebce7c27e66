"""The only Ray driver, in a process of its own: ``python -P -m workers.ray_bridge --home DIR --fd N``.

In a cluster elsewhere its parent is a process without Ray that dials the service: see :mod:`workers.dial`.

Ray aborts a driver whose control store restarts; this process may die at any moment and the service starts another one.
It holds no state but what it can ask again: agents are found by name and by the tables on disk. It ends by itself when
the service's end of the socket pair closes.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import ray
from ray.exceptions import RayError

from scheduler.model.errors import NotFound
from scheduler.model.node import Node
from scheduler.model.order import LeaseOrder, Report, ReportKind
from workers import gang
from workers.messages import (
    Beat,
    Begin,
    Connect,
    End,
    Line,
    LogRead,
    Message,
    NodeIds,
    ReadLog,
    Ready,
    Recorded,
    Recut,
    Told,
)
from workers.ray_agent import probe_actor
from workers.ray_gangs import Gangs, Room
from workers.ray_head import NODE_LABEL, POD_LABEL
from workers.ray_link import CALL_S, AgentLink, Parcel
from workers.remains import tenants_with_news

_log = logging.getLogger(__name__)

LOOK_S = 0.5
PROBE_S = 60.0
CUT_S = 120.0
LOG_READERS = 4
ABSENT_S = 300.0
"""A pod that was away so long does not come back: names of pods are not used again."""
REPORTS_A_LINE = 64
"""A report holds a runner's result of up to 64 KiB, and a line must stay below what the gateway takes."""
NAMESPACE = "shisuan"


class Bridge:
    """One connection of one service to one Ray cluster."""

    def __init__(self, home: Path, line: Line, told: Connect) -> None:
        self._home, self._line, self._told = home, line, told
        self._agents_home = "" if told.cluster else str(home)
        """Pods have homes of their own."""
        self._prefix = prefix_of(told.cluster or home)
        self._lock = threading.RLock()
        self._links: dict[tuple[str, str], AgentLink] = {}
        self._rooms: dict[str, Room] = {}
        self._facts: dict[str, Node] = {node.name: node for node in told.nodes}
        self._node_ids = dict(told.node_ids)
        self._absent: dict[str, float] = {}
        """Pods that are not there but have links, and since when."""
        self._probes: dict[str, Any] = {}
        self._readers = ThreadPoolExecutor(LOG_READERS, thread_name_prefix="read-log")
        self._gangs = Gangs(
            home / "gangs", prefix=self._prefix, link=self._link_of, room=self._rooms.get, push=self._push
        )

    def run(self, messages: queue.SimpleQueue[Message]) -> None:
        """Serve; the process ends when the service closes its end."""
        self._line.send(Ready())
        threading.Thread(target=self._watch_nodes, name="nodes", daemon=True).start()
        threading.Thread(target=self._gangs.sweep, args=(self._known_leases,), name="gangs", daemon=True).start()
        while True:
            self._obey(messages.get())

    def _obey(self, message: Message) -> None:
        match message:
            case Begin(orders=orders):
                self._begin(orders)
            case End(lease_ids=lease_ids, reason=reason):
                self._end(lease_ids, reason)
            case Recorded(cursors=cursors):
                self._recorded(cursors)
            case Recut():
                self._readers.submit(self._recut, message)
            case ReadLog():
                self._readers.submit(self._read_log, message)
            case NodeIds(node_ids=node_ids):
                self._node_ids = dict(node_ids)
            case Beat():
                self._send(message)
            case _:
                _log.error("the service said %r to the bridge", message)

    # -- orders --------------------------------------------------------------------------------------------------

    def _begin(self, orders: Sequence[LeaseOrder]) -> None:
        by_agent: dict[AgentLink, list[LeaseOrder]] = {}
        gangs: dict[str, list[LeaseOrder]] = {}
        for order in orders:
            if order.ranks > 1:
                gangs.setdefault(order.lease_id, []).append(order)
            else:
                by_agent.setdefault(self._link_of(order), []).append(order)
        for link, batch in by_agent.items():
            link.tell(Parcel(orders=tuple(batch)))
        for ranks in gangs.values():
            self._gangs.start(ranks)

    def _end(self, lease_ids: tuple[str, ...], reason: str) -> None:
        """Agents do not mind leases they do not know: all are told, nobody has to remember where a lease runs."""
        self._gangs.stop(lease_ids, reason)
        with self._lock:
            links = tuple(self._links.values())
        for link in links:
            link.tell(Parcel(stop=(reason, lease_ids)))

    def _recorded(self, cursors: Sequence[str]) -> None:
        by_agent: dict[tuple[str, str], list[str]] = {}
        for cursor in cursors:
            ended, parts = gang.split(cursor)
            if ended:
                self._gangs.recorded([ended])
            for part in parts:
                node, tenant, own = part.split("/", 2)
                by_agent.setdefault((node, tenant), []).append(own)
        for (node, tenant), own_cursors in by_agent.items():
            self._link(node, tenant).tell(Parcel(cursors=tuple(own_cursors)))

    def _link_of(self, order: LeaseOrder) -> AgentLink:
        return self._link(order.node, order.tenant)

    def _link(self, node: str, tenant: str) -> AgentLink:
        with self._lock:
            link = self._links.get((node, tenant))
            if link is None:
                link = self._links[node, tenant] = AgentLink(
                    node=node,
                    tenant=tenant,
                    home=self._agents_home,
                    prefix=self._prefix,
                    node_id=self._node_id,
                    push=self._gangs.pass_on,
                )
            return link

    def _node_id(self, name: str) -> str:
        room = self._rooms.get(name)
        return room.node_id if room else ""

    def _push(self, reports: Sequence[Report]) -> None:
        for first in range(0, len(reports), REPORTS_A_LINE):
            self._send(Told(reports=tuple(reports[first : first + REPORTS_A_LINE])))

    def _send(self, message: Message) -> None:
        try:
            self._line.send(message)
        except OSError:
            os._exit(0)  # the service is gone: nobody to work for

    def _known_leases(self) -> set[str]:
        with self._lock:
            return {lease_id for link in self._links.values() for lease_id in link.known}

    # -- logs ----------------------------------------------------------------------------------------------------

    def _read_log(self, asked: ReadLog) -> None:
        with self._lock:
            links = [link for (node, _), link in sorted(self._links.items()) if node == asked.node]
        error = f"no log of attempt {asked.attempt_id!r} on node {asked.node!r}"
        for link in links:
            try:
                chunk = link.read_log(asked.attempt_id, asked.offset, asked.limit, asked.rank)
            except NotFound:
                continue
            except TimeoutError as late:
                error = str(late)
            else:
                self._line.send(LogRead(number=asked.number, chunk=chunk))
                return
        self._line.send(self._read_kept_log(asked, error))

    def _read_kept_log(self, asked: ReadLog, error: str) -> LogRead:
        probe = self._probes.get(asked.node)
        if probe is not None:
            args = (self._agents_home, asked.node, asked.attempt_id, asked.offset, asked.limit, asked.rank)
            try:
                return LogRead(number=asked.number, chunk=ray.get(probe.read_log.remote(*args), timeout=CALL_S))
            except (RayError, NotFound) as missing:
                _log.info("no kept log: %s", missing)
        return LogRead(number=asked.number, error=error)

    # -- nodes ---------------------------------------------------------------------------------------------------

    def _watch_nodes(self) -> None:
        while True:
            try:
                self._look()
            except RayError as error:
                _log.warning("Ray does not answer about its nodes: %r", error)
            if self._told.cluster:
                self._forget_absent(time.monotonic())
            time.sleep(LOOK_S)

    def _look(self) -> None:
        seen = self._rooms_now()
        for name in sorted(self._rooms.keys() - seen.keys()):
            self._gone(name)
        came = [name for name, room in sorted(seen.items()) if not self._knows(name, room)]
        for name in came:
            if name not in self._facts or not self._told.embedded:
                self._probes[name] = probe_actor(seen[name].node_id)  # all start at the same time
        for name in came:
            try:
                self._came(name, seen[name])
            except RayError as error:  # it keeps no other node waiting
                _log.warning("node %s does not say what it is: %r", name, error)

    def _forget_absent(self, now_s: float) -> None:
        """Pods come and go for months: each link has two threads."""
        with self._lock:
            absent = {node for node, _ in self._links} - self._rooms.keys()
            self._absent = {node: self._absent.get(node, now_s) for node in absent}
            for node, tenant in list(self._links):
                if now_s - self._absent.get(node, now_s) > ABSENT_S:
                    self._links.pop((node, tenant)).close()

    def _knows(self, name: str, room: Room) -> bool:
        return name in self._rooms and self._rooms[name].node_id == room.node_id

    def _rooms_now(self) -> dict[str, Room]:
        """Live nodes by name. Embedded nodes count under the id they were last started with."""
        found: dict[str, Room] = {}
        for node in ray.nodes():
            name = self._name(node)
            if not name or not node["Alive"] or (self._told.embedded and self._node_ids.get(name) != node["NodeID"]):
                continue
            facts = self._facts.get(name)
            cards = {device.id: device.index for device in facts.devices} if facts else {}
            ip = node["NodeManagerAddress"]
            found[name] = Room(node_id=node["NodeID"], resources=dict(node["Resources"]), ip=ip, cards=cards)
        return found

    def _name(self, node: dict[str, Any]) -> str:
        labels = node["Labels"]
        if self._told.cluster:
            return str(labels.get(POD_LABEL, ""))
        return str(labels.get(NODE_LABEL) or node.get("NodeName") or node["NodeID"])

    def _came(self, name: str, room: Room) -> None:
        if name in self._probes:
            self._ask(name)
        tenants = self._tenants(name)
        facts = self._facts[name]
        cards = {device.id: device.index for device in facts.devices}
        self._rooms[name] = replace(room, cards=cards)
        self._push([Report(kind=ReportKind.NODE, at_ms=_now_ms(), node=name, facts=facts)])
        for tenant in tenants:
            self._link(name, tenant)

    def _ask(self, name: str) -> None:
        declared = next((node for node in self._told.nodes if node.name == name), None)
        probe = self._probes[name]
        facts = probe.own_facts if self._told.cluster else probe.facts
        self._facts[name] = declared or ray.get(facts.remote(name), timeout=PROBE_S)

    def _recut(self, asked: Recut) -> None:
        """The node says what came of it; one that does not answer is not cut within its limit, or told again."""
        name, room = asked.node, self._rooms.get(asked.node)
        if room is None:
            return
        probe = probe_actor(room.node_id)
        try:
            cut = probe.cut.remote(self._agents_home, name, self._facts[name].devices, asked.cuts)
            devices, refused = ray.get(cut, timeout=CUT_S)
        except (RayError, KeyError) as error:
            _log.warning("node %s does not say how its cards are cut: %r", name, error)
            return
        facts = self._facts[name] = replace(self._facts[name], devices=devices)
        self._told = replace(self._told, nodes=tuple(facts if n.name == name else n for n in self._told.nodes))
        self._rooms[name] = replace(room, cards={device.id: device.index for device in devices})
        told = replace(facts, cuts=refused)
        self._push([Report(kind=ReportKind.NODE, at_ms=_now_ms(), node=name, facts=told)])

    def _tenants(self, name: str) -> tuple[str, ...]:
        """Those with an agent there, or with a table that may hold something untold."""
        start = f"agent/{self._prefix}/{name}/"
        named = {n.removeprefix(start) for n in ray.util.list_named_actors() if n.startswith(start)}
        if self._told.embedded:
            return tuple(sorted(named | set(tenants_with_news(self._home, name))))
        left = ray.get(self._probes[name].tenants.remote(self._agents_home, name), timeout=PROBE_S)
        return tuple(sorted(named | set(left)))

    def _gone(self, name: str) -> None:
        del self._rooms[name]
        self._probes.pop(name, None)
        if self._told.cluster:
            self._facts.pop(name, None)
        with self._lock:
            links = [link for (node, _), link in self._links.items() if node == name]
        for link in links:
            link.forget()
        self._gangs.node_gone(name)
        self._push([Report(kind=ReportKind.NODE_GONE, at_ms=_now_ms(), node=name, message="Ray lost it")])


def prefix_of(installation: Path | str) -> str:
    """Tells the actors of one installation from those of another on the same cluster."""
    return hashlib.sha256(str(installation).encode()).hexdigest()[:10]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def main() -> None:
    """Connect where the first line says and serve."""
    parser = argparse.ArgumentParser(prog="python -P -m workers.ray_bridge")
    parser.add_argument("--home", required=True, type=Path)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--fd", type=int, help="our end of the socket pair")
    what.add_argument("--leave", default="", help="address of a cluster on which to end this home's agents")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    if asked.leave:
        leave(asked.home, asked.leave)
        return
    threading.excepthook = _die
    line, messages = Line(socket.socket(fileno=asked.fd)), queue.SimpleQueue[Message]()
    threading.Thread(target=_receive, args=(line, messages), name="receive", daemon=True).start()
    told = messages.get()
    if not isinstance(told, Connect):
        raise TypeError(f"the service began with {told!r}")
    _connect(told)
    Bridge(asked.home, line, told).run(messages)


def leave(home: Path, address: str) -> None:
    """End this home's agents on an existing cluster, with what they run. Raises RayError, ConnectionError."""
    _connect(Connect(address=address))
    start = f"agent/{prefix_of(home)}/"
    for name in [name for name in ray.util.list_named_actors() if name.startswith(start)]:
        agent = ray.get_actor(name)
        try:
            ray.get(agent.close.remote(), timeout=CALL_S)
        except RayError as error:
            _log.warning("%s does not end what it runs: %r", name, error)
        ray.kill(agent, no_restart=True)


def _receive(line: Line, messages: queue.SimpleQueue[Message]) -> NoReturn:
    """Whatever the bridge is doing when the service closes its end, it is over."""
    for message in line.receive():
        messages.put(message)
    os._exit(0)  # no farewell to Ray: it may be what died


def _die(failure: threading.ExceptHookArgs) -> NoReturn:
    """A bridge that lost a thread is of no use; the service starts another one."""
    name = failure.thread.name if failure.thread else "?"
    _log.critical("thread %s failed", name, exc_info=failure.exc_value)
    os._exit(70)


def _connect(told: Connect) -> None:
    where: dict[str, Any] = {"_node_ip_address": told.ip} if told.ip else {}
    ray.init(address=told.address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.WARNING, **where)


if __name__ == "__main__":
    main()
