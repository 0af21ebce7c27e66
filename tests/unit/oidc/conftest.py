"""A whole service that believes an issuer."""

import pytest
import yaml

from tests.fakes.issuer import AUDIENCE, CLIENT, SECRET, FakeIssuer
from tests.unit.api.conftest import Installation

PAGE = "https://shisuan.example"


@pytest.fixture(scope="module")
def issuer():
    made = FakeIssuer()
    yield made
    made.close()


@pytest.fixture(scope="module")
def service(issuer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("oidc")
    (folder / "client").write_text(SECRET + "\n", encoding="utf-8")
    section = {
        "issuer": issuer.url,
        "audience": AUDIENCE,
        "roles": {"artists": "tenant", "operators": "operator", "prometheus": "figures"},
        "client_id": CLIENT,
        "client_secret_file": "client",
        "redirect_url": f"{PAGE}/sign-in/oidc/back",
        "label": "Park SSO",
        "session": "2h",
    }
    config = folder / "park.yaml"
    config.write_text(yaml.safe_dump({"tenants": [{"name": "studio-a"}], "oidc": section}), encoding="utf-8")
    made = Installation(folder, config=str(config))
    yield made
    made.close()


@pytest.fixture(autouse=True)
def as_it_was(issuer):
    yield
    issuer.claims = {"sub": "alice", "tenant": "studio-a", "groups": ["artists"]}
    issuer.changes, issuer.says, issuer.status = {}, {}, 200
