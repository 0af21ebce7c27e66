"""How long a task that failed waits for its next attempt."""

from __future__ import annotations

from zlib import crc32

from scheduler.model.job import Step

SPREAD = 4
"""Waits are spread over their last quarter."""
_HASHES = 1 << 32


def backoff_ms(step: Step, task: str, failures: int) -> int:
    """The wait after so many failures of a task in a row, each its own fault: exponential, with a cap.

    ``min(backoff_max_ms, backoff_ms * 2 ** (failures - 1))``, of which up to a quarter is left out. How much depends on
    the task and the number of failures alone, so that tasks which failed together do not all come back together and a
    replay finds the same instants. (Random waits do this best: M. Brooker, "Exponential Backoff And Jitter", AWS
    Architecture Blog, 2015; ours have to be drawn from names.) ``task``: what names it among all.
    """
    if not step.backoff_ms or failures < 1:
        return 0
    whole_ms = step.backoff_ms << failures - 1
    if step.backoff_max_ms:
        whole_ms = min(whole_ms, step.backoff_max_ms)
    return whole_ms - whole_ms * crc32(f"{task}.{failures}".encode()) // (_HASHES * SPREAD)
