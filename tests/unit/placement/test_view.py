from scheduler.model.lease import Allocation
from scheduler.model.node import Health, NodeState
from scheduler.placement.view import NodeView, healed, leasable, totals
from tests.builders import a_card, a_mig, a_node


def test_taking_and_giving_back_ends_where_it_began():
    view = NodeView.empty(a_node(cards=2))
    whole = Allocation(node="n1", devices=("GPU-n1-0",), cpu_milli=1_000, memory_mib=100)
    part = Allocation(node="n1", devices=("GPU-n1-1",), card_milli=300)
    full = view.take(whole, "a").take(part, "b").take(part, "b")
    assert full.held == {"GPU-n1-0": (1_000, "a"), "GPU-n1-1": (600, "b")}
    assert (full.cpu_milli, full.memory_mib) == (7_000, 32_668)
    assert full.give_back(part).give_back(whole).give_back(part) == view


def test_a_card_with_instances_is_leased_as_those():
    node = a_node(devices=(a_card("n1", 0), a_mig("n1", 0, 1), a_mig("n1", 0, 0), a_card("n1", 1)))
    assert [device.id for device in leasable(node)] == ["GPU-n1-1", "MIG-n1-0-0", "MIG-n1-0-1"]


def test_healing_brings_everything_back():
    sick = a_node(devices=(a_card("n1", health=Health.QUARANTINED),), state=NodeState.LOST)
    assert healed(sick) == a_node(devices=(a_card("n1"),))


def test_totals_leave_lost_nodes_out():
    nodes = [
        a_node("n1", cpus=2, cards=1),
        a_node("n2", state=NodeState.LOST),
        a_node("n3", devices=(a_mig("n3", 0, 0),)),
    ]
    assert totals(nodes) == (10_000, 65_536, 1_000, 1_000)
