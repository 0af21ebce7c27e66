"""Managed fields and server-side apply: who set which field, and what follows from it.

A set of fields is a set of paths; a step of a path is spelled as in FieldsV1: ``f:name``, ``k:{"name":"x"}``,
``v:"item"``.
"""

import copy
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tests.fakes.kube.schema import Schemas

Path = tuple[str, ...]
PRESENT = "present"
"""Value of a path that is an item of a list: it is there; its fields are paths of their own."""
SERVERS = {
    *("name", "namespace", "uid", "creationTimestamp", "resourceVersion", "generation", "managedFields", "selfLink"),
    *("deletionTimestamp", "deletionGracePeriodSeconds", "generateName"),
}
"""Fields of the metadata that nobody owns."""


class Conflict(Exception):
    """Fields an apply wants to change belong to others."""

    def __init__(self, owners: Mapping[str, list[str]]) -> None:
        self.owners = owners
        """Manager to the fields it owns."""
        super().__init__(f"Apply failed with {sum(map(len, owners.values()))} conflicts")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Who owns which fields, by which way of writing."""

    manager: str
    operation: str
    api_version: str
    subresource: str = ""
    time: str = ""
    paths: frozenset[Path]

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.manager, self.operation, self.subresource)


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def fields(obj: Mapping[str, Any], schema: Mapping[str, Any], schemas: Schemas) -> dict[Path, Any]:
    """Every field of an object that can be owned, with its value."""
    bare = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind")}
    if "metadata" in bare:
        bare["metadata"] = {k: v for k, v in bare["metadata"].items() if k not in SERVERS}
        if not bare["metadata"]:
            del bare["metadata"]
    found: dict[Path, Any] = {}
    _fields(bare, schema, schemas, (), found)
    return found


def _fields(value: Any, node: Mapping[str, Any] | None, schemas: Schemas, path: Path, found: dict[Path, Any]) -> None:
    here = schemas.resolve(node)
    if isinstance(value, dict) and value and here.get("x-kubernetes-map-type") != "atomic":
        for key, held in value.items():
            _fields(held, schemas.child(here, key), schemas, (*path, f"f:{key}"), found)
    elif isinstance(value, list) and here.get("x-kubernetes-list-type") == "map":
        for step, item in keyed(value, here):
            found[*path, step] = PRESENT
            _fields(item, here.get("items"), schemas, (*path, step), found)
    elif isinstance(value, list) and here.get("x-kubernetes-list-type") == "set":
        found.update({(*path, f"v:{compact(item)}"): PRESENT for item in value})
    elif path:
        found[path] = value


def keyed(value: Iterable[Any], here: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Items of a list that is a map, each with its step."""
    keys = here["x-kubernetes-list-map-keys"]
    for item in value:
        yield "k:" + compact({key: item[key] for key in keys if key in item}), item


def merge(live: Any, wanted: Any, node: Mapping[str, Any] | None, schemas: Schemas) -> Any:
    """``live`` with what is ``wanted`` set in it, lists by their type."""
    here = schemas.resolve(node)
    if isinstance(wanted, dict) and isinstance(live, dict) and here.get("x-kubernetes-map-type") != "atomic":
        made = dict(live)
        for key, value in wanted.items():
            made[key] = merge(live.get(key), value, schemas.child(here, key), schemas)
        return made
    if isinstance(wanted, list) and isinstance(live, list):
        kind = here.get("x-kubernetes-list-type")
        if kind == "set":
            return live + [item for item in wanted if item not in live]
        if kind == "map":
            there = dict(keyed(live, here))
            for step, item in keyed(wanted, here):
                there[step] = merge(there.get(step), item, here.get("items"), schemas)
            return list(there.values())
    return copy.deepcopy(wanted)


def remove(obj: Any, path: Path) -> None:
    """Take one field out, if it is there, and what is empty without it."""
    value = obj
    for step in path[:-1]:
        value = _step(value, step)
        if value is None:
            return
    last = path[-1]
    if last.startswith("f:") and isinstance(value, dict):
        had = value.pop(last[2:], None)
        if not value and had is not None and len(path) > 1:
            remove(obj, path[:-1])
    elif isinstance(value, list):
        found = _step(value, last)
        value[:] = [item for item in value if item is not found and f"v:{compact(item)}" != last]


