"""A double of one's own, and the product's door to it."""

import pytest
import yaml

from k8s.api import Api
from k8s.backoff import Backoff
from k8s.door import from_kubeconfig
from tests.fakes.kube.server import FakeKubernetes
from tests.farm import Reader
from tests.kube_executor import KubeSite, paper_node
from tests.kube_server import kubeconfig


@pytest.fixture
def double():
    with FakeKubernetes() as double:
        yield double


@pytest.fixture
def config(double, tmp_path):
    """The kubeconfig, as a function of the token it holds."""
    path = tmp_path / "kubeconfig"

    def write(token=""):
        path.write_text(yaml.safe_dump(kubeconfig(double.url, token=token)), encoding="utf-8")
        return str(path)

    write()
    return write


@pytest.fixture
def api(config):
    api = Api(from_kubeconfig(config()), backoff=Backoff(first_s=0.001, most_s=0.01), draw=lambda: 0.5)
    yield api
    api.close()


@pytest.fixture
def farm(tmp_path):
    """Two nodes of two cards; ``farm.reader()`` is a service, and the last one leads."""
    site = KubeSite(tmp_path, nodes=[paper_node(name, cpu="64", memory="64Gi", cards=2) for name in ("alpha", "beta")])
    site.readers = []

    def reader(**fields):
        made = Reader(site.connect(**fields))
        site.readers.append(made)
        return made

    site.reader = reader
    yield site
    for made in site.readers:
        made.executor.close()
    site.remove()
