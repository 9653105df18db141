"""The LSTM kernels of the extra ``fast`` in numba, and their machine code. Only compiling imports this file.

Rows are independent, so each block of rows runs through all steps separately. A block is small enough that the sums of
a step stay in the cache until the activations read them. Threads that run the same kernel share its parts: each takes
the next one until none is left. Arrays are those of ``fused_vectors``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import llvmlite.binding as llvm
from numba import cfunc, types

from seqclf.models.kernels.fused_vectors import (
    LANES,
    OPTIONS,
    Matrix,
    at,
    compiled,
    entry,
    integer,
    load,
    next_part,
    product,
    repeat,
    sigma,
    store,
    tanh,
    turn,
)

KERNELS: list[Callable[..., None]] = []
"""The functions that are called from outside. All their arguments are int64."""


def _kernel(function: Callable[..., None]) -> Callable[..., None]:
    KERNELS.append(function)
    return compiled(function)


@_kernel
def panels(w, rows, columns, out, taken):
    """Copies weights ``(rows, columns)`` to panels ``(columns / LANES, rows, LANES)``, with zeros at the end."""
    j = LANES * next_part(taken)
    while j < columns:
        panel(at(w, j), columns, rows, min(LANES, columns - j), at(out, j * rows))
        j = LANES * next_part(taken)


@compiled
def panel(w, row, rows, columns, out):
    for k in range(rows):
        store(out, k * LANES, LANES, load(w, k * row, columns))


@_kernel
def panels_of_transpose(w, rows, columns, out, taken):
    """Copies weights ``(columns, rows)`` to the panels of their transpose."""
    j = LANES * next_part(taken)
    while j < columns:
        for k in range(0, rows, LANES):
            block, to = at(w, j * rows + k), at(out, j * rows + k * LANES)
            turn(min(LANES, columns - j), min(LANES, rows - k), block, rows, to, LANES, LANES)
        j = LANES * next_part(taken)


@_kernel
def take(x, width, N, index, count, out, size, taken):
    """``out[k] = x[index[k]]`` for ``count`` rows of ``width`` floats, ``size`` rows at a time.

    A row is zero for the index N, where x has N rows.
    """
    first = size * next_part(taken)
    while first < count:
        for k in range(first, min(count, first + size)):
            row = integer(index, k)
            for j in range(0, width, LANES):
                units = min(LANES, width - j)
                store(out, k * width + j, units, load(x, row * width + j, units if row < N else 0))
        first = size * next_part(taken)


@_kernel
def forward(starts, steps, D, H, x, w_ih, w_hh, inputs, row, h0, c0, gates, hidden, cell, memory, size, taken):
    """Runs blocks of ``size`` rows.

    Args:
        starts: ``(steps + 1,)`` int64, the first packed row of each step, and N.
        D, x: the number of inputs to multiply in each step, and ``(N, D)``; 0 if ``inputs`` has their products.
        w_ih, w_hh: panels of the transposed weights.
        inputs, row: what is added to the gates, and the distance of its rows: the bias ``(4H,)`` and 0, or ``(N, 4H)``
            and 4H.
        h0, c0: ``(rows, H)``, or 0 for zeros.
        gates: ``(N, 4H)``, to write, or 0 if there is no backward pass.
        hidden, cell: ``(N, H)``, to write.
        memory: without ``gates``, for ``(rows, 4H)``.
        taken: the number of blocks that were begun.
    """
    block = size * next_part(taken)
    while block < integer(starts, 1):
        before = block
        for t in range(steps):
            n = integer(starts, t) + block
            count = min(size, integer(starts, t + 1) - n)
            if count <= 0:
                break
            h, c = (at(hidden, before * H), at(cell, before * H)) if t else (at(h0, block * H), at(c0, block * H))
            sums = Matrix(at(gates, n * 4 * H) if gates else at(memory, block * 4 * H), 4 * H, 1)
            init, frames, states = Matrix(at(inputs, n * row), row, 1), Matrix(at(x, n * D), D, 1), Matrix(h, H, 1)
            product(sums, init, 4 * H, count, frames, D, w_ih, states, H if h else 0, w_hh)
            for r in range(count):
                advance(H, at(sums.array, r * 4 * H), at(c, r * H), at(cell, (n + r) * H), at(hidden, (n + r) * H))
            before = n
        block = size * next_part(taken)


@compiled
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
    starts, steps, D, H, w_ih, w_hh, c0, gates, cell, d_hidden, d_cell, d_gates, d_x, d_c, memory, size, taken
):
    """Runs blocks of rows, as in ``forward``, from the last step to the first.

    Args:
        D: the number of inputs whose gradients are computed.
        w_ih, w_hh: panels of the weights.
        d_cell: ``(N, H)``, or 0 for zeros.
        d_gates, d_x: ``(N, 4H)`` and ``(N, D)``, to write.
        d_c: ``(rows, H)``, zeros at first, then the gradient of c0.
        memory: for ``(rows, H)``.
    """
    nothing = Matrix(0, 0, 0)
    block = size * next_part(taken)
    while block < integer(starts, 1):
        d_h = at(memory, block * H)
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
        block = size * next_part(taken)


@compiled
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
    starts, steps, D, H, x, hidden, h0, d_gates, sums, d_w_ih, d_w_hh, d_bias, size, memory, width, taken
):
    """Computes the gradients of the weights ``(4H, D)`` and ``(4H, H)`` and of the bias, ``width`` rows at a time.

    Args:
        sums: ``(D + H, 4H)``, zeros at first, then the gradients of the transposed weights.
        d_bias: ``(4H,)``, zeros at first.
        size, memory: the number of frames that are added together, and memory for ``H + width`` floats of each in
            each thread. ``width`` is at least the number of columns of a part, rounded up to vectors.
        taken: the numbers of parts and of threads that were begun.
    """
    memory = at(memory, next_part(taken + 8) * size * (H + width))
    begin = width * next_part(taken)
    while begin < 4 * H:
        end = min(4 * H, begin + width)
        sum_gradients(starts, steps, D, H, x, hidden, h0, d_gates, sums, d_bias, size, memory, begin, end)
        copy_transpose(D, H, sums, begin, end, d_w_ih)
        copy_transpose(H, H, at(sums, D * 4 * H), begin, end, d_w_hh)
        begin = width * next_part(taken)


@compiled
def sum_gradients(starts, steps, D, H, x, hidden, h0, d_gates, sums, d_bias, size, memory, begin, end):
    """Adds to columns ``begin`` to ``end`` of ``sums`` and of ``d_bias``."""
    rows, columns, nothing, t, n = integer(starts, 1), end - begin, Matrix(0, 0, 0), 0, 0
    sums_ih, sums_hh = Matrix(at(sums, begin), 4 * H, 1), Matrix(at(sums, D * 4 * H + begin), 4 * H, 1)
    gradients = at(memory, size * H)
    while n < integer(starts, steps):
        frames = min(size, (integer(starts, steps) if n >= rows else rows) - n)
        for j in range(0, columns, LANES):
            panel(at(d_gates, n * 4 * H + begin + j), 4 * H, frames, min(LANES, columns - j), at(gradients, j * frames))
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


@compiled
def copy_transpose(rows, H, x, begin, end, out):
    """Copies columns ``begin`` to ``end`` of x ``(rows, 4H)`` to the rows of ``out``."""
    for j in range(begin, end, LANES):
        for k in range(0, rows, LANES):
            units = min(LANES, rows - k)
            turn(units, min(LANES, end - j), at(x, k * 4 * H + j), 4 * H, at(out, j * rows + k), rows, units)


@compiled
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
    """Compiles the kernels for this CPU.

    Returns:
        an object file with the function ``seqclf_<name>`` of each. It gets the address of an array of the arguments,
        because the functions that the threads of OpenMP run have one argument.
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly("")
    for kernel in KERNELS:
        arguments = len(inspect.signature(kernel).parameters)
        wrapped = cfunc(types.void(*[types.int64] * arguments), **OPTIONS)(kernel)
        module.link_in(llvm.parse_assembly(wrapped.inspect_llvm()))
        module.link_in(llvm.parse_assembly(entry(f"seqclf_{kernel.__name__}", wrapped.native_name, arguments)))
    exported = {f"seqclf_{kernel.__name__}" for kernel in KERNELS}
    for function in module.functions:
        if not function.is_declaration:
            function.linkage = "external" if function.name in exported else "internal"
    options = {"cpu": llvm.get_host_cpu_name(), "features": llvm.get_host_cpu_features().flatten(), "opt": 3}
    machine = llvm.Target.from_default_triple().create_target_machine(**options)
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    passes.getModulePassManager().run(module, passes)  # removes what is not used, such as calls of Python
    return machine.emit_object(module)
