"""An LSTM layer in compiled code, for float32 on the CPU with the extra ``fast`` (numba).

The equations are those of ``seqclf/models/cpu_lstm.py``. With PyTorch's operators, each operation of a step is a pass
over memory. Here, the sums of a step stay in the cache until its activations and states are computed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib.util import find_spec
from itertools import pairwise
from threading import Timer
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqclf.batch import SeqclfError

WIDEST = 512
"""The number of inputs from which PyTorch computes their products, over all frames: with less rounding, and as fast."""
FEWEST = 64
"""The number of frames from which the kernels are faster than oneDNN. With fewer, copying weights takes too long."""
ROWS = 16
"""The number of rows that a thread runs together if there are several threads."""
_ENOUGH = 1e6
"""The number of multiplications per thread: below it, starting another thread takes longer than it saves."""
_NONE = np.empty(0, np.float32)


def runs(x: Tensor) -> bool:
    """Whether ``lstm_layer`` can run on these features: float32 on the CPU, numba available, no graph being traced."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling() and available()


def wins(steps: int, rows: int) -> bool:
    """Whether ``lstm_layer`` is faster than oneDNN on clips of equal length, if it ``runs``."""
    # with several threads, those of PyTorch wait for work on the cores that the threads of _in_threads need
    return torch.get_num_threads() == 1 and steps > 1 and steps * rows >= FEWEST


def available() -> bool:
    """Whether numba is installed, and the environment variable ``SEQCLF_FUSED`` is not 0."""
    return os.environ.get("SEQCLF_FUSED") != "0" and _installed()


@cache
def _installed() -> bool:
    return find_spec("numba") is not None


@cache
def _kernels() -> ModuleType:
    """Returns the compiled kernels, loaded from the cache, or compiled at the first use.

    Raises:
        SeqclfError: the installed numba does not work.
    """
    message = "compiling the LSTM kernels for this CPU (a few seconds, kept for later runs)"
    timer = Timer(2, print, [message], {"file": sys.stderr})
    timer.start()
    try:
        from seqclf.models import fused_kernels

        starts, flat = np.zeros(2, np.int64), _NONE
        nothing = fused_kernels.Layer(starts, 1, 1, flat, flat, flat, flat, 0, flat, flat, flat, flat, flat)
        no_gradients = fused_kernels.Gradients(starts, 1, 1, *[flat] * 10)
        fused_kernels.panels(flat, 0, 0, 0, 0, flat)
        fused_kernels.forward(nothing, 1, 0, 1)
        fused_kernels.backward(no_gradients, 1, 0, 1)
        fused_kernels.weight_gradients(flat, 0, flat, 1, flat, 0, 0, 0, flat, flat)
    except ImportError as error:  # such as a numba that is too old for the installed NumPy
        raise SeqclfError(
            f"numba is installed but cannot be imported ({error}): update it, or set SEQCLF_FUSED=0 to disable it"
        ) from None
    finally:
        timer.cancel()
    return fused_kernels


def lstm_layer(
    x: Tensor,
    sizes: list[int],
    h0: Tensor | None,
    c0: Tensor | None,
    w_ih: Tensor,
    w_hh: Tensor,
    bias: Tensor,
) -> tuple[Tensor, Tensor]:
    """Runs an LSTM layer over a packed sequence, as ``seqclf.models.cpu_lstm.lstm_layer`` does, in float32 only."""
    tensors = (x, h0, c0, w_ih, w_hh, bias)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return _FusedLayer.apply(x, sizes, h0, c0, w_ih, w_hh, bias)
    hidden, cell, _ = _forward(x, sizes, h0, c0, w_ih, w_hh, bias, keep=False)
    return hidden, cell


