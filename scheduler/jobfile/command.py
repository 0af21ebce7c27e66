"""The job file that ``submit -- CMD`` stands for, so that a command line goes through the same door as a file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from scheduler.jobfile.jobfields import API_VERSION

_PLAIN = re.compile(r"[A-Za-z0-9_./+@%,:-]+", re.ASCII)
# JSON is YAML but for these: YAML takes them for line breaks, or refuses them unescaped (yaml.org/spec/1.2.2 §5.1).
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufdd0\ufeff\ufffe\uffff]")


def command(
    argv: Sequence[str],
    *,
    name: str = "",
    queue: str | None = None,
    priority: int | str | None = None,
    deadline: str | None = None,
    after: Sequence[str] = (),
    cpus: float | str | None = None,
    memory: float | str | None = None,
    accelerators: float | str | None = None,
    num_nodes: int | None = None,
    array: int | str | None = None,
    retries: int | None = None,
    timeout: int | str | None = None,
    env: Mapping[str, str] | None = None,
    outputs: str | None = None,
    output_files: Sequence[str] = (),
) -> str:
    """A CommandJob's YAML. One word in ``argv`` is a shell text, more are a program with its arguments.

    A lone word that no shell would touch is a program too. Values are checked by ``read``, not here; what is None or
    empty is left out.
    """
    held = {"cpus": cpus, "memory": memory, "accelerators": accelerators}
    fields = {
        "apiVersion": API_VERSION,
        "kind": "CommandJob",
        "name": name or _name(argv),
        "queue": queue,
        "priority": priority,
        "deadline": deadline,
        "after": list(after),
        "run": argv[0] if len(argv) == 1 and _PLAIN.fullmatch(argv[0]) is None else list(argv),
        "array": array,
        "num_nodes": num_nodes,
        "retries": retries,
        "timeout": timeout,
        "env": dict(env or {}),
        "outputs": outputs,
        "output_files": list(output_files),
        "resources": {field: value for field, value in held.items() if value not in (None, "")},
    }
    kept = {field: value for field, value in fields.items() if value not in (None, "", [], {})}
    return "".join(f"{field}: {_value(value)}\n" for field, value in kept.items())


def _name(argv: Sequence[str]) -> str:
    """``python`` for ``/usr/bin/python train.py``: what ``ps`` would call it."""
    words = argv[0].split() if argv else []
    name = re.sub(r"[^\w.-]+", "-", words[0].rpartition("/")[2]).strip("-.") if words else ""
    return name[:40] or "command"


def _value(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
