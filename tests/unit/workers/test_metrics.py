import json

import pytest

from workers.listener import Listener
from workers.metrics import MAX_POINTS, Series, is_loss, not_finite
from workers.process import LogWriter
from workers.protocol import Message, MessageKind, parse_line

NAN, INF = float("nan"), float("inf")


def series(*points, most=MAX_POINTS):
    made = Series(most)
    for at, values in enumerate(points):
        made.take(tuple(values.items()), at)
    return made


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b'shisuan_metric: {"step": 4, "loss": 2.5}', (("step", 4), ("loss", 2.5))),
        (b'shisuan_metric: {"loss": 2.5}[rank1] a warning that slipped in', (("loss", 2.5),)),
        (b'shisuan_metric: {"step": 4, "name": "x", "on": true, "deep": {}}', (("step", 4),)),
        (b'shisuan_metric: {"loss": "inf"}', (("loss", INF),)),
        (b"shisuan_metric: [1]", None),
        (b"shisuan_metric: {", None),
        (b"shisuan_metric: {}", None),
        (b'shisuan_metric: {"step": 1' + b"0" * 400 + b"}", None),
        (b"shisuan_metric: " + b"[" * 60_000, None),
    ],
)
def test_a_metric_line_is_numbers_by_name(line, expected):
    message = parse_line(line)
    assert (message and message.values) == expected


def test_more_than_enough_metrics_are_cut():
    message = parse_line(b"shisuan_metric: " + json.dumps({f"m{i}": i for i in range(99)}).encode())
    assert len(message.values) == 16


@pytest.mark.parametrize("text", ["NaN", '"nan"', "Infinity", "-Infinity", '"-inf"'])
def test_a_loss_that_is_not_finite_is_seen_however_it_is_written(text):
    message = parse_line(f'shisuan_metric: {{"step": 3, "val_loss": {text}}}'.encode())
    assert not_finite(message.values)[0] == "val_loss"


def test_only_a_loss_must_be_finite():
    assert is_loss("loss/train")
    assert not_finite((("grad_norm", INF), ("loss", 2.0))) is None


@pytest.mark.parametrize(
    ("line", "step"),
    [
        (b"shisuan_checkpoint: 40", 40),
        (b"shisuan_checkpoint: 40[W1126 a warning", 40),
        (b"shisuan_checkpoint: step-40", None),
        (b"shisuan_checkpoint: -1", None),
        (b"shisuan_checkpoint: " + b"9" * 16, None),
    ],
)
def test_a_checkpoint_line_is_a_step(line, step):
    assert parse_line(line) == (None if step is None else Message(kind=MessageKind.CHECKPOINT, step=step))


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 12_345])
def test_a_series_stays_small_and_keeps_its_ends(count):
    points = series(*({"step": i, "loss": 1 / (i + 1)} for i in range(count))).points()
    steps = [point["step"] for point in points]
    assert min(count, 250) <= len(points) <= MAX_POINTS
    assert steps[:1] + steps[-1:] == ([0, count - 1] if count else [])
    assert steps == sorted(set(steps))
    assert all(point.keys() == {"step", "loss", "ms"} for point in points)


def test_what_is_not_finite_is_left_out():
    points = series({"step": 1, "loss": 2.123456789}, {"step": 2, "loss": NAN, "extra": 3}).points()
    assert points == [{"step": 1, "loss": 2.123457, "ms": 0}, {"step": 2, "extra": 3, "ms": 1}]


@pytest.mark.parametrize(
    ("losses", "good", "bad"), [([2, 1], 1, False), ([2, NAN], 0, True), ([INF, 1], -1, True), ([2, NAN, 1], 0, True)]
)
def test_the_last_good_step_is_the_one_before_the_first_bad(losses, good, bad):
    made = series(*({"step": at, "loss": loss} for at, loss in enumerate(losses)))
    assert (made.good_step, made.bad) == (good, bad)


def test_the_newest_numbers_in_words():
    made = series({"step": 1_200, "val_loss": 2.34567, "tokens_per_s": 8_412.5})
    assert made.last() == "step 1,200, val loss 2.346, 8,412 tokens/s"


def test_the_agent_keeps_the_series_beside_the_runners_own_result(tmp_path):
    heard = []
    listener = Listener(
        LogWriter(tmp_path / "log", 1_000), lambda _: None, heard.append, lambda step: heard.append(-step)
    )
    listener.feed(b'shisuan_metric: {"step": 3, "loss": 2}\nshisuan_checkpoint: 3\nshisuan_metric: {"loss": NaN}\n')
    listener.feed(b'shisuan_metric: {"loss": NaN}\nshisuan_done: {"parameters": 7}\n')
    listener.finish()
    assert heard == [3, -3]
    facts = json.loads(listener.facts(resumed_from="", checkpoints=[3]))
    assert [point.get("loss") for point in facts.pop("metrics")] == [2, None, None]
    assert facts == {"parameters": 7, "checkpoints": [3]}


def test_without_metrics_the_result_is_the_runners_word_for_word(tmp_path):
    listener = Listener(LogWriter(tmp_path / "log", 1_000), lambda _: None)
    listener.feed(b"shisuan_done: [1]\n")
    assert listener.facts() == "[1]"
