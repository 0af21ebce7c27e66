"""What an attempt printed, wherever it ran and whether that place is still there."""

from __future__ import annotations

from typing_extensions import TypedDict  # pydantic reads these for OpenAPI, and typing's own only from Python 3.12

from scheduler.control.cycle import Cycle
from scheduler.control.log_rule import LogRule, kept_log
from scheduler.control.ports import Executor, History, KeptLogs
from scheduler.model.errors import ExecutorError, InvalidInput, NotFound, Problem, StorageError, unknown
from scheduler.model.job import JobRecord
from scheduler.model.lease import AttemptRecord, number_of
from scheduler.model.order import LogChunk, log_name

MOST_TRIES = 1_000
MOST_DIGITS = 9
"""Of a task's or an attempt's number."""
MOST_LOG_BYTES = 256 * 1024


class LogView(TypedDict):
    """Part of an attempt's log, and what else there is to say of it."""

    attempt_id: str
    text: str
    next_offset: int
    end: bool
    """The attempt is over and nothing follows."""
    state: str
    reason: str
    """Why the attempt ended, empty after success: of one that never began, what kept it from it."""
    rank: int
    ranks: int
    """Of a gang; 1 otherwise. Each has a log of its own."""
    note: str
    """Where there is no log and will be none: why."""


