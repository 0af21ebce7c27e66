"""The metering agent as a process, on machines played by the NVML stub, through the real bindings."""

import os
import re
import signal
import subprocess
import sys
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from tests.nvml_stub.stub import h100, line
from workers import meter as agent
from workers.pods import HOST, pod_of

MIB = 1 << 20


class Agent:
    """``python -m workers.meter`` over a library, in a child process."""

    def __init__(self, library, tmp_path, cards):
        scenario = tmp_path / "scenario.txt"
        scenario.write_text("\n".join(["driver 580.65.06", "clock_ms 0", *cards]) + "\n")
        environment = {**os.environ, "LD_LIBRARY_PATH": str(library), "SHISUAN_NVML_SCENARIO": str(scenario)}
        command = [sys.executable, "-P", "-m", "workers.meter", "--port", "0"]
        self.child = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        self.url = re.search(r"http://\S+", self.child.stderr.readline())[0]

    def read(self, until):
        """Values by name and labels, once a scrape has ``until``."""
        deadline = time.monotonic() + 60
        while True:
            text = httpx.get(self.url, trust_env=False).text
            samples = [s for family in parse(text) for s in family.samples]
            found = {
                (s.name.removeprefix("shisuan_device_"), *(value for _, value in sorted(s.labels.items()))): s.value
                for s in samples
            }
            if any(until in name for name in found):
                return found
            assert time.monotonic() < deadline, text
            time.sleep(0.05)


@pytest.fixture
def agent_of(library, tmp_path):
    made = []

    def make(cards):
        made.append(Agent(library, tmp_path, cards))
        return made[-1]

    yield make
    for each in made:
        each.child.kill()
        each.child.communicate()


def test_it_tells_every_reading_in_base_units_and_whose_pod_holds_the_memory(agent_of):
    here = os.getpid()
    cards = [h100(0, power_mw=412_500), h100(1), line("process", card=0, pid=here, memory_mib=500),
             line("process", card=0, pid=2**22 - 1, memory_mib=7)]  # fmt: skip
    found = agent_of(cards).read("up")
    card = "GPU-00000000"
    assert found["up", card] == found["up", "GPU-00000001"] == 1
    assert found["power_watts", card] == 412.5
    assert found["temperature_celsius", "GPU-00000001"] == 31
    assert found["memory_bytes", card, "0", "card", "H100-SXM-80GB", ""] == 81559 * MIB
    assert found["pod_memory_bytes", card, pod_of(here)] == 500 * MIB
    assert found["pod_memory_bytes", card, agent.UNKNOWN] == 7 * MIB
    assert not [name for name in found if name[0] == "pod_memory_bytes" and name[1] != card]


def test_a_machine_without_cards_is_empty_and_the_agent_ends_when_told(agent_of):
    meter = agent_of([])
    assert httpx.get(meter.url, trust_env=False).status_code == 200
    meter.child.send_signal(signal.SIGTERM)
    assert meter.child.wait(30) == 0


def test_pods_are_told_apart_from_the_host():
    assert len({HOST, agent.UNKNOWN}) == 2
