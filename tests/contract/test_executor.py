"""What every Executor does, asked of the fake, of the lanes on paper, of real Ray, and of pods that dial home."""

import itertools
import time
from collections import Counter
from dataclasses import replace

import pytest

from scheduler.model.errors import NotFound
from scheduler.model.layout import after_cut, layout_of
from scheduler.model.lease import AttemptState
from scheduler.model.node import CardCut, Device, Health, Lane, MigPlace, NodeLayout
from scheduler.model.order import LeaseOrder, ReportKind
from tests.fakes.executor import FakeExecutor, FakeFarm
from tests.farm import NODES, Reader, gang, lease, task
from tests.kube_executor import SITE, KubeSite, paper_node
from tests.mig_park import FILE, HALVES, SMALL, WHOLE, configs, mig_node
from tests.pods import Bridge, OneCluster, Pods
from workers.runtime import RayExecutor, shutdown

pytestmark = pytest.mark.timeout(180)

numbers = itertools.count(1)

CARD = "SIM-1"
EMPTY = Device(id=CARD, model="H100-SXM-80GB", simulated=True, mig_on=True, memory_mib=81_559)
CUT_NODES = (NODES[0], replace(NODES[1], devices=after_cut((EMPTY,), CARD, ())))
"""The second has a card to be cut."""
LAYOUTS = {SMALL: (("1g.10gb", 14),), HALVES: (("3g.40gb", 4),), WHOLE: (("", 2),)}
"""Of a node with two cards."""


class FakeSite:
    """Where fakes connect to."""

    nodes = CUT_NODES
    laid = "gamma"

    def __init__(self, _folder) -> None:
        layouts = tuple(NodeLayout(name=name, profiles=told, cards=2) for name, told in sorted(LAYOUTS.items()))
        cards = tuple(replace(EMPTY, id=f"SIM-G{n}", mig_on=False) for n in range(2))
        gamma = replace(NODES[0], name="gamma", devices=cards, layouts=layouts, layout=WHOLE)
        self.farm = FakeFarm((*CUT_NODES, gamma))

    def fail(self, layout):
        """Nodes cannot be put into it."""
        self.farm.refused.add(layout)

    def connect(self):
        return FakeExecutor(self.farm)

    def remove(self):
        """Nothing is left of it."""


class RaySite:
    """A real embedded cluster with two nodes on this machine."""

    nodes = CUT_NODES

    def __init__(self, folder) -> None:
        self.home = folder / "home"

    def connect(self):
        return RayExecutor(self.home, nodes=CUT_NODES)

    def remove(self):
        shutdown(self.home)


class PaperSite(KubeSite):
    """Kubernetes on paper, with two nodes, and one that the GPU Operator cuts."""

    laid = "gamma"

    def __init__(self, folder) -> None:
        nodes = [*(paper_node(node.name) for node in NODES), mig_node("gamma")]
        super().__init__(folder, site=replace(SITE, mig_configs=configs()), nodes=nodes, mig_configs=FILE)

    def fail(self, layout):
        """The driver refuses it."""
        self.park.mig.fails.add(layout)


class DialledSite:
    """A real cluster of two pods; each service has a bridge that dials it, with the same home."""

    def __init__(self, folder) -> None:
        self.pods = Pods(folder, NODES)
        self.pods.start()

    def connect(self):
        return WithBridge(self.pods)

    def remove(self):
        self.pods.remove()


class WithBridge(OneCluster):
    """It takes its bridge with it."""

    def __init__(self, pods) -> None:
        super().__init__(nodes=NODES)
        self.bridge = Bridge(pods, self.port)

    def close(self):
        super().close()
        self.bridge.close()


REAL = [pytest.param(site, marks=pytest.mark.ray) for site in (RaySite, DialledSite)]


@pytest.fixture(scope="module", params=[FakeSite, PaperSite, *REAL])
def site(request, tmp_path_factory):
    site = request.param(tmp_path_factory.mktemp("executor"))
    yield site
    site.remove()


@pytest.fixture(scope="module")
def shared(site):
    """A connected executor for the tests that need no reconnect."""
    reader = Reader(site.connect())
    reader.kind(ReportKind.RUNTIME_UP)
    for node in NODES:
        reader.kind(ReportKind.NODE, node.name)
    yield reader.executor
    reader.executor.close()


@pytest.fixture
def reader(shared):
    reader = Reader(shared)
    yield reader
    reader.acknowledge_all()


