"""One row of the card catalogue: what a GPU of some board can do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class MigProfile:
    """A way to cut instances from a card."""

    name: str
    """As the driver spells it, e.g. ``1g.10gb`` or ``1g.24gb+gfx``."""
    most: int
    """Instances of this profile on one card, when it has no others."""
    memory_slices: int
    """Memory slices each occupies; placement on a card is by these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One GPU model. 0 means none; None means that nobody of ours has read it. Sources stand in ``catalogue.yaml``."""

    id: str
    generation: str
    compute: str
    """CUDA compute capability, e.g. ``8.9``."""
    nvml_names: tuple[str, ...]
    """As the driver names it, without a leading ``NVIDIA``."""
    memory_gib: int
    """As its maker names it; a device's measured memory is smaller and is what counts."""
    visible_mib: int | None = None
    """What NVML reports."""
    bandwidth_gb_per_s: int | None = None
    bf16_gflops: int | None = None
    """Dense, on tensor cores."""
    fp32_gflops: int | None = None
    rt_cores: int = 0
    rt_generation: int = 0
    nvenc: int = 0
    """Encoder engines; one session uses one, unless split-frame encoding is on."""
    nvdec: int = 0
    encodes: tuple[str, ...] = ()
    """Codecs of the encoder, alone or with a bit depth, a chroma, or ``8k``: ``hevc-10bit``, ``h264-4:2:2``."""
    decodes: tuple[str, ...] = ()
    nvlink_gb_per_s: int = 0
    """To other GPUs, both directions together."""
    tdp_w: int | None = None
    mig: tuple[MigProfile, ...] = ()

    @property
    def features(self) -> frozenset[str]:
        """What a job may ask for: ``nvenc:h264``, ``nvdec:hevc-4:2:2``, ``rt``, ``bf16``, ``mig``, ``nvlink``."""
        found = {f"nvenc:{codec}" for codec in self.encodes if self.nvenc}
        found |= {f"nvdec:{codec}" for codec in self.decodes if self.nvdec}
        has = {"rt": self.rt_cores, "bf16": self.bf16_gflops, "mig": self.mig, "nvlink": self.nvlink_gb_per_s}
        return frozenset(found | {name for name, value in has.items() if value})
