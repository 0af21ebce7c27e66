"""KubeRay's two controllers: one look at everything there is, and what follows from it."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from k8s.quantity import milli, nano, whole, whole_mib
from tests.fakes.kube.server import FakeKubernetes
from tests.fakes.kube.verbs import MERGE, Call, text_now
from tests.fakes.kuberay import objects
from tests.fakes.kuberay.conditions import is_true, with_condition
from tests.fakes.kuberay.objects import Body, Object

LETTERS = "bcdfghjklmnpqrstvwxz2456789"
OVER = ("Succeeded", "Failed")
STALLED = ("Suspended", "ValidationFailed", "Complete", "Failed")


class KubeRay:
    """``look`` is called under the storage's lock, again and again: it does nothing when nothing is to be done."""

    def __init__(self, double: FakeKubernetes, seed: int = 0) -> None:
        self._double = double
        self._dice = random.Random(seed)

    def look(self) -> None:
        for job in self._double.objects("rayjobs"):
            self._job(job)
        for cluster in self._double.objects("rayclusters"):
            self._cluster(cluster)

    # ── RayClusters ──────────────────────────────────────────────────────────────────────────────────────────────

    def _cluster(self, cluster: Object) -> None:
        if "deletionTimestamp" in cluster["metadata"]:
            return
        if self._get("services", objects.service_name(cluster["metadata"]["name"]), cluster) is None:
            self._create("Service", "v1", objects.head_service(cluster))
        pods = self._pods_of(cluster)
        if cluster["spec"].get("suspend"):
            for pod in pods:
                self._delete("pods", pod)
        else:
            self._head(cluster, [pod for pod in pods if _label(pod, objects.NODE_TYPE) == objects.HEAD])
            for group in cluster["spec"].get("workerGroupSpecs") or ():
                self._workers(cluster, group, [p for p in pods if _is_worker(p, group["groupName"])])
        self._tell_cluster(cluster)

    def _head(self, cluster: Object, heads: Sequence[Object]) -> None:
        for pod in heads:
            if _is_spent(pod):
                self._delete("pods", pod)
        was_there = (cluster.get("status") or {}).get("head", {}).get("podName")
        annotations = cluster["metadata"].get("annotations") or {}
        if not heads and not (was_there and annotations.get(objects.NO_NEW_HEAD) == "true"):
            self._create("Pod", "v1", objects.pod(cluster, None, ""))

    def _workers(self, cluster: Object, group: Object, pods: Sequence[Object]) -> None:
        doomed = set((group.get("scaleStrategy") or {}).get("workersToDelete") or ())
        staying: list[Object] = []
        for pod in pods:
            if _is_spent(pod) or pod["metadata"]["name"] in doomed:
                self._delete("pods", pod)
            else:
                staying.append(pod)  # also one that is being deleted: its place is taken until it is gone
        wanted = _replicas(group)
        for _ in range(wanted - len(staying)):
            self._create("Pod", "v1", objects.pod(cluster, group, self._letters()))
        for pod in staying[: max(0, len(staying) - wanted)]:  # whichever: who wants one in particular names it
            self._delete("pods", pod)

    def _tell_cluster(self, cluster: Object) -> None:
        pods = self._pods_of(cluster)
        before = dict(cluster.get("status") or {})
        status = {**before, **_counts(cluster, pods), **_desired(cluster)}
        conditions = before.get("conditions") or []
        head = next((pod for pod in pods if _label(pod, objects.NODE_TYPE) == objects.HEAD), None)
        conditions = with_condition(conditions, "HeadPodReady", *_head_ready(head))
        wanted = status["desiredWorkerReplicas"] + 1
        ready = [pod for pod in pods if is_true(pod.get("status") or {}, "Ready")]
        if cluster["spec"].get("suspend"):
            conditions = with_condition(conditions, "RayClusterSuspending", bool(pods), "RayClusterSuspending")
            conditions = with_condition(conditions, "RayClusterSuspended", not pods, "RayClusterSuspended")
            state = "" if pods else "suspended"
        else:
            for kind in ("RayClusterSuspending", "RayClusterSuspended"):
                if is_true({"conditions": conditions}, kind):
                    conditions = with_condition(conditions, kind, False, kind)
            is_ready = len(ready) == len(pods) >= wanted
            if is_ready or not is_true({"conditions": conditions}, "RayClusterProvisioned"):
                reason = "AllPodRunningAndReadyFirstTime" if is_ready else "RayClusterPodsProvisioning"
                conditions = with_condition(conditions, "RayClusterProvisioned", is_ready, reason)
            state = "ready" if is_ready else before.get("state", "")
        status |= {"conditions": conditions, "head": _head_info(cluster, head, before)}
        status |= {"endpoints": dict(objects.ENDPOINTS)} if head is not None else {}
        if state:
            if state != before.get("state"):
                times = {**(before.get("stateTransitionTimes") or {}), state: text_now()}
                status["stateTransitionTimes"] = times
            status["state"] = state
        status["observedGeneration"] = cluster["metadata"].get("generation", 0)
        if _without_time(status) != _without_time(before):
            self._double.put({**cluster, "status": {**status, "lastUpdateTime": text_now()}})

    # ── RayJobs ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _job(self, job: Object) -> None:
        finalizers = job["metadata"].get("finalizers") or []
        if "deletionTimestamp" in job["metadata"]:
            if objects.FINALIZER in finalizers:  # it asks Ray to stop the job, and lets go whatever comes of that
                self._finalize(job, [one for one in finalizers if one != objects.FINALIZER])
            return
        status = dict(job.get("status") or {})
        if not status and objects.FINALIZER not in finalizers:
            self._finalize(job, [*finalizers, objects.FINALIZER])
            return
        after = self._job_status(job, status)
        after |= {"observedGeneration": job["metadata"].get("generation", 0)}
        if after != status:
            self._double.put({**job, "status": after})

    def _finalize(self, job: Object, finalizers: list[str]) -> None:
        meta = job["metadata"]
        call = Call(kind=self._double.kind_of(job), namespace=meta["namespace"], name=meta["name"])
        self._double.verbs.patch(call, MERGE, {"metadata": {"finalizers": finalizers}})

    def _job_status(self, job: Object, status: Body) -> Body:
        state, wants_rest = status.get("jobDeploymentStatus", ""), bool(job["spec"].get("suspend"))
        cluster = self._cluster_of(job, status)
        if state in STALLED[1:]:
            self._clear_away(job, cluster)
            return status
        if state == "":
            return self._begun(job, status)
        if state in ("Initializing", "Running") and wants_rest:
            return {**status, "jobDeploymentStatus": "Suspending"}
        if state == "Suspending":
            return self._suspending(job, status, cluster)
        if state == "Suspended":
            return status if wants_rest else {**status, "jobDeploymentStatus": ""}
        if state == "Initializing":
            return self._initializing(job, status, cluster)
        return self._running(job, status, cluster)

    def _begun(self, job: Object, status: Body) -> Body:
        problem = objects.problem_of(job)
        if problem:
            return {
                **status,
                "jobDeploymentStatus": "ValidationFailed",
                "reason": "ValidationFailed",
                "message": problem,
            }
        name = job["metadata"]["name"]
        return {
            **status,
            "jobDeploymentStatus": "Initializing",
            "jobId": job["spec"].get("jobId") or f"{name}-{self._letters()}",
            "rayClusterName": f"{name}-{self._letters()}",
            "startTime": text_now(),
            "succeeded": 0,
            "failed": 0,
        }

    def _suspending(self, job: Object, status: Body, cluster: Object | None) -> Body:
        if cluster is not None:
            self._delete("rayclusters", cluster)
            return status
        if [pod for pod in self._double.objects("pods") if _label(pod, objects.CLUSTER) == status["rayClusterName"]]:
            return status
        dropped = ("rayClusterName", "jobId", "rayClusterStatus", "jobStatus", "dashboardURL", "message", "reason")
        return {**{k: v for k, v in status.items() if k not in dropped}, "jobDeploymentStatus": "Suspended"}

    def _initializing(self, job: Object, status: Body, cluster: Object | None) -> Body:
        if cluster is None:
            if job["spec"].get("submissionMode") != "SidecarMode":
                raise NotImplementedError("the stand-in knows no submission mode but SidecarMode")
            body = objects.cluster_of(job, status["rayClusterName"], status["jobId"])
            self._create("RayCluster", "ray.io/v1", body)
            return status
        told = cluster.get("status") or {}
        if told.get("state") != "ready":
            return status
        where = f"{objects.address(cluster)}:{objects.DASHBOARD_PORT}"
        return {**status, "jobDeploymentStatus": "Running", "jobStatus": "PENDING", "dashboardURL": where,
                "rayClusterStatus": {"state": "ready"}}  # fmt: skip

    def _running(self, job: Object, status: Body, cluster: Object | None) -> Body:
        if cluster is None:
            return self._over(status, "FAILED", "JobStatusCheckTimeoutExceeded", "the RayCluster is gone")
        head = next((p for p in self._pods_of(cluster) if _label(p, objects.NODE_TYPE) == objects.HEAD), None)
        ended = _ended(head, objects.SUBMITTER) if head is not None else None
        if ended is None:
            if head is None:
                return self._without_head(status)
            return {**status, "jobStatus": "RUNNING"}
        if ended.get("exitCode", 1) == 0:
            return self._over(status, "SUCCEEDED", "", "Job finished successfully.")
        said = ended.get("message") or f"Job entrypoint command failed with exit code {ended.get('exitCode')}"
        return self._over(status, "FAILED", "AppFailed", said)

    @staticmethod
    def _without_head(status: Body) -> Body:
        """In SidecarMode no other head comes. What Ray said of the job last stays."""
        ended = {"reason": "AppFailed", "message": "Ray head pod not found.", "endTime": text_now()}
        return {**status, **ended, "jobDeploymentStatus": "Failed", "failed": 1}

    @staticmethod
    def _over(status: Body, job_status: str, reason: str, message: str) -> Body:
        did_well = job_status == "SUCCEEDED"
        ended = {"jobStatus": job_status, "jobDeploymentStatus": "Complete" if did_well else "Failed"}
        ended |= {"message": message, "endTime": text_now(), **({"reason": reason} if reason else {})}
        return {**status, **ended, "succeeded": int(did_well), "failed": int(not did_well)}

    def _clear_away(self, job: Object, cluster: Object | None) -> None:
        """Pods stay until the time to live is over; the stand-in knows only 0 and for ever."""
        spec = job["spec"]
        if spec.get("shutdownAfterJobFinishes") and not spec.get("ttlSecondsAfterFinished") and cluster is not None:
            self._delete("rayclusters", cluster)

    # ── reading and writing ──────────────────────────────────────────────────────────────────────────────────────

    def _pods_of(self, cluster: Object) -> list[Object]:
        uid = cluster["metadata"]["uid"]
        return [pod for pod in self._double.objects("pods") if objects.is_controlled_by(pod, uid)]

    def _cluster_of(self, job: Object, status: Body) -> Object | None:
        name = status.get("rayClusterName")
        return self._get("rayclusters", name, job) if name else None

    def _get(self, kind: str, name: str, beside: Object) -> Object | None:
        return self._double.get(kind, name, beside["metadata"]["namespace"])

    def _create(self, kind: str, version: str, body: Body) -> None:
        """As a request: the schema is asked."""
        made = {**body, "apiVersion": version, "kind": kind}
        call = Call(
            kind=self._double.kind_of(made),
            namespace=body["metadata"]["namespace"],
            query={"fieldValidation": "Strict"},
            manager=objects.MANAGER,
        )
        self._double.verbs.create(call, made)

    def _delete(self, plural: str, obj: Object) -> None:
        meta = obj["metadata"]
        if "deletionTimestamp" in meta:
            return
        kind = self._double.kind_of(obj)
        assert kind.plural == plural
        self._double.verbs.delete(Call(kind=kind, namespace=meta["namespace"], name=meta["name"]), {})

    def _letters(self) -> str:
        return "".join(self._dice.choices(LETTERS, k=5))


