"""Labels, annotations and taints: ours, and those of others that mean something to us."""

from __future__ import annotations

MANAGED_BY, OURS = "app.kubernetes.io/managed-by", "shisuan"
"""Label of every object of ours. A pod without it that holds a card is a stranger's."""
DEVICES = "shisuan.io/devices"
"""Annotation of our pods: the ids of the devices of its lease, by commas."""
LANE = "shisuan.io/lane"
"""Label of a node: the lane it serves. Of an object of ours: the lane it belongs to."""
INSTANCE = "app.kubernetes.io/instance"
"""Label of every object of ours: which installation made it."""
CLUSTER = "shisuan.io/cluster"
"""Label of our pods and objects: the RayCluster or RayJob they belong to, as the bridges name it."""
LEASE = "shisuan.io/lease"
"""Label of a RayJob, annotation of a pod: the lease it carries."""
TENANT = "shisuan.io/tenant"
"""Annotation of every object of ours: whose work it does. Names of tenants need not be label values."""
TASKS = "shisuan.io/tasks"
"""Annotation of a pod or a RayJob: the attempts of its lease in order, by commas."""
RANK = "shisuan.io/rank"
"""Annotation of a pod: its rank in the gang, and of how many: ``0/4``."""
SHAPE = "shisuan.io/shape"
"""Annotation of our worker pods: what they were made for, as JSON of :class:`k8s.shapes.Shape`."""
DOMAIN = "shisuan.io/domain"
"""Annotation of a RayCluster: the kind of work it serves."""
EPOCH = "shisuan.io/epoch"
"""Annotation of an object of ours, and of a node that we wrote on: the epoch of the leader that wrote it last."""
LAYOUT = "shisuan.io/layout"
"""Annotation of a node: the layout that was asked of the GPU Operator last and the instant of its decision, in ms:
``all-1g.10gb@1764288000000``. Its label alone does not say whose word its state is about."""
LAYOUT_BEFORE = "shisuan.io/layout-before"
"""Annotation of a node: what the label said before that."""
MIG_CONFIG, MIG_STATE = "nvidia.com/mig.config", "nvidia.com/mig.config.state"
"""Labels of a node: which named configuration the GPU Operator's MIG manager is to apply, and how far it is with it:
``pending``, ``rebooting``, ``success`` or ``failed``."""
MIG_MANAGER, MIG_CAPABLE, MIG_STRATEGY = (
    "nvidia.com/gpu.deploy.mig-manager",
    "nvidia.com/mig.capable",
    "nvidia.com/mig.strategy",
)
MANAGED = "shisuan.io/managed"
"""Label of the nodes shisuan may use, and the taint that keeps others away from them."""
ZONE = "topology.kubernetes.io/zone"
RACK = "topology.kubernetes.io/rack"
HOSTNAME = "kubernetes.io/hostname"

TOLERATED = frozenset({MANAGED, "nvidia.com/gpu"})
"""Keys of taints that every pod of ours tolerates."""
TROUBLE = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/", "ToBeDeletedByClusterAutoscaler")
"""Beginnings of keys of taints by which Kubernetes itself takes a node out."""
CORDON_TAINT = "node.kubernetes.io/unschedulable"
"""Goes with ``spec.unschedulable`` and says no more."""
HIDDEN = (
    "nvidia.com/",
    "feature.node.kubernetes.io/",
    "beta.kubernetes.io/",
    "node-role.kubernetes.io/",
    "shisuan.io/",
)
"""Beginnings of labels that jobs do not select nodes by: facts about cards are features and models of the catalogue."""
