"""What the bridge does that needs no Ray to run."""

import socket
import threading

from workers.messages import Connect, Line
from workers.ray_bridge import ABSENT_S, Bridge
from workers.ray_gangs import Room


def links(bridge):
    return {node for node, _ in bridge._links}


def threads(node):
    return [thread for thread in threading.enumerate() if thread.name.endswith(f"-{node}-t1")]


def test_links_of_pods_that_are_gone_for_good_end_and_others_stay(tmp_path):
    ours, theirs = socket.socketpair()
    bridge = Bridge(tmp_path, Line(ours), Connect(address="", cluster="c1", embedded=False))
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
    theirs.close()


def test_a_pod_that_returns_in_time_keeps_its_link(tmp_path):
    bridge = Bridge(tmp_path, Line(socket.socketpair()[0]), Connect(address="", cluster="c1", embedded=False))
    link = bridge._link("pod", "t1")
    bridge._forget_absent(1_000.0)
    bridge._rooms["pod"] = Room(node_id="", resources={}, cards={})
    bridge._forget_absent(1_100.0)
    del bridge._rooms["pod"]
    bridge._forget_absent(1_000.0 + ABSENT_S)
    assert bridge._link("pod", "t1") is link
    link.close()


def test_agents_of_a_cluster_elsewhere_have_their_pods_home(tmp_path):
    for cluster, home in (("c1", ""), ("", str(tmp_path))):
        told = Connect(address="", cluster=cluster, embedded=False)
        link = Bridge(tmp_path, Line(socket.socketpair()[0]), told)._link("pod", "t1")
        assert link._home == home
        link.close()