def _step(value: Any, step: str) -> Any:
    if step.startswith("f:"):
        return value.get(step[2:]) if isinstance(value, dict) else None
    if step.startswith("k:") and isinstance(value, list):
        keys = json.loads(step[2:])
        return next((i for i in value if isinstance(i, dict) and keys.items() <= i.items()), None)
    return None


def apply(
    live: Mapping[str, Any],
    wanted: Mapping[str, Any],
    entry: Entry,
    schema: Mapping[str, Any],
    schemas: Schemas,
    *,
    force: bool,
) -> dict[str, Any]:
    """The object after ``entry.manager`` applied ``wanted``. ``entry`` comes without paths. Raises Conflict."""
    want, have = fields(wanted, schema, schemas), fields(live, schema, schemas)
    entries = read(live)
    mine = next((e for e in entries if e.key == entry.key), None)
    others = [e for e in entries if e.key != entry.key]
    changed = {path for path, value in want.items() if path in have and have[path] != value}
    contested = {e.manager: sorted(e.paths & changed) for e in others if e.paths & changed}
    if contested and not force:
        raise Conflict({m: [spoken(p) for p in paths] for m, paths in contested.items()})
    others = [replace(e, paths=e.paths - changed) for e in others]
    made = merge(live, wanted, schema, schemas)
    kept = frozenset(want).union(*(e.paths for e in others))
    for path in sorted((mine.paths if mine else frozenset()) - kept, key=len):
        if not any(p[: len(path)] == path for p in kept):
            made = copy.deepcopy(made)
            remove(made, path)
    return with_entries(made, [*others, replace(entry, paths=frozenset(want))])


def update(
    before: Mapping[str, Any] | None,
    after: dict[str, Any],
    entry: Entry,
    schema: Mapping[str, Any],
    schemas: Schemas,
) -> dict[str, Any]:
    """``after`` with who owns what, when ``entry.manager`` changed ``before`` into it by any other way than apply."""
    old = fields(before, schema, schemas) if before is not None else {}
    new = fields(after, schema, schemas)
    changed = frozenset(path for path, value in new.items() if path not in old or old[path] != value)
    gone = frozenset(old) - frozenset(new)
    entries = read(before) if before is not None else []
    mine = next((e.paths for e in entries if e.key == entry.key), frozenset())
    others = [replace(e, paths=e.paths - changed - gone) for e in entries if e.key != entry.key]
    return with_entries(after, [*others, replace(entry, paths=(mine - gone) | changed)])


def spoken(path: Path) -> str:
    """As messages of a server spell a path."""
    said = ""
    for step in path:
        if step.startswith("f:"):
            said += "." + step[2:]
        elif step.startswith("k:"):
            said += "[" + ",".join(f"{k}={compact(v)}" for k, v in json.loads(step[2:]).items()) + "]"
        else:
            said += "[=" + step[2:] + "]"
    return said


def read(obj: Mapping[str, Any]) -> list[Entry]:
    """The entries of an object."""
    return [
        Entry(
            manager=raw["manager"],
            operation=raw["operation"],
            api_version=raw["apiVersion"],
            subresource=raw.get("subresource", ""),
            time=raw.get("time", ""),
            paths=frozenset(_paths(raw.get("fieldsV1", {}), ())),
        )
        for raw in obj.get("metadata", {}).get("managedFields") or ()
    ]


def _paths(tree: Mapping[str, Any], path: Path) -> Iterator[Path]:
    for step, below in tree.items():
        if step == ".":
            yield path
        elif below:
            yield from _paths(below, (*path, step))
        else:
            yield (*path, step)


def with_entries(obj: dict[str, Any], entries: Iterable[Entry]) -> dict[str, Any]:
    """The object with these entries, without empty ones."""
    written = [
        {
            "manager": e.manager,
            "operation": e.operation,
            "apiVersion": e.api_version,
            "time": e.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": _tree(e.paths),
            **({"subresource": e.subresource} if e.subresource else {}),
        }
        for e in entries
        if e.paths
    ]
    return {**obj, "metadata": {**obj.get("metadata", {}), "managedFields": written}}


def _tree(paths: frozenset[Path]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path in sorted(paths):
        below = tree
        for step in path:
            below = below.setdefault(step, {})
    for path in paths:
        below = tree
        for step in path:
            below = below[step]
        if below:
            below["."] = {}
    return tree
