"""Dynamic resource allocation: the controller that makes claims from templates, and the scheduler's choice of devices.

Of CEL it knows the conjunction that names one device of a driver; of classes the two that NVIDIA's driver installs.
Anything else fails loudly.
"""

import copy
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.fakes.kube.server import FakeKubernetes
from tests.fakes.kube.verbs import Call
from tests.fakes.kuberay.objects import Body, Object, owner_of

WORD = r'"(?:[^"\\]|\\.)*"'
TOLD = r"device\.attributes\[({})\]"
NAMED = re.compile(
    rf'device\.driver == ({WORD}) && "uuid" in {TOLD.format(WORD)} && {TOLD.format(WORD)}\.uuid == ({WORD})'
)
CLASSES = {"gpu.nvidia.com": ("gpu.nvidia.com", "gpu"), "mig.nvidia.com": ("gpu.nvidia.com", "mig")}
"""Driver and type of the devices of a class."""
OVER = ("Succeeded", "Failed")
HARD = ("NoSchedule", "NoExecute")
Place = tuple[str, str, str]
"""Driver, pool and name of a device."""


class Devices:
    """``look`` is called under the storage's lock, again and again."""

    def __init__(self, double: FakeKubernetes) -> None:
        self._double = double

    def look(self) -> None:
        """Claims for pods that name a template; what nobody uses any more is free."""
        pods = {pod["metadata"]["uid"]: pod for pod in self._double.objects("pods")}
        for pod in pods.values():
            if _is_over(pod) or "deletionTimestamp" in pod["metadata"]:
                continue
            for told in pod["spec"].get("resourceClaims") or ():
                template = told.get("resourceClaimTemplateName")
                if template and told["name"] not in _made(pod):
                    self._make(pod, told["name"], template)
        for claim in self._double.objects("resourceclaims"):
            self._free(claim, pods)

    def _make(self, pod: Object, name: str, template: str) -> None:
        namespace = pod["metadata"]["namespace"]
        found = self._double.get("resourceclaimtemplates", template, namespace)
        if found is None:
            return
        made = copy.deepcopy(dict(found["spec"]))
        meta = {**made.get("metadata", {}), "name": f"{pod['metadata']['name']}-{name}", "namespace": namespace}
        meta |= {"ownerReferences": [owner_of(pod)]}
        body: Body = {
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceClaim",
            "metadata": meta,
            "spec": made["spec"],
        }
        call = Call(kind=self._double.kind_of(body), namespace=namespace, query={"fieldValidation": "Strict"})
        self._double.verbs.create(call, body)
        status = dict(pod.get("status") or {})
        said = [*(status.get("resourceClaimStatuses") or ()), {"name": name, "resourceClaimName": meta["name"]}]
        self._double.put({**pod, "status": {**status, "resourceClaimStatuses": said}})

    def _free(self, claim: Object, pods: Mapping[str, Object]) -> None:
        status = claim.get("status") or {}
        users = status.get("reservedFor") or []
        still = [one for one in users if one["uid"] in pods and not _is_over(pods[one["uid"]])]
        if still != users:
            kept = {key: value for key, value in status.items() if key not in ("reservedFor", "allocation")}
            left = {"reservedFor": still, "allocation": status["allocation"]} if still else {}
            self._double.put({**claim, "status": {**kept, **left}})

    # ── the scheduler ────────────────────────────────────────────────────────────────────────────────────────────

    def problem(self, pod: Object, node: str) -> str:
        """Why a pod cannot have its claims on this node; empty: it can."""
        held = self._held()
        for _, claim in self._claims(pod):
            if claim is None:
                return "waiting for resource claims to be created"
            told = (claim.get("status") or {}).get("allocation")
            if told is not None:
                if node not in {self._node_of(place) for place in _places(told)}:
                    return "resourceclaim not available on the node"
                continue
            chosen = self._choose(claim, node, held)
            if chosen is None:
                return "cannot allocate all claims"
            held |= set(chosen.values())
        return ""

    def bind(self, pod: Object, node: str) -> None:
        """Give it the devices; called when :meth:`problem` says nothing."""
        for _, claim in self._claims(pod):
            assert claim is not None
            status = dict(claim.get("status") or {})
            if "allocation" not in status:
                chosen = self._choose(claim, node, self._held())
                assert chosen is not None
                results = [
                    {"request": name, "driver": driver, "pool": pool, "device": device}
                    for name, (driver, pool, device) in chosen.items()
                ]
                status["allocation"] = {"devices": {"results": results}}
            meta = {key: pod["metadata"][key] for key in ("name", "uid")}
            status["reservedFor"] = [*(status.get("reservedFor") or ()), {"resource": "pods", **meta}]
            self._double.put({**claim, "status": status})

    def uuids(self, pod: Object) -> tuple[str, ...]:
        """Of the devices that its driver makes visible in the pod."""
        shown = {place: uuid for place, uuid, _, _ in self._all()}
        allocated = [(claim or {}).get("status", {}).get("allocation") for _, claim in self._claims(pod)]
        return tuple(shown[place] for told in allocated if told for place in _places(told))

    def _claims(self, pod: Object) -> Iterator[tuple[str, Object | None]]:
        namespace = pod["metadata"]["namespace"]
        for told in pod["spec"].get("resourceClaims") or ():
            name = told.get("resourceClaimName") or _made(pod).get(told["name"], "")
            yield told["name"], self._double.get("resourceclaims", name, namespace)

    def _choose(self, claim: Object, node: str, held: set[Place]) -> dict[str, Place] | None:
        """By request; None: not all of them can be had here now."""
        chosen: dict[str, Place] = {}
        for request in claim["spec"]["devices"]["requests"]:
            asked = request["exactly"]
            if asked.get("count", 1) != 1 or asked.get("allocationMode", "ExactCount") != "ExactCount":
                raise NotImplementedError(f"the stand-in allocates one device per request: {asked}")
            driver, kind = CLASSES[asked["deviceClassName"]]
            taken = held | set(chosen.values())
            fitting = [
                place
                for place, uuid, is_kind, where in self._all()
                if where == node and place not in taken and is_kind == kind and place[0] == driver
                if all(_selects(one["cel"]["expression"], driver, uuid) for one in asked.get("selectors") or ())
            ]
            if not fitting:
                return None
            chosen[request["name"]] = fitting[0]
        return chosen

    def _held(self) -> set[Place]:
        told = ((claim.get("status") or {}).get("allocation") for claim in self._double.objects("resourceclaims"))
        return {place for one in told if one for place in _places(one)}

    def _all(self) -> Iterator[tuple[Place, str, str, str]]:
        """Place, UUID, type and node of every device that is not tainted."""
        for one in self._double.objects("resourceslices"):
            spec = one["spec"]
            for device in spec.get("devices") or ():
                if any(taint["effect"] in HARD for taint in device.get("taints") or ()):
                    continue
                told = {name: value.get("string", "") for name, value in device["attributes"].items()}
                place = (spec["driver"], spec["pool"]["name"], device["name"])
                yield place, told["uuid"], told["type"], spec["nodeName"]

    def _node_of(self, place: Place) -> str:
        return next((node for there, _, _, node in self._all() if there == place), "")


def _selects(expression: str, driver: str, uuid: str) -> bool:
    found = NAMED.fullmatch(expression)
    if found is None:
        raise NotImplementedError(f"the stand-in does not know this CEL: {expression}")
    return (driver, driver, driver, uuid) == tuple(json.loads(word) for word in found.groups())


def _places(allocation: Mapping[str, Any]) -> list[Place]:
    return [(one["driver"], one["pool"], one["device"]) for one in allocation["devices"]["results"]]


def _made(pod: Object) -> dict[str, str]:
    told = (pod.get("status") or {}).get("resourceClaimStatuses") or ()
    return {one["name"]: one["resourceClaimName"] for one in told}


def _is_over(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in OVER
