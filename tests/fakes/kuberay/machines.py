"""Pods as real processes of this machine. Each simulated node has a folder of its own in which its pods' volumes lie;
nothing else is shared but the claims.

A container runs its template's command with its template's variables. What a container runtime would do by namespaces
is done by words: paths of mounts become folders of the pod, addresses of services become the head's, ``ray`` on the
path is :mod:`tests.fakes.kuberay.ray_start`. Processes are found again by the mark in their environment or by their
folder, so that nothing outlives the park, nor a test process that is killed (:mod:`tests.fakes.kuberay.reaper`).
"""

import base64
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.kube.server import FakeKubernetes
from tests.fakes.kuberay import objects
from tests.fakes.kuberay.kubelet import Container
from tests.fakes.kuberay.objects import Object
from tests.fakes.kuberay.reaper import MARK, processes_below
from tests.kube_server import free_ports
from tests.nvml_stub.stub import h100
from workers import procfs, ray_head

GRACE_S = 3.0
"""Pods are given no longer to end, whatever they ask for."""
WORDS = 4_000
"""Of a log, in a message."""
REAPER = Path(__file__).with_name("reaper.py")
RAY = Path(__file__).with_name("ray_start.py")
VARIABLE = re.compile(r"\$\((\w+)\)")


@dataclass(slots=True)
class _Pod:
    """One that was started."""

    obj: Object
    folder: Path
    cards: tuple[str, ...]
    ends: threading.Thread | None = None
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def node(self) -> str:
        return str(self.obj["spec"]["nodeName"])

    def label(self, key: str) -> str:
        return str(self.obj["metadata"]["labels"].get(key, ""))

    def ready_file(self, container: str) -> Path:
        return self.folder / f"{container}.ready"

    def log(self, container: str) -> Path:
        return self.folder / f"{container}.log"


