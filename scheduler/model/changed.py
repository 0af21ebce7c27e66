"""Our frozen, slotted records made and changed in a third of the time that ``dataclasses`` takes.

Every recorded fact makes some twenty records. A frozen class sets each field through ``object.__setattr__``; here they
are set on a twin of the class that is not frozen, which is what the interpreter is quickest at, and the record then
becomes one of its own class: Python allows that between classes with the same slots.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from functools import wraps
from typing import Any, TypeVar

T = TypeVar("T")
C = TypeVar("C", bound=type)


def replace(record: T, /, **changes: Any) -> T:
    """A copy with some fields changed. Raises AttributeError for a field it does not have."""
    cls = type(record)
    copy = _COPIERS[cls](record)
    for name, value in changes.items():
        setattr(copy, name, value)
    copy.__class__ = cls
    made: T = copy
    return made


def quick(cls: C) -> C:
    """Decorates a frozen, slotted dataclass whose records are made by the thousand: the same ``__init__``, but quick.

    Raises TypeError for a class that works something out when it is made.
    """
    if hasattr(cls, "__post_init__") or any(f.default_factory is not MISSING for f in fields(cls)):
        raise TypeError(f"{cls.__name__} works something out when it is made: leave it to dataclasses")
    known: dict[str, Any] = {f"default_{f.name}": f.default for f in fields(cls)}
    known |= {"cls": cls, "twin": twin(cls), "become": become}
    setters = (f"self.{field.name} = {field.name}" for field in fields(cls))
    signature = ", ".join(["self", *_parameters(fields(cls))])
    made = _function(f"def __init__({signature}):", ["become(self, twin)", *setters, "become(self, cls)"], known)
    named: Any = cls
    named.__init__ = wraps(named.__init__)(made)
    return cls


def twin(cls: type) -> Any:
    """A class with the same slots that is not frozen: what was set on one of it can become a ``cls``."""
    return type(f"{cls.__name__}Open", (), {"__slots__": tuple(field.name for field in fields(cls))})


become: Callable[[Any, type], None] = object.__dict__["__class__"].__set__
"""Makes a record one of another class with the same slots."""


def _parameters(of: tuple[Field[Any], ...]) -> list[str]:
    texts = [f.name if f.default is MISSING else f"{f.name}=default_{f.name}" for f in of]
    positional = [text for text, field in zip(texts, of, strict=True) if not field.kw_only]
    named = [text for text, field in zip(texts, of, strict=True) if field.kw_only]
    return [*positional, *(["*", *named] if named else [])]


class _Copiers(dict[type, Callable[[Any], Any]]):
    """By class, what makes a copy that is one of its twin; made when first asked for."""

    def __missing__(self, cls: type) -> Callable[[Any], Any]:
        body = ["made = new(twin)", *(f"made.{f.name} = value.{f.name}" for f in fields(cls)), "return made"]
        copier: Callable[[Any], Any] = _function("def copier(value):", body, {"new": object.__new__, "twin": twin(cls)})
        self[cls] = copier
        return copier


_COPIERS = _Copiers()


def _function(head: str, body: list[str], known: dict[str, Any]) -> Any:
    exec("\n    ".join([head, *body]), known)  # noqa: S102 (of names of our own classes and fields, nothing else)
    return known[head.removeprefix("def ").partition("(")[0]]
