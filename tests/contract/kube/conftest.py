"""The server the suite runs on: the double, or with ``SHISUAN_KUBERNETES=real`` a real one."""

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from k8s.api import Api
from k8s.backoff import Backoff
from k8s.door import from_kubeconfig
from k8s.errors import AlreadyThere, KubernetesError
from k8s.resource import DEFINITIONS, ENDPOINT_SLICES, LEASES, NAMESPACES, RAY_CLUSTERS, RAY_JOBS
from tests.fakes.kube import kinds
from tests.fakes.kube.server import FakeKubernetes
from tests.kube_server import KubeServer, NoServer, definitions, kubeconfig

QUICK = Backoff(first_s=0.01, most_s=0.1)
REAL = os.environ.get("SHISUAN_KUBERNETES") == "real"
numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A server to test on, and what is special about it."""

    kubeconfig: Path
    double: FakeKubernetes | None = None

    def connect(self, **more) -> Api:
        return Api(from_kubeconfig(str(self.kubeconfig)), **{"backoff": QUICK, **more})


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    if REAL:
        yield from real_site()
        return
    with FakeKubernetes() as double:
        path = tmp_path_factory.mktemp("kube") / "kubeconfig"
        path.write_text(yaml.safe_dump(kubeconfig(double.url)), encoding="utf-8")
        made = Site(kubeconfig=path, double=double)
        serve(made, [kinds.crd("rayclusters"), kinds.crd("rayjobs")])
        yield made


def real_site():
    try:
        crds = definitions(os.environ.get("SHISUAN_KUBERAY_CRDS", ""))
        server = None if os.environ.get("KUBECONFIG") else KubeServer()
    except NoServer as reason:
        pytest.exit(str(reason), returncode=2)
    made = Site(kubeconfig=server.kubeconfig if server else Path(os.environ["KUBECONFIG"]))
    try:
        serve(made, crds)
        yield made
    finally:
        if server is not None:
            server.close()


def stand_in(resource):
    """The definition of a built-in kind whose group may be a custom one's, for a server that has custom kinds only."""
    version = {"name": resource.version, "served": True, "storage": True}
    version["schema"] = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "metadata": {
            "name": f"{resource.plural}.{resource.group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
        },
        "spec": {
            "group": resource.group,
            "names": {"plural": resource.plural, "kind": resource.kind},
            "scope": "Namespaced",
            "versions": [version],
        },
    }


def serve(site, crds):
    """Define KubeRay's kinds and wait until the server has them."""
    api = site.connect(backoff=Backoff(first_s=0.1, tries=60, most_s=1))
    built_in = () if api.serves(NAMESPACES) else (LEASES, ENDPOINT_SLICES)
    for definition in (*crds, *map(stand_in, built_in)):
        try:
            api.create(DEFINITIONS, definition)
        except AlreadyThere:
            continue
    for resource in (RAY_CLUSTERS, RAY_JOBS, *built_in):
        for _ in range(600):
            if api.serves(resource):
                break
        else:
            raise KubernetesError(f"{resource.plural} is not served")
    api.close()


@pytest.fixture(scope="session")
def shared_api(site):
    api = site.connect()
    yield api
    api.close()


@pytest.fixture
def api(shared_api):
    return shared_api


@pytest.fixture(autouse=True)
def kinds_needed(request):
    """Skip what is asked about kinds that this server does not have."""
    for mark in request.node.iter_markers("needs"):
        for resource in mark.args:
            if not request.getfixturevalue("api").serves(resource):
                pytest.skip(f"this API server has no {resource.plural} in {resource.api_version}")


@pytest.fixture
def namespace(api):
    """A namespace of the test's own."""
    name = f"shisuan-test-{os.getpid()}-{next(numbers)}"
    is_kept = api.serves(NAMESPACES)
    if is_kept:
        api.create(NAMESPACES, {"metadata": {"name": name}})
    yield name
    if is_kept:
        api.delete(NAMESPACES, name)


@pytest.fixture
def double(site):
    """Only for what cannot be brought about on a real server."""
    if site.double is None:
        pytest.skip("a real server cannot be made to do this")
    yield site.double
    site.double.faults.calm()