class Machines:
    """Fits :class:`tests.fakes.kuberay.kubelet.Runtime`. ``claims``: folders of persistent volume claims; ``library``:
    of the NVML stub, by which pods see their own cards and no others.
    """

    def __init__(
        self,
        *,
        claims: Mapping[str, Path] | None = None,
        library: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._double: FakeKubernetes | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="park-", dir="/tmp"))  # sockets want short names
        self._claims, self._library = dict(claims or {}), library
        self._environ = ray_head.clean_environ() | ray_head._RAY_ENV | dict(environ or {})
        self._pods: dict[str, _Pod] = {}
        self._ports: dict[str, int] = {}
        """Of control stores, by RayCluster."""
        self._numbers = 0
        self._lock = threading.RLock()
        program = self.folder / "bin" / "ray"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -P {RAY} "$@"\n', encoding="utf-8")
        program.chmod(0o755)
        self._reaper = subprocess.Popen([sys.executable, "-P", REAPER, self.folder], stdin=subprocess.PIPE, cwd="/")
        self._path = f"{program.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"

    # ── the runtime ──────────────────────────────────────────────────────────────────────────────────────────────

    def open(self, double: FakeKubernetes) -> None:
        self._double = double

    def start(self, pod: Object, cards: Sequence[str]) -> None:
        with self._lock:
            self._numbers += 1
            folder = self.folder / pod["spec"]["nodeName"] / str(self._numbers)
            (folder / "tmp").mkdir(parents=True)
            made = self._pods[pod["metadata"]["uid"]] = _Pod(obj=pod, folder=folder, cards=tuple(cards))
            if made.label(objects.NODE_TYPE) == objects.HEAD:
                self._ports[made.label(objects.CLUSTER)] = free_ports(1)[0]
            (folder / "cards").write_text("\n".join(h100(n, uuid=uuid) for n, uuid in enumerate(cards)) + "\n")
            for volume in pod["spec"].get("volumes") or ():
                self._fill(made, volume)
            for container in pod["spec"]["containers"]:
                if container["name"] != objects.SUBMITTER:
                    self._begin(made, container["name"], container, _command(container))

    def restart(self, pod: Object, container: str) -> None:
        with self._lock:
            made = self._pods[pod["metadata"]["uid"]]
            told = next(one for one in pod["spec"]["containers"] if one["name"] == container)
            made.ready_file(container).unlink(missing_ok=True)
            self._begin(made, container, told, _command(told))

    def look(self, uid: str) -> Mapping[str, Container]:
        with self._lock:
            pod = self._pods[uid]
            ray = pod.obj["spec"]["containers"][0]["name"]
            found = {name: self._state(pod, name, is_ray=name == ray) for name in pod.processes}
            names = [one["name"] for one in pod.obj["spec"]["containers"]]
            if objects.SUBMITTER in names and objects.SUBMITTER not in pod.processes and found[ray].is_ready:
                self._submit(pod)
            return found

    def stop(self, uid: str) -> bool:
        with self._lock:
            pod = self._pods.get(uid)
            if pod is None:
                return True
            if pod.ends is None:
                pod.ends = threading.Thread(target=self._end, args=(pod,), name="kubelet-end")
                pod.ends.start()
            if pod.ends.is_alive():
                return False
            del self._pods[uid]
            return True

    def lose(self, node: str) -> None:
        with self._lock:
            self._kill(self.folder / node)
            for uid in [uid for uid, pod in self._pods.items() if pod.node == node]:
                self._reap(self._pods.pop(uid))
        shutil.rmtree(self.folder / node, ignore_errors=True)

    def close(self) -> None:
        with self._lock:
            for node in self.folder.iterdir():
                self._kill(node)
            pods = list(self._pods.values())
            self._pods.clear()
        for pod in pods:
            self._reap(pod)
            if pod.ends is not None:
                pod.ends.join()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._reaper.communicate()

    # ── what a test looks at ─────────────────────────────────────────────────────────────────────────────────────

    def processes(self, node: str = "") -> set[int]:
        """Everything that runs on a node, or anywhere."""
        return processes_below(self.folder / node if node else self.folder) - {self._reaper.pid}

    def logs(self) -> str:
        """The last words of every container there is."""
        with self._lock:
            pods = list(self._pods.values())
        return "\n".join(
            f"── {pod.obj['metadata']['name']} {name} on {pod.node}\n{_tail(pod.log(name))}"
            for pod in pods
            for name in pod.processes
        )

    def home(self, uid: str, volume: str = "home") -> Path:
        """The folder of a pod's volume."""
        return self._pods[uid].folder / "volumes" / volume

    # ── beginnings and ends ──────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, pod: _Pod, name: str, template: Mapping[str, Any], command: Sequence[str]) -> None:
        """``name``: of the container it counts as; ``template``: whose variables and folders it has."""
        say = self._translator(pod, template)
        environ = self._variables(pod, name, template, say)
        with pod.log(name).open("ab") as log:
            pod.processes[name] = subprocess.Popen(
                [VARIABLE.sub(lambda found: environ.get(found[1], found[0]), say(word)) for word in command],
                env=environ,
                cwd=pod.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _submit(self, pod: _Pod) -> None:
        """The entrypoint, in the Ray container: there Ray's job supervisor would start it."""
        double = self._objects
        namespace = pod.obj["metadata"]["namespace"]
        cluster = double.get("rayclusters", pod.label(objects.CLUSTER), namespace)
        origin = cluster["metadata"]["labels"]["ray.io/originated-from-cr-name"] if cluster else ""
        job = double.get("rayjobs", origin, namespace)
        if job is not None:  # else it is being deleted, and this pod will be
            line = job["spec"]["entrypoint"]
            self._begin(pod, objects.SUBMITTER, pod.obj["spec"]["containers"][0], ["/bin/bash", "-c", line])

    def _state(self, pod: _Pod, name: str, *, is_ray: bool) -> Container:
        code = pod.processes[name].poll()
        if code is None:
            return Container(is_ready=not is_ray or pod.ready_file(name).exists())
        ended = code if code >= 0 else 128 - code
        return Container(is_ready=False, exit_code=ended, message=_tail(pod.log(name)) if ended else "")

    def _end(self, pod: _Pod) -> None:
        for process in pod.processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        until = time.monotonic() + GRACE_S
        while any(one.poll() is None for one in pod.processes.values()) and time.monotonic() < until:
            time.sleep(0.02)
        self._kill(pod.folder)
        self._reap(pod)
        shutil.rmtree(pod.folder, ignore_errors=True)

    @staticmethod
    def _kill(folder: Path) -> None:
        procfs.kill_all(lambda: processes_below(folder))
        assert not processes_below(folder), f"processes of {folder} do not end"

    @staticmethod
    def _reap(pod: _Pod) -> None:
        for process in pod.processes.values():
            process.wait()

    @property
    def _objects(self) -> FakeKubernetes:
        assert self._double is not None
        return self._double

    # ── what a container sees ────────────────────────────────────────────────────────────────────────────────────

    def _variables(
        self, pod: _Pod, name: str, template: Mapping[str, Any], say: Callable[[str], str]
    ) -> dict[str, str]:
        made = self._environ | {"PATH": self._path, "TMPDIR": str(pod.folder / "tmp"), MARK: str(pod.folder)}
        made |= {"PARK_IP": pod.obj["status"]["podIP"], "PARK_READY": str(pod.ready_file(name))}
        made["PARK_PORT"] = str(self._ports.get(pod.label(objects.CLUSTER), 0))
        if self._library is not None:
            made |= {"LD_LIBRARY_PATH": str(self._library), "SHISUAN_NVML_SCENARIO": str(pod.folder / "cards")}
        for one in template.get("env") or ():
            value = self._looked_up(pod, one["valueFrom"]) if "valueFrom" in one else one.get("value", "")
            made[one["name"]] = VARIABLE.sub(lambda found: made.get(found[1], found[0]), say(value))
        return made

    def _looked_up(self, pod: _Pod, source: Mapping[str, Any]) -> str:
        if "fieldRef" in source:
            return _field(pod.obj, source["fieldRef"]["fieldPath"])
        told = source["secretKeyRef"]
        return self._secret(pod, told["name"])[told["key"]].decode()

    def _secret(self, pod: _Pod, name: str) -> dict[str, bytes]:
        found = self._objects.get("secrets", name, pod.obj["metadata"]["namespace"])
        assert found is not None, f"pod {pod.obj['metadata']['name']} needs the secret {name}"
        plain = {key: text.encode() for key, text in (found.get("stringData") or {}).items()}
        return {key: base64.b64decode(text) for key, text in (found.get("data") or {}).items()} | plain

    def _fill(self, pod: _Pod, volume: Mapping[str, Any]) -> None:
        path = pod.folder / "volumes" / volume["name"]
        path.parent.mkdir(exist_ok=True)
        if "persistentVolumeClaim" in volume:
            path.symlink_to(self._claims[volume["persistentVolumeClaim"]["claimName"]])
            return
        path.mkdir()
        held: dict[str, bytes] = {}
        told: Mapping[str, Any] = {}
        if "secret" in volume:
            told, held = volume["secret"], self._secret(pod, volume["secret"]["secretName"])
        elif "configMap" in volume:
            told = volume["configMap"]
            found = self._objects.get("configmaps", told["name"], pod.obj["metadata"]["namespace"])
            held = {key: text.encode() for key, text in ((found or {}).get("data") or {}).items()}
        elif "emptyDir" not in volume:
            raise NotImplementedError(f"volume {volume}: the stand-in knows emptyDir, secret, configMap and claims")
        names = {one["key"]: one["path"] for one in told.get("items") or ()} or {key: key for key in held}
        for key, name in names.items():
            (path / name).write_bytes(held[key])

    def _translator(self, pod: _Pod, template: Mapping[str, Any]) -> Callable[[str], str]:
        """Words of a template as this machine understands them."""
        mounts = {one["mountPath"]: pod.folder / "volumes" / one["name"] for one in template.get("volumeMounts") or ()}
        cluster, containers = pod.label(objects.CLUSTER), pod.obj["spec"]["containers"]
        heads = [p for p in self._pods.values() if (p.label(objects.CLUSTER), p.label(objects.NODE_TYPE)) ==
                 (cluster, objects.HEAD)]  # fmt: skip
        words = {path: str(folder) for path, folder in mounts.items()}
        for head in heads:
            where = f"{head.obj['status']['podIP']}:{self._ports[cluster]}"
            service = f"{objects.service_name(cluster)}.{pod.obj['metadata']['namespace']}.svc.cluster.local"
            words[f"{service}:{objects.GCS_PORT}"] = where
            if head is pod and (template is containers[0] or pod.obj["spec"].get("shareProcessNamespace")):
                # A driver finds its raylet among the processes it sees: by itself a container sees none.
                words[f"127.0.0.1:{objects.GCS_PORT}"] = where
        if not words:
            return lambda text: text
        known = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
        form = re.compile(rf"(?<![\w./-])({known})(?![\w.-])")
        return lambda text: form.sub(lambda found: words[found[1]], text)


def _command(container: Mapping[str, Any]) -> list[str]:
    return [*(container.get("command") or ()), *(container.get("args") or ())]


def _field(pod: Object, path: str) -> str:
    label = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if label:
        return str((pod["metadata"].get(label[1]) or {}).get(label[2], ""))
    found: Any = pod
    for part in path.split("."):
        found = found[part]
    return str(found)


def _tail(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")[-WORDS:]
    except FileNotFoundError:
        return ""