def reconnect(site, reader):
    """As a new service does: the old connection goes, a new one finds everything."""
    reader.executor.close()
    second = Reader(site.connect())
    second.kind(ReportKind.RUNTIME_UP)
    return second


@pytest.fixture
def own(site, shared):
    """A connection of the test's own, which it may close."""
    reader = Reader(site.connect())
    reader.kind(ReportKind.RUNTIME_UP)
    kept = [reader]
    yield kept
    kept[-1].acknowledge_all()
    kept[-1].executor.close()


def test_a_task_is_reported_started_and_then_finished(reader):
    order = lease(next(numbers), "/bin/true")
    reader.executor.start([order])
    started, end = reader.start_of(order.lease_id), reader.end_of(order.lease_id)
    assert (end.state, end.exit_code, end.node) == (AttemptState.SUCCEEDED, 0, "alpha")
    assert started.attempt_id == end.attempt_id == order.tasks[0].attempt_id
    assert started.at_ms <= end.at_ms
    assert started.cursor != end.cursor != ""


def test_a_moved_node_says_its_new_lane(site, own):
    if isinstance(site, DialledSite):
        pytest.skip("its nodes are pods, which are of the lane they were made for")
    (reader,) = own
    for lane in (Lane.JOB, Lane.ANY):
        for _ in range(2):  # as after a repetition
            reader.executor.move({"alpha": lane})
        reader.until(lambda r, lane=lane: r.kind is ReportKind.NODE and r.node == "alpha" and r.facts.lane is lane)


def cut_as(reader, *places):
    """Ask for it, until the node says something of it."""
    layout = tuple(MigPlace(start=at, profile=profile) for at, profile in places)
    reader.executor.recut({"beta": (CardCut(card=CARD, layout=layout, since_ms=1),)})
    facts = reader.until(lambda r: r.kind is ReportKind.NODE and r.node == "beta").facts
    return layout, layout_of(facts.devices, CARD), facts


def test_a_card_is_cut_anew_but_for_what_a_lease_holds(site, own):
    if not hasattr(site, "nodes"):
        pytest.skip("its nodes do not cut cards")
    (reader,) = own
    for node in NODES:
        reader.kind(ReportKind.NODE, node.name)
    for _ in range(2):  # as after a repetition
        asked, seen, facts = cut_as(reader, (0, "3g.40gb"), (4, "3g.40gb"))
        assert (seen, facts.cuts) == (asked, ())
    held = facts.devices[1].id
    order = lease(next(numbers), "sleep", "1000", node="beta", devices=(held,), simulated=True)
    reader.executor.start([order])
    reader.start_of(order.lease_id)
    asked, seen, facts = cut_as(reader, (0, "7g.80gb"))
    assert seen != asked
    assert [(cut.card, cut.layout) for cut in facts.cuts] == [(CARD, asked)]
    assert "in use" in facts.cuts[0].problem
    asked, seen, facts = cut_as(reader, (0, "2g.20gb"), (4, "3g.40gb"))
    assert (seen, facts.cuts) == (asked, ())
    assert held in {device.id for device in facts.devices}
    reader.executor.stop([order.lease_id], "cancelled by its owner")
    reader.end_of(order.lease_id)
    asked, seen, facts = cut_as(reader, (0, "5g.60gb"))
    assert (len(facts.cuts), len(seen)) == (1, 2)
    assert cut_as(reader)[2].devices == CUT_NODES[1].devices


def test_a_whole_node_is_put_into_a_layout_or_says_why_not(site, own):
    if not hasattr(site, "laid"):
        pytest.skip("its nodes have no layouts of their own")
    (reader,) = own
    told = reader.kind(ReportKind.NODE, "gamma").facts
    assert ({layout.name: layout.profiles for layout in told.layouts}, told.layout) == (LAYOUTS, WHOLE)
    site.fail(HALVES)
    now_ms = itertools.count(1)

    def ask(name, is_so):
        cut = CardCut(name=name, since_ms=next(now_ms))
        for _ in range(2):  # as after a repetition
            reader.executor.recut({"gamma": (cut,)})
        said = reader.until(lambda r: r.kind is ReportKind.NODE and r.node == "gamma" and is_so(r.facts, cut)).facts
        reader.executor.recut({"gamma": ()})  # it is over
        return said

    for name in (SMALL, WHOLE, SMALL):
        facts = ask(name, lambda facts, cut: facts.layout == cut.name)
        assert tuple(sorted(Counter(d.profile for d in facts.devices).items())) == LAYOUTS[name]
        assert {device.health for device in facts.devices} == {Health.OK}
    refused = ask(HALVES, lambda facts, cut: any(said.answers(cut) for said in facts.cuts))
    (why,) = (said.problem for said in refused.cuts)
    assert HALVES in why
    back = ask(WHOLE, lambda facts, cut: facts.layout == cut.name)
    assert len(back.devices) == 2