def _label(obj: Object, key: str) -> str:
    return str((obj["metadata"].get("labels") or {}).get(key, ""))


def _is_worker(pod: Object, group: str) -> bool:
    return _label(pod, objects.NODE_TYPE) == objects.WORKER and _label(pod, objects.GROUP) == group


def _is_spent(pod: Object) -> bool:
    """No kubelet will start it again."""
    if pod["spec"].get("restartPolicy", "Always") == "Always":
        return (pod.get("status") or {}).get("phase") in OVER and (pod["status"].get("reason") == "Evicted")
    ray = pod["spec"]["containers"][0]["name"]
    return (pod.get("status") or {}).get("phase") in OVER or _ended(pod, ray) is not None


def _ended(pod: Object, container: str) -> Mapping[str, Any] | None:
    for one in (pod.get("status") or {}).get("containerStatuses") or ():
        if one["name"] == container:
            found: Mapping[str, Any] | None = (one.get("state") or {}).get("terminated")
            return found
    return None


def _replicas(group: Object) -> int:
    if group.get("suspend"):
        return 0
    least, most = group.get("minReplicas", 0), group.get("maxReplicas", 2**31 - 1)
    return max(least, min(most, group.get("replicas", least)))


def _head_ready(head: Object | None) -> tuple[bool, str, str]:
    if head is None:
        return False, "HeadPodNotFound", "Head Pod not found"
    told = head.get("status") or {}
    if is_true(told, "Ready"):
        return True, "HeadPodRunningAndReady", ""
    found = next((one for one in told.get("conditions") or () if one["type"] == "Ready"), {})
    return False, found.get("reason") or "Unknown", found.get("message", "")


