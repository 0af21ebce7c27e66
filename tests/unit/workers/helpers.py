"""Orders, and a reader that collects an agent's reports."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from scheduler.model.order import LeaseOrder, Report, ReportKind, RunnerKind, TaskOrder
from workers.agent import Agent
from workers.tools import Tools

NODE, TENANT = "n1", "studio"
PYTHON = sys.executable


def task(*argv: str, job: str = "j1", index: int = 0, number: int = 1, **fields) -> TaskOrder:
    return TaskOrder(attempt_id=f"{job}.s.{index}.a{number}", number=number, argv=argv, **{"literal": True, **fields})


def shell(text: str, **fields) -> TaskOrder:
    return task("/bin/sh", "-c", text, **fields)


def ask(request: str, **fields) -> TaskOrder:
    return task("{python}", "{encode_runner}", request=request, runner=RunnerKind.RESIDENT, literal=False, **fields)


def lease(*tasks: TaskOrder, lease_id: str = "l1", **fields) -> LeaseOrder:
    return LeaseOrder(lease_id=lease_id, tenant=TENANT, node=NODE, tasks=tasks, **fields)


def agent(home: Path, *, confinement: str = "none", runner: Path | None = None, **fields) -> Agent:
    tools = Tools(python=PYTHON, blender_runner="", encode_runner=str(runner or ""))
    return Agent(node=NODE, tenant=TENANT, home=home, confinement=confinement, tools=tools, **fields)


def until(condition: Callable[[], object], what: str, seconds: float = 30.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    raise AssertionError(f"never happened: {what}")


class Reader:
    """Polls an agent and keeps all it said."""

    def __init__(self, told_by: Agent) -> None:
        self._agent = told_by
        self._cursor = ""
        self.all: list[Report] = []

    def read(self, wait_ms: int = 200) -> list[Report]:
        new = self._agent.poll(self._cursor, wait_ms)
        for report in new:
            self._cursor = report.cursor or self._cursor
        self.all += new
        return list(new)

    def wait(self, condition: Callable[[Report], object], what: str) -> Report:
        def seen() -> Report | None:
            found = [report for report in self.all if condition(report)]
            if not found:
                self.read()
            return found[0] if found else None

        return until(seen, what)

    def finished(self, attempt_id: str = "j1.s.0.a1") -> Report:
        return self._about(ReportKind.FINISHED, attempt_id)

    def started(self, attempt_id: str = "j1.s.0.a1") -> Report:
        return self._about(ReportKind.STARTED, attempt_id)

    def _about(self, kind: ReportKind, attempt_id: str) -> Report:
        return self.wait(lambda r: r.kind is kind and r.attempt_id == attempt_id, f"{kind} of {attempt_id}")
