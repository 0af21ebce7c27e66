"""Which kinds there are: read from the OpenAPI document and from CustomResourceDefinitions, never written down."""

import gzip
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.fakes.kube.schema import META, OPEN, Schemas

DATA = Path(__file__).parents[2] / "data" / "kubernetes"
PATH = re.compile(
    r"/(?:api|apis/(?P<group>[^/]+))/(?P<version>v[^/]+)(?P<inside>/namespaces/\{namespace\})?"
    r"/(?P<plural>[a-z]+)(?:/\{name\}(?:/(?P<sub>[a-z]+))?)?"
)
GENERATION = {
    *("pods", "deployments", "replicasets", "statefulsets", "daemonsets", "jobs", "cronjobs", "ingresses"),
    *("networkpolicies", "poddisruptionbudgets", "customresourcedefinitions", "resourceslices"),
}
"""Built-in kinds whose ``metadata.generation`` counts changes of the specification."""
CONDITIONAL = {"leases"}
"""Built-in kinds that may not be replaced without a resourceVersion; custom ones never may."""
GRACEFUL = {"pods"}
"""Kinds that a node's agent has to end before they are gone."""
FREE_NAMES = {"rbac.authorization.k8s.io"}
"""Groups whose objects may be named as they like."""
FIELDS = {
    "pods": ("spec.nodeName", "spec.schedulerName", "spec.serviceAccountName", "status.phase", "status.podIP"),
    "nodes": ("spec.unschedulable",),
    "events": ("involvedObject.name", "involvedObject.kind", "involvedObject.uid", "reason", "type"),
    "secrets": ("type",),
    "jobs": ("status.successful",),
    "resourceslices": ("spec.nodeName", "spec.driver"),
}
"""Field selectors beside ``metadata.name`` and ``metadata.namespace``, which every kind has."""
BORN_WITH_STATUS = {"nodes"}
"""Kinds whose status may be given at creation; others begin without."""
INITIAL = {
    ("", "pods"): {"status": {"phase": "Pending"}},
    ("", "namespaces"): {"status": {"phase": "Active"}, "spec": {"finalizers": ["kubernetes"]}},
}
"""What a server itself fills in at creation, where the product may look at it."""
SCALED = ("spec.replicas", "status.replicas", "")
"""Where a built-in kind with a scale keeps wanted and present replicas, and its selector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind in one version."""

    group: str
    version: str
    plural: str
    name: str
    namespaced: bool
    subresources: frozenset[str] = frozenset()
    schema: Mapping[str, Any]
    fields: tuple[str, ...] = ()
    scale: tuple[str, str, str] = SCALED
    custom: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def table(self) -> tuple[str, str]:
        """Versions of a kind share their objects."""
        return (self.group, self.plural)

    @property
    def has_generation(self) -> bool:
        return self.custom or self.plural in GENERATION

    @property
    def is_conditional(self) -> bool:
        return self.custom or self.plural in CONDITIONAL


@cache
def openapi() -> Mapping[str, Any]:
    """The OpenAPI document of Kubernetes 1.36."""
    with gzip.open(DATA / "openapi-v2-1.36.json.gz") as file:
        return json.load(file)


@cache
def crd(plural: str) -> Mapping[str, Any]:
    """KubeRay's definition of ``rayclusters`` or ``rayjobs``."""
    with gzip.open(DATA / f"ray.io_{plural}.yaml.gz") as file:
        return yaml.load(file, yaml.CSafeLoader)


@cache
def schemas() -> Schemas:
    return Schemas(openapi()["definitions"])


@cache
def built_in() -> tuple[Kind, ...]:
    """Every kind of the document that can be listed."""
    verbs: dict[tuple[str, str, str], dict[str, Any]] = defaultdict(dict)
    subresources: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    namespaced: set[tuple[str, str, str]] = set()
    for path, operations in openapi()["paths"].items():
        found = PATH.fullmatch(path)
        if found is None:
            continue
        key = (found["group"] or "", found["version"], found["plural"])
        if found["inside"]:
            namespaced.add(key)
        if found["sub"]:
            subresources[key].add(found["sub"])
        else:
            verbs[key] |= {o["x-kubernetes-action"]: o for o in operations.values() if "x-kubernetes-action" in o}
    return tuple(
        Kind(
            group=key[0],
            version=key[1],
            plural=key[2],
            name=found["list"]["x-kubernetes-group-version-kind"]["kind"],
            namespaced=key in namespaced,
            subresources=frozenset(subresources[key]),
            schema=_schema_of(found["list"]),
            fields=FIELDS.get(key[2], ()),
        )
        for key, found in sorted(verbs.items())
        if "list" in found and "post" in found
    )


def _schema_of(listing: Mapping[str, Any]) -> Mapping[str, Any]:
    several = schemas().resolve(listing["responses"]["200"]["schema"])
    return several["properties"]["items"]["items"]


def custom(definition: Mapping[str, Any]) -> Iterator[Kind]:
    """The kinds a CustomResourceDefinition makes, one per served version."""
    spec = definition["spec"]
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        root = dict(version.get("schema", {}).get("openAPIV3Schema", {"type": "object", OPEN: True}))
        text = {"type": "string"}
        root["properties"] = root.get("properties", {}) | {
            "apiVersion": text,
            "kind": text,
            "metadata": {"$ref": f"#/definitions/{META}"},
        }
        scale = version.get("subresources", {}).get("scale", {})
        paths = ("specReplicasPath", "statusReplicasPath", "labelSelectorPath")
        yield Kind(
            group=spec["group"],
            version=version["name"],
            plural=spec["names"]["plural"],
            name=spec["names"]["kind"],
            namespaced=spec["scope"] == "Namespaced",
            subresources=frozenset(version.get("subresources", {})),
            schema=root,
            fields=tuple(f["jsonPath"].removeprefix(".") for f in version.get("selectableFields", ())),
            scale=tuple(scale.get(path, "").removeprefix(".") for path in paths),
            custom=True,
        )
