import pytest

from k8s.backoff import Backoff

BACKOFF = Backoff(first_s=1, most_s=8, asked_most_s=20)


@pytest.mark.parametrize(
    ("failures", "draw", "asked_s", "wait_s"),
    [
        (1, 0.0, 0, 0.5),
        (1, 0.5, 0, 0.75),
        (3, 0.0, 0, 2),
        (4, 0.0, 0, 4),
        (9_999, 0.5, 0, 6),
        (1, 0.0, 5, 5),
        (1, 0.8, 5, 6),
        (1, 0.0, 3_600, 20),
    ],
)
def test_waits_double_to_a_limit_and_half_of_each_is_drawn(failures, draw, asked_s, wait_s):
    assert BACKOFF.wait_s(failures, draw, asked_s) == pytest.approx(wait_s)
