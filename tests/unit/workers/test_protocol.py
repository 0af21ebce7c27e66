from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.protocol import LineParser, Message, MessageKind, parse_line


def progress(milli):
    return Message(kind=MessageKind.PROGRESS, milli=milli)


@pytest.mark.parametrize(
    ("text", "milli"),
    [
        (b"0", 0),
        (b"42", 420),
        (b"42.5", 425),
        (b"99.99", 999),
        (b"100", 1000),
        (b"250", 1000),
        (b"7 %", 70),
    ],
)
def test_progress_is_thousandths(text, milli):
    assert parse_line(b"shisuan_progress: " + text) == progress(milli)


@pytest.mark.parametrize("text", [b"", b"-1", b"nan", b"1e2", b"1.x", b"half", "½".encode(), "１２".encode()])
def test_progress_that_is_no_percentage_is_log(text):
    assert parse_line(b"shisuan_progress: " + text) is None


@pytest.mark.parametrize(
    "line",
    [
        b"hello",
        b" shisuan_fail: x",
        b"shisuan_fail x",
        b"shisuan_other: x",
        b"",
        b"shisuan_",
    ],
)
def test_other_lines_are_log(line):
    assert parse_line(line) is None


def test_done_is_canonical_json():
    assert parse_line(b'shisuan_done: {"b": 1, "a": "\xe5\xb8\xa7"}').text == '{"a":"帧","b":1}'
    assert parse_line(b"shisuan_done:").text == "{}"


@pytest.mark.parametrize("bad", [b"{", b"[" * 100_000, b"x" * 70_000])
def test_done_that_cannot_be_read_is_a_failure(bad):
    assert parse_line(b"shisuan_done: " + bad[:100_000]).kind is MessageKind.FAIL


def test_invalid_utf8_is_replaced():
    assert parse_line(b"shisuan_fail: \xff\xfe broken").text == "�� broken"


def test_a_long_status_is_cut_and_a_long_log_line_not_kept():
    parser = LineParser(max_line_bytes=100)
    assert parser.feed(b"shisuan_status: " + b"x" * 1000) == []
    [message] = parser.feed(b"yy\nshisuan_progress: 5\n")[:1]
    assert message.kind is MessageKind.STATUS
    assert len(message.text) <= 100
    assert parser.feed(b"z" * 10_000) == []
    assert len(parser._held) <= 101
    assert parser.feed(b"shisuan_fail: not at a line's start\n") == []


def test_a_last_line_without_newline_counts():
    parser = LineParser()
    parser.feed(b"x\nshisuan_fail: end")
    assert [m.text for m in parser.finish()] == ["end"]


STREAM = (
    b"log\nshisuan_progress: 10\nlog shisuan_progress: 99\n\nshisuan_status: a\r\nshisuan_shisuan_\n"
    b'shisuan_done: {"n":1}\ns'
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_how_the_stream_is_cut_does_not_matter(cuts):
    edges = [0, *sorted(cuts), len(STREAM)]
    parser = LineParser()
    heard = [m for a, b in pairwise(edges) for m in parser.feed(STREAM[a:b])]
    assert heard == [
        progress(100),
        Message(kind=MessageKind.STATUS, text="a"),
        Message(kind=MessageKind.DONE, text='{"n":1}'),
    ]


@given(st.binary(max_size=400))
def test_no_bytes_raise(data):
    parser = LineParser(max_line_bytes=64)
    parser.feed(data)
    parser.finish()
