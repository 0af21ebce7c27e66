"""The start of a real API server, as far as it can be looked at without one."""

import shutil
import ssl
import subprocess
import sys

import pytest

from tests.kube_server import (
    Certificates,
    KubeServer,
    NoServer,
    assets,
    custom_only_command,
    definitions,
    etcd_command,
    server_command,
)


def test_a_folder_without_the_programs_is_named(tmp_path):
    with pytest.raises(NoServer, match="KUBEBUILDER_ASSETS"):
        assets({})
    (tmp_path / "etcd").touch(mode=0o755)
    with pytest.raises(NoServer, match="no program kube-apiserver there"):
        assets({"KUBEBUILDER_ASSETS": str(tmp_path)})
    for server in ("apiextensions-apiserver", "kube-apiserver"):  # a whole one goes before
        (tmp_path / server).touch(mode=0o755)
        assert assets({"KUBEBUILDER_ASSETS": str(tmp_path)}) == (tmp_path, server)


def test_definitions_must_be_kuberays(tmp_path):
    for named in ("", str(tmp_path / "nothing"), str(tmp_path)):
        with pytest.raises(NoServer, match="CRDS="):
            definitions(named)


@pytest.mark.parametrize(("server", "places", "kept"), [(server_command, 6, 5), (custom_only_command, 5, 3)])
def test_the_commands_listen_on_loopback_only(tmp_path, server, places, kept):
    certificates = Certificates(tmp_path / "pki")
    commands = etcd_command(tmp_path, tmp_path, 1, 2) + server(tmp_path, tmp_path, certificates, 1, 3)
    options = dict(c.removeprefix("--").split("=", 1) for c in commands if c.startswith("--") and "=" in c)
    listening = [where for what, where in options.items() if {"listen", "bind", "advertise"} & set(what.split("-"))]
    assert len(listening) == places
    assert all("127.0.0.1" in where for where in listening)
    files = [where for where in options.values() if where.endswith((".crt", ".key"))]
    assert len(files) == kept
    assert all((tmp_path / f).exists() for f in files)


def test_the_certificates_let_the_client_and_nobody_else_in(tmp_path):
    certificates = Certificates(tmp_path / "pki")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificates.server, certificates.server.with_suffix(".key"))
    server.load_verify_locations(certificates.ca)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=str(certificates.ca))
    client.load_cert_chain(certificates.client, certificates.client.with_suffix(".key"))
    seen = dict(pair[0] for pair in handshake(server, client)["subject"])
    assert seen == {"commonName": "shisuan-test", "organizationName": "system:masters"}
    with pytest.raises(ssl.SSLError):
        handshake(server, ssl.create_default_context(cafile=str(certificates.ca)))


def handshake(server, client):
    """Both sides in memory; the client's certificate as the server sees it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    two = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(10):
        for side in (one, two):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return two.getpeercert()


def test_a_program_that_ends_at_once_is_told_with_its_last_words(tmp_path, monkeypatch):
    for name in ("etcd", "kube-apiserver"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'no disk left' >&2\nexit 1\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    with pytest.raises(NoServer, match="ended at once: no disk left"):
        KubeServer()


def test_the_suite_stops_with_a_sentence_where_there_is_no_server(tmp_path):
    env = {
        "PATH": "/usr/bin:/bin",
        "SHISUAN_KUBERNETES": "real",
        "SHISUAN_KUBERAY_CRDS": str(tmp_path),
        "HOME": str(tmp_path),
    }
    suite = "tests/contract/kube/test_api_server.py"
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-k", "scale", suite, "-p", "no:cacheprovider"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"CRDS={tmp_path}" in done.stdout + done.stderr
    shutil.rmtree(tmp_path, ignore_errors=True)
