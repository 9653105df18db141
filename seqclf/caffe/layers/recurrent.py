"""Caffe's recurrent layers: LSTM, RNN and LSTMUnit (recurrent_layer.cpp, lstm_layer.cpp, rnn_layer.cpp).

Blobs are time-major: x ``(T, N, ...)``, cont ``(T, N)``. The state before step t is multiplied by cont_t, so 0 starts
a sequence. If cont is 0 or 1 everywhere, it equals ``~is_first`` of ``seqclf.models``, whose kernels then compute the
layer.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqclf.caffe.layers.base import Layer, Shape
from seqclf.models.kernels.layers import Layers, run_layers


class _Recurrent(Layer):
    """Base class of LSTM and RNN with bottoms x, cont[, x_static][, initial state] and tops h[, final state].

    The layer keeps the state after a call, without gradient, and the next call continues from it if it has as many
    streams. With ``expose_hidden``, the states are bottoms and tops instead; as in Caffe, they get no gradient.
    """

    category = "recurrent"
    bottom_roles = ("data", "cont", "data")
    bottoms = (2, 5)
    tops = (1, 3)
    gates: ClassVar[int]
    """Number of gates: the weights have gates * H rows."""
    parts: ClassVar[int]
    """Number of tensors of the state."""
    mode: ClassVar[str]
    """The mode of ``run_layers``, which computes the layer if cont is 0 or 1 everywhere."""
    unit_operations: ClassVar[int]
    """Operations of one unit at one step, without the matrix products."""

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        p = self.param.recurrent_param
        self.exposed = p.expose_hidden
        given = self.parts if self.exposed else 0
        if len(shapes) not in (2 + given, 3 + given) or len(self.param.top) != 1 + given:
            states = f" and {given} hidden states" if given else ""
            self.fail(
                f"has {len(shapes)} bottoms and {len(self.param.top)} tops; expected x, cont, optionally x_static,"
                f"{states} as bottoms and {1 + given} tops"
            )
        x, cont = shapes[:2]
        if len(x) < 2 or cont != x[:2]:
            self.fail(f"expected x (T, N, ...) and cont (T, N), not {x} and {cont}")
        T, N = x[:2]
        self.H = H = p.num_output
        if H == 0:
            self.fail("recurrent_param.num_output must be above 0")
        self.static = shapes[2] if len(shapes) == 3 + given else None
        if self.static is not None and (len(self.static) < 1 or self.static[0] != N):
            self.fail(f"expected x_static (N = {N}, ...), not {self.static}")
        for shape in shapes[len(shapes) - given :]:
            if shape != (1, N, H):
                self.fail(f"expected hidden states (1, {N}, {H}), not {shape}")
        self.D = torch.Size(x[2:]).numel()
        self.add_blob((self.gates * H, self.D), p.weight_filler)
        self.add_blob((self.gates * H,), p.bias_filler)
        if self.static is not None:
            self.add_blob((self.gates * H, torch.Size(self.static[1:]).numel()), p.weight_filler)
        self.add_blob((self.gates * H, H), p.weight_filler)
        self.state: tuple[Tensor, ...] | None = None
        return [(T, N, H)] + [(1, N, H)] * given

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        x, cont = bottoms[:2]
        if x.dim() < 2 or cont.shape != x.shape[:2] or x[0, 0].numel() != self.D:
            self.fail(
                f"expected x (T, N, {self.D} values) and cont (T, N), not {tuple(x.shape)} and {tuple(cont.shape)}"
            )
        x = x.flatten(2) if x.dim() > 2 else x[..., None]
        weight = self.blobs[0]
        if self.static is not None:
            static = bottoms[2].flatten(1)
            x = torch.cat([x, static.expand(x.shape[0], *static.shape)], 2)
            weight = torch.cat([weight, self.blobs[2]], 1)
        recurrent = self.blobs[2 if self.static is None else 3]
        state = self.state
        if self.exposed:
            state = tuple(h[0].detach() for h in bottoms[-self.parts :])
        elif state is not None and (state[0].shape[0] != x.shape[1] or state[0].device != x.device):
            state = None
        if bool(((cont == 0) | (cont == 1)).all()):
            if state is not None and bool((cont[0] == 0).all()):
                state = None  # saves its matrix products
            hidden, state = self.run(x, cont == 0, state, weight, self.blobs[1], recurrent)
        else:
            zeros = x.new_zeros(x.shape[1], self.H)
            hidden, state = self.step_by_step(
                F.linear(x, weight, self.blobs[1]), cont, (zeros,) * self.parts if state is None else state, recurrent
            )
        state = tuple(s.detach() for s in state)
        top = self.output(hidden)
        if self.exposed:
            return top, *(s[None] for s in state)
        self.state = state
        return top

    def run(
        self,
        x: Tensor,
        is_first: Tensor,
        state: tuple[Tensor, ...] | None,
        weight: Tensor,
        bias: Tensor,
        recurrent: Tensor,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Returns the hidden state at every step, time-major, and the state after the last step."""
        weights = [self.reorder(weight), self.reorder(recurrent), self.reorder(bias), torch.zeros_like(bias)]
        hidden, after = run_layers(
            Layers(self.mode, weights),
            rearrange(x, "t n d -> n t d"),
            is_first.t(),
            None if state is None else tuple(s[None] for s in state),
        )
        return rearrange(hidden, "n t h -> t n h"), tuple(s[0] for s in after)

    def reorder(self, rows: Tensor) -> Tensor:
        """Returns weights with their rows in the order of gates of ``torch.nn``."""
        return rows

    def step_by_step(
        self, inputs: Tensor, cont: Tensor, state: tuple[Tensor, ...], recurrent: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        raise NotImplementedError

    def output(self, hidden: Tensor) -> Tensor:
        """Returns the top for the hidden states."""
        return hidden

    def operations(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        """Every weight is used once per step, those of the static input once per call."""
        steps, streams = bottoms[0][:2]
        static = self.blobs[2].numel() if self.static is not None else 0
        products = sum(blob.numel() for blob in self.blobs if blob.dim() == 2) - static
        return 2 * streams * (steps * products + static) + steps * streams * self.H * self.unit_operations

    @staticmethod
    def summary(param: Any) -> str:
        return f"{param.recurrent_param.num_output} units"


class LSTM(_Recurrent):
    """``c_t = f * cont_t * c_{t-1} + i * g`` and ``h_t = o * tanh(c_t)``, gates of x_t and ``cont_t * h_{t-1}``.

    Blobs: W_xc (4H, D), b_c (4H), [W_xc_static (4H, Ds),] W_hc (4H, H), gates in the order i, f, o, g. The state
    is (h, c).
    """

    caffe_source = "lstm_layer.cpp"
    limits = "`x_static`, `expose_hidden`, state carried between calls; slower if `cont` is neither 0 nor 1"
    gates, parts, mode, unit_operations = 4, 2, "LSTM", 11

    def reorder(self, rows: Tensor) -> Tensor:
        return swap_gates(rows)

    def step_by_step(
        self, inputs: Tensor, cont: Tensor, state: tuple[Tensor, ...], recurrent: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        h, c = state
        steps = []
        for gates, keep in zip(inputs, cont[..., None], strict=True):
            h, c = _lstm_unit(c, gates + F.linear(h * keep, recurrent), keep)
            steps.append(h)
        return torch.stack(steps), (h, c)


class RNN(_Recurrent):
    """``h_t = tanh(W_hh (cont_t * h_{t-1}) + W_xh x_t + b_h)``; the top is ``o_t = tanh(W_ho h_t + b_o)``.

    Blobs: W_xh (H, D), b_h (H), [W_xh_static (H, Ds),] W_hh (H, H), W_ho (H, H), b_o (H). The state is (h,).
    """

    caffe_source = "rnn_layer.cpp"
    limits = "as `LSTM`; the output has a tanh layer of its own"
    gates, parts, mode, unit_operations = 1, 1, "RNN_TANH", 3

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        tops = super().setup(shapes)
        p = self.param.recurrent_param
        self.add_blob((self.H, self.H), p.weight_filler)
        self.add_blob((self.H,), p.bias_filler)
        return tops

    def step_by_step(
        self, inputs: Tensor, cont: Tensor, state: tuple[Tensor, ...], recurrent: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        (h,) = state
        steps = []
        for from_x, keep in zip(inputs, cont[..., None], strict=True):
            h = torch.tanh(from_x + F.linear(h * keep, recurrent))
            steps.append(h)
        return torch.stack(steps), (h,)

    def output(self, hidden: Tensor) -> Tensor:
        return torch.tanh(F.linear(hidden, self.blobs[-2], self.blobs[-1]))


class LSTMUnit(Layer):
    """One LSTM step: c_{t-1} ``(1, N, H)``, gate inputs ``(1, N, 4H)`` and cont ``(1, N)`` to c_t and h_t."""

    category = "recurrent"
    caffe_source = "lstm_unit_layer.cpp"
    per_value = 10
    bottom_roles = ("data", "data", "cont")
    bottoms = (3, 3)
    tops = (2, 2)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        c, gates, cont = shapes
        if len(c) != 3 or c[0] != 1 or gates != (1, c[1], 4 * c[2]) or cont != (1, c[1]):
            self.fail(f"expected (1, N, H), (1, N, 4H) and (1, N), not {c}, {gates} and {cont}")
        return [c, c]

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        c, gates, cont = bottoms
        h, c = _lstm_unit(c, gates, cont.detach()[..., None])
        return c, h


def swap_gates(rows: Tensor) -> Tensor:
    """Reorders weights (4H, ...) from Caffe's gates i, f, o, g to PyTorch's i, f, g, o, or back."""
    i, f, third, fourth = rows.chunk(4)
    return torch.cat([i, f, fourth, third])


def _lstm_unit(c: Tensor, gates: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Returns h and c after one step. Where ``keep`` is 0, even an infinite c is reset (lstm_unit_layer.cpp)."""
    i, f, o, g = gates.chunk(4, -1)
    kept = torch.where(keep == 0, torch.zeros_like(c), _Forget.apply(f, keep) * c)
    c = kept + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


class _Forget(torch.autograd.Function):
    """``f = keep * sigmoid(a)`` with Caffe's gradient ``f (1 - f)``, which is exact only where keep is 0 or 1."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, keep: Tensor) -> Tensor:
        f = torch.sigmoid(a) * keep
        ctx.save_for_backward(f)
        return f

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (f,) = ctx.saved_tensors
        return grad * f * (1 - f), None
