"""What telemetry says about a device at one instant. Evidence, never a bill: leases are billed by time held."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProcess:
    """A process the driver saw on a device."""

    pid: int
    """In the process-id namespace of whoever asked."""
    memory_mib: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One reading. Everything is optional: None means that this device, or this driver, does not say."""

    device: str
    """Device id: the NVML UUID of a card or a MIG instance."""
    at_ms: int
    """When it was read, by the reader's wall clock."""
    source: str = "nvml"
    """Which kind of telemetry; ``simulated`` readings are never evidence for money."""
    gpu_percent: int | None = None
    """Share of the driver's last window in which some kernel ran: says alive, not how much of the chip worked."""
    memory_percent: int | None = None
    """Share of that window in which memory was read or written; not how much of it is held."""
    memory_used_mib: int | None = None
    encoder_percent: int | None = None
    decoder_percent: int | None = None
    power_mw: int | None = None
    energy_mj: int | None = None
    """Counter since the driver was loaded; a smaller value than before means that it began anew."""
    temperature_c: int | None = None
    processes: tuple[DeviceProcess, ...] | None = None
    rejected: tuple[str, ...] = ()
    """Readings left out because the driver gave an impossible value."""
    problem: str = ""
    """Why the device did not answer, in a sentence; empty when it did."""
