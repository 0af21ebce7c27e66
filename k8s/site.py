"""What an installation says about its pods: images, the gateway, times, volumes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from k8s.mapping import Cards
from k8s.mig import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class Volume:
    """A claim that every worker sees under ``path``."""

    claim: str
    path: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """How agents in worker pods reach an S3-compatible store. Each may be empty: AWS, and the pod's own identity."""

    endpoint: str = ""
    region: str = ""
    secret: str = ""
    """With the two keys, named as the variables are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One per installation."""

    namespace: str
    """Where all objects of the lanes lie."""
    gateway: str
    """``host:port`` that the bridges dial."""
    images: Mapping[str, str]
    """By kind of step (``render``, ``train``…); ``default`` serves the others."""
    instance: str = "shisuan"
    """Tells installations of one namespace apart."""
    ray_version: str = "2.60.0"
    home: str = "/var/lib/shisuan"
    """Folder of agents and bridges inside the pods."""
    warm_ms: int = 300_000
    """An idle pool pod stays so long for its tenant's next lease."""
    cluster_idle_ms: int = 900_000
    """A pool cluster without pods goes after this long."""
    start_ms: int = 900_000
    """A lease whose pods have not joined by then is given back: longer than an image of 10 GB takes to be pulled."""
    bridge_ms: int = 300_000
    """Leases of a cluster whose bridge has not been heard of for this long are lost."""
    shards: int = 1
    """Pool clusters per trust domain; nodes are spread over them. A RayCluster holds about 200 worker groups."""
    overhead_mib: int = 1_024
    """What Ray and the agent may use in a worker pod beyond the memory of its lease, and beyond its scratch space."""
    cards: Cards = Cards.AUTO
    mig_configs: tuple[Config, ...] = ()
    """What the GPU Operator's MIG manager can make of a node, by name; none: nodes are never cut anew."""
    head_cpu_milli: int = 500
    head_memory_mib: int = 2_048
    head_node_selector: Mapping[str, str] = field(default_factory=dict)
    head_tolerations: tuple[Mapping[str, Any], ...] = ()
    pull_secrets: tuple[str, ...] = ()
    runtime_class: str = ""
    """Of worker pods with cards, where NVIDIA's runtime is not the default one."""
    priority_class: str = ""
    volumes: tuple[Volume, ...] = ()
    bucket: Bucket | None = None
    network_policy: bool = True
    egress: tuple[Mapping[str, Any], ...] = ()
    """What pods may reach beside the control plane and names: rules as in a NetworkPolicy."""
    own_submitter: bool = False
    """KubeRay takes the container in which a RayJob is submitted from us, where its version can: locked down like all
    others. Its own has no security settings, which the Pod Security profile ``restricted`` refuses.
    """
    gateway_ca: str = ""
    """ConfigMap with ``ca.crt`` by which bridges check the gateway's certificate; empty: no TLS."""

    def image(self, kind: str) -> str:
        """For a kind of step. Raises KeyError with the valid choices when there is none."""
        found = self.images.get(kind) or self.images.get("default")
        if not found:
            known = ", ".join(sorted(self.images)) or "none"
            raise KeyError(f"kubernetes.images has no image for {kind!r} and no default (it has: {known})")
        return found
