"""A classifier as two functions of tensors alone, over clips and over streams, and these as ``torch.export`` programs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.models import GRU, LSTM, RNN, FrameSequenceClassifier, Identity, LocalResponseNorm, Normalize

CELLS: dict[str, Callable[..., Any]] = {
    "LSTM": torch.lstm_cell,
    "GRU": torch.gru_cell,
    "RNN_TANH": torch.rnn_tanh_cell,
    "RNN_RELU": torch.rnn_relu_cell,
}
"""One step of one layer, by the mode of a recurrent module."""


def state_names(temporal: nn.Module) -> tuple[str, ...]:
    """The tensors that a temporal model's memory is made of, each ``(layers, B, H)``: h and c, h alone, or none."""
    return {LSTM: ("h", "c"), GRU: ("h",), RNN: ("h",), Identity: ()}[type(temporal)]


def layer_weights(net: nn.Module, layer: int) -> tuple[Tensor, ...]:
    """A recurrent layer's weights by inputs and by memory, and the biases of both."""
    names = (f"{kind}_{side}_l{layer}" for kind in ("weight", "bias") for side in ("ih", "hh"))
    return tuple(net.get_parameter(name) for name in names)


class Frames(nn.Module):
    """What a classifier does to each frame by itself: before its temporal model, and after it.

    Raises:
        SeqclfError: the model is not made of parts that can be exported.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if not isinstance(model, FrameSequenceClassifier):
            raise SeqclfError(f"only a FrameSequenceClassifier can be exported, not {type(model).__name__}")
        if type(model.temporal) not in (LSTM, GRU, RNN, Identity):
            name = type(model.temporal).__name__
            raise SeqclfError(f"a temporal model {name} can't be exported: LSTM, GRU, RNN or Identity can")
        model = copy.deepcopy(model).float().requires_grad_(False)
        for module in model.modules():
            module.__class__ = _AS_GRAPH.get(type(module), type(module))
        self.preprocess, self.encoder = model.preprocess, model.encoder
        self.temporal, self.head = model.temporal, model.head
        self.eval()

    def forward(self, frames: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features ``(M, D)`` of frames ``(M, *frame_shape)``; logits and probabilities ``(N, K)`` of hidden ``(N, H)``."""
        logits = self.head(hidden)
        return self.encoder(self.preprocess(frames)), logits, logits.softmax(-1)


class Stream(Frames):
    """A classifier whose memory comes in and goes out: ``next_h`` and ``next_c`` are the next call's ``h`` and ``c``."""

    def forward(  # type: ignore[override]
        self, frames: Tensor, is_first: Tensor, h: Tensor | None = None, c: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Frames ``(B, T, *frame_shape)``, is_first ``(B, T)`` bool, the memory ``(layers, B, H)`` to outputs by name."""
        from torch._higher_order_ops.scan import scan  # a loop over time that a program keeps as one

        B, T = frames.shape[:2]
        features = self.encoder(self.preprocess(frames.flatten(0, 1)))
        features = features.view(B, T, features.shape[-1])
        names = state_names(self.temporal)
        state = tuple(part for part in (h, c) if part is not None)
        if names:
            weights = [layer_weights(self.temporal, layer) for layer in range(self.temporal.num_layers)]
            step = partial(_step, CELLS[self.temporal.mode], weights)
            state, hidden = scan(step, state, (features.transpose(0, 1), is_first.t()))
            hidden = hidden.transpose(0, 1)
        else:
            hidden = features
        logits = self.head(hidden)
        found = {"logits": logits, "probabilities": logits.softmax(-1)}
        return found | {f"next_{name}": part for name, part in zip(names, state, strict=True)}


class Clips(Stream):
    """A classifier of whole clips: each begins without memory at its first frame."""

    def forward(self, frames: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """Frames ``(B, T, *frame_shape)`` to ``logits`` and ``probabilities`` ``(B, T, K)``."""
        B, T = frames.shape[:2]
        net, names = self.temporal, state_names(self.temporal)
        zeros = [torch.zeros(net.num_layers, B, net.hidden_size, device=frames.device) for _ in names]
        found = super().forward(frames, torch.zeros(B, T, dtype=torch.bool, device=frames.device), *zeros)
        return {name: found[name] for name in ("logits", "probabilities")}


def _step(
    cell: Callable[..., Any],
    weights: Sequence[tuple[Tensor, ...]],
    state: tuple[Tensor, ...],
    inputs: tuple[Tensor, Tensor],
) -> tuple[tuple[Tensor, ...], Tensor]:
    """The memory after one more frame, and the last layer's output ``(B, H)``."""
    x, first = inputs
    state = tuple(torch.where(first[:, None], 0.0, part) for part in state)
    after = []
    for before, layer in zip(zip(*state, strict=True), weights, strict=True):
        found = cell(x, before if len(before) > 1 else before[0], *layer)
        after.append(found if isinstance(found, tuple) else (found,))
        x = after[-1][0]
    return tuple(torch.stack(parts) for parts in zip(*after, strict=True)), x


class _LocalResponseNorm(LocalResponseNorm):
    """The same without writing into slices, which graphs have only dear operators for."""

    def forward(self, x: Tensor) -> Tensor:
        squares = F.pad(x * x, (0, 0) * (x.dim() - 2) + (self.size // 2, (self.size - 1) // 2))
        around = sum(squares[:, d : d + x.shape[1]] for d in range(self.size))
        return x * (self.k + self.alpha / self.size * around) ** -self.beta


class _Normalize(Normalize):
    """The same without ``addcmul``, which PyTorch 2.6 can't trace where sizes are open."""

    def forward(self, frames: Tensor) -> Tensor:
        if self.bgr:
            frames = frames.flip(-3)
        scale = 1 / self.std if frames.is_floating_point() else 1 / (255 * self.std)
        return frames.to(self.mean.dtype) * scale - self.mean / self.std


_AS_GRAPH = {LocalResponseNorm: _LocalResponseNorm, Normalize: _Normalize}
"""What stands for a module in a graph."""


LARGEST = 2**31 - 1
"""Of a batch, or a time; PyTorch 2.6 wants it said."""


def example(model: Frames, frame_shape: Sequence[int], dtype: torch.dtype, form: str) -> dict[str, Tensor]:
    """Inputs of a form, "model" or "stream", by name: 2 clips of 3 blank frames."""
    inputs = {"frames": torch.zeros(2, 3, *frame_shape, dtype=dtype)}
    if form == "stream":
        inputs["is_first"] = torch.zeros(2, 3, dtype=torch.bool)
        for name in state_names(model.temporal):
            inputs[name] = torch.zeros(model.temporal.num_layers, 2, model.temporal.hidden_size)
    return inputs


def export_program(
    model: nn.Module, frame_shape: Sequence[int], dtype: torch.dtype, form: str
) -> torch.export.ExportedProgram:
    """A classifier's form, "model" (whole clips) or "stream", as a program of dynamic batch and time."""
    module = (Stream if form == "stream" else Clips)(model)
    inputs = example(module, frame_shape, dtype, form)
    B, T = (torch.export.Dim(name, max=LARGEST) for name in "BT")
    shapes = {name: {0: B, 1: T} if name in ("frames", "is_first") else {1: B} for name in inputs}
    with torch.no_grad():
        return torch.export.export(module, (), inputs, dynamic_shapes=shapes, strict=False)
