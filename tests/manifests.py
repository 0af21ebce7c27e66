"""Kubernetes objects against what Kubernetes says of itself: its OpenAPI document and KubeRay's CRDs.

They lie in the folder ``SHISUAN_KUBERNETES_DATA``, or in one beside the checkout; a test that asks for them is skipped
where there are none. An API server does the same with ``--validate=strict``: an unknown field is a mistake, too.
"""

import gzip
import json
import os
from pathlib import Path

import jsonschema
import pytest
import yaml

BESIDE = Path(__file__).parents[2] / "shared" / "data" / "kubernetes"
OPENAPI = "openapi-v2-1.36.json.gz"
INT_OR_STRING = {"type": ["integer", "string"]}
NUMBER_OR_STRING = {"type": ["number", "string"]}
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


def data(name: str):
    """A file of the folder, parsed. Skips the test when it is not there."""
    path = Path(os.environ.get("SHISUAN_KUBERNETES_DATA") or BESIDE) / name
    if not path.exists():
        pytest.skip(f"needs Kubernetes' own description: {path} is missing (SHISUAN_KUBERNETES_DATA names its folder)")
    text = gzip.decompress(path.read_bytes())
    return json.loads(text) if name.endswith("json.gz") else yaml.load(text, yaml.CSafeLoader)


class Kinds:
    """Every kind that is known, and what is wrong with an object of it."""

    def __init__(self, openapi: dict, crds=()):
        definitions = {name: _strict(schema) for name, schema in openapi["definitions"].items()}
        definitions[QUANTITY] = NUMBER_OR_STRING
        self._kinds = {}
        for name, schema in openapi["definitions"].items():
            for kind in schema.get("x-kubernetes-group-version-kind", ()):
                whole = {"$ref": f"#/definitions/{name}"}
                self._kinds[kind["group"], kind["version"], kind["kind"]] = whole
        for crd in crds:
            spec = crd["spec"]
            for version in spec["versions"]:
                schema = _strict(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"$ref": f"#/definitions/{META}"}
                self._kinds[spec["group"], version["name"], spec["names"]["kind"]] = schema
        self._definitions = definitions
        self._validators = {}

    def knows(self, thing: dict) -> bool:
        return _kind(thing) in self._kinds

    def problems(self, thing: dict) -> list[str]:
        """``/path/of/field: what is wrong``, deepest first."""
        kind = _kind(thing)
        if kind not in self._validators:
            whole = {**self._kinds[kind], "definitions": self._definitions}
            self._validators[kind] = jsonschema.Draft7Validator(whole)
        errors = self._validators[kind].iter_errors(thing)
        return [f"/{'/'.join(map(str, e.absolute_path))}: {e.message}" for e in errors]


def _kind(thing: dict) -> tuple[str, str, str]:
    group, _, version = thing["apiVersion"].rpartition("/")
    return group, version, thing["kind"]


def _strict(schema):
    """The schema, refusing fields it does not name, where it names any."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "int-or-string" or schema.get("x-kubernetes-int-or-string"):
        return INT_OR_STRING
    made = {key: _strict(value) for key, value in schema.items() if key not in ("description", "default", "format")}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and not open_ended:
        made["additionalProperties"] = False
    return made
