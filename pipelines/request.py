"""The texts that go into orders: requests as one line of JSON, and ``${task.index}`` in a user's words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TASK_INDEX = "${task.index}"
# A noncharacter (Unicode 3.4 D14) comes from no sane text: it stands for a user's brace until JSON is written.
_JSON = json.JSONEncoder(separators=(",", ":")).encode
_BRACE = "\ufdd0"


@dataclass(frozen=True, slots=True)
class Template:
    """A text of ours in which the agent replaces ``{work}``, ``{python}`` and the like. All other texts are users'."""

    text: str
    rest: str = ""
    """A user's text that follows."""


def line(fields: Mapping[str, object]) -> str:
    r"""One line of ASCII JSON. A user's ``{`` is written ``\u007b``, so a folder named ``{work}`` is not replaced."""
    guarded = {name: value if type(value) is int else _guard(value) for name, value in fields.items()}
    return _JSON(guarded).replace("\\ufdd0", "\\u007b")


def _guard(value: object) -> Any:
    if isinstance(value, str):
        return value.replace("{", _BRACE)
    if isinstance(value, int | float | None):
        return value
    if isinstance(value, Template):
        return value.text + value.rest.replace("{", _BRACE)
    if isinstance(value, Mapping):
        return {_guard(name): _guard(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_guard(item) for item in value]
    return value


def numbered(text: str, index: int) -> str:
    """``text`` with ``${task.index}`` replaced by the number the user knows the task by."""
    return text.replace(TASK_INDEX, str(index)) if TASK_INDEX in text else text
