"""A world per test."""

import pytest

from tests.unit.control.world import World


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.close()
