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

from molml.energy.cutoffs import exp_series, jit

LANES = 8
_VECTOR = ir.VectorType(ir.DoubleType(), LANES)
_INDEX = ir.IntType(64)
_WHOLE = ir.VectorType(_INDEX, LANES)
_FLAGS = ("reassoc", "contract", "nsz", "arcp", "afn")


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Lanes")


_LANES = _Lanes()


@register_default(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def _place(context: Any, builder: Any, kinds: Any, arguments: Any) -> Any:
    """Pointer to array[row, column] of a contiguous array; nothing is checked."""
    kind = kinds[0]
    if kind.ndim != 2 or kind.layout != "C":
        raise TypeError(f"lanes are read from contiguous arrays of two dimensions, got {kind}")
    array = context.make_array(kind)(context, builder, arguments[0])
    width = builder.extract_value(array.shape, 1)
    row, column = (
        context.cast(builder, value, kind_, types.intp) for value, kind_ in zip(arguments[1:3], kinds[1:3], strict=True)
    )
    return builder.gep(array.data, [builder.add(builder.mul(row, width), column)])


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
        first = _place(context, builder, signature.args, arguments)
        return builder.load(builder.bitcast(first, _VECTOR.as_pointer()), align=8)

    return _LANES(array, row, column), generate


@intrinsic
def store(typingctx: Any, array: Any, row: Any, column: Any, value: Any) -> tuple:
    """``array[row, column : column + LANES] = value``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first = _place(context, builder, signature.args, arguments)
        builder.store(arguments[3], builder.bitcast(first, _VECTOR.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.none(array, row, column, value), generate


@intrinsic
def transpose(
    typingctx: Any, array: Any, row: Any, column: Any, target: Any, target_row: Any, target_column: Any
) -> tuple:
    """Write LANES rows and columns from ``array[row, column]`` on to ``target``, rows as columns."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def corner(first: int) -> Any:
            place = _place(context, builder, signature.args[first:], arguments[first : first + 3])
            data = context.make_array(signature.args[first])(context, builder, arguments[first])
            width = builder.extract_value(data.shape, 1)
            return [builder.gep(place, [builder.mul(width, ir.Constant(_INDEX, i))]) for i in range(LANES)]

        kind = ir.VectorType(ir.IntType(32), LANES)
        lines = [builder.load(builder.bitcast(p, _VECTOR.as_pointer()), align=8) for p in corner(0)]
        # squares of 4, 2 and 1 beside the diagonal change places
        for size in (4, 2, 1):
            for i in range(LANES):
                if not i & size:
                    a, b = lines[i], lines[i + size]
                    first = [j if not j & size else j - size + LANES for j in range(LANES)]
                    second = [j + size if not j & size else j + LANES for j in range(LANES)]
                    lines[i] = builder.shuffle_vector(a, b, ir.Constant(kind, first))
                    lines[i + size] = builder.shuffle_vector(a, b, ir.Constant(kind, second))
        for line, p in zip(lines, corner(3), strict=True):
            builder.store(line, builder.bitcast(p, _VECTOR.as_pointer()), align=8)
        return context.get_dummy_value()

    return types.none(array, row, column, target, target_row, target_column), generate


@intrinsic
def spread(typingctx: Any, number: Any) -> tuple:
    """The same number in all lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _same(builder, arguments[0], _VECTOR)

    return _LANES(types.float64), generate


def _same(builder: Any, number: Any, kind: Any) -> Any:
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
    return builder.shuffle_vector(one, one, zeros)


@intrinsic
def across(typingctx: Any, value: Any) -> tuple:
    """Sum of the lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.DoubleType(), [ir.DoubleType(), _VECTOR])
        total = builder.module.declare_intrinsic(f"llvm.vector.reduce.fadd.v{LANES}f64", fnty=kind)
        return builder.call(total, [ir.Constant(ir.DoubleType(), 0.0), arguments[0]], fastmath=_FLAGS)

    return types.float64(_LANES), generate


def _operator(function: Any, instruction: str, *others: Any) -> None:
    """Let an operator work on two vectors, or on a vector and a number that all lanes share."""

    @intrinsic
    def apply(typingctx: Any, a: Any, b: Any) -> tuple:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, instruction)(*arguments, flags=_FLAGS)

        return _LANES(_LANES, _LANES), generate

    def both(a: Any, b: Any) -> Any:
        return apply(a, b)

    def first(a: Any, b: Any) -> Any:
        return apply(a, spread(b))

    def second(a: Any, b: Any) -> Any:
        return apply(spread(a), b)

    def choose(a: Any, b: Any) -> Any:
        if isinstance(a, _Lanes):
            return both if isinstance(b, _Lanes) else first if b is types.float64 else None
        return second if a is types.float64 and isinstance(b, _Lanes) else None

    for each in (function, *others):
        overload(each)(choose)


_operator(operator.add, "fadd", operator.iadd)
_operator(operator.sub, "fsub", operator.isub)
_operator(operator.mul, "fmul", operator.imul)
_operator(operator.truediv, "fdiv")


def _exact(instruction: str) -> Any:
    """An operation that the compiler takes as it stands, in its place among others."""

    @intrinsic
    def apply(typingctx: Any, a: Any, b: Any) -> tuple:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, instruction)(*arguments)

        return _LANES(_LANES, _LANES), generate

    return apply


exact_sum, exact_difference = _exact("fadd"), _exact("fsub")


