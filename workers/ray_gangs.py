"""Gangs in the bridge: reserve on every node or nowhere, hand the ranks to the agents, combine what they report.

A gang is written to ``home/gangs/<lease>.json`` before anything else happens, so that a later bridge knows which leases
are gangs and of whom. Its ranks run under the agents of their node and tenant; Ray holds a placement group for it (one
bundle per rank, bound to the rank's node), which keeps other users of an existing cluster off the same cards.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.exceptions import RayError
from ray.util import get_placement_group, placement_group, placement_group_table, remove_placement_group

from scheduler.model import codec
from scheduler.model.lease import AttemptState
from scheduler.model.order import LeaseOrder, Report, ReportKind
from workers.gang import STOP_REASON, Gang, Outcome
from workers.ray_link import AgentLink, Parcel

_log = logging.getLogger(__name__)

READY_S = 60.0
"""A gang whose nodes, agents and reservation are not all there by then is rolled back."""
LOOK_S = 0.02
UNHEARD_S = 60.0
"""A gang nobody ordered or spoke of in this long after a reconnect is forgotten."""
NODE_ID_LABEL = "ray.io/node-id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A node as Ray sees it."""

    node_id: str
    resources: dict[str, float]
    ip: str = ""
    """Address under which other nodes reach it."""
    cards: dict[str, int]
    """Device id to its index on the node: ``gpu<index>`` is its Ray resource."""


