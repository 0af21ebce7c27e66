"""Ray nodes as pods: each with a home folder of its own and its name as a label; a head that takes no work; a bridge
that dials home, and executors of one such cluster.
"""

import os
import subprocess
import sys
import threading
import time
from collections import deque

from scheduler.model.node import Node
from workers import procfs, ray_head
from workers.gateway import Gateway
from workers.ray_head import LOOPBACK, POD_LABEL, RayHead

TOKEN = "a token that no log may show"
HEAD = Node(name="head", cpu_milli=1, memory_mib=1)


class Pods(RayHead):
    """One Ray cluster. ``nodes`` are its pods; their homes lie below ``folder``. ``more`` of a pod: its variables."""

    def __init__(self, folder, nodes, more=None) -> None:
        self._more = more or {}
        super().__init__(folder / "ray", (HEAD, *nodes))
        self.home.mkdir(parents=True)
        self.folder = folder
        self._pod = HEAD.name

    def home_of(self, name):
        return self.folder / "homes" / name

    def environ(self):
        return super().environ() | {"SHISUAN_HOME": str(self.home_of(self._pod))} | self._more.get(self._pod, {})

    def agents(self, name):
        """Pids of the agents in that pod."""
        mark = f"SHISUAN_HOME={self.home_of(name)}".encode()
        environs = {pid: ray_head._read(pid, "environ").split(b"\0") for pid in self.processes()}
        return [p for p in environs if mark in environs[p] and b"ray::RayAgent" in ray_head._read(p, "cmdline")]

    def remove(self):
        """Also the runners below the pods' homes."""
        procfs.kill_all(lambda: set(procfs.marked(str(self.folder))))
        return super().remove()

    def _launch(self, nodes):
        plan = ray_head._node_plan
        try:
            for node in nodes:
                self._pod = node.name
                self.home_of(node.name).mkdir(parents=True, exist_ok=True)
                labels = {} if node is HEAD else {POD_LABEL: node.name}
                ray_head._node_plan = lambda node, labels=labels: plan(node) | {"labels": labels}
                super()._launch([node])
        finally:
            ray_head._node_plan = plan

    def missing(self):
        """Pods are started one after the other."""
        return tuple(n.name for n in self._nodes if n.name in self._raylets and not self._raylets[n.name].runs())


class Bridge:
    """The dialling process in the head pod."""

    def __init__(self, pods, port, *, cluster="c1", home=None, token=TOKEN, more=()) -> None:
        self.home = home or pods.home_of("head")
        self.home.mkdir(parents=True, exist_ok=True)
        token_file = self.home / "token"
        token_file.write_text(token + "\n")
        self.log = self.home / "dial.log"
        command = [sys.executable, "-P", "-m", "workers.dial", "--dial", f"127.0.0.1:{port}"]
        command += ["--cluster", cluster, "--token-file", str(token_file), "--home", str(self.home)]
        command += ["--ray", pods.address, "--ip", LOOPBACK, *more]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=pods.environ(), stdout=log, stderr=log, cwd=self.home)

    def said(self):
        return self.log.read_text()

    def close(self):
        self.process.kill()
        self.process.wait()


class OneCluster:
    """An Executor over a gateway to which one cluster dials."""

    def __init__(self, *, epoch=1, port=0, cluster="c1", admit=lambda hello: "", **more) -> None:
        self.cluster = cluster
        self.hellos = []
        self._admit = admit
        self._news = threading.Condition()
        self._reports = deque()
        self._woken = False
        self.gateway = Gateway(epoch=epoch, tell=self._tell, admit=self._asked, host="127.0.0.1", port=port, **more)
        self.port = self.gateway.port

    def start(self, orders):
        self.gateway.start(self.cluster, orders)

    def stop(self, lease_ids, reason):
        self.gateway.stop(self.cluster, lease_ids, reason)

    def move(self, lanes):
        """The nodes are pods, which are of the lane they were made for."""

    def recut(self, cuts):
        """Pods do not cut cards."""

    def acknowledge(self, cursors):
        self.gateway.acknowledge(self.cluster, cursors)

    def read_log(self, node, attempt_id, offset, limit, rank=0):
        return self.gateway.read_log(self.cluster, node, attempt_id, offset, limit, rank)

    def poll(self, timeout_ms):
        with self._news:
            self._news.wait_for(lambda: self._reports or self._woken, timeout_ms / 1_000)
            reports = tuple(self._reports)
            self._reports.clear()
            self._woken = False
            return reports

    def wake(self):
        with self._news:
            self._woken = True
            self._news.notify_all()

    def close(self):
        self.gateway.close()

    def _tell(self, cluster, reports):
        assert cluster == self.cluster
        with self._news:
            self._reports.extend(reports)
            self._news.notify_all()

    def _asked(self, hello):
        self.hellos.append(hello)
        return self._admit(hello)


def wait_for(condition, deadline_s=30):
    """Its value, once there is one."""
    end = time.monotonic() + deadline_s
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return value


def runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
