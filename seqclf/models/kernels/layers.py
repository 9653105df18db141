"""Recurrent layers as pure functions of features, state and weights, by the fastest kernel for each case.

The equations, and the order of gates and weights, are those of ``torch.nn.LSTM``, ``GRU`` and ``RNN``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from seqclf.models.kernels import cpu_lstm, fused_lstm
from seqclf.models.kernels.padded_lstm import (
    PaddedSteps,
    SpreadSteps,
    Steps,
    padded_lstm,
    padded_lstm_wins,
    steps_win_on_gpu,
)
from seqclf.models.segments import Mask, Segments, find_segments, pack, unpack, whole_segments

Memory = tuple[Tensor, ...]
"""The state as a tuple: (h, c) for LSTM, (h,) for the others, each ``(layers, B, H)``."""

_SEQUENCE_KERNELS: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "LSTM": torch.lstm,
    "GRU": torch.gru,
    "RNN_TANH": torch.rnn_tanh,
    "RNN_RELU": torch.rnn_relu,
}
_CELLS: dict[str, Callable[..., Any]] = {
    "LSTM": torch.lstm_cell,
    "GRU": torch.gru_cell,
    "RNN_TANH": torch.rnn_tanh_cell,
    "RNN_RELU": torch.rnn_relu_cell,
}
"""One layer, one frame."""


@dataclass(frozen=True)
class Layers:
    """Stacked recurrent layers, and what lies between them.

    Attributes:
        mode: "LSTM", "GRU", "RNN_TANH" or "RNN_RELU".
        weights: ``w_ih, w_hh, b_ih, b_hh`` of each layer in turn, in the shapes of ``torch.nn``; with ``bidirectional``
            those of the forward direction, then of the backward direction of each layer.
        dropout: the probability of dropout between layers.
        dropout_after: the probability of dropout on the last layer's outputs.
        bidirectional: whether a second direction of each layer reads every sequence from its last frame to its first;
            the outputs ``(..., 2H)`` are those of both. There is then no state to start from.
        before: a function on each frame's features, ``(..., D)``, before the first layer.
        after: a function of the number of a layer, its inputs and its outputs, that returns what dropout and the next
            layer get.
    """

    mode: str
    weights: Sequence[Tensor]
    dropout: float = 0.0
    dropout_after: float = 0.0
    bidirectional: bool = False
    before: Callable[[Tensor], Tensor] | None = None
    after: Callable[[int, Tensor, Tensor], Tensor] | None = None

    @property
    def separate(self) -> bool:
        """Whether something lies between layers, so that a kernel can run one at a time only."""
        return self.dropout > 0 or self.bidirectional or self.after is not None

    @property
    def plain(self) -> bool:
        """Whether the layers are all there is."""
        return not self.separate and self.dropout_after == 0 and self.before is None


def run_layers(
    layers: Layers,
    features: Tensor,
    is_first: Tensor | None = None,
    state: Memory | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Memory]:
    """Runs recurrent layers over a batch, with resets inside the clips and padding.

    Args:
        layers: the layers.
        features: ``(B, T, D)`` float.
        is_first: ``(B, T)`` bool, True where a frame begins a new sequence; None for nowhere.
        state: the state before frame 0; None for zeros.
        lengths: ``(B,)`` int64 from 1 to T, the number of valid frames; None for T.

    Returns:
        outputs ``(B, T, H)``, zero at padding, and the state (of the forward direction) after each stream's last valid
        frame.
    """
    T = features.shape[1]
    counts = [T] * len(features) if lengths is None else lengths.tolist()
    if max(counts) < T:
        T_max = max(counts)
        is_first = None if is_first is None else is_first[:, :T_max]
        outputs, final = run_layers(layers, features[:, :T_max], is_first, state, lengths)
        return F.pad(outputs, (0, 0, 0, T - T_max)), final
    mode = layers.mode
    resets = None if is_first is None else _resets_inside(is_first, counts)
    if state is not None and is_first is not None:
        state = tuple(h.masked_fill(is_first[:, 0, None], 0) for h in state)
    whole = resets is None and min(counts) == T
    fused = mode == "LSTM" and _fused(features, layers.weights, whole)
    padded = None if fused or whole else _as_steps(layers, features, counts, resets)
    if fused or not (whole or padded):
        segments = whole_segments(len(counts), T) if whole else find_segments(counts, T, resets, features.device)
        if state is not None and not whole:
            state = tuple(h[:, segments.stream].masked_fill(~segments.carried[:, None], 0) for h in state)
        if fused and layers.plain:
            return fused_lstm.lstm_layers(features, segments, layers.weights, state)
        packed, final = _stack(
            layers, partial(_kernel, mode, segments), segments.reverse, pack(features, segments), state
        )
        return unpack(packed, segments, T), final

    if padded is not None:
        steps, final = _stack(layers, partial(padded_lstm, padded), padded.reverse, padded.steps(features), state)
        return padded.outputs(steps), final
    steps, final = _stack(layers, partial(_kernel, mode, None), _reverse, features.transpose(0, 1), state)
    return steps.transpose(0, 1).contiguous(), final  # a head on the strided view takes twice as long


def _resets_inside(is_first: Tensor, counts: list[int]) -> Mask | None:
    """Where valid frames after frame 0 begin a sequence, ``(B, T)``; None if none does."""
    resets = is_first.cpu().numpy()
    if not resets[:, 1:].any():  # as in most batches
        return None
    resets = resets & (np.arange(resets.shape[1]) < np.array(counts)[:, None])
    resets[:, 0] = False
    return resets if resets.any() else None


def _as_steps(layers: Layers, features: Tensor, counts: list[int], resets: Mask | None) -> Steps | None:
    """The steps of a batch with padding or resets, if ``padded_lstm`` is faster than packing; None otherwise."""
    device = features.device
    if layers.mode != "LSTM":
        return None
    if device.type == "cuda":
        backwards = layers.bidirectional and resets is not None  # in reverse, a reset would come after its frame
        if backwards or not steps_win_on_gpu(layers.weights[1].shape[1], counts, resets):
            return None
        return PaddedSteps(counts, features.shape[1], device) if resets is None else SpreadSteps(counts, resets, device)
    onednn = device.type == "cpu" and torch.backends.mkldnn.is_available() and features.dtype == torch.float32
    if resets is None and onednn and padded_lstm_wins(layers.weights, counts):
        return PaddedSteps(counts, features.shape[1], device)
    return None


def _reverse(steps: Tensor) -> Tensor:
    return steps.flip(0)


def _stack(
    layers: Layers,
    kernel: Callable[[Tensor, list[Tensor], Memory | None], tuple[Tensor, Memory]],
    reverse: Callable[[Tensor], Tensor],
    x: Tensor,
    state: Memory | None,
) -> tuple[Tensor, Memory]:
    """All layers, with dropout: x is ``(T, B, D)``, or packed ``(N, D)``.

    ``kernel`` runs layers of one direction, and ``reverse`` puts the frames of each sequence in the opposite order.
    """
    x = x if layers.before is None else layers.before(x)
    size = 8 if layers.bidirectional else 4  # tensors of a layer
    number = len(layers.weights) // size
    depth = 1 if layers.separate else number  # layers per call of the kernel
    finals = []
    for start in range(0, number, depth):
        part = None if state is None else tuple(h[start : start + depth] for h in state)
        weights = list(layers.weights[size * start : size * (start + depth)])
        if layers.bidirectional:
            forward, final = kernel(x, weights[:4], None)
            backward, _ = kernel(reverse(x), weights[4:], None)
            y = torch.cat([forward, reverse(backward)], -1)
        else:
            y, final = kernel(x, weights, part)
        x = y if layers.after is None else layers.after(start, x, y)
        finals.append(final)
        p = layers.dropout if start + depth < number else layers.dropout_after
        if p > 0:
            x = F.dropout(x, p)
    return x, tuple(torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*finals, strict=True))


def _kernel(
    mode: str, segments: Segments | None, x: Tensor, weights: list[Tensor], state: Memory | None
) -> tuple[Tensor, Memory]:
    """Layers without dropout on a whole batch ``(T, B, D)`` or packed frames ``(N, D)``, by the fastest kernel."""
    cpu = x.device.type == "cpu"
    if mode == "LSTM" and segments is not None and fused_lstm.runs(x, weights):
        return fused_lstm.lstm_layers(x, segments, weights, state, packed=True)
    if mode == "LSTM" and cpu and (segments is not None or _operators_win(x.shape[1], x.shape[2], weights[1])):
        return _cpu_lstm(x, weights, state, segments)
    depth, hidden = len(weights) // 4, weights[1].shape[1]
    if state is None:
        rows = x.shape[1] if segments is None else segments.sizes[0]
        zeros = torch.zeros(depth, rows, hidden, dtype=x.dtype, device=x.device)
        state = (zeros, zeros) if mode == "LSTM" else (zeros,)
    if segments is None and len(x) == 1 and cpu and not torch.is_grad_enabled():
        out, memory = one_frame(mode, x[0], weights, state)
        return out[None], memory
    hx = state if mode == "LSTM" else state[0]
    # with biases, no dropout, what the backward pass needs, one direction and, if not packed, time-major
    options = (weights, True, depth, 0.0, torch.is_grad_enabled(), False)
    with nullcontext() if cpu else _separate_weights():
        if segments is None:
            y, *final = _SEQUENCE_KERNELS[mode](x, hx, *options, False)
        else:
            y, *final = _SEQUENCE_KERNELS[mode](x, torch.tensor(segments.sizes), hx, *options)
    if segments is not None:
        final = [f[:, segments.final] for f in final]
    return y, tuple(final)


def one_frame(
    mode: str,
    x: Tensor,
    weights: Sequence[Tensor],
    state: Memory,
    after: Callable[[int, Tensor, Tensor], Tensor] | None = None,
) -> tuple[Tensor, Memory]:
    """Runs one frame ``(B, D)`` of a stream on the CPU.

    The kernels for sequences would take longer to prepare than to compute. The arguments are those of ``Layers``.
    """
    cell, pairs = _CELLS[mode], mode == "LSTM"
    finals = []
    for layer, before in enumerate(zip(*(h.unbind() for h in state), strict=True) if pairs else state[0].unbind()):
        final = cell(x, before, *weights[4 * layer : 4 * layer + 4])
        finals.append(final)
        out = final[0] if pairs else final
        x = out if after is None else after(layer, x, out)
    return x, tuple(map(torch.stack, zip(*finals, strict=True))) if pairs else (torch.stack(finals),)


def _fused(features: Tensor, weights: Sequence[Tensor], whole: bool) -> bool:
    """Whether ``fused_lstm`` can run a batch, and is faster than oneDNN if the batch is ``whole``."""
    B, T, D = features.shape
    wins = not whole or fused_lstm.wins(T) or _operators_win(B, D, weights[1])
    return wins and fused_lstm.runs(features, weights)


def _operators_win(rows: int, D: int, w_hh: Tensor) -> bool:
    """Whether ``cpu_lstm`` is faster than PyTorch's kernel for a whole batch."""
    # oneDNN is slower with wide inputs (measured on 2 cores over D, H, B and T)
    return (D >= 2048 and rows * w_hh.shape[1] >= 1000) or not torch.backends.mkldnn.is_available()


