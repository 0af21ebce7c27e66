"""Small objects of each kind."""

import itertools

numbers = itertools.count(1)


def pod(name, *, node="", labels=None, **meta):
    spec = {"containers": [{"name": "main", "image": "none.invalid/none"}], **({"nodeName": node} if node else {})}
    return {"metadata": {"name": name, **({"labels": labels} if labels else {}), **meta}, "spec": spec}


def node(**labels):
    """A node with a name of its own."""
    return {"metadata": {"name": f"shisuan-test-node-{next(numbers)}", "labels": labels}}


def lease(name, holder="", *, labels=None):
    meta = {"name": name, **({"labels": labels} if labels else {})}
    return {"metadata": meta, "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15}}


def deployment(name, replicas=1):
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": pod("x")["spec"]}
    return {
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def ray_cluster(name, *, replicas=1, params=None, **spec):
    template = {"spec": pod("x")["spec"]}
    group = {"groupName": "cards", "replicas": replicas, "minReplicas": 0, "maxReplicas": 8, "rayStartParams": {}}
    return {
        "metadata": {"name": name},
        "spec": {
            "headGroupSpec": {"rayStartParams": params or {}, "template": template},
            "workerGroupSpecs": [{**group, "template": template}],
            **spec,
        },
    }


def ray_job(name, **spec):
    return {
        "metadata": {"name": name},
        "spec": {"entrypoint": "true", "rayClusterSpec": ray_cluster("x")["spec"], **spec},
    }


def budget(name, labels):
    return {"metadata": {"name": name}, "spec": {"minAvailable": 1, "selector": {"matchLabels": labels}}}
