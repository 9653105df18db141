"""An LSTM layer in compiled code, for float32 on the CPU with the extra ``fast`` (numba).

The equations are those of ``seqclf/models/cpu_lstm.py``. With PyTorch's operators, each operation of a step is a pass
over memory. Here, a step is one pass: it computes the products, activations and states of a few units at a time.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from threading import Timer
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqclf.batch import SeqclfError

WIDEST = 512
"""The number of inputs from which one product over all frames is faster than a product in each step."""
_ENOUGH = 1e6
"""The number of multiplications per thread: below it, starting another thread takes longer than it saves."""
_NONE = np.empty(0, np.float32)


def runs(x: Tensor) -> bool:
    """Whether ``lstm_layer`` can run on these features: float32 on the CPU, numba available, no graph being traced."""
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.compiler.is_compiling() and available()


def available() -> bool:
    """Whether numba is installed, and the environment variable ``SEQCLF_FUSED`` is not 0."""
    return os.environ.get("SEQCLF_FUSED") != "0" and _installed()


@cache
def _installed() -> bool:
    return find_spec("numba") is not None


@cache
def _kernels() -> ModuleType:
    """Returns the compiled kernels. Loading them from the cache takes 0.3 s, compiling them about 5 s.

    Raises:
        SeqclfError: the installed numba does not work.
    """
    message = "compiling the LSTM kernels for this CPU (a few seconds, kept for later runs)"
    timer = Timer(2, print, [message], {"file": sys.stderr})
    timer.start()
    try:
        from seqclf.models import fused_kernels

        no_steps, flat = np.zeros(2, np.int64), _NONE
        nothing = fused_kernels.Layer(no_steps, 1, 1, flat, flat, flat, flat, 0, flat, flat, flat, flat, flat)
        fused_kernels.forward(nothing, 0, 1)
        no_gradients = fused_kernels.Gradients(no_steps, 1, flat, flat, flat, flat, flat, flat, flat, flat)
        fused_kernels.backward(no_gradients, 0, 1)
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
    return _FusedLayer.apply(x, sizes, h0, c0, w_ih, w_hh, bias)


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
        kernels = _kernels()
        (N, D), H = x.shape, w_hh.shape[1]
        hidden, cell = x.new_empty(N, H), x.new_empty(N, H)
        if D >= WIDEST:
            gates = torch.addmm(bias, x, w_ih.t())
            inputs, stride, D = gates, 4 * H, 0
        else:
            gates = x.new_empty(N, 4 * H)
            inputs, stride = bias, 0
        starts = np.cumsum([0, *sizes])
        layer = kernels.Layer(
            starts,
            D,
            H,
            _flat(x),
            _by_units(w_ih, kernels.LANES) if D else _NONE,
            _by_units(w_hh, kernels.LANES),
            _flat(inputs),
            stride,
            _flat(h0),
            _flat(c0),
            _flat(gates),
            _flat(hidden),
            _flat(cell),
        )
        _run(kernels.forward, layer, sizes, N * 4 * H * (D + H))
        ctx.sizes, ctx.starts = sizes, starts
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
        N, H, widest = x.shape[0], w_hh.shape[1], sizes[0]
        d_gates, d_c0 = torch.empty_like(gates), x.new_zeros(widest, H)
        layer = kernels.Gradients(
            ctx.starts,
            H,
            _by_columns(w_hh, 2 * kernels.LANES),
            _flat(c0),
            _flat(gates),
            _flat(cell),
            _flat(torch.zeros_like(hidden) if d_hidden is None else d_hidden),
            _flat(d_cell),
            _flat(d_gates),
            _flat(d_c0),
        )
        _run(kernels.backward, layer, sizes, N * 4 * H * H)

        d_first = d_gates[:widest]
        d_w_hh = None
        if need[5]:
            d_w_hh = _weight_gradient(d_gates[widest:], _before(hidden, sizes))
            if h0 is not None:
                d_w_hh.addmm_(d_first.t(), h0)
        return (
            d_gates @ w_ih if need[0] else None,
            None,
            d_first @ w_hh if need[2] else None,
            d_c0 if need[3] else None,
            _weight_gradient(d_gates, x) if need[4] else None,
            d_w_hh,
            d_gates.sum(0) if need[6] else None,
        )


def _flat(x: Tensor | None) -> np.ndarray[Any, Any]:
    return _NONE if x is None else x.detach().contiguous().view(-1).numpy()


def _by_units(w: Tensor, lanes: int) -> np.ndarray[Any, Any]:
    """Weights ``(4H, K)`` as ``(units / lanes, K, 4, lanes)``: those of a vector of units in the order of their use."""
    w = F.pad(w.detach().view(4, -1, w.shape[1]), (0, 0, 0, -w.shape[0] // 4 % lanes))
    return _flat(w.unflatten(1, (-1, lanes)).permute(1, 3, 0, 2))


def _by_columns(w: Tensor, lanes: int) -> np.ndarray[Any, Any]:
    """Weights ``(4H, H)`` as ``(H / lanes, 4H, lanes)``, flat."""
    w = F.pad(w.detach(), (0, -w.shape[1] % lanes))
    return _flat(w.unflatten(1, (-1, lanes)).transpose(0, 1))


def _before(hidden: Tensor, sizes: list[int]) -> Tensor:
    """The packed h before each frame from step 1 on, ``(N - sizes[0], H)``."""
    if sizes[0] == sizes[-1]:
        return hidden[: -sizes[0]]
    rows = np.arange(sizes[0], len(hidden)) - np.repeat(sizes[:-1], sizes[1:])
    return hidden.index_select(0, torch.from_numpy(rows))


def _weight_gradient(d_gates: Tensor, inputs: Tensor) -> Tensor:
    """The gradient of weights ``(4H, K)``, summed over all frames."""
    if inputs.shape[1] > 128:
        return d_gates.t() @ inputs
    return (inputs.t() @ d_gates).t().contiguous()  # with few inputs, up to 1.5 times as fast with MKL


def _run(kernel: Callable[..., None], layer: Any, sizes: list[int], work: float) -> None:
    """Distributes the blocks of rows over threads, at most as many as PyTorch uses."""
    blocks = -(-sizes[0] // _kernels().BLOCK)
    threads = min(torch.get_num_threads(), blocks, int(work / _ENOUGH) + 1)
    if threads == 1:
        kernel(layer, 0, 1)
    else:
        list(_pool(os.getpid(), threads).map(lambda k: kernel(layer, k, threads), range(threads)))


@cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """One pool of threads per process, because a forked process has none of its parent's threads."""
    return ThreadPoolExecutor(threads)
