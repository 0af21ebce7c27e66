"""What the bridge does that needs no Ray to run."""

import socket
import threading

import pytest

from workers.messages import Connect, Line
from workers.ray_bridge import ABSENT_S, Bridge
from workers.ray_gangs import Room


@pytest.fixture
def build(tmp_path):
    ends = []

    def make(**told):
        ends.extend(socket.socketpair())
        return Bridge(tmp_path, Line(ends[-2]), Connect(address="", embedded=False, **told))

    yield make
    for end in ends:
        end.close()


def links(bridge):
    return {node for node, _ in bridge._links}


def threads(node):
    return [thread for thread in threading.enumerate() if thread.name.endswith(f"-{node}-t1")]


def test_links_of_pods_that_are_gone_for_good_end_and_others_stay(build):
    bridge = build(cluster="c1")
    for pod in ("here", "gone"):
        bridge._link(pod, "t1")
    bridge._rooms["here"] = Room(node_id="", resources={}, cards={})
    assert len(threads("gone")) == 2
    bridge._forget_absent(1_000.0)
    bridge._forget_absent(1_000.0 + ABSENT_S)
    assert links(bridge) == {"here", "gone"}
    bridge._forget_absent(1_001.0 + ABSENT_S)
    assert links(bridge) == {"here"}
    for thread in threads("gone"):
        thread.join(30)
    assert threads("gone") == []
    assert len(threads("here")) == 2
    bridge._link("here", "t1").close()


def test_a_pod_that_returns_in_time_keeps_its_link(build):
    bridge = build(cluster="c1")
    link = bridge._link("pod", "t1")
    bridge._forget_absent(1_000.0)
    bridge._rooms["pod"] = Room(node_id="", resources={}, cards={})
    bridge._forget_absent(1_100.0)
    del bridge._rooms["pod"]
    bridge._forget_absent(1_000.0 + ABSENT_S)
    assert bridge._link("pod", "t1") is link
    link.close()


def test_agents_of_a_cluster_elsewhere_have_their_pods_home(build, tmp_path):
    for cluster, home in (("c1", ""), ("", str(tmp_path))):
        link = build(cluster=cluster)._link("pod", "t1")
        assert link._home == home
        link.close()
