"""An LSTM layer compiled by numba. Import this file only if numba is installed.

A product of matrices is computed tile by tile. The sums of a *tile*, a few rows and a few vectors of columns, stay in
registers. Weights are first copied to *panels*, one per vector of columns, so that a tile reads them in order. Rows are
independent, so each block of rows runs through all steps separately. A block is small enough that the sums of a step
stay in the cache until the activations read them.

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
ROWS, VECTORS = 8 if _WIDE else 4, 3
"""The largest tile that fits in the registers."""
FRAMES = 192
"""The number of frames that are added to the gradients of weights together."""

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


def _store(builder: Any, pointer: Any, count: Any, x: Any) -> None:
    kind = ir.FunctionType(ir.VoidType(), [_FLOATS, _FLOATS.as_pointer(), _INT, _MASK])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.masked.store.v{LANES}f32.p0")
    builder.call(function, [x, builder.bitcast(pointer, _FLOATS.as_pointer()), _INT(4), _first(builder, count)])


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
        _store(builder, _pointer(context, builder, signature.args[0], array, index), count, x)
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


class Matrix(NamedTuple):
    """A matrix in a flat array. Element (r, k) is ``array[start + r * row + k * column]``."""

    array: Any
    start: int
    row: int
    column: int


def _tile(module: Any, R: int, C: int) -> Any:
    """The LLVM function of ``tile`` for R rows and C vectors."""
    name = f"seqclf_tile_{R}_{C}"
    if name in module.globals:
        return module.globals[name]
    floats, whole = _FLOAT.as_pointer(), ir.IntType(64)
    kinds = [floats, whole, floats, whole, whole, *[floats, whole, whole, whole, floats] * 2]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
    function.linkage = "linkonce_odr"
    function.attributes.add("noinline")  # compiled once
    function.attributes.add("minsize")  # without unrolled loops: as fast, and compiled faster
    out, out_row, init, init_row, left, *products = function.args
    builder = ir.IRBuilder(function.append_basic_block())
    counts = [whole(LANES)] * (C - 1) + [builder.sub(left, whole((C - 1) * LANES))]
    places = [(r, c) for r in range(R) for c in range(C)]

    def at(array: Any, row: Any, r: int, offset: Any) -> Any:
        return builder.gep(array, [builder.add(builder.mul(row, whole(r)), offset)])

    sums = {}
    for r, c in places:
        start = _load(builder, at(init, init_row, r, whole(c * LANES)), counts[c])
        sums[r, c] = cgutils.alloca_once_value(builder, start)
    for x, row, column, K, w in (products[:5], products[5:]):
        panels = builder.bitcast(w, _FLOATS.as_pointer())
        with cgutils.for_range(builder, K) as loop:
            vectors = [builder.load(at(panels, K, c, loop.index), align=4) for c in range(C)]
            offset = builder.mul(loop.index, column)
            factors = [_repeat(builder, builder.load(at(x, row, r, offset))) for r in range(R)]
            for r, c in places:
                product = builder.fmul(factors[r], vectors[c], flags=_CONTRACT)
                builder.store(builder.fadd(builder.load(sums[r, c]), product, flags=_CONTRACT), sums[r, c])
    for r, c in places:
        _store(builder, at(out, out_row, r, whole(c * LANES)), counts[c], builder.load(sums[r, c]))
    builder.ret_void()
    return function


@intrinsic
def tile(typing, rows, vectors, left, out, init, x, K, w, h, L, v):
    """``product`` for a tile of ``rows`` rows (a power of 2) and ``vectors`` vectors, of ``left`` columns in all."""

    def code(context, builder, signature, args):
        def matrix(n):
            array, start, *strides = (builder.extract_value(args[n], k) for k in range(4))
            return [_pointer(context, builder, signature.args[n][0], array, start), *strides]

        rows, vectors, left, *_ = args
        arguments = [*matrix(3)[:2], *matrix(4)[:2], left]
        for n in (5, 8):
            arguments += [*matrix(n), args[n + 1], matrix(n + 2)[0]]
        whole, done = left.type, builder.append_basic_block()
        switch = builder.switch(builder.add(builder.mul(rows, whole(VECTORS + 1)), vectors), done)
        for R in (1, 2, 4, 8):
            for C in range(1, VECTORS + 1) if R <= ROWS else ():
                block = builder.append_basic_block()
                switch.add_case(whole(R * (VECTORS + 1) + C), block)
                with builder.goto_block(block):
                    builder.call(_tile(builder.module, R, C), arguments)
                    builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    whole = types.intp
    return types.void(whole, whole, whole, out, init, x, whole, w, h, whole, v), code


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


@_compiled
def product(out, init, columns, count, x, K, w, h, L, v):
    """``out = init + x @ w + h @ v``, for ``count`` rows. x has K columns, h has L. w and v are panels."""
    for j in range(0, columns, VECTORS * LANES):
        left = columns - j
        vectors = min(VECTORS, (left + LANES - 1) // LANES)
        w_j, v_j = Matrix(w, j * K, 0, 0), Matrix(v, j * L, 0, 0)
        rows, r = ROWS, 0
        while r < count:
            while rows > count - r:
                rows //= 2
            tile(rows, vectors, left, _at(out, r, j), _at(init, r, j), _at(x, r, 0), K, w_j, _at(h, r, 0), L, v_j)
            r += rows


@_compiled
def _at(matrix, r, j):
    return Matrix(matrix.array, matrix.start + r * matrix.row + j, matrix.row, matrix.column)


@_cached
def panels(w, start, row, rows, columns, out):
    """Copies weights ``(rows, columns)`` to panels ``(columns / LANES, rows, LANES)``, with zeros at the end."""
    for k in range(rows):
        for j in range(0, columns, LANES):
            store(out, j * rows + k * LANES, LANES, load(w, start + k * row + j, min(LANES, columns - j)))


class Layer(NamedTuple):
    """The forward pass of a layer on packed frames. Arrays are flat. ``forward`` fills the last three."""

    starts: Any  # the first row of each step, and N
    D: int  # the number of inputs to multiply in each step; 0 if ``inputs`` has their products
    H: int
    x: Any  # (N, D)
    w_ih: Any  # panels of the transposed weights
    w_hh: Any
    inputs: Any  # what is added to the gates: the bias (4H,), or products and bias (N, 4H)
    row: int  # between rows of ``inputs``: 0 or 4H
    h0: Any  # (rows, H), or empty for zeros
    c0: Any
    gates: Any  # (N, 4H), or empty if there is no backward pass
    hidden: Any  # (N, H)
    cell: Any


class Gradients(NamedTuple):
    """The backward pass of a layer. Arrays are flat. ``backward`` fills the last three."""

    starts: Any
    D: int  # the number of inputs whose gradients are computed
    H: int
    w_ih: Any  # panels
    w_hh: Any
    c0: Any
    gates: Any
    cell: Any
    d_hidden: Any
    d_cell: Any  # or empty for zeros
    d_gates: Any
    d_x: Any  # (N, D)
    d_c: Any  # (rows, H), zeros at first, then the gradient of c0


@_cached
def forward(layer, size, first, threads):
    """Runs the blocks of ``size`` rows of one thread: number ``first`` and every ``threads``-th after it."""
    starts, D, H = layer.starts, layer.D, layer.H
    sums = np.empty(size * 4 * H, np.float32)
    for block in range(size * first, starts[1], size * threads):
        for t in range(len(starts) - 1):
            row, count = starts[t] + block, min(size, starts[t + 1] - starts[t] - block)
            if count <= 0:
                break
            before = starts[t - 1] + block if t else block
            h, c = (layer.hidden, layer.cell) if t else (layer.h0, layer.c0)
            inputs, x = Matrix(layer.inputs, row * layer.row, layer.row, 1), Matrix(layer.x, row * D, D, 1)
            h_before, L = Matrix(h, before * H, H, 1), H if len(h) else 0
            product(Matrix(sums, 0, 4 * H, 1), inputs, 4 * H, count, x, D, layer.w_ih, h_before, L, layer.w_hh)
            for r in range(count):
                _advance(layer, sums, r, row + r, before + r, c)


@_compiled
def _advance(layer, sums, r, row, before, c_before):
    """Computes frame ``row`` from the sums of its gates in row r, and from its previous c in row ``before``."""
    H = layer.H
    for j in range(0, H, LANES):
        units, a, gate, state = min(LANES, H - j), r * 4 * H + j, row * 4 * H + j, row * H + j
        i, f = sigma(load(sums, a, units)), sigma(load(sums, a + H, units))
        g, o = tanh(load(sums, a + 2 * H, units)), sigma(load(sums, a + 3 * H, units))
        c = i * g
        if len(c_before):
            c = c + f * load(c_before, before * H + j, units)
        if len(layer.gates):
            store(layer.gates, gate, units, i)
            store(layer.gates, gate + H, units, f)
            store(layer.gates, gate + 2 * H, units, g)
            store(layer.gates, gate + 3 * H, units, o)
        store(layer.cell, state, units, c)
        store(layer.hidden, state, units, o * tanh(c))


@_cached
def backward(layer, size, first, threads):
    """Runs the blocks of one thread, as in ``forward``, from the last step to the first."""
    starts, D, H = layer.starts, layer.D, layer.H
    dh, zeros = np.empty(size * H, np.float32), np.zeros(D, np.float32)
    nothing = Matrix(zeros, 0, 0, 0)
    for block in range(size * first, starts[1], size * threads):
        later, after = 0, 0  # at the next step: the number of rows of the block, and its first row
        for t in range(len(starts) - 2, -1, -1):
            row, count = starts[t] + block, min(size, starts[t + 1] - starts[t] - block)
            if count <= 0:
                continue
            d_hidden, d_next = Matrix(layer.d_hidden, row * H, H, 1), Matrix(layer.d_gates, after * 4 * H, 4 * H, 1)
            product(Matrix(dh, 0, H, 1), d_hidden, H, later, d_next, 4 * H, layer.w_hh, nothing, 0, zeros)
            before = starts[t - 1] + block if t else block
            for r in range(count):
                d_h = Matrix(dh, r * H, H, 1) if r < later else _at(d_hidden, r, 0)
                _retreat(layer, d_h, row + r, before + r, block + r, layer.cell if t else layer.c0)
            d_x, d_sums = Matrix(layer.d_x, row * D, D, 1), Matrix(layer.d_gates, row * 4 * H, 4 * H, 1)
            product(d_x, nothing, D, count, d_sums, 4 * H, layer.w_ih, nothing, 0, zeros)
            later, after = count, row


@_compiled
def _retreat(layer, d_h, row, before, memory, c_before):
    """Computes the gradients of frame ``row`` from those of its h, ``d_h``, and of its c, row ``memory`` of ``d_c``."""
    H, one = layer.H, repeat(f32(1))
    for j in range(0, H, LANES):
        units, gate, state, at = min(LANES, H - j), row * 4 * H + j, row * H + j, memory * H + j
        i, f = load(layer.gates, gate, units), load(layer.gates, gate + H, units)
        g, o = load(layer.gates, gate + 2 * H, units), load(layer.gates, gate + 3 * H, units)
        tanh_c, dh = tanh(load(layer.cell, state, units)), load(d_h.array, d_h.start + j, units)
        dc = load(layer.d_c, at, units) + dh * o * (one - tanh_c * tanh_c)
        if len(layer.d_cell):
            dc = dc + load(layer.d_cell, state, units)
        df = repeat(f32(0))
        if len(c_before):
            df = dc * load(c_before, before * H + j, units) * f * (one - f)
        store(layer.d_gates, gate, units, dc * g * i * (one - i))
        store(layer.d_gates, gate + H, units, df)
        store(layer.d_gates, gate + 2 * H, units, dc * i * (one - g * g))
        store(layer.d_gates, gate + 3 * H, units, dh * tanh_c * o * (one - o))
        store(layer.d_c, at, units, dc * f)


@_cached
def weight_gradients(x, D, h, H, d_gates, widest, begin, end, d_w_ih, d_w_hh):
    """Adds the gradients of columns ``begin`` to ``end`` of the transposed weights ``(D, 4H)`` and ``(H, 4H)``.

    x is ``(N, D)``, ``d_gates`` is ``(N, 4H)``, and h is ``(N - widest, H)``: the h before each frame from step 1 on.
    """
    columns, N, none = end - begin, len(d_gates) // (4 * H), np.empty(0, np.float32)
    g, nothing = np.empty(FRAMES * (columns + LANES), np.float32), Matrix(none, 0, 0, 0)
    sums_ih, sums_hh = Matrix(d_w_ih, begin, 4 * H, 1), Matrix(d_w_hh, begin, 4 * H, 1)
    n = 0
    while n < N:
        frames = min(FRAMES, (N if n >= widest else widest) - n)
        panels(d_gates, n * 4 * H + begin, 4 * H, frames, columns, g)
        product(sums_ih, sums_ih, columns, D, Matrix(x, n * D, 1, D), frames, g, nothing, 0, none)
        if n >= widest:
            h_before = Matrix(h, (n - widest) * H, 1, H)
            product(sums_hh, sums_hh, columns, H, h_before, frames, g, nothing, 0, none)
        n += frames
