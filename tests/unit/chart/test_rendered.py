"""``helm lint`` and ``helm template`` as users run them. ``SHISUAN_UPDATE_GOLDEN=1`` writes the golden files anew."""

import json
import os
import tomllib
from pathlib import Path

import pytest
import yaml

from scheduler.control.identity import OidcConfig
from scheduler.control.lanes import KubernetesConfig, S3Config
from tests.unit.chart.conftest import CHART, VALUES, containers, options, pods

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden" / "chart"


@pytest.mark.parametrize("name", VALUES)
def test_helm_finds_no_fault(helm, name):
    done = helm.run("lint", "--strict", CHART, *options(name))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout


@pytest.mark.parametrize("name", VALUES)
def test_manifests_are_the_golden_ones(helm, name):
    done = helm.template(*options(name))
    assert done.returncode == 0, done.stderr
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    text = "\n".join(line for line in lines if line) + "\n"
    golden = GOLDEN / f"{name}.yaml"
    if os.environ.get("SHISUAN_UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8"), f"{golden} differs: SHISUAN_UPDATE_GOLDEN=1 writes it anew"


ELECTED, POSTGRES = "controlPlane.election.enabled=true,controlPlane.replicas=2", "database.secret=d"
OPERATOR, LEADER = "controlPlane.operatorKey.secret=o", "rbac.parts={leader}"
WRONG = {
    "a misspelled section": (["controlPlan.replicas=1"], "controlPlan"),
    "a misspelled field": (["controlPlane.replica=1"], "/controlPlane"),
    "words for a number": (["controlPlane.replicas=two"], "/controlPlane/replicas"),
    "fewer than none": (["controlPlane.replicas=-1"], "/controlPlane/replicas"),
    "two services without election": (["controlPlane.replicas=2"], "controlPlane.replicas: more than one needs"),
    "an election over SQLite": ([ELECTED], "database.secret: controlPlane.election needs PostgreSQL"),
    "an election without a common key": ([ELECTED, POSTGRES], "controlPlane.operatorKey.secret: "),
    "an election without the right to it": ([ELECTED, POSTGRES, OPERATOR], "rbac.parts: controlPlane.election needs"),
    "an election without a common signature": (
        [ELECTED, POSTGRES, OPERATOR, LEADER, "controlPlane.config.feed.url=https://l.example/"],
        "controlPlane.config.feed.key_file: ",
    ),
    "an election with films in one pod": (
        [ELECTED, POSTGRES, OPERATOR, LEADER, "controlPlane.config.tenants[0].name=studio"],
        "controlPlane.config.tenants: studio: needs roots",
    ),
    "a Lease of no time": (["controlPlane.election.leaseSeconds=0"], "/controlPlane/election/leaseSeconds"),
    "a key file beside nothing": (["controlPlane.configSecret=feed"], "controlPlane.configSecret"),
    "less than no processors": (["controlPlane.tasks.cpus=-1"], "/controlPlane/tasks/cpus"),
    "a Secret's name with blanks": (["database.secret=my secret"], "/database/secret"),
    "no size": (["storage.home.size=plenty"], "/storage/home/size"),
    "a volume without a path": (["storage.claims[0].name=a,storage.claims[0].claim=b"], "/storage/claims/0"),
    "a relative path": (
        ["storage.claims[0].name=a,storage.claims[0].claim=b,storage.claims[0].path=films"], "/storage/claims/0/path",
    ),
    "a volume over the keys": (
        ["storage.claims[0].name=a,storage.claims[0].claim=b,storage.claims[0].path=/var/lib/shisuan/x"],
        "storage.claims: /var/lib/shisuan/x",
    ),
    "a store without a scheme": (["storage.s3.endpoint=minio:9000"], "/storage/s3/endpoint"),
    "a port that does not exist": (["service.port=70000"], "/service/port"),
    "an ingress for nobody": (["ingress.enabled=true,ingress.tlsSecret=t"], "/ingress/host"),
    "an ingress without TLS": (["ingress.enabled=true,ingress.host=a.example"], "/ingress/tlsSecret"),
    "a way to fetch images that does not exist": (["image.pullPolicy=Maybe"], "/image/pullPolicy"),
    "lanes without rights": (["lanes.enabled=true,lanes.images.default=a"], "rbac.parts: lanes.enabled needs the part"),
    "a ConfigMap nowhere": (["lanes.settings.mig_config_map.use={a}"], "/lanes/settings/mig_config_map"),
    "configurations of no name": (
        ["lanes.settings.mig_config_map.namespace=g,lanes.settings.mig_config_map.use={}"],
        "/lanes/settings/mig_config_map/use",
    ),
    "lanes without images": (["lanes.enabled=true,rbac.parts={inventory,lanes}"], "lanes.images"),
    "a certificate that nobody trusts": (
        ["lanes.enabled=true,rbac.parts={inventory,lanes},lanes.images.default=a,lanes.tls.secret=s"], "lanes.tls",
    ),
    "an issuer without a name": (["oidc.enabled=true,oidc.audience=a"], "/oidc/issuer"),
    "tokens for anybody": (["oidc.enabled=true,oidc.issuer=https://sso.example"], "/oidc/audience"),
    "an issuer that can be listened to": (["oidc.enabled=true,oidc.audience=a,oidc.issuer=http://sso"], "/oidc/issuer"),
    "an issuer said twice": (
        ["oidc.enabled=true,oidc.audience=a,oidc.issuer=https://s.example,controlPlane.config.oidc.issuer=x"],
        "controlPlane.config.oidc",
    ),
    "a sign-in that leads nowhere": (
        ["oidc.enabled=true,oidc.audience=a,oidc.issuer=https://s.example,oidc.clientId=c"], "oidc.clientId",
    ),
    "monitors without a key": (["monitoring.enabled=true"], "monitoring.key.secret"),
    "a part of the product that does not exist": (["rbac.parts={everything}"], "/rbac/parts/0"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_refused_and_the_field_is_named(helm, case):
    values, field = WRONG[case]
    done = helm.template(*(word for value in values for word in ("--set", value)))
    assert done.returncode != 0, done.stdout
    assert field in done.stderr.replace("at '", "").replace("'", ""), done.stderr


def test_an_s3_compatible_store_is_told_to_the_service_alone(helm):
    wanted = "storage.s3.endpoint=http://minio:9000,storage.s3.region=cn-1,storage.s3.secret=films,meter.enabled=true"
    found = {
        (box["name"], variable["name"]): variable.get("value") or variable["valueFrom"]["secretKeyRef"]
        for pod in pods(helm.objects("--set", wanted)).values()
        for box in containers(pod)
        for variable in box.get("env", ())
        if variable["name"].startswith("AWS_")
    }
    assert found == {
        ("service", "AWS_ENDPOINT_URL_S3"): "http://minio:9000",
        ("service", "AWS_REGION"): "cn-1",
        ("service", "AWS_ACCESS_KEY_ID"): {"name": "films", "key": "AWS_ACCESS_KEY_ID"},
        ("service", "AWS_SECRET_ACCESS_KEY"): {"name": "films", "key": "AWS_SECRET_ACCESS_KEY"},
    }


def test_the_lanes_pods_are_told_of_the_store_by_the_configuration(helm):
    wanted = "storage.s3.endpoint=http://minio:9000,storage.s3.secret=films,lanes.enabled=true,lanes.images.default=a"
    rendered = helm.objects("--set", wanted, "--set", "rbac.parts={inventory,lanes}")
    (text,) = (o["data"]["park.yaml"] for o in rendered if o["kind"] == "ConfigMap" and "park.yaml" in o["data"])
    said = KubernetesConfig.model_validate(yaml.safe_load(text)["kubernetes"])
    assert said.s3 == S3Config(endpoint="http://minio:9000", secret="films")


def test_the_issuer_is_told_to_the_service_by_the_configuration(rendered):
    objects = rendered["production"]
    (text,) = (o["data"]["park.yaml"] for o in objects if o["kind"] == "ConfigMap" and "park.yaml" in o["data"])
    said = OidcConfig.model_validate(yaml.safe_load(text)["oidc"])
    assert (said.issuer, said.client_id) == ("https://sso.park.example/realms/park", "shisuan-page")
    assert said.redirect_url == "https://shisuan.park.example/sign-in/oidc/back"
    service = pods(objects)["Deployment/shisuan"]
    (volume,) = (v for v in service["volumes"] if v["name"] == "oidc")
    (mount,) = (m for box in containers(service) for m in box["volumeMounts"] if m["name"] == "oidc")
    assert volume["secret"]["secretName"] == "shisuan-oidc"
    assert said.client_secret_file == f"{mount['mountPath']}/{volume['secret']['items'][0]['path']}"


def described(schema, pointer=""):
    """Every field of the schema, and whether it says what it means."""
    for name, field in schema.get("properties", {}).items():
        yield f"{pointer}/{name}", field
        yield from described(field, f"{pointer}/{name}")
        yield from described(field.get("items", {}), f"{pointer}/{name}/0")


def test_every_value_has_a_description_and_every_default_a_place_in_the_schema():
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    fields = dict(described(schema))
    assert [at for at, field in fields.items() if not field.get("description", "").endswith(".")] == []
    defaults = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    assert set(schema["properties"]) - {"global"} == set(defaults)


def test_the_chart_has_the_products_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["version"] == chart["appVersion"] == project["version"]
