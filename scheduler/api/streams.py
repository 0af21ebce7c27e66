"""Answers that go on: a job's changes and a running task's log, as server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Annotated, Any

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from scheduler.api.doors import Doors, Open, Who
from scheduler.control.access import Caller
from scheduler.control.attempt_logs import LogView
from scheduler.control.shapes import JobView
from scheduler.model.errors import ShisuanError
from scheduler.model.job import JobState

router = APIRouter(prefix="/v1", tags=["jobs"])
LOOK_S = 0.25
"""Between two looks at a job or a log: below what a person notices as lag."""
QUIET_LOOKS = 40
"""Looks without news before a comment keeps the connection open (10 s; proxies cut at 30 s or more)."""


@router.get(
    "/jobs/{job_id}/events",
    summary="Follow a job",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "`job` events until the job is final"}},
)
def events(open_doors: Open, who: Who, job_id: str) -> StreamingResponse:
    """The job each time it changes, as `job` events, until it is final."""
    open_doors.service.get(who, job_id)  # a wrong id is an error before it is a stream
    return _stream(_job_events(open_doors, who, job_id))


@router.get(
    "/jobs/{job_id}/logs",
    summary="Read a task's log",
    response_model=LogView,
    responses={200: {"content": {"text/event-stream": {}}, "description": "With `follow=1`: `log` events"}},
)
def logs(  # noqa: PLR0917 (each is a named query parameter)
    open_doors: Open,
    who: Who,
    job_id: str,
    task: Annotated[str, Query(description="STEP.INDEX, such as render.3; empty: the latest task")] = "",
    attempt: Annotated[int, Query(ge=0, le=10**9, description="0: the latest")] = 0,
    offset: Annotated[int, Query(ge=0, le=2**53, description="Byte to begin at")] = 0,
    rank: Annotated[int, Query(ge=0, le=10**6, description="Of a gang: which rank's")] = 0,
    follow: Annotated[bool, Query(description="Stream until the attempt ends")] = False,
) -> Any:
    """A piece of the log from byte `offset`; or, with `follow=1`, all that is and will be written."""
    first = open_doors.service.logs(who, job_id, task=task, attempt=attempt, offset=offset, rank=rank)
    if not follow:
        return first
    return _stream(_log_events(open_doors, who, job_id, first, rank))


async def _job_events(open_doors: Doors, who: Caller, job_id: str) -> AsyncIterator[str]:
    async for view in _changes(lambda: open_doors.service.get(who, job_id)):
        if view is None:
            yield ": still here\n\n"
            continue
        yield _event("job", view)
        if JobState(view["state"]).is_final:
            return


async def _log_events(open_doors: Doors, who: Caller, job_id: str, first: LogView, rank: int) -> AsyncIterator[str]:
    step, index, number = first["attempt_id"].removeprefix(f"{job_id}.").split(".")
    task, attempt, view, quiet = f"{step}.{index}", int(number[1:]), first, 0
    while True:
        if view["text"]:
            yield _event("log", view)
        if view["end"]:
            yield _event("end", {"attempt_id": view["attempt_id"], "next_offset": view["next_offset"]})
            return
        quiet = 0 if view["text"] else quiet + 1
        if quiet % QUIET_LOOKS == QUIET_LOOKS - 1:
            yield ": still here\n\n"
        await anyio.sleep(0 if view["text"] else LOOK_S)
        at = view["next_offset"]
        read = partial(open_doors.service.logs, who, job_id, task=task, attempt=attempt, offset=at, rank=rank)
        view = await run_sync(read)


async def _changes(look: Callable[[], JobView]) -> AsyncIterator[JobView | None]:
    """Each new value of ``look``; None now and then while there is no news."""
    last: JobView | None = None
    quiet = 0
    while True:
        view = await run_sync(look)
        if view != last:
            last, quiet = view, 0
            yield view
        else:
            quiet += 1
            if quiet % QUIET_LOOKS == 0:
                yield None
        await anyio.sleep(LOOK_S)


def _event(kind: str, value: Mapping[str, Any]) -> str:
    return f"event: {kind}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n"


def _stream(events_text: AsyncIterator[str]) -> StreamingResponse:
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_until_refused(events_text), media_type="text/event-stream", headers=headers)


async def _until_refused(events_text: AsyncIterator[str]) -> AsyncIterator[str]:
    """An error after the first byte can only be said in the stream itself."""
    try:
        async for text in events_text:
            yield text
    except ShisuanError as error:
        yield _event("error", {"kind": type(error).__name__, "message": str(error)})
