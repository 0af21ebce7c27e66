"""Brings an attempt's log from its node to the tenant's storage: every few seconds while it runs, the rest at its end.

The end of an attempt is reported after its log's, so who reads of the end can read why. A storage that does not answer
holds that up by :data:`LAST_S` and no longer: the attempt ended whether its log is kept or not.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from scheduler.model.order import LeaseOrder, TaskOrder, log_name
from workers.kept_logs import PIECE_BYTES, Shelf, open_shelf
from workers.site import Site

_log = logging.getLogger(__name__)
EVERY_S = 2.0
"""So far behind is a reader at most, beside the time of a write."""
LAST_S = 30.0


@dataclass(slots=True, kw_only=True)
class Kept:
    """How keeping one log went."""

    problem: str = ""
    """Why the last try failed."""


@dataclass(slots=True, kw_only=True)
class Courier:
    """From one file that only grows to its place on the shelf. Any thread that may wait; the work may be repeated."""

    source: Path
    open: Callable[[], Shelf]
    """Called where waiting is allowed: what speaks to a bucket takes a second to load."""
    uri: str
    brought: int = 0
    """Bytes that surely arrived."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def bring(self, *, is_last: bool = False) -> None:
        """All that is new. Raises StorageError, OSError."""
        with self._lock:
            try:
                fd = os.open(self.source, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                return  # a log is made with its first byte
            try:
                shelf = self.open()
                while self._bring_piece(shelf, fd, is_last=is_last):
                    pass
            finally:
                os.close(fd)

    def _bring_piece(self, shelf: Shelf, fd: int, *, is_last: bool) -> bool:
        """One piece, from where its bytes begin on the shelf; whether there may be more."""
        start = self.brought - self.brought % shelf.grain
        data = os.pread(fd, PIECE_BYTES, start)
        if start + len(data) <= self.brought:
            return False
        shelf.put(self.uri, start, data, durable=is_last)
        self.brought = start + len(data)
        return len(data) == PIECE_BYTES


@asynccontextmanager
async def keeping(site: Site, order: LeaseOrder, task: TaskOrder) -> AsyncIterator[Kept]:
    """Keep this attempt's log for as long as the block runs; nothing that goes wrong with it is raised."""
    kept = Kept()
    if not task.kept_log:
        yield kept
        return
    uri = log_name(task.kept_log, order.rank)
    opened = partial(open_shelf, uri, order.roots, home=str(site.home))
    courier = Courier(source=site.log_path(task.attempt_id, order.rank), open=opened, uri=uri)
    regular = asyncio.get_running_loop().create_task(_regularly(site, courier, kept))
    try:
        yield kept
    finally:
        regular.cancel()
        await _bring(site, courier, kept, is_last=True)


async def _regularly(site: Site, courier: Courier, kept: Kept) -> None:
    while True:
        await asyncio.sleep(EVERY_S)
        await _bring(site, courier, kept)


async def _bring(site: Site, courier: Courier, kept: Kept, *, is_last: bool = False) -> None:
    work = asyncio.get_running_loop().run_in_executor(site.logs, partial(courier.bring, is_last=is_last))
    try:
        await asyncio.wait_for(work, LAST_S if is_last else None)
    except TimeoutError:
        _note(kept, courier.uri, TimeoutError(f"the storage did not answer within {LAST_S:g} s"))
    except Exception as error:  # noqa: BLE001 - whatever becomes of its log, the attempt has ended as it has
        _note(kept, courier.uri, error)
    else:
        kept.problem = ""


def _note(kept: Kept, uri: str, error: Exception) -> None:
    if not kept.problem:
        _log.warning("the log %s is not kept: %s", uri, error)
    kept.problem = str(error)
