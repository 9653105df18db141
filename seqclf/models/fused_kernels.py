"""The loops over time of an LSTM layer, compiled by numba. Import this file only if numba is installed.

A *tile* holds sums for a few rows and a few vectors of columns. It stays in registers from the product to the
activations, so that gates are written once and read only by the backward pass. Rows are independent, so each block of
rows runs through all steps separately.

Everything is in one file, because numba compiles a function again if its file changes, but not if an imported file
does.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

_WIDE = bool(llvmlite.binding.get_host_cpu_features().get("avx512f", False))
LANES = 16 if _WIDE else 8
"""The number of floats in a vector."""
ROWS = (0, 1, 2, 3) if _WIDE else (0, 1)
"""The rows of a tile, as many as fit in the registers."""
_TWO_ROWS, _ONE_ROW = (0, 1), (0,)
BLOCK = 4
"""The number of rows that run through all steps together."""

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(_FLOAT, LANES), ir.VectorType(_INT, LANES)
_MASK = ir.VectorType(ir.IntType(1), LANES)
_CONTRACT = ("contract",)  # allows a * b + c as one instruction
f32 = np.float32


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


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [index])


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


@intrinsic
def repeat(typing, x):
    """The vector whose lanes are all x."""
    return _vector(types.float32), lambda _, builder, __, args: _repeat(builder, args[0])


@intrinsic
def load(typing, array, index, count):
    """The first ``count`` floats from ``array[index]`` on, then zeros."""

    def code(context, builder, signature, args):
        array, index, count = args
        return _load(builder, _pointer(context, builder, signature.args[0], array, index), count)

    return _vector(array, types.intp, types.intp), code


@intrinsic
def store(typing, array, index, count, x):
    """Writes the first ``count`` floats of x from ``array[index]`` on."""

    def code(context, builder, signature, args):
        array, index, count, x = args
        pointer = _pointer(context, builder, signature.args[0], array, index)
        kind = ir.FunctionType(ir.VoidType(), [_FLOATS, _FLOATS.as_pointer(), _INT, _MASK])
        function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.store.v{LANES}f32.p0")
        to = builder.bitcast(pointer, _FLOATS.as_pointer())
        builder.call(function, [x, to, _INT(4), _first(builder, count)])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, _vector), code


@intrinsic
def clip(typing, x, low, high):
    """x limited to [low, high]; NaN stays NaN."""

    def code(context, builder, signature, args):
        x, low, high = args[0], _repeat(builder, args[1]), _repeat(builder, args[2])
        x = builder.select(builder.fcmp_ordered(">", x, high), high, x)
        return builder.select(builder.fcmp_ordered("<", x, low), low, x)

    return _vector(_vector, types.float32, types.float32), code


@intrinsic
def power_of_two(typing, x):
    """``2 ** n`` for the integers n in the lowest bits of x."""

    def code(context, builder, signature, args):
        exponent = builder.shl(builder.bitcast(args[0], _INTS), ir.Constant(_INTS, [23] * LANES))
        return builder.bitcast(builder.add(exponent, ir.Constant(_INTS, [127 << 23] * LANES)), _FLOATS)

    return _vector(_vector), code


@intrinsic
def load_tile(typing, array, rows, row, stride, columns, ends):
    """The tile of rows ``row + rows`` and vectors that begin at ``columns``, each of which stops before its end."""

    def code(context, builder, signature, args):
        array, rows, row, stride, columns, ends = args
        tile = []
        for r in range(signature.args[1].count):
            base = builder.mul(builder.add(row, builder.extract_value(rows, r)), stride)
            for c in range(signature.args[4].count):
                column, end = builder.extract_value(columns, c), builder.extract_value(ends, c)
                pointer = _pointer(context, builder, signature.args[0], array, builder.add(base, column))
                tile.append(_load(builder, pointer, builder.sub(end, column)))
        return context.make_tuple(builder, signature.return_type, tile)

    tile = types.UniTuple(_vector, rows.count * columns.count)
    return tile(array, rows, types.intp, types.intp, columns, ends), code


@intrinsic
def add_product(typing, tile, array, rows, row, size, weights, at):
    """The tile plus rows ``row + rows`` of an array with rows of this size, times the weights from ``at`` on."""

    def code(context, builder, signature, args):
        tile, array, rows, row, size, weights, at = args
        R, C = signature.args[2].count, signature.args[0].count // signature.args[2].count
        sums = [cgutils.alloca_once_value(builder, builder.extract_value(tile, k)) for k in range(R * C)]
        a = [
            _pointer(
                context,
                builder,
                signature.args[1],
                array,
                builder.mul(builder.add(row, builder.extract_value(rows, r)), size),
            )
            for r in range(R)
        ]
        w = builder.bitcast(_pointer(context, builder, signature.args[5], weights, at), _FLOATS.as_pointer())
        with cgutils.for_range(builder, size) as loop:
            first = builder.mul(loop.index, ir.Constant(loop.index.type, C))
            vectors = [
                builder.load(builder.gep(w, [builder.add(first, ir.Constant(first.type, c))]), align=4)
                for c in range(C)
            ]
            for r in range(R):
                x = _repeat(builder, builder.load(builder.gep(a[r], [loop.index])))
                for c, vector in enumerate(vectors):
                    k = r * C + c
                    product = builder.fmul(x, vector, flags=_CONTRACT)
                    builder.store(builder.fadd(builder.load(sums[k]), product, flags=_CONTRACT), sums[k])
        return context.make_tuple(builder, signature.return_type, [builder.load(total) for total in sums])

    return tile(tile, array, rows, types.intp, types.intp, weights, types.intp), code


_OPTIONS: dict[str, Any] = {"fastmath": {"contract"}, "error_model": "numpy", "nogil": True}
_compiled = njit(**_OPTIONS)


def _cached(function: Callable[..., None]) -> Callable[..., None]:
    """Compiles a function. The code is cached beside this file or in the user's cache folder, if one is writable."""
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # neither folder is writable
        return njit(**_OPTIONS)(function)


