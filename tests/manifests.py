"""Kubernetes objects against what Kubernetes says of itself: its OpenAPI document.

It lies in the folder ``SHISUAN_KUBERNETES_DATA``, else here in ``data/kubernetes``, else beside the checkout; a test
that asks for it is skipped where there is none. As with ``kubectl --validate=strict``, an unknown field is a mistake.
"""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest

PLACES = (Path(__file__).parent / "data" / "kubernetes", Path(__file__).parents[2] / "shared" / "data" / "kubernetes")
OPENAPI = "openapi-v2-1.36.json.gz"
INT_OR_STRING = {"type": ["integer", "string"]}
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"


def openapi() -> dict[str, Any]:
    """The document. Skips the test when it is not there."""
    named = os.environ.get("SHISUAN_KUBERNETES_DATA")
    places = (Path(named),) if named else PLACES
    path = next((place / OPENAPI for place in places if (place / OPENAPI).exists()), None)
    if path is None:
        pytest.skip(f"needs Kubernetes' own description: no {OPENAPI} (SHISUAN_KUBERNETES_DATA names its folder)")
    return json.loads(gzip.decompress(path.read_bytes()))


class Kinds:
    """Every built-in kind, and what is wrong with an object of it."""

    def __init__(self, document: dict[str, Any]):
        definitions = document["definitions"]
        self._names = {
            (kind["group"], kind["version"], kind["kind"]): name
            for name, schema in definitions.items()
            for kind in schema.get("x-kubernetes-group-version-kind", ())
        }
        self._definitions = {name: _strict(schema) for name, schema in definitions.items()}
        self._definitions[QUANTITY] = {"type": ["number", "string"]}

    def knows(self, thing: dict[str, Any]) -> bool:
        return _kind(thing) in self._names

    def problems(self, thing: dict[str, Any]) -> list[str]:
        """``/path/of/field: what is wrong``."""
        schema = {"$ref": f"#/definitions/{self._names[_kind(thing)]}", "definitions": self._definitions}
        errors = jsonschema.Draft7Validator(schema).iter_errors(thing)
        return [f"/{'/'.join(map(str, e.absolute_path))}: {e.message}" for e in errors]


def _kind(thing: dict[str, Any]) -> tuple[str, str, str]:
    group, _, version = thing["apiVersion"].rpartition("/")
    return group, version, thing["kind"]


def _strict(schema: Any) -> Any:
    """The schema, refusing fields it does not name, where it names any."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "int-or-string":
        return INT_OR_STRING
    made = {key: _strict(value) for key, value in schema.items() if key not in ("description", "default", "format")}
    if "properties" in schema:
        # Field by field: one may be called "format".
        made["properties"] = {name: _strict(field) for name, field in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    return made
