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

from scheduler.model.changed import become, twin

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
    if tagged and isinstance(value, tuple):
        return "[" + ",".join([dumps(item, tagged=True) for item in value]) + "]"
    if tagged:
        return _TAGGED[type(value)](value)
    return _WRITERS[type(value)](value)


def dumps_without(value: object, *names: str) -> str:
    """Canonical JSON text of a dataclass without these fields."""
    cls: Any = type(value)
    return _partial_writer(cls, names)(value)


def loads(cls: type[T] | Any, text: str | bytes) -> Any:
    """Inverse of :func:`dumps`."""
    return decode(cls, json.loads(text))


_plain = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=encode).encode
quoted: Callable[[str], str] = json.encoder.encode_basestring
"""A string as canonical JSON."""
LONG_TUPLE = 4
"""From here on the library's encoder, which has a start-up cost, writes tuples of tuples faster than we do."""


def _writer(cls: type, tagged: bool) -> Callable[[Any], str]:
    """Writes a value of this class as :func:`dumps` must, without making dictionaries of it first."""
    if cls is str:
        return quoted
    if cls is int:
        return int.__repr__
    if issubclass(cls, Enum):
        return {member: _plain(member.value) for member in cls}.__getitem__
    if issubclass(cls, tuple):
        return _tuple_text
    if cls is type:
        return lambda value: quoted(value.__name__)
    return _class_writer(cls, tagged) if dataclasses.is_dataclass(cls) else _plain


def _tuple_text(value: tuple[Any, ...]) -> str:
    if len(value) > LONG_TUPLE and type(value[0]) is tuple:
        return _plain(value)
    if len(value) == 1 and type(value[0]) is str:
        return f"[{quoted(value[0])}]"
    return "[" + ",".join([_WRITERS[type(item)](item) for item in value]) + "]"


class _Writers(dict[type, Callable[[Any], str]]):
    """Writers by class, made when first asked for; one look-up per value, because every recorded fact passes here."""

    def __init__(self, *, tagged: bool) -> None:
        super().__init__()
        self._tagged = tagged

    def __missing__(self, cls: type) -> Callable[[Any], str]:
        self[cls] = writer = _writer(cls, self._tagged)
        return writer


_WRITERS, _TAGGED = _Writers(tagged=False), _Writers(tagged=True)


@cache
def _partial_writer(cls: Any, without: tuple[str, ...]) -> Callable[[Any], str]:
    return _class_writer(cls, False, without)


def _class_writer(cls: Any, tagged: bool, without: tuple[str, ...] = ()) -> Callable[[Any], str]:
    """A function made for this class, as ``dataclasses`` makes ``__init__``: no loop and no look-up per field.

    Its text is in the order of the fields' names, each piece with a comma before it. Neighbours that are always there
    are one piece.
    """
    hints = typing.get_type_hints(cls)
    known: dict[str, Any] = {"quoted": quoted, "writers": _WRITERS, "dumps": dumps}
    fields = {field.name: field for field in dataclasses.fields(cls) if field.name not in without}
    body: list[str] = []
    pieces = ""
    for name in sorted([*fields, *(["is"] if tagged else [])]):
        if name not in fields:
            pieces += f',"is":{quoted(cls.__name__)}'
            continue
        expression, default = _expression(name, hints[name], known), fields[name].default
        if default is dataclasses.MISSING:
            pieces += f",{quoted(name)}:{{{expression.format(item=f'value.{name}')}}}"
            continue
        known[f"default_{name}"] = default
        body += [f"text += f'{pieces}'"] if pieces else []
        text = f"text += f',{quoted(name)}:{{{expression.format(item='item')}}}'"
        body += [f"item = value.{name}", f"if item is not default_{name} and item != default_{name}: {text}"]
        pieces = ""
    body += [f"text += f'{pieces}'"] if pieces else []
    source = "\n    ".join(["def write_class(value):", "text = ''", *body, "return '{' + text[1:] + '}'"])
    exec(source, known)  # noqa: S102 (of names of our own classes and fields, nothing else)
    write: Callable[[Any], str] = known["write_class"]
    return write


def _expression(name: str, hint: Any, known: dict[str, Any]) -> str:
    """What writes ``{item}``, of a field with this name and annotation; what it needs for that becomes ``known``."""
    if hint is str:
        return "quoted({item})"
    if hint is int:
        return "{item}:d"  # refuses what is no integer
    if _has_class_union(hint):
        return "dumps({item}, tagged=True)"
    write = _numbers_writer(_numbers_in(hint)) if _numbers_in(hint) else _list_writer(hint)
    if write is None:
        return "writers[type({item})]({item})"
    known[f"write_{name}"] = write
    return f"write_{name}({{item}})"


