"""What the page shows, gathered from the service for one caller. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlencode

from scheduler.control.access import Caller, visible
from scheduler.control.attempt_logs import MOST_LOG_BYTES
from scheduler.control.cycle import Cycle
from scheduler.control.money import Money
from scheduler.control.operations import Operations
from scheduler.control.pricing import Pricing
from scheduler.control.service import Service
from scheduler.ledger.statement import to_fen
from scheduler.report import figures, timeline
from scheduler.report import money as told
from scheduler.report import usage as sums
from scheduler.web import drawing, statement

JOBS_SHOWN = 60
OUTPUTS_SHOWN = 12
CHART_ATTEMPTS_MAX = 2_000
Json = Mapping[str, Any]


class Doors(Protocol):
    """The services the page reads from."""

    @property
    def service(self) -> Service:
        """Jobs."""
        ...

    @property
    def operations(self) -> Operations:
        """Nodes, status, keys."""
        ...

    @property
    def money(self) -> Money:
        """Statements and vouchers."""
        ...

    @property
    def pricing(self) -> Pricing:
        """What jobs cost."""
        ...

    @property
    def cycle(self) -> Cycle:
        """The engine's state and the clock."""
        ...


@dataclass(frozen=True, slots=True)
class Reader:
    """Turns the service's answers into what templates need. Raises the service's ShisuanErrors."""

    doors: Doors

    def overview(self, caller: Caller) -> dict[str, Any]:
        """The cluster and the latest jobs."""
        now_ms = self.doors.cycle.now_ms()
        nodes = self.doors.operations.nodes(caller)
        jobs = self.doors.service.list_jobs(caller, limit=JOBS_SHOWN)
        return {
            "status": self.doors.operations.status(caller),
            "nodes": [node_view(node) for node in nodes],
            "totals": totals(nodes),
            "jobs": [job_line(job, now_ms) for job in jobs],
            "is_simulated": any(node["simulated"] for node in nodes),
        }

    def job(self, caller: Caller, job_id: str) -> dict[str, Any]:
        """One job with everything about it."""
        now_ms = self.doors.cycle.now_ms()
        service = self.doors.service
        job: Json = service.describe(caller, job_id)
        waits = [] if job["finished_ms"] else service.explain(caller, job_id)
        states = self._task_states(caller, job_id)
        return {
            "job": job_line(job, now_ms),
            "times": [(name, job[f"{name}_ms"]) for name in ("submitted", "started", "finished", "deadline")],
            "detail": job,
            "cost": self._cost(caller, job_id),
            "steps": [step_view(step, states.get(step["name"], {}), job_id) for step in job["steps"]],
            "waits": [w for w in waits if w["reasons"]],
            "attempts": [attempt_view(a, now_ms) for a in reversed(job["attempts"])],
            "outputs": job["outputs"][:OUTPUTS_SHOWN],
            "more_outputs": max(0, len(job["outputs"]) - OUTPUTS_SHOWN),
            **self._history(caller, job, now_ms),
        }

    def explain(self, caller: Caller, job_id: str) -> dict[str, Any]:
        """Why one job waits, with all that takes a while to work out."""
        job = self.doors.service.describe(caller, job_id)
        waits = [] if job["finished_ms"] else self.doors.service.explain(caller, job_id, is_full=True)
        return {"job": job_line(job, self.doors.cycle.now_ms()), "detail": job, "waits": waits}

    def log(self, caller: Caller, job_id: str, *, task: str, attempt: int, rank: int, offset: int) -> dict[str, Any]:
        """A piece of an attempt's log, with the ways to the others."""
        found = self.doors.service.logs(caller, job_id, task=task, attempt=attempt, rank=rank, offset=offset)
        step, index, number = found["attempt_id"].removeprefix(f"{job_id}.").split(".")

        def query(of_rank: int, at: int) -> str:
            return urlencode({"task": f"{step}.{index}", "attempt": number[1:], "rank": of_rank, "offset": at})

        is_full = found["next_offset"] - offset > MOST_LOG_BYTES - 4  # a character may have been left for the next
        return {
            "job_id": job_id,
            "log": found,
            "offset": offset,
            "here": query(rank, offset),
            "first": query(rank, 0),
            "more": query(rank, found["next_offset"]) if is_full else "",
            "ranks": [{"rank": n, "query": query(n, 0)} for n in range(found["ranks"])],
            "command": f"shisuan logs {found['attempt_id']}{f' --rank {rank}' if rank else ''}",
        }

    def statement(self, caller: Caller, month: str) -> dict[str, Any]:
        """A month's statements and the vouchers."""
        return statement.gather(self.doors.money, caller, month, self.doors.cycle.now_ms())

    def _cost(self, caller: Caller, job_id: str) -> dict[str, Any]:
        """So far: what is booked and to be paid, and what runs now, to the fen so that the page keeps still."""
        cost = self.doors.pricing.cost(caller, job_id)
        so_far = cost["sealed_due_micro_yuan"] + cost["running_micro_yuan"]
        return {"yuan": told.fen(to_fen(so_far)), "example": cost["example"]}

    def _task_states(self, caller: Caller, job_id: str) -> dict[str, dict[int, str]]:
        """State by task index, of steps small enough to draw; waiting tasks are left out."""
        with self.doors.cycle.state() as engine:
            record = visible(caller, engine.job(job_id), job_id)
        return {
            step.name: {
                index: state
                for state in drawing.STATES[:-1]
                for index in (getattr(step, state) if shape.count <= drawing.SQUARES_MAX else ())
            }
            for shape, step in zip(record.job.steps, record.steps, strict=True)
        }

    def _history(self, caller: Caller, job: Json, now_ms: int) -> dict[str, Any]:
        """Gantt chart and usage; left out where there is too much to draw."""
        begun = sum(s["count"] - s["waiting"] for s in job["steps"])
        if begun > CHART_ATTEMPTS_MAX:
            return {"chart": None, "is_too_much": True, "usage": (), "check": None}
        service = self.doors.service
        leases = service.leases(caller, job["id"])
        line = timeline.build(leases, service.attempts(caller, job["id"]), self.doors.operations.nodes(caller), now_ms)
        records = service.usage(caller, job["id"])
        return {
            "chart": drawing.chart(line) if line.rows else None,
            "is_too_much": False,
            "usage": sums.totals(records),
            "check": sums.conserve(leases, records) if records else None,
        }


