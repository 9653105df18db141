"""Vectors of floats and tiles of matrix products, for functions that numba compiles.

A product of matrices is computed tile by tile. The sums of a *tile*, a few rows and a few vectors of columns, stay in
registers. The right matrix is first copied to *panels*, one per vector of columns, so that a tile reads them in order.

All arrays are float32 without gaps, and given by their addresses. Address 0 stands for an array of zeros that is not
there.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import llvmlite.binding as llvm
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

_WIDE = bool(llvm.get_host_cpu_features().get("avx512f", False))
LANES = 16 if _WIDE else 8
"""The number of floats in a vector."""
ROWS, VECTORS = 8 if _WIDE else 4, 3
"""The largest tile that fits in the registers."""
VECTORS_OF_ONE = 6
"""The number of vectors in a tile of one row: a sum takes several cycles, in which others can begin."""

_FLOAT, _INT, _WHOLE = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)
_MASK = ir.VectorType(ir.IntType(1), LANES)
_CONTRACT = ("contract",)  # allows a * b + c as one instruction
_whole = types.int64


class _Vector(types.Type):
    """``LANES`` floats in a register, with the operators of floats."""

    def __init__(self) -> None:
        super().__init__(name=f"Vector({LANES})")


_vector = _Vector()


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: _Vector) -> None:
        super().__init__(manager, kind, _FLOATS)


def _define(symbol: Callable[..., Any], instruction: str) -> None:
    @intrinsic
    def apply(typing, a, b):
        return _vector(_vector, _vector), lambda _, builder, __, args: getattr(builder, instruction)(
            *args, flags=_CONTRACT
        )

    @overload(symbol)
    def operate(a, b):
        if isinstance(a, _Vector) and isinstance(b, _Vector):
            return lambda a, b: apply(a, b)
        return None


for _symbol, _instruction in (("add", "fadd"), ("sub", "fsub"), ("mul", "fmul"), ("truediv", "fdiv")):
    _define(getattr(operator, _symbol), _instruction)


def _repeat(builder: Any, x: Any, kind: Any = _FLOATS) -> Any:
    nothing = ir.Constant(kind, ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(nothing, x, _INT(0)), nothing, ir.Constant(_INTS, [0] * LANES))


def _pointer(builder: Any, address: Any, offset: Any, kind: Any = _FLOAT) -> Any:
    return builder.gep(builder.inttoptr(address, kind.as_pointer()), [offset])


def _first(builder: Any, count: Any) -> Any:
    """The mask of the first ``count`` lanes."""
    return builder.icmp_signed(
        "<", ir.Constant(_INTS, list(range(LANES))), _repeat(builder, builder.trunc(count, _INT), _INTS)
    )


def _load(builder: Any, pointer: Any, count: Any) -> Any:
    kind = ir.FunctionType(_FLOATS, [_FLOATS.as_pointer(), _INT, _MASK, _FLOATS])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.load.v{LANES}f32.p0")
    zeros = ir.Constant(_FLOATS, [0.0] * LANES)
    return builder.call(
        function, [builder.bitcast(pointer, _FLOATS.as_pointer()), _INT(4), _first(builder, count), zeros]
    )


def _store(builder: Any, pointer: Any, count: Any, x: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [_FLOATS, _FLOATS.as_pointer(), _INT, _MASK])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.store.v{LANES}f32.p0")
    builder.call(function, [x, builder.bitcast(pointer, _FLOATS.as_pointer()), _INT(4), _first(builder, count)])


@intrinsic
def integer(typing, array, index):
    """An element of an int64 array."""

    def code(context, builder, signature, args):
        return builder.load(_pointer(builder, args[0], args[1], _WHOLE))

    return _whole(_whole, _whole), code


@intrinsic
def next_part(typing, taken):
    """Adds 1 to an int64 that threads share. Returns its value before."""

    def code(context, builder, signature, args):
        return builder.atomic_rmw("add", builder.inttoptr(args[0], _WHOLE.as_pointer()), _WHOLE(1), "monotonic")

    return _whole(_whole), code


@intrinsic
def repeat(typing, x):
    """The vector whose lanes are all x."""
    return _vector(types.float64), lambda _, builder, __, args: _repeat(builder, builder.fptrunc(args[0], _FLOAT))


@intrinsic
def load(typing, array, index, count):
    """The first ``count`` floats from ``array[index]`` on, then zeros."""

    def code(context, builder, signature, args):
        return _load(builder, _pointer(builder, *args[:2]), args[2])

    return _vector(_whole, _whole, _whole), code


@intrinsic
def store(typing, array, index, count, x):
    """Writes the first ``count`` floats of x from ``array[index]`` on."""

    def code(context, builder, signature, args):
        _store(builder, _pointer(builder, *args[:2]), *args[2:])
        return context.get_dummy_value()

    return types.void(_whole, _whole, _whole, _vector), code


@intrinsic
def turn(typing, rows, columns, source, source_row, out, out_row, stored):
    """Copies the transpose of a block of up to ``LANES`` rows and columns; ``stored`` floats of each new row."""

    def code(context, builder, signature, args):
        rows, columns, source, source_row, out, out_row, stored = args

        def inside(k, size, count):
            return builder.select(builder.icmp_signed("<", _WHOLE(k), size), count, _WHOLE(0))

        vectors = []
        for k in range(LANES):
            pointer = _pointer(builder, source, builder.mul(source_row, _WHOLE(k)))
            vectors.append(_load(builder, pointer, inside(k, rows, columns)))
        half = LANES // 2
        while half:  # exchanges the quarters of blocks of 2 * half rows and columns
            for k in range(LANES):
                if not k & half:
                    a, b = vectors[k], vectors[k + half]
                    lanes = [n - half + LANES if n & half else n for n in range(LANES)]  # from LANES on, those of b
                    vectors[k] = builder.shuffle_vector(a, b, ir.Constant(_INTS, lanes))
                    vectors[k + half] = builder.shuffle_vector(a, b, ir.Constant(_INTS, [n + half for n in lanes]))
            half //= 2
        for k in range(LANES):
            pointer = _pointer(builder, out, builder.mul(out_row, _WHOLE(k)))
            _store(builder, pointer, inside(k, columns, stored), vectors[k])
        return context.get_dummy_value()

    return types.void(*[_whole] * 7), code


@intrinsic
def clip(typing, x, low, high):
    """x limited to [low, high]; NaN stays NaN."""

    def code(context, builder, signature, args):
        x, low, high = args
        x = builder.select(builder.fcmp_ordered(">", x, high), high, x)
        return builder.select(builder.fcmp_ordered("<", x, low), low, x)

    return _vector(_vector, _vector, _vector), code


@intrinsic
def power_of_two(typing, x):
    """``2 ** n`` for the integers n in the lowest bits of x."""

    def code(context, builder, signature, args):
        exponent = builder.shl(builder.bitcast(args[0], _INTS), ir.Constant(_INTS, [23] * LANES))
        return builder.bitcast(builder.add(exponent, ir.Constant(_INTS, [127 << 23] * LANES)), _FLOATS)

    return _vector(_vector), code


class Matrix(NamedTuple):
    """A matrix in memory. Element (r, k) is ``array[r * row + k * column]``."""

    array: int
    row: int
    column: int


def _tile(module: Any, R: int, C: int) -> Any:
    """The LLVM function of ``tile`` for R rows and C vectors."""
    name = f"seqclf_tile_{R}_{C}"
    if name in module.globals:
        return module.globals[name]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [_WHOLE] * 15), name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")  # compiled once
    function.attributes.add("minsize")  # without unrolled loops: as fast, and compiled faster
    left, out, out_row, init, init_row, *products = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    counts = [_WHOLE(LANES)] * (C - 1) + [builder.sub(left, _WHOLE((C - 1) * LANES))]
    places = [(r, c) for r in range(R) for c in range(C)]

    def at(array: Any, row: Any, r: int, offset: Any) -> Any:
        return _pointer(builder, array, builder.add(builder.mul(row, _WHOLE(r)), offset))

    sums, exists = {}, builder.icmp_signed("!=", init, _WHOLE(0))
    init = builder.select(exists, init, out)  # loading no lane is slow at an address that does not exist
    for r, c in places:
        start = _load(builder, at(init, init_row, r, _WHOLE(c * LANES)), builder.select(exists, counts[c], _WHOLE(0)))
        sums[r, c] = cgutils.alloca_once_value(builder, start)
    for x, row, column, K, w in (products[:5], products[5:]):
        with cgutils.for_range(builder, K) as loop:
            places_w = [builder.add(builder.mul(K, _WHOLE(c)), loop.index) for c in range(C)]
            vectors = [builder.load(_pointer(builder, w, place, _FLOATS), align=4) for place in places_w]
            offset = builder.mul(loop.index, column)
            factors = [_repeat(builder, builder.load(at(x, row, r, offset))) for r in range(R)]
            for r, c in places:
                product = builder.fmul(factors[r], vectors[c], flags=_CONTRACT)
                builder.store(builder.fadd(builder.load(sums[r, c]), product, flags=_CONTRACT), sums[r, c])
    for r, c in places:
        _store(builder, at(out, out_row, r, _WHOLE(c * LANES)), counts[c], builder.load(sums[r, c]))
    builder.ret_void()
    return function


@intrinsic
def tile(typing, rows, vectors, left, out, init, x, K, w, h, L, v):
    """``product`` for a tile of ``rows`` rows (a power of 2) and ``vectors`` vectors, of ``left`` columns in all."""

    def code(context, builder, signature, args):
        rows, vectors, left, out, init, x, K, w, h, L, v = args

        def fields(matrix, number):
            return [builder.extract_value(matrix, k) for k in range(number)]

        arguments = [left, *fields(out, 2), *fields(init, 2), *fields(x, 3), K, w, *fields(h, 3), L, v]
        done = builder.append_basic_block()
        switch = builder.switch(builder.add(builder.mul(rows, _WHOLE(VECTORS_OF_ONE + 1)), vectors), done)
        for R in (1, 2, 4, 8):
            for C in range(1, (VECTORS if R > 1 else VECTORS_OF_ONE) + 1) if R <= ROWS else ():
                block = builder.append_basic_block()
                switch.add_case(_WHOLE(R * (VECTORS_OF_ONE + 1) + C), block)
                with builder.goto_block(block):
                    builder.call(_tile(builder.module, R, C), arguments)
                    builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(_whole, _whole, _whole, out, init, x, _whole, _whole, h, _whole, _whole), code


OPTIONS: dict[str, Any] = {"fastmath": {"contract"}, "error_model": "numpy"}
compiled = njit(**OPTIONS)


@compiled
def exp(x):
    """e ** x with a relative error of 1e-7: 2 ** n times a polynomial, as in Cephes (Moshier 1989)."""
    x = clip(x, repeat(-87.0), repeat(88.0))
    shift = repeat(1.5 * 2**23)  # adding it rounds to an integer in the lowest bits
    shifted = x * repeat(1.4426950408889634) + shift
    n = shifted - shift
    x = x - n * repeat(0.693359375) + n * repeat(2.12194440e-4)  # log(2) in two parts
    y = repeat(1.9875691500e-4)
    y = y * x + repeat(1.3981999507e-3)
    y = y * x + repeat(8.3334519073e-3)
    y = y * x + repeat(4.1665795894e-2)
    y = y * x + repeat(1.6666665459e-1)
    y = y * x + repeat(0.5)
    return (y * (x * x) + x + repeat(1.0)) * power_of_two(shifted)


@compiled
def sigma(x):
    return repeat(1.0) / (repeat(1.0) + exp(repeat(0.0) - x))


@compiled
def tanh(x):
    return repeat(1.0) - repeat(2.0) / (repeat(1.0) + exp(repeat(2.0) * x))


@compiled
def at(array, index):
    """The address of an element; 0 stays 0."""
    return array + 4 * index if array else array


@compiled
def product(out, init, columns, count, x, K, w, h, L, v):
    """``out = init + x @ w + h @ v``, for ``count`` rows. x has K columns, h has L. w and v are panels."""
    most = VECTORS if count > 1 else VECTORS_OF_ONE
    for j in range(0, columns, most * LANES):
        left = columns - j
        vectors = min(most, (left + LANES - 1) // LANES)
        rows, r = ROWS, 0
        while r < count:
            while rows > count - r:
                rows //= 2
            w_j, v_j = at(w, j * K), at(v, j * L)
            tile(rows, vectors, left, part(out, r, j), part(init, r, j), part(x, r, 0), K, w_j, part(h, r, 0), L, v_j)
            r += rows


@compiled
def part(matrix, r, j):
    return Matrix(at(matrix.array, r * matrix.row + j), matrix.row, matrix.column)


def entry(name: str, function: str, count: int) -> str:
    """The LLVM code of a function that loads int64 arguments from an array and passes them to a function of numba."""
    module = ir.Module()
    none = ir.IntType(8).as_pointer()  # Python's None, which a function of numba returns
    inner = ir.Function(module, ir.FunctionType(none, [_WHOLE] * count), function)
    outer = ir.Function(module, ir.FunctionType(ir.VoidType(), [_WHOLE.as_pointer()]), name)
    builder = ir.IRBuilder(outer.append_basic_block())
    builder.call(inner, [builder.load(builder.gep(outer.args[0], [_WHOLE(k)])) for k in range(count)])
    builder.ret_void()
    return str(module)
