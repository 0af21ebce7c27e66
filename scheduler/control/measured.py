"""How a measurement looks from outside."""

from __future__ import annotations

from typing_extensions import TypedDict  # pydantic reads these for OpenAPI, and typing's own only from Python 3.12

from scheduler.model.measured import DeviceUse, Measured, RankUse


class DeviceUseView(TypedDict):
    """A card or MIG instance while an attempt held it. Shares in thousandths; null: the driver does not say."""

    device: str
    samples: int
    gaps: int
    covered_ms: int
    gpu_milli: int | None
    encoder_milli: int | None
    decoder_milli: int | None
    memory_peak_mib: int | None
    power_mw: int | None
    energy_mj: int | None
    energy_resets: int
    series_milli: list[int | None]


class RankUseView(TypedDict):
    """One rank's processes and devices. The series' intervals end at ``until_ms`` after the attempt's start."""

    node: str
    rank: int
    source: str
    note: str
    cpu_ms: int
    rss_peak_mib: int | None
    rss_mean_mib: int | None
    read_bytes: int | None
    written_bytes: int | None
    samples: int
    until_ms: list[int]
    cpu_series_milli: list[int]
    rss_series_mib: list[int]
    devices: list[DeviceUseView]


class MeasuredView(TypedDict):
    """What an attempt was seen to do, over all ranks; evidence, never a bill."""

    source: str
    cpu_ms: int
    rss_peak_mib: int | None
    read_bytes: int | None
    written_bytes: int | None
    gpu_milli: int | None
    ranks: list[RankUseView]


def view(record: Measured) -> MeasuredView:
    """What an attempt was seen to do."""
    return {
        "source": record.source.value,
        "cpu_ms": record.cpu_ms,
        "rss_peak_mib": record.rss_peak_mib,
        "read_bytes": record.read_bytes,
        "written_bytes": record.written_bytes,
        "gpu_milli": record.gpu_milli(),
        "ranks": [_rank(rank) for rank in record.ranks],
    }


def _rank(record: RankUse) -> RankUseView:
    return {
        "node": record.node,
        "rank": record.rank,
        "source": record.source.value,
        "note": record.note,
        "cpu_ms": record.cpu_ms,
        "rss_peak_mib": record.rss_peak_mib,
        "rss_mean_mib": record.rss_mean_mib,
        "read_bytes": record.read_bytes,
        "written_bytes": record.written_bytes,
        "samples": record.samples,
        "until_ms": list(record.until_ms),
        "cpu_series_milli": list(record.cpu_series_milli),
        "rss_series_mib": list(record.rss_series_mib),
        "devices": [_device_use(device) for device in record.devices],
    }


def _device_use(record: DeviceUse) -> DeviceUseView:
    return {
        "device": record.device,
        "samples": record.samples,
        "gaps": record.gaps,
        "covered_ms": record.covered_ms,
        "gpu_milli": record.gpu_milli,
        "encoder_milli": record.encoder_milli,
        "decoder_milli": record.decoder_milli,
        "memory_peak_mib": record.memory_peak_mib,
        "power_mw": record.power_mw,
        "energy_mj": record.energy_mj,
        "energy_resets": record.energy_resets,
        "series_milli": list(record.series_milli),
    }
