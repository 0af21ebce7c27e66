"""The objects that KubeRay makes from ours: pods, head services, the RayCluster of a RayJob. Pure."""

import copy
import re
from collections.abc import Mapping
from typing import Any

Object = Mapping[str, Any]
Body = dict[str, Any]
CLUSTER, GROUP, NODE_TYPE = "ray.io/cluster", "ray.io/group", "ray.io/node-type"
HEAD, WORKER, HEAD_GROUP = "head", "worker", "headgroup"
MANAGER = "kuberay-operator"
OVERWRITE = "ray.io/overwrite-container-cmd"
FINALIZER = "ray.io/rayjob-finalizer"
NO_NEW_HEAD = "ray.io/disable-provisioned-head-restart"
START = "KUBERAY_GEN_RAY_START_CMD"
SUBMITTER, WAIT = "ray-job-submitter", "wait-gcs-ready"
GCS_PORT, DASHBOARD_PORT = 6379, 8265
ENDPOINTS = {"client": "10001", "dashboard": str(DASHBOARD_PORT), "gcs-server": str(GCS_PORT), "metrics": "8080"}
LONGEST_NAME = 50
"""Of a pod, before its type and five letters; what is more is cut off."""
LONGEST_LABEL = 63
LONGEST_JOB = 47
NEITHER_TRUE_NOR_ABSENT = ("include-dashboard", "log-color")
"""Parameters of ``ray start`` that take true and false as values; others are flags."""


def pod_name(cluster: Object, group: Object | None, letters: str) -> str:
    """``group``: None for the head, whose name is always the same."""
    name = cluster["metadata"]["name"]
    if group is None:
        return f"{name[:LONGEST_NAME]}-{HEAD}".lower()
    prefix = f"{name}-{group['groupName']}"[:LONGEST_NAME]
    return f"{prefix}-{WORKER}-{letters}".lower()


def service_name(cluster: str) -> str:
    """Of the head's service."""
    return f"{cluster}-head-svc"


def address(cluster: Object) -> str:
    """Where workers look for the head."""
    meta = cluster["metadata"]
    return f"{service_name(meta['name'])}.{meta['namespace']}.svc.cluster.local"


def owner_of(obj: Object) -> Body:
    meta = {key: obj["metadata"][key] for key in ("name", "uid")}
    kind = {"apiVersion": obj["apiVersion"], "kind": obj["kind"]}
    return {**kind, **meta, "controller": True, "blockOwnerDeletion": True}


def is_controlled_by(obj: Object, uid: str) -> bool:
    return any(one.get("controller") and one["uid"] == uid for one in obj["metadata"].get("ownerReferences") or ())


def pod(cluster: Object, group: Object | None, letters: str) -> Body:
    """A Ray pod as it is created. ``group``: None for the head."""
    made = group if group is not None else cluster["spec"]["headGroupSpec"]
    template = copy.deepcopy(made["template"])
    kind, name = (WORKER, made["groupName"]) if group is not None else (HEAD, HEAD_GROUP)
    meta, spec = template.get("metadata") or {}, template["spec"]
    annotations = dict(meta.get("annotations") or {})
    ray, *others = spec["containers"]
    command = start_command(made.get("rayStartParams") or {}, address(cluster) if group is not None else "")
    spec["containers"] = [_ray_container(ray, cluster, kind, command, annotations), *others]
    if group is not None:
        spec["initContainers"] = [*(spec.get("initContainers") or ()), _waiting(ray)]
    own = {
        "ray.io/is-ray-node": "yes",
        CLUSTER: cluster["metadata"]["name"],
        NODE_TYPE: kind,
        GROUP: name,
        "ray.io/identifier": f"{cluster['metadata']['name']}-{kind}"[-LONGEST_LABEL:],
        "app.kubernetes.io/name": "kuberay",
        "app.kubernetes.io/created-by": MANAGER,
    }
    fixed = {key: own[key] for key in (CLUSTER, NODE_TYPE, GROUP)}
    return {
        "metadata": {
            "name": pod_name(cluster, group, letters),
            "namespace": cluster["metadata"]["namespace"],
            "labels": {**own, **(meta.get("labels") or {}), **fixed},
            "annotations": annotations,
            "ownerReferences": [owner_of(cluster)],
        },
        "spec": spec,
    }