def _head_info(cluster: Object, head: Object | None, before: Mapping[str, Any]) -> Body:
    if head is None:
        return dict(before.get("head") or {})
    ip = (head.get("status") or {}).get("podIP", "")
    info = {"podName": head["metadata"]["name"], "serviceName": objects.service_name(cluster["metadata"]["name"])}
    return {**info, **({"podIP": ip, "serviceIP": ip} if ip else {})}


def _counts(cluster: Object, pods: Sequence[Object]) -> Body:
    groups = cluster["spec"].get("workerGroupSpecs") or ()
    workers = [pod for pod in pods if _label(pod, objects.NODE_TYPE) == objects.WORKER]
    running = [pod for pod in workers if (pod.get("status") or {}).get("phase") == "Running"]
    suspended = cluster["spec"].get("suspend")
    return {
        "desiredWorkerReplicas": 0 if suspended else sum(_replicas(group) for group in groups),
        "minWorkerReplicas": sum(group.get("minReplicas", 0) for group in groups),
        "maxWorkerReplicas": min(2**31 - 1, sum(group.get("maxReplicas", 2**31 - 1) for group in groups)),
        "readyWorkerReplicas": sum(is_true(pod["status"], "Ready") for pod in running),
        "availableWorkerReplicas": len(running),
    }


def _desired(cluster: Object) -> Body:
    """What the pods that should be there ask for together."""
    total = {"cpu": 0, "memory": 0, "nvidia.com/gpu": 0}
    wanted = [(1, cluster["spec"]["headGroupSpec"])]
    wanted += [(_replicas(group), group) for group in cluster["spec"].get("workerGroupSpecs") or ()]
    for count, group in wanted:
        for container in group["template"]["spec"]["containers"]:
            told = container.get("resources") or {}
            asked = {**(told.get("limits") or {}), **(told.get("requests") or {})}
            for key in total:
                total[key] += count * nano(asked.get(key, 0))
    return {
        "desiredCPU": f"{milli(total['cpu'])}m",
        "desiredMemory": f"{whole_mib(total['memory'])}Mi",
        "desiredGPU": str(whole(total["nvidia.com/gpu"])),
        "desiredTPU": "0",
    }


def _without_time(status: Mapping[str, Any]) -> Body:
    return {key: value for key, value in status.items() if key != "lastUpdateTime"}
