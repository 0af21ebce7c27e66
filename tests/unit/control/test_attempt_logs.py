"""Logs whose machine is gone, and logs that are old."""

from dataclasses import replace
from pathlib import Path

import pytest

from scheduler.control.access import Caller
from scheduler.control.attempt_logs import AttemptLogs
from scheduler.control.dispatch import Dispatch
from scheduler.control.housekeeping import Housekeeping
from scheduler.control.log_rule import LogRule, kept_log
from scheduler.control.service import Service
from scheduler.model.errors import ExecutorError, Forbidden, InvalidInput, NotFound, StorageError
from scheduler.model.event import JobRetried, TenantSet
from scheduler.model.key import Role
from scheduler.model.lease import AttemptState
from scheduler.model.order import KeptFile, log_name
from scheduler.model.queue import Tenant
from scheduler.model.units import MS_PER_DAY
from tests.unit.control.world import World
from workers.kept_logs import PosixShelf
from workers.log_files import NodeLogs, StoredLogs

OWNER, OPERATOR = Caller(tenant="studio"), Caller(tenant="default", role=Role.OPERATOR)
RULE = LogRule(in_storage=True, keep_days=30)


class Park(World):
    """Attempts run in pods: ``pods_are_gone`` says that none of them answers."""

    def __init__(self, tmp_path):
        super().__init__(tmp_path)
        self.cycle._dispatch = Dispatch(self.tokens, token_ms=60_000, logs=RULE)
        kept = StoredLogs(str(tmp_path / "home"))
        self.service = Service(self.cycle, self.store, AttemptLogs(self.cycle, self.store, self, RULE, kept))
        self.answer = self.workers.read_log

    def read_log(self, *asked):
        return self.answer(*asked)

    def pods_are(self, error):
        def refuse(*_):
            raise error

        self.answer = refuse

    def print_into_storage(self, attempt, text):
        """What the agent would do."""
        order = next(o for o in self.workers.known.values() if o.tasks[0].attempt_id == attempt)
        PosixShelf(order.roots).put(log_name(order.tasks[0].kept_log, 0), 0, text.encode())

    def roots_are(self, *roots):
        self.record(TenantSet(at_ms=self.clock.now, tenant=Tenant(name="studio", storage_roots=roots)))

    def read(self, job="j1", **more):
        return self.service.logs(OWNER, job, **more)


@pytest.fixture
def park(tmp_path):
    park = Park(tmp_path)
    yield park
    park.close()


def begun(park, **more):
    job = park.submit(**more)
    park.turn(2)
    park.workers.begin(f"{job}.run.0.a1")
    park.turn()
    return job


def test_an_order_says_where_its_log_is_kept(park):
    park.roots_are("/other", "file:///studio", "/studio/deep")
    job = park.submit()
    with park.cycle.state() as engine:
        made = engine.job(job).job
    places = {out: RULE.place(("/other", "file:///studio", "/studio/deep"), made, out, f"{job}.run.0.a1")
              for out in ("", "/studio/x", "file:///studio/deep/x", "/studiox")}  # fmt: skip
    end = f".shisuan/logs/{job}@{made.submitted_ms}/run/0.a1"
    assert places == {
        "": f"/other/{end}",
        "/studio/x": f"file:///studio/{end}",
        "file:///studio/deep/x": f"/studio/deep/{end}",
        "/studiox": f"/other/{end}",
    }
    park.turn(2)
    order = next(iter(park.workers.known.values()))
    assert (order.tasks[0].kept_log, order.log_mib) == (f"/other/{end}", 64)
    assert LogRule().place(("/other",), made, "", f"{job}.run.0.a1") == "", "where nodes stay, logs stay on them"


def test_while_it_runs_the_pod_is_asked_and_storage_when_it_does_not_answer(park):
    begun(park)
    park.print_into_storage("j1.run.0.a1", "from storage\n")
    assert park.read()["text"] == "hello from j1.run.0.a1\n"
    for error in (NotFound("it went"), ExecutorError("no answer")):
        park.pods_are(error)
        seen = park.read()
        assert (seen["text"], seen["end"], seen["state"]) == ("from storage\n", False, "running")
        assert park.read(offset=5)["text"] == "storage\n"
        rest = park.read(offset=13)
        assert (rest["text"], rest["next_offset"], rest["end"]) == ("", 13, False)


def test_after_its_end_storage_tells_it_whatever_became_of_the_pod(park):
    job = begun(park)
    park.print_into_storage("j1.run.0.a1", "all of it\n")
    park.workers.finish("j1.run.0.a1", AttemptState.FAILED, message="exit code 3")
    park.turn()
    park.pods_are(NotFound("it went"))
    for again in range(2):
        seen = park.read(task="run.0", attempt=1)
        assert (seen["text"], seen["end"], seen["reason"], seen["note"]) == ("all of it\n", True, "exit code 3", "")
        if not again:
            park.roots_are("/elsewhere", str(park.root))
    assert park.job(job).job.tenant == "studio"
    with pytest.raises(NotFound):
        park.service.logs(Caller(tenant="rival"), job)


def test_what_never_printed_says_why(park):
    job = park.submit()
    park.turn(2)
    park.pods_are(NotFound("it went"))
    park.workers.finish(f"{job}.run.0.a1", AttemptState.LOST, message="Unschedulable: 0/3 nodes are available")
    park.turn()
    seen = park.read(task="run.0", attempt=1)
    assert (seen["text"], seen["end"]) == ("", True)
    assert seen["note"] == "j1.run.0.a1 did not begin, so it printed nothing"
    assert seen["reason"] == "Unschedulable: 0/3 nodes are available"


