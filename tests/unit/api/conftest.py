"""The whole service as one application over SQLite, with workers that finish whatever they are told."""

import warnings

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # httpx is what the CLI uses, too
    from starlette.testclient import TestClient

from scheduler import wiring
from scheduler.control.settings import Home, Settings
from scheduler.store import open_store
from tests.unit.control.world import NODE, FakeClock, Workers, new_database


class Installation:
    """Client, keys and workers of one service."""

    def __init__(self, tmp_path, config="", nodes=(NODE,)):
        self.home = Home.of(str(tmp_path / "home"))
        self.home.prepare()
        self.settings = Settings(home=str(self.home.path), config=config, roots=(str(tmp_path),))
        self.clock = FakeClock(1_800_000_000_000)
        self.store = open_store(new_database(self.home.path))
        self.workers = Workers(self.clock, nodes)
        self.app, self.cycle, self.thread = wiring.build(self.settings, self.store, self.workers, self.clock)
        self.http = TestClient(self.app, client=("127.0.0.1", 5000), raise_server_exceptions=False)
        self.operator = self.home.key.read_text().strip()
        self.workers.connect()
        self.cycle.call(lambda engine, now_ms: ((), None))

    def close(self):
        self.cycle.stop()
        self.thread.join(10)
        self.store.close()

    def settle(self):
        """Return when the cycle has taken in everything that was said before."""
        for _ in range(2):
            self.cycle.call(lambda engine, now_ms: ((), None))

    def finish(self, job_id):
        """Let the workers do all there is until the job is final; its last view."""
        for _ in range(50):
            self.workers.do_everything()
            self.settle()
            view = self.get(f"/jobs/{job_id}").json()
            if view["state"] in ("succeeded", "failed", "cancelled"):
                return view
        raise AssertionError(f"{job_id} did not end")

    def key(self, tenant, **more):
        """A new key of this tenant, which is made when it is not there yet."""
        if not any(t["name"] == tenant for t in self.get("/tenants").json()["tenants"]):
            self.call("PUT", f"/tenants/{tenant}", {})
        return self.call("POST", "/keys", {"tenant": tenant, **more}).json()["key"]

    def call(self, method, path, body=None, key=None, **more):
        headers = {"Authorization": f"Bearer {key or self.operator}"}
        return self.http.request(method, f"/v1{path}", json=body, headers=headers, **more)

    def get(self, path, key=None, **query):
        return self.call("GET", path, key=key, params=query)

    def post(self, path, body=None, key=None):
        return self.call("POST", path, body if body is not None else {}, key)

    def submit(self, text="kind: CommandJob\napiVersion: shisuan/v1\nname: hello\nrun: 'true'\n", key=None, **more):
        return self.post("/jobs", {"file": text, **more}, key)


@pytest.fixture
def service(tmp_path):
    made = Installation(tmp_path)
    yield made
    made.close()
