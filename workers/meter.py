"""The metering agent of a node: ``python -P -m workers.meter --port 9400`` reads every card and tells Prometheus.

It runs once per node, in the host's process-id namespace, and changes nothing. Its figures are for people: bills come
from leases. A process's pod is known by its uid, so that figures per card add up over pods and host.
"""

from __future__ import annotations

import argparse
import logging
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from scheduler.model.node import Device
from scheduler.model.sample import Sample
from workers.nvml import NvmlTelemetry
from workers.pods import PROC, pod_of
from workers.sampler import Sampler

BYTES_PER_MIB = 1 << 20
MJ_PER_JOULE = 1000
UNKNOWN = "unknown"
"""The pod of a process that ended between the driver's list and our look."""

READINGS = (
    ("gpu_ratio", "Share of the driver's last window in which some kernel ran", "gpu_percent", 1, 100),
    ("encoder_ratio", "Use of the video encoder", "encoder_percent", 1, 100),
    ("decoder_ratio", "Use of the video decoder", "decoder_percent", 1, 100),
    ("memory_used_bytes", "Memory in use", "memory_used_mib", BYTES_PER_MIB, 1),
    ("power_watts", "Power drawn", "power_mw", 1, 1000),
    ("temperature_celsius", "Temperature of the chip", "temperature_c", 1, 1),
)
"""Name after ``shisuan_device_``, text, field of a sample, what to multiply and divide it by for the base unit."""


class Meter(Collector):
    """The latest reading of each device, as metrics, labelled by its UUID; held memory also by the uid of the pod."""

    def __init__(self, devices: Callable[[], Sequence[Device]], proc: Path = PROC) -> None:
        self._devices = devices
        self._proc = proc
        self._samples: Sequence[Sample] = ()

    def take(self, samples: Sequence[Sample]) -> None:
        """A round of the sampler."""
        self._samples = samples

    def collect(self) -> Iterator[Metric]:
        """Called by prometheus-client for each scrape."""
        samples = self._samples
        yield self._memory({sample.device for sample in samples})
        answers = GaugeMetricFamily("shisuan_device_up", "1 while the device answers", labels=["device"])
        for sample in samples:
            answers.add_metric([sample.device], 0 if sample.problem else 1)
        yield answers
        for name, text, field, times, over in READINGS:
            family = GaugeMetricFamily(f"shisuan_device_{name}", text, labels=["device"])
            for sample in samples:
                if (value := getattr(sample, field)) is not None:  # what a device does not say is absent
                    family.add_metric([sample.device], value * times / over)
            yield family
        energy = CounterMetricFamily(
            "shisuan_device_energy_joules", "Energy since the driver was loaded", labels=["device"]
        )
        for sample in samples:
            if sample.energy_mj is not None:
                energy.add_metric([sample.device], sample.energy_mj / MJ_PER_JOULE)
        yield energy
        yield self._pods(samples)

    def _memory(self, sampled: set[str]) -> Metric:
        names = ["device", "model", "index", "kind", "profile"]
        family = GaugeMetricFamily("shisuan_device_memory_bytes", "Memory of the device", labels=names)
        for device in self._devices():
            if device.id in sampled:
                labels = [device.id, device.model, str(device.index), device.kind.value, device.profile]
                family.add_metric(labels, device.memory_mib * BYTES_PER_MIB)
        return family

    def _pods(self, samples: Sequence[Sample]) -> Metric:
        """Memory per pod; the pod is empty for processes of the host, such as a display server."""
        held: Counter[tuple[str, str]] = Counter()
        for sample in samples:
            for process in sample.processes or ():
                pod = pod_of(process.pid, self._proc)
                held[sample.device, UNKNOWN if pod is None else pod] += (process.memory_mib or 0) * BYTES_PER_MIB
        family = GaugeMetricFamily(
            "shisuan_device_pod_memory_bytes", "Memory held by a pod's processes", labels=["device", "pod_uid"]
        )
        for labels, used in sorted(held.items()):
            family.add_metric(labels, used)
        return family


class Watched:
    """The telemetry, remembering which devices it named last: asking it again is the sampler's business alone."""

    def __init__(self, telemetry: NvmlTelemetry) -> None:
        self._telemetry = telemetry
        self.last: tuple[Device, ...] = ()

    def devices(self) -> tuple[Device, ...]:
        """See :class:`workers.sampler.Source`."""
        self.last = self._telemetry.devices()
        return self.last

    def sample_of(self, device_id: str) -> Sample:
        """See :class:`workers.sampler.Source`."""
        return self._telemetry.sample_of(device_id)


def parser() -> argparse.ArgumentParser:
    """Of ``python -P -m workers.meter``."""
    about = "Tells Prometheus about this node's cards."
    made = argparse.ArgumentParser(prog="python -P -m workers.meter", description=about)
    made.add_argument("--host", default="127.0.0.1", help="listen address")
    made.add_argument("--port", type=int, default=9400, help="0: any free port, said on the log")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Serve ``/metrics`` until SIGTERM."""
    asked = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    telemetry = NvmlTelemetry()
    watched = Watched(telemetry)
    meter = Meter(lambda: watched.last)
    registry = CollectorRegistry()
    registry.register(meter)
    server, thread = start_http_server(asked.port, asked.host, registry)
    sampler = Sampler(watched, meter.take)
    sampler.start()
    logging.getLogger("shisuan.meter").info("serving http://%s:%d/metrics", asked.host, server.server_port)
    ended.wait()
    server.shutdown()
    thread.join()
    sampler.stop()
    telemetry.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