def start_command(params: Mapping[str, str], head: str) -> str:
    """``ray start`` as KubeRay writes it; ``head``: where a worker finds it."""
    given = {"block": "true", "dashboard-agent-listen-port": "52365", "metrics-export-port": "8080", **params}
    given |= {"address": f"{head}:{GCS_PORT}"} if head else {"dashboard-host": "0.0.0.0"}
    parts = ["ray start"] if head else ["ray start --head"]
    for key, value in sorted(given.items()):
        if value.lower() in ("true", "false") and key not in NEITHER_TRUE_NOR_ABSENT:
            parts += [f" --{key} "] if value.lower() == "true" else []
        else:
            parts.append(f" --{key}={value} ")
    return " ".join(parts)


def _ray_container(ray: Body, cluster: Object, kind: str, command: str, annotations: Mapping[str, str]) -> Body:
    host = "127.0.0.1" if kind == HEAD else address(cluster)
    own = [
        {"name": "RAY_CLUSTER_NAME", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{CLUSTER}']"}}},
        {"name": "RAY_CLOUD_INSTANCE_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "RAY_NODE_TYPE_NAME", "valueFrom": {"fieldRef": {"fieldPath": f"metadata.labels['{GROUP}']"}}},
        {"name": START, "value": command},
        {"name": "RAY_PORT", "value": str(GCS_PORT)},
        {"name": "RAY_ADDRESS", "value": f"{host}:{GCS_PORT}"},
        *(
            []
            if kind == HEAD
            else [{"name": "FQ_RAY_IP", "value": host}, {"name": "RAY_IP", "value": host.split(".")[0]}]
        ),
        {"name": "RAY_USAGE_STATS_KUBERAY_IN_USE", "value": "1"},
        *authentication(cluster),
    ]
    given = {one["name"] for one in ray.get("env") or ()}
    ray = {**ray, "env": [*(ray.get("env") or ()), *(one for one in own if one["name"] not in given)]}
    if annotations.get(OVERWRITE) == "true":
        return ray
    own_words = " ".join([*(ray.get("command") or ()), *(ray.get("args") or ())])
    line = (f"{own_words} && " if own_words else "") + f"ulimit -n 65536; {command}"  # which never ends
    return {**ray, "command": ["/bin/bash", "-c", "--"], "args": [line]}


def authentication(cluster: Object) -> list[Body]:
    """Variables by which Ray's processes know each other."""
    options = cluster["spec"].get("authOptions") or {}
    if options.get("mode") != "token":
        return []
    secret = options.get("secretName") or cluster["metadata"]["name"]
    token = {"valueFrom": {"secretKeyRef": {"name": secret, "key": "auth_token"}}}
    return [{"name": "RAY_AUTH_MODE", "value": "token"}, {"name": "RAY_AUTH_TOKEN", **token}]


def _waiting(ray: Object) -> Body:
    """The first container of a worker: it ends when the head's control store answers."""
    line = f'until ray health-check --address "$FQ_RAY_IP:{GCS_PORT}"; do sleep 5; done'
    kept = {key: ray[key] for key in ("volumeMounts", "securityContext", "imagePullPolicy") if key in ray}
    return {"name": WAIT, "image": ray["image"], "command": ["/bin/bash", "-c", "--"], "args": [line], **kept}


def head_service(cluster: Object) -> Body:
    """Without an address of its own: it stands for the head pod's."""
    name = cluster["metadata"]["name"]
    labels = {CLUSTER: name, NODE_TYPE: HEAD, "app.kubernetes.io/created-by": MANAGER}
    return {
        "metadata": {
            "name": service_name(name),
            "namespace": cluster["metadata"]["namespace"],
            "labels": labels,
            "ownerReferences": [owner_of(cluster)],
        },
        "spec": {
            "clusterIP": "None",
            "selector": labels,
            "ports": [{"name": key, "port": int(port), "protocol": "TCP"} for key, port in ENDPOINTS.items()],
        },
    }


# ── RayJobs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def problem_of(job: Object) -> str:
    """Why KubeRay will not take a RayJob; empty: it does."""
    spec, name = job["spec"], job["metadata"]["name"]
    if len(name) > LONGEST_JOB or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        return f"RayJob name should be no more than {LONGEST_JOB} characters and a name of DNS 1035"
    if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
        return "a RayJob with shutdownAfterJobFinishes set to false is not allowed to be suspended"
    if spec.get("suspend") and spec.get("clusterSelector"):
        return "the ClusterSelector mode doesn't support the suspend operation"
    if not spec.get("rayClusterSpec"):
        return "one of RayClusterSpec or ClusterSelector must be set"
    if spec.get("ttlSecondsAfterFinished") and not spec.get("shutdownAfterJobFinishes"):
        return "a RayJob with shutdownAfterJobFinishes set to false cannot have TTLSecondsAfterFinished"
    if spec.get("submissionMode") == "SidecarMode":
        policy = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"].get("restartPolicy", "Never")
        if policy != "Never":
            return "restartPolicy for head Pod should be Never or unset when using SidecarMode"
        if spec.get("submitterPodTemplate") or spec.get("submitterConfig"):
            return "Currently, SidecarMode doesn't support SubmitterPodTemplate and SubmitterConfig"
    return ""


def cluster_of(job: Object, name: str, job_id: str) -> Body:
    """The RayCluster of a RayJob, the submitter beside its head."""
    meta, spec = job["metadata"], copy.deepcopy(job["spec"]["rayClusterSpec"])
    labels = {
        "ray.io/originated-from-cr-name": meta["name"],
        "ray.io/originated-from-crd": "RayJob",
    }
    head = spec["headGroupSpec"]["template"]["spec"]
    head["restartPolicy"] = "Never"
    made: Body = {
        "apiVersion": job["apiVersion"],
        "kind": "RayCluster",
        "metadata": {
            "name": name,
            "namespace": meta["namespace"],
            "labels": {**(meta.get("labels") or {}), **labels},
            "annotations": {**(meta.get("annotations") or {}), NO_NEW_HEAD: "true"},
            "ownerReferences": [owner_of(job)],
        },
        "spec": spec,
    }
    filled = _submitter(made, head["containers"][0], job["spec"]["entrypoint"], job_id)
    given = next((one for one in head["containers"] if one["name"] == SUBMITTER), None)
    if given is None:
        head["containers"].append(filled)
    else:  # newer operators fill in what they must, and keep the rest
        theirs = {variable["name"] for variable in filled["env"]}
        kept = [variable for variable in given.get("env") or () if variable["name"] not in theirs]
        given |= {"command": filled["command"], "args": filled["args"], "env": [*kept, *filled["env"]]}
        given.setdefault("resources", filled["resources"])
    return made


def _submitter(cluster: Object, ray: Object, entrypoint: str, job_id: str) -> Body:
    """What it really is: a shell that submits to the dashboard, and follows. It has none of the template's folders and
    security settings. The entrypoint itself runs in the head's Ray container, whose variables and folders it has.
    """
    where = f"http://127.0.0.1:{DASHBOARD_PORT}"
    line = f"ray job submit --address {where} --no-wait --submission-id {job_id} -- {entrypoint} ; "
    line += f"ray job logs --address {where} --follow {job_id}"
    env = [
        {"name": "PYTHONUNBUFFERED", "value": "1"},
        {"name": "RAY_DASHBOARD_ADDRESS", "value": f"127.0.0.1:{DASHBOARD_PORT}"},
        {"name": "RAY_JOB_SUBMISSION_ID", "value": job_id},
        *authentication(cluster),
    ]
    amounts = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "200Mi"}}
    bash = ["/bin/bash", "-ce", "--"]
    return {"name": SUBMITTER, "image": ray["image"], "command": bash, "args": [line], "env": env, "resources": amounts}
