"""Which extended resources are accelerators, and of what kind: the table ``accelerators.yaml``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import yaml

TABLE = Path(__file__).with_name("accelerators.yaml")


class Unit(StrEnum):
    """What one of a resource is."""

    CARD = "card"
    MIG = "mig"
    SHARE = "share"
    """A part of a card that others use too."""
    PART = "part"
    """An amount that goes with a card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """Who made a card, and how their nodes are labelled."""

    name: str
    taint: str = ""
    """What jobs must tolerate to run on these cards; empty: nothing."""
    dra: str = ""
    """Driver of dynamic resource allocation."""
    model: str = ""
    """Label with the name of the product."""
    memory_mib: str = ""
    """Label with the memory of one card."""
    replicas: str = ""
    """Label that says into how many shares each card is cut."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """What one unit of a resource is."""

    resource: str
    unit: Unit
    vendor: Vendor
    profile: str = ""
    memory_mib: str = ""
    """Label with the memory of one unit."""


class Accelerators:
    """The table. Raises ValueError for one that cannot be read."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self._rows: list[tuple[re.Pattern[str], Unit, Vendor, str]] = []
        self.by_driver: dict[str, Vendor] = {}
        """Vendors by their driver of dynamic resource allocation."""
        for name, told in table["vendors"].items():
            vendor = Vendor(name=name, **{key: value for key, value in told.items() if key != "resources"})
            if vendor.dra:
                self.by_driver[vendor.dra] = vendor
            for row in told["resources"]:
                label = row.get("memory_mib", vendor.memory_mib)
                self._rows.append((re.compile(row["resource"]), Unit(row["is"]), vendor, label))
        self._known: dict[str, Accelerator | None] = {}

    def find(self, resource: str) -> Accelerator | None:
        """What one of this resource is; None: no accelerator."""
        if resource not in self._known:
            self._known[resource] = self._find(resource)
        return self._known[resource]

    def is_device(self, resource: str) -> bool:
        """Whether units of it are devices, or shares of some."""
        found = self.find(resource)
        return found is not None and found.unit is not Unit.PART

    def _find(self, resource: str) -> Accelerator | None:
        for pattern, unit, vendor, label in self._rows:
            if found := pattern.fullmatch(resource):
                spelled = found.groupdict().get("profile") or ""
                return Accelerator(
                    resource=resource,
                    unit=unit,
                    vendor=vendor,
                    profile=_profile(spelled),
                    memory_mib=label.format(profile=spelled),
                )
        return None


def _profile(spelled: str) -> str:
    """``1g.24gb.gfx`` as the driver spells it: ``1g.24gb+gfx``."""
    size, _, extra = spelled.partition("gb")
    return f"{size}gb+{extra[1:]}" if extra.startswith(".") else spelled


@cache
def shipped() -> Accelerators:
    """The table that comes with shisuan."""
    return Accelerators(yaml.safe_load(TABLE.read_text(encoding="utf-8")))
