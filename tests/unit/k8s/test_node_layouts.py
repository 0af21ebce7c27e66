"""Nodes whose cards are cut anew by the GPU Operator's label: asked once, when nobody is there, by whoever leads."""

from dataclasses import replace

import pytest

from k8s.actions import HoldNode, LayOut, TakeBack
from k8s.errors import Stale
from k8s.names import EPOCH, LEASE, MIG_CONFIG, MIG_STATE
from scheduler.model.node import CardCut, Health
from scheduler.model.order import ReportKind
from tests.fakes.kuberay.mig_manager import CUT, PENDING, REGISTER
from tests.farm import Reader, lease
from tests.kube_executor import SITE, KubeSite
from tests.mig_park import FILE, HALVES, SMALL, WHOLE, asked, configs, mig_node
from tests.unit.k8s.paper import numbers, objects, slots, until
from tests.unit.k8s.raw import gpu, pod, resource_slice
from tests.unit.k8s.test_sleeping_leader import Sleeper, successor

pytestmark = pytest.mark.timeout(120)
CUT_77 = CardCut(name=SMALL, since_ms=77)


@pytest.fixture
def farm(tmp_path):
    """Two nodes of two H100; ``farm.reader()`` is a service, and the last one leads."""
    site = replace(SITE, mig_configs=configs(), warm_ms=600_000)
    farm = KubeSite(tmp_path, site=site, nodes=[mig_node("alpha"), mig_node("beta")], mig_configs=FILE)
    farm.readers = []

    def reader(**fields):
        made = Reader(farm.connect(**fields))
        farm.readers.append(made)
        return made

    farm.reader = reader
    yield farm
    for made in farm.readers:
        made.executor.close()
    farm.remove()


@pytest.fixture
def reader(farm):
    made = farm.reader()
    made.kind(ReportKind.RUNTIME_UP)
    return made


def facts(reader, is_so, node="alpha"):
    """What the node says, once that is so."""
    said = [r.facts for r in reader.heard if r.kind is ReportKind.NODE and r.node == node]
    if said and is_so(said[-1]):
        return said[-1]
    return reader.until(lambda r: r.kind is ReportKind.NODE and r.node == node and is_so(r.facts)).facts


def run(reader, order):
    reader.executor.start([order])
    end = reader.end_of(order.lease_id)
    reader.executor.acknowledge([end.cursor])
    return end


def epoch_of(farm, name="alpha"):
    return objects(farm, "nodes")[name]["metadata"].get("annotations", {}).get(EPOCH)


def test_a_node_is_put_into_a_layout_and_its_instances_are_leased(farm, reader):
    before = facts(reader, lambda node: node.layout == WHOLE)
    assert [layout.name for layout in before.layouts] == [SMALL, HALVES, WHOLE]
    for _ in range(2):  # as after a repetition
        reader.executor.recut({"alpha": (CUT_77,)})
    made = facts(reader, lambda node: node.layout == SMALL)
    assert (len(made.devices), {d.profile for d in made.devices}, made.cuts) == (14, {"1g.10gb"}, ())
    assert asked(farm.park, "alpha") == (SMALL, "success", f"{SMALL}@77")
    assert farm.park.mig.began == [("alpha", SMALL)], "once"
    assert facts(farm.reader(), lambda node: True, "beta").layout == WHOLE, "the other one stays as it is"
    end = run(farm.readers[-1], lease(next(numbers), "true", devices=(made.devices[3].id,)))
    assert end.state == "succeeded", end.message


def test_idle_pods_go_first_and_what_ends_is_waited_for(farm, reader):
    run(reader, lease(next(numbers), "true", devices=slots("alpha", 0)))
    run(reader, lease(next(numbers), "true", node="beta", devices=slots("beta", 0)))
    until(lambda: all(LEASE not in p["metadata"]["annotations"] for p in farm.park.workers()), "the release")
    assert len(farm.park.workers()) == 2, "they are kept warm"
    reader.executor.recut({"alpha": (CUT_77,)})
    facts(reader, lambda node: node.layout == SMALL)
    (left,) = farm.park.workers()
    assert left["spec"]["nodeName"] == "beta", "a warm pod elsewhere is in nobody's way"


