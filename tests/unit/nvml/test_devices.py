"""Which devices there are, by the real bindings on our stub."""

import pytest

from scheduler.model.node import DeviceKind, Health
from tests.nvml_stub.stub import dgx, h100, line

MIG_CARD = [
    h100(0, mig=1),
    line("mig", card=0, uuid="MIG-a", profile="1g.10gb", memory_mib=9984),
    line("mig", card=0, uuid="MIG-b", profile="3g.40gb", memory_mib=40448),
]
LOST = "the driver lost this card"


def test_the_stub_lays_its_structs_out_as_the_bindings_do(machine):
    structs = [
        "c_nvmlMemory_t", "c_nvmlMemory_v2_t", "c_nvmlUtilization_t", "c_nvmlProcessInfo_v3_t", "nvmlPciInfo_t",
        "c_nvmlDeviceAttributes", "c_nvmlGpuInstancePlacement_t", "c_nvmlGpuInstanceInfo_t",
        "c_nvmlGpuInstanceProfileInfo_v2_t", "c_nvmlComputeInstanceProfileInfo_v2_t",
    ]  # fmt: skip
    sizes = machine([]).ask("sizes_of", *structs)
    assert all(ours == theirs > 0 for ours, theirs in sizes.values()), sizes


def test_eight_h100_are_one_island(machine):
    devices = machine(dgx()).devices()
    assert [d.index for d in devices] == list(range(8))
    assert {(d.model, d.kind, d.memory_mib, d.health) for d in devices} == {
        ("H100-SXM-80GB", DeviceKind.CARD, 81559, Health.OK)
    }
    assert {d.island for d in devices} == {"GPU-00000000"}
    assert len({d.id for d in devices}) == 8


def test_cards_without_nvlink_are_no_island(machine):
    cards = [line("card", uuid=f"GPU-{n}", name="NVIDIA L40S", memory_mib=46068, bus=f"b{n}") for n in (1, 2)]
    devices = machine(cards).devices()
    assert [(d.model, d.island) for d in devices] == [("L40S", ""), ("L40S", "")]


@pytest.mark.parametrize("old", [False, True])
def test_bridged_pairs_are_islands_of_two(machine, library, old_library, old):
    """A bridge joins cards 0-1 and 2-3; an old driver does not tell what kind of thing a link leads to."""
    pairs = [h100(n, bus=f"b{n}", remote=f"b{n ^ 1}", links=3) for n in range(4)]
    devices = machine([*pairs, h100(4, links=0)], old_library if old else library).devices()
    assert [d.island for d in devices] == ["GPU-00000000"] * 2 + ["GPU-00000002"] * 2 + [""]


def test_mig_instances_stand_in_for_their_card(machine):
    devices = machine([*MIG_CARD, h100(1)]).devices()
    assert [(d.id, d.kind, d.parent, d.profile, d.memory_mib) for d in devices] == [
        ("MIG-a", DeviceKind.MIG, "GPU-00000000", "1g.10gb", 9984),
        ("MIG-b", DeviceKind.MIG, "GPU-00000000", "3g.40gb", 40448),
        ("GPU-00000001", DeviceKind.CARD, "", "", 81559),
    ]
    assert {d.model for d in devices} == {"H100-SXM-80GB"}
    assert [d.index for d in devices] == [0, 0, 1]


def test_a_mig_profile_is_told_by_its_slices_where_the_name_is_not(machine):
    nameless = [MIG_CARD[0], MIG_CARD[1] + " without=name"]
    assert [d.profile for d in machine(nameless).devices()] == ["1g.10gb"]


def test_a_card_with_mig_on_and_no_instance_takes_no_work(machine):
    (card,) = machine([h100(0, mig=1)]).devices()
    assert (card.id, card.health) == ("GPU-00000000", Health.QUARANTINED)
    assert "no instance" in card.health_reason


def test_a_card_that_gets_lost_stays_and_is_quarantined(machine):
    dgx_machine = machine(dgx())
    before = dgx_machine.devices()
    dgx_machine.become(dgx(fault="lost"))
    after = dgx_machine.devices()
    assert {d.id for d in after} == {d.id for d in before}
    assert [(d.id, d.health_reason) for d in after if d.health is Health.QUARANTINED] == [("GPU-00000000", LOST)]
    dgx_machine.become(dgx())
    assert dgx_machine.devices() == before


def test_a_card_lost_from_the_beginning_is_a_problem_with_a_name(machine):
    dgx_machine = machine(dgx(fault="lost"))
    assert len(dgx_machine.devices()) == 7
    assert dgx_machine.ask("problems") == ["card 0: the driver lost this card: GPU is lost"]


def test_a_card_cut_anew_has_not_lost_its_old_instances(machine):
    box = machine(MIG_CARD)
    box.devices()
    box.become([MIG_CARD[0], line("mig", card=0, uuid="MIG-c", profile="7g.80gb", memory_mib=81000)])
    assert [d.id for d in box.devices()] == ["MIG-c"]
    box.become([h100(0)])
    assert [d.id for d in box.devices()] == ["GPU-00000000"]
    box.become(MIG_CARD)
    assert [d.id for d in box.devices()] == ["MIG-a", "MIG-b"]


def test_instances_of_a_lost_card_are_quarantined(machine):
    box = machine(MIG_CARD)
    box.devices()
    box.become([h100(0, mig=1, fault="lost"), *MIG_CARD[1:]])
    assert [(d.id, d.health_reason) for d in box.devices()] == [("MIG-a", LOST), ("MIG-b", LOST)]


@pytest.mark.parametrize(
    ("rows", "advice"), [({"rows_failed": 1}, "replace the card"), ({"rows_pending": 1}, "reset the card")]
)
def test_worn_out_memory_quarantines_one_card(machine, rows, advice):
    devices = machine(dgx(**rows)).devices()
    assert [d.health for d in devices] == [Health.QUARANTINED] + [Health.OK] * 7
    assert advice in devices[0].health_reason


def test_a_board_that_is_not_in_the_catalogue_is_still_a_card(machine):
    (card,) = machine([line("card", uuid="GPU-x", name="NVIDIA Z900", memory_mib=1000)]).devices()
    assert (card.id, card.model, card.memory_mib) == ("GPU-x", "unknown", 1000)


def test_a_driver_without_cards_says_so(machine):
    box = machine([])
    assert (box.devices(), box.why_none) == ((), "the driver shows no cards")


def test_a_driver_that_is_not_loaded_says_so_and_is_asked_again(machine):
    box = machine(dgx())
    box.become(dgx(), down=9)
    assert box.devices() == ()
    assert "the NVIDIA driver does not answer" in box.why_none
    box.become(dgx())
    assert len(box.devices()) == 8
    assert box.why_none == ""


def test_a_driver_unloaded_under_us_quarantines_and_recovers(machine):
    box = machine(dgx())
    before = box.devices()
    box.become([], down=1)
    assert {d.health_reason for d in box.devices()} == {LOST}
    box.become(dgx())
    assert box.devices() == before
