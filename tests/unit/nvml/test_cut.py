"""Cutting a card into other MIG instances through the real bindings."""

import pytest

from scheduler.model.node import Health
from tests.nvml_stub.stub import h100, line

CARD = "GPU-00000000"
HALVES = [
    h100(0, mig=1),
    line("mig", card=0, uuid="MIG-a", profile="3g.40gb", memory_mib=40448, start=0),
    line("mig", card=0, uuid="MIG-b", profile="3g.40gb", memory_mib=40448, start=4),
]


def seen(machine):
    return {(d.slice_start, d.slices, d.profile): d.id for d in machine.devices()}


def test_an_instance_says_where_it_lies(machine):
    assert seen(machine(HALVES)) == {(0, 4, "3g.40gb"): "MIG-a", (4, 4, "3g.40gb"): "MIG-b"}


def test_who_may_not_ask_where_they_lie_sees_them_still(machine):
    hidden = [HALVES[0], *(each.rpartition(" start=")[0] for each in HALVES[1:])]
    assert [(d.id, d.slice_start, d.slices) for d in machine(hidden).devices()] == [("MIG-a", -1, 0), ("MIG-b", -1, 0)]


def test_what_stays_is_left_alone_and_the_rest_is_made_anew_once(machine):
    box = machine(HALVES)
    layout = [(0, "3g.40gb"), (4, "2g.20gb"), (6, "1g.10gb")]
    assert box.ask("cut", CARD, layout) is None
    after = seen(box)
    assert after.keys() == {(0, 4, "3g.40gb"), (4, 2, "2g.20gb"), (6, 1, "1g.10gb")}
    assert after[0, 4, "3g.40gb"] == "MIG-a"
    assert {d.health for d in box.devices()} == {Health.OK}
    assert box.ask("cut", CARD, layout) is None
    assert seen(box) == after


def test_an_empty_card_says_that_it_can_be_cut(machine):
    box = machine(HALVES)
    assert box.ask("cut", CARD, []) is None
    (card,) = box.devices()
    assert (card.id, card.mig_on, card.health) == (CARD, True, Health.QUARANTINED)
    assert box.ask("cut", CARD, [(0, "7g.80gb")]) is None
    assert seen(box).keys() == {(0, 8, "7g.80gb")}


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        ([(0, "7g.80gb")], "3g.40gb at 4 is in use"),
        ([(0, "5g.60gb")], "no profile 5g.60gb"),
        ([(1, "2g.20gb"), (4, "3g.40gb")], "cannot begin at slice 1, only at [0, 2, 4]"),
    ],
)
def test_a_cut_that_cannot_be_made_touches_nothing(machine, layout, says):
    box = machine([*HALVES, line("process", card=0, mig=1, pid=42, memory_mib=10)])
    before = seen(box)
    assert says in box.ask("cut", CARD, layout)
    assert seen(box) == before


def test_a_busy_instance_does_not_keep_the_other_from_being_cut(machine):
    box = machine([*HALVES, line("process", card=0, mig=1, pid=42, memory_mib=10)])
    assert box.ask("cut", CARD, [(0, "4g.40gb"), (4, "3g.40gb")]) is None
    assert seen(box)[4, 4, "3g.40gb"] == "MIG-b"


def test_a_card_that_is_not_there_is_refused(machine):
    assert machine(HALVES).ask("cut", "GPU-x", []) == "the driver shows no card GPU-x"


def test_an_instance_without_its_compute_instance_is_completed(machine):
    half = line("made", card=0, uuid="MIG-c", profile="3g.40gb", memory_mib=40448, start=4)
    box = machine([*HALVES[:2], half])
    assert seen(box).keys() == {(0, 4, "3g.40gb")}
    assert box.ask("cut", CARD, [(0, "3g.40gb"), (4, "3g.40gb")]) is None
    assert seen(box)[4, 4, "3g.40gb"] == "MIG-c"


def test_a_machine_tells_its_devices_after_a_cut_and_why_not(machine):
    box = machine(HALVES)
    devices, problems = box.ask("cut_here", CARD, [(0, "7g.80gb")])
    assert ([device["profile"] for device in devices], problems) == (["7g.80gb"], {})
    devices, problems = box.ask("cut_here", CARD, [(0, "5g.60gb")])
    assert [device["profile"] for device in devices] == ["7g.80gb"]
    assert "no profile 5g.60gb" in problems[CARD]


def test_an_old_driver_refuses(machine, old_library):
    box = machine(HALVES, library=old_library)
    assert "a newer one is needed" in box.ask("cut", CARD, [])
    assert len(box.devices()) == 2
