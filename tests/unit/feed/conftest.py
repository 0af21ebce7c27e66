import pytest

from tests.unit.feed.park import Park


@pytest.fixture
def park(tmp_path):
    made = Park(tmp_path)
    yield made
    made.close()