@intrinsic
def gather(typingctx: Any, array: Any, row: Any, places: Any, place: Any, column: Any) -> tuple:
    """``array[row, places[place, column : column + LANES]]``."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        indices = _place(context, builder, signature.args[2:], arguments[2:])
        first = [*arguments[:2], ir.Constant(_INDEX, 0)]
        base = _place(context, builder, [*signature.args[:2], types.intp], first)
        chosen = builder.load(builder.bitcast(indices, _WHOLE.as_pointer()), align=8)
        first = _same(builder, builder.ptrtoint(base, _INDEX), _WHOLE)
        addresses = builder.add(first, builder.shl(chosen, ir.Constant(_WHOLE, [3] * LANES)))
        pointers, mask = ir.VectorType(ir.DoubleType().as_pointer(), LANES), ir.VectorType(ir.IntType(1), LANES)
        kind = ir.FunctionType(_VECTOR, [pointers, ir.IntType(32), mask, _VECTOR])
        function = builder.module.declare_intrinsic(f"llvm.masked.gather.v{LANES}f64.v{LANES}p0f64", fnty=kind)
        alignment, all_lanes = ir.Constant(ir.IntType(32), 8), ir.Constant(mask, [1] * LANES)
        nothing = ir.Constant(_VECTOR, ir.Undefined)
        return builder.call(function, [builder.inttoptr(addresses, pointers), alignment, all_lanes, nothing])

    return _LANES(array, row, places, place, column), generate


@intrinsic
def compress(
    typingctx: Any, array: Any, row: Any, column: Any, source: Any, source_row: Any, source_column: Any, a: Any, b: Any
) -> tuple:
    """Write to ``array[row, column :]`` those of ``source[source_row, source_column : source_column + LANES]`` with
    a < b in their lanes, one after the other. Returns how many. Both arrays hold int64, the target has room for LANES.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target = _place(context, builder, signature.args[:3], arguments[:3])
        origin = _place(context, builder, signature.args[3:6], arguments[3:6])
        chosen = builder.bitcast(builder.fcmp_ordered("<", *arguments[6:]), ir.IntType(LANES))
        bits, count = builder.zext(chosen, _INDEX), ir.Constant(_INDEX, 0)
        # one by one, the next over those not chosen: the processor's own instruction takes ten times as long on some
        for lane in range(LANES):
            value = builder.load(builder.gep(origin, [ir.Constant(_INDEX, lane)]))
            builder.store(value, builder.gep(target, [count]))
            count = builder.add(
                count, builder.and_(builder.lshr(bits, ir.Constant(_INDEX, lane)), ir.Constant(_INDEX, 1))
            )
        return count

    return types.int64(array, row, column, source, source_row, source_column, _LANES, _LANES), generate


@intrinsic
def below(typingctx: Any, a: Any, b: Any, yes: Any, no: Any) -> tuple:
    """``yes`` in the lanes where a < b, ``no`` in the others."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b, yes, no = arguments
        return builder.select(builder.fcmp_ordered("<", a, b), yes, no)

    return _LANES(_LANES, _LANES, _LANES, _LANES), generate


@jit
def smaller(a: Any, b: Any) -> Any:
    """The smaller number of every lane."""
    return below(a, b, a, b)


@jit
def larger(a: Any, b: Any) -> Any:
    """The larger number of every lane."""
    return below(a, b, b, a)


@intrinsic
def sqrt(typingctx: Any, value: Any) -> tuple:
    """Square root of every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.call(_function(builder, "sqrt"), arguments)

    return _LANES(_LANES), generate


@intrinsic
def _nearest(typingctx: Any, value: Any) -> tuple:
    """The nearest whole number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.call(_function(builder, "rint"), arguments)

    return _LANES(_LANES), generate


@intrinsic
def _power_of_two(typingctx: Any, value: Any) -> tuple:
    """2**n for whole n from -1022 to 1023."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        # at 1.5 * 2**52 the last bit of a number counts ones: n + 1023 lies in the lowest bits, the exponent's to be
        shifted = builder.fadd(arguments[0], ir.Constant(_VECTOR, [6755399441055744.0 + 1023.0] * LANES))
        bits = builder.shl(builder.bitcast(shifted, _WHOLE), ir.Constant(_WHOLE, [52] * LANES))
        return builder.bitcast(bits, _VECTOR)

    return _LANES(_LANES), generate


@intrinsic
def _less(typingctx: Any, a: Any, b: Any, c: Any) -> tuple:
    """a - b * c, as it stands: the compiler would add up the two parts of ln 2 and lose the digits of the second."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a, b, c = arguments
        return builder.call(_function(builder, "fmuladd", 3), [builder.fneg(b), c, a])

    return _LANES(_LANES, _LANES, _LANES), generate


def _function(builder: Any, name: str, n_arguments: int = 1) -> Any:
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * n_arguments)
    return builder.module.declare_intrinsic(f"llvm.{name}.v{LANES}f64", fnty=kind)


@jit
def exp(x: Any) -> Any:
    """exp(x) of every lane for x <= 0 to 1 ulp or so; 0 below -700. As :func:`molml.energy.cutoffs.exp`."""
    inside = larger(x, spread(-700.0))
    n = _nearest(inside * 1.4426950408889634)
    f = _less(_less(inside, n, spread(0.693145751953125)), n, spread(1.42860682030941723212e-6))
    return below(x, spread(-700.0), spread(0.0), exp_series(f) * _power_of_two(n))
