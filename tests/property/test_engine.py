"""Random lives of a park: whatever happens, in any order, what DESIGN §5 promises holds after every event.

Lives are made from a seed with weights, because unguided choices hardly ever get work done; a failing seed is printed.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.life import Life


def live(seed, steps):
    life = Life(seed)
    for _ in range(steps):
        life.step()
        life.check()
    life.check_replay()
    life.check_usage()
    life.check_everything_can_end()
    life.check()
    life.check_usage()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_promise_holds_after_every_event(seed):
    live(seed, steps=60)


@pytest.mark.soak
@pytest.mark.timeout(1_200)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_promise_holds_in_long_lives(seed):
    live(seed, steps=150)
