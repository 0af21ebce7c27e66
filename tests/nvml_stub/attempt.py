"""Child process: a real agent on the stub's cards runs one attempt. One JSON word in per step, one answer out.

``wait``: until each card was read twice more; ``asked``: until the driver was asked for its cards; ``end``: let the
attempt end, and tell its measurement and its state.
"""

import json
import sys
import threading
from pathlib import Path

from scheduler.model import codec
from tests.unit.workers.helpers import Reader, agent, lease, shell, until
from workers.nvml import NvmlTelemetry


class Counted(NvmlTelemetry):
    """Counts the readings that came back."""

    def __init__(self) -> None:
        super().__init__()
        self.readings: dict[str, int] = {}
        self.lock = threading.Lock()
        self.looked = 0

    def devices(self):
        found = super().devices()
        self.looked += 1
        return found

    def sample_of(self, device_id):
        sample = super().sample_of(device_id)
        with self.lock:
            self.readings[device_id] = self.readings.get(device_id, 0) + 1
        return sample


home, devices = Path(sys.argv[1]), tuple(sys.argv[2].split(","))
cards = Counted()
one = agent(home, telemetry=lambda: cards, measure_every_s=0.05)
reader = Reader(one)
one.submit([lease(shell(f"until [ -e {home}/go ]; do sleep 0.01; done"), devices=devices)])
reader.started()
for word in sys.stdin:
    if word.strip() == "end":
        (home / "go").touch()
        end = reader.finished()
        print(json.dumps({"state": end.state, "measured": codec.encode(end.measured)}), flush=True)
        break
    if word.strip() == "asked":
        until(lambda: cards.looked, "the driver is asked")
        print(json.dumps(cards.readings), flush=True)
        continue
    before = dict(cards.readings)
    asked = word.split()[1:] or devices
    until(lambda: all(cards.readings.get(d, 0) >= before.get(d, 0) + 2 for d in asked), f"readings of {asked}")  # noqa: B023
    print(json.dumps(cards.readings), flush=True)
one.close()
