"""Schemas: what an object may hold. One walk prunes, sets defaults and finds mistakes."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

INT_OR_STRING = "x-kubernetes-int-or-string"
OPEN = "x-kubernetes-preserve-unknown-fields"
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
PYTHON = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}
"""JSON Schema's types. A bool is an int to Python: :meth:`Schemas._has_type` tells them apart."""
SIZES = {"string": "Length", "array": "Items", "object": "Properties"}


@dataclass(slots=True)
class Findings:
    """What a walk found."""

    invalid: list[tuple[str, str]] = field(default_factory=list)
    """Path and sentence: the object is refused."""
    mistyped: list[tuple[str, str]] = field(default_factory=list)
    """A value of another type than the field's."""
    unknown: list[str] = field(default_factory=list)
    """Fields nobody declared: dropped, or refused with ``fieldValidation=Strict``."""


class Schemas:
    """Named definitions, and the walks over them."""

    def __init__(self, definitions: Mapping[str, Any]) -> None:
        self._definitions = definitions

    def resolve(self, node: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """The definition a node refers to, with what the node itself adds (its list type)."""
        if node is None:
            return {}
        if "$ref" not in node:
            return node
        name = node["$ref"].removeprefix("#/definitions/")
        meant = {**self._definitions[name], **{k: v for k, v in node.items() if k.startswith("x-")}}
        return {**meant, INT_OR_STRING: True} if name == QUANTITY else meant

    def child(self, node: Mapping[str, Any] | None, key: str) -> Mapping[str, Any] | None:
        """Schema of an object's field; None where the schema does not say."""
        here = self.resolve(node)
        found = here.get("properties", {}).get(key)
        return found if found is not None else _extra(here)

    def items(self, node: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Schema of a list's items."""
        return self.resolve(node).get("items")

    def conform(
        self, value: Any, node: Mapping[str, Any] | None, findings: Findings, path: str = "", *, lenient: str = ""
    ) -> Any:
        """``value`` as it would be stored: without unknown fields, with defaults.

        Below the path ``lenient`` nothing is required: servers do not check the status of built-in kinds.
        """
        here = self.resolve(node)
        if here.get(INT_OR_STRING) or here.get("format") == "int-or-string":
            if not isinstance(value, int | float | str) or isinstance(value, bool):
                findings.mistyped.append((path, "must be a number or a string"))
            return value
        kind = here.get("type")
        if kind is None:
            return value
        if not self._has_type(value, kind):
            findings.mistyped.append((path, f"must be of type {kind}, not {type(value).__name__}"))
            return value
        findings.invalid += ((path, said) for said in limits(value, here))
        if kind == "array":
            return [
                self.conform(item, here.get("items"), findings, f"{path}[{i}]", lenient=lenient)
                for i, item in enumerate(value)
            ]
        return self._object(value, here, findings, path, lenient) if kind == "object" else value

    def _object(
        self, value: dict[str, Any], here: Mapping[str, Any], findings: Findings, path: str, lenient: str
    ) -> dict[str, Any]:
        declared, extra = here.get("properties", {}), _extra(here)
        is_open = here.get(OPEN) or (not declared and extra is None)
        made: dict[str, Any] = {}
        for key, held in value.items():
            where = f"{path}.{key}" if path else key
            schema = declared.get(key, extra)
            if schema is None and not is_open:
                findings.unknown.append(where)
            elif held is None and not self.resolve(schema).get("nullable"):
                continue
            elif schema is None:
                made[key] = held
            else:
                made[key] = self.conform(held, schema, findings, where, lenient=lenient)
        for key, schema in declared.items():
            if key not in made and "default" in schema:
                made[key] = schema["default"]
        if not lenient or not path.startswith(lenient):
            missing = (key for key in here.get("required", ()) if key not in made)
            findings.invalid += ((f"{path}.{key}" if path else key, "Required value") for key in missing)
        return made

    @staticmethod
    def _has_type(value: Any, kind: str) -> bool:
        if isinstance(value, bool):
            return kind == "boolean"
        return isinstance(value, PYTHON[kind]) or (
            kind == "integer" and isinstance(value, float) and value.is_integer()
        )


def _extra(here: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found = here.get("additionalProperties")
    return found if isinstance(found, dict) else {} if found is True else None


def limits(value: Any, here: Mapping[str, Any]) -> Iterator[str]:
    """Sentences about bounds of its schema that a value breaks."""
    if "enum" in here and value not in here["enum"]:
        yield f"Unsupported value: {value!r}: supported values: {', '.join(map(repr, here['enum']))}"
    if "pattern" in here and isinstance(value, str) and not re.search(here["pattern"], value):
        yield f"Invalid value: {value!r}: should match {here['pattern']!r}"
    if "minimum" in here and value < here["minimum"]:
        yield f"Invalid value: {value!r}: should be greater than or equal to {here['minimum']}"
    if "maximum" in here and value > here["maximum"]:
        yield f"Invalid value: {value!r}: should be less than or equal to {here['maximum']}"
    size = SIZES.get(here.get("type", ""))
    if size and len(value) < here.get(f"min{size}", 0):
        yield f"Invalid value: should have at least {here[f'min{size}']}"
    if size and len(value) > here.get(f"max{size}", len(value)):
        yield f"Too long: may not be more than {here[f'max{size}']}"