class Gangs:
    """Thread-safe. ``link`` gives the agent of a rank, ``room`` a live node, ``push`` tells the service."""

    def __init__(
        self,
        folder: Path,
        *,
        prefix: str,
        link: Callable[[LeaseOrder], AgentLink],
        room: Callable[[str], Room | None],
        push: Callable[[Sequence[Report]], None],
    ) -> None:
        self._folder, self._prefix = folder, prefix
        self._link, self._room, self._push = link, room, push
        self._lock = threading.RLock()
        """Also held while reports are pushed: a gang's end never overtakes its start."""
        self._begun: set[str] = set()
        self._beginning: set[str] = set()
        """One thread per gang: two would both reserve, and the one that lost would call the whole gang lost."""
        self._stopped: dict[str, str] = {}
        """Why gangs that have not begun yet should not."""
        folder.mkdir(parents=True, exist_ok=True)
        self._gangs = {gang.lease_id: gang for gang in map(self._load, sorted(folder.glob("*.json"))) if gang}

    def start(self, orders: Sequence[LeaseOrder]) -> None:
        """All ranks of one gang; returns at once. One that is known already is only handed over again."""
        with self._lock:
            gang = self._gangs.get(orders[0].lease_id)
            if orders[0].lease_id in self._beginning or (gang is not None and gang.over):
                return
            if gang is None:
                gang = self._gangs[orders[0].lease_id] = Gang(orders)
                self._save(gang)
            self._beginning.add(gang.lease_id)
        threading.Thread(target=self._begin, args=(gang,), name=f"gang-{gang.lease_id}", daemon=True).start()

    def stop(self, lease_ids: Iterable[str], reason: str) -> None:
        """Stop all ranks of those among the leases that are gangs."""
        with self._lock:
            for lease_id in lease_ids:
                gang = self._gangs.get(lease_id)
                if gang is None:
                    continue
                if lease_id not in self._begun and gang.silent():
                    self._stopped[lease_id] = reason
                self._stop(gang, reason)

    def pass_on(self, reports: Sequence[Report]) -> None:
        """Tell the service, with the reports of gang ranks replaced by what they amount to."""
        if not any(report.lease_id in self._gangs for report in reports):
            self._push(reports)
            return
        with self._lock:
            out: list[Report] = []
            for report in reports:
                gang = self._gangs.get(report.lease_id)
                out += [report] if gang is None else self._follow(gang, gang.take(report))
            self._push(out)

    def recorded(self, lease_ids: Iterable[str]) -> None:
        """The combined ends of these are in the database, or of no interest: let go of their reservations."""
        for lease_id in lease_ids:
            with self._lock:
                gang = self._gangs.pop(lease_id, None)
                self._begun.discard(lease_id)
                self._stopped.pop(lease_id, None)
            if gang is not None:
                self._path(lease_id).unlink(missing_ok=True)
                threading.Thread(target=self._release, args=(lease_id,), daemon=True).start()

    def node_gone(self, node: str) -> None:
        """Ranks on that node are lost."""
        with self._lock:
            for gang in tuple(self._gangs.values()):
                if node in gang.nodes:
                    self._push(self._follow(gang, gang.lose(node, f"node {node} is gone", _now_ms())))

    def sweep(self, known: Callable[[], set[str]]) -> None:
        """Forget what an earlier bridge left and nobody knows; remove reservations that belong to no gang."""
        inherited = set(self._gangs)
        for lease_id in self._reservations():
            if lease_id not in self._gangs:  # a gang is known before it reserves
                self._release(lease_id)
        time.sleep(UNHEARD_S)
        with self._lock:
            unheard = [i for i in inherited - known() if i in self._gangs and self._gangs[i].silent()]
            self.recorded(i for i in unheard if i not in self._begun)

    # -- inside --------------------------------------------------------------------------------------------------

    def _begin(self, gang: Gang) -> None:
        try:
            self._reserve_and_tell(gang)
        finally:
            with self._lock:
                self._beginning.discard(gang.lease_id)

    def _reserve_and_tell(self, gang: Gang) -> None:
        until = time.monotonic() + READY_S
        try:
            self._reserve(gang, until)
            for order in gang.orders:
                if not self._link(order).wait_ready(max(0.0, until - time.monotonic())):
                    raise TimeoutError(f"no agent answers on node {order.node}")
            self._meet(gang, until)
        except (TimeoutError, ValueError, RayError) as error:
            _log.warning("gang %s is rolled back: %r", gang.lease_id, error)
            self._refuse(gang, AttemptState.LOST, f"the gang could not start on all its nodes: {error}")
            return
        with self._lock:
            reason, state = self._stopped.get(gang.lease_id), AttemptState.CANCELLED
            if gang.broken and gang.lease_id not in self._begun:
                reason, state = "a node of the gang was lost before it began", AttemptState.LOST
            if reason is None:
                self._begun.add(gang.lease_id)
                for order in gang.orders:
                    self._link(order).tell(Parcel(orders=(order,)))
        if reason is not None:
            self._release(gang.lease_id)
            self._refuse(gang, state, reason)

    def _meet(self, gang: Gang, until: float) -> None:
        """Settle where the ranks meet, and keep it: an order that is repeated must name the same place.

        Raises TimeoutError.
        """
        if gang.rendezvous:
            return
        first = gang.orders[0]
        ip = self._room_of(first, until).ip
        port = self._link(first).free_port(ip)
        with self._lock:
            gang.meet(f"{ip}:{port}")
            self._save(gang)

    def _refuse(self, gang: Gang, state: AttemptState, reason: str) -> None:
        with self._lock:
            if not gang.silent():
                self._stop(gang, reason)  # some ranks run: an earlier bridge had begun it
            self._push(self._follow(gang, gang.refuse(state, reason, _now_ms())))

    def _follow(self, gang: Gang, outcome: Outcome) -> tuple[Report, ...]:
        if outcome.stop_rest:
            self._stop(gang, STOP_REASON)
        if any(report.kind is ReportKind.FINISHED and not report.cursor for report in outcome.reports):
            self.recorded([gang.lease_id])  # no agent keeps anything of it: nothing will be acknowledged
        return outcome.reports

    def _stop(self, gang: Gang, reason: str) -> None:
        for order in gang.orders:
            self._link(order).tell(Parcel(stop=(reason, (gang.lease_id,))))

    # -- reservations --------------------------------------------------------------------------------------------

    def _reserve(self, gang: Gang, until: float) -> None:
        """Raises TimeoutError when Ray has no room on the named nodes."""
        name = self._group(gang.lease_id)
        try:
            group = get_placement_group(name)
        except ValueError:
            rooms = [self._room_of(order, until) for order in gang.orders]
            group = placement_group(
                [_bundle(order, room) for order, room in zip(gang.orders, rooms, strict=True)],
                name=name,
                lifetime="detached",
                bundle_label_selector=[{NODE_ID_LABEL: room.node_id} for room in rooms],
            )
        while (table := placement_group_table(group)).get("state") != "CREATED":
            if time.monotonic() > until or table.get("state") == "REMOVED":
                why = table.get("stats", {}).get("scheduling_state", "unknown")
                raise TimeoutError(f"Ray has no room for all {gang.ranks} ranks ({why})")
            time.sleep(LOOK_S)

    def _room_of(self, order: LeaseOrder, until: float) -> Room:
        """A bridge that has just come up may not have looked at the nodes yet. Raises TimeoutError."""
        while (room := self._room(order.node)) is None:
            if time.monotonic() > until:
                raise TimeoutError(f"node {order.node} is not there")
            time.sleep(LOOK_S)
        return room

    def _release(self, lease_id: str) -> None:
        try:
            remove_placement_group(get_placement_group(self._group(lease_id)))
        except (ValueError, RayError) as error:
            _log.info("no reservation of %s to remove: %s", lease_id, error)

    def _reservations(self) -> set[str]:
        """Lease ids of the groups of this installation that Ray still holds."""
        mark = self._group("")
        tables: dict[str, Any] = placement_group_table()
        held = (t["name"] for t in tables.values() if t.get("state") != "REMOVED")
        return {name.removeprefix(mark) for name in held if name.startswith(mark)}

    def _group(self, lease_id: str) -> str:
        return f"gang/{self._prefix}/{lease_id}"

    # -- files ---------------------------------------------------------------------------------------------------

    def _path(self, lease_id: str) -> Path:
        return self._folder / f"{lease_id}.json"

    def _save(self, gang: Gang) -> None:
        path = self._path(gang.lease_id)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps([codec.encode(order) for order in gang.orders]), encoding="utf-8")
        fresh.chmod(0o600)
        fresh.replace(path)

    @staticmethod
    def _load(path: Path) -> Gang | None:
        try:
            return Gang(codec.decode(tuple[LeaseOrder, ...], json.loads(path.read_text(encoding="utf-8"))))
        except (ValueError, TypeError, KeyError, IndexError) as error:
            _log.warning("%s is damaged and removed: %r", path, error)
            path.unlink(missing_ok=True)
            return None


def _bundle(order: LeaseOrder, room: Room) -> dict[str, float]:
    """What a rank takes of its Ray node: as much as the node has of it, so that a group is never impossible."""
    has = room.resources
    bundle = {"CPU": min(max(order.cpu_milli, 1) / 1_000, has.get("CPU", 0.0))}
    cards = [f"gpu{room.cards[device]}" for device in order.devices if device in room.cards]
    bundle |= {card: 1.0 for card in cards if card in has}
    if not order.simulated and has.get("GPU", 0.0) >= len(order.devices) > 0:
        bundle["GPU"] = float(len(order.devices))
    return {name: amount for name, amount in bundle.items() if amount > 0} or {"memory": 1.0}


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
