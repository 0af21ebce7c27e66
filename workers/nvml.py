"""The only door to NVML (``pynvml`` of the nvidia-ml-py distribution): which devices there are, and what they do now.

Every reading is optional: a driver that is old, a card that cannot say, a MIG instance that has no such counter give
None, and what a device does not support is not asked again. Devices are known by their UUID, never by an index. This
module changes nothing on a card.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from types import ModuleType
from typing import Any, TypeVar

from scheduler.model.catalogue import by_nvml_name
from scheduler.model.node import Device, DeviceKind, Health, Layout
from scheduler.model.sample import Sample
from workers.nvml_cut import CutRefused, Cutter
from workers.nvml_sample import BYTES_PER_MIB, Sampling

T = TypeVar("T")


class Lost(Exception):
    """The driver says that the card is gone."""


class NoNvml(Exception):
    """Why there is no NVML here, in a sentence."""


@dataclass(slots=True)
class _Known:
    """A device and how the library names it; ``mute`` are the readings it does not support."""

    device: Device
    handle: Any
    mute: set[str] = field(default_factory=set)


class NvmlTelemetry:
    """Fits ``scheduler.control.ports.Telemetry``. Safe from several threads; a call hangs as long as the driver does.

    Without a driver it is empty and :attr:`why_none` says why; each :meth:`devices` looks again.
    """

    def __init__(self, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._now_ms = now_ms
        self._nvml: ModuleType | None = None
        self._known: dict[str, _Known] = {}
        self.driver = ""
        self.why_none = "the driver was not asked yet"
        self.problems: tuple[str, ...] = ()
        """Cards that :meth:`devices` could not even name, one sentence each."""

    def devices(self) -> tuple[Device, ...]:
        """Cards without MIG and MIG instances, by card index. A card that was there and is lost stays, quarantined."""
        try:
            nvml = self._library()
            count = self._get(nvml.nvmlDeviceGetCount)
        except (NoNvml, Lost) as reason:
            self.why_none = str(reason)
            return ()
        self.problems = ()
        found = [known for index in range(count or 0) for known in self._look(nvml, index)]
        before = self._known
        both = sorted((*found, *_gone(before, found)), key=lambda known: known.device.index)
        after = {known.device.id: known for known in both}
        devices = _with_islands([known.device for known in after.values()], self._links(nvml, after.values()))
        for device in devices:
            known = after[device.id]
            known.device = device
            known.mute |= before[device.id].mute if device.id in before else set()
        self._known = after
        self.why_none = "" if devices else "the driver shows no cards"
        if count is None:  # the driver was unloaded under us: begin anew next time
            self._nvml = None
        return devices

    def sample(self) -> tuple[Sample, ...]:
        """A reading of each device that :meth:`devices` found, one after the other."""
        return tuple(self.sample_of(device_id) for device_id in list(self._known))

    def sample_of(self, device_id: str) -> Sample:
        """A reading of one device. A device that is unknown or lost gives one with its ``problem``."""
        known, at_ms = self._known.get(device_id), self._now_ms()
        if known is None or self._nvml is None:
            return Sample(device=device_id, at_ms=at_ms, problem="no such device")
        try:
            ask = partial(self._ask, known)
            return Sampling(self._nvml, known.device, at_ms, ask).read()
        except Lost as reason:
            return Sample(device=device_id, at_ms=at_ms, problem=str(reason))

    def close(self) -> None:
        """Let go of the library. Harmless twice."""
        if self._nvml is not None:
            nvml, self._nvml = self._nvml, None
            self._known.clear()
            nvml.nvmlShutdown()

    def _ask(self, known: _Known, what: str, call: Callable[..., T], *arguments: Any) -> T | None:
        """A reading of a known device: what it does not support is remembered."""
        if what in known.mute:
            return None
        answer, never = self._try(call, known.handle, *arguments)
        if never:
            known.mute.add(what)
        return answer

    def _try(self, call: Callable[..., T], *arguments: Any) -> tuple[T | None, bool]:
        """The answer, and whether asking again is no use. Raises Lost when the card is gone."""
        nvml = self._nvml
        assert nvml is not None
        try:
            return call(*arguments), False
        except nvml.NVMLError as error:
            if error.value in (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED):
                raise Lost(f"the driver lost this card: {error}") from error
            never = (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND, nvml.NVML_ERROR_NO_PERMISSION)
            return None, error.value in never

    def _get(self, call: Callable[..., T], *arguments: Any) -> T | None:
        """The answer, or None. Raises Lost."""
        return self._try(call, *arguments)[0]

    def _library(self) -> ModuleType:
        if self._nvml is None:
            nvml = _import_pynvml()
            # With it set, each memory locality of a card would be shown as a card of its own.
            os.environ.pop("NVML_MPS_DEVICE_ENUMERATION", None)
            try:
                nvml.nvmlInit()
            except nvml.NVMLError_LibraryNotFound:
                raise NoNvml("no NVIDIA driver: libnvidia-ml.so.1 is not installed") from None
            except nvml.NVMLError as error:
                raise NoNvml(f"the NVIDIA driver does not answer: {error}") from error
            self._nvml = nvml
            self.driver = self._get(nvml.nvmlSystemGetDriverVersion) or ""
        return self._nvml

    def _look(self, nvml: ModuleType, index: int) -> list[_Known]:
        """The card at ``index``, or the MIG instances on it. Nothing when it does not even say who it is."""
        try:
            handle = self._get(nvml.nvmlDeviceGetHandleByIndex, index)
            uuid = handle and self._get(nvml.nvmlDeviceGetUUID, handle)
            if not uuid:
                raise Lost("the driver does not say which card it is")
            card = self._card(nvml, index, uuid, handle)
            mode = self._get(nvml.nvmlDeviceGetMigMode, handle)
            if mode and mode[0]:
                unusable = replace(_quarantined(card, "MIG is on and no instance is made"), mig_on=True)
                return self._instances(nvml, card, handle) or [_Known(unusable, handle)]
            return [_Known(self._with_health(nvml, card, handle), handle)]
        except Lost as reason:
            self.problems += (f"card {index}: {reason}",)
            return []

    def _card(self, nvml: ModuleType, index: int, uuid: str, handle: Any) -> Device:
        name = self._get(nvml.nvmlDeviceGetName, handle) or ""
        memory_mib = _total_mib(self._get(nvml.nvmlDeviceGetMemoryInfo, handle))
        return Device(id=uuid, model=by_nvml_name(name, memory_mib), index=index, memory_mib=memory_mib)

    def _instances(self, nvml: ModuleType, card: Device, handle: Any) -> list[_Known]:
        most = self._get(nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0
        found = []
        for slot in range(most):
            part = self._get(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, slot)
            uuid = part and self._get(nvml.nvmlDeviceGetUUID, part)
            if uuid:
                memory_mib = _total_mib(self._get(nvml.nvmlDeviceGetMemoryInfo, part))
                start, slices = self._place(nvml, handle, part)
                device = replace(
                    card, id=uuid, kind=DeviceKind.MIG, parent=card.id, memory_mib=memory_mib,
                    profile=self._profile(nvml, part), slice_start=start, slices=slices,
                )  # fmt: skip
                found.append(_Known(self._with_health(nvml, device, handle), part))
        return found

    def _place(self, nvml: ModuleType, handle: Any, part: Any) -> tuple[int, int]:
        """First memory slice and number of slices; ``(-1, 0)`` where the driver tells it to administrators only."""
        number = self._get(nvml.nvmlDeviceGetGpuInstanceId, part)
        instance = None if number is None else self._get(nvml.nvmlDeviceGetGpuInstanceById, handle, number)
        info = self._get(nvml.nvmlGpuInstanceGetInfo, instance) if instance is not None else None
        return (-1, 0) if info is None else (info.placement.start, info.placement.size)

    def cut(self, card: str, layout: Layout) -> None:
        """Cut a card anew: instances that stay are left alone, and one with processes is never destroyed.

        Harmless when it is so already. Raises CutRefused, with the card as far as it came.
        """
        try:
            nvml = self._library()
            handle = next(
                (found for found in map(partial(self._handle, nvml), range(self._get(nvml.nvmlDeviceGetCount) or 0))
                 if found is not None and self._quietly(nvml.nvmlDeviceGetUUID, found) == card),
                None,
            )  # fmt: skip
            if handle is None:
                raise CutRefused(f"the driver shows no card {card}")
            Cutter(nvml, handle).cut(layout)
        except (NoNvml, Lost) as reason:
            raise CutRefused(str(reason)) from None

    def _handle(self, nvml: ModuleType, index: int) -> Any:
        return self._quietly(nvml.nvmlDeviceGetHandleByIndex, index)

    def _profile(self, nvml: ModuleType, part: Any) -> str:
        """The driver names an instance ``… MIG 1g.10gb``; else its slices and memory say the same."""
        name = self._get(nvml.nvmlDeviceGetName, part) or ""
        spelled = re.search(r"\bMIG (\S+)$", name)
        if spelled:
            return spelled[1]
        shape = self._get(nvml.nvmlDeviceGetAttributes_v2, part)
        return f"{shape.gpuInstanceSliceCount}g.{round(shape.memorySizeMB / 1024)}gb" if shape else ""

    def _with_health(self, nvml: ModuleType, device: Device, handle: Any) -> Device:
        rows = self._get(nvml.nvmlDeviceGetRemappedRows, handle)
        if rows and rows[3]:
            return _quarantined(device, "its memory has no spare rows left: replace the card")
        if rows and rows[2]:
            return _quarantined(device, "its memory has rows to be remapped: reset the card")
        return device

    def _links(self, nvml: ModuleType, known: Iterable[_Known]) -> list[tuple[str, str]]:
        """Pairs of card UUID and what its NVLinks lead to: another card's UUID, or ``switch``."""
        cards = {k.device.id: k.handle for k in known if k.device.kind is DeviceKind.CARD}
        buses = {}
        pairs = []
        for uuid, handle in cards.items():
            place = self._quietly(nvml.nvmlDeviceGetPciInfo, handle)
            if place is not None:
                buses[place.busId] = uuid
        for uuid, handle in cards.items():
            pairs += [(uuid, buses.get(end, end)) for end in self._ends(nvml, handle)]
        return pairs

    def _ends(self, nvml: ModuleType, handle: Any) -> Iterable[Any]:
        for link in range(nvml.NVML_NVLINK_MAX_LINKS):
            state = self._quietly(nvml.nvmlDeviceGetNvLinkState, handle, link)
            if state is None:
                return  # no NVLink, or no link of that number
            if not state:
                continue
            kind = self._quietly(nvml.nvmlDeviceGetNvLinkRemoteDeviceType, handle, link)
            if kind == nvml.NVML_NVLINK_DEVICE_TYPE_SWITCH:
                yield "switch"
                return  # all cards of a machine that hang on its switches reach each other
            place = self._quietly(nvml.nvmlDeviceGetNvLinkRemotePciInfo, handle, link)
            if place is not None:
                yield place.busId

    def _quietly(self, call: Callable[..., T], *arguments: Any) -> T | None:
        try:
            return self._get(call, *arguments)
        except Lost:
            return None


