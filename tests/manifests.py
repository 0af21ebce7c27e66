"""Kubernetes objects against what Kubernetes says of itself: its OpenAPI document and KubeRay's CRDs.

They lie in the folder ``SHISUAN_KUBERNETES_DATA``, else here in ``data/kubernetes``, else beside the checkout; a test that
asks for them is skipped where there are none. As with ``kubectl --validate=strict``, an unknown field is a mistake, too.
"""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

PLACES = (Path(__file__).parent / "data" / "kubernetes", Path(__file__).parents[2] / "shared" / "data" / "kubernetes")
OPENAPI = "openapi-v2-1.36.json.gz"
INT_OR_STRING = {"type": ["integer", "string"]}
NUMBER_OR_STRING = {"type": ["number", "string"]}
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"


def data(name: str) -> Any:
    """A file of the folder, parsed (a CRD takes some seconds). Skips the test when it is not there."""
    named = os.environ.get("SHISUAN_KUBERNETES_DATA")
    places = (Path(named),) if named else PLACES
    path = next((place / name for place in places if (place / name).exists()), None)
    if path is None:
        pytest.skip(f"needs Kubernetes' own description: no {name} (SHISUAN_KUBERNETES_DATA names its folder)")
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
        """``/path/of/field: what is wrong``."""
        kind = _kind(thing)
        if kind not in self._validators:
            whole = {**self._kinds[kind], "definitions": self._definitions}
            self._validators[kind] = jsonschema.Draft7Validator(whole)
        errors = self._validators[kind].iter_errors(thing)
        return [f"/{'/'.join(map(str, e.absolute_path))}: {e.message}" for e in errors]


def _kind(thing: dict) -> tuple[str, str, str]:
    group, _, version = thing["apiVersion"].rpartition("/")
    return group, version, thing["kind"]


def _strict(schema: Any) -> Any:
    """The schema, refusing fields it does not name, where it names any."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") == "int-or-string" or schema.get("x-kubernetes-int-or-string"):
        return INT_OR_STRING
    made = {key: _strict(value) for key, value in schema.items() if key not in ("description", "default", "format")}
    fields = schema.get("properties")
    if fields is not None:
        made["properties"] = {name: _strict(field) for name, field in fields.items()}  # one may be called "format"
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
    return made
