"""The command against an API that the test writes: no service, no network, no wall clock."""

import json
import time
from dataclasses import dataclass, field

import httpx
import pytest

from scheduler.cli.main import run
from scheduler.cli.session import Session

NOW_MS = 1_763_812_800_000


def step(name="render", count=4, **counts):
    done = {"waiting": 0, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0, **counts}
    done["waiting"] = counts.get("waiting", count - sum(done.values()))
    milli = 1000 * done["succeeded"] // count
    return {
        "name": name,
        "kind": "render",
        "count": count,
        "ranks": 1,
        "needs": [],
        "progress_milli": milli,
        "message": "",
        **done,
    }


def job(state="running", steps=None, **more):
    steps = steps or [step()]
    return {
        "id": "j17", "name": "film", "kind": "RenderJob", "tenant": "studio", "queue": "default", "priority": 50,
        "state": state, "reason": "", "submitted_ms": NOW_MS - 65_000, "started_ms": NOW_MS - 60_000,
        "finished_ms": NOW_MS if state in ("succeeded", "failed", "cancelled") else 0, "deadline_ms": 0,
        "steps": steps, "progress_milli": 500, "attempts": [], "outputs": [], "after": [], "source": "", **more,
    }  # fmt: skip


def attempt(index=0, number=1, state="succeeded", name="render", **more):
    return {
        "id": f"j17.{name}.{index}.a{number}", "job_id": "j17", "step": name, "index": index, "number": number,
        "state": state, "node": "n1", "lease_id": f"l{index + 1}", "started_ms": NOW_MS - 50_000 + index,
        "finished_ms": NOW_MS - 40_000, "exit_code": 0, "reason": "", "outputs": [], "facts": "",
        "progress_milli": 1000, "message": "", **more,
    }  # fmt: skip


def error(kind, message, status):
    return httpx.Response(status, json={"error": {"kind": kind, "message": message, "problems": []}})


def stream(*snapshots):
    text = ": hello\n\n" + "".join(f"event: job\ndata: {json.dumps(one)}\n\n" for one in snapshots)
    return httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})


@dataclass
class Api:
    """``answers["GET /jobs"]`` is a value, a response, an exception, or a list of these taken in turn."""

    answers: dict = field(default_factory=dict)
    asked: list = field(default_factory=list)
    shown: list = field(default_factory=list)
    """Authorization headers."""

    def __call__(self, request):
        path = request.url.path.removeprefix("/v1")
        body = json.loads(request.content) if request.content else None
        self.shown.append(request.headers.get("Authorization", ""))
        self.asked.append((request.method, path, dict(request.url.params), body))
        answer = self.answers.get(f"{request.method} {path}", error("NotFound", f"no route {path}", 404))
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)

    def bodies(self, method, path):
        return [body for m, p, _, body in self.asked if (m, p) == (method, path)]


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def api():
    return Api()


@pytest.fixture
def shisuan(api, monkeypatch, capsys, tmp_path):
    """Run one command line; exit code and what it wrote."""
    monkeypatch.setenv("SHISUAN_URL", "http://park.test")
    monkeypatch.setenv("SHISUAN_KEY", "sk-test")
    monkeypatch.setenv("SHISUAN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)

    def call(*argv):
        here = Session(transport=httpx.MockTransport(api), now_ms=lambda: NOW_MS, sleep=lambda _: None)
        code = run(argv, here)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    yield call
    monkeypatch.undo()
    time.tzset()
