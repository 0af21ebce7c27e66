"""Nodes with H100 that the stand-in of the GPU Operator's MIG manager looks after, and the configurations it knows."""

from k8s.mig import Config
from k8s.names import LAYOUT, MIG_CAPABLE, MIG_CONFIG, MIG_MANAGER, MIG_STATE, MIG_STRATEGY
from scheduler.control.lanes import MigEntryConfig
from scheduler.lanes import mig_config
from tests.kube_executor import paper_node

WHOLE, SMALL, HALVES = "all-disabled", "all-1g.10gb", "all-3g.40gb"
FILE = {
    WHOLE: [{"devices": "all", "mig-enabled": False}],
    SMALL: [{"devices": "all", "mig-enabled": True, "mig-devices": {"1g.10gb": 7}}],
    HALVES: [{"devices": "all", "mig-enabled": True, "mig-devices": {"3g.40gb": 2}}],
}
"""As mig-parted's file has them."""
LABELS = {
    "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
    "nvidia.com/gpu.memory": "81559",
    MIG_CAPABLE: "true",
    MIG_MANAGER: "true",
    MIG_STRATEGY: "mixed",
    MIG_CONFIG: WHOLE,
    MIG_STATE: "success",
}


def configs() -> tuple[Config, ...]:
    """As the lanes know them."""
    told = {name: [MigEntryConfig.model_validate(entry) for entry in entries] for name, entries in FILE.items()}
    return tuple(mig_config(name, entries) for name, entries in sorted(told.items()))


def mig_node(name, *, cards=2, **labels):
    """A node of whole H100 that the MIG manager looks after."""
    made = paper_node(name, cpu="64", memory="256Gi", cards=cards)
    made["metadata"]["labels"] |= {**LABELS, "nvidia.com/gpu.count": str(cards), **labels}
    return made


def asked(park, name):
    """What is written on a node about layouts: configuration, state, and what was asked of it."""
    meta = park.double.get("nodes", name)["metadata"]
    labels, told = meta["labels"], meta.get("annotations") or {}
    return labels.get(MIG_CONFIG), labels.get(MIG_STATE), told.get(LAYOUT)