def test_nobody_is_cut_under_a_lease_or_a_stranger(farm, reader):
    order = lease(next(numbers), "sleep", "1000", devices=slots("alpha", 0))
    reader.executor.start([order])
    reader.start_of(order.lease_id)
    farm.park.double.put(pod("theirs", on="beta", cards=1, phase="Pending"))
    facts(reader, lambda node: any(d.health is Health.EXTERNAL for d in node.devices), "beta")
    reader.executor.recut({"alpha": (CUT_77,), "beta": (CUT_77,)})
    until(lambda: epoch_of(farm, "alpha") == epoch_of(farm, "beta") == str(farm.epoch), "the look at both")
    assert [asked(farm.park, name) for name in ("alpha", "beta")] == [(WHOLE, "success", None)] * 2
    reader.executor.stop([order.lease_id], "preempted")
    reader.executor.acknowledge([reader.end_of(order.lease_id).cursor])
    farm.park.double.remove("pods", "theirs", "default")
    facts(reader, lambda node: node.layout == SMALL)
    facts(reader, lambda node: node.layout == SMALL, "beta")


def test_a_failure_is_told_and_the_node_stays_in_use(farm, reader):
    farm.park.mig.fails.add(SMALL)
    reader.executor.recut({"alpha": (CUT_77,)})
    said = facts(reader, lambda node: node.cuts)
    (cut,) = said.cuts
    assert cut.answers(CUT_77)
    assert f"could not apply {SMALL}" in cut.problem
    assert [d.health for d in facts(reader, lambda node: node.devices[0].health is Health.OK).devices] == [
        Health.OK
    ] * 2
    assert run(reader, lease(next(numbers), "true", devices=slots("alpha", 0))).state == "succeeded"


def test_what_failed_can_be_tried_again_under_the_same_name(farm, reader):
    farm.park.mig.fails.add(SMALL)
    reader.executor.recut({"alpha": (CUT_77,)})
    facts(reader, lambda node: node.cuts)
    farm.park.mig.fails.clear()
    reader.executor.recut({"alpha": ()})  # it is over
    reader.executor.recut({"alpha": (replace(CUT_77, since_ms=99),)})
    facts(reader, lambda node: node.layout == SMALL)
    assert asked(farm.park, "alpha") == (SMALL, "success", f"{SMALL}@99")
    said = [cut for r in reader.heard if r.kind is ReportKind.NODE for cut in r.facts.cuts]
    assert {cut.since_ms for cut in said} == {77}, "the failure of before is not one of this"


def test_a_node_takes_no_work_until_its_devices_are_told(farm, reader):
    farm.park.mig.may = lambda _node, step: step != REGISTER
    reader.executor.recut({"alpha": (CUT_77,)})
    until(lambda: asked(farm.park, "alpha")[1] == "success", "the word of the MIG manager")
    late = facts(reader, lambda node: not node.layout and node.layouts)
    assert {d.health for d in late.devices} == {Health.QUARANTINED}
    farm.park.mig.may = lambda _node, _step: True
    assert len(facts(reader, lambda node: node.layout == SMALL).devices) == 14


def test_what_has_not_begun_is_taken_back_and_the_node_is_told_again(farm, reader):
    farm.park.mig.may = lambda _node, step: step != PENDING
    reader.executor.recut({"alpha": (CUT_77,)})
    until(lambda: asked(farm.park, "alpha") == (SMALL, None, f"{SMALL}@77"), "the question")
    facts(reader, lambda node: node.devices[0].health is Health.QUARANTINED)
    reader.executor.recut({"alpha": ()})
    facts(reader, lambda node: node.devices[0].health is Health.OK)
    assert asked(farm.park, "alpha") == (WHOLE, None, None)
    farm.park.mig.may = lambda _node, _step: True  # it is there again, and has nothing to do
    assert run(reader, lease(next(numbers), "true", devices=slots("alpha", 0))).state == "succeeded"
    assert farm.park.mig.began == []


def test_what_was_begun_is_not_taken_back(farm, reader):
    farm.park.mig.may = lambda _node, step: step != CUT
    reader.executor.recut({"alpha": (CUT_77,)})
    until(lambda: asked(farm.park, "alpha")[1] == "pending", "the beginning")
    reader.executor.recut({"alpha": ()})
    facts(reader, lambda node: node.devices[0].health is Health.QUARANTINED)
    reader.executor.recut({"beta": (replace(CUT_77, name=HALVES),)})
    facts(reader, lambda node: "pending" in node.devices[0].health_reason, "beta")
    assert asked(farm.park, "alpha") == (SMALL, "pending", f"{SMALL}@77")
    farm.park.mig.may = lambda _node, _step: True
    facts(reader, lambda node: node.layout == SMALL)
    facts(reader, lambda node: node.layout == HALVES, "beta")


