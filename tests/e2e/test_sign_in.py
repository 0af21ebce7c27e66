"""A real browser, a real service and an issuer: there, back, in, and out again."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml

from tests.e2e import chromium
from tests.fakes.issuer import AUDIENCE, CLIENT, SECRET, FakeIssuer

pytestmark = pytest.mark.browser

if not chromium.find():
    pytest.skip("no Chromium here: bin/setup test installs it when run as root", allow_module_level=True)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def issuer():
    made = FakeIssuer()
    made.now_s = int(time.time())
    yield made
    made.close()


@pytest.fixture
def url(issuer, tmp_path):
    """Of a service in a process of its own that believes the issuer."""
    where = f"http://127.0.0.1:{free_port()}"
    section = {"issuer": issuer.url, "audience": AUDIENCE, "client_id": CLIENT, "client_secret_file": "secret"}
    section |= {"redirect_url": f"{where}/sign-in/oidc/back", "label": "Park SSO"}
    (tmp_path / "secret").write_text(SECRET, encoding="utf-8")
    config = tmp_path / "park.yaml"
    config.write_text(yaml.safe_dump({"tenants": [{"name": "studio-a"}], "oidc": section}), encoding="utf-8")
    argv = [sys.executable, "-P", "-m", "tests.unit.api.serve", "--home", tmp_path / "home", "--config", config]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    process = subprocess.Popen([*argv, "--port", where.rpartition(":")[2]], env=environment)
    for _ in range(1_200):
        assert process.poll() is None, "the service ended"
        try:
            if httpx.get(f"{where}/healthz", trust_env=False).status_code == 200:
                break
        except httpx.TransportError:
            time.sleep(0.1)
    yield where
    process.terminate()
    process.wait(60)


def test_somebody_signs_in_works_with_a_token_and_signs_out(url, issuer, tmp_path):
    browser = chromium.Chromium(tmp_path, language="zh-CN")
    try:
        headers = {"Authorization": f"Bearer {issuer.token()}"}
        job = "apiVersion: shisuan/v1\nkind: CommandJob\nname: 片头\nrun: 'true'\n"
        made = httpx.post(f"{url}/v1/jobs", json={"file": job}, headers=headers, trust_env=False)
        assert made.status_code == 201, made.text
        browser.open(f"{url}/jobs/{made.json()['id']}")
        assert "使用 Park SSO 登录" in browser.text()
        browser.screenshot(tmp_path / "login.png")
        browser.run("document.querySelector('a.issuer').click()")
        browser.until("document.querySelector('.steps, .grid, #live') !== null && document.readyState === 'complete'")
        assert browser.run("location.pathname") == f"/jobs/{made.json()['id']}"
        assert "片头" in browser.text()
        assert browser.run("document.cookie") == "", "no script sees a cookie of ours"
        browser.run("document.querySelector('form[action=\"/sign-out\"]').submit()")
        browser.until("document.querySelector('a.issuer') !== null")
        assert not [line for line in browser.console if "401" not in line]
    finally:
        browser.close()
