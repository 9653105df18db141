"""The LSTM kernels of the extra ``fast`` in numba, and their machine code. Only compiling imports this file.

A product of matrices is computed tile by tile. The sums of a *tile*, a few rows and a few vectors of columns, stay in
registers. Weights are first copied to *panels*, one per vector of columns, so that a tile reads them in order. Rows are
independent, so each block of rows runs through all steps separately. A block is small enough that the sums of a step
stay in the cache until the activations read them.

All arrays are float32 without gaps, and given by their addresses. Address 0 stands for an array of zeros that is not
there.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import llvmlite.binding as llvm
from llvmlite import ir
from numba import cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

_WIDE = bool(llvm.get_host_cpu_features().get("avx512f", False))
LANES = 16 if _WIDE else 8
"""The number of floats in a vector."""
ROWS, VECTORS = 8 if _WIDE else 4, 3
"""The largest tile that fits in the registers."""

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
        switch = builder.switch(builder.add(builder.mul(rows, _WHOLE(VECTORS + 1)), vectors), done)
        for R in (1, 2, 4, 8):
            for C in range(1, VECTORS + 1) if R <= ROWS else ():
                block = builder.append_basic_block()
                switch.add_case(_WHOLE(R * (VECTORS + 1) + C), block)
                with builder.goto_block(block):
                    builder.call(_tile(builder.module, R, C), arguments)
                    builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(_whole, _whole, _whole, out, init, x, _whole, _whole, h, _whole, _whole), code


_OPTIONS: dict[str, Any] = {"fastmath": {"contract"}, "error_model": "numpy"}
_compiled = njit(**_OPTIONS)
KERNELS: list[Callable[..., None]] = []
"""The functions that are called from outside. All their arguments are int64."""


def _kernel(function: Callable[..., None]) -> Callable[..., None]:
    KERNELS.append(function)
    return _compiled(function)


@_compiled
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


@_compiled
def sigma(x):
    return repeat(1.0) / (repeat(1.0) + exp(repeat(0.0) - x))


@_compiled
def tanh(x):
    return repeat(1.0) - repeat(2.0) / (repeat(1.0) + exp(repeat(2.0) * x))


@_compiled
def at(array, index):
    """The address of an element; 0 stays 0."""
    return array + 4 * index if array else array


@_compiled
def product(out, init, columns, count, x, K, w, h, L, v):
    """``out = init + x @ w + h @ v``, for ``count`` rows. x has K columns, h has L. w and v are panels."""
    for j in range(0, columns, VECTORS * LANES):
        left = columns - j
        vectors = min(VECTORS, (left + LANES - 1) // LANES)
        rows, r = ROWS, 0
        while r < count:
            while rows > count - r:
                rows //= 2
            w_j, v_j = at(w, j * K), at(v, j * L)
            tile(rows, vectors, left, part(out, r, j), part(init, r, j), part(x, r, 0), K, w_j, part(h, r, 0), L, v_j)
            r += rows


@_compiled
def part(matrix, r, j):
    return Matrix(at(matrix.array, r * matrix.row + j), matrix.row, matrix.column)


@_kernel
def panels(w, row, rows, columns, out):
    """Copies weights ``(rows, columns)`` to panels ``(columns / LANES, rows, LANES)``, with zeros at the end."""
    for j in range(0, columns, LANES):
        for k in range(rows):
            store(out, j * rows + k * LANES, LANES, load(w, k * row + j, min(LANES, columns - j)))


@_kernel
def panels_of_transpose(w, rows, columns, out):
    """Copies weights ``(columns, rows)`` to the panels of their transpose."""
    for j in range(0, columns, LANES):
        for k in range(0, rows, LANES):
            block, to = at(w, j * rows + k), at(out, j * rows + k * LANES)
            turn(min(LANES, columns - j), min(LANES, rows - k), block, rows, to, LANES, LANES)


@_kernel
def take(x, width, N, index, count, out):
    """``out[k] = x[index[k]]`` for ``count`` rows of ``width`` floats; zeros for index N, where x has N rows."""
    for k in range(count):
        row = integer(index, k)
        for j in range(0, width, LANES):
            units = min(LANES, width - j)
            store(out, k * width + j, units, load(x, row * width + j, units if row < N else 0))


@_kernel
def forward(starts, steps, D, H, x, w_ih, w_hh, inputs, row, h0, c0, gates, hidden, cell, memory, size, first, threads):
    """Runs the blocks of ``size`` rows of one thread: number ``first`` and every ``threads``-th after it.

    Args:
        starts: ``(steps + 1,)`` int64, the first packed row of each step, and N.
        D, x: the number of inputs to multiply in each step, and ``(N, D)``; 0 if ``inputs`` has their products.
        w_ih, w_hh: panels of the transposed weights.
        inputs, row: what is added to the gates, and the distance of its rows: the bias ``(4H,)`` and 0, or ``(N, 4H)``
            and 4H.
        h0, c0: ``(rows, H)``, or 0 for zeros.
        gates: ``(N, 4H)``, to write, or 0 if there is no backward pass.
        hidden, cell: ``(N, H)``, to write.
        memory: without ``gates``, for ``size`` rows of 4H floats of each thread.
    """
    block = size * first
    while block < integer(starts, 1):
        before = block
        for t in range(steps):
            n = integer(starts, t) + block
            count = min(size, integer(starts, t + 1) - n)
            if count <= 0:
                break
            h, c = (at(hidden, before * H), at(cell, before * H)) if t else (at(h0, block * H), at(c0, block * H))
            sums = Matrix(at(gates, n * 4 * H) if gates else at(memory, size * first * 4 * H), 4 * H, 1)
            init, frames, states = Matrix(at(inputs, n * row), row, 1), Matrix(at(x, n * D), D, 1), Matrix(h, H, 1)
            product(sums, init, 4 * H, count, frames, D, w_ih, states, H if h else 0, w_hh)
            for r in range(count):
                advance(H, at(sums.array, r * 4 * H), at(c, r * H), at(cell, (n + r) * H), at(hidden, (n + r) * H))
            before = n
        block += size * threads


@_compiled
def advance(H, gates, c_before, cell, hidden):
    """Computes one frame. ``gates`` has the sums, then the gates."""
    for j in range(0, H, LANES):
        units = min(LANES, H - j)
        i, f = sigma(load(gates, j, units)), sigma(load(gates, H + j, units))
        g, o = tanh(load(gates, 2 * H + j, units)), sigma(load(gates, 3 * H + j, units))
        c = i * g
        if c_before:
            c = c + f * load(c_before, j, units)
        store(gates, j, units, i)
        store(gates, H + j, units, f)
        store(gates, 2 * H + j, units, g)
        store(gates, 3 * H + j, units, o)
        store(cell, j, units, c)
        store(hidden, j, units, o * tanh(c))


@_kernel
def backward(
    starts, steps, D, H, w_ih, w_hh, c0, gates, cell, d_hidden, d_cell, d_gates, d_x, d_c, memory, size, first, threads
):
    """Runs the blocks of one thread, as in ``forward``, from the last step to the first.

    Args:
        D: the number of inputs whose gradients are computed.
        w_ih, w_hh: panels of the weights.
        d_cell: ``(N, H)``, or 0 for zeros.
        d_gates, d_x: ``(N, 4H)`` and ``(N, D)``, to write.
        d_c: ``(rows, H)``, zeros at first, then the gradient of c0.
        memory: for ``size`` rows of H floats of each thread.
    """
    d_h, nothing = at(memory, size * first * H), Matrix(0, 0, 0)
    block = size * first
    while block < integer(starts, 1):
        later, after = 0, 0  # at the next step: the number of rows of the block, and its first row
        for t in range(steps - 1, -1, -1):
            n = integer(starts, t) + block
            count = min(size, integer(starts, t + 1) - n)
            if count <= 0:
                continue
            seen, d_next = Matrix(at(d_hidden, n * H), H, 1), Matrix(at(d_gates, after * 4 * H), 4 * H, 1)
            product(Matrix(d_h, H, 1), seen, H, later, d_next, 4 * H, w_hh, nothing, 0, 0)
            c = at(cell, (integer(starts, t - 1) + block) * H) if t else at(c0, block * H)
            for r in range(count):
                retreat(
                    H,
                    at(gates, (n + r) * 4 * H),
                    at(c, r * H),
                    at(cell, (n + r) * H),
                    at(d_cell, (n + r) * H),
                    at(d_h, r * H) if r < later else at(d_hidden, (n + r) * H),
                    at(d_c, (block + r) * H),
                    at(d_gates, (n + r) * 4 * H),
                )
            d_sums = Matrix(at(d_gates, n * 4 * H), 4 * H, 1)
            product(Matrix(at(d_x, n * D), D, 1), nothing, D, count, d_sums, 4 * H, w_ih, nothing, 0, 0)
            later, after = count, n
        block += size * threads


@_compiled
def retreat(H, gates, c_before, cell, d_cell, d_hidden, d_c, d_gates):
    """Computes the gradients of one frame from those of its h and c. ``d_c`` carries that of c to the frame before."""
    one = repeat(1.0)
    for j in range(0, H, LANES):
        units = min(LANES, H - j)
        i, f = load(gates, j, units), load(gates, H + j, units)
        g, o = load(gates, 2 * H + j, units), load(gates, 3 * H + j, units)
        tanh_c, dh = tanh(load(cell, j, units)), load(d_hidden, j, units)
        dc = load(d_c, j, units) + dh * o * (one - tanh_c * tanh_c)
        if d_cell:
            dc = dc + load(d_cell, j, units)
        df = repeat(0.0)
        if c_before:
            df = dc * load(c_before, j, units) * f * (one - f)
        store(d_gates, j, units, dc * g * i * (one - i))
        store(d_gates, H + j, units, df)
        store(d_gates, 2 * H + j, units, dc * i * (one - g * g))
        store(d_gates, 3 * H + j, units, dh * tanh_c * o * (one - o))
        store(d_c, j, units, dc * f)


@_kernel
def weight_gradients(
    starts, steps, D, H, x, hidden, h0, d_gates, sums, d_w_ih, d_w_hh, d_bias, size, memory, begin, end
):
    """Computes the gradients of rows ``begin`` to ``end`` of the weights ``(4H, D)`` and ``(4H, H)`` and of the bias.

    Args:
        sums: ``(D + H, 4H)``, zeros at first, then the gradients of the transposed weights.
        d_bias: ``(4H,)``, zeros at first.
        size, memory: the number of frames that are added together, and memory for ``H + end - begin`` floats of each,
            with the columns rounded up to vectors.
    """
    rows, columns, nothing, t, n = integer(starts, 1), end - begin, Matrix(0, 0, 0), 0, 0
    sums_ih, sums_hh = Matrix(at(sums, begin), 4 * H, 1), Matrix(at(sums, D * 4 * H + begin), 4 * H, 1)
    gradients = at(memory, size * H)
    while n < integer(starts, steps):
        frames = min(size, (integer(starts, steps) if n >= rows else rows) - n)
        panels(at(d_gates, n * 4 * H + begin), 4 * H, frames, columns, gradients)
        product(sums_ih, sums_ih, columns, D, Matrix(at(x, n * D), 1, D), frames, gradients, nothing, 0, 0)
        while integer(starts, t + 1) <= n:
            t += 1
        h = h_before(starts, t, n, frames, H, hidden, memory) if t else at(h0, n * H)
        if h:
            product(sums_hh, sums_hh, columns, H, Matrix(h, 1, H), frames, gradients, nothing, 0, 0)
        for j in range(0, columns, LANES):
            total, units = repeat(0.0), min(LANES, columns - j)
            for k in range(frames):
                total = total + load(gradients, j * frames + k * LANES, LANES)
            store(d_bias, begin + j, units, load(d_bias, begin + j, units) + total)
        n += frames
    for j in range(begin, end, LANES):
        for k in range(0, D, LANES):
            units = min(LANES, D - k)
            turn(units, min(LANES, end - j), at(sums, k * 4 * H + j), 4 * H, at(d_w_ih, j * D + k), D, units)
        for k in range(0, H, LANES):
            units = min(LANES, H - k)
            turn(units, min(LANES, end - j), at(sums, (D + k) * 4 * H + j), 4 * H, at(d_w_hh, j * H + k), H, units)


@_compiled
def h_before(starts, t, n, frames, H, hidden, out):
    """The address of h before each frame from frame n of step t > 0 on, copied to ``out`` if they are apart."""
    back, last = integer(starts, t) - integer(starts, t - 1), t
    while integer(starts, last + 1) < n + frames:
        last += 1
    if integer(starts, last) - integer(starts, last - 1) == back:  # all steps have as many rows
        return at(hidden, (n - back) * H)
    for k in range(frames):
        while integer(starts, t + 1) <= n + k:
            t += 1
        row = n + k - integer(starts, t) + integer(starts, t - 1)
        for j in range(0, H, LANES):
            store(out, k * H + j, min(LANES, H - j), load(hidden, row * H + j, min(LANES, H - j)))
    return out


def machine_code() -> bytes:
    """Compiles the kernels for this CPU. Returns an object file with the function ``seqclf_<name>`` of each."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly("")
    for kernel in KERNELS:
        arguments = len(inspect.signature(kernel).parameters)
        compiled = cfunc(types.void(*[_whole] * arguments), **_OPTIONS)(kernel)
        part = llvm.parse_assembly(compiled.inspect_llvm())
        part.get_function(compiled.native_name).name = f"seqclf_{kernel.__name__}"
        module.link_in(part)
    exported = {f"seqclf_{kernel.__name__}" for kernel in KERNELS}
    for function in module.functions:
        if not function.is_declaration:
            function.linkage = "external" if function.name in exported else "internal"
    options = {"cpu": llvm.get_host_cpu_name(), "features": llvm.get_host_cpu_features().flatten(), "opt": 3}
    machine = llvm.Target.from_default_triple().create_target_machine(**options)
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    passes.getModulePassManager().run(module, passes)  # removes what is not used, such as calls of Python
    return machine.emit_object(module)
