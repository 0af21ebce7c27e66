"""Nodes and cards that are declared rather than found: ``--nodes FILE`` and ``--cards 8xH100``.

::

    nodes:
      - name: alpha            # required; one per Ray node
        cpus: 16               # default: this machine's
        memory: 64GiB          # default: this machine's
        scratch: 200GiB
        cards: 8xH100          # simulated: shown as such, never given to a program, never billed
        labels: {zone: a}
        taints: [quiet]
        rack: r1
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from scheduler.jobfile import quantity
from scheduler.model import catalogue
from scheduler.model.errors import InvalidInput, Problem, unknown
from scheduler.model.node import Device, Node

MOST_CARDS = 64
MOST_NODES = 256
MOST_BYTES = 1024 * 1024
FIELDS = ("name", "cpus", "memory", "scratch", "cards", "labels", "taints", "rack")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_CARDS = re.compile(r"(\d{1,3})\s*[x×:]\s*(.+)")


def simulated_cards(text: str, node: str, pointer: str) -> tuple[Device, ...]:
    """Cards that exist on paper: ``8xH100`` or ``2xL40S,1xA100-80GB``. Raises InvalidInput.

    A short name that several boards have means the one with NVLink (SXM) where there is one, else the first.
    """
    models: list[str] = []
    for part in text.split(","):
        found = _CARDS.fullmatch(part.strip())
        if found is None:
            raise InvalidInput([Problem(pointer, f"{part.strip()!r} is not COUNTxMODEL, such as 8xH100")])
        ids = catalogue.resolve_alias(found[2])
        if not ids:
            raise InvalidInput([unknown(pointer, "card model", found[2].strip(), catalogue.known_models())])
        models += [min(ids, key=lambda board: ("SXM" not in board, board))] * int(found[1])
    if not 1 <= len(models) <= MOST_CARDS:
        raise InvalidInput([Problem(pointer, f"must declare 1 to {MOST_CARDS} cards, not {len(models)}")])
    return tuple(_simulated(node, index, model) for index, model in enumerate(models))


def _simulated(node: str, index: int, model: str) -> Device:
    return Device(
        id=f"SIM-{node}-{index}",
        model=model,
        index=index,
        memory_mib=catalogue.nominal_mib(model),
        island=catalogue.island(model, node),
        simulated=True,
    )


def read_nodes(path: str, machine: Node) -> tuple[Node, ...]:
    """The nodes of a file; what it leaves out is ``machine``'s. Raises InvalidInput with every mistake."""
    entries = _entries(path)
    problems: list[Problem] = []
    nodes: list[Node] = []
    for position, entry in enumerate(entries):
        try:
            nodes.append(_node(entry, f"nodes[{position}]", machine))
        except InvalidInput as error:
            problems += error.problems
    names = [n.name for n in nodes]
    for position, name in enumerate(names):
        if name in names[:position]:
            problems.append(Problem(f"nodes[{position}].name", f"{name!r} is there twice"))
    if problems:
        raise InvalidInput(problems)
    return tuple(nodes)


def _entries(path: str) -> list[Any]:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InvalidInput([Problem("--nodes", f"cannot read {path}: {error.strerror}")]) from None
    if len(data) > MOST_BYTES:
        raise InvalidInput([Problem("--nodes", f"{path} is larger than 1 MiB")])
    try:
        content = yaml.safe_load(data)
    except yaml.YAMLError as error:
        raise InvalidInput([Problem("--nodes", f"{path} is not YAML: {' '.join(str(error).split())}")]) from None
    entries = content.get("nodes") if isinstance(content, dict) and set(content) == {"nodes"} else None
    if not isinstance(entries, list) or not 1 <= len(entries) <= MOST_NODES:
        text = f"{path} must hold one list 'nodes' of 1 to {MOST_NODES} entries"
        raise InvalidInput([Problem("--nodes", text)])
    return entries


def _node(entry: Any, pointer: str, machine: Node) -> Node:
    if not isinstance(entry, dict):
        raise InvalidInput([Problem(pointer, "must be a mapping with at least a name", FIELDS)])
    problems = [unknown(f"{pointer}.{f}", "field", str(f), FIELDS) for f in entry if f not in FIELDS]
    name = entry.get("name")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        rule = "is needed: lower-case letters, digits, '-' and '.', at most 63"
        problems.append(Problem(f"{pointer}.name", rule))
        name = "?"
    made = Node(name=name, cpu_milli=machine.cpu_milli, memory_mib=machine.memory_mib, lane=machine.lane)
    made = replace(made, labels=machine.labels, scratch_mib=machine.scratch_mib)
    for field in FIELDS[1:]:
        if field not in entry:
            continue
        try:
            made = replace(made, **dict(_values(field, entry[field], name, f"{pointer}.{field}")))
        except quantity.Malformed as error:
            problems.append(Problem(f"{pointer}.{field}", str(error), error.choices, error.nearest))
        except InvalidInput as error:
            problems += error.problems
    if problems:
        raise InvalidInput(problems)
    return made


def _values(field: str, value: Any, node: str, pointer: str) -> Iterator[tuple[str, Any]]:
    """A field of the file as fields of a Node. Raises Malformed or InvalidInput."""
    match field:
        case "cpus":
            yield "cpu_milli", quantity.cpu_milli(value)
        case "memory" | "scratch":
            yield f"{field}_mib", quantity.memory_mib(value)
        case "cards":
            yield "devices", simulated_cards(str(value), node, pointer)
        case "labels":
            if not isinstance(value, dict):
                raise quantity.Malformed("must be a mapping of names to values")
            yield "labels", tuple(sorted((str(k), str(v)) for k, v in value.items()))
        case "taints":
            if not isinstance(value, list):
                raise quantity.Malformed("must be a list of names")
            yield "taints", tuple(sorted(str(v) for v in value))
        case "rack":
            yield "rack", str(value)
