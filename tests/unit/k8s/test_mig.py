"""What named configurations make of a node, and what its labels say of it."""

import pytest

from k8s.mig import Config, Entry, layouts_of
from k8s.names import LAYOUT, MIG_CAPABLE, MIG_CONFIG, MIG_MANAGER, MIG_STATE, MIG_STRATEGY
from scheduler.model.node import CardCut, DeviceKind, Health, NodeLayout
from tests.unit.k8s.raw import H100, gpu, mig, node, pod, resource_slice
from tests.unit.k8s.test_mapping import seen

HOPPER, HALF = "H100-SXM-80GB", (("3g.40gb", 2),)
CONFIGS = (
    Config(name="all-1g.10gb", entries=(Entry(profiles=(("1g.10gb", 7),)),)),
    Config(name="all-disabled", entries=(Entry(mig_on=False),)),
    Config(name="one", entries=(Entry(devices=(0,), profiles=HALF), Entry(devices=(1, 2, 3), mig_on=False))),
)
ALL_1G = NodeLayout(name="all-1g.10gb", profiles=(("1g.10gb", 28),), cards=4)
SMALL = "nvidia.com/mig-1g.10gb"
LABELS = {
    **H100,
    "nvidia.com/gpu.count": "4",
    MIG_CAPABLE: "true",
    MIG_MANAGER: "true",
    MIG_STRATEGY: "mixed",
    MIG_CONFIG: "all-disabled",
    MIG_STATE: "success",
}


def told(labels=None, asked="", **fields):
    raw = node(labels=LABELS | (labels or {}), **({"cards": 4} | fields))
    raw["metadata"]["annotations"] = {LAYOUT: asked} if asked else {}
    return raw


def shown(raw, **more):
    return seen(raw, configs=CONFIGS, **more)


def healths(made):
    return {(device.health, device.health_reason) for device in made.devices}


def test_a_configuration_is_a_layout_of_the_nodes_whose_cards_it_all_names():
    assert layouts_of(CONFIGS, HOPPER, 4) == (
        ALL_1G,
        NodeLayout(name="all-disabled", profiles=(("", 4),), cards=4),
        NodeLayout(name="one", profiles=(("", 3), ("3g.40gb", 2)), cards=4),
    )
    assert [one.name for one in layouts_of(CONFIGS, HOPPER, 8)] == ["all-1g.10gb", "all-disabled"], "cards 4 to 7"
    assert layouts_of(CONFIGS, "L4", 4) == layouts_of(CONFIGS, "unknown", 4) == layouts_of(CONFIGS, HOPPER, 0) == ()


@pytest.mark.parametrize(
    ("entries", "profiles"),
    [
        ([(("1g.10gb", 7),), (("1g.18gb", 7),)], {HOPPER: (("1g.10gb", 7),), "H200-SXM-141GB": (("1g.18gb", 7),)}),
        ([(("1g.10gb", 7),), (("1g.10gb", 6),)], {HOPPER: None}),
        ([(("1g.10gb", 8),)], {HOPPER: None}),
        ([(("3g.40gb", 2), ("1g.10gb", 1))], {HOPPER: None}),
    ],
    ids=["boards-differ", "entries-disagree", "too-many", "too-large"],
)
def test_an_entry_is_for_the_cards_that_can_be_cut_so(entries, profiles):
    config = Config(name="x", entries=tuple(Entry(profiles=tuple(sorted(one))) for one in entries))
    for model, expected in profiles.items():
        found = layouts_of((config,), model, 1)
        assert [layout.profiles for layout in found] == ([expected] if expected else [])


def test_a_node_that_the_mig_manager_looks_after_says_what_it_can_be_and_is():
    made = shown(told())
    assert ([one.name for one in made.layouts], made.layout) == (["all-1g.10gb", "all-disabled", "one"], "all-disabled")
    made = shown(told({MIG_CONFIG: "all-1g.10gb"}, resources={SMALL: "28"}))
    assert (made.layout, len(made.devices), made.devices[0].profile) == ("all-1g.10gb", 28, "1g.10gb")