def devices_here() -> tuple[Device, ...]:
    """One look at this machine's devices, none without a driver."""
    telemetry = NvmlTelemetry()
    try:
        return telemetry.devices()
    finally:
        telemetry.close()


def cut_here(layouts: Mapping[str, Layout]) -> tuple[tuple[Device, ...], dict[str, str]]:
    """Cut cards of this machine anew; its devices afterwards, and by card why it could not be done."""
    telemetry, problems = NvmlTelemetry(), dict[str, str]()
    try:
        for card, layout in sorted(layouts.items()):
            try:
                telemetry.cut(card, layout)
            except CutRefused as refused:
                problems[card] = str(refused)
        return telemetry.devices(), problems
    finally:
        telemetry.close()


def _import_pynvml() -> ModuleType:
    try:
        import pynvml  # type: ignore[import-untyped]
    except ImportError:
        raise NoNvml("nvidia-ml-py is not installed") from None
    # A package called pynvml, not NVIDIA's, has existed; it lacks what we call. (Zeus looks for the same name.)
    if not hasattr(pynvml, "_nvmlGetFunctionPointer") or not hasattr(pynvml, "nvmlMemory_v2"):
        place = getattr(pynvml, "__file__", "?")
        raise NoNvml(f"the module pynvml at {place} is not NVIDIA's: pip uninstall pynvml, pip install nvidia-ml-py")
    module: ModuleType = pynvml
    return module


