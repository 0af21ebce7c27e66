"""The kinds of objects that shisuan speaks of, and where an API server keeps them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One kind in one version."""

    group: str = ""
    """Empty: the core group."""
    version: str = "v1"
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As objects carry it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_path(self) -> str:
        """Where the server lists the kinds of this group and version."""
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"

    def path(self, *, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Of all objects, of a namespace's, or of one."""
        inside = f"/namespaces/{namespace}" if namespace else ""
        below = "".join(f"/{part}" for part in (name, subresource) if part)
        return f"{self.group_path}{inside}/{self.plural}{below}"


NODES = Resource(plural="nodes", kind="Node", namespaced=False)
PODS = Resource(plural="pods", kind="Pod")
NAMESPACES = Resource(plural="namespaces", kind="Namespace", namespaced=False)
SECRETS = Resource(plural="secrets", kind="Secret")
CONFIG_MAPS = Resource(plural="configmaps", kind="ConfigMap")
NETWORK_POLICIES = Resource(group="networking.k8s.io", plural="networkpolicies", kind="NetworkPolicy")
DEPLOYMENTS = Resource(group="apps", plural="deployments", kind="Deployment")
ENDPOINT_SLICES = Resource(group="discovery.k8s.io", plural="endpointslices", kind="EndpointSlice")
LEASES = Resource(group="coordination.k8s.io", plural="leases", kind="Lease")
RESOURCE_SLICES = Resource(group="resource.k8s.io", plural="resourceslices", kind="ResourceSlice", namespaced=False)
RESOURCE_CLAIMS = Resource(group="resource.k8s.io", plural="resourceclaims", kind="ResourceClaim")
CLAIM_TEMPLATES = Resource(group="resource.k8s.io", plural="resourceclaimtemplates", kind="ResourceClaimTemplate")
RAY_CLUSTERS = Resource(group="ray.io", plural="rayclusters", kind="RayCluster")
RAY_JOBS = Resource(group="ray.io", plural="rayjobs", kind="RayJob")
DEFINITIONS = Resource(
    group="apiextensions.k8s.io", plural="customresourcedefinitions", kind="CustomResourceDefinition", namespaced=False
)
BUDGETS = Resource(group="policy", plural="poddisruptionbudgets", kind="PodDisruptionBudget")
