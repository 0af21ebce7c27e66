"""The paced loop: one hung card delays no other."""

import threading
import time

import pytest

from scheduler.model.node import Device
from scheduler.model.sample import Sample
from workers.sampler import Sampler

CARDS = tuple(Device(id=f"GPU-{n}", model="L4", index=n) for n in range(3))


class Cards:
    """Answers at once, but for those in ``hung``, which answer when they are let go."""

    def __init__(self, hung=()):
        self.gates = {name: threading.Event() for name in hung}
        self.asked = []
        self.looks = 0

    def devices(self):
        self.looks += 1
        return CARDS

    def sample_of(self, device_id):
        self.asked.append(device_id)
        if device_id in self.gates:
            self.gates[device_id].wait()
        return Sample(device=device_id, at_ms=7)


def problems(samples):
    return [s.problem for s in samples]


def test_every_card_is_read_in_order():
    sampler = Sampler(Cards(), print)
    assert [s.device for s in sampler.round(CARDS)] == ["GPU-0", "GPU-1", "GPU-2"]


def test_a_hung_card_is_told_and_the_others_are_read():
    cards = Cards(hung=["GPU-1"])
    sampler = Sampler(cards, print, deadline_ms=50, now_ms=lambda: 99)
    first = sampler.round(CARDS)
    assert problems(first) == ["", "no answer in 50 ms", ""]
    assert first[1].at_ms == 99
    assert problems(sampler.round(CARDS)) == ["", "no answer in 50 ms", ""]
    assert cards.asked.count("GPU-1") == 1  # a card that hangs is not asked again while it does
    cards.gates["GPU-1"].set()
    sampler._under_way["GPU-1"].result(timeout=10)
    assert problems(sampler.round(CARDS)) == ["", "", ""]
    assert cards.asked.count("GPU-1") == 1
    sampler.round(CARDS)
    assert cards.asked.count("GPU-1") == 2


def test_a_reading_that_raises_is_one_cards_problem():
    class Broken(Cards):
        def sample_of(self, device_id):
            if device_id == "GPU-2":
                raise OSError("bus error")
            return super().sample_of(device_id)

    samples = Sampler(Broken(), print).round(CARDS)
    assert problems(samples)[:2] == ["", ""]
    assert "bus error" in samples[2].problem


def test_the_loop_delivers_round_after_round_until_it_is_stopped():
    delivered, enough = [], threading.Event()

    def deliver(samples):
        delivered.append(samples)
        if len(delivered) == 3:
            enough.set()

    sampler = Sampler(Cards(), deliver, interval_ms=1)
    sampler.start()
    assert enough.wait(timeout=30)
    sampler.stop()
    count = len(delivered)
    assert all(len(samples) == 3 for samples in delivered)
    sampler.stop()
    assert len(delivered) == count


def test_it_looks_for_devices_again_now_and_then(monkeypatch):
    monkeypatch.setattr("workers.sampler.LOOK_AGAIN_EVERY", 2)
    cards, rounds = Cards(), []
    sampler = Sampler(cards, rounds.append, interval_ms=1)
    sampler.start()
    deadline = time.monotonic() + 30
    while len(rounds) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    sampler.stop()
    assert cards.looks >= 3


def test_a_sampler_that_never_began_can_be_stopped():
    Sampler(Cards(), pytest.fail).stop()
