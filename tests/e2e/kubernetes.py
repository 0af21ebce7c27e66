"""A service over Kubernetes' doubles: two nodes with cards that share no disk, one for heads, Ray in real pods."""

import subprocess
import sys

import httpx
import yaml

from benchmarks.installation import Installation, wait_for
from tests.fakes.kuberay.machines import Machines
from tests.fakes.kuberay.park import KubePark, node
from tests.kube_server import free_ports, kubeconfig
from tests.nvml_stub.stub import compile_stub

CARDS = 3
H100 = {
    "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
    "nvidia.com/gpu.memory": "81559",
    "nvidia.com/gpu.count": str(CARDS),
    "nvidia.com/gpu.replicas": "1",
    "nvidia.com/gpu.present": "true",
    "shisuan.io/managed": "true",
}
KUBERNETES = {
    "namespace": "park",
    "images": {"default": "registry.example/shisuan/blender:1"},
    "head": {"cpu_milli": 100, "memory": "256MiB", "node_selector": {"kubernetes.io/hostname": "heads"}},
    "overhead": "64MiB",
}


FINAL = ("succeeded", "failed", "cancelled")
DEADLINE_S = 240.0
"""For what is sure to come: Ray, torchrun and the service start several times as slowly on a busy machine."""


class Park(Installation):
    """Nodes ``a`` and ``b`` with cards, ``heads`` without; ``config`` is the service's, without ``kubernetes``: that is
    ours, with ``more``. ``nodes``: others than ``a`` and ``b``; ``things``: what the API server has besides.
    """

    def __init__(self, folder, config, *, nodes=None, things=(), **more):
        super().__init__(folder / "home")
        self.machines = Machines(library=compile_stub(folder / "nvml"))
        nodes = [node(name, cards=CARDS, labels=H100) for name in ("a", "b")] if nodes is None else nodes
        self.kube = KubePark(nodes=[node("heads"), *nodes], runtime=self.machines)
        for thing in things:
            self.kube.double.put(thing)
        gateway = f"127.0.0.1:{free_ports(1)[0]}"
        config = {**yaml.safe_load(config), "kubernetes": {**KUBERNETES, **more, "gateway": gateway}}
        for name, content in (("config", config), ("kubeconfig", kubeconfig(self.kube.double.url))):
            (folder / name).write_text(yaml.safe_dump(content))
        self._command = [sys.executable, "-P", "-m", "scheduler.wiring", f"--home={self.home}", "--kubernetes"]
        self._command += [f"--config={folder / 'config'}", f"--kubeconfig={folder / 'kubeconfig'}"]
        self._service = None

    def __enter__(self):
        try:
            self.up()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def up(self):
        """The service's own process."""
        self._service = subprocess.Popen(self._command, env=self.env, cwd="/", stdout=subprocess.DEVNULL)
        wait_for("the service", self._serves, deadline_s=DEADLINE_S)

    def _serves(self):
        assert self._service.poll() is None, f"the service ended\n{self.log_tail()}"
        return self.instance["pid"] == self._service.pid

    def kill(self):
        """The service is gone: what runs keeps running."""
        self._service.kill()
        self._service.wait()

    def replace(self):
        """The service is killed and another one begins."""
        self.kill()
        self.up()

    def __exit__(self, *_):
        try:
            if self._service is not None:
                self.kill()
        finally:
            self.kube.close()

    def until(self, condition, deadline_s=DEADLINE_S):
        """Its first true value. Raises AssertionError with what everybody says at the deadline."""
        try:
            return wait_for("the next scene", condition, deadline_s=deadline_s, every_s=0.2)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.report()}") from None

    def ended(self, job_id):
        """The job when it has succeeded. Raises AssertionError."""
        job = self.until(lambda: (found := self.job(job_id))["state"] in FINAL and found)
        assert job["state"] == "succeeded", f"{job}\n{self.report()}"
        return job

    def report(self):
        """Pods, RayJobs, attempts that are not over, and last words."""
        jobs = [(one["metadata"]["name"], one.get("status")) for one in self.kube.double.objects("rayjobs")]
        open_ones = [
            (a["id"], a["node"], a["state"])
            for job in self.api("GET", "/jobs")["jobs"]
            for a in self.attempts(job["id"])
            if a["state"] in ("leased", "running")
        ]
        waiting = [(job["id"], job["state"], job["reason"]) for job in self.api("GET", "/jobs")["jobs"]]
        said = (self.kube.told(), jobs, open_ones, waiting, self.machines.logs(), self.log_tail())
        return "\n".join(map(str, said))

    def submit_as(self, tenant, text, base_dir):
        """A job of this tenant; its id."""
        key = (self.home / "keys" / tenant).read_text(encoding="utf-8").strip()
        answer = httpx.post(
            f"{self.instance['url']}/v1/jobs",
            headers={"Authorization": f"Bearer {key}"},
            json={"file": text, "base_dir": base_dir},
            timeout=30,
        )
        assert answer.status_code < 300, answer.text
        return answer.json()["id"]
