"""A real Kubernetes API server for the contract suite: ``etcd`` and ``kube-apiserver`` on loopback, or one that runs.

``KUBEBUILDER_ASSETS`` names a folder with both programs (``setup-envtest`` of controller-runtime fetches it, and
``tests/contract/kube/build_api_server.sh`` builds it). In place of ``kube-apiserver`` there may be
``apiextensions-apiserver``, the part of it that serves CustomResourceDefinitions and nothing else. They run from a
temporary folder with certificates of their own and leave nothing behind. No controllers and no kubelets run.
"""

import contextlib
import datetime
import ipaddress
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOST = "127.0.0.1"
WHOLE, CUSTOM_ONLY = "kube-apiserver", "apiextensions-apiserver"
READY_S = 60.0
VALID = datetime.timedelta(days=2)


class NoServer(Exception):
    """Why there is no real server to test against."""


def assets(environ: Mapping[str, str] = os.environ) -> tuple[Path, str]:
    """The folder with the programs, and the name of the server in it. Raises NoServer."""
    named = environ.get("KUBEBUILDER_ASSETS", "")
    if not named:
        raise NoServer(
            "set KUBEBUILDER_ASSETS to a folder with etcd and kube-apiserver, or KUBECONFIG to a test cluster's"
        )
    there = [name for name in ("etcd", WHOLE, CUSTOM_ONLY) if os.access(Path(named) / name, os.X_OK)]
    servers = [name for name in there if name != "etcd"]
    missing = [*(["etcd"] if "etcd" not in there else []), *([WHOLE] if not servers else [])]
    if missing:
        raise NoServer(f"KUBEBUILDER_ASSETS={named}: no program {' and no '.join(missing)} there")
    return Path(named), servers[0]


def definitions(named: str) -> list[dict[str, Any]]:
    """The CustomResourceDefinitions of a YAML file, or of a folder's files. Raises NoServer."""
    path = Path(named)
    if not named or not path.exists():
        raise NoServer(f"CRDS={named}: name the file or folder with KubeRay's CustomResourceDefinitions")
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    documents = [d for file in files for d in yaml.load_all(file.read_bytes(), yaml.CSafeLoader) if d]
    found = [d for d in documents if d.get("kind") == "CustomResourceDefinition"]
    if not {d["metadata"]["name"] for d in found} >= {"rayclusters.ray.io", "rayjobs.ray.io"}:
        raise NoServer(f"CRDS={named}: it does not define rayclusters.ray.io and rayjobs.ray.io")
    return found