def test_a_failing_task_is_reported_with_its_exit_code(reader):
    order = lease(next(numbers), "/bin/false")
    reader.executor.start([order])
    end = reader.end_of(order.lease_id)
    assert (end.state, end.exit_code) == (AttemptState.FAILED, 1)
    assert end.message


def test_tasks_of_a_lease_run_one_after_the_other(reader):
    number = next(numbers)
    tasks = tuple(task(f"j{number}.run.{i}.a1", "/bin/true") for i in range(3))
    reader.executor.start([LeaseOrder(lease_id=f"l{number}", tenant="t1", node="alpha", tasks=tasks)])
    reader.until(lambda r: r.kind is ReportKind.FINISHED and r.attempt_id == tasks[-1].attempt_id)
    heard = [(r.attempt_id, r.kind) for r in reader.heard if r.lease_id == f"l{number}" and r.cursor]
    assert heard == [(t.attempt_id, k) for t in tasks for k in (ReportKind.STARTED, ReportKind.FINISHED)]


def test_repeating_an_order_is_harmless(reader):
    order = lease(next(numbers), "/bin/true")
    reader.executor.start([order])
    reader.executor.start([order])
    reader.end_of(order.lease_id)
    reader.acknowledge_all()
    reader.executor.start([order])
    after = lease(next(numbers), "/bin/true")
    reader.executor.start([after])
    reader.end_of(after.lease_id)
    assert len(reader.of(order.lease_id, ReportKind.STARTED)) == 1
    assert len(reader.of(order.lease_id, ReportKind.FINISHED)) == 1


def test_a_stopped_lease_ends_as_cancelled(reader):
    order = lease(next(numbers), "sleep", "1000")
    reader.executor.start([order])
    reader.start_of(order.lease_id)
    reader.executor.stop([order.lease_id], "cancelled by its owner")
    assert reader.end_of(order.lease_id).state is AttemptState.CANCELLED


def test_stopping_unknown_and_finished_leases_is_harmless(reader):
    order = lease(next(numbers), "/bin/true")
    reader.executor.start([order])
    reader.end_of(order.lease_id)
    reader.executor.stop(["l999999", order.lease_id], "no reason")
    after = lease(next(numbers), "/bin/true")
    reader.executor.start([after])
    reader.end_of(after.lease_id)
    assert len(reader.of(order.lease_id, ReportKind.FINISHED)) == 1


def test_a_log_is_read_in_parts(reader):
    order = lease(next(numbers), "echo", "one two three")
    reader.executor.start([order])
    reader.end_of(order.lease_id)
    attempt = order.tasks[0].attempt_id
    first = reader.executor.read_log("alpha", attempt, 0, 4)
    assert (first.text, first.next_offset, first.end) == ("one ", 4, False)
    rest = reader.executor.read_log("alpha", attempt, first.next_offset, 1_000)
    assert (rest.text, rest.end) == ("two three\n", True)


def test_a_log_that_never_was_is_not_found(reader):
    with pytest.raises(NotFound):
        reader.executor.read_log("alpha", "j999.run.0.a1", 0, 10)
    with pytest.raises(NotFound):
        reader.executor.read_log("nowhere", "j999.run.0.a1", 0, 10)


def test_a_gang_is_reported_as_one(reader):
    orders = gang(next(numbers), ("sleep", "0.2"))
    reader.executor.start(orders)
    end = reader.end_of(orders[0].lease_id)
    assert end.state is AttemptState.SUCCEEDED
    assert len(reader.of(orders[0].lease_id, ReportKind.STARTED)) == 1
    assert len(reader.of(orders[0].lease_id, ReportKind.FINISHED)) == 1


def test_two_ranks_of_a_gang_may_share_a_node(reader):
    orders = gang(next(numbers), ("sleep", "0.1"), nodes=("alpha", "alpha"))
    reader.executor.start(orders)
    assert reader.end_of(orders[0].lease_id).state is AttemptState.SUCCEEDED