class AttemptLogs:
    """``kept``: where logs lie that outlived their machine; None: they stay where they are written."""

    def __init__(
        self, cycle: Cycle, history: History, executor: Executor, rule: LogRule, kept: KeptLogs | None = None
    ) -> None:
        self._cycle, self._history, self._executor = cycle, history, executor
        self._rule, self._kept = rule, kept

    def read(self, record: JobRecord, *, task: str = "", attempt: int = 0, offset: int = 0, rank: int = 0) -> LogView:
        """A piece of a task's log from byte ``offset``; the latest attempt when ``attempt`` is 0, the job's latest task
        when ``task`` is empty, and of a gang that of one ``rank``.

        Raises NotFound, InvalidInput, ExecutorError, StorageError.
        """
        if offset < 0:
            raise InvalidInput([Problem("offset", "must be 0 or more")])
        job_id = record.job.id
        found = self._pick_attempt(record, task, attempt)
        nodes = nodes_of(self._history, job_id, {found.lease_id})[found.lease_id]
        if not 0 <= rank < len(nodes):
            raise InvalidInput([Problem("rank", f"{found.id} has {_ranks(len(nodes))}, not {rank}")])
        chunk = self._chunk(record, found, nodes[rank], offset, rank)
        return {
            "attempt_id": found.id,
            "text": chunk.text,
            "next_offset": chunk.next_offset,
            "end": chunk.end,
            "state": found.state.value,
            "reason": found.reason,
            "rank": rank,
            "ranks": len(nodes),
            "note": self._note(record, found) if chunk.end and not chunk.next_offset else "",
        }

    def _note(self, record: JobRecord, attempt: AttemptRecord) -> str:
        """Of a log without a byte that gets none any more."""
        if record.finished_ms and record.finished_ms < self._rule.before_ms(self._cycle.now_ms()):
            return f"logs are kept for {self._rule.keep_days} days after a job's end; {record.job.id} ended before that"
        if not attempt.started_ms:
            return f"{attempt.id} did not begin, so it printed nothing"
        return f"{attempt.id} printed nothing"

    def _chunk(self, record: JobRecord, attempt: AttemptRecord, node: str, offset: int, rank: int) -> LogChunk:
        """From the machine while it runs there, which is sooner, else from storage."""
        is_over = attempt.state.is_final
        nothing = LogChunk(text="", next_offset=offset, end=is_over)
        if self._kept is None:
            return self._from_node(node, attempt, offset, rank) or nothing
        if is_over:
            try:
                kept = self._from_storage(record, attempt, offset, rank)
            except StorageError:
                here = self._from_machine_if_there(node, attempt, offset, rank)
                if here is None:
                    raise
                return here
            return kept or self._from_machine_if_there(node, attempt, offset, rank) or nothing
        here = self._from_machine_if_there(node, attempt, offset, rank)
        return here or self._from_storage(record, attempt, offset, rank) or nothing

    def _from_node(self, node: str, attempt: AttemptRecord, offset: int, rank: int) -> LogChunk | None:
        try:
            return self._executor.read_log(node, attempt.id, offset, MOST_LOG_BYTES, rank)
        except NotFound:
            return None  # a log is made with its first byte: this runner has written nothing, or nothing yet

    def _from_machine_if_there(self, node: str, attempt: AttemptRecord, offset: int, rank: int) -> LogChunk | None:
        try:
            return self._from_node(node, attempt, offset, rank)
        except ExecutorError:
            return None

    def _from_storage(self, record: JobRecord, attempt: AttemptRecord, offset: int, rank: int) -> LogChunk | None:
        """From whichever root it was brought to: an operator may have changed their order since.

        Raises StorageError.
        """
        assert self._kept is not None
        job, is_over = record.job, attempt.state.is_final
        with self._cycle.state() as engine:
            tenant = engine.tenant(job.tenant)
        roots = tenant.storage_roots if tenant is not None else ()
        problem: Exception | None = None
        for root in roots:
            uri = log_name(kept_log(root, job, attempt.id), rank)
            try:
                found = self._kept.read(uri, roots, offset, MOST_LOG_BYTES, is_over=is_over)
            except (StorageError, OSError) as error:
                problem = problem or StorageError(f"the log {uri} cannot be read here: {error}")
                continue
            if found is not None:
                return found
        if problem is not None:
            raise problem
        return None

    def _pick_attempt(self, record: JobRecord, task: str, number: int) -> AttemptRecord:
        job_id = record.job.id
        if not task:
            ran = self._history.latest_attempts(job_id, 1)
            if not ran:
                raise NotFound(f"job {job_id} has no log yet: none of its tasks has started")
            return ran[-1]
        step, index = self._parse_task(record, task)
        tries = self._history.attempts(job_id, step=step, after=(step, index, 0), limit=MOST_TRIES)
        mine = {a.number: a for a in tries if a.index == index}
        if not mine:
            raise NotFound(f"task {task} of job {job_id} has no log yet: it has not started")
        if number and number not in mine:
            known = f"attempts {min(mine)} to {max(mine)}" if len(mine) > 1 else f"one attempt, {max(mine)}"
            raise NotFound(f"task {task} of job {job_id} has {known}: not {number}")
        return mine[number or max(mine)]

    @staticmethod
    def _parse_task(record: JobRecord, task: str) -> tuple[str, int]:
        """``render.3`` → its step and index; ``render`` alone means its first task."""
        name, _, index = task.removeprefix(f"{record.job.id}.").partition(".")
        names = [s.name for s in record.job.steps]
        if name not in names:
            raise InvalidInput([unknown("task", "step", name, names)])
        if index and not (index.isascii() and index.isdecimal() and len(index) <= MOST_DIGITS):
            raise InvalidInput([Problem("task", f"{task!r} is not STEP.INDEX, such as {name}.0")])
        count = next(s.count for s in record.job.steps if s.name == name)
        if int(index or 0) >= count:
            raise InvalidInput([Problem("task", f"step {name} has tasks 0 to {count - 1}, not {index}")])
        return name, int(index or 0)


def nodes_of(history: History, job_id: str, lease_ids: set[str]) -> dict[str, tuple[str, ...]]:
    """Node of each rank of each of these leases of one job."""
    nodes: dict[str, tuple[str, ...]] = {}
    numbers = sorted(number_of(lease_id) for lease_id in lease_ids)
    after = numbers[0] - 1 if numbers else 0
    while numbers and after < numbers[-1]:
        page = history.leases(job_id=job_id, after=f"l{after}", limit=numbers[-1] - after)
        if not page:
            break
        mine = [r.lease for r in page if r.lease.id in lease_ids]
        nodes.update({lease.id: tuple(a.node for a in lease.allocations) for lease in mine})
        after = number_of(page[-1].lease.id)
    return nodes


def _ranks(count: int) -> str:
    return "rank 0 alone" if count == 1 else f"ranks 0 to {count - 1}"
