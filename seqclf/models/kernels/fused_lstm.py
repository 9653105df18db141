"""LSTM layers in compiled code, for float32 on the CPU with the extra ``fast`` (numba).

The equations are those of ``cpu_lstm``. With PyTorch's operators, each operation of a step is a pass over memory. Here,
the sums of a step stay in the cache until its activations and states are computed. All layers, and packing the frames,
are one function for autograd, because in small batches its overhead takes most of the time.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from ctypes import addressof, c_int64
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from seqclf.models.kernels import fused_code
from seqclf.models.segments import Segments

WIDEST, WIDEST_OF_ONE = 512, 128
"""The numbers of inputs, of several rows and of one, from which PyTorch computes their products, over all frames. This
rounds less, and is as fast; a step of one row uses the registers badly."""
ROWS, ROWS_OF_MANY = 64, 8
"""The largest number of rows that are run together, with one thread and with several."""
FRAMES = 192
"""The number of frames that are added to the gradients of weights together."""
LANES, COLUMNS = 16, 48
"""The largest numbers of floats in a vector, and of columns in a tile of the kernels."""
_PLAIN = (Tensor, nn.Parameter)
"""Other classes of tensors, such as those of a trial run without data, may have no memory."""
_ENOUGH = 1e6
"""The number of multiplications per thread: below it, starting another thread takes longer than it saves."""


def runs(x: Tensor, weights: Sequence[Tensor]) -> bool:
    """Whether ``lstm_layers`` can run: float32 in the memory of the CPU, numba available, no graph being traced."""
    if torch.compiler.is_compiling() or not available():
        return False
    return all(t.dtype == torch.float32 and t.device.type == "cpu" and type(t) in _PLAIN for t in (x, *weights))


def wins(steps: int) -> bool:
    """Whether ``lstm_layers`` is faster than oneDNN on clips of equal length, if it ``runs``."""
    return steps > 1 and (fused_code.openmp() is not None or torch.get_num_threads() == 1)


def available() -> bool:
    """Whether the kernels can be used, and the environment variable ``SEQCLF_FUSED`` is not 0."""
    return os.environ.get("SEQCLF_FUSED") != "0" and fused_code.available()


def lstm_layers(
    x: Tensor, segments: Segments, weights: Sequence[Tensor], state: tuple[Tensor, ...] | None, packed: bool = False
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Runs LSTM layers over the segments of a batch. Differentiable once, in every tensor.

    Args:
        x: features ``(B, T, D)`` float32, or ``packed`` frames ``(N, D)``.
        weights: ``w_ih, w_hh, b_ih, b_hh`` of each layer in turn, as in ``torch.nn.LSTM``.
        state: h and c before each segment, ``(layers, sizes[0], H)``; None for zeros.

    Returns:
        outputs ``(B, T, H)``, zero at padding, or ``(N, H)``; and h and c after each stream's last valid frame,
        ``(layers, B, H)``.
    """
    h0, c0 = (None, None) if state is None else state
    tensors = (x, h0, c0, *weights)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        outputs, h, c = _Layers.apply(x, segments, packed, h0, c0, *weights)
    else:
        outputs, h, c = _forward(x, segments, packed, h0, c0, weights, None)
    return outputs, (h, c)


class _Kept(NamedTuple):
    """A layer's packed inputs ``(N, D)``, its gates ``(N, 4H)`` if they are kept, and h and c after every frame."""

    x: Tensor
    gates: Tensor
    hidden: Tensor
    cell: Tensor