def test_storage_that_cannot_be_read_is_said_unless_the_pod_still_knows(park):
    begun(park)
    park.workers.finish("j1.run.0.a1", AttemptState.FAILED)
    park.turn()
    park.roots_are("gopher://x")
    assert park.read(task="run.0", attempt=1)["text"] == "hello from j1.run.0.a1\n"
    park.pods_are(NotFound("it went"))
    with pytest.raises(StorageError, match="cannot be read here: no storage for 'gopher://x"):
        park.read(task="run.0", attempt=1)


# ── old ones ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def old_jobs(park):
    """Two jobs with a log each: one ended 31 days ago, one just now."""
    for ago_days in (31, 0):
        job = begun(park)
        park.print_into_storage(f"{job}.run.0.a1", f"{job}\n")
        park.workers.finish(f"{job}.run.0.a1", AttemptState.FAILED)
        park.turn()
        for number in (2, 3, 4):
            if not park.job(job).state.is_final:
                park.turn()
                park.workers.begin(f"{job}.run.0.a{number}")
                park.workers.finish(f"{job}.run.0.a{number}", AttemptState.FAILED)
                park.turn()
        assert park.job(job).state.is_final
        park.clock.now += ago_days * MS_PER_DAY
    return Housekeeping(park.cycle, RULE, StoredLogs(str(park.home.path / "home")))


def kept(park):
    return {p.read_text() for p in park.root.rglob("*.log")}


def test_logs_of_old_work_go_once_and_a_trial_takes_nothing(park):
    keeping = old_jobs(park)
    ended_ms = park.job("j1").finished_ms
    gone = [{"job_id": "j1", "tenant": "studio", "finished_ms": ended_ms, "files": 1, "bytes": 3}]
    trial = keeping.prune(OPERATOR, dry_run=True)
    assert (trial["dry_run"], trial["jobs"], trial["problems"]) == (True, gone, [])
    assert kept(park) == {"j1\n", "j2\n"}
    done = keeping.prune(OPERATOR)
    assert (done["files"], done["bytes"], done["jobs"]) == (1, 3, gone)
    assert kept(park) == {"j2\n"}
    again = Housekeeping(park.cycle, RULE, StoredLogs("/"))
    for one in (keeping, again):
        assert one.prune(OPERATOR)["jobs"] == []
    park.pods_are(NotFound("it went"))
    assert (
        park.read("j1", task="run.0", attempt=1)["note"]
        == "logs are kept for 30 days after a job's end; j1 ended before that"
    )
    assert park.read("j2", task="run.0", attempt=1)["text"] == "j2\n"


def test_work_that_began_again_meanwhile_keeps_its_logs(park):
    old_jobs(park)

    class Slow(StoredLogs):
        def of_job(self, job, roots):
            found = super().of_job(job, roots)
            if job.id == "j1" and park.job("j1").state.is_final:
                park.record(JobRetried(at_ms=park.clock.now, job_id="j1"))
            return found

    assert Housekeeping(park.cycle, RULE, Slow("/")).prune(OPERATOR)["jobs"] == []
    assert kept(park) == {"j1\n", "j2\n"}


def test_a_place_that_cannot_be_reached_is_said_and_tried_again(park):
    keeping = old_jobs(park)
    park.roots_are("gopher://x", str(park.root))
    (problem,) = keeping.prune(OPERATOR)["problems"]
    assert problem.startswith("no storage for 'gopher://x")
    park.roots_are(str(park.root))
    assert keeping.prune(OPERATOR)["files"] == 1


def test_a_rule_is_needed_and_an_operator(park):
    keeping = Housekeeping(park.cycle, replace(RULE, keep_days=0), StoredLogs("/"))
    with pytest.raises(InvalidInput, match="keep_days: logs are kept for ever here"):
        keeping.prune(OPERATOR)
    with pytest.raises(InvalidInput, match="must be from 1 to 36500"):
        keeping.prune(OPERATOR, keep_days=-1)
    with pytest.raises(Forbidden):
        keeping.prune(OWNER, keep_days=1)
    assert keeping.prune(OPERATOR, keep_days=1)["jobs"] == []
    keeping.run()  # without a rule it has nothing to do


def test_logs_on_nodes_are_those_of_this_job_of_this_tenant(park, tmp_path):
    job = park.submit()
    with park.cycle.state() as engine:
        made = engine.job(job).job
    names = {"n1/studio/logs/j1.run.0.a1.log", "n2/studio/logs/j1.run.0.a1.r1.log"}
    others = {"n1/studio/logs/j10.run.0.a1.log", "n1/rival/logs/j1.run.0.a1.log", "n1/studio/table.log"}
    nodes = tmp_path / "home" / "nodes"
    for name in names | others:
        (nodes / name).parent.mkdir(parents=True, exist_ok=True)
        (nodes / name).write_text("four")
    logs = NodeLogs(str(tmp_path / "home"))
    found = logs.of_job(made, ())
    assert set(found) == {KeptFile(uri=str(nodes / name), size=4) for name in names}
    for file in found * 2:
        logs.remove(file, ())
    assert {str(p.relative_to(nodes)) for p in nodes.rglob("*.log")} == others
    assert kept_log("/r/", made, "j1.run.0.a1") == f"/r/.shisuan/logs/j1@{made.submitted_ms}/run/0.a1"
    assert Path(found[0].uri).name == "j1.run.0.a1.log"
