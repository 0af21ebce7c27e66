"""Where the public traces lie that some tests read: ``SHISUAN_TRACES``, or a folder beside the checkout."""

import os
from pathlib import Path

import pytest

BESIDE = Path(__file__).parents[2] / "shared" / "data"


def traces(*parts: str) -> Path:
    """The folder of traces, or a file in it. Skips the test when it is not there."""
    named = os.environ.get("SHISUAN_TRACES", "")
    folder = Path(named) if named else BESIDE
    found = folder.joinpath(*parts)
    if not found.exists():
        pytest.skip(f"needs the public traces: {found} is missing (SHISUAN_TRACES names their folder)")
    return folder