def _forward(
    x: Tensor,
    segments: Segments,
    packed: bool,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    kept: list[_Kept] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns outputs, h and c. With ``kept``, adds there what the backward pass needs."""
    shape = (len(weights) // 4, len(segments.last), weights[1].shape[1])
    h, c = x.new_empty(shape), x.new_empty(shape)
    N, D = len(segments.frames), x.shape[-1]
    # wide features without padding: their products are packed instead, which are smaller
    later = not packed and kept is None and x.numel() == N * D and _wide(D, segments)
    y = x.reshape(N, D) if packed or later else _take(x, segments.frames, (N, D))
    for k in range(len(h)):
        order = segments.frames if later and k == 0 else None
        layer = _forward_layer(y, segments, _of(h0, k), _of(c0, k), weights[4 * k : 4 * k + 4], kept is not None, order)
        if kept is not None:
            kept.append(layer)
        y = layer.hidden
        torch.index_select(y, 0, segments.last, out=h[k])
        torch.index_select(layer.cell, 0, segments.last, out=c[k])
    return y if packed else _take(y, segments.positions, (*x.shape[:2], y.shape[1])), h, c


def _forward_layer(
    x: Tensor,
    segments: Segments,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    keep: bool,
    order: Tensor | None,
) -> _Kept:
    """Runs a layer over packed inputs, or over inputs whose products are then packed in this ``order``."""
    w_ih, w_hh, b_ih, b_hh = weights
    (N, D), H = x.shape, w_hh.shape[1]
    hidden, cell, gates = x.new_empty(N, H), x.new_empty(N, H), x.new_empty(N if keep else 0, 4 * H)
    inputs, row = b_ih + b_hh, 0
    if _wide(D, segments):
        inputs, row, D = torch.addmm(inputs, x, w_ih.t(), out=gates if keep else None), 4 * H, 0
        inputs = inputs if order is None else _take(inputs, order, inputs.shape)
    panels = _panels(w_ih, transpose=True) if D else None, _panels(w_hh, transpose=True)
    arguments = (D, H, x, *panels, inputs, row, h0, c0, gates, hidden, cell)
    _run_blocks("forward", segments, arguments, 0 if keep else 4 * H, N * 4 * H * (D + H))
    return _Kept(x, gates, hidden, cell)


class _Layers(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        segments: Segments,
        packed: bool,
        h0: Tensor | None,
        c0: Tensor | None,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        kept: list[_Kept] = []
        results = _forward(x, segments, packed, h0, c0, weights, kept)
        ctx.segments, ctx.packed, ctx.shape, ctx.depth = segments, packed, x.shape, len(kept)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(h0, c0, *weights, *(t for layer in kept for t in layer))
        return results

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, d_outputs: Tensor | None, d_h: Tensor | None, d_c: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        segments, depth, need = ctx.segments, ctx.depth, ctx.needs_input_grad
        h0, c0, *tensors = ctx.saved_tensors
        d_h0, d_c0 = (None if s is None else torch.empty_like(s) for s in (h0, c0))
        d_weights: list[Tensor | None] = [None] * (4 * depth)
        trained = [any(need[5 + 4 * k : 9 + 4 * k]) for k in range(depth)]
        lowest = 0 if need[0] or need[3] or need[4] else trained.index(True)
        d_y, d_gates = d_outputs, torch.empty_like(tensors[4 * depth + 1])
        for k in reversed(range(lowest, depth)):
            w_ih, w_hh = tensors[4 * k : 4 * k + 2]
            layer = _Kept(*tensors[4 * (depth + k) : 4 * (depth + k + 1)])
            if d_y is None:
                d_y = torch.zeros_like(layer.hidden)
            elif k == depth - 1 and not ctx.packed:
                d_y = _take(d_y, segments.frames, layer.hidden.shape)
            if d_h is not None:
                d_y = d_y.index_add(0, segments.last, d_h[k])
            d_cell = None if d_c is None else torch.zeros_like(d_y).index_copy_(0, segments.last, d_c[k])
            d_state, d_y = _backward_layer(
                layer, segments, _of(c0, k), w_ih, w_hh, d_y.contiguous(), d_cell, k > lowest or need[0], d_gates
            )
            if trained[k]:
                d_weights[4 * k : 4 * k + 4] = _weight_gradients(layer, segments, _of(h0, k), d_gates)
            if d_h0 is not None and d_c0 is not None:
                torch.mm(d_gates[: len(d_state)], w_hh, out=d_h0[k])
                d_c0[k] = d_state
        if d_y is not None and not ctx.packed:
            d_y = _take(d_y, segments.positions, ctx.shape)
        return d_y, None, None, d_h0, d_c0, *d_weights


def _backward_layer(
    layer: _Kept,
    segments: Segments,
    c0: Tensor | None,
    w_ih: Tensor,
    w_hh: Tensor,
    d_hidden: Tensor,
    d_cell: Tensor | None,
    inputs: bool,
    d_gates: Tensor,
) -> tuple[Tensor, Tensor | None]:
    """Writes the gradients of the gates to ``d_gates``; returns those of c0, and of the ``inputs`` if wanted."""
    (N, D), H = layer.x.shape, w_hh.shape[1]
    d_c = w_hh.new_zeros(segments.sizes[0], H)
    narrow = inputs and not _wide(D, segments)
    d_x = torch.empty_like(layer.x) if narrow else None
    panels = _panels(w_ih) if narrow else None, _panels(w_hh)
    arguments = (D if narrow else 0, H, *panels, c0, layer.gates, layer.cell, d_hidden, d_cell, d_gates, d_x, d_c)
    _run_blocks("backward", segments, arguments, H, N * 4 * H * (D + H))
    return d_c, d_gates @ w_ih if inputs and not narrow else d_x


def _weight_gradients(layer: _Kept, segments: Segments, h0: Tensor | None, d_gates: Tensor) -> list[Tensor]:
    """The gradients of ``w_ih``, ``w_hh`` and both biases."""
    (N, columns), D, H = d_gates.shape, layer.x.shape[1], layer.hidden.shape[1]
    narrow = 0 if _wide(D, segments) else D
    d_w_ih, d_w_hh, d_bias = d_gates.new_empty(columns, D), d_gates.new_empty(columns, H), d_gates.new_zeros(columns)
    sums = d_gates.new_zeros(narrow + H, columns)
    threads = _threads(-(-columns // COLUMNS), N * columns * (narrow + H))
    width = COLUMNS if threads > 1 else columns + LANES  # wider parts take 3 % less time in all, but are uneven
    memory = d_gates.new_empty(threads, FRAMES * (H + width))
    arguments = (narrow, H, layer.x, layer.hidden, h0, d_gates, sums, d_w_ih, d_w_hh, d_bias, FRAMES, memory, width)
    _run_steps("weight_gradients", segments, *arguments, threads=threads)
    if not narrow:
        torch.mm(d_gates.t(), layer.x, out=d_w_ih)
    return [d_w_ih, d_w_hh, d_bias, d_bias]


def _wide(D: int, segments: Segments) -> bool:
    return (WIDEST if segments.sizes[0] > 1 else WIDEST_OF_ONE) <= D


def _of(states: Tensor | None, layer: int) -> Tensor | None:
    return None if states is None else states[layer].contiguous()


def _take(x: Tensor, index: Tensor, shape: Sequence[int]) -> Tensor:
    """Rows of x by index, in a tensor of this shape; zeros for the index after the last row."""
    x, out = x.contiguous(), x.new_empty(shape)
    count, width = len(index), shape[-1]
    threads = _threads(count, count * width)
    _run("take", (x, width, x.numel() // width, index, count, out, -(-count // threads)), threads)
    return out


def _panels(w: Tensor, transpose: bool = False) -> Tensor:
    """Weights ``(K, columns)``, or their transpose, in the order in which the kernels use them."""
    w, (rows, columns) = w.contiguous(), w.shape
    out = w.new_empty(rows + LANES, columns + LANES)  # at least the columns of the result, rounded up to vectors
    name, K, N = ("panels_of_transpose", columns, rows) if transpose else ("panels", rows, columns)
    _run(name, (w, K, N, out), _threads(-(-N // LANES), 4 * K * N))
    return out


def _number(x: Tensor | int | None) -> int:
    """What the kernels get: the address of a tensor, 0 for None, or a number as it is."""
    return x.data_ptr() if isinstance(x, Tensor) else x or 0


def _run_steps(name: str, segments: Segments, *arguments: Tensor | int | None, threads: int) -> None:
    _run(name, (segments.starts, len(segments.sizes), *arguments), threads)


def _run_blocks(
    name: str, segments: Segments, arguments: Sequence[Tensor | int | None], floats: int, work: float
) -> None:
    """Runs a kernel over blocks of rows, with memory for this number of floats per row."""
    rows, threads = segments.sizes[0], torch.get_num_threads()
    size = ROWS if threads == 1 else min(ROWS_OF_MANY, -(-rows // threads))  # larger blocks are 4 % faster, but uneven
    memory = torch.empty(rows * floats)
    _run_steps(name, segments, *arguments, memory, size, threads=_threads(-(-rows // size), work))


def _run(name: str, arguments: Sequence[Tensor | int | None], threads: int) -> None:
    """Runs the parts of a kernel in several threads."""
    begun = (c_int64 * 2)()
    fused_code.run(name, *map(_number, arguments), addressof(begun), threads=threads)


def _threads(parts: int, work: float) -> int:
    return min(torch.get_num_threads(), parts, int(work / _ENOUGH) + 1)
