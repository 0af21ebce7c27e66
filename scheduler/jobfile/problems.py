"""pydantic's errors as Problems: a pointer in the file's own spelling, a plain sentence, the valid names."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from scheduler.jobfile import kinds
from scheduler.jobfile.jobfields import Resources
from scheduler.jobfile.quantity import shown
from scheduler.model.errors import InvalidInput, Problem, unknown

Loc = tuple[int | str, ...]


def pointer(loc: Sequence[int | str]) -> str:
    """``steps[2].resources.cpus``. Tags of unions (``<render>``) are ours, not the file's, and are left out."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not part.startswith("<"):
            text += f".{part}" if text else part
    return text


def _deep(model: type[BaseModel], loc: Loc) -> type[BaseModel]:
    """The model whose field ``loc`` names last."""
    for part in loc[:-1]:
        if part == "resources":
            model = Resources
        elif part == "<script>":
            model = kinds.SceneScript
        elif isinstance(part, str) and part.startswith("<") and part[1:-1] in kinds.STEP_KINDS:
            model = kinds.STEP_KINDS[part[1:-1]]
    return model


_KINDS = {"dict_type": "a mapping", "model_type": "a mapping of fields", "list_type": "a list", "string_type": "text"}
_KINDS |= {"bool_type": "true or false", "int_type": "a whole number"}

Sentence = Callable[[Mapping[str, Any], Any], str]
_SENTENCES: dict[str, Sentence] = {
    "missing": lambda ctx, got: "is required",
    "too_short": lambda ctx, got: f"needs at least {ctx['min_length']} entry",
    "too_long": lambda ctx, got: f"has {ctx['actual_length']} entries; the limit is {ctx['max_length']}",
}


def _problem(model: type[BaseModel], error: ErrorDetails) -> Problem:
    kind, loc, got, ctx = error["type"], error["loc"], error["input"], error.get("ctx", {})
    where = pointer(loc)
    if kind == "extra_forbidden":
        return _unknown_field(where, str(loc[-1]), _deep(model, loc).model_fields)
    if kind == "malformed":
        return Problem(where, ctx["text"], tuple(ctx["choices"]), ctx["nearest"])
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _kind_problem(where, got, kinds.STEP_KINDS)
    if kind == "literal_error":
        return unknown(where, str(loc[-1]), str(got), _literals(_deep(model, loc), str(loc[-1])))
    if kind in _KINDS:
        return Problem(where, f"must be {_KINDS[kind]}, got {shown(got)}")
    if kind in _SENTENCES:
        return Problem(where, _SENTENCES[kind](ctx, got))
    return Problem(where, error["msg"])


_MEANT = dict.fromkeys(("card", "cards", "gpu", "gpus", "num_gpus"), "accelerators")
_MEANT |= {"cmd": "run", "command": "run", "script": "run", "depends_on": "needs", "ram": "memory"}
"""What other tools call our fields, where the nearest spelling would be another field."""


def _unknown_field(where: str, got: str, valid: Iterable[str]) -> Problem:
    found = unknown(where, "field", got, valid)
    meant = _MEANT.get(got, "")
    return replace(found, nearest=meant) if meant in found.choices else found


def _literals(model: type[BaseModel], field: str) -> tuple[str, ...]:
    annotation = model.model_fields[field].annotation
    return tuple(str(value) for value in getattr(annotation, "__args__", ()))


def _kind_problem(where: str, got: Any, valid: Iterable[str]) -> Problem:
    if not isinstance(got, dict):
        return Problem(where, f"must be a mapping of fields, got {shown(got)}")
    where = f"{where}.kind" if where else "kind"
    if "kind" not in got:
        return Problem(where, "is required", tuple(sorted(valid)))
    return unknown(where, "kind", str(got["kind"]), valid)


def validate(tree: dict[str, Any]) -> tuple[kinds.JobFile, tuple[Problem, ...]]:
    """The file as a model, and the problems found.

    With problems, the model is the file without its wrong optional fields, so that later checks can find more mistakes
    in the rest. Raises InvalidInput when so much is wrong that no model is left.
    """
    problem = None if tree.get("kind") in list(kinds.JOB_KINDS) else _kind_problem("", tree, kinds.JOB_KINDS)
    if problem is not None:
        raise InvalidInput([problem])
    model = kinds.JOB_KINDS[tree["kind"]]
    tree = _without_nulls(tree)
    try:
        return model.model_validate(tree), ()
    except ValidationError as error:
        details = error.errors(include_url=False)
    problems = tuple(_problem(model, detail) for detail in details)
    try:
        return model.model_validate(_pruned(tree, [detail["loc"] for detail in details])), problems
    except ValidationError:
        raise InvalidInput(problems) from None


def _without_nulls(tree: dict[str, Any]) -> dict[str, Any]:
    """A field without a value counts as left out, as in Kubernetes. Users' own mappings (env, args) are not touched."""
    kept = {name: value for name, value in tree.items() if value is not None}
    for name in ("resources", "scene"):
        if isinstance(kept.get(name), dict):
            kept[name] = _without_nulls(kept[name])
    if isinstance(kept.get("steps"), list):
        kept["steps"] = [_without_nulls(step) if isinstance(step, dict) else step for step in kept["steps"]]
    return kept


def _pruned(tree: dict[str, Any], locs: Iterable[Loc]) -> dict[str, Any]:
    """``tree`` without the fields at ``locs``. Steps stay: taking one out would shift the pointers of the others."""
    left = copy.deepcopy(tree)
    for loc in locs:
        path = [part for part in loc if isinstance(part, int) or not part.startswith("<")]
        # The innermost mapping key: a wrong entry of a list takes the whole list with it.
        while path and isinstance(path[-1], int):
            path.pop()
        at: Any = left
        for part in path[:-1]:
            at = _step_into(at, part)
        if isinstance(at, dict) and path:
            at.pop(path[-1], None)
    return left


def _step_into(at: Any, part: int | str) -> Any:
    try:
        return at[part]
    except (KeyError, IndexError, TypeError):
        return None
