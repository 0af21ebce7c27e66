"""The one service of a home folder: its lock, what it says of itself, and how it is found and ended from outside."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import signal

import psutil

from scheduler.control.settings import Home, Settings
from scheduler.control.tokens import write_private
from scheduler.model.errors import Conflict

STOP_LIMIT_S = 60


def only_one(home: Home) -> int:
    """The home's lock; given up by the kernel when the process ends. Raises Conflict."""
    descriptor = os.open(home.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Conflict(f"another service already runs in {home.path}") from None
    return descriptor


def announce(settings: Settings, url: str, started_ms: int) -> None:
    """Write ``instance.json``."""
    shown = dataclasses.asdict(settings)
    shown["database_url"] = _without_password(settings.database_url)
    instance = {"pid": os.getpid(), "url": url, "started_ms": started_ms, "settings": shown}
    write_private(Home.of(settings.home).instance, json.dumps(instance, indent=2).encode())


def end_service(home: Home) -> bool:
    """SIGTERM and wait; whether one ran. Raises Conflict when it does not end."""
    process = _service_of(home)
    if process is None:
        return False
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_LIMIT_S)
    except psutil.TimeoutExpired:
        raise Conflict(
            f"the service (process {process.pid}) still stops after {STOP_LIMIT_S} s; "
            f"its log is {home.log}; to end it by force: kill -9 {process.pid}"
        ) from None
    return True


def _service_of(home: Home) -> psutil.Process | None:
    """The live service of this home; numbers of processes are given again, so its words are checked."""
    try:
        process = psutil.Process(int(json.loads(home.instance.read_text("utf-8"))["pid"]))
        words = process.cmdline()
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None
    return process if "scheduler.wiring" in words else None


def _without_password(url: str) -> str:
    before, at, after = url.rpartition("@")
    scheme, _, user = before.partition("://")
    return f"{scheme}://{user.partition(':')[0]}@{after}" if at else url
