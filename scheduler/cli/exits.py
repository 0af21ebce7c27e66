"""Exit codes: the result of a job, or why there is none. Scripts rely on these numbers; they do not change."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What the shell sees."""

    SUCCEEDED = 0
    """Done; with a watched job: it succeeded."""
    FAILED = 1
    """The watched job failed; a step of the demo failed; ``doctor`` found something required missing."""
    REFUSED = 2
    """The request is wrong: the command line, or the job file, or a verb that does not fit. The message says what."""
    CANCELLED = 3
    """The watched job was cancelled."""
    UNREACHABLE = 4
    """No service answers here."""
    INTERRUPTED = 130
    """Ctrl-C. A watched job goes on."""


_OF_STATE = {"succeeded": Exit.SUCCEEDED, "failed": Exit.FAILED, "cancelled": Exit.CANCELLED}

TABLE = (
    (Exit.SUCCEEDED, "done; a watched job: succeeded"),
    (Exit.FAILED, "the watched job failed, or a check did"),
    (Exit.REFUSED, "the command line or the job file is wrong"),
    (Exit.CANCELLED, "the watched job was cancelled"),
    (Exit.UNREACHABLE, "no service answers"),
    (Exit.INTERRUPTED, "Ctrl-C (the job goes on)"),
)


def of_state(state: str) -> Exit:
    """The exit code of a final job state."""
    return _OF_STATE[state]


class CliError(Exception):
    """Ends the command: one message for the user, no stack trace."""

    def __init__(self, message: str, code: Exit = Exit.REFUSED) -> None:
        self.code = code
        super().__init__(message)


class Unreachable(CliError):
    """The service did not answer; it may come back."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Exit.UNREACHABLE)
