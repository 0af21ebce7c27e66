"""All arrays of placement behind one address, so that a call from Python hands over a number.

Compiled code counts references to arrays, and copies what describes them at every call: for eighty arrays both cost
more than a decision. ``core_of`` therefore puts them into one value, which counts them once and holds them; ``core_at``
reads them through its address and counts nothing. Whoever has an address must keep the value.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast
from zlib import crc32

from numba import extending, types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.typing import templates
from numba.experimental import structref

from scheduler.placement.compiled import entry
from scheduler.placement.kernels import Asks, Frag, Ranks, Rows, States, Work

# Numba's ways to extend it have no types.
_refs, _extending, _cgutils = cast(Any, structref), cast(Any, extending), cast(Any, cgutils)
_Template: Any = templates.AttributeTemplate


class Core:
    """What compiled code sees of the arrays."""

    rows: Rows
    states: States
    asks: Asks
    ranks: Ranks
    frag: Frag
    work: Work


@_refs.register
class HeldType(types.StructRef):
    """Numba's type of a ``Held``."""


class Held(structref.StructRefProxy):
    """What holds the arrays. There is nothing to look at from Python."""


_refs.define_constructor(Held, HeldType, list(Core.__annotations__))
_refs.define_boxing(HeldType, Held)


@entry
def core_of(rows: Rows, states: States, asks: Asks, ranks: Ranks, frag: Frag, work: Work) -> Held:
    """The arrays in one value. Arrays stay shared: what one side writes, the other reads."""
    return Held(rows, states, asks, ranks, frag, work)  # type: ignore[no-untyped-call]


def address_of(held: Held, layout: int) -> int:
    """Where the arrays are described, as long as ``held`` is kept.

    ``layout``: what code that reads there was compiled for. Raises RuntimeError if that is not what the arrays are.
    """
    if len(cast(Any, core_of).overloads) > 1 or layout != _held_crc():
        raise RuntimeError("kernels kept on disk are for other arrays: delete scheduler/placement/__pycache__/*.nb?")
    return _address_of(held)


@entry
def _address_of(held: Held) -> int:
    return int(_address(held))


def _held_type() -> Any:
    """They are of the types that ``core_of`` was first called with, as all are."""
    return cast(Any, core_of).nopython_signatures[0].return_type


@cache
def _held_crc() -> int:
    return _crc_of(_held_type())


def _crc_of(held: Any) -> int:
    return crc32(str(held).encode())


class CoreType(types.Type):
    """Numba's type of a ``Core``: an address, and of what."""

    def __init__(self, held: Any) -> None:
        self.held = held
        super().__init__(name=f"Core({held})")


_extending.register_model(CoreType)(models.OpaqueModel)


@_extending.intrinsic  # type: ignore[untyped-decorator]
def _address(_typing: Any, held: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        known = _refs._Utils(context, builder, signature.args[0])
        return builder.ptrtoint(known.get_data_pointer(arguments[0]), context.get_value_type(types.int64))

    return types.int64(held), lower


def _core_at(_typing: Any, _number: Any) -> Any:
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return cast(Any, CoreType(_held_type()))(types.int64), lower


core_at: Callable[[int], Core] = _extending.intrinsic(_core_at)
"""The arrays at an address."""


def _layout_read(_typing: Any) -> Any:
    crc = _crc_of(_held_type())

    def lower(context: Any, _builder: Any, signature: Any, _arguments: Any) -> Any:
        return context.get_constant(signature.return_type, crc)

    return cast(Any, types.int64)(), lower


layout_read: Callable[[], int] = _extending.intrinsic(_layout_read)
"""A number for the arrays that code with ``core_at`` in it was compiled for; Numba, which sees a number only, would not
compile it anew when they change."""


@_extending.infer_getattr
class _Fields(_Template):  # type: ignore[misc]
    key = CoreType

    def generic_resolve(self, core: CoreType, name: str) -> Any:
        return core.held.field_dict.get(name)


@_extending.lower_getattr_generic(CoreType)  # type: ignore[untyped-decorator]
def _field(context: Any, builder: Any, core: CoreType, address: Any, name: str) -> Any:
    described = core.held.get_data_type()
    form = context.data_model_manager[described].get_value_type()
    fields = _cgutils.create_struct_proxy(described)(context, builder, ref=builder.bitcast(address, form.as_pointer()))
    return getattr(fields, name)
