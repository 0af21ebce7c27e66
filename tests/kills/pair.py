"""Two services on one PostgreSQL and one API server, jobs that come in all the time, and a way to harm the leader."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import yaml

from benchmarks.installation import wait_for
from scheduler import wiring
from scheduler.model.lease import AttemptState
from scheduler.store import open_store
from tests.kills.links import Link
from tests.kube_server import free_ports, kubeconfig

ROOT = Path(__file__).parents[2]
KEY = "sk-failover-tests-use-this-operators-key"
LEASE = ("park", "shisuan")
JOB = """apiVersion: shisuan/v1
kind: Pipeline
name: NAME
steps:
  - {name: frames, kind: CommandJob, resources: {cpus: 1, memory: 64MiB, accelerators: H100:1}, array: 0-2, run: "true"}
"""
GANG = """  - name: gang
    kind: CommandJob
    num_nodes: 2
    needs: [frames]
    resources: {cpus: 1, memory: 64MiB, accelerators: H100:1}
    run: "true"
"""
FAULTS = ("kill", "pause", "api refuses", "api is silent", "database refuses", "database is silent", "cut off", "stop")
FINAL = ("succeeded", "failed", "cancelled")


class Replica:
    """One of the two: its home, its ways to the API server and to the database, and its present process."""

    def __init__(self, name, folder, port, database_url, api_url):
        self.name, self.pid = name, 0
        self.home = folder / name
        self.home.mkdir()
        self.log = folder / f"{name}.log"
        self.url = f"http://127.0.0.1:{port}"
        self._http = httpx.Client(timeout=0.5, trust_env=False)
        api = urlsplit(api_url)
        self.api = Link(("127.0.0.1", 0), (api.hostname, api.port))
        # Not in the test's folder: names of unix sockets are short.
        server = parse_qs(urlsplit(database_url).query)["host"][0]
        self.database = Link(f"{server}/.s.PGSQL.{port}", f"{server}/.s.PGSQL.5432")
        self.database_url = f"{database_url}&port={port}"
        config = folder / f"{name}.kubeconfig"
        config.write_text(yaml.safe_dump(kubeconfig(f"http://127.0.0.1:{self.api.entry[1]}")), encoding="utf-8")
        self.arguments = [
            f"--home={self.home}", f"--port={port}", f"--database={self.database_url}", f"--kubeconfig={config}",
            f"--elect={'/'.join(LEASE)}", f"--operator-key={folder / 'key'}",
            f"--config={folder / 'park.yaml'}",
        ]  # fmt: skip

    @property
    def lives(self):
        return self.pid > 0 and _lives(self.pid)

    def ask(self, path):
        """Status of a probe; 0: no answer."""
        try:
            return self._http.get(self.url + path).status_code
        except httpx.HTTPError:
            return 0

    def send(self, number):
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def heal(self):
        for link in (self.api, self.database):
            link.heal()

    def close(self):
        self.send(signal.SIGCONT)
        self.send(signal.SIGKILL)
        for link in (self.api, self.database):
            link.close()


class Pair:
    """All of it. Whoever has died is started again whenever somebody waits, as a cluster would do."""

    def __init__(self, folder, database_url, api_url, *, lease_s=2):
        self.folder, self.lease_s, self.database_url = folder, lease_s, database_url
        (folder / "key").write_text(KEY, encoding="utf-8")
        (folder / "films").mkdir()
        park = {"tenants": [{"name": "default", "roots": [str(folder / "films")]}]}
        (folder / "park.yaml").write_text(yaml.safe_dump(park), encoding="utf-8")
        ports = free_ports(2)
        yard = str(Path(parse_qs(urlsplit(database_url).query)["host"][0]) / f"yard{ports[0]}")
        self.children = [self._python("tests.kills.yard", yard)]
        wait_for("the yard", lambda: _connects(yard), deadline_s=60)
        self.children.append(
            self._python("tests.kills.replica", yard, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        self._forker = self.children[1]
        self._forker.stdout.readline()
        self._yard = socket.socket(socket.AF_UNIX)
        self._yard.connect(yard)
        self._said = self._yard.makefile("rb")
        self.replicas = [
            Replica(name, folder, port, database_url, api_url) for name, port in zip("ab", ports, strict=True)
        ]
        self.accepted = {}
        """Ids of the jobs the API has taken, and their names."""
        self.ended = set()
        self._looked_at = set()
        self.held_back = ()
        """Who is not started again for now."""
        self._submitted = 0
        self._load = None
        self._pouring = threading.Event()
        self.refused = ""
        self._client = httpx.Client(headers={"Authorization": f"Bearer {KEY}"}, timeout=2.0, trust_env=False)

    def _python(self, module, *arguments, **more):
        return subprocess.Popen([sys.executable, "-m", module, *arguments], cwd=ROOT, **more)

    def close(self):
        self._pouring.clear()
        for replica in self.replicas:
            replica.close()
        self._yard.close()
        for child in self.children:
            child.kill()
            child.wait()

    # ── processes ────────────────────────────────────────────────────────────────────────────────────────────────

    def keep(self):
        """Start whoever has ended."""
        for replica in self.replicas:
            if not replica.lives and replica not in self.held_back:
                line = [str(replica.log), *replica.arguments, f"--lease-seconds={self.lease_s}"]
                self._forker.stdin.write(json.dumps(line) + "\n")
                self._forker.stdin.flush()
                replica.pid = int(self._forker.stdout.readline())

    def leader(self):
        """Who serves now; None: nobody."""
        self.keep()
        return next((replica for replica in self.replicas if replica.ask("/readyz") == 200), None)

    def wait_leader(self, deadline_s=60):
        return wait_for("a leader", self.leader, deadline_s=deadline_s, every_s=0.02)

    def wait(self, what, condition, deadline_s=60, every_s=0.02):
        def kept():
            self.keep()
            assert not self.refused, self.refused
            return condition()

        try:
            return wait_for(what, kept, deadline_s=deadline_s, every_s=every_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    def logs(self):
        """The ends of what both have said."""
        files = [file for r in self.replicas for file in (r.log, r.home / "logs" / "service.log") if file.exists()]
        return "\n".join(f"{f}:\n" + "\n".join(f.read_text("utf-8").splitlines()[-12:]) for f in files)

    def yard(self):
        """What the workers have counted."""
        assert self.children[0].poll() is None, "the yard has ended: see what it wrote"
        self._yard.sendall(b'{"report": 1}\n')
        return json.loads(self._said.readline())

    # ── jobs ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def pour(self, every_s=0.05):
        """Submit without end, one job after the other, each until it is accepted. Harmless twice."""
        if self._pouring.is_set():
            return
        self._pouring.set()
        self._load = threading.Thread(target=self._submit_all, args=(every_s,), daemon=True)
        self._load.start()

    def stop_pouring(self):
        """The job that is being submitted is accepted first."""
        self._pouring.clear()
        self.wait("the last submission to be accepted", lambda: not self._load.is_alive())

    def _submit_all(self, every_s):
        try:
            self._submit_each(every_s)
        except BaseException as error:
            self.refused = repr(error)
            raise

    def _submit_each(self, every_s):
        while self._pouring.is_set() and not self.refused:
            self._submitted += 1
            name = f"job-{self._submitted}"
            text = JOB + (GANG if self._submitted % 3 == 0 else "")
            body = {"file": text.replace("NAME", name), "request_id": name}
            while not self.refused and not self._is_accepted(name, body):
                time.sleep(0.02)
            time.sleep(every_s)

    def _is_accepted(self, name, body):
        for replica in self.replicas:
            try:
                answer = self._client.post(f"{replica.url}/v1/jobs", json=body)
            except httpx.HTTPError:
                continue
            if answer.is_success:
                self.accepted[answer.json()["id"]] = name
                return True
            if answer.status_code < 500:
                self.refused = f"{name}: {answer.status_code} {answer.text}"
        return False

    def all_ended(self):
        """Whether every accepted job has ended; they must have succeeded."""
        leader = self.leader()
        if leader is None:
            return False
        for job_id in [job_id for job_id in self.accepted if job_id not in self.ended]:
            job = self._client.get(f"{leader.url}/v1/jobs/{job_id}")
            job.raise_for_status()
            state = job.json()["state"]
            if state not in FINAL:
                return False
            assert state == "succeeded", job.json()
            self.ended.add(job_id)
        return True

    def lost_attempts(self):
        """Attempts that did not end well: workers never fail here, so every task needs exactly one."""
        store = open_store(self.database_url)
        try:
            found = [a for job_id in self.ended - self._looked_at for a in store.attempts(job_id)]
        finally:
            store.close()
        self._looked_at |= self.ended
        return [a.id for a in found if a.state is not AttemptState.SUCCEEDED or a.number != 1]

    # ── harm ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @staticmethod
    def harm(fault, victim):
        """What happens to the leader."""
        match fault:
            case "kill":
                victim.send(signal.SIGKILL)
            case "stop":
                victim.send(signal.SIGTERM)
            case "pause":
                victim.send(signal.SIGSTOP)
            case "api refuses" | "api is silent":
                victim.api.cut(swallow=fault.endswith("silent"))
            case "database refuses" | "database is silent":
                victim.database.cut(swallow=fault.endswith("silent"))
            case "cut off":
                victim.api.cut(swallow=True)
                victim.database.cut(swallow=True)
            case _:
                raise ValueError(fault)

    def verify(self):
        """The journal gives the tables, the ledger, and every device's time; services may run, but must be at rest."""
        return wiring.verify(wiring.Settings(home=str(self.folder / "none"), database_url=self.database_url))


def _lives(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def _connects(path):
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
        return True
