from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.media import FrameRange
from scheduler.jobfile import quantity
from scheduler.jobfile.quantity import Cards, Malformed


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        (8, 8192), ("8", 8192), ("8+", 8192), ("8GiB", 8192), ("8Gi", 8192), ("8 GiB", 8192), ("512MiB", 512),
        (0.5, 512), ("512Mi", 512), ("1TiB", 1_048_576), ("8GB", 7630), ("1k", 1), ("1KiB", 1), ("1.5GiB", 1536),
    ],
)  # fmt: skip
def test_memory_is_counted_in_mib_rounded_up(text, mib):
    assert quantity.memory_mib(text) == mib


@pytest.mark.parametrize("wrong", [True, None, "", "GiB", "-8GiB", "8XiB", 0, "0", "1e30", "65TiB", [], {}])
def test_other_memory_is_refused(wrong):
    with pytest.raises(Malformed):
        quantity.memory_mib(wrong)


@pytest.mark.parametrize(
    ("text", "milli"), [(4, 4000), ("4", 4000), ("4+", 4000), (0.5, 500), ("0.125", 125), (0.001, 1)]
)
def test_cpus_are_counted_in_thousandths(text, milli):
    assert quantity.cpu_milli(text) == milli


@pytest.mark.parametrize("wrong", [True, None, "", "four", 0, -1, 0.0001, "1e999999999", 5000, float("nan"), [4]])
def test_other_cpus_are_refused(wrong):
    with pytest.raises(Malformed):
        quantity.cpu_milli(wrong)


@pytest.mark.parametrize(
    ("text", "ms"),
    [("500ms", 500), ("90s", 90_000), ("30m", 1_800_000), ("1h30m", 5_400_000), ("1h 30m", 5_400_000),
     ("2d", 172_800_000), (90, 90_000)],
)  # fmt: skip
def test_durations(text, ms):
    assert quantity.duration_ms(text) == ms


@pytest.mark.parametrize("wrong", ["", "0s", 0, -1, "30", "m", "30 minutes", "366d", True, 1.5, None, "-5m", "٣s"])
def test_other_durations_are_refused(wrong):
    with pytest.raises(Malformed):
        quantity.duration_ms(wrong)


@pytest.mark.parametrize(
    ("wish", "cards"),
    [
        ("H100:8", Cards(("H100",), 8)),
        ("H100", Cards(("H100",), 1)),
        ({"H100": 8}, Cards(("H100",), 8)),
        (2, Cards((), 2)),
        ("2", Cards((), 2)),
        ("0.5", Cards((), 0, 500)),
        (0.5, Cards((), 0, 500)),
        ("L40S:0.5", Cards(("L40S",), 0, 500)),
        ({"L40S": 0.25}, Cards(("L40S",), 0, 250)),
        ("1g.10gb:2", Cards((), 2, 0, "1g.10gb")),
        ("1g.10gb", Cards((), 1, 0, "1g.10gb")),
        ("1c.3g.40gb", Cards((), 1, 0, "1c.3g.40gb")),
        ("1g.10gb+me:1", Cards((), 1, 0, "1g.10gb+me")),
        (["H100:8", "A100:8"], Cards(("H100", "A100"), 8)),
        ({"H100": 2, "A100": 2}, Cards(("H100", "A100"), 2)),
        ("auto", Cards((), 1, auto=True)),
    ],
)
def test_cards_in_skypilots_spelling(wish, cards):
    assert quantity.cards(wish) == cards


@pytest.mark.parametrize(
    "wrong",
    [0, -1, 1.5, "H100:", "H100:x", "H100:-1", ":8", [], {}, ["H100:1", "A100:2"], True, None, 0.0001, [[1]], 99_999],
)
def test_other_cards_are_refused(wrong):
    with pytest.raises(Malformed):
        quantity.cards(wrong)


def test_array_spellings_agree():
    assert quantity.array("0-239%16") == quantity.array({"count": 240, "max_parallel": 16})
    assert quantity.array(4) == quantity.array("0-3")
    assert list(quantity.array("1,5,10-20x5").indices) == [1, 5, 10, 15, 20]


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(1, 9)), min_size=1, max_size=5))
def test_frames_mean_what_they_say(spans):
    text = ",".join(f"{min(a, b)}-{max(a, b)}x{step}" for a, b, step in spans)
    meant = [number for a, b, step in spans for number in range(min(a, b), max(a, b) + 1, step)]
    if len(set(meant)) < len(meant):
        with pytest.raises(Malformed, match="named twice"):
            quantity.frames(text)
        return
    found = quantity.frames(text)
    assert list(found) == meant
    assert len(found) == len(meant)
    assert [found.at(index) for index in range(len(meant))] == meant
    assert list(FrameRange.parse(str(found))) == meant


@pytest.mark.parametrize(
    "wrong", ["", "a", "1-", "-1", "2-1", "1-5x0", "1,,2", "9999999999", True, None, [], [True], {}, 1.5]
)
def test_other_frames_are_refused(wrong):
    with pytest.raises(Malformed):
        quantity.frames(wrong)


def test_deadlines_are_instants_in_utc():
    east = datetime(2030, 1, 31, 9, tzinfo=timezone(timedelta(hours=8)))
    assert quantity.deadline("2030-01-31T09:00:00+08:00").instant_ms(5) == int(east.timestamp()) * 1000
    assert quantity.deadline("2030-01-31T01:00:00Z").instant_ms(5) == int(east.astimezone(UTC).timestamp()) * 1000
    assert quantity.deadline("+6h").instant_ms(5) == 5 + 6 * 3_600_000


def test_resolution_spellings_agree():
    assert quantity.resolution("320x180") == quantity.resolution([320, 180]) == (320, 180)


@pytest.mark.parametrize("wrong", ["320", [320], [320, 180, 1], [320.0, 180], "3x180", [True, 180], None, 320])
def test_other_resolutions_are_refused(wrong):
    with pytest.raises(Malformed):
        quantity.resolution(wrong)


def test_priorities_have_names():
    assert [quantity.priority(name) for name in ("low", "Normal", "high", "urgent", 0, 100)] == [30, 50, 70, 90, 0, 100]
