"""The rollouts of ``fragment`` side by side: all series of a class at once, one machine lane each.

Same values as filling one series after the other (a property test holds them together), in a fraction of the time: the
loops over lanes have no branches, so they become vector instructions.
"""

from __future__ import annotations

import numpy as np
from numba import njit

WHOLE_MILLI = 1_000
LANES = 16
SLOTS_MOST = 16
"""Nodes with more device slots are filled one series after the other."""
NEVER_MILLI = 30_000
"""What a draw that could not run on the class asks of a card."""