def _total_mib(memory: Any) -> int:
    return 0 if memory is None else memory.total // BYTES_PER_MIB


def _quarantined(device: Device, reason: str) -> Device:
    return replace(device, health=Health.QUARANTINED, health_reason=reason)


def _gone(before: dict[str, _Known], found: list[_Known]) -> list[_Known]:
    """Devices that were there and are not any more. A MIG card that was cut anew has not lost its old instances."""
    there = {known.device.id for known in found}
    parents = {known.device.parent for known in found if known.device.parent} | there
    return [
        _Known(_quarantined(replace(known.device, mig_on=False), "the driver lost this card"), known.handle, known.mute)
        for uuid, known in before.items()
        if uuid not in there and known.device.parent not in parents and uuid not in parents
    ]


def _with_islands(devices: list[Device], links: list[tuple[str, str]]) -> tuple[Device, ...]:
    """Cards joined by NVLink, directly or over others or a switch, share an island named after its smallest UUID."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    for one, other in links:
        first, second = sorted((find(one), find(other)))
        leader[second] = first
    members: dict[str, list[str]] = {}
    for device in devices:
        if device.id in leader:
            members.setdefault(find(device.id), []).append(device.id)
    island = {uuid: min(group) for group in members.values() if len(group) > 1 for uuid in group}
    return tuple(replace(device, island=island.get(device.id, "")) for device in devices)
