"""Every object of the lanes fits its schema, and says what the operator of the park relies on."""

import hashlib
import json
import re
from dataclasses import replace

import pytest
import yaml

from k8s import manifests, pods
from k8s.manifests import claim, group, job_cluster, network_policy, pool_cluster, ray_cluster, ray_job, secret
from k8s.names import CLUSTER, MANAGED_BY, OURS
from k8s.resource import (
    CLAIM_TEMPLATES,
    NETWORK_POLICIES,
    RAY_CLUSTERS,
    RAY_JOBS,
    RESOURCE_CLAIMS,
    SECRETS,
    Resource,
)
from k8s.shapes import Shape, resource_of, shape_of
from k8s.site import Bucket, Site, Volume
from scheduler.model.order import LeaseOrder, TaskOrder
from tests.fakes.kube.kinds import crd, custom
from tests.fakes.kube.schema import Findings, Schemas
from tests.manifests import Kinds, openapi
from workers.ray_head import STORAGE_ENV

GPU = "nvidia.com/gpu"
SITE = Site(
    namespace="park",
    gateway="shisuan.park.svc:7443",
    images={"default": "registry.example/pool:1", "train": "registry.example/train:1"},
    volumes=(Volume(claim="films", path="/films"), Volume(claim="data", path="/data", read_only=True)),
    bucket=Bucket(endpoint="http://minio:9000", secret="films"),
    gateway_ca="shisuan-gateway-ca",
    pull_secrets=("pull",),
    priority_class="park",
    runtime_class="nvidia",
    head_node_selector={"role": "cpu"},
    head_tolerations=({"key": "role", "operator": "Exists"},),
    egress=({"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},),
)
PLAIN = Site(namespace="park", gateway="shisuan:7443", images={"default": "pool"})
ONE = Shape(node="gpu-7", resource=GPU, count=1, cpu_milli=4_000, memory_mib=16_384)
FOUR = Shape(node="gpu-8", resource=GPU, count=4, cpu_milli=16_000, memory_mib=65_536)
CPU = Shape(node="gpu-7", cpu_milli=2_000, memory_mib=512, scratch_mib=10_240)
NAMED = Shape(node="gpu-7", resource="gpu.nvidia.com", count=2, cpu_milli=1_000, devices=("GPU-1", "GPU-2"))
PART = replace(NAMED, count=1, devices=("GPU-1",), card_milli=250)
INSTANCE = replace(NAMED, resource="mig.nvidia.com", count=1, devices=("MIG-1",))


def order(**fields):
    attempt = fields.pop("attempt", "j17.train.0.a2")
    task = TaskOrder(attempt_id=attempt, number=2, argv=("true",))
    return LeaseOrder(
        lease_id="l12", tenant="Studio 7", node="gpu-7", tasks=(task,), **{"submitted_ms": 1_700_000_000_000, **fields}
    )


def objects(site):
    """Everything there can be."""
    pool = pool_cluster(site, "Studio 7", "render", "gpu-7")
    job = job_cluster(site, order(), "train")
    cluster = ray_cluster(site, pool, "render")
    groups = [group(site, pool, ONE, 2, ["p-1"]), *(group(site, pool, s, 1) for s in (CPU, NAMED, PART, INSTANCE))]
    cluster["spec"]["workerGroupSpecs"] = groups
    return [
        (RAY_CLUSTERS, cluster),
        (RAY_JOBS, ray_job(site, job, "l12", ["j17.train.0.a2"], [ONE, FOUR, FOUR])),
        (SECRETS, secret(site, pool, bridge_token="b", ray_token="r")),
        (NETWORK_POLICIES, network_policy(site, pool)),
        (CLAIM_TEMPLATES, claim(site, pool, NAMED)),
        (CLAIM_TEMPLATES, claim(site, pool, INSTANCE)),
        (RESOURCE_CLAIMS, claim(site, pool, PART)),
    ]


def typed(resource: Resource, body):
    return {"apiVersion": resource.api_version, "kind": resource.kind, **body}


@pytest.fixture(scope="module")
def builtin():
    return Kinds(openapi())


@pytest.mark.parametrize("site", [SITE, PLAIN], ids=["everything", "defaults"])
def test_objects_fit_the_schemas_of_kubernetes_and_kuberay(site, builtin):
    for resource, body in objects(site):
        thing = typed(resource, body)
        if builtin.knows(thing):
            assert builtin.problems(thing) == []
            continue
        (kind,) = (kind for kind in custom(crd(resource.plural)) if kind.version == resource.version)
        findings = Findings()
        Schemas(openapi()["definitions"]).conform(thing, kind.schema, findings)
        assert (findings.invalid, findings.mistyped, findings.unknown) == ([], [], [])


@pytest.mark.parametrize("site", [SITE, PLAIN], ids=["everything", "defaults"])
def test_pod_templates_are_pods(site, builtin):
    pool = pool_cluster(site, "t1", "render", "gpu-7")
    templates = [pods.head(site, pool, has_bridge=b) for b in (True, False)]
    templates += [pods.worker(site, pool, shape) for shape in (ONE, FOUR, CPU, Shape(node="n"), NAMED, PART)]
    for template in templates:
        assert builtin.problems({"apiVersion": "v1", "kind": "Pod", **template}) == []
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["automountServiceAccountToken"] is False
        assert template["metadata"]["labels"][MANAGED_BY] == OURS


def test_a_worker_is_bound_to_its_node_and_holds_its_cards():
    pool = pool_cluster(SITE, "t1", "render", "gpu-7")
    spec = pods.worker(SITE, pool, FOUR)["spec"]
    (term,) = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchFields"] == [{"key": "metadata.name", "operator": "In", "values": ["gpu-8"]}]
    (ray,) = spec["containers"]
    assert ray["resources"] == {
        "requests": {"cpu": "16000m", "memory": "65536Mi"},
        "limits": {"memory": f"{65_536 + SITE.overhead_mib}Mi", GPU: "4"},
    }
    assert spec["restartPolicy"] == "Never"
    assert spec["runtimeClassName"] == "nvidia"
    params = pods.worker_params(FOUR)
    assert params["num-gpus"] == "4"
    assert json.loads(params["resources"].strip("'")) == {f"gpu{n}": 1 for n in range(4)}
    assert ray["command"][-1].endswith('$KUBERAY_GEN_RAY_START_CMD --labels=shisuan-node=$SHISUAN_POD"')


def test_a_worker_claims_the_cards_that_have_names_and_sees_no_others():
    pool = pool_cluster(SITE, "t1", "render", "gpu-7")
    spec = pods.worker(SITE, pool, NAMED)["spec"]
    (ray,) = spec["containers"]
    assert ray["resources"] == {"requests": {"cpu": "1000m"}, "claims": [{"name": "cards"}]}
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in ray["env"]
    assert "runtimeClassName" not in spec
    (told,) = spec["resourceClaims"]
    template = claim(SITE, pool, NAMED)
    assert told == {"name": "cards", "resourceClaimTemplateName": template["metadata"]["name"]}
    asked = template["spec"]["spec"]["devices"]["requests"]
    assert [one["exactly"]["selectors"][0]["cel"]["expression"] for one in asked] == [
        'device.driver == "gpu.nvidia.com" && "uuid" in device.attributes["gpu.nvidia.com"]'
        f' && device.attributes["gpu.nvidia.com"].uuid == "GPU-{n}"'
        for n in (1, 2)
    ]
    assert {(one["exactly"]["deviceClassName"], one["exactly"]["count"]) for one in asked} == {("gpu.nvidia.com", 1)}
    assert template["spec"]["metadata"]["labels"][MANAGED_BY] == OURS, "else its claims would be a stranger's"
    assert pods.worker_params(NAMED)["num-gpus"] == "2"
    (instance,) = claim(SITE, pool, INSTANCE)["spec"]["spec"]["devices"]["requests"]
    assert instance["exactly"]["deviceClassName"] == "mig.nvidia.com"
    assert 'attributes["gpu.nvidia.com"].uuid == "MIG-1"' in instance["exactly"]["selectors"][0]["cel"]["expression"]


def test_parts_of_a_card_share_the_claim_of_their_tenant():
    site = replace(SITE, images={"render": "a", "transcode": "b"})
    one, two = (pool_cluster(site, "t1", kind, "gpu-7") for kind in ("render", "transcode"))
    other = pool_cluster(site, "t2", "render", "gpu-7")
    small = replace(PART, card_milli=100, cpu_milli=1)
    names = [claim(site, c, s)["metadata"]["name"] for c, s in ((one, PART), (two, small), (other, PART))]
    assert names[0] == names[1] != names[2]
    assert claim(site, one, PART) == claim(site, two, small), "two clusters may apply it without a conflict"
    (told,) = pods.worker(site, two, small)["spec"]["resourceClaims"]
    assert told == {"name": "cards", "resourceClaimName": names[0]}


def test_scratch_is_asked_for_where_it_is_leased():
    pool = pool_cluster(SITE, "t1", "render", "gpu-7")
    (ray,) = pods.worker(SITE, pool, CPU)["spec"]["containers"]
    assert ray["resources"]["requests"]["ephemeral-storage"] == "10240Mi"
    assert ray["resources"]["limits"]["ephemeral-storage"] == f"{10_240 + SITE.overhead_mib}Mi"
    assert "ephemeral-storage" not in yaml.safe_dump(pods.worker(SITE, pool, ONE))


def test_a_worker_without_cards_sees_none():
    pool = pool_cluster(SITE, "t1", "render", "gpu-7")
    spec = pods.worker(SITE, pool, CPU)["spec"]
    (ray,) = spec["containers"]
    assert {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in ray["env"]
    assert "runtimeClassName" not in spec
    assert pods.worker_params(CPU)["num-gpus"] == "0"
    names = [e["name"] for e in pods.worker(SITE, pool, ONE)["spec"]["containers"][0]["env"]]
    assert "NVIDIA_VISIBLE_DEVICES" not in names


def test_only_workers_are_told_of_the_bucket_and_only_what_is_said():
    pool = pool_cluster(SITE, "t1", "render", "gpu-7")
    (ray,) = pods.worker(SITE, pool, ONE)["spec"]["containers"]
    told = {e["name"]: e for e in ray["env"] if e["name"].startswith("AWS_")}
    assert sorted(told) == ["AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL_S3", "AWS_SECRET_ACCESS_KEY"]
    assert told["AWS_ENDPOINT_URL_S3"]["value"] == "http://minio:9000"
    secret_key = {"name": "films", "key": "AWS_SECRET_ACCESS_KEY"}
    assert told["AWS_SECRET_ACCESS_KEY"]["valueFrom"] == {"secretKeyRef": secret_key}
    assert set(told) <= set(STORAGE_ENV)  # else agents would not pass them to storage
    others = [pods.head(SITE, pool, has_bridge=True), pods.worker(PLAIN, pool, ONE)]
    assert "AWS_" not in yaml.safe_dump(others)


def test_workers_hold_no_bridge_token():
    """Users' programs run in worker pods: only the head may speak for the cluster."""
    pool = pool_cluster(SITE, "t1", "render", "gpu-7")
    assert pool.secret not in yaml.safe_dump(pods.worker(SITE, pool, ONE))
    for has_bridge in (False, True):
        head = pods.head(SITE, pool, has_bridge=has_bridge)["spec"]["containers"]
        shown = [c["name"] for c in head if any(m["name"] == "token" for m in c["volumeMounts"])]
        assert shown == ["bridge" if has_bridge else "ray-head"]


def test_a_bridge_of_its_own_container_sees_rays_processes():
    """Ray's driver looks for its raylet among them."""
    pool = pool_cluster(SITE, "t1", "render", "gpu-7")
    shared = [pods.head(SITE, pool, has_bridge=b)["spec"].get("shareProcessNamespace") for b in (True, False)]
    assert shared == [True, None]


def test_a_ray_job_is_born_suspended_and_cleans_up():
    job = job_cluster(SITE, order(), "train")
    spec = ray_job(SITE, job, "l12", ["j17.train.0.a2"], [ONE, FOUR, FOUR])["spec"]
    kept = ("suspend", "submissionMode", "shutdownAfterJobFinishes", "backoffLimit")
    assert {key: spec[key] for key in kept} == {
        "suspend": True,
        "submissionMode": "SidecarMode",
        "shutdownAfterJobFinishes": True,
        "backoffLimit": 0,
    }
    assert spec["entrypoint"].startswith(
        f"python -P -m workers.dial --dial shisuan.park.svc:7443 --cluster {job.name} "
    )
    assert spec["entrypoint"].endswith("--until-over --pods 3 --wait-s 900 --lease l12 --attempt j17.train.0.a2")
    groups = {g["groupName"]: g["replicas"] for g in spec["rayClusterSpec"]["workerGroupSpecs"]}
    assert groups == {ONE.group: 1, FOUR.group: 2}
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert head["restartPolicy"] == "Never"
    assert [c["name"] for c in head["containers"]] == ["ray-head"]


def test_no_cluster_scales_by_itself():
    for resource, body in objects(SITE):
        if resource in (RAY_CLUSTERS, RAY_JOBS):
            spec = body["spec"].get("rayClusterSpec", body["spec"])
            assert spec["enableInTreeAutoscaling"] is False
            assert spec["authOptions"]["mode"] == "token"


NAME = re.compile(r"[a-z]([-a-z0-9]{0,44}[a-z0-9])?")


@pytest.mark.parametrize(
    ("tenant", "attempt"),
    [("t1", "j1.a.0.a1"), ("工作室", "j1.渲染.0.a1"), ("A" * 200, "j123456789.a-very-long-name-of-a-step.123456.a12")],
)
def test_names_are_names_to_kubernetes(tenant, attempt):
    pool = pool_cluster(SITE, tenant, "render", "gpu-7")
    job = job_cluster(SITE, order(attempt=attempt), "train")
    for name in (pool.name, job.name, ONE.group):
        assert NAME.fullmatch(name), name
        assert len(name) <= manifests.NAME


def test_names_follow_from_what_they_are_for():
    first = job_cluster(SITE, order(), "train").name
    assert job_cluster(SITE, order(), "train").name == first
    others = {order(attempt="j17.train.0.a3"), order(submitted_ms=1)}
    assert len({job_cluster(SITE, other, "train").name for other in others} | {first}) == 3
    asked = (("t", "render", "n"), ("t", "merge", "m"), ("u", "render", "n"))
    pool = [pool_cluster(SITE, *what).name for what in asked]
    assert pool[0] == pool[1]  # one image: one trust domain
    assert pool[0] != pool[2]


def test_shards_spread_nodes_over_clusters():
    site = Site(namespace="p", gateway="g:1", images={"default": "i"}, shards=4)
    names = {pool_cluster(site, "t", "render", f"n{number}").name for number in range(50)}
    assert len(names) == 4


def test_an_image_is_the_kinds_or_the_default():
    assert SITE.image("train") == "registry.example/train:1"
    assert SITE.image("render") == "registry.example/pool:1"
    with pytest.raises(KeyError, match=r"no image for 'render' and no default \(it has: train\)"):
        Site(namespace="p", gateway="g:1", images={"train": "x"}).image("render")


def test_the_network_policy_lets_out_what_is_needed():
    policy = network_policy(SITE, pool_cluster(SITE, "t", "render", "n"))
    assert policy["spec"]["podSelector"]["matchLabels"].keys() == {CLUSTER}
    ports = [[p["port"] for p in rule.get("ports", ())] for rule in policy["spec"]["egress"]]
    assert ports == [[], [7443], [53, 53], []]


def test_shapes_come_from_slots():
    slots = [f"slot:gpu-7:{GPU}:{n}" for n in (3, 1)]
    assert shape_of("gpu-7", slots, 1, 2) == Shape(node="gpu-7", resource=GPU, count=2, cpu_milli=1, memory_mib=2)
    assert shape_of("n", [], 1, 2) == Shape(node="n", cpu_milli=1, memory_mib=2)
    assert resource_of("slot:n:nvidia.com/mig-1g.10gb:0") == "nvidia.com/mig-1g.10gb"
    for shape in (ONE, CPU, NAMED, PART):
        assert Shape.of_text(shape.text()) == shape
    named = shape_of("gpu-7", ["GPU-2", "GPU-1"], 1_000, 0)
    assert named == NAMED
    assert shape_of("gpu-7", ["GPU-1"], 1_000, 0, card_milli=250) == PART
    with pytest.raises(ValueError, match="not a shape"):
        Shape.of_text('{"mode": 1}')


@pytest.mark.parametrize("device", ["NPU-1234", "slot:n", "slot:n:nvidia.com/gpu:x"])
def test_a_device_that_is_no_slot_is_refused(device):
    with pytest.raises(ValueError, match="slot:NODE:RESOURCE:N"):
        shape_of("n", [device], 0, 0)


def test_a_shape_of_an_earlier_version_keeps_its_name():
    """Its pods run: KubeRay would end them with the group."""
    text = '{"count": 1, "cpu_milli": 4000, "memory_mib": 16384, "node": "gpu-7", "resource": "nvidia.com/gpu"}'
    assert Shape.of_text(text) == ONE
    assert (ONE.text(), ONE.group) == (text, f"g{hashlib.sha256(text.encode()).hexdigest()[:12]}")


def test_more_than_a_claim_holds_is_refused():
    with pytest.raises(ValueError, match="32 is the most"):
        shape_of("n", [f"MIG-{n}" for n in range(33)], 0, 0)


def test_a_part_of_a_counted_card_is_refused():
    with pytest.raises(ValueError, match="whole card or a MIG instance"):
        shape_of("n", [f"slot:n:{GPU}:0"], 0, 0, card_milli=500)


def test_one_pod_holds_one_kind_of_device():
    with pytest.raises(ValueError, match="several kinds"):
        shape_of("n", [f"slot:n:{GPU}:0", "slot:n:nvidia.com/mig-1g.10gb:0"], 0, 0)
