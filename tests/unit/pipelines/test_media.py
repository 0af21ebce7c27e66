"""Frame arithmetic against the definitions: slow and obvious here, fast there."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.media import (
    FrameRange,
    duration_ms,
    frame_at,
    frame_name,
    parse_rate,
    rate_text,
    timecode,
    timecode_frame,
)

NTSC, FAST_NTSC = Fraction(30_000, 1_001), Fraction(60_000, 1_001)
RATES = st.sampled_from(
    [Fraction(24), Fraction(24_000, 1_001), Fraction(25), NTSC, Fraction(50), FAST_NTSC, Fraction(120)]
)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("24", Fraction(24)),
        ("23.976", Fraction(24_000, 1_001)),
        ("23.98", Fraction(24_000, 1_001)),
        ("29.97", NTSC),
        ("59.94", FAST_NTSC),
        ("24000/1001", Fraction(24_000, 1_001)),
        ("12.5", Fraction(25, 2)),
        (" 25 ", Fraction(25)),
    ],
)
def test_rates_are_exact(text, rate):
    assert parse_rate(text) == rate
    assert parse_rate(rate_text(rate)) == rate


@pytest.mark.parametrize(
    "wrong", ["", "0", "fast", "24/0", "24/00", "1/2", "1001", "-24", "1e3", "24/1/1", "٢٤", "nan"]
)
def test_other_rates_are_refused(wrong):
    with pytest.raises(ValueError, match=r"frame rate|frames per second|divides by zero"):
        parse_rate(wrong)


@given(st.integers(0, 10_000_000), RATES)
def test_frame_at_inverts_the_half_open_interval_of_a_frame(frame, rate):
    start_ms = -(-frame * 1_000 // rate)
    assert frame_at(int(start_ms), rate) == frame


def test_durations_round_to_the_nearest_ms():
    assert duration_ms(24, Fraction(24)) == 1_000
    assert duration_ms(24, Fraction(24_000, 1_001)) == 1_001
    assert duration_ms(1, Fraction(24)) == 42
    assert duration_ms(0, Fraction(24)) == 0


@given(st.integers(0, 24 * 3_600 * 23), RATES)  # less than a day at every rate, so nothing wraps
def test_timecode_comes_back(frame, rate):
    assert timecode_frame(timecode(frame, rate), rate) == frame


# SMPTE ST 12-1: two numbers go at each minute but every tenth; the last frame before, and the first after.
@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (0, "00:00:00;00"),
        (1_799, "00:00:59;29"),
        (1_800, "00:01:00;02"),
        (3_597, "00:01:59;29"),
        (3_598, "00:02:00;02"),
        (17_981, "00:09:59;29"),
        (17_982, "00:10:00;00"),
        (107_892, "01:00:00;00"),
    ],
)
def test_drop_frame_skips_numbers_never_frames(frame, text):
    assert timecode(frame, NTSC) == text
    assert timecode_frame(text, NTSC) == frame


def test_drop_frame_at_twice_the_rate_drops_twice_the_numbers():
    assert timecode(3_599, FAST_NTSC) == "00:00:59;59"
    assert timecode(3_600, FAST_NTSC) == "00:01:00;04"


def test_timecode_of_film_rates():
    assert timecode(25, Fraction(24)) == "00:00:01:01"
    assert timecode(86_400 * 24 + 1, Fraction(24)) == "00:00:00:01"


@pytest.mark.parametrize(
    "wrong", ["00:01:00;00", "00:01:00;01", "00:00:00;30", "24:00:00;00", "00:60:00;00", "1:00", ""]
)
def test_timecodes_that_do_not_exist_are_refused(wrong):
    with pytest.raises(ValueError, match="timecode"):
        timecode_frame(wrong, NTSC)


def test_ranges_keep_the_order_they_were_written_in():
    shots = FrameRange.parse("50, 1-3, 10-20x5")
    assert list(shots) == [50, 1, 2, 3, 10, 15, 20]
    assert [shots.at(i) for i in range(len(shots))] == list(shots)
    assert str(shots) == "50,1-3,10-20x5"


def test_interleaved_ranges_are_no_duplicates():
    assert len(FrameRange.parse("1-100x2,2-100x2")) == 100


@pytest.mark.parametrize(("text", "twice"), [("1-3,3", 3), ("1-100x2,2-100x2,51", 51), ("7,7", 7), ("1-9,2-3,5", 2)])
def test_a_number_named_twice_is_named(text, twice):
    with pytest.raises(ValueError, match=f"^{twice} is named twice$"):
        FrameRange.parse(text)


@pytest.mark.parametrize("index", [-1, 3, 10**9])
def test_positions_outside_are_refused(index):
    with pytest.raises(IndexError, match=r"\[0, 3\)"):
        FrameRange.parse("1-3").at(index)


def test_a_million_frames_cost_three_numbers():
    assert FrameRange.parse("1-1000000").spans == ((1, 1_000_001, 1),)


def test_names_have_four_digits_or_more():
    assert [frame_name("film", n, "exr") for n in (1, 12_345)] == ["film.0001.exr", "film.12345.exr"]
