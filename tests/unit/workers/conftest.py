from __future__ import annotations

import pytest

from tests.unit.workers.helpers import Reader, agent


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def run(home):
    """A started agent and its reader; every agent made is closed."""
    made = []

    def start(home=home, **fields):
        one = agent(home, **fields)
        made.append(one)
        return one, Reader(one)

    yield start
    for one in made:
        one.close()