def totals(nodes: list[Any]) -> dict[str, Any]:
    """Sums over all nodes, for the top line."""
    devices = [d for node in nodes for d in node["devices"]]
    cpu, cpu_free = (sum(node[key] for node in nodes) for key in ("cpu_milli", "cpu_milli_free"))
    return {
        "nodes": len(nodes),
        "cpus": figures.cpus(cpu).split()[0],
        "cpus_held": figures.cpus(cpu - cpu_free).split()[0],
        "cards": len(devices),
        "cards_held": sum(1 for d in devices if d["lease_id"]),
    }


def node_view(node: Json) -> dict[str, Any]:
    """A node with its meters, in thousandths."""
    cpu, memory = node["cpu_milli"], node["memory_mib"]
    cpu_held, memory_held = cpu - node["cpu_milli_free"], memory - node["memory_mib_free"]
    return {
        "name": node["name"],
        "state": node["state"],
        "reason": node["state_reason"],
        "cuts": [cut for cut in node["cuts"] if cut["problem"] or not cut["ended_ms"]],
        "cpu_share": 1000 * cpu_held // max(1, cpu),
        "cpu_used": figures.cpus(cpu_held).split()[0],
        "cpu_total": figures.cpus(cpu).split()[0],
        "memory_share": 1000 * memory_held // max(1, memory),
        "memory_used": figures.memory(memory_held),
        "memory_total": figures.memory(memory),
        "devices": node["devices"],
        "models": sorted({f"{d['model']} {d['profile']}".strip() for d in node["devices"]}),
        "is_simulated": node["simulated"],
    }


def job_line(job: Json, now_ms: int) -> dict[str, Any]:
    """A job as a line of the table."""
    counts = {state: sum(step[state] for step in job["steps"]) for state in drawing.STATES}
    total = sum(counts.values())
    began, ended = job["started_ms"], job["finished_ms"]
    return {
        **{key: job[key] for key in ("id", "name", "kind", "tenant", "queue", "priority", "state", "reason")},
        "percent": figures.percent(job["progress_milli"]),
        "bar": drawing.share(counts, total),
        "done": counts["succeeded"],
        "count": total,
        "age": figures.coarse(now_ms - job["submitted_ms"]),
        "submitted": figures.instant(job["submitted_ms"]),
        "took": figures.coarse((ended or now_ms) - began) if began else "–",
    }


def step_view(step: Json, states: Mapping[int, str], job_id: str) -> dict[str, Any]:
    """A step with its bar and, when it is small enough, a square per task."""
    counts = {state: step[state] for state in drawing.STATES}
    small = step["count"] <= drawing.SQUARES_MAX
    return {
        **step,
        "percent": figures.percent(step["progress_milli"]),
        "counts": {state: number for state, number in counts.items() if number},
        "bar": drawing.share(counts, step["count"]),
        "grid": drawing.grid(states, step["count"], f"{job_id}.{step['name']}") if small else None,
    }


def attempt_view(attempt: Json, now_ms: int) -> dict[str, Any]:
    """An attempt as a line."""
    began, ended = attempt["started_ms"], attempt["finished_ms"]
    return {
        **attempt,
        "log": urlencode({"task": f"{attempt['step']}.{attempt['index']}", "attempt": attempt["number"]}),
        "used": figures.used(attempt["measured"], ended - began),
        "began": figures.local(began).strftime("%H:%M:%S") if began else "–",
        "took": figures.duration(ended - began)
        if ended and began
        else figures.coarse(now_ms - began)
        if began
        else "–",
    }


def deadline_line(job: Json, t: Callable[..., str]) -> str:
    """What was said of a job's deadline at its submission; empty: nothing, or it is over."""
    if not job["deadline_ms"] or job["finished_ms"]:
        return ""
    chance = f"{job['deadline_permille'] / 10:g}"
    if slot := job["slot"]:
        start, end = figures.instant(slot["start_ms"]), figures.instant(slot["end_ms"])
        return t("deadline_promised", chance=chance, nodes=", ".join(slot["nodes"]), start=start, end=end)
    if job["kept"]:
        steps = (
            t(
                "deadline_kept",
                step=kept["step"],
                places=kept["places"],
                nodes=", ".join(kept["nodes"]),
                start=figures.instant(kept["start_ms"]),
                end=figures.instant(kept["end_ms"]),
            )
            for kept in job["kept"]
        )
        return t("deadline_promised_film", chance=chance, kept=t("deadline_and").join(steps))
    return t("deadline_likely", chance=chance) if job["deadline_permille"] else t("deadline_unknown")
