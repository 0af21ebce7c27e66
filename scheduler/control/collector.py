"""Python's collector of cyclic garbage, in a process that holds hundreds of thousands of records."""

from __future__ import annotations

import gc

COLLECTOR_THRESHOLD = (500_000, 20, 100)
"""Objects made and not freed before the youngest are looked at, and how many looks before the older and oldest are."""


def spare_collector() -> None:
    """It visits every record there is, again and again: with 140,000 leases a third of a second each time. Records hold
    no cycles: it is to look rarely, and (``gc.freeze``) not at what was loaded.
    """
    gc.set_threshold(*COLLECTOR_THRESHOLD)
