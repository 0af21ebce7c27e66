"""One reading of one device: what NVML is asked, and which answers are believed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol, TypeVar

from scheduler.model.node import Device
from scheduler.model.sample import DeviceProcess, Sample

T = TypeVar("T")

BYTES_PER_MIB = 1 << 20
_MOST_MEMORY_MIB = 1 << 30
_MOST_POWER_MW = 10_000_000
_MOST_ENERGY_MJ = 1 << 62
"""Above it lies the driver's mark for "not supported", 9223372036854775794, which has been exported as a reading."""
_MOST_TEMPERATURE_C = 150


class Ask(Protocol):
    """Calls the library with the device's handle; None where it does not answer. Raises Lost when the card is gone."""

    def __call__(self, what: str, call: Callable[..., T], /, *arguments: Any) -> T | None:
        """``what`` names the reading, so that an unsupported one is not asked again."""
        ...


@dataclass(slots=True)
class Sampling:
    """One sample in the making."""

    nvml: ModuleType
    device: Device
    at_ms: int
    ask: Ask
    rejected: list[str] = field(default_factory=list)

    def read(self) -> Sample:
        """Everything at once. Raises Lost."""
        nvml, device = self.nvml, self.device
        use = self.ask("utilisation", nvml.nvmlDeviceGetUtilizationRates)
        encoder = self.ask("encoder", nvml.nvmlDeviceGetEncoderUtilization)
        decoder = self.ask("decoder", nvml.nvmlDeviceGetDecoderUtilization)
        return Sample(
            device=device.id,
            at_ms=self.at_ms,
            gpu_percent=self._within("utilisation", use and use.gpu, 100),
            memory_percent=self._within("memory utilisation", use and use.memory, 100),
            memory_used_mib=self._within("memory", self._used_mib(), device.memory_mib or _MOST_MEMORY_MIB),
            encoder_percent=self._within("encoder", encoder and encoder[0], 100),
            decoder_percent=self._within("decoder", decoder and decoder[0], 100),
            power_mw=self._within("power", self.ask("power", nvml.nvmlDeviceGetPowerUsage), _MOST_POWER_MW),
            energy_mj=self._within(
                "energy", self.ask("energy", nvml.nvmlDeviceGetTotalEnergyConsumption), _MOST_ENERGY_MJ
            ),
            temperature_c=self._within("temperature", self._temperature(), _MOST_TEMPERATURE_C),
            processes=self._processes(),
            rejected=tuple(self.rejected),
        )

    def _used_mib(self) -> int | None:
        # Version 2 leaves out what the firmware keeps for itself; old drivers have version 1 alone.
        memory = self.ask("memory v2", self.nvml.nvmlDeviceGetMemoryInfo, self.nvml.nvmlMemory_v2)
        memory = memory or self.ask("memory", self.nvml.nvmlDeviceGetMemoryInfo)
        return None if memory is None else int(memory.used) // BYTES_PER_MIB

    def _temperature(self) -> int | None:
        return self.ask("temperature", self.nvml.nvmlDeviceGetTemperature, self.nvml.NVML_TEMPERATURE_GPU)

    def _processes(self) -> tuple[DeviceProcess, ...] | None:
        found: dict[int, DeviceProcess] = {}
        answered = False
        for what, call in (
            ("compute processes", self.nvml.nvmlDeviceGetComputeRunningProcesses),
            ("graphics processes", self.nvml.nvmlDeviceGetGraphicsRunningProcesses),
        ):
            listed = self.ask(what, _listed(self.nvml, call))
            answered = answered or listed is not None
            for process in listed or ():
                used = process.usedGpuMemory
                memory_mib = (
                    None if used is None else self._within("process memory", used // BYTES_PER_MIB, _MOST_MEMORY_MIB)
                )
                found[process.pid] = DeviceProcess(pid=process.pid, memory_mib=memory_mib)
        return tuple(found[pid] for pid in sorted(found)) if answered else None

    def _within(self, what: str, value: int | None, most: int) -> int | None:
        """``value`` when it is possible at all; an impossible one is left out and named, never bent into range."""
        if value is not None and not 0 <= value <= most:
            self.rejected.append(what)
            return None
        return value


def _listed(nvml: ModuleType, call: Callable[..., list[T]]) -> Callable[..., list[T]]:
    """The binding raises where the driver says that a list is empty: as success without data, or as not found."""

    def listed(*arguments: Any) -> list[T]:
        try:
            return call(*arguments)
        except nvml.NVMLError as error:
            if error.value in (nvml.NVML_SUCCESS, nvml.NVML_ERROR_NOT_FOUND):
                return []
            raise

    return listed
