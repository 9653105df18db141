"""An LSTM layer over a packed sequence, on the CPU.

PyTorch's kernel for the CPU (oneDNN) takes no packed sequences, and with wide inputs spends most of its time on the
products with the inputs, step by step. Here these are three matrix products over all frames at once. The loop over time
holds one small product and a few elementwise operations in each direction. The equations and the order of gates are
those of ``torch.nn.LSTM`` (Gers, Schmidhuber and Cummins 2000, without peepholes)::

    i, f, g, o = sigma(a_i), sigma(a_f), tanh(a_g), sigma(a_o)      where a = W_ih x_t + W_hh h_{t-1} + b
    c_t = f * c_{t-1} + i * g
    h_t = o * tanh(c_t)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
_tanh_backward = torch.ops.aten.tanh_backward.grad_input


def lstm_layer(
    x: Tensor,
    sizes: list[int],
    h0: Tensor | None,
    c0: Tensor | None,
    w_ih: Tensor,
    w_hh: Tensor,
    bias: Tensor,
) -> tuple[Tensor, Tensor]:
    """Runs an LSTM layer over a packed sequence. Differentiable once, in every tensor.

    Args:
        x: the packed frames, ``(N, D)``.
        sizes: the number of rows at each step, not increasing, with sum N.
        h0, c0: the state before the first step, ``(sizes[0], H)``; None for zeros, which also saves products.
        w_ih, w_hh, bias: ``(4H, D)``, ``(4H, H)`` and ``(4H,)``, with the gates' rows in the order i, f, g, o.

    Returns:
        h and c after every frame, each ``(N, H)``.
    """
    return _LSTMLayer.apply(x, sizes, h0, c0, w_ih, w_hh, bias)


class _LSTMLayer(torch.autograd.Function):
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
        N, H = x.shape[0], w_hh.shape[1]
        gates = torch.addmm(bias, x, w_ih.t())
        hidden, cell, squashed = x.new_empty(N, H), x.new_empty(N, H), x.new_empty(N, H)
        # tanh(x) = 2 sigma(2x) - 1 takes a third of the time of torch.tanh
        gates[:, 2 * H : 3 * H].mul_(2)
        w = w_hh.t().clone()
        w[:, 2 * H : 3 * H].mul_(2)
        minus_one = x.new_tensor(-1.0)
        h, c = h0, c0
        for n, a, i, f, g, o, h_new, c_new, tanh in zip(
            sizes, *_steps(sizes, gates, *gates.chunk(4, 1), hidden, cell, squashed), strict=True
        ):
            if h is not None:
                a.addmm_(h[:n], w)
            a.sigmoid_()
            torch.mul(i, torch.add(minus_one, g, alpha=2, out=g), out=c_new)
            if c is not None:
                c_new.addcmul_(f, c[:n])
            torch.mul(c_new, 2, out=tanh)
            torch.add(minus_one, tanh.sigmoid_(), alpha=2, out=tanh)
            torch.mul(o, tanh, out=h_new)
            h, c = h_new, c_new
        ctx.sizes = sizes
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, h0, c0, w_ih, w_hh, gates, hidden, cell, squashed)
        return hidden, cell

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, d_hidden: Tensor | None, d_cell: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, h0, c0, w_ih, w_hh, gates, hidden, cell, squashed = ctx.saved_tensors
        sizes: list[int] = ctx.sizes
        N, H, widest = x.shape[0], w_hh.shape[1], sizes[0]
        need = ctx.needs_input_grad
        i, f, g, o = gates.chunk(4, 1)
        c_before = _before(cell, sizes, x.new_zeros(widest, H) if c0 is None else c0)
        dh_dc = torch.addcmul(o, hidden, squashed, value=-1)  # o (1 - tanh(c)^2)
        # d_gates are first dc_t/da_t and for the output gate dh_t/da_t, which the loop multiplies by the gradients
        d_gates = torch.empty_like(gates)
        d_i, d_f, d_g, d_o = d_gates.chunk(4, 1)
        _sigmoid_backward(g, i, grad_input=d_i)
        _sigmoid_backward(c_before, f, grad_input=d_f)
        _tanh_backward(i, g, grad_input=d_g)
        _sigmoid_backward(squashed, o, grad_input=d_o)
        views = (f, dh_dc, d_gates, d_gates.view(N, 4, H)[:, :3], d_o)
        steps = tuple(zip(*_steps(sizes, *views), strict=True))
        dh_out = (torch.zeros_like(hidden) if d_hidden is None else d_hidden).split(sizes)
        dc_out = None if d_cell is None else d_cell.split(sizes)
        dh_buffer, dc_buffer = x.new_empty(widest, H), x.new_zeros(widest, H)
        da = d_gates[:0]  # of the next step
        for t in reversed(range(len(sizes))):
            n, later = sizes[t], len(da)
            dh, dc = dh_buffer[:n], dc_buffer[:n]
            if later:
                torch.addmm(dh_out[t][:later], da, w_hh, out=dh[:later])
            if later < n:
                dh[later:].copy_(dh_out[t][later:])
            f, through, da, through_c, do = steps[t]
            dc.addcmul_(dh, through)
            if dc_out is not None:
                dc.add_(dc_out[t])
            through_c.mul_(dc[:, None])
            do.mul_(dh)
            dc.mul_(f)

        d_x = d_gates @ w_ih if need[0] else None
        d_h0 = da @ w_hh if need[2] else None
        d_c0 = dc_buffer if need[3] else None
        d_w_ih = d_gates.t() @ x if need[4] else None
        d_w_hh = None
        if need[5]:
            d_w_hh = d_gates[0 if h0 is not None else widest :].t() @ _before(hidden, sizes, h0)
        return d_x, None, d_h0, d_c0, d_w_ih, d_w_hh, d_gates.sum(0) if need[6] else None


def _before(states: Tensor, sizes: list[int], first: Tensor | None) -> Tensor:
    """The packed states before each frame ``(N, H)``; without ``first``, from step 1 on, ``(N - sizes[0], H)``."""
    continued = zip(states.split(sizes), sizes[1:], strict=False)
    return torch.cat([states[:0] if first is None else first, *(s[:n] for s, n in continued)])


def _steps(sizes: list[int], *packed: Tensor) -> tuple[tuple[Tensor, ...], ...]:
    """Splits packed tensors into views of each step's rows. Indexing every step would take as long as the products."""
    return tuple(torch.split_with_sizes(x, sizes) for x in packed)