@_compiled
def exp(x):
    """e ** x with a relative error of 1e-7: 2 ** n times a polynomial, as in Cephes (Moshier 1989)."""
    x = clip(x, f32(-87), f32(88))
    shift = repeat(f32(1.5 * 2**23))  # adding it rounds to an integer in the lowest bits
    shifted = x * repeat(f32(1.4426950408889634)) + shift
    n = shifted - shift
    x = x - n * repeat(f32(0.693359375)) + n * repeat(f32(2.12194440e-4))  # log(2) in two parts
    y = repeat(f32(1.9875691500e-4))
    y = y * x + repeat(f32(1.3981999507e-3))
    y = y * x + repeat(f32(8.3334519073e-3))
    y = y * x + repeat(f32(4.1665795894e-2))
    y = y * x + repeat(f32(1.6666665459e-1))
    y = y * x + repeat(f32(0.5))
    return (y * (x * x) + x + repeat(f32(1))) * power_of_two(shifted)


@_compiled
def sigma(x):
    one = repeat(f32(1))
    return one / (one + exp(repeat(f32(0)) - x))


@_compiled
def tanh(x):
    one, two = repeat(f32(1)), repeat(f32(2))
    return one - two / (one + exp(two * x))


class Layer(NamedTuple):
    """The forward pass of a layer on packed frames. Arrays are flat. ``forward`` fills the last three."""

    starts: Any  # the first row of each step, and N
    D: int  # the number of inputs to multiply in each step; 0 if ``inputs`` has their products
    H: int
    x: Any  # (N, D)
    w_ih: Any  # from ``by_units``
    w_hh: Any
    inputs: Any  # what is added to the gates: the bias (4H,), or products and bias (N, 4H)
    stride: int  # between rows of ``inputs``: 0 or 4H
    h0: Any  # (rows, H), or empty for zeros
    c0: Any
    gates: Any  # (N, 4H)
    hidden: Any  # (N, H)
    cell: Any


class Gradients(NamedTuple):
    """The backward pass of a layer. Arrays are flat. ``backward`` fills the last two."""

    starts: Any
    H: int
    w_hh: Any  # from ``by_columns``
    c0: Any
    gates: Any
    cell: Any
    d_hidden: Any
    d_cell: Any  # or empty for zeros
    d_gates: Any
    d_c: Any  # (rows, H), zeros at first, then the gradient of c0


@_cached
def forward(layer, first, threads):
    """Runs the blocks of one thread: number ``first`` and every ``threads``-th after it."""
    starts = layer.starts
    for block in range(BLOCK * first, starts[1], BLOCK * threads):
        for t in range(len(starts) - 1):
            row, count = starts[t] + block, min(BLOCK, starts[t + 1] - starts[t] - block)
            if count <= 0:
                break
            before = starts[t - 1] + block if t else block
            h, c = (layer.hidden, layer.cell) if t else (layer.h0, layer.c0)
            r = 0
            while r < count:
                if count - r >= len(ROWS):
                    _advance(layer, ROWS, row + r, before + r, h, c)
                    r += len(ROWS)
                elif count - r >= 2:
                    _advance(layer, _TWO_ROWS, row + r, before + r, h, c)
                    r += 2
                else:
                    _advance(layer, _ONE_ROW, row + r, before + r, h, c)
                    r += 1


