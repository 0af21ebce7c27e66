"""What the manifests say: true to Kubernetes, to the programs they start, and no more rights than needed."""

import copy
import importlib.util

import pytest
import yaml

from scheduler.api.standby import WARM
from scheduler.control import arguments
from scheduler.control.bootstrap import read_config
from scheduler.election import POD, POD_IP
from scheduler.model.errors import InvalidInput
from tests.unit.chart.conftest import VALUES, containers, pods
from workers import meter

PROMETHEUS = {"ServiceMonitor", "PodMonitor"}
"""Kinds of the Prometheus operator, whose CRDs are not among our data."""
PARSERS = {"scheduler.wiring": arguments.parser, "workers.meter": meter.parser}


@pytest.mark.parametrize("name", VALUES)
def test_every_object_is_valid_in_kubernetes_1_36(rendered, kinds, name):
    objects = rendered[name]
    assert {thing["kind"] for thing in objects if not kinds.knows(thing)} <= PROMETHEUS
    problems = {
        f"{thing['kind']}/{thing['metadata']['name']}": kinds.problems(thing) for thing in objects if kinds.knows(thing)
    }
    assert {at: found for at, found in problems.items() if found} == {}
    assert len(problems) >= 4


BROKEN = {
    "/spec/replicas": (("spec", "replicas"), "two"),
    "/spec: Additional properties": (("spec", "replica"), 2),
    "/spec/template/spec/hostPID": (("spec", "template", "spec", "hostPID"), "yes"),
    "/spec/template/spec/containers/0/ports/0/containerPort": (
        ("spec", "template", "spec", "containers", 0, "ports", 0, "containerPort"), "http",
    ),
}  # fmt: skip


@pytest.mark.parametrize("said", BROKEN)
def test_the_validation_finds_what_an_api_server_would(rendered, kinds, said):
    (deployment,) = (copy.deepcopy(thing) for thing in rendered["minimal"] if thing["kind"] == "Deployment")
    (*way, last), value = BROKEN[said]
    at = deployment
    for step in way:
        at = at[step]
    at[last] = value
    assert [problem for problem in kinds.problems(deployment) if problem.startswith(said)]


@pytest.mark.parametrize("name", VALUES)
def test_nobody_is_root_or_becomes_it(rendered, name):
    for at, pod in pods(rendered[name]).items():
        secured = pod["securityContext"]
        assert secured["runAsNonRoot"] is True, at
        assert secured["runAsUser"] > 0, at
        assert secured["seccompProfile"] == {"type": "RuntimeDefault"}, at
        assert not pod.get("hostNetwork"), at
        assert not pod.get("hostIPC"), at
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, at
            assert container["resources"]["limits"]["memory"], at
        assert not [v for v in pod.get("volumes", ()) if "hostPath" in v], at