# ── leaders ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_leader_goes_on_where_it_was_asked(farm, reader):
    farm.park.mig.may = lambda _node, step: step != CUT
    reader.executor.recut({"alpha": (CUT_77,)})
    until(lambda: asked(farm.park, "alpha")[1] == "pending", "the beginning")
    reader.executor.close()
    new = farm.reader()
    new.kind(ReportKind.RUNTIME_UP)
    new.executor.recut({"alpha": (CUT_77,)})  # what is recorded is told again
    until(lambda: epoch_of(farm) == str(farm.epoch), "its epoch")
    farm.park.mig.may = lambda _node, _step: True
    facts(new, lambda node: node.layout == SMALL)
    assert farm.park.mig.began == [("alpha", SMALL)]


def test_a_new_leader_asks_what_the_old_one_had_not(farm):
    old = Sleeper(farm, LayOut, site=farm.site)
    old.reader.executor.recut({"alpha": (CUT_77,)})
    old.sleep()
    farm.site = replace(SITE, mig_configs=configs())
    new = successor(farm)
    new.executor.recut({"alpha": (CUT_77,)})
    facts(new, lambda node: node.layout == SMALL)
    assert isinstance(old.wake(), Stale)
    assert farm.park.mig.began == [("alpha", SMALL)]


def test_a_late_question_is_not_asked_of_a_node_that_was_given_away_since(farm):
    old = Sleeper(farm, LayOut, site=farm.site)
    old.reader.executor.recut({"alpha": (CUT_77,)})
    old.sleep()
    farm.site = replace(SITE, mig_configs=configs())
    new = successor(farm)
    new.executor.recut({"alpha": ()})  # it was given up
    until(lambda: epoch_of(farm) == str(farm.epoch), "its epoch")
    assert isinstance(old.wake(), Stale)
    assert asked(farm.park, "alpha") == (WHOLE, "success", None)


@pytest.mark.parametrize("kind", [TakeBack, HoldNode])
def test_late_writes_on_a_node_fit_no_version(farm, kind):
    farm.park.mig.may = lambda _node, step: step != PENDING
    first = farm.reader()
    first.kind(ReportKind.RUNTIME_UP)
    first.executor.recut({"alpha": (CUT_77,)})
    until(lambda: asked(farm.park, "alpha")[2], "the question")
    first.executor.close()
    old = Sleeper(farm, kind, site=farm.site)
    old.reader.executor.recut({"alpha": () if kind is TakeBack else (CUT_77,)})
    old.sleep()
    farm.site = replace(SITE, mig_configs=configs())
    new = successor(farm)
    new.executor.recut({"alpha": (CUT_77,)})
    until(lambda: epoch_of(farm) == str(farm.epoch), "its epoch")
    assert isinstance(old.wake(), Stale)
    assert asked(farm.park, "alpha") == (SMALL, None, f"{SMALL}@77")


def test_a_label_that_says_so_already_is_changed_all_the_same(farm, reader):
    """The MIG manager acts on a change only."""
    node = objects(farm, "nodes")["alpha"]
    labels = {**node["metadata"]["labels"], MIG_CONFIG: SMALL, MIG_STATE: "failed"}
    farm.park.mig.fails.add(SMALL)
    farm.park.double.put({**node, "metadata": {**node["metadata"], "labels": labels}})
    until(lambda: asked(farm.park, "alpha")[1] == "failed" and farm.park.mig.began, "another's failure")
    facts(reader, lambda node: not node.layout and node.devices[0].health is Health.OK)
    farm.park.mig.fails.clear()
    reader.executor.recut({"alpha": (CUT_77,)})
    facts(reader, lambda node: node.layout == SMALL)


def test_a_driver_that_names_devices_tells_of_them_anew(tmp_path):
    node = mig_node("alpha", cards=0, **{"nvidia.com/gpu.count": "2"})
    farm = KubeSite(tmp_path, site=replace(SITE, mig_configs=configs()), nodes=[node], mig_configs=FILE)
    farm.park.double.put(resource_slice(on="alpha", devices=[gpu(f"gpu-{n}", f"GPU-{n}") for n in range(2)]))
    reader = Reader(farm.connect())
    try:
        facts(reader, lambda node: node.layout == WHOLE)
        reader.executor.recut({"alpha": (CUT_77,)})
        made = facts(reader, lambda node: node.layout == SMALL)
        assert {device.id.partition("-")[0] for device in made.devices} == {"MIG"}
        assert run(reader, lease(next(numbers), "true", devices=(made.devices[5].id,))).state == "succeeded"
    finally:
        reader.executor.close()
        farm.remove()
