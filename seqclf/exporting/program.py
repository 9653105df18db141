"""A classifier as two functions of tensors, on whole clips and on streams, and as ``torch.export`` programs."""

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
"""One step of one layer, by mode of the recurrent module."""


def memory(temporal: Any, B: int) -> dict[str, Tensor]:
    """The initial memory of B streams by name: h and c of an LSTM, h of a GRU or RNN, each ``(layers, B, H)``."""
    names = {LSTM: ("h", "c"), GRU: ("h",), RNN: ("h",), Identity: ()}[type(temporal)]
    return {name: torch.zeros(temporal.num_layers, B, temporal.hidden_size) for name in names}


def layer_weights(net: Any, layer: int) -> tuple[Tensor, ...]:
    """The weights of a recurrent layer for inputs and memory, and the two biases."""
    names = (f"{kind}_{side}_l{layer}" for kind in ("weight", "bias") for side in ("ih", "hh"))
    return tuple(net.get_parameter(name) for name in names)


class Frames(nn.Module):
    """The part of a classifier that works on each frame alone, before and after its temporal model.

    Raises:
        SeqclfError: the model has parts that cannot be exported.
    """

    temporal: Any

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        if not isinstance(model, FrameSequenceClassifier):
            raise SeqclfError(f"only a FrameSequenceClassifier can be exported, not {type(model).__name__}")
        if type(model.temporal) not in (LSTM, GRU, RNN, Identity):
            name = type(model.temporal).__name__
            raise SeqclfError(f"the temporal model {name} cannot be exported, only LSTM, GRU, RNN and Identity")
        if model.refine:
            raise SeqclfError("a model with refinement stages (refine=) cannot be exported")
        temporal: Any = model.temporal
        if not isinstance(temporal, Identity) and temporal.extensions():
            raise SeqclfError(f"a temporal model with {' and '.join(temporal.extensions())} cannot be exported")
        model = copy.deepcopy(model).float().requires_grad_(False)
        for module in model.modules():
            module.__class__ = _AS_GRAPH.get(type(module), type(module))
        self.preprocess, self.encoder = model.preprocess, model.encoder
        self.temporal, self.head = model.temporal, model.head
        self.eval()

    def forward(self, frames: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features ``(M, D)`` of frames ``(M, *frame_shape)``; logits and probabilities of hidden ``(N, H)``."""
        logits = self.head(hidden)
        return self.encoder(self.preprocess(frames)), logits, logits.softmax(-1)


class Stream(Frames):
    """A classifier with memory as input and output: ``next_h`` and ``next_c`` are ``h`` and ``c`` of the next call."""

    def forward(  # type: ignore[override]
        self, frames: Tensor, is_first: Tensor, h: Tensor | None = None, c: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Frames ``(B, T, *frame_shape)``, is_first ``(B, T)`` bool, memory ``(layers, B, H)`` to outputs by name."""
        from torch._higher_order_ops.scan import scan  # a loop over time of any length

        B, T = frames.shape[:2]
        features = self.encoder(self.preprocess(frames.flatten(0, 1)))
        features = features.view(B, T, features.shape[-1])
        net, state = self.temporal, {name: part for name, part in (("h", h), ("c", c)) if part is not None}
        weights = [layer_weights(net, layer) for layer in range(net.num_layers)]
        step = partial(_step, CELLS[net.mode], weights)
        after, hidden = scan(step, tuple(state.values()), (features.transpose(0, 1), is_first.t()))
        logits = self.head(hidden.transpose(0, 1))
        found = {"logits": logits, "probabilities": logits.softmax(-1)}
        return found | {f"next_{name}": part for name, part in zip(state, after, strict=True)}


class Clips(Stream):
    """A classifier of whole clips: the memory is zero before the first frame."""

    def forward(self, frames: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """Frames ``(B, T, *frame_shape)`` to ``logits`` and ``probabilities`` ``(B, T, K)``."""
        B, T = frames.shape[:2]
        state = memory(self.temporal, B)
        if state:
            found = super().forward(frames, torch.zeros(B, T, dtype=torch.bool), **state)
        else:
            logits = self.head(self.encoder(self.preprocess(frames.flatten(0, 1)))).unflatten(0, (B, T))
            found = {"logits": logits, "probabilities": logits.softmax(-1)}
        return {name: found[name] for name in ("logits", "probabilities")}


def _step(
    cell: Callable[..., Any],
    weights: Sequence[tuple[Tensor, ...]],
    state: tuple[Tensor, ...],
    inputs: tuple[Tensor, Tensor],
) -> tuple[tuple[Tensor, ...], Tensor]:
    """The memory after one more frame, and the output ``(B, H)`` of the last layer."""
    x, first = inputs
    state = tuple(torch.where(first[:, None], 0.0, part) for part in state)
    after = []
    for before, layer in zip(zip(*state, strict=True), weights, strict=True):
        found = cell(x, before if len(before) > 1 else before[0], *layer)
        after.append(found if isinstance(found, tuple) else (found,))
        x = after[-1][0]
    return tuple(torch.stack(parts) for parts in zip(*after, strict=True)), x


class _LocalResponseNorm(LocalResponseNorm):
    """The same without writing into slices, which is expensive in graphs."""

    def forward(self, x: Tensor) -> Tensor:
        squares = F.pad(x * x, (0, 0) * (x.dim() - 2) + (self.size // 2, (self.size - 1) // 2))
        around = sum(squares[:, d : d + x.shape[1]] for d in range(self.size))
        return x * (self.k + self.alpha / self.size * around) ** -self.beta


class _Normalize(Normalize):
    """The same without ``addcmul``, which PyTorch 2.6 cannot trace with dynamic sizes."""

    def forward(self, frames: Tensor) -> Tensor:
        if self.bgr:
            frames = frames.flip(-3)
        mean, std = self._fitted(self.mean, frames), self._fitted(self.std, frames)
        scale = 1 / std if frames.is_floating_point() else 1 / (255 * std)
        return frames.to(mean.dtype) * scale - mean / std


class _BatchNorm(nn.modules.batchnorm._BatchNorm):
    """The same in evaluation mode as factor and offset: PyTorch 2.6 cannot export the operator to ONNX."""

    def forward(self, x: Tensor) -> Tensor:
        if self.running_mean is None or self.running_var is None:
            return super().forward(x)
        scale = (self.running_var + self.eps).rsqrt() * (1 if self.weight is None else self.weight)
        shift = (0 if self.bias is None else self.bias) - self.running_mean * scale
        each = (-1,) + (1,) * (x.dim() - 2)
        return x * scale.view(each) + shift.view(each)


class _AdaptiveMaxPool2d(nn.AdaptiveMaxPool2d):
    """The same, as a maximum if the output is 1 x 1: PyTorch 2.6 cannot export the operator to ONNX."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax((-2, -1), keepdim=True) if self.output_size in (1, (1, 1)) else super().forward(x)


_AS_GRAPH = {
    LocalResponseNorm: _LocalResponseNorm,
    Normalize: _Normalize,
    nn.AdaptiveMaxPool2d: _AdaptiveMaxPool2d,
    nn.BatchNorm1d: _BatchNorm,
    nn.BatchNorm2d: _BatchNorm,
}
"""Replacements of modules in graphs."""


LARGEST = 2**31 - 1
"""The largest batch or time; PyTorch 2.6 needs a limit."""


def export_program(
    model: nn.Module, frame_shape: Sequence[int], dtype: torch.dtype, form: str
) -> torch.export.ExportedProgram:
    """A form of a classifier, "model" (whole clips) or "stream", as a program with dynamic batch and time.

    Raises:
        SeqclfError: PyTorch cannot trace the model; before 2.8 it may not support the loop over time.
    """
    module = (Stream if form == "stream" else Clips)(model)
    inputs = {"frames": torch.zeros(2, 3, *frame_shape, dtype=dtype)}
    if form == "stream":
        inputs |= {"is_first": torch.zeros(2, 3, dtype=torch.bool)} | memory(module.temporal, 2)
    B, T = (torch.export.Dim(name, max=LARGEST) for name in "BT")
    shapes = {name: {0: B, 1: T} if name in ("frames", "is_first") else {1: B} for name in inputs}
    try:
        with torch.no_grad():
            return torch.export.export(module, (), inputs, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # tracing a user's module may raise anything
        old = " (2.8 and newer support the loop over time)" if memory(module.temporal, 1) else ""
        raise SeqclfError(
            f"torch {torch.__version__} cannot export this model as a program{old}: {cause(error)}; "
            "use --format onnx,safetensors"
        ) from None


def cause(error: BaseException) -> str:
    """The first line of the error behind an exporter's error."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