@pytest.mark.parametrize(
    "without",
    [{MIG_CAPABLE: "false"}, {MIG_MANAGER: ""}, {MIG_STRATEGY: "single"}, {"nvidia.com/gpu.count": ""}],
    ids=["no-mig", "no-manager", "single", "no-count"],
)
def test_others_say_nothing_of_layouts(without):
    made = shown(told({MIG_STATE: "pending", **without}))
    assert (made.layouts, made.layout, made.cuts) == ((), "", ())
    assert healths(made) == {(Health.OK, "")}


@pytest.mark.parametrize(
    ("labels", "asked"),
    [
        ({MIG_STATE: "pending"}, ""),
        ({MIG_STATE: "rebooting"}, "one@5"),
        ({MIG_CONFIG: "one", MIG_STATE: ""}, "one@5"),
    ],
    ids=["by-hand", "rebooting", "not-begun"],
)
def test_a_node_that_is_cut_or_will_be_takes_no_work(labels, asked):
    made = shown(told(labels, asked=asked))
    ((health, why),) = healths(made)
    assert (health, made.layout) == (Health.QUARANTINED, "")
    assert "the GPU Operator is to cut its cards anew" in why
    assert len(made.layouts) == 3, "jobs that wait for it are possible"


def test_what_a_kubelet_shows_of_before_is_not_there_any_more():
    late = told({MIG_CONFIG: "all-1g.10gb"}, resources={"nvidia.com/gpu": "4", SMALL: "28"}, usable=0)
    made = shown(late)
    assert (made.layout, len(made.devices)) == ("all-1g.10gb", 28)
    early = told({MIG_CONFIG: "all-1g.10gb"}, usable=0)
    assert (shown(early).layout, len(shown(early).devices)) == ("", 4), "its device plugin has not told yet"


def test_a_sick_instance_does_not_make_another_layout_of_it():
    raw = told({MIG_CONFIG: "all-1g.10gb"}, resources={SMALL: "28"})
    raw["status"]["allocatable"][SMALL] = "27"
    made = shown(raw)
    assert (made.layout, len(made.devices)) == ("all-1g.10gb", 28)


def test_a_failure_is_told_of_the_decision_that_it_is_about():
    (cut,) = shown(told({MIG_CONFIG: "one", MIG_STATE: "failed"}, asked="one@77")).cuts
    assert (cut.name, cut.since_ms, cut.is_told) == ("one", 77, True)
    assert "could not apply one" in cut.problem
    assert cut.answers(CardCut(name="one", since_ms=77))
    assert not cut.answers(CardCut(name="one", since_ms=78))
    assert not cut.answers(CardCut(name="all-1g.10gb", since_ms=77))


@pytest.mark.parametrize("asked", ["", "all-1g.10gb@77", "one@soon"])
def test_anothers_failure_is_nobodys(asked):
    made = shown(told({MIG_CONFIG: "one", MIG_STATE: "failed"}, asked=asked))
    assert (made.cuts, healths(made)) == ((), {(Health.OK, "")})


def test_strangers_still_hold_what_they_hold_while_it_is_cut():
    made = shown(told({MIG_STATE: "pending"}), *())
    assert {d.health for d in made.devices} == {Health.QUARANTINED}
    held = seen(told({MIG_STATE: "pending"}), pod("theirs", cards=1), configs=CONFIGS)
    assert [d.health for d in held.devices].count(Health.EXTERNAL) == 1


def test_devices_with_names_are_counted_likewise():
    raw = told({MIG_CONFIG: "all-1g.10gb", MIG_STRATEGY: "none"}, resources={})
    named = [mig(f"m{n}", f"MIG-{n}", parent="GPU-0", profile="1g.10gb") for n in range(28)]
    made = shown(raw, slices=[resource_slice(devices=named)])
    assert (made.layout, {d.kind for d in made.devices}) == ("all-1g.10gb", {DeviceKind.MIG})
    made = shown(raw, slices=[resource_slice(devices=[gpu("g0", "GPU-0")])])
    assert made.layout == ""
