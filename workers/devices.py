"""Device files a runner needs for its NVIDIA cards, from what the driver says in /proc (no NVML)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_SHARED = (
    "/dev/nvidiactl",
    "/dev/nvidia-uvm",
    "/dev/nvidia-uvm-tools",
    "/dev/nvidia-modeset",
    "/dev/nvidia-caps",
    "/dev/nvidia-caps-imex-channels",
    "/dev/nvidia-nvswitchctl",
)


def device_files(
    devices: Sequence[str], *, proc: Path = Path("/proc/driver/nvidia/gpus"), dev: Path = Path("/dev")
) -> tuple[str, ...]:
    """The cards' own files and those all cards share. When a device is not found there (a MIG instance), all cards'."""
    minors = _minors(proc)
    if all(device in minors for device in devices):
        own = tuple(f"{dev}/nvidia{minors[device]}" for device in devices)
    else:
        own = tuple(sorted(str(path) for path in dev.glob("nvidia[0-9]*")))
    return (*_SHARED, *own)


def _minors(proc: Path) -> dict[str, str]:
    """Card UUID to device minor, from ``/proc/driver/nvidia/gpus/*/information``."""
    found: dict[str, str] = {}
    for path in sorted(proc.glob("*/information")):
        facts = dict(line.partition(":")[::2] for line in path.read_text(errors="replace").splitlines())
        uuid, minor = facts.get("GPU UUID", "").strip(), facts.get("Device Minor", "").strip()
        if uuid and minor:
            found[uuid] = minor
    return found
