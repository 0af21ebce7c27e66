"""A service over Kubernetes' doubles: two nodes with cards that share no disk, one for heads, Ray in real pods."""

import hashlib
import subprocess
import sys
import time
import warnings

import yaml

from k8s.api import Api
from k8s.door import from_kubeconfig
from k8s.executor import KubernetesExecutor
from k8s.site import Site
from scheduler import wiring
from scheduler.control.settings import Home, Settings
from scheduler.control.tokens import Tokens
from scheduler.model.errors import Unauthorized
from scheduler.store import open_store
from tests.fakes.kuberay.machines import Machines
from tests.fakes.kuberay.park import KubePark, node
from tests.kube_server import free_ports, kubeconfig
from tests.nvml_stub.stub import compile_stub
from workers.gateway import Gateway

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # httpx is what the CLI uses, too
    from starlette.testclient import TestClient

CARDS = 3
H100 = {
    "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
    "nvidia.com/gpu.memory": "81559",
    "nvidia.com/gpu.count": str(CARDS),
    "nvidia.com/gpu.replicas": "1",
    "nvidia.com/gpu.present": "true",
    "shisuan.io/managed": "true",
}
FINAL = ("succeeded", "failed", "cancelled")


class Park:
    """Nodes ``a`` and ``b`` with cards, ``heads`` without; ``config`` is the service's configuration file."""

    def __init__(self, folder, config):
        self._folder = folder
        (folder / "config.yaml").write_text(config)
        self.home = Home.of(str(folder / "home"))
        self.home.prepare()
        self.machines = Machines(library=compile_stub(folder / "nvml"))
        nodes = [node("heads"), *(node(name, cards=CARDS, labels=H100) for name in ("a", "b"))]
        self.kube = KubePark(nodes=nodes, runtime=self.machines)
        (folder / "kubeconfig").write_text(yaml.safe_dump(kubeconfig(self.kube.double.url)))
        self._port = free_ports(1)[0]

    def __enter__(self):
        self._begin()
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            sys.stderr.write(f"{self.kube.told()}\n{self.machines.logs()}\n")
        self._end()
        self.kube.close()

    def restart(self):
        """The service ends and another one begins: what runs keeps running."""
        self._end()
        self._begin()

    def _begin(self):
        settings = Settings(home=str(self.home.path), config=str(self._folder / "config.yaml"))
        self._store = open_store(wiring.database_url(settings))
        self._tokens = Tokens(self._store.token_secret())
        site = Site(
            namespace="park",
            gateway=f"127.0.0.1:{self._port}",
            images={"default": "shisuan/blender"},
            head_node_selector={"kubernetes.io/hostname": "heads"},
            head_cpu_milli=100,
            head_memory_mib=256,
            overhead_mib=64,
        )
        api = Api(from_kubeconfig(str(self._folder / "kubeconfig")))
        self._executor = KubernetesExecutor(api, site, token=derived, now_ms=now_ms)
        app, self._cycle, self._thread = wiring.build(settings, self._store, self._executor)
        gateway = Gateway(
            epoch=self._cycle._epoch, tell=self._executor.hear, admit=self._admit, host="127.0.0.1", port=self._port
        )
        self._executor.open(gateway)
        self._http = TestClient(app, client=("127.0.0.1", 5000))

    def _end(self):
        self._cycle.stop()
        self._thread.join(10)
        self._executor.close()
        self._store.close()

    def _admit(self, hello):
        """A pool's bridge shows what its name derives, a job's the token of its attempt."""
        if hello.token == derived(f"bridge/{hello.cluster}"):
            return ""
        try:
            self._tokens.check(hello.token, now_ms())
        except Unauthorized as error:
            return str(error)
        return ""

    # ── the API ──────────────────────────────────────────────────────────────────────────────────────────────────

    def api(self, method, path, key="", **more):
        """One call below ``/v1``, as the operator unless a key is given."""
        key = key or self.home.key.read_text().strip()
        answer = self._http.request(method, f"/v1{path}", headers={"Authorization": f"Bearer {key}"}, **more)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def submit(self, tenant, text, base_dir):
        """A job of this tenant; its id."""
        key = (self.home.keys / tenant).read_text().strip()
        return self.api("POST", "/jobs", key, json={"file": text, "base_dir": base_dir})["id"]

    def attempts(self, job_id):
        return self.api("GET", f"/jobs/{job_id}/attempts")["attempts"]

    def wait(self, job_id, deadline_s=90):
        """The job when it has succeeded."""

        def ended():
            found = self.api("GET", f"/jobs/{job_id}")
            return found if found["state"] in FINAL else None

        job = self.kube.until(ended, deadline_s)
        assert job["state"] == "succeeded", (job["reason"], self.attempts(job_id))
        return job

    def check_journal(self):
        """Replaying the journal gives the live tables, the chain is unbroken, and the cards' time adds up."""
        command = [sys.executable, "-P", "-m", "scheduler.wiring", "--home", str(self.home.path), "--verify"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def derived(text):
    return hashlib.sha256(f"a secret of this test {text}".encode()).hexdigest()


def now_ms():
    return time.time_ns() // 1_000_000
