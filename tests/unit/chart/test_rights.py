"""Roles are files/rights.yaml and nothing else, and its rows name what Kubernetes has."""

from collections import Counter

import pytest
import yaml

from tests.manifests import openapi
from tests.unit.chart.conftest import CHART

TABLE = yaml.safe_load((CHART / "files" / "rights.yaml").read_text("utf-8"))
KUBERAY = {"rayclusters", "rayjobs"}
"""Kinds of the operator whose objects the lanes are."""
PARTS = sorted({row["part"] for row in TABLE})
ROLES = {"ClusterRole": "cluster", "Role": "namespace"}


def granted(objects):
    """Every (scope, group, resource, verb) of the rendered roles."""
    return Counter(
        (ROLES[thing["kind"]], group, resource, verb)
        for thing in objects
        if thing["kind"] in ROLES
        for rule in thing["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


def wanted(parts):
    rows = [row for row in TABLE if row["part"] in parts]
    return Counter((row["scope"], row["group"], row["resource"], verb) for row in rows for verb in row["verbs"])


@pytest.mark.parametrize("parts", [[part] for part in PARTS] + [PARTS], ids="+".join)
def test_roles_grant_the_table_and_nothing_else(helm, parts):
    objects = helm.objects("--set", f"rbac.parts={{{','.join(parts)}}}")
    assert granted(objects) == wanted(parts)
    assert set(granted(objects).values()) == {1}
    bound = {
        o["roleRef"]["name"]: o for o in objects if o["kind"].endswith("RoleBinding") or o["kind"] == "RoleBinding"
    }
    assert set(bound) == {o["metadata"]["name"] for o in objects if o["kind"] in ROLES}
    for binding in bound.values():
        assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "shisuan", "namespace": "park"}]


MIG = "lanes.enabled=true,lanes.images.default=a,lanes.settings.mig_config_map.namespace=gpu-operator"


@pytest.mark.parametrize("name", ["default-mig-parted-config", "mine"])
def test_one_config_map_may_be_read_where_it_is_named_and_none_else(helm, name):
    more = f",lanes.settings.mig_config_map.name={name}" if name == "mine" else ""
    asked = ["--set", "rbac.parts={inventory,lanes}", "--set", MIG + ",lanes.settings.mig_config_map.use={half}" + more]
    role, binding = (o for o in helm.objects(*asked) if o["metadata"].get("namespace") == "gpu-operator")
    wanted = {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [name], "verbs": ["get"]}
    assert (role["kind"], role["rules"]) == ("Role", [wanted])
    assert (binding["kind"], binding["roleRef"]["kind"]) == ("RoleBinding", "Role")
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "shisuan", "namespace": "park"}]
    assert not [
        key for key in granted(helm.objects("--set", f"rbac.parts={{{','.join(PARTS)}}}")) if "configmaps" in key
    ]


def test_a_service_that_asks_the_api_nothing_has_no_rights_and_no_token(rendered):
    objects = rendered["minimal"]
    assert not granted(objects)
    (deployment,) = (o for o in objects if o["kind"] == "Deployment")
    assert deployment["spec"]["template"]["spec"]["automountServiceAccountToken"] is False


def test_rows_name_exact_verbs_of_resources_that_exist():
    assert [row for row in TABLE if "*" in (row["group"], row["resource"], *row["verbs"])] == []
    paths = openapi()["paths"]
    spelled = {"post": "create", "put": "update"}
    for row in TABLE:
        if row["group"] == "ray.io":
            assert row["resource"] in KUBERAY
            continue
        resource, _, sub = row["resource"].partition("/")
        root = f"/apis/{row['group']}/v1" if row["group"] else "/api/v1"
        found = [path for path in paths if path.startswith(root) and path.endswith(f"/{resource}")]
        found += [path for path in paths if path.startswith(root) and path.endswith(f"/{resource}/{{name}}")]
        if sub:
            found = [path for path in paths if path.startswith(root) and path.endswith(f"/{resource}/{{name}}/{sub}")]
        verbs = {spelled.get(method, method) for path in found for method in paths[path]} | {"list", "watch"}
        assert found, row
        assert set(row["verbs"]) <= verbs, row


def test_the_schema_offers_the_parts_of_the_table():
    schema = yaml.safe_load((CHART / "values.schema.json").read_text("utf-8"))
    assert sorted(schema["properties"]["rbac"]["properties"]["parts"]["items"]["enum"]) == PARTS