class Certificates:
    """Throw-away ones: an authority, the server's, a client's in ``system:masters``, and keys for service accounts."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.ca, self.server, self.client = (folder / f"{name}.crt" for name in ("ca", "server", "client"))
        self.accounts = folder / "accounts.key"
        authority, key = self._made("shisuan-test-ca", folder / "ca")
        usage = ExtendedKeyUsageOID
        self._made("kube-apiserver", folder / "server", authority, key, usage=usage.SERVER_AUTH)
        self._made("shisuan-test", folder / "client", authority, key, usage=usage.CLIENT_AUTH, group="system:masters")
        _write(self.accounts, rsa.generate_private_key(public_exponent=65537, key_size=2048))

    @staticmethod
    def _made(
        name: str, path: Path, authority: Any = None, signer: Any = None, *, usage: Any = None, group: str = ""
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        parts = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
        parts += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name(parts)
        draft = (
            x509.CertificateBuilder(subject_name=subject, issuer_name=authority.subject if authority else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + VALID)
            .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        )
        if usage is not None:
            draft = draft.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if usage is ExtendedKeyUsageOID.SERVER_AUTH:
            names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(HOST))]
            draft = draft.add_extension(x509.SubjectAlternativeName(names), critical=False)
        made = draft.sign(signer or key, hashes.SHA256())
        path.with_suffix(".crt").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        _write(path.with_suffix(".key"), key)
        return made, key


def _write(path: Path, key: Any) -> None:
    form, plain = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))


def etcd_command(programs: Path, folder: Path, client: int, peer: int) -> list[str]:
    """How etcd is started, listening on loopback at these ports."""
    to_clients, to_peers = f"http://{HOST}:{client}", f"http://{HOST}:{peer}"
    return [
        str(programs / "etcd"),
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={to_clients}",
        f"--advertise-client-urls={to_clients}",
        f"--listen-peer-urls={to_peers}",
        f"--initial-advertise-peer-urls={to_peers}",
        f"--initial-cluster=default={to_peers}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def server_command(programs: Path, folder: Path, certificates: Certificates, etcd: int, port: int) -> list[str]:
    """How kube-apiserver is started. Pods need no service account: no controller makes any."""
    return [
        str(programs / WHOLE),
        *_common(folder, certificates, etcd, port),
        f"--advertise-address={HOST}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={certificates.accounts}",
        f"--service-account-signing-key-file={certificates.accounts}",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--authorization-mode=RBAC",
        "--disable-admission-plugins=ServiceAccount",
    ]


def custom_only_command(programs: Path, folder: Path, certificates: Certificates, etcd: int, port: int) -> list[str]:
    """How apiextensions-apiserver is started. What it would ask a whole server, it asks itself, in vain."""
    itself = folder / "itself"
    itself.write_text(yaml.safe_dump(kubeconfig(f"https://{HOST}:{port}", certificates=certificates)), encoding="utf-8")
    plugins = ("NamespaceLifecycle", *(f"{what}AdmissionWebhook" for what in ("Mutating", "Validating")))
    return [
        str(programs / CUSTOM_ONLY),
        *_common(folder, certificates, etcd, port),
        *(f"--{what}kubeconfig={itself}" for what in ("", "authentication-", "authorization-")),
        "--authentication-skip-lookup",
        "--enable-priority-and-fairness=false",
        f"--disable-admission-plugins={','.join(plugins)},MutatingAdmissionPolicy,ValidatingAdmissionPolicy",
    ]


def _common(folder: Path, certificates: Certificates, etcd: int, port: int) -> list[str]:
    return [
        f"--etcd-servers=http://{HOST}:{etcd}",
        f"--bind-address={HOST}",
        f"--secure-port={port}",
        f"--cert-dir={folder / 'unused'}",
        f"--tls-cert-file={certificates.server}",
        f"--tls-private-key-file={certificates.server.with_suffix('.key')}",
        f"--client-ca-file={certificates.ca}",
    ]


def kubeconfig(url: str, *, token: str = "", certificates: Certificates | None = None) -> dict[str, Any]:
    """A kubeconfig of one server and one user."""
    cluster: dict[str, str] = {"server": url}
    user: dict[str, str] = {"token": token} if token else {}
    if certificates is not None:
        cluster["certificate-authority"] = str(certificates.ca)
        key = str(certificates.client.with_suffix(".key"))
        user |= {"client-certificate": str(certificates.client), "client-key": key}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": user}],
    }


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]


class KubeServer:
    """Both programs, started; ``kubeconfig`` is the file to reach them with. Raises NoServer."""

    def __init__(self) -> None:
        programs, server = assets()
        command = server_command if server == WHOLE else custom_only_command
        self.folder = Path(tempfile.mkdtemp(prefix="shisuan-kube-"))
        self._running: list[subprocess.Popen[bytes]] = []
        try:
            certificates = Certificates(self.folder / "pki")
            client, peer, port = free_ports(3)
            self._start("etcd", etcd_command(programs, self.folder, client, peer))
            self._start(server, command(programs, self.folder, certificates, client, port))
            url = f"https://{HOST}:{port}"
            self.kubeconfig = self.folder / "kubeconfig"
            self.kubeconfig.write_text(yaml.safe_dump(kubeconfig(url, certificates=certificates)), encoding="utf-8")
            # Services, which only a whole server has, are what a lone one waits for before it calls itself ready.
            self._wait(f"{url}/{'readyz' if server == WHOLE else 'livez'}", certificates)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop both, the server first, and remove the folder."""
        for process in reversed(self._running):
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            self._running.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder))

    def _wait(self, url: str, certificates: Certificates) -> None:
        context = ssl.create_default_context(cafile=str(certificates.ca))
        context.load_cert_chain(certificates.client, certificates.client.with_suffix(".key"))
        until = time.monotonic() + READY_S
        while time.monotonic() < until:
            ended = [process.args[0] for process in self._running if process.poll() is not None]
            if ended:
                raise NoServer(f"{ended[0]} ended at once: {self._log(Path(ended[0]).name)}")
            try:
                with urllib.request.urlopen(url, timeout=2, context=context):
                    return
            except OSError:
                time.sleep(0.2)
        server = Path(self._running[-1].args[0]).name
        raise NoServer(f"{server} was not ready within {READY_S:g} s: {self._log(server)}")

    def _log(self, name: str) -> str:
        text = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        return " | ".join(text.splitlines()[-3:])
