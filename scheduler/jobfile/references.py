"""``${steps.NAME.outputs}``, ``${job.id}``, ``${job.name}``, ``${job.dir}`` and ``${task.index}`` in users' texts.

Only ``${`` followed by one of those words and a dot is ours; shells' own ``${HOME}`` passes through untouched.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches

from pipelines.request import TASK_INDEX
from scheduler.jobfile.quantity import Malformed

JOB_ID = "${job.id}"
"""Left in place until the job has its id."""
_OURS = re.compile(r"\$\{(?:steps|job|task)\.[^{}]{0,200}\}")
_STEP = re.compile(r"\$\{steps\.([^.{}]*)\.outputs\}")
_ANY = re.compile(r"\$\{[^{}]*\}")
JOB_NAME = "${job.name}"
JOB_DIR = "${job.dir}"
_KNOWN = (JOB_ID, JOB_NAME, JOB_DIR, TASK_INDEX, "${steps.NAME.outputs}")


def steps_in(text: str) -> tuple[str, ...]:
    """Names of the steps whose outputs ``text`` refers to, in order, each once."""
    return tuple(dict.fromkeys(_STEP.findall(text)))


def replace(
    text: str, values: Mapping[str, str], outputs: Callable[[str], str] | None, *, kept: Sequence[str] = ()
) -> str:
    """``text`` with every reference of ours replaced.

    ``values`` maps whole references to texts, ``outputs`` gives a step's output path (None: no step may be named),
    and ``kept`` references stay for later. Raises Malformed for a reference that is none of these.
    """

    def one(match: re.Match[str]) -> str:
        reference = match[0]
        step = _STEP.fullmatch(reference)
        if reference in kept:
            return reference
        if reference in values:
            return values[reference]
        if step is None or outputs is None:
            usable = (*values, *kept, *(("${steps.NAME.outputs}",) if outputs else ()))
            raise _unusable(reference, usable)
        return outputs(step[1])

    return _OURS.sub(one, text)


def strict(text: str) -> None:
    """Refuse, in a path, any ``${…}`` that is not ours: no shell will ever expand it there. Raises Malformed."""
    for match in _ANY.finditer(text):
        if _OURS.fullmatch(match[0]) is None:
            raise _unusable(match[0], _KNOWN)


def _unusable(reference: str, usable: Sequence[str]) -> Malformed:
    close = get_close_matches(reference, usable, n=1)
    return Malformed(f"{reference} is not a reference that can be used here", usable, close[0] if close else "")
