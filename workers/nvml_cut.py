"""Destroying and creating a card's MIG instances, through a loaded NVML library.

What is to go is looked at as a whole before anything is touched; a step that fails leaves what was done so far, and the
same call goes on from there.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from scheduler.model.node import Layout, MigPlace

MOST = 32
"""No card has more instances of a profile, or places for one."""


class CutRefused(Exception):
    """Why the card is not cut so, in a sentence."""


@dataclass(frozen=True, slots=True)
class _Profile:
    id: int
    number: int


@dataclass(frozen=True, slots=True)
class _Instance:
    place: MigPlace
    handle: Any
    id: int


class Cutter:
    """One card."""

    def __init__(self, nvml: ModuleType, card: Any) -> None:
        self._nvml, self._card = nvml, card

    def cut(self, layout: Layout) -> None:
        """Make the layout. Raises CutRefused."""
        try:
            self._cut(layout)
        except self._nvml.NVMLError as error:
            raise CutRefused(f"the driver refuses: {error}") from error

    def _cut(self, layout: Layout) -> None:
        profiles = self._profiles()
        instances = list(self._instances(profiles))
        known = {instance.place for instance in instances}
        going = [instance for instance in instances if instance.place not in layout]
        coming = [place for place in layout if place not in known]
        for place in coming:
            self._check(place, profiles)
        for instance in going:
            if self._is_used(instance):
                name = f"{instance.place.profile} at {instance.place.start}"
                raise CutRefused(f"instance {name} is in use: processes run on it")
        for instance in going:
            for compute in self._computes(instance.handle):
                self._nvml.nvmlComputeInstanceDestroy(compute)
            self._nvml.nvmlGpuInstanceDestroy(instance.handle)
        for instance in instances:
            if instance not in going and not list(self._computes(instance.handle)):
                self._add_compute(instance.handle)  # an earlier cut ended between the two
        for place in coming:
            self._create(place, profiles)

    def _create(self, place: MigPlace, profiles: dict[str, _Profile]) -> None:
        profile = profiles[place.profile]
        size = self._starts(profile)[place.start]
        where = self._nvml.c_nvmlGpuInstancePlacement_t(start=place.start, size=size)
        made = self._nvml.nvmlDeviceCreateGpuInstanceWithPlacement(self._card, profile.id, ctypes.byref(where))
        try:
            self._add_compute(made)
        except (self._nvml.NVMLError, CutRefused):
            self._nvml.nvmlGpuInstanceDestroy(made)
            raise

    def _add_compute(self, instance: Any) -> None:
        """The compute instance with all of it, so that it is one device."""
        shapes = {shape.sliceCount: shape.id for shape in self._compute_shapes(instance)}
        if not shapes:
            raise CutRefused("the driver shows no compute instance profile")
        self._nvml.nvmlGpuInstanceCreateComputeInstance(instance, shapes[max(shapes)])

    def _check(self, place: MigPlace, profiles: dict[str, _Profile]) -> None:
        if place.profile not in profiles:
            raise CutRefused(f"the card has no profile {place.profile} (it has: {', '.join(sorted(profiles))})")
        starts = self._starts(profiles[place.profile])
        if place.start not in starts:
            raise CutRefused(f"{place.profile} cannot begin at slice {place.start}, only at {sorted(starts)}")

    def _profiles(self) -> dict[str, _Profile]:
        """By name as jobs write it."""
        found = {}
        for number in range(self._nvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
            info = self._try(self._nvml.nvmlDeviceGetGpuInstanceProfileInfo, self._card, number)
            if info is not None:
                name = info.name.decode() if isinstance(info.name, bytes) else str(info.name)
                found[re.sub(r"^MIG ", "", name)] = _Profile(info.id, number)
        if not found:
            raise CutRefused("the driver names no MIG profiles of this card: a newer one is needed")
        return found

    def _starts(self, profile: _Profile) -> dict[int, int]:
        """Where the profile can begin on the card, with the slices it takes there."""
        places, count = (self._nvml.c_nvmlGpuInstancePlacement_t * MOST)(), ctypes.c_uint(MOST)
        self._nvml.nvmlDeviceGetGpuInstancePossiblePlacements(self._card, profile.id, places, ctypes.byref(count))
        return {place.start: place.size for place in places[: count.value]}

    def _instances(self, profiles: dict[str, _Profile]) -> Iterator[_Instance]:
        for name, profile in profiles.items():
            handles, count = (self._nvml.c_nvmlGpuInstance_t * MOST)(), ctypes.c_uint(MOST)
            self._nvml.nvmlDeviceGetGpuInstances(self._card, profile.id, handles, ctypes.byref(count))
            for handle in handles[: count.value]:
                info = self._nvml.nvmlGpuInstanceGetInfo(handle)
                yield _Instance(MigPlace(start=info.placement.start, profile=name), handle, info.id)

    def _is_used(self, instance: _Instance) -> bool:
        nvml = self._nvml
        for slot in range(nvml.nvmlDeviceGetMaxMigDeviceCount(self._card)):
            part = self._try(nvml.nvmlDeviceGetMigDeviceHandleByIndex, self._card, slot)
            if part is None or nvml.nvmlDeviceGetGpuInstanceId(part) != instance.id:
                continue
            if nvml.nvmlDeviceGetComputeRunningProcesses(part) or self._graphics(part):
                return True
        return False

    def _graphics(self, part: Any) -> Any:
        return self._try(self._nvml.nvmlDeviceGetGraphicsRunningProcesses, part)

    def _compute_shapes(self, instance: Any) -> Iterator[Any]:
        shared = self._nvml.NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED
        for number in range(self._nvml.NVML_COMPUTE_INSTANCE_PROFILE_COUNT):
            info = self._try(self._nvml.nvmlGpuInstanceGetComputeInstanceProfileInfo, instance, number, shared)
            if info is not None:
                yield info

    def _computes(self, instance: Any) -> Iterator[Any]:
        for shape in self._compute_shapes(instance):
            handles, count = (self._nvml.c_nvmlComputeInstance_t * MOST)(), ctypes.c_uint(MOST)
            self._nvml.nvmlGpuInstanceGetComputeInstances(instance, shape.id, handles, ctypes.byref(count))
            yield from handles[: count.value]

    def _try(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """None where there is no such thing on this card."""
        nvml = self._nvml
        try:
            return call(*arguments)
        except nvml.NVMLError as error:
            nothing = (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_ERROR_INVALID_ARGUMENT)
            if error.value in (*nothing, nvml.NVML_ERROR_FUNCTION_NOT_FOUND):
                return None
            raise
