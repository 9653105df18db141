"""LSTM layers on a GPU for batches with padding or resets, by cuDNN; see ``padded_lstm`` for the marks.

With small batches, a GPU waits for the calls that start its kernels. ``torch.lstm`` would record a dozen operations per
layer for autograd. It would also copy the weights, because they have no common buffer once the weights of the marks are
appended. One autograd function for all layers avoids both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_LSTM = 2  # the mode argument of ``torch._cudnn_rnn``


def cudnn_lstm(
    x: Tensor, marks: Tensor, mark_weights: Tensor, last: Tensor, weights: list[Tensor], state: tuple[Tensor, ...]
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Runs LSTM layers over steps. Every layer also gets the marks as inputs. Differentiable once.

    Args:
        x: ``(S, B, D)`` float on a GPU.
        marks: ``(S, B, M)`` float.
        mark_weights: ``(4H, M)``, the weights of the marks to all gates.
        last: ``(B,)`` int64, the row of each clip's last valid frame among the ``S * B`` rows of all steps.
        weights: ``w_ih, w_hh, b_ih, b_hh`` of each layer in turn, as in ``torch.nn.LSTM``.
        state: h and c before step 0, each ``(layers, B, H)``.

    Returns:
        outputs ``(S, B, H)``, h at ``last``, and c after the last step, each ``(layers, B, H)``. With autocast, all of
        them have its dtype.
    """
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
        x, marks, mark_weights = x.to(dtype), marks.to(dtype), mark_weights.to(dtype)
        weights, state = [w.to(dtype) for w in weights], tuple(s.to(dtype) for s in state)
    with torch.autocast("cuda", enabled=False):
        y, h, c = _Layers.apply(x, marks, mark_weights, last, torch.is_grad_enabled(), *state, *weights)
    return y, (h, c)


class _Layers(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        marks: Tensor,
        mark_weights: Tensor,
        last: Tensor,
        train: bool,
        h0: Tensor,
        c0: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        hidden = weights[1].shape[1]
        ctx.options = (_LSTM, hidden, 0, 1, False, 0.0, train, False, [], None)  # one layer and direction, time-major
        ctx.marks = marks.shape[2]
        saved, h, c = [], [], []
        for layer in range(len(weights) // 4):
            w_ih, *others = weights[4 * layer : 4 * layer + 4]
            w_ih = torch.cat([w_ih, mark_weights], 1)
            buffer = torch.cat([part.reshape(-1) for part in (w_ih, *others)])
            x = torch.cat([x, marks], 2)
            before = (h0[layer : layer + 1].contiguous(), c0[layer : layer + 1].contiguous())
            y, _, after, reserve, _ = torch._cudnn_rnn(x, _views(buffer, hidden), 4, buffer, *before, *ctx.options)
            saved += [x, buffer, *before, y, reserve]
            h.append(y.flatten(0, 1).index_select(0, last))
            c.append(after)
            x = y
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(last, *saved)
        return x, torch.stack(h), torch.cat(c)

    @staticmethod
    @once_differentiable
    def backward(  # type: ignore[override]
        ctx: Any, dy: Tensor | None, dh: Tensor | None, dc: Tensor | None
    ) -> tuple[Any, ...]:
        last, *saved = ctx.saved_tensors
        d_states: list[tuple[Tensor, Tensor]] = []
        d_weights: list[Tensor] = []
        for layer in reversed(range(len(saved) // 6)):
            x, buffer, h0, c0, y, reserve = saved[6 * layer : 6 * layer + 6]
            dy = torch.zeros_like(y) if dy is None else dy.contiguous()
            if dh is not None:
                dy = dy.flatten(0, 1).index_add(0, last, dh[layer]).view_as(y)
            after = (None, None if dc is None else dc[layer : layer + 1].contiguous())
            d_x, *d_state, (d_ih, *others) = torch.ops.aten._cudnn_rnn_backward(
                x, _views(buffer, h0.shape[2]), 4, buffer, h0, c0, y, dy, *after, *ctx.options, reserve, [True] * 4
            )
            dy = d_x[..., : -ctx.marks]
            d_weights = [d_ih[:, : -ctx.marks], *others, *d_weights]
            d_states = [(d_state[0], d_state[1]), *d_states]
        d_h0, d_c0 = (torch.cat(parts) for parts in zip(*d_states, strict=True))
        return dy, None, None, None, None, d_h0, d_c0, *d_weights


def _views(buffer: Tensor, hidden: int) -> list[Tensor]:
    """The weights of a layer in a buffer in cuDNN's order: ``w_ih, w_hh, b_ih, b_hh``."""
    rows = 4 * hidden
    w_hh, biases = rows * hidden, 2 * rows
    w_ih = buffer.numel() - w_hh - biases
    parts = buffer.split([w_ih, w_hh, rows, rows])
    return [parts[0].view(rows, -1), parts[1].view(rows, -1), *parts[2:]]
