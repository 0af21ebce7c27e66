"""Cards that a driver names (dynamic resource allocation): what a pod claims. Pure.

Whole devices are claimed by a template: Kubernetes makes a claim per pod, so a pod that is still ending keeps its cards
from the next. Parts of a card are pods of one tenant that share one claim: who is not among them waits for all of them.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from k8s.shapes import Shape

Body = dict[str, Any]
NAME = "cards"
"""Of the claim inside a pod."""


def is_claimed(shape: Shape) -> bool:
    """Its cards are named, not counted."""
    return bool(shape.devices)


def is_shared(shape: Shape) -> bool:
    """Its claim is that of all the tenant's pods with a part of the card."""
    return is_claimed(shape) and bool(shape.card_milli)


def name_of(instance: str, tenant: str, cluster: str, shape: Shape) -> str:
    """Of the claim, or of the template that claims are made from: the same for the same devices."""
    if is_shared(shape):
        return f"card-{_hash(instance, tenant, *shape.devices)}"
    return f"{cluster}-{_hash(*shape.devices)}"


def spec(shape: Shape) -> Body:
    """Of the claim: a request per device, that names it."""
    return {"devices": {"requests": [_request(n, uuid, shape) for n, uuid in enumerate(shape.devices)]}}


def of_pod(name: str, shape: Shape) -> Body:
    """What belongs into the pod's specification."""
    source = "resourceClaimName" if is_shared(shape) else "resourceClaimTemplateName"
    return {"resourceClaims": [{"name": NAME, source: name}]}


def _request(number: int, uuid: str, shape: Shape) -> Body:
    driver, told = json.dumps(shape.driver), f"device.attributes[{json.dumps(shape.driver)}]"  # CEL has JSON's strings
    # Instances that are not made yet have no UUID: to ask for it would end the whole allocation.
    expression = f'device.driver == {driver} && "uuid" in {told} && {told}.uuid == {json.dumps(uuid)}'
    exactly = {"deviceClassName": shape.resource, "allocationMode": "ExactCount", "count": 1}
    return {"name": f"card-{number}", "exactly": {**exactly, "selectors": [{"cel": {"expression": expression}}]}}


def _hash(*words: str) -> str:
    return hashlib.sha256("/".join(words).encode()).hexdigest()[:12]