def _numbers_writer(count: int) -> Callable[[Any], str]:
    """Writes tuples of so many numbers: ranges and the like, of which every record of progress has some."""
    spelled = f"[{','.join(['%d'] * count)}]"
    return lambda value: f"[{','.join([spelled % each for each in value])}]"


def _list_writer(hint: Any) -> Callable[[Any], str] | None:
    """Writes tuples of records of one class; None for an annotation that says something else."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is not tuple or inner[1:] != (Ellipsis,) or not dataclasses.is_dataclass(inner[0]):
        return None
    made: list[Callable[[Any], str]] = []
    """Looked up when first needed: classes may name each other."""

    def write_list(value: Any) -> str:
        if not made:
            made.append(_WRITERS[inner[0]])
        return f"[{','.join(map(made[0], value))}]"

    return write_list


def _numbers_in(hint: Any) -> int:
    """2 for ``tuple[tuple[int, int], ...]``, and so on; 0 for all else."""
    inner = typing.get_args(hint)
    if typing.get_origin(hint) is not tuple or inner[1:] != (Ellipsis,) or typing.get_origin(inner[0]) is not tuple:
        return 0
    each = typing.get_args(inner[0])
    return len(each) if set(each) == {int} else 0


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
        return _as_it_is
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return _union_decoder(hint)
    if typing.get_origin(hint) is tuple:
        return _tuple_decoder(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    if dataclasses.is_dataclass(hint):
        return _class_decoder(hint)
    raise TypeError(f"no codec for {hint!r}")


def _as_it_is(data: Any) -> Any:
    return data


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
        return tuple if inner is _as_it_is else lambda data: tuple([inner(item) for item in data])
    inners = [_decoder(a) for a in args]
    if all(inner is _as_it_is for inner in inners):
        return lambda data: _of_length(len(inners), tuple(data))
    return lambda data: tuple([inner(item) for inner, item in zip(inners, data, strict=True)])


def _of_length(length: int, data: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(data) != length:
        raise ValueError(f"{length} values are needed, not {len(data)}")
    return data


def _class_decoder(cls: Any) -> Any:
    made: list[Callable[[Any], Any]] = []
    """The decoder, made when first asked for: classes may name each other. Two threads may make it, the same."""

    def decode_class(data: Any) -> Any:
        if not made:
            made.append(_made_decoder(cls))
        return made[0](data)

    return decode_class


def _made_decoder(cls: Any) -> Callable[[Any], Any]:
    """A function made for this class, like its writer.

    Of a class with slots and nothing to work out these are set one by one, on its twin (``changed.py``).
    """
    hints, fields = typing.get_type_hints(cls), dataclasses.fields(cls)
    known: dict[str, Any] = {"new": object.__new__, "cls": cls, "names": {field.name for field in fields}}
    made_up = hasattr(cls, "__post_init__") or any(f.default_factory is not dataclasses.MISSING for f in fields)
    by_slot = "__slots__" in vars(cls) and not made_up
    known |= {"twin": twin(cls), "become": become} if by_slot else {}
    body = ["made = new(twin)"] if by_slot else ["given = {}"]
    for name, default in ((field.name, field.default) for field in fields):
        known[f"default_{name}"], known[f"decode_{name}"] = default, _decoder(hints[name])
        item = f"data['{name}']" if known[f"decode_{name}"] is _as_it_is else f"decode_{name}(data['{name}'])"
        if by_slot:
            other = "" if default is dataclasses.MISSING else f" if '{name}' in data else default_{name}"
            body.append(f"made.{name} = {item}{other}")
        else:
            body.append(f"if '{name}' in data: given['{name}'] = {item}")
    source = [
        "def decode_class(data):",
        "    if not data.keys() <= names:",
        f"        raise ValueError(f'{cls.__name__} has no field {{sorted(data.keys() - names)}}')",
        "    try:",
        *[f"        {line}" for line in body],
        "    except KeyError as error:",
        f"        raise TypeError(f'{cls.__name__} needs {{error}}') from None",
        *(["    become(made, cls)", "    return made"] if by_slot else ["    return cls(**given)"]),
    ]
    exec("\n".join(source), known)  # noqa: S102 (of names of our own classes and fields, nothing else)
    decode_class: Callable[[Any], Any] = known["decode_class"]
    return decode_class
