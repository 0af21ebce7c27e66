"""The home folder as the CLI sees it: where the service is, whether it runs, which key to use."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from scheduler.cli.exits import CliError, Exit

COMMAND = "SHISUAN_TOKEN_COMMAND"
TOKEN_S = 300
"""It may wait for somebody to sign in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """What a running service wrote into ``instance.json``."""

    pid: int
    url: str
    started_ms: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    """What it was started with: the fields of ``scheduler.control.settings.Settings``."""


def token_of(command: str) -> str:
    """What a program prints: an access token of the park's OpenID issuer. Raises CliError with what it said."""
    try:
        done = subprocess.run(shlex.split(command), stdout=subprocess.PIPE, text=True, timeout=TOKEN_S, check=True)
    except subprocess.CalledProcessError as error:
        raise CliError(f"{COMMAND} ended with code {error.returncode}: {command}") from None
    except subprocess.TimeoutExpired:
        raise CliError(f"{COMMAND} did not end within {TOKEN_S} s: {command}") from None
    except (OSError, ValueError) as error:
        raise CliError(f"{COMMAND} cannot be run: {error}") from None
    token = done.stdout.strip()
    if not token or not token.isascii() or len(token.split()) != 1:
        raise CliError(f"{COMMAND} must print a token and nothing else: {command}")
    return token


def default_home() -> Path:
    """``SHISUAN_HOME``, else ``~/.shisuan``."""
    return Path(os.environ.get("SHISUAN_HOME") or Path.home() / ".shisuan")


def read_instance(home: Path) -> Instance | None:
    """The instance file's content, or None when there is none (or it is half-written)."""
    try:
        data = json.loads((home / "instance.json").read_text("utf-8"))
        return Instance(
            pid=int(data["pid"]),
            url=str(data["url"]),
            started_ms=int(data.get("started_ms", 0)),
            settings=dict(data.get("settings", {})),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return None
    except PermissionError:
        raise CliError(f"{home}/instance.json belongs to another user", Exit.UNREACHABLE) from None


def is_service(pid: int) -> bool:
    """Whether ``pid`` is a live shisuan service (the number may have been given to another program since)."""
    try:
        process = psutil.Process(pid)
        words = process.cmdline()
        return process.status() != psutil.STATUS_ZOMBIE and "scheduler.wiring" in words
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def running(home: Path) -> Instance | None:
    """The instance of ``home`` whose process lives, or None."""
    found = read_instance(home)
    return found if found and is_service(found.pid) else None


def read_key(home: Path) -> str:
    """The key to use: ``SHISUAN_KEY``, else what ``SHISUAN_TOKEN_COMMAND`` prints, else the home's key file; empty when
    there is none. Raises CliError.
    """
    if key := os.environ.get("SHISUAN_KEY"):
        return key.strip()
    if command := os.environ.get(COMMAND):
        return token_of(command)
    try:
        return (home / "key").read_text("utf-8").strip()
    except FileNotFoundError:
        return ""
    except PermissionError:
        raise CliError(
            f"may not read {home}/key: it belongs to another user. Set SHISUAN_KEY to your own key."
        ) from None
