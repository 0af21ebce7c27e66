"""Frozen dataclasses to JSON values and back, driven by their annotations. One codec for journal, snapshot and wire.

Fields equal to their default are left out, so adding a field with a default needs no new event version. Unions of
dataclasses are tagged with ``"is"``. Unknown fields are refused: they mean the writer is newer than the reader.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Callable
from enum import Enum
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


def encode(value: object, *, tagged: bool = False) -> Any:
    """A JSON value. With ``tagged``, a dataclass carries its class name under ``"is"``."""
    if tagged and isinstance(value, tuple):
        return [encode(item, tagged=True) for item in value]
    cls: Any = type(value)
    out = _encoder(cls)(value)
    return {"is": type(value).__name__} | out if tagged and isinstance(out, dict) else out


def decode(cls: Any, data: Any) -> Any:
    """The value of type ``cls`` that :func:`encode` turned into ``data``. Raises TypeError or ValueError."""
    return _decoder(cls)(data)


def dumps(value: object, *, tagged: bool = False) -> str:
    """Canonical JSON text: sorted keys, no spaces, no escapes of non-ASCII."""
    return json.dumps(encode(value, tagged=tagged), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def loads(cls: type[T] | Any, text: str | bytes) -> Any:
    """Inverse of :func:`dumps`."""
    return decode(cls, json.loads(text))


@cache
def _encoder(cls: type) -> Callable[[Any], Any]:
    # One look-up per value: every recorded fact passes here.
    if issubclass(cls, Enum):
        return lambda value: value.value
    if issubclass(cls, tuple):
        return lambda value: [encode(item) for item in value]
    return _class_encoder(cls) if dataclasses.is_dataclass(cls) else lambda value: value


def _class_encoder(cls: type) -> Callable[[Any], Any]:
    hints = typing.get_type_hints(cls)
    fields = tuple((f.name, f.default, _has_class_union(hints[f.name])) for f in dataclasses.fields(cls))

    def encode_class(value: object) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name, default, union in fields:
            item = getattr(value, name)
            if default is dataclasses.MISSING or item != default:
                plain = type(item)
                out[name] = item if plain is str or plain is int else encode(item, tagged=union)
        return out

    return encode_class


def _members(hint: Any) -> tuple[Any, ...]:
    return tuple(m for m in typing.get_args(hint) if m is not type(None))


def _is_class_union(hint: Any) -> bool:
    is_union = isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
    return is_union and len(_members(hint)) > 1


def _has_class_union(hint: Any) -> bool:
    if typing.get_origin(hint) is tuple:
        return any(_is_class_union(item) for item in typing.get_args(hint))
    return _is_class_union(hint)


@cache
def _decoder(hint: Any) -> Any:
    if hint is Any or hint in (int, str, bool, float):
        return lambda data: data
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return _union_decoder(hint)
    if typing.get_origin(hint) is tuple:
        return _tuple_decoder(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    if dataclasses.is_dataclass(hint):
        return _class_decoder(hint)
    raise TypeError(f"no codec for {hint!r}")


def _union_decoder(hint: Any) -> Any:
    members = _members(hint)
    if len(members) == 1:
        inner = _decoder(members[0])
        return lambda data: None if data is None else inner(data)
    by_name = {m.__name__: _decoder(m) for m in members}

    def decode_union(data: Any) -> Any:
        body = dict(data)
        name = body.pop("is")
        if name not in by_name:
            raise ValueError(f"unknown kind {name!r}")
        return by_name[name](body)

    return decode_union


def _tuple_decoder(hint: Any) -> Any:
    args = typing.get_args(hint)
    if len(args) == 2 and args[1] is Ellipsis:
        inner = _decoder(args[0])
        return lambda data: tuple([inner(item) for item in data])
    inners = [_decoder(a) for a in args]
    return lambda data: tuple([inner(item) for inner, item in zip(inners, data, strict=True)])


def _class_decoder(cls: Any) -> Any:
    decoders: dict[str, Any] = {}

    def decode_class(data: Any) -> Any:
        if not decoders:
            hints = typing.get_type_hints(cls)
            decoders.update({f.name: _decoder(hints[f.name]) for f in dataclasses.fields(cls)})
        if not data.keys() <= decoders.keys():
            raise ValueError(f"{cls.__name__} has no field {sorted(data.keys() - decoders.keys())}")
        return cls(**{name: decoders[name](item) for name, item in data.items()})

    return decode_class