def test_all_ranks_of_a_gang_know_where_to_meet_and_a_repeated_order_says_the_same(site, own):
    order = gang(next(numbers), ("printenv", "MASTER_ADDR", "MASTER_PORT"))
    own[-1].executor.start(order)
    own[-1].executor.start(order)
    end = own[-1].end_of(order[0].lease_id)
    assert end.state is AttemptState.SUCCEEDED, end.message
    attempt = order[0].tasks[0].attempt_id
    told = [own[-1].executor.read_log(o.node, attempt, 0, 1_000, o.rank).text for o in order]
    assert told[0] == told[1]
    host, port = told[0].split()
    assert host
    assert 0 < int(port) < 65_536
    own.append(reconnect(site, own[-1]))
    own[-1].executor.start(order)
    own[-1].end_of(order[0].lease_id)
    again = own[-1].executor.read_log("beta", attempt, 0, 1_000, 1).text
    assert again == told[1], "the orders of a gang that began are settled"


def test_the_first_failing_rank_ends_the_gang(reader):
    orders = gang(next(numbers), ("sleep", "1000"), ("/bin/false",))
    reader.executor.start(orders)
    end = reader.end_of(orders[0].lease_id)
    assert (end.state, end.exit_code) == (AttemptState.FAILED, 1)
    assert end.message.startswith("rank 1")
    assert len(reader.of(orders[0].lease_id, ReportKind.FINISHED)) == 1


def test_a_stopped_gang_ends_once(reader):
    orders = gang(next(numbers), ("sleep", "1000"))
    reader.executor.start(orders)
    reader.start_of(orders[0].lease_id)
    reader.executor.stop([orders[0].lease_id], "cancelled by its owner")
    assert reader.end_of(orders[0].lease_id).state is AttemptState.CANCELLED


def test_wake_ends_a_poll(reader):
    while reader.executor.poll(0):
        """Take what is there."""
    reader.executor.wake()  # before or during the wait: the same
    began = time.monotonic()
    assert reader.executor.poll(60_000) == ()
    assert time.monotonic() - began < 30


def test_node_facts_are_told_as_declared(site, own):
    facts = {node.name: own[-1].kind(ReportKind.NODE, node.name).facts for node in NODES}
    assert facts == {node.name: node for node in getattr(site, "nodes", NODES)}


def test_what_is_unacknowledged_is_told_again_after_a_reconnect(site, own):
    order = lease(next(numbers), "/bin/true")
    own[-1].executor.start([order])
    own[-1].end_of(order.lease_id)
    own.append(reconnect(site, own[-1]))
    own[-1].start_of(order.lease_id)
    assert own[-1].end_of(order.lease_id).state is AttemptState.SUCCEEDED
    assert order.lease_id in own[-1].kind(ReportKind.INVENTORY, "alpha").leases


def test_what_is_acknowledged_is_not_told_again(site, own):
    done = lease(next(numbers), "/bin/true")
    own[-1].executor.start([done])
    own[-1].end_of(done.lease_id)
    own[-1].acknowledge_all()
    after = lease(next(numbers), "/bin/true")
    own[-1].executor.start([after])  # orders and acknowledgements reach an agent in the order they were given
    own[-1].end_of(after.lease_id)
    own.append(reconnect(site, own[-1]))
    assert done.lease_id not in own[-1].kind(ReportKind.INVENTORY, "alpha").leases
    assert own[-1].of(done.lease_id, ReportKind.FINISHED) == []
    assert own[-1].of(after.lease_id, ReportKind.FINISHED) != []


def test_what_runs_goes_on_while_nobody_is_connected(site, own):
    order = lease(next(numbers), "sleep", "1000")
    own[-1].executor.start([order])
    started = own[-1].start_of(order.lease_id)
    own.append(reconnect(site, own[-1]))
    assert own[-1].start_of(order.lease_id) == started
    own[-1].executor.stop([order.lease_id], "the test is over")
    assert own[-1].end_of(order.lease_id).state is AttemptState.CANCELLED


def test_a_gangs_reports_are_told_again_as_one(site, own):
    orders = gang(next(numbers), ("/bin/true",))
    own[-1].executor.start(orders)
    end = own[-1].end_of(orders[0].lease_id)
    assert end.state is AttemptState.SUCCEEDED
    own.append(reconnect(site, own[-1]))
    assert own[-1].end_of(orders[0].lease_id) == end
    own[-1].acknowledge_all()
    for node in NODES:
        after = lease(next(numbers), "/bin/true", node=node.name)
        own[-1].executor.start([after])
        own[-1].end_of(after.lease_id)
    own.append(reconnect(site, own[-1]))
    for inventory in own[-1].inventories({node.name for node in NODES}):
        assert orders[0].lease_id not in inventory.leases
    assert own[-1].of(orders[0].lease_id, ReportKind.FINISHED) == []