@contextmanager
def _separate_weights() -> Iterator[None]:
    """Silences cuDNN's warning about weights outside its flat buffer, which it then copies: small and known."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
        yield


def _cpu_lstm(
    x: Tensor,
    weights: list[Tensor],
    state: Memory | None,
    segments: Segments | None,
) -> tuple[Tensor, Memory]:
    """Runs LSTM layers by operators, on ``(T, B, D)`` or packed ``(N, D)``."""
    shape = x.shape
    sizes = [shape[1]] * shape[0] if segments is None else segments.sizes
    flat = x.reshape(-1, shape[-1])
    last = slice(flat.shape[0] - sizes[-1], None) if segments is None else segments.last
    finals = []
    for layer in range(len(weights) // 4):
        w_ih, w_hh, b_ih, b_hh = weights[4 * layer : 4 * layer + 4]
        h0, c0 = (None, None) if state is None else (state[0][layer], state[1][layer])
        flat, cell = cpu_lstm.lstm_layer(flat, sizes, h0, c0, w_ih, w_hh, b_ih + b_hh)
        finals.append((flat[last], cell[last]))
    h, c = (torch.stack(parts) for parts in zip(*finals, strict=True))
    return (flat if segments is not None else flat.view(*shape[:2], -1)), (h, c)
