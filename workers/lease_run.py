"""One open lease on this node: its tasks one after the other, each to a recorded end. On the loop thread."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from scheduler.model.errors import ShisuanError
from scheduler.model.lease import AttemptState
from scheduler.model.measured import Measured
from scheduler.model.order import LeaseOrder, Report, ReportKind, RunnerKind, TaskOrder
from workers import environment
from workers.checkpoints import Checkpoints
from workers.folders import Roots, is_local, local_path
from workers.listener import Listener
from workers.log_keeping import keeping
from workers.measure import Meter
from workers.object_checkpoints import ObjectCheckpoints
from workers.object_storage import placed
from workers.places import Inodes, OwnPlace, Place, SharedPlace, remove_work, shareable
from workers.process import LogWriter, Running, sentence
from workers.resident import Residents, Wanted
from workers.saved import Saved
from workers.site import Site, attempt_name, make_work, now_ms
from workers.spent import Spent
from workers.staging import Staged, mapped
from workers.storage import ALL_FILES, Manifest, Storage, open_storage, task_of
from workers.table import Started
from workers.tools import Tools

_log = logging.getLogger(__name__)
T = TypeVar("T")

WHOSE_KILL_S = 1.0
"""Ray kills an agent's runners before the agent itself, when its node goes down. A runner's SIGKILL is recorded as the
runner's own end only by an agent that lives on for so long; else its successor finds the attempt open: lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended."""

    state: AttemptState
    exit_code: int | None = None
    reason: str = ""
    outputs: tuple[str, ...] = ()
    result: str = ""
    checkpoint_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What storage says before an attempt begins."""

    reads: tuple[tuple[str, str], ...] = ()
    """Real path and the name the order uses."""
    inodes: Inodes = ()
    earlier: Manifest | None = None
    """An earlier attempt published, but its report was lost."""
    saved: Saved | None = None
    """For a task that keeps checkpoints."""
    staged: Staged = ()
    """Inputs that were brought to this node."""


class LeaseRun:
    """Create it, await :meth:`run`; :meth:`stop` may come at any moment between."""

    def __init__(self, site: Site, residents: Residents, order: LeaseOrder) -> None:
        self._site = site
        self._residents = residents
        self._order = order
        self._stop: Outcome | None = None
        self._child: Running | None = None
        self._task: TaskOrder | None = None
        self._listener: Listener | None = None
        self._told_ms = 0
        self._meter: Meter | None = None
        self._measured: Measured | None = None
        self._shared = SharedPlace(site, order) if shareable(site, order) else None

    def stop(self, state: AttemptState, reason: str, *, grace_ms: int | None = None) -> None:
        """End what runs (SIGTERM, grace, SIGKILL) and start nothing more. The first reason counts.

        ``grace_ms`` shortens the task's own grace, also that of an earlier stop.
        """
        if self._stop is None:
            self._stop = Outcome(state=state, reason=reason)
        if self._child is not None and self._task is not None:
            self._child.end(state, self._task.grace_ms if grace_ms is None else grace_ms)

    async def run(self) -> None:
        """Every task gets exactly one recorded end."""
        last = self._order.tasks[-1]
        for task in self._order.tasks:
            async with keeping(self._site, self._order, task) as kept:
                outcome = await self._attempt(task)
            if kept.problem and outcome.reason:
                outcome = replace(outcome, reason=f"{outcome.reason} (its log was not kept: {kept.problem})")
            self._site.outbox.forget(task.attempt_id, self._order.rank)
            key = (self._order.lease_id, self._order.rank)
            self._site.table.finish(key, self._finished(task, outcome))
            self._site.outbox.put(urgent=task is last)
        self._residents.lease_ended(self._order.lease_id)
        self._site.inputs.release(self._holder)
        if self._shared is not None:
            await self._shared.close()

    def heartbeat(self, pause_ms: int) -> None:
        """Tell that the attempt lives, when nothing was told for ``pause_ms``."""
        if self._listener is not None and now_ms() - self._told_ms >= pause_ms:
            self._progress(self._listener)

    # -- one attempt ---------------------------------------------------------------------------------------------

    async def _attempt(self, task: TaskOrder) -> Outcome:
        self._meter = self._measured = None
        if self._stop is not None:
            return self._stop
        try:
            return await self._run(task, await self._claim(task))
        except ShisuanError as error:
            return Outcome(state=AttemptState.FAILED, reason=str(error))
        except OSError as error:
            return Outcome(state=AttemptState.FAILED, reason=f"the node could not run it: {error}")
        except Exception as error:  # noqa: BLE001 - one broken order must not take the agent's other leases with it
            _log.exception("attempt %s", task.attempt_id)
            return Outcome(state=AttemptState.LOST, reason=f"the agent failed: {error!r}")
        finally:
            self._child = self._task = self._listener = None

    async def _run(self, task: TaskOrder, claimed: Claimed) -> Outcome:
        if claimed.earlier is not None:
            earlier = claimed.earlier
            return Outcome(state=AttemptState.SUCCEEDED, outputs=earlier.uris, result=earlier.result)
        if self._stop is not None:
            return self._stop
        task = mapped(task, claimed.staged)
        if task.runner is RunnerKind.RESIDENT:
            return await self._ask_resident(task, claimed)
        return await self._run_process(task, claimed)

    async def _run_process(self, task: TaskOrder, claimed: Claimed) -> Outcome:
        place: Place
        if self._shared is not None:
            place = await self._shared.enter(task, claimed.reads, claimed.inodes)
        else:
            writes = claimed.saved.writes if claimed.saved else ()
            place = OwnPlace(self._site, self._order, task, claimed.reads, writes)
        try:
            argv, env = words_of(self._site.tools, task, place.work)
            if claimed.saved:
                env |= claimed.saved.env
            listener = self._listen(task, claimed.saved)
            child = place.start(argv, environment.of_attempt(self._order, task, env, place.work), listener.feed)
            self._started(task, child)
            code = await self._until(child.exited, child, task, lambda: child.spent)
            listener.finish()
            facts: dict[str, object] = await claimed.saved.settle() if claimed.saved else {}
            outcome = replace(
                self._judge(task, child, listener, code),
                result=listener.facts(**facts),
                checkpoint_ms=claimed.saved.saved_ms if claimed.saved else 0,
            )
            return await self._publish(task, place.work, outcome)
        finally:
            await place.leave()

    async def _until(
        self, ended: asyncio.Future[int], child: Running, task: TaskOrder, used: Callable[[], Spent | None]
    ) -> int:
        timer = None
        if task.timeout_ms:
            loop = asyncio.get_running_loop()
            timer = loop.call_later(task.timeout_ms / 1_000, child.end, AttemptState.TIMED_OUT, task.grace_ms)
        try:
            code = await ended
        finally:
            if timer is not None:
                timer.cancel()
            if self._meter is not None:
                self._measured = self._site.measuring.end(self._meter, used())
        if _is_strangers_kill(child, code):
            await asyncio.sleep(WHOSE_KILL_S)
        return code

    async def _ask_resident(self, task: TaskOrder, claimed: Claimed) -> Outcome:
        order, site = self._order, self._site
        resident = self._residents.lend(order, Wanted.of(order, task, claimed.reads))
        work = resident.work_of(attempt_name(task.attempt_id, order.rank))
        make_work(work, site.confinement)
        healthy = False
        try:
            listener = self._listen(task)
            resident.child.base = resident.base
            self._started(task, resident.child)
            resident.listen(listener.feed)
            await resident.ask(site.tools.text(task.request, work))
            code = await self._until(resident.answered, resident.child, task, resident.settle)
            listener.finish()
            outcome = self._judge(task, resident.child, listener, code)
            if outcome.state is AttemptState.SUCCEEDED and not listener.result:
                reason = "the runner ended without a result"
                outcome = Outcome(state=AttemptState.FAILED, exit_code=code, reason=reason)
            healthy = outcome.state is AttemptState.SUCCEEDED
            return await self._publish(task, work, outcome)
        finally:
            # Not before: what is being published lies in its folder, and whoever borrows it next may be served by now.
            self._residents.give_back(resident, healthy=healthy, memory_mib=order.memory_mib)
            await remove_work(site, work)

    def _judge(self, task: TaskOrder, child: Running, listener: Listener, code: int) -> Outcome:
        if child.ending is AttemptState.TIMED_OUT:
            reason = f"timed out after {_seconds(task.timeout_ms)} s"
            return Outcome(state=AttemptState.TIMED_OUT, exit_code=code, reason=reason)
        if self._stop is not None and child.ending is not None:
            return replace(self._stop, exit_code=code)
        if _is_strangers_kill(child, code) and self._site.is_orphan:
            return Outcome(state=AttemptState.LOST, exit_code=code, reason="the node's runtime ended")
        if listener.failure:
            return Outcome(state=AttemptState.FAILED, exit_code=code, reason=listener.failure)
        if code != 0:
            return Outcome(state=AttemptState.FAILED, exit_code=code, reason=sentence(code))
        return Outcome(state=AttemptState.SUCCEEDED, exit_code=0, result=listener.result)

    # -- storage -------------------------------------------------------------------------------------------------

    async def _claim(self, task: TaskOrder) -> Claimed:
        """Check the inputs and fence older attempts; find what an earlier attempt published already."""
        if not (task.reads or task.output_dir or task.checkpoints):
            return Claimed()
        return await self._on_disk(lambda: self._claim_now(task))

    def _claim_now(self, task: TaskOrder) -> Claimed:
        local = self._storage("")
        real = {uri: (local if is_local(uri) else self._storage(uri)).readable(uri) for uri in task.reads}
        staged = tuple((uri, path) for uri, path in real.items() if not is_local(uri))
        reads = tuple((path, local_path(uri) if is_local(uri) else path) for uri, path in real.items())
        inodes = tuple([(info.st_dev, info.st_ino) for info in [os.stat(real) for real, _ in reads]])
        saved = self._claim_checkpoints(task)
        if saved is not None:
            reads = (*reads, *saved.reads)
        if not task.output_dir:
            return Claimed(reads=reads, inodes=inodes, saved=saved, staged=staged)
        earlier = self._storage(task.output_dir).claim(task.output_dir, self._published_name(task), task.number)
        if earlier is not None and (self._in_gang or earlier.number < task.stale_before):
            earlier = None  # a gang runs again as a whole; what is stale a user wants made again
        return Claimed(reads=reads, inodes=inodes, earlier=earlier, saved=saved, staged=staged)

    def _claim_checkpoints(self, task: TaskOrder) -> Saved | None:
        if not task.checkpoints:
            return None
        order, site = self._order, self._site
        if is_local(task.checkpoints):
            kept = Checkpoints(Roots(order.roots, home=str(site.home)), task.checkpoints, task.number)
        else:
            local = site.work / f"{attempt_name(task.attempt_id, order.rank)}.checkpoints"
            fetch = partial(site.inputs.fetch, holder=self._holder)
            kept = ObjectCheckpoints(placed(task.checkpoints, order.roots), task.number, local=local, fetch=fetch)
        return Saved(site, kept, rank=order.rank)

    @property
    def _in_gang(self) -> bool:
        return self._order.ranks > 1

    def _published_name(self, task: TaskOrder) -> str:
        """The task's own name among all that ever publish into this folder."""
        rank = f".r{self._order.rank}" if self._in_gang else ""
        return f"{task_of(task.attempt_id)}{rank}@{self._order.submitted_ms}"

    def _storage(self, uri: str) -> Storage:
        fetch = partial(self._site.inputs.fetch, holder=self._holder)
        return open_storage(uri, self._order.roots, home=str(self._site.home), fetch=fetch)

    @property
    def _holder(self) -> str:
        return f"{self._order.lease_id}.{self._order.rank}"

    async def _publish(self, task: TaskOrder, work: str, outcome: Outcome) -> Outcome:
        """Each rank of a gang publishes its own files; the declared names are rank 0's to leave."""
        if outcome.state is not AttemptState.SUCCEEDED or not task.output_dir or not task.outputs:
            return outcome
        if task.first_rank_publishes and self._order.rank:
            return outcome
        storage = self._storage(task.output_dir)
        name = self._published_name(task)
        outputs = task.outputs if self._order.rank == 0 else (ALL_FILES,)

        def publish() -> Manifest:
            return storage.publish(
                f"{work}/outputs",
                outputs,
                task.output_dir,
                name,
                task.number,
                result=outcome.result,
                replace=self._in_gang or task.stale_before > 0,
            )

        manifest = await self._on_disk(publish)
        return replace(outcome, outputs=manifest.uris, result=manifest.result)

    async def _on_disk(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._site.disk, work)

    # -- telling -------------------------------------------------------------------------------------------------

    def _listen(self, task: TaskOrder, saved: Saved | None = None) -> Listener:
        log = LogWriter(self._site.log_path(task.attempt_id, self._order.rank), self._order.log_mib << 20)
        hears = saved is not None and self._order.rank == 0
        self._listener = Listener(
            log,
            self._progress,
            on_checkpoint=saved.said if saved is not None and hears else None,
            on_bad_loss=saved.went_bad if saved is not None and hears else None,
        )
        self._task = task
        return self._listener

    def _started(self, task: TaskOrder, child: Running) -> None:
        self._child = child
        key = (self._order.lease_id, self._order.rank)
        started = Started(pid=child.pid, start_ticks=child.start_ticks)
        self._site.table.start(key, started, self._report(ReportKind.STARTED, task))
        self._told_ms = now_ms()
        self._meter = self._site.measuring.begin(self._order, child)
        self._site.outbox.put(urgent=self._in_gang)
        if self._stop is not None:
            child.end(self._stop.state, task.grace_ms)

    def _progress(self, listener: Listener) -> None:
        if self._task is None:
            return
        self._told_ms = now_ms()
        self._site.outbox.progress(
            Report(
                kind=ReportKind.PROGRESS,
                at_ms=self._told_ms,
                node=self._site.node,
                tenant=self._site.tenant,
                lease_id=self._order.lease_id,
                attempt_id=self._task.attempt_id,
                rank=self._order.rank,
                progress_milli=listener.milli,
                message=listener.status,
            )
        )

    def _report(self, kind: ReportKind, task: TaskOrder) -> Report:
        return Report(
            kind=kind,
            at_ms=now_ms(),
            node=self._site.node,
            tenant=self._site.tenant,
            lease_id=self._order.lease_id,
            attempt_id=task.attempt_id,
            rank=self._order.rank,
        )

    def _finished(self, task: TaskOrder, outcome: Outcome) -> Report:
        return Report(
            kind=ReportKind.FINISHED,
            at_ms=now_ms(),
            node=self._site.node,
            tenant=self._site.tenant,
            lease_id=self._order.lease_id,
            attempt_id=task.attempt_id,
            rank=self._order.rank,
            state=outcome.state,
            exit_code=outcome.exit_code,
            message=outcome.reason,
            outputs=outcome.outputs,
            result=outcome.result,
            checkpoint_ms=outcome.checkpoint_ms,
            measured=self._measured,
        )


def _is_strangers_kill(child: Running, code: int) -> bool:
    """SIGKILL, and not from us: the kernel short of memory, a user, or Ray going down."""
    return code == -signal.SIGKILL and child.ending is None


def words_of(known: Tools, task: TaskOrder, work: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """Both argv and environment with placeholders replaced, unless they are a user's own words."""
    if task.literal:
        return task.argv, dict(task.env)
    return known.argv(task.argv, work), {name: known.text(value, work) for name, value in task.env}


def _seconds(ms: int) -> str:
    return f"{ms / 1_000:g}"
