"""The checkpoints of one running attempt, seen from the agent's loop: what is said is checked on a disk thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from scheduler.model.errors import ShisuanError
from workers.checkpoints import Checkpoints
from workers.site import Site, now_ms

_log = logging.getLogger(__name__)


class Saved:
    """Building one makes the attempt's folder and settles what it begins with: do it on a disk thread.

    Raises OutsideRoots, StorageError, OSError. The rest belongs to the loop thread. Only rank 0's says are heard.
    """

    def __init__(self, site: Site, checkpoints: Checkpoints, *, rank: int) -> None:
        self._site, self._checkpoints = site, checkpoints
        begun = checkpoints.begin(f"r{rank}")
        if rank == 0 or not checkpoints.shared:
            site.confinement.hand_over(begun.own[0])
        self.reads = begun.earlier
        self.writes = (begun.own,)
        self.env = {"SHISUAN_CHECKPOINT_DIR": begun.own[1], "SHISUAN_RESUME_FROM": begun.resume}
        self._folder, self._resume = begun.told if begun.told[0] else (begun.own[1], begun.resume)
        self._last: asyncio.Task[None] | None = None
        self._steps: list[int] = []
        self._problem = ""
        self.saved_ms = 0
        """When the last checkpoint that counts was committed; 0: none."""

    def said(self, step: int) -> None:
        """The runner says that ``step-<step>`` is complete."""
        self._then(lambda: self._commit(step))

    def went_bad(self, last_good_step: int) -> None:
        """The loss is not finite. The update of the last good step may have done it, so that step counts no more."""
        self._then(lambda: self._checkpoints.distrust(last_good_step))

    async def settle(self) -> dict[str, object]:
        """All that was said is on disk; the facts about it."""
        if self._last is not None:
            await self._last
        await asyncio.get_running_loop().run_in_executor(self._site.disk, self._checkpoints.leave)
        return {
            "checkpoints": self._steps[-1:],
            "checkpoint_dir": self._folder,
            "checkpoint_problem": self._problem,
            "resumed_from": self._resume,
        }

    def _commit(self, step: int) -> None:
        at_ms = now_ms()
        if self._checkpoints.commit(step, at_ms):
            self._steps.append(step)
            self.saved_ms = at_ms
        else:
            self._problem = f"step-{step} does not count: it is not there, or a later attempt has begun"

    def _then(self, work: Callable[[], None]) -> None:
        """One after the other, in the order they were said."""
        self._last = asyncio.get_running_loop().create_task(self._after(self._last, work))

    async def _after(self, before: asyncio.Task[None] | None, work: Callable[[], None]) -> None:
        if before is not None:
            await before
        try:
            await asyncio.get_running_loop().run_in_executor(self._site.disk, work)
        except (ShisuanError, OSError) as error:
            _log.warning("checkpoints in %s: %s", self._folder, error)
            self._problem = f"a checkpoint does not count: {error}"
