"""The clean environment a runner gets: nothing is inherited from the agent."""

from __future__ import annotations

from collections.abc import Mapping

from scheduler.model.lease import parse_attempt_id
from scheduler.model.order import LeaseOrder, TaskOrder
from workers.procfs import MARK

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def of_attempt(order: LeaseOrder, task: TaskOrder, env: Mapping[str, str], work: str) -> dict[str, str]:
    """Environment of one attempt's own process. ``env`` is the order's, with placeholders replaced."""
    job_id, step, index, _ = parse_attempt_id(task.attempt_id)
    return {
        **_base(order, work),
        "SHISUAN_JOB_ID": job_id,
        "SHISUAN_STEP": step,
        "SHISUAN_TASK_INDEX": str(index),
        "SHISUAN_ATTEMPT": str(task.number),
        **_meeting(order),
        **env,
        "SHISUAN_NODE_RANK": str(order.rank),
        "SHISUAN_NUM_NODES": str(order.ranks),
        "SHISUAN_OUTPUTS": f"{work}/outputs",
        "SHISUAN_TOKEN": task.token,
        **_ours(order, work),
    }


def _meeting(order: LeaseOrder) -> dict[str, str]:
    """Where the ranks of a gang find each other, under the names that PyTorch and others look for."""
    host, _, port = order.rendezvous.rpartition(":")
    return {"MASTER_ADDR": host, "MASTER_PORT": port} if host else {}


def of_resident(order: LeaseOrder, env: Mapping[str, str], work: str) -> dict[str, str]:
    """Environment of a resident runner: it outlives attempts, so nothing of an attempt is in it."""
    return {**_base(order, work), **env, **_ours(order, work)}


def _base(order: LeaseOrder, work: str) -> dict[str, str]:
    threads = str(max(1, order.cpu_milli // 1_000))
    return {"PATH": PATH, "HOME": work, "LANG": "C.UTF-8", "TMPDIR": work, **dict.fromkeys(_THREADS, threads)}


def _ours(order: LeaseOrder, work: str) -> dict[str, str]:
    """What an order cannot overrule: our mark, and which cards are visible ("" hides all: NVIDIA's documented rule)."""
    cards = "" if order.simulated else ",".join(order.devices)
    return {MARK: work, "CUDA_VISIBLE_DEVICES": cards, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