@_compiled
def _advance(layer, rows, row, before, h_before, c_before):
    """Runs one step for the frames ``row + rows``. Their previous states are in rows ``before + rows``."""
    D, H = layer.D, layer.H
    memory = H if len(h_before) else 0
    for j in range(0, H, LANES):
        units = min(LANES, H - j)
        a = load_tile(layer.inputs, rows, row, layer.stride, (j, H + j, 2 * H + j, 3 * H + j), (H, 2 * H, 3 * H, 4 * H))
        a = add_product(a, layer.x, rows, row, D, layer.w_ih, j * 4 * D)
        a = add_product(a, h_before, rows, before, memory, layer.w_hh, j * 4 * H)
        for r in rows:
            i, f, g, o = sigma(a[4 * r]), sigma(a[4 * r + 1]), tanh(a[4 * r + 2]), sigma(a[4 * r + 3])
            c = i * g
            if len(c_before):
                c = c + f * load(c_before, (before + r) * H + j, units)
            gate, state = (row + r) * 4 * H + j, (row + r) * H + j
            store(layer.gates, gate, units, i)
            store(layer.gates, gate + H, units, f)
            store(layer.gates, gate + 2 * H, units, g)
            store(layer.gates, gate + 3 * H, units, o)
            store(layer.cell, state, units, c)
            store(layer.hidden, state, units, o * tanh(c))


@_cached
def backward(layer, first, threads):
    """Runs the blocks of one thread, as in ``forward``, from the last step to the first."""
    starts = layer.starts
    for block in range(BLOCK * first, starts[1], BLOCK * threads):
        later, after = 0, 0  # at the next step: the number of rows of the block, and its first row
        for t in range(len(starts) - 2, -1, -1):
            row, count = starts[t] + block, min(BLOCK, starts[t + 1] - starts[t] - block)
            if count <= 0:
                continue
            before = starts[t - 1] + block if t else block
            c = layer.cell if t else layer.c0
            r = 0
            while r < count:
                limit = later if r < later else count
                if limit - r >= len(ROWS):
                    _retreat(layer, ROWS, row + r, before + r, after + r, r < later, block + r, c)
                    r += len(ROWS)
                elif limit - r >= 2:
                    _retreat(layer, _TWO_ROWS, row + r, before + r, after + r, r < later, block + r, c)
                    r += 2
                else:
                    _retreat(layer, _ONE_ROW, row + r, before + r, after + r, r < later, block + r, c)
                    r += 1
            later, after = count, row


@_compiled
def _retreat(layer, rows, row, before, after, continues, block, c_before):
    """Computes gradients of the frames ``row + rows`` from those of ``after + rows``, if their sequences continue."""
    H, one = layer.H, repeat(f32(1))
    for j in range(0, H, 2 * LANES):
        dh = load_tile(layer.d_hidden, rows, row, H, (j, j + LANES), (H, H))
        dh = add_product(dh, layer.d_gates, rows, after, 4 * H if continues else 0, layer.w_hh, j * 4 * H)
        for k in range(len(dh)):
            r, unit = k // 2, j + k % 2 * LANES
            units = min(LANES, H - unit)
            if units <= 0:
                continue
            gate, state, memory = (row + r) * 4 * H + unit, (row + r) * H + unit, (block + r) * H + unit
            i, f = load(layer.gates, gate, units), load(layer.gates, gate + H, units)
            g, o = load(layer.gates, gate + 2 * H, units), load(layer.gates, gate + 3 * H, units)
            tanh_c = tanh(load(layer.cell, state, units))
            dc = load(layer.d_c, memory, units) + dh[k] * o * (one - tanh_c * tanh_c)
            if len(layer.d_cell):
                dc = dc + load(layer.d_cell, state, units)
            df = repeat(f32(0))
            if len(c_before):
                df = dc * load(c_before, (before + r) * H + unit, units) * f * (one - f)
            store(layer.d_gates, gate, units, dc * g * i * (one - i))
            store(layer.d_gates, gate + H, units, df)
            store(layer.d_gates, gate + 2 * H, units, dc * i * (one - g * g))
            store(layer.d_gates, gate + 3 * H, units, dh[k] * tanh_c * o * (one - o))
            store(layer.d_c, memory, units, dc * f)