def _forward(
    x: Tensor,
    sizes: list[int],
    h0: Tensor | None,
    c0: Tensor | None,
    w_ih: Tensor,
    w_hh: Tensor,
    bias: Tensor,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Returns h and c after every frame, and with ``keep`` the gates ``(N, 4H)``."""
    kernels, (N, D), H = _kernels(), x.shape, w_hh.shape[1]
    hidden, cell, inputs = x.new_empty(N, H), x.new_empty(N, H), bias
    gates = x.new_empty(N, 4 * H) if keep else None
    if D >= WIDEST:
        inputs, D = torch.addmm(bias, x, w_ih.t(), out=gates), 0
    layer = kernels.Layer(
        _starts(sizes),
        D,
        H,
        _flat(x),
        _panels(w_ih.t()) if D else _NONE,
        _panels(w_hh.t()),
        _flat(inputs),
        0 if D else 4 * H,
        _flat(h0),
        _flat(c0),
        _flat(gates),
        _flat(hidden),
        _flat(cell),
    )
    _run(kernels.forward, layer, sizes[0], N * 4 * H * (D + H))
    return hidden, cell, gates


class _FusedLayer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        sizes: list[int],
        h0: Tensor | None,
        c0: Tensor | None,
        w_ih: Tensor,
        w_hh: Tensor,
        bias: Tensor,
    ) -> tuple[Tensor, Tensor]:
        hidden, cell, gates = _forward(x, sizes, h0, c0, w_ih, w_hh, bias, keep=True)
        ctx.sizes = sizes
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, h0, c0, w_ih, w_hh, gates, hidden, cell)
        return hidden, cell

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, d_hidden: Tensor | None, d_cell: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        kernels = _kernels()
        x, h0, c0, w_ih, w_hh, gates, hidden, cell = ctx.saved_tensors
        sizes, need = ctx.sizes, ctx.needs_input_grad
        (N, D), H, rows = x.shape, w_hh.shape[1], sizes[0]
        wide = D >= WIDEST
        d_gates, d_c0 = torch.empty_like(gates), x.new_zeros(rows, H)
        d_x = torch.empty_like(x) if need[0] and not wide else None
        layer = kernels.Gradients(
            _starts(sizes),
            0 if d_x is None else D,
            H,
            _NONE if d_x is None else _panels(w_ih),
            _panels(w_hh),
            _flat(c0),
            _flat(gates),
            _flat(cell),
            _flat(torch.zeros_like(hidden) if d_hidden is None else d_hidden),
            _flat(d_cell),
            _flat(d_gates),
            _flat(d_x),
            _flat(d_c0),
        )
        _run(kernels.backward, layer, rows, N * 4 * H * (H + layer.D))
        if need[0] and wide:
            d_x = d_gates @ w_ih
        d_w_ih = d_w_hh = None
        if need[4] or need[5]:
            d_w_ih, d_w_hh = _weight_gradients(d_gates, x[:, :0] if wide else x, _before(hidden, sizes), rows)
            if wide:
                d_w_ih = d_gates.t() @ x
            if h0 is not None:
                d_w_hh.addmm_(d_gates[:rows].t(), h0)
        return (
            d_x,
            None,
            d_gates[:rows] @ w_hh if need[2] else None,
            d_c0 if need[3] else None,
            d_w_ih,
            d_w_hh,
            d_gates.sum(0) if need[6] else None,
        )


def _weight_gradients(d_gates: Tensor, x: Tensor, h: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """The gradients of the weights ``(4H, D)`` and ``(4H, H)``; h are those before each frame from step 1 on."""
    kernels, (N, columns), D, H = _kernels(), d_gates.shape, x.shape[1], h.shape[1]
    if N < FEWEST:
        return d_gates.t() @ x, d_gates[rows:].t() @ h
    d_w_ih, d_w_hh = x.new_zeros(D, columns), x.new_zeros(H, columns)
    arrays = [_flat(t) for t in (x, h, d_gates, d_w_ih, d_w_hh)]

    def columns_from(begin: int, end: int) -> None:
        x, h, d_gates, d_w_ih, d_w_hh = arrays
        kernels.weight_gradients(x, D, h, H, d_gates, rows, begin, end, d_w_ih, d_w_hh)

    width = kernels.LANES * kernels.VECTORS
    parts = -(-columns // width)
    threads = _threads(parts, N * columns * (D + H))
    ends = [min(columns, width * (parts * k // threads)) for k in range(threads + 1)]
    _in_threads(columns_from, list(pairwise(ends)))
    return d_w_ih.t(), d_w_hh.t()


def _flat(x: Tensor | None) -> np.ndarray[Any, Any]:
    return _NONE if x is None else x.detach().contiguous().view(-1).numpy()


def _panels(w: Tensor) -> np.ndarray[Any, Any]:
    """Weights ``(K, columns)`` in the order in which the kernels use them."""
    kernels, (K, columns) = _kernels(), w.shape
    out = np.empty(-(-columns // kernels.LANES) * kernels.LANES * K, np.float32)
    kernels.panels(_flat(w), 0, columns, K, columns, out)
    return out


def _before(hidden: Tensor, sizes: list[int]) -> Tensor:
    """The packed h before each frame from step 1 on, ``(N - sizes[0], H)``."""
    if sizes[0] == sizes[-1]:
        return hidden[: -sizes[0]]
    rows = np.arange(sizes[0], len(hidden)) - np.repeat(sizes[:-1], sizes[1:])
    return hidden.index_select(0, torch.from_numpy(rows))


def _starts(sizes: list[int]) -> np.ndarray[Any, Any]:
    return np.cumsum([0, *sizes])


def _run(kernel: Callable[..., None], layer: Any, rows: int, work: float) -> None:
    """Distributes blocks of rows over threads."""
    size = ROWS if torch.get_num_threads() > 1 else 4 * ROWS  # smaller blocks are more even, larger ones 4 % faster
    threads = _threads(-(-rows // size), work)
    _in_threads(partial(kernel, layer, size), [(k, threads) for k in range(threads)])


def _threads(parts: int, work: float) -> int:
    return min(torch.get_num_threads(), parts, int(work / _ENOUGH) + 1)


def _in_threads(function: Callable[..., None], parts: list[tuple[int, int]]) -> None:
    if len(parts) == 1:
        function(*parts[0])
    else:
        list(_pool(os.getpid(), len(parts)).map(lambda part: function(*part), parts))


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """One pool of threads per process, because a forked process has none of its parent's threads."""
    return ThreadPoolExecutor(threads)
