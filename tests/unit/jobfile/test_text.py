"""YAML is an attack surface: what gets through is a small plain tree, or one clear refusal."""

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scheduler.jobfile.text import MAX_BYTES, MAX_DEPTH, parse
from scheduler.model.errors import InvalidInput

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)

REFUSALS = {
    "empty": ("", "the job file is empty"),
    "comment only": ("# nothing\n", "the job file is empty"),
    "a list": ("- a", "the job file must be a mapping of fields such as 'kind: CommandJob', not a list"),
    "a word": (
        "hello",
        "the job file must be a mapping of fields such as 'kind: CommandJob', not the single value 'hello'",
    ),
    "two documents": (
        "a: 1\n---\nb: 2\n",
        "the job file holds more than one document ('---' in line 2); submit them one by one",
    ),
    "a key twice": ("a: 1\nb: 2\na: 3", "the job file has the key 'a' twice in one mapping (again in line 3)"),
    "a deep key twice": ("a: {b: 1, b: 2}", "the job file has the key 'b' twice in one mapping (again in line 1)"),
    "a tag": (
        "a: !!python/object/apply:os.system ['true']",
        "the job file uses the tag 'tag:yaml.org,2002:python/object/apply:os.system' in line 1; tags are not allowed",
    ),
    "not a number": ("a: .nan", "the job file holds '.nan' in line 1, which is not a number anybody can use"),
    "infinite": ("a: -.INF", "the job file holds '-.INF' in line 1, which is not a number anybody can use"),
    "too large a number": ("a: 1e999", "the job file holds the number '1e999' in line 1, which is too large"),
    "unknown alias": ("a: *b", "the job file uses the alias '*b' in line 1, which is defined nowhere before"),
    "an alias inside itself": ("a: &a [*a]", "the job file uses the alias '*a' in line 1 inside itself"),
    "a bomb": (BOMB, "the job file holds more than 50,000 values (aliases expanded)"),
    "many aliases": (
        "a: &a 1\nb: [" + "*a, " * 65 + "]",
        "the job file uses more than 64 aliases ('*a' in line 2)",
    ),
    "deep": ("a: " + "[" * 40 + "]" * 40, "the job file is nested deeper than 32 levels in line 1"),
    "deep through aliases": (
        "a: &a " + "[" * 20 + "]" * 20 + "\nb: " + "[" * 20 + "*a" + "]" * 20,
        "the job file is nested deeper than 32 levels through '*a' in line 2",
    ),
    "many values": ("a: [" + "1," * 60_000 + "]", "the job file holds more than 50,000 values (aliases expanded)"),
    "10 MB": ("a: " + "x" * 10_485_757, "the job file has 10,485,760 bytes; the limit is 1,048,576 (1 MiB)"),
    "a key that is a list": ("? [a]\n: b", "the job file has a key that is not a plain name in line 1"),
    "a merge of a word": ("<<: word", "the job file merges ('<<') something that is not a mapping in line 1"),
    "a NUL": (
        'a: "\\0"',
        "the job file holds a character that no program can take (NUL or half a surrogate pair) in line 1",
    ),
    "a tab": (
        "a:\n\t- b",
        "the job file is not YAML: a tab, where only spaces may indent (line 2, column 1)",
    ),
    "a field that is indented too far": (
        "a: 1\n  b: 2",
        "the job file is not YAML: mapping values are not allowed in this context; "
        "is the line indented like its neighbours? (line 2, column 4)",
    ),
    "a field that is indented too little": (
        "steps:\n  - name: a\n   kind: b",
        "the job file is not YAML: did not find expected '-' indicator; "
        "is the line indented like its neighbours? (line 3, column 4)",
    ),
    "Chinese colons": (
        "kind：CommandJob",
        "the job file must be a mapping of fields such as 'kind: CommandJob', not the single value 'kind：CommandJob'; "
        "its colons are the full-width '：', YAML's is ': '",
    ),
    "unclosed": (
        "a: [1, 2",
        "the job file is not YAML: did not find expected ',' or ']' (line 2, column 1)",
    ),
}


