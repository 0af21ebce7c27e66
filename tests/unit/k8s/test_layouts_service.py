"""The whole control plane on nodes that the GPU Operator cuts: jobs wait, a node drains, is cut anew, and they run."""

import html
import time
from dataclasses import replace

import pytest

from scheduler import wiring
from scheduler.control.settings import Home, Settings
from scheduler.model.policy import Policy
from scheduler.store import open_store
from scheduler.web.words import LANGUAGES, WORDS
from tests.fakes.kuberay.mig_manager import CUT, PENDING
from tests.kube_executor import SITE, KubeSite
from tests.mig_park import FILE, SMALL, WHOLE, asked, configs, mig_node
from tests.unit.api.conftest import TestClient
from tests.unit.control.world import new_database

pytestmark = pytest.mark.timeout(180)
POLICY = Policy(recut_every_ms=60_000)
JOB = (
    "apiVersion: shisuan/v1\nkind: CommandJob\nname: {name}\nrun: [sleep, '{s}']\narray: 0-{last}\n"
    "resources: {{cpus: 1, accelerators: '{cards}'}}\nexpected: {expected}\n"
)


def job(cards, *, tasks=1, s=0, expected="2h"):
    return JOB.format(name="j", cards=cards, last=tasks - 1, s=s, expected=expected)


class Installation:
    """A service on one node of two H100; another one may take its place."""

    def __init__(self, folder):
        site = replace(SITE, mig_configs=configs(), warm_ms=600_000)
        self.kube = KubeSite(folder, site=site, nodes=[mig_node("alpha")], mig_configs=FILE)
        self.home = Home.of(str(folder / "home"))
        self.home.prepare()
        self._settings = Settings(home=str(self.home.path), roots=(str(folder),))
        self.policy = POLICY
        self._begin()

    def _begin(self):
        self.store = open_store(new_database(self.home.path))
        self.executor = self.kube.connect()
        self.app, self.cycle, self.thread = wiring.build(self._settings, self.store, self.executor)
        self.cycle.policy = self.policy
        self.http = TestClient(self.app, client=("127.0.0.1", 5000), raise_server_exceptions=False)
        self.headers = {"Authorization": f"Bearer {self.home.key.read_text().strip()}"}

    def _end(self):
        self.cycle.stop()
        self.thread.join(10)
        self.executor.close()
        self.store.close()

    def replace(self):
        """Another service leads."""
        self._end()
        self._begin()

    def close(self):
        self._end()
        self.kube.remove()

    def get(self, path):
        return self.http.get(f"/v1{path}", headers=self.headers).json()

    def submit(self, text):
        answer = self.http.post("/v1/jobs", json={"file": text}, headers=self.headers)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def state(self, job_id):
        return self.get(f"/jobs/{job_id}")["state"]

    def node(self):
        (node,) = (node for node in self.get("/nodes")["nodes"] if node["name"] == "alpha")
        return node

    def until(self, condition):
        end = time.monotonic() + 60
        while not (found := condition()):
            assert time.monotonic() < end, f"it did not come; {self.kube.park.told()}; {self.node()}"
            time.sleep(0.01)
        return found


@pytest.fixture
def site(tmp_path):
    made = Installation(tmp_path)
    made.until(lambda: made.get("/nodes")["nodes"])
    yield made
    made.close()


def test_a_node_drains_is_cut_and_the_jobs_run_on_its_instances(site):
    """Half of it is held, and work that would hold it for longer comes behind: it is kept for who is next."""
    first = site.submit(job("H100:1", s=20, expected="1h"))
    site.until(lambda: site.state(first) == "running")
    small = site.submit(job("1g.10gb:1", tasks=4))
    late = site.submit(job("H100:1", s=1_000, expected="3h"))
    (wait,) = site.until(lambda: site.get(f"/jobs/{small}/explain")["waits"])
    assert f"node alpha is to be put into layout {SMALL}, which has MIG profile 1g.10gb" in str(wait["reasons"])
    assert site.state(late) == "waiting"
    assert asked(site.kube.park, "alpha")[0] == WHOLE
    site.until(lambda: site.state(first) == "succeeded")
    site.until(lambda: site.state(small) == "succeeded")
    (cut,) = site.node()["cuts"]
    assert (cut["card"], cut["layout"], cut["problem"], cut["ended_ms"] > cut["since_ms"]) == ("", SMALL, "", True)
    assert (site.node()["layout"], len(site.node()["devices"])) == (SMALL, 14)
    assert site.kube.park.mig.began == [("alpha", SMALL)]


def test_a_failed_cut_leaves_the_node_usable_and_the_operator_is_told_in_both_languages(site):
    site.kube.park.mig.fails.add(SMALL)
    small = site.submit(job("1g.10gb:1", tasks=4))
    (cut,) = site.until(lambda: [cut for cut in site.node()["cuts"] if cut["problem"]])
    assert f"could not apply {SMALL}" in cut["problem"]
    whole = site.submit(job("H100:2"))
    site.until(lambda: site.state(whole) == "succeeded")
    assert site.state(small) == "waiting"
    reader = TestClient(site.app)
    reader.post("/sign-in", data={"key": site.home.key.read_text().strip(), "back": "/"})
    for at, language in enumerate(LANGUAGES):
        page = html.unescape(reader.get("/", headers={"accept-language": language}).text)
        told = WORDS["cut_failed"][at].partition("{since}")[0].format(card=WORDS["all_cards"][at], layout=SMALL)
        assert told in page, language
        assert cut["problem"] in page


def test_another_leader_goes_on_with_a_cut_that_is_under_way(site):
    site.kube.park.mig.may = lambda _node, step: step != CUT
    small = site.submit(job("1g.10gb:1", tasks=4))
    site.until(lambda: asked(site.kube.park, "alpha")[1] == "pending")
    (before,) = site.node()["cuts"]
    site.replace()
    site.until(lambda: site.get("/nodes")["nodes"] and site.node()["state"] == "ready")
    site.kube.park.mig.may = lambda _node, _step: True
    site.until(lambda: site.state(small) == "succeeded")
    (after,) = site.node()["cuts"]
    assert (after["since_ms"], after["problem"]) == (before["since_ms"], "")
    assert site.kube.park.mig.began == [("alpha", SMALL)]


def test_what_nobody_begins_is_given_up_and_the_node_is_used_as_it_is(site):
    site.kube.park.mig.may = lambda _node, step: step != PENDING
    site.policy = replace(POLICY, relayout_limit_ms=500)
    site.replace()
    site.until(lambda: site.get("/nodes")["nodes"])
    small = site.submit(job("1g.10gb:1", tasks=4))
    (cut,) = site.until(lambda: [cut for cut in site.node()["cuts"] if cut["problem"]])
    assert "did not confirm" in cut["problem"]
    site.until(lambda: asked(site.kube.park, "alpha") == (WHOLE, None, None))
    whole = site.submit(job("H100:2"))
    site.until(lambda: site.state(whole) == "succeeded")
    assert site.state(small) == "waiting"
