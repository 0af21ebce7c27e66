"""The ``kubernetes`` section of the configuration file: where and how the lanes make their objects."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from scheduler.control.strict import Strict
from scheduler.jobfile.quantity import duration_ms, memory_mib
from scheduler.model.catalogue import mig_profiles
from scheduler.model.job import StepKind
from scheduler.model.node import Lane

Duration = Annotated[int, BeforeValidator(duration_ms)]
Memory = Annotated[int, BeforeValidator(memory_mib)]
MigName = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$")]
"""The value of a label."""
DEFAULT_IMAGE = "default"
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")


class VolumeConfig(Strict):
    """A claim that every worker pod mounts: tenants' roots name folders on it."""

    claim: str
    path: Annotated[str, Field(pattern=r"^/.+")]
    read_only: bool = False


class HeadConfig(Strict):
    """The pod with a cluster's control store: it has no cards and runs no tasks."""

    cpu_milli: Annotated[int, Field(ge=100)] = 500
    memory: Memory = 2_048
    node_selector: Annotated[dict[str, str], Field(default_factory=dict)]
    tolerations: Annotated[list[dict[str, Any]], Field(default_factory=list)]


class TlsConfig(Strict):
    """Files of the gateway's certificate and key, and the ConfigMap whose ``ca.crt`` the bridges trust."""

    certificate: str
    key: str
    ca_config_map: str


class S3Config(Strict):
    """How worker pods reach an S3-compatible store, for tenants' roots in it. ``egress`` must let them."""

    endpoint: str = ""
    """Empty: AWS."""
    region: str = ""
    secret: str = ""
    """A Secret of the namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; empty: the pods' own identity."""


class MigEntryConfig(Strict):
    """What becomes of some of a node's cards: an entry of mig-parted's file, whose names of fields it has."""

    model_config = ConfigDict(extra="forbid", populate_by_name=False)

    devices: Literal["all"] | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    mig_enabled: Annotated[bool, Field(alias="mig-enabled")]
    mig_devices: Annotated[dict[str, Annotated[int, Field(ge=1)]], Field(alias="mig-devices", default_factory=dict)]
    """Instances per card, by profile."""
    device_filter: Annotated[str | list[str], Field(alias="device-filter")] = ""
    """PCI ids, which no label of a node tells: an entry is taken to be for cards that have its profiles."""

    @field_validator("mig_devices")
    @classmethod
    def are_profiles(cls, told: dict[str, int]) -> dict[str, int]:
        """Each key is a profile of some board."""
        known = mig_profiles()
        wrong = sorted(told.keys() - set(known))
        if wrong:
            facts = {"profile": wrong[0], "valid": ", ".join(known)}
            raise PydanticCustomError("profile", "no card has a MIG profile {profile}; valid: {valid}", facts)
        return told

    @model_validator(mode="after")
    def is_whole(self) -> Self:
        """Instances are of cards with MIG on."""
        if self.mig_devices and not self.mig_enabled:
            raise PydanticCustomError("mig_devices", "mig-devices has instances and mig-enabled is false")
        return self


MigEntries = Annotated[list[MigEntryConfig], Field(min_length=1)]
"""A configuration: what becomes of which cards."""


class MigConfigMapConfig(Strict):
    """The ConfigMap that the GPU Operator gives its MIG manager, and which configurations of it plans may use."""

    namespace: Annotated[str, Field(min_length=1)]
    """The operator's."""
    name: Annotated[str, Field(min_length=1)] = "default-mig-parted-config"
    """As the ClusterPolicy's ``migManager.config.name`` says; the operator's own one where that is empty."""
    key: Annotated[str, Field(min_length=1)] = "config.yaml"
    use: Annotated[list[MigName], Field(min_length=1)]


class KubernetesConfig(Strict):
    """Defaults are for a park of some hundred nodes."""

    namespace: str
    """Of all objects of the lanes."""
    gateway: str
    """``host:port`` under which the clusters reach this service; the port is also listened on."""
    images: Annotated[dict[str, str], Field(min_length=1)]
    """By kind of step (``render``, ``train``…); ``default`` serves the others."""
    instance: str = "shisuan"
    """Tells installations of one namespace apart."""
    lane: Lane = Lane.ANY
    """Of nodes whose label ``shisuan.io/lane`` does not say."""
    warm: Duration = 300_000
    """An idle pool pod stays so long for its tenant's next lease."""
    idle: Duration = 900_000
    """A pool cluster without pods goes after this long."""
    start_limit: Duration = 900_000
    """A lease whose pods have not joined by then is given back."""
    silence_limit: Duration = 300_000
    """Leases of a cluster that was not heard of for so long are lost."""
    shards: Annotated[int, Field(ge=1, le=64)] = 1
    """Pool clusters per tenant and image; one more for every two hundred nodes."""
    overhead: Memory = 1_024
    """What Ray and the agent may use in a worker pod beyond the memory of its lease, and beyond its scratch space."""
    cards: Literal["auto", "plugin", "claims"] = "auto"
    """How pods ask for cards: counted by a device plugin, claimed by name from a driver of dynamic resource allocation,
    or as each node offers them.
    """
    mig_configs: Annotated[dict[MigName, MigEntries], Field(default_factory=dict)]
    """Configurations of the GPU Operator's MIG manager that plans may use, as its file has them."""
    mig_config_map: MigConfigMapConfig | None = None
    """Where they are read from instead, once, when the service starts."""
    head: Annotated[HeadConfig, Field(default_factory=lambda: HeadConfig.model_validate({}))]
    volumes: Annotated[list[VolumeConfig], Field(default_factory=list)]
    s3: S3Config | None = None
    pull_secrets: Annotated[list[str], Field(default_factory=list)]
    runtime_class: str = ""
    priority_class: str = ""
    network_policy: bool = True
    own_submitter: bool = False
    """Give KubeRay the container in which a RayJob is submitted; versions that cannot take it make a second one."""
    egress: Annotated[list[dict[str, Any]], Field(default_factory=list)]
    """What pods may reach beside this service and names: rules as in a NetworkPolicy."""
    tls: TlsConfig | None = None

    @field_validator("gateway")
    @classmethod
    def is_address(cls, gateway: str) -> str:
        """A host and a port."""
        found = _ADDRESS.fullmatch(gateway)
        if found is None or not 0 < int(found[2]) < 65_536:
            raise PydanticCustomError("address", "must be HOST:PORT")
        return gateway

    @field_validator("images")
    @classmethod
    def are_kinds(cls, images: dict[str, str]) -> dict[str, str]:
        """Each key is a kind of step, or ``default``."""
        known = [DEFAULT_IMAGE, *sorted(StepKind)]
        wrong = sorted(images.keys() - set(known))
        if wrong:
            facts = {"kind": wrong[0], "valid": ", ".join(known)}
            raise PydanticCustomError("kind", "no kind of step is called {kind}; valid: {valid}", facts)
        return images

    @model_validator(mode="after")
    def has_one_source(self) -> Self:
        """Of MIG configurations."""
        if self.mig_configs and self.mig_config_map is not None:
            raise PydanticCustomError("mig_configs", "mig_configs and mig_config_map exclude each other; leave one out")
        return self

    @property
    def port(self) -> int:
        """That of ``gateway``."""
        return int(self.gateway.rpartition(":")[2])
