"""Eight numbers as one variable of a compiled function, held in vector registers.

numba unrolls a loop of eight steps into eight scalar instructions; loads, products and sums of such vectors stay what
they are. ``+`` and ``*`` work on two of them; :func:`load`, :func:`store`, :func:`spread` and :func:`across` lead in
and out. All are for compiled functions only; whoever changes this file must remove __pycache__, as with
:mod:`molml.energy.cutoffs`.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.datamodel import models
from numba.core.datamodel.registry import register_default
from numba.extending import intrinsic, overload

from molml.energy.cutoffs import jit

LANES = 8
_VECTOR = ir.VectorType(ir.DoubleType(), LANES)
_FLAGS = ("reassoc", "contract", "nsz", "arcp", "afn")


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Lanes")


_LANES = _Lanes()


@register_default(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def _place(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Pointer to array[row, column] of a contiguous array; nothing is checked."""
    kind = signature.args[0]
    if kind.ndim != 2 or kind.layout != "C":
        raise TypeError(f"lanes are read from contiguous arrays of two dimensions, got {kind}")
    array = context.make_array(kind)(context, builder, arguments[0])
    width = builder.extract_value(array.shape, 1)
    row, column = (
        context.cast(builder, value, kind_, types.intp)
        for value, kind_ in zip(arguments[1:3], signature.args[1:3], strict=True)
    )
    first = builder.gep(array.data, [builder.add(builder.mul(row, width), column)])
    return builder.bitcast(first, _VECTOR.as_pointer())


@jit
def rows(n: int, width: int) -> np.ndarray:
    """Room for n rows of a width that is a multiple of LANES, each at the beginning of a cache line."""
    room = np.empty(n * width + LANES)
    # a vector across two lines takes twice as long to load
    skip = (-(room.ctypes.data // 8)) % LANES
    return room[skip : skip + n * width].reshape(n, width)


@intrinsic
def load(typingctx: Any, array: Any, row: Any, column: Any) -> tuple:
    """``array[row, column : column + LANES]`` of a contiguous array of float64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_place(context, builder, signature, arguments), align=8)

    return _LANES(array, row, column), generate


@intrinsic
def store(typingctx: Any, array: Any, row: Any, column: Any, value: Any) -> tuple:
    """``array[row, column : column + LANES] = value``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[3], _place(context, builder, signature, arguments), align=8)
        return context.get_dummy_value()

    return types.none(array, row, column, value), generate


@intrinsic
def spread(typingctx: Any, number: Any) -> tuple:
    """The same number in all lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), arguments[0], ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
        return builder.shuffle_vector(one, one, zeros)

    return _LANES(types.float64), generate


@intrinsic
def across(typingctx: Any, value: Any) -> tuple:
    """Sum of the lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.DoubleType(), [ir.DoubleType(), _VECTOR])
        total = builder.module.declare_intrinsic(f"llvm.vector.reduce.fadd.v{LANES}f64", fnty=kind)
        return builder.call(total, [ir.Constant(ir.DoubleType(), 0.0), arguments[0]], fastmath=_FLAGS)

    return types.float64(_LANES), generate


@intrinsic
def _sum(typingctx: Any, a: Any, b: Any) -> tuple:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fadd(*arguments, flags=_FLAGS)

    return _LANES(_LANES, _LANES), generate


@intrinsic
def _product(typingctx: Any, a: Any, b: Any) -> tuple:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fmul(*arguments, flags=_FLAGS)

    return _LANES(_LANES, _LANES), generate


@overload(operator.iadd)
@overload(operator.add)
def _add(a: Any, b: Any) -> Any:
    def add(a: Any, b: Any) -> Any:
        return _sum(a, b)

    return add if isinstance(a, _Lanes) and isinstance(b, _Lanes) else None


@overload(operator.mul)
def _multiply(a: Any, b: Any) -> Any:
    def multiply(a: Any, b: Any) -> Any:
        return _product(a, b)

    return multiply if isinstance(a, _Lanes) and isinstance(b, _Lanes) else None
