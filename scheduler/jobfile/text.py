"""YAML text to a plain tree, defensively: bounded size, depth, nodes and aliases; no tags, no duplicate keys.

Scalars follow the YAML 1.2 core schema (yaml.org/spec/1.2.2 §10.3): ``no``, ``on``, ``1:30`` and dates are texts,
``010`` is ten. JSON is YAML, so JSON files work too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from scheduler.model.errors import InvalidInput, Problem

MAX_BYTES = 1_048_576
MAX_DEPTH = 32
MAX_NODES = 50_000
"""Counted after aliases are expanded: this is what stops a 'billion laughs' bomb."""
MAX_ALIASES = 64

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)


def parse(text: str | bytes) -> dict[str, Any]:
    """The file's one mapping. Raises InvalidInput with exactly one problem."""
    decoded = _decode(text)
    try:
        tree = _Builder(yaml.parse(decoded, Loader=_LOADER)).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise _refuse(f"is not YAML: {_said(error, decoded)}{where}") from None
    except yaml.YAMLError as error:
        raise _refuse(f"is not YAML: {str(error).splitlines()[0]}") from None
    if tree is None:
        raise _refuse("is empty")
    if not isinstance(tree, dict):
        wide = "; its colons are the full-width '：', YAML's is ': '" if "：" in str(tree) else ""
        raise _refuse(f"must be a mapping of fields such as 'kind: CommandJob', not {_noun(tree)}{wide}")
    return tree


_LAYOUT = ("expected '-' indicator", "expected key", "mapping values are not allowed", "block collection")
"""Parts of what the YAML library says when a line is not indented like its neighbours."""


def _said(error: yaml.MarkedYAMLError, text: str) -> str:
    """What the library found, with what it mostly means."""
    problem, mark = str(error.problem or error.context), error.problem_mark
    lines = text.splitlines()
    if mark and mark.line < len(lines) and lines[mark.line][mark.column : mark.column + 1] == "\t":
        return "a tab, where only spaces may indent"
    if any(part in problem for part in _LAYOUT):
        return f"{problem}; is the line indented like its neighbours?"
    return problem


def _refuse(message: str) -> InvalidInput:
    return InvalidInput([Problem("", f"the job file {message}")])


def _decode(text: str | bytes) -> str:
    try:
        raw = text if isinstance(text, bytes) else text.encode()
        if len(raw) > MAX_BYTES:
            raise _refuse(f"has {len(raw):,} bytes; the limit is {MAX_BYTES:,} (1 MiB)")
        return raw.decode("utf-8-sig")
    except UnicodeError as error:
        raise _refuse(f"is not UTF-8 text: {error.reason if hasattr(error, 'reason') else error}") from None


def _noun(tree: object) -> str:
    return "a list" if isinstance(tree, list) else f"the single value {str(tree)[:40]!r}"


@dataclass(slots=True)
class _Anchor:
    value: Any = None
    nodes: int = 0
    complete: bool = False


@dataclass(slots=True)
class _Builder:
    """Events to a tree; the recursion is bounded by MAX_DEPTH."""

    events: Iterator[Any]
    nodes: int = 0
    aliases: int = 0
    anchors: dict[str, _Anchor] = field(default_factory=dict)

    def document(self) -> Any:
        tree: Any = None
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _refuse(f"holds more than one document ('---' in {_line(event)}); submit them one by one")
                tree = self._node(next(self.events), 0)
        return tree

    def _node(self, event: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise _refuse(f"is nested deeper than {MAX_DEPTH} levels in {_line(event)}")
        self._count(1)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, depth)
        if event.tag is not None:
            raise _refuse(f"uses the tag {event.tag!r} in {_line(event)}; tags are not allowed")
        anchor = _Anchor()
        if event.anchor is not None:
            self.anchors[event.anchor] = anchor
        before = self.nodes
        if isinstance(event, yaml.ScalarEvent):
            anchor.value = _scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            anchor.value = self._sequence(depth)
        else:
            anchor.value = self._mapping(depth)
        anchor.nodes, anchor.complete = self.nodes - before, True
        return anchor.value

    def _count(self, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise _refuse(f"holds more than {MAX_NODES:,} values (aliases expanded)")

    def _alias(self, event: Any, depth: int) -> Any:
        self.aliases += 1
        if self.aliases > MAX_ALIASES:
            raise _refuse(f"uses more than {MAX_ALIASES} aliases ('*{event.anchor}' in {_line(event)})")
        anchor = self.anchors.get(event.anchor)
        if anchor is None:
            raise _refuse(f"uses the alias '*{event.anchor}' in {_line(event)}, which is defined nowhere before")
        if not anchor.complete:
            raise _refuse(f"uses the alias '*{event.anchor}' in {_line(event)} inside itself")
        self._count(anchor.nodes)
        if depth + _height(anchor.value) > MAX_DEPTH:
            raise _refuse(f"is nested deeper than {MAX_DEPTH} levels through '*{event.anchor}' in {_line(event)}")
        return anchor.value

    def _sequence(self, depth: int) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return items

    def _mapping(self, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: list[dict[str, Any]] = []
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.tag is not None or event.anchor is not None:
                raise _refuse(f"has a key that is not a plain name in {_line(event)}")
            value = self._node(next(self.events), depth + 1)
            if event.value == "<<" and event.implicit[0]:
                merged.extend(_merge_sources(value, event))
            elif event.value in own:
                raise _refuse(f"has the key {_text(event)[:60]!r} twice in one mapping (again in {_line(event)})")
            else:
                own[_text(event)] = value
        for source in merged:
            self._count(len(source))
            own = source | own
        return own


def _height(value: Any) -> int:
    """Levels below ``value``; itself bounded, because every anchored value passed the depth check."""
    if not isinstance(value, list | dict) or not value:
        return 0
    return 1 + max(map(_height, value.values() if isinstance(value, dict) else value))


def _merge_sources(value: Any, event: Any) -> list[dict[str, Any]]:
    sources = value if isinstance(value, list) else [value]
    if not all(isinstance(source, dict) for source in sources):
        raise _refuse(f"merges ('<<') something that is not a mapping in {_line(event)}")
    return sources


def _line(event: Any) -> str:
    return f"line {event.start_mark.line + 1}"


def _text(event: Any) -> str:
    value: str = event.value
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise _refuse(f"holds a character that no program can take (NUL or half a surrogate pair) in {_line(event)}")
    return value


def _scalar(event: Any) -> Any:
    value = _text(event)
    if not event.implicit[0]:
        return value
    if value in _WORDS:
        return _WORDS[value]
    if _INT.fullmatch(value):
        return int(value)
    if _NOT_FINITE.fullmatch(value):
        raise _refuse(f"holds {value!r} in {_line(event)}, which is not a number anybody can use")
    if _FLOAT.fullmatch(value) and not value.lstrip("+-").isdigit():
        number = float(value)
        if math.isinf(number):
            raise _refuse(f"holds the number {value[:40]!r} in {_line(event)}, which is too large")
        return number
    return value