@pytest.mark.parametrize(("text", "expected"), REFUSALS.values(), ids=REFUSALS.keys())
def test_is_refused_with_one_sentence(text, expected):
    with pytest.raises(InvalidInput) as caught:
        parse(text)
    assert str(caught.value) == expected


def test_latin_1_is_refused():
    with pytest.raises(InvalidInput, match="is not UTF-8 text"):
        parse("name: é".encode("latin-1"))


VALUES = {
    "no": "no",
    "on": "on",
    "Off": "Off",
    "y": "y",
    "true": True,
    "FALSE": False,
    "~": None,
    "": None,
    "010": 10,
    "0x10": "0x10",
    "1_000": "1_000",
    "1:30": "1:30",
    "12:30:45": "12:30:45",
    "2030-01-31": "2030-01-31",
    "1.50": 1.5,
    "1e3": 1000.0,
    "-7": -7,
    "+6h": "+6h",
    "'7'": "7",
    '"true"': "true",
    "12345678901234567890": "12345678901234567890",
    "H100:8": "H100:8",
    "=": "=",
    "{a: no}": {"a": "no"},
}


@pytest.mark.parametrize(("text", "expected"), VALUES.items())
def test_scalars_follow_yaml_1_2(text, expected):
    value = parse(f"a: {text}")["a"]
    assert (value, type(value)) == (expected, type(expected))


def test_keys_are_texts():
    assert parse("no: 1\n1: 2\ntrue: 3") == {"no": 1, "1": 2, "true": 3}


def test_anchors_and_merges_within_reason():
    tree = parse("base: &base {cpus: 2, memory: 1GiB}\na: *base\nb: {<<: *base, cpus: 4}\nc: {<<: [*base, {x: 1}]}")
    assert tree["a"] == {"cpus": 2, "memory": "1GiB"}
    assert tree["b"] == {"cpus": 4, "memory": "1GiB"}
    assert tree["c"] == {"cpus": 2, "memory": "1GiB", "x": 1}


def test_json_and_a_byte_order_mark_are_yaml():
    assert parse(b'\xef\xbb\xbf{"a": [1, "\xe8\xa7\x86"]}') == {"a": [1, "视"]}


def is_plain(tree, depth=0):
    assert depth <= MAX_DEPTH + 1
    if isinstance(tree, dict):
        return all(type(name) is str and is_plain(item, depth + 1) for name, item in tree.items())
    if isinstance(tree, list):
        return all(is_plain(item, depth + 1) for item in tree)
    return tree is None or type(tree) in (str, int, bool) or (type(tree) is float and math.isfinite(tree))


# Characters that mean something to YAML, so that the fuzz reaches beyond the first token.
YAMLISH = st.text(st.sampled_from("ab1.:-?[]{},&*!|>'\"%@`#~<\n \t\\x0eInNf_é\u2028\ud800"), max_size=60)


@given(st.one_of(st.text(), YAMLISH, st.binary()))
@example("? a")
@example("a: &a\n  <<: *a")
@example("%YAML 9.9\n---\na: 1")
@example("a: &x\nb: *x\n<<: *x")
@example('"\\ud800": 1')
@settings(max_examples=400, deadline=None)
def test_nothing_but_a_plain_tree_or_one_problem_comes_out(text):
    tree, problems = {}, 1
    try:
        tree = parse(text)
    except InvalidInput as refusal:
        problems = len(refusal.problems)
    assert problems == 1
    assert is_plain(tree)


def test_the_size_limit_is_exact():
    assert parse("a: ".ljust(MAX_BYTES, "x"))
    with pytest.raises(InvalidInput, match="1,048,577 bytes"):
        parse("a: ".ljust(MAX_BYTES + 1, "x"))