@pytest.mark.parametrize("name", ["small", "production"])
def test_only_the_metering_agent_sees_the_host_and_of_the_driver_only_its_readings(rendered, name):
    found = pods(rendered[name])
    assert [at for at, pod in found.items() if pod.get("hostPID")] == ["DaemonSet/shisuan-meter"]
    agent = found["DaemonSet/shisuan-meter"]
    assert {"key": "shisuan.io/managed", "operator": "Exists"} in agent["tolerations"]
    (container,) = agent["containers"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environment["NVIDIA_DRIVER_CAPABILITIES"] == "utility"
    others = [c for pod in found.values() for c in containers(pod) if c is not container]
    assert not [e for c in others for e in c["env"] if e["name"].startswith("NVIDIA_")]


@pytest.mark.parametrize("name", VALUES)
def test_commands_are_programs_of_ours_with_options_they_have(rendered, name):
    for pod in pods(rendered[name]).values():
        for container in containers(pod):
            command = [*container["command"], *container.get("args", ())]
            assert command[:3] == ["python", "-P", "-m"]
            assert importlib.util.find_spec(command[3]) is not None
            if command[3] in PARSERS:
                PARSERS[command[3]]().parse_args(command[4:])
            else:
                assert command[4:] == []


@pytest.mark.parametrize("name", VALUES)
def test_mounts_have_volumes_and_volumes_are_mounted(rendered, name):
    for at, pod in pods(rendered[name]).items():
        volumes = [volume["name"] for volume in pod.get("volumes", ())]
        mounted = {mount["name"] for c in containers(pod) for mount in c.get("volumeMounts", ())}
        assert sorted(volumes) == sorted(mounted), at


@pytest.mark.parametrize("name", ["small", "production"])
def test_the_configuration_is_one_the_service_takes(rendered, tmp_path, name):
    (config,) = (o for o in rendered[name] if o["kind"] == "ConfigMap" and "park.yaml" in o["data"])
    file = tmp_path / "park.yaml"
    file.write_text(config["data"]["park.yaml"])
    assert read_config(str(file)).tenants
    file.write_text(config["data"]["park.yaml"] + "tenant: 7\n")
    with pytest.raises(InvalidInput):
        read_config(str(file))


def test_selectors_meet_the_pods_they_are_for(rendered):
    objects = [o for o in rendered["production"] if o["kind"] != "Service"]
    objects += [o for o in rendered["small"] if o["kind"] == "Service"]  # in production the leader says where it leads
    labels = {
        thing["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]: thing["spec"]["template"]
        for thing in objects
        if "template" in thing.get("spec", {})
    }
    selectors = {
        "Service": lambda spec: spec["selector"],
        "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
        "NetworkPolicy": lambda spec: spec["podSelector"]["matchLabels"],
        "PodMonitor": lambda spec: spec["selector"]["matchLabels"],
        "Deployment": lambda spec: spec["selector"]["matchLabels"],
        "DaemonSet": lambda spec: spec["selector"]["matchLabels"],
    }
    checked = 0
    for thing in objects:
        if thing["kind"] in selectors:
            selector = selectors[thing["kind"]](thing["spec"])
            component = "meter" if thing["metadata"]["name"].endswith("meter") else "control-plane"
            assert selector.items() <= labels[component]["metadata"]["labels"].items(), thing["kind"]
            checked += 1
    assert checked == 7
    (monitor,) = (thing for thing in objects if thing["kind"] == "ServiceMonitor")
    (service,) = (thing for thing in objects if thing["kind"] == "Service")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in service["spec"]["ports"]}


def test_with_election_a_new_pod_is_warm_before_an_old_one_ends_and_the_leader_says_where_the_service_leads(rendered):
    objects = rendered["production"]
    (deployment,) = (o for o in objects if o["kind"] == "Deployment")
    (service,) = (o for o in objects if o["kind"] == "Service")
    assert "selector" not in service["spec"]
    assert not [o for o in objects if o["kind"] == "PersistentVolumeClaim"]
    assert deployment["spec"]["replicas"] == 2
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert deployment["spec"]["strategy"] == rolling
    pod = deployment["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is True
    (container,) = pod["containers"]
    asked = arguments.settings(arguments.parser().parse_args(container["args"]))
    assert (asked.elect, asked.lease_s, asked.publish) == ("park/shisuan", 8, service["metadata"]["name"])
    assert asked.port == container["ports"][0]["containerPort"]
    assert [port["name"] for port in service["spec"]["ports"]] == ["http", "gateway"]
    (key,) = (mount for mount in container["volumeMounts"] if mount["name"] == "operator-key")
    assert asked.operator_key == f"{key['mountPath']}/key"
    assert container["readinessProbe"]["httpGet"]["path"] == WARM
    assert {POD, POD_IP} <= {entry["name"] for entry in container["env"]}
    (home,) = (volume for volume in pod["volumes"] if volume["name"] == "home")
    assert "emptyDir" in home
    (budget,) = (o for o in objects if o["kind"] == "PodDisruptionBudget")
    assert budget["spec"]["maxUnavailable"] == 1


def test_migrations_run_first_and_only_where_there_is_a_server_to_migrate(rendered):
    assert not [o for o in rendered["minimal"] if o["kind"] == "Job"]
    (job,) = (o for o in rendered["small"] if o["kind"] == "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (variable,) = container["env"]
    assert variable["name"] == "SHISUAN_DATABASE_URL"
    assert variable["valueFrom"]["secretKeyRef"] == {"name": "shisuan-database", "key": "url"}


@pytest.mark.parametrize("name", VALUES)
def test_no_secret_is_rendered(rendered, name):
    assert "Secret" not in {thing["kind"] for thing in rendered[name]}
    assert "password" not in yaml.safe_dump_all(rendered[name]).lower()
