"""JSON merge patch (RFC 7386) and JSON patch (RFC 6902)."""

import copy
from typing import Any


class Unprocessable(Exception):
    """The patch does not fit the object."""


def merge_patch(target: Any, patch: Any) -> Any:
    """``target`` with ``patch`` merged in: null removes, lists are replaced. Neither is changed."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    made = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = merge_patch(made.get(key), value)
    return made


def json_patch(target: Any, operations: list[dict[str, Any]]) -> Any:
    """``target`` after every operation, or none of them. Raises Unprocessable."""
    holder = {"": copy.deepcopy(target)}
    for operation in operations:
        try:
            _apply(holder, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise Unprocessable(f"cannot {operation.get('op')} {operation.get('path')!r}: {error}") from None
    return holder[""]


def _apply(holder: dict[str, Any], operation: dict[str, Any]) -> None:
    path, name = operation["path"], operation["op"]
    if name in ("move", "copy"):
        value = copy.deepcopy(_get(holder, operation["from"]))
        if name == "move":
            _remove(holder, operation["from"])
        _add(holder, path, value)
    elif name == "test":
        if _get(holder, path) != operation["value"]:
            raise Unprocessable(f"testing path {path} failed")
    elif name == "add":
        _add(holder, path, operation["value"])
    elif name == "replace":
        _get(holder, path)
        parent, key = _parent(holder, path)
        parent[key] = operation["value"]
    elif name == "remove":
        _remove(holder, path)
    else:
        raise Unprocessable(f"unknown operation {name!r}")


def _steps(path: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")]


def _down(value: Any, step: str) -> Any:
    return value[int(step)] if isinstance(value, list) else value[step]


def _get(holder: dict[str, Any], path: str) -> Any:
    value: Any = holder
    for step in _steps(path):
        value = _down(value, step)
    return value


def _parent(holder: dict[str, Any], path: str) -> tuple[Any, Any]:
    *way, last = _steps(path)
    value: Any = holder
    for step in way:
        value = _down(value, step)
    return value, (len(value) if last == "-" else int(last)) if isinstance(value, list) else last


def _add(holder: dict[str, Any], path: str, value: Any) -> None:
    parent, key = _parent(holder, path)
    if not isinstance(parent, list):
        parent[key] = value
    elif key <= len(parent):
        parent.insert(key, value)
    else:
        raise IndexError(f"index {key} is beyond the end")


def _remove(holder: dict[str, Any], path: str) -> None:
    parent, key = _parent(holder, path)
    del parent[key]
