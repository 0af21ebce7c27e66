"""Random lives of a park: whatever happens, in any order, what DESIGN §5 promises holds after every event.

Lives are made from a seed with weights, because unguided choices hardly ever get work done; a failing seed is printed.
"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.engine import evict
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


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_promise_holds_after_every_event(seed):
    live(seed, steps=60)


@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_plan_that_looks_at_no_more_of_a_kind_does_the_same_as_one_that_looks_at_all(seed):
    """As with more than 64 waiting steps, which no life here has: plans that say why look at all, and must agree."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evict, "AHEAD_MAX", 1)
        life = Life(seed)
        for _ in range(60):
            life.step()
            life.check()


@pytest.mark.soak
@pytest.mark.timeout(1_200)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_every_promise_holds_in_long_lives(seed):
    live(seed, steps=150)
