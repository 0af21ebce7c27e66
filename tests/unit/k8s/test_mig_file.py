"""The MIG configurations are those of the GPU Operator's ConfigMap, where that is named."""

import pytest
import yaml

from scheduler import lanes
from scheduler.control.bootstrap import read_config
from scheduler.control.clock import SystemClock
from scheduler.control.lanes import KubernetesConfig
from scheduler.control.settings import Settings
from scheduler.model.errors import InvalidInput
from tests.fakes.kube.server import FakeKubernetes
from tests.kube_server import kubeconfig
from tests.unit.k8s.test_lanes_service import LEAST, Store

FILE = """
version: v1
mig-configs:
  all-disabled:
    - devices: all
      mig-enabled: false
  all-1g.10gb:
    - device-filter: ["0x233110DE", "0x233010DE"]
      devices: all
      mig-enabled: true
      mig-devices:
        "1g.10gb": 7
  half:
    - {devices: [0, 1], mig-enabled: false}
    - {devices: [2, 3], mig-enabled: true, mig-devices: {"3g.40gb": 2}}
  odd:
    - {devices: all, mig-enabled: true, mig-devices: {"9g.10gb": 1}}
  none: []
"""
AT = "kubernetes.mig_config_map"


@pytest.fixture(scope="module")
def double():
    with FakeKubernetes() as double:
        double.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gpu-operator"}})
        yield double


def started(double, folder, **told):
    """What a service with this section of its configuration takes for MIG configurations."""
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(kubeconfig(double.url)), encoding="utf-8")
    config = KubernetesConfig.model_validate(LEAST | {"mig_config_map": {"namespace": "gpu-operator", **told}})
    made = lanes.Lanes(Settings(home=str(folder), kubeconfig=str(path)), config, Store(), SystemClock())
    try:
        return made.executor.inventory._configs
    finally:
        made.executor.close()


def put(double, data, name="default-mig-parted-config"):
    double.put(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "gpu-operator"}, "data": data}
    )


def test_the_configurations_that_are_named_are_read_and_nothing_else_is_asked(double, tmp_path):
    put(double, {"config.yaml": FILE})
    before = len(double.seen)
    cut, off, half = started(double, tmp_path, use=["all-1g.10gb", "all-disabled", "half"])
    assert (cut.name, [(e.devices, e.profiles, e.mig_on) for e in cut.entries]) == (
        "all-1g.10gb",
        [(None, (("1g.10gb", 7),), True)],
    )
    assert (off.name, [(e.devices, e.profiles, e.mig_on) for e in off.entries]) == ("all-disabled", [(None, (), False)])
    assert (half.name, [e.devices for e in half.entries]) == ("half", [(0, 1), (2, 3)])
    seen = [(one.verb, one.resource, one.namespace, one.name) for one in double.seen[before:]]
    assert seen == [("get", "configmaps", "gpu-operator", "default-mig-parted-config")]


def test_another_name_and_key_may_be_said(double, tmp_path):
    put(double, {"mine.yaml": FILE}, name="custom")
    (off,) = started(double, tmp_path, name="custom", key="mine.yaml", use=["all-disabled"])
    assert off.name == "all-disabled"


USE = {"use": ["all-disabled"]}
WRONG = {
    "no ConfigMap": ({"name": "nobody", **USE}, None, AT, ["there is no ConfigMap gpu-operator/nobody"]),
    "no key": ({"key": "config.yml", **USE}, FILE, f"{AT}.key", ["'config.yml'", "did you mean 'config.yaml'?"]),
    "no YAML": (USE, "version: [", AT, ["is not YAML"]),
    "no configurations": (USE, "version: v1", AT, ["config.yaml of ConfigMap gpu-operator/def", "no mig-configs"]),
    "another version": (USE, FILE.replace("v1", "v2"), AT, ["of version 'v2'", "v1"]),
    "no such one": (
        {"use": ["half", "all-1g.10g"]}, FILE, f"{AT}.use[1]",
        ["'all-1g.10g'", "did you mean 'all-1g.10gb'?", "all-disabled"],
    ),
    "no profile of a card": (
        {"use": ["odd"]}, FILE, f"{AT}.use[0]", ["mig-configs.odd[0]", "no card has a MIG profile 9g.10gb; valid: 1g"],
    ),
    "no entries": ({"use": ["none"]}, FILE, f"{AT}.use[0]", ["mig-configs.none", "at least 1"]),
    "a field that we do not know": (
        USE, FILE.replace("mig-enabled: false\n", "mig-enabled: false\n      mig-device: {}\n", 1), f"{AT}.use[0]",
        ["mig-configs.all-disabled[0].mig-device", "did you mean 'mig-devices'?"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_had_is_said_with_the_field_and_what_is_valid(double, tmp_path, case):
    told, text, where, words = WRONG[case]
    if text is not None:
        put(double, {"config.yaml": text})
    with pytest.raises(InvalidInput) as refused:
        started(double, tmp_path, **told)
    (problem,) = refused.value.problems
    assert problem.pointer == where
    assert [word for word in words if word not in str(problem)] == [], str(problem)


def test_a_service_that_may_not_read_it_says_so(double, tmp_path):
    double.tokens.add("somebody's")
    try:
        with pytest.raises(
            InvalidInput, match=r"kubernetes\.mig_config_map: the service may not read ConfigMap gpu-op"
        ):
            started(double, tmp_path, use=["all-disabled"])
    finally:
        double.tokens.clear()


@pytest.mark.parametrize(
    ("section", "where", "words"),
    [
        ({"mig_config_map": {"namespace": "g", "use": []}}, f"{AT}.use", "at least 1"),
        ({"mig_config_map": {"use": ["a"]}}, f"{AT}.namespace", "required"),
        (
            {
                "mig_config_map": {"namespace": "g", "use": ["a"]},
                "mig_configs": {"a": [{"devices": "all", "mig-enabled": False}]},
            },
            "kubernetes",
            "mig_configs and mig_config_map exclude each other",
        ),
    ],
)  # fmt: skip
def test_a_mistake_in_the_section_points_at_its_field(tmp_path, section, where, words):
    path = tmp_path / "park.yaml"
    path.write_text(yaml.safe_dump({"kubernetes": LEAST | section}), encoding="utf-8")
    with pytest.raises(InvalidInput) as refused:
        read_config(str(path))
    (problem,) = refused.value.problems
    assert (problem.pointer, words in problem.message) == (where, True), str(problem)
