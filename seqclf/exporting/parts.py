"""A classifier in parts that PyTorch can trace, with dynamic batch and time."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.evaluation.multi_label import probabilities_of
from seqclf.exporting.memory import CannotExport, Memory
from seqclf.exporting.recurrent import CellRecurrent, OnnxRecurrent, replace_recurrent
from seqclf.models import Attention, FrameSequenceClassifier, LocalResponseNorm, Normalize, Pool
from seqclf.models.contract import parts_of
from seqclf.models.pool import COMBINE, Frames, running

LARGEST = 2**31 - 1
"""The largest batch or time; PyTorch 2.6 needs a limit."""


class Parts:
    """A classifier in float32 and evaluation mode, in parts that can be traced.

    Args:
        model: the classifier, which is copied.
        recurrent: the form of its LSTM, GRU and RNN.
        multi_label: whether the probabilities are sigmoids, not a softmax.

    Attributes:
        name: the class of the temporal model.
        memory: the memory of its streams.
        streams: whether files can hold this memory.
        feature_size: D.
        encode: frames ``(M, *frame_shape)`` to features ``(M, D)``.
        core: what follows, see ``Core``.

    Raises:
        SeqclfError: it is not a ``FrameSequenceClassifier``.
    """

    def __init__(
        self,
        model: Any,
        recurrent: type[OnnxRecurrent] | type[CellRecurrent] = OnnxRecurrent,
        multi_label: bool = False,
    ) -> None:
        require_classifier(model)
        model = copy.deepcopy(model).float().requires_grad_(False).eval()
        self.name, self.memory, self.feature_size = type(model.temporal).__name__, Memory(model), model.feature_size()
        self.streams = bool(self.memory.names) and self.memory.problem() is None
        for module in model.modules():
            module.__class__ = _AS_GRAPH.get(type(module), type(module))
        self.encode = nn.Sequential(model.preprocess, model.encoder)
        model.preprocess, model.encoder = nn.Identity(), nn.Identity()
        self.core = Core(model, self.memory, multi_label)
        if self.streams:  # it remembers state sizes
            self.core.step(torch.zeros(1, self.feature_size), *self.memory.zeros(1).values())
        replace_recurrent(model, recurrent)


def require_classifier(model: nn.Module) -> None:
    """Raises SeqclfError unless the model is a ``FrameSequenceClassifier``."""
    if not isinstance(model, FrameSequenceClassifier):
        raise SeqclfError(f"only a FrameSequenceClassifier can be exported, not {type(model).__name__}")


class Core(nn.Module):
    """The temporal model, head and refinement stages of a classifier."""

    def __init__(self, model: FrameSequenceClassifier, memory: Memory, multi_label: bool) -> None:
        super().__init__()
        self.model, self.memory, self.multi_label = model, memory, multi_label

    def forward(self, features: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        """Features ``(B, T, D)`` and the memory to logits and probabilities ``(B, T, K)`` and the memory after."""
        stages, after = self.model.classify(features, None, self.memory.state(memory), None)
        probabilities = probabilities_of(stages[-1], self.multi_label)
        return (stages[-1], probabilities, *(parts_of(after) if memory else ()))

    def step(self, frame: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        """As ``forward``, for features ``(B, D)`` of one frame."""
        logits, probabilities, *after = self(frame[:, None], *memory)
        return (logits[:, 0], probabilities[:, 0], *after)


class _Step(nn.Module):
    def __init__(self, core: Core) -> None:
        super().__init__()
        self.core = core

    def forward(self, frame: Tensor, memory: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return self.core.step(frame, *memory)


def trace(
    module: nn.Module, inputs: tuple[Any, ...] | dict[str, Any], shapes: tuple[Any, ...] | dict[str, Any], what: str
) -> torch.export.ExportedProgram:
    """A module as a program.

    Args:
        inputs: example inputs, by position or by name.
        shapes: the dynamic dimensions of each, as ``torch.export.export`` takes them.
        what: what is traced, for the error.

    Raises:
        CannotExport: PyTorch cannot trace it.
    """
    args, kwargs = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
    try:
        with torch.no_grad():
            return torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=False)
    except CannotExport:
        raise
    except Exception as error:  # tracing a user's module may raise anything
        raise CannotExport(f"torch {torch.__version__} cannot trace {what} ({cause(error)})") from None


def trace_whole(parts: Parts) -> torch.export.ExportedProgram:
    """Features ``(B, T, D)`` of whole clips to logits and probabilities ``(B, T, K)``; errors as ``trace``."""
    features = torch.zeros(2, 3, parts.feature_size)
    return trace(parts.core, (features,), (dynamic("BT"),), f"{parts.name} over whole clips")


def trace_step(parts: Parts) -> torch.export.ExportedProgram:
    """``Core.step`` of features ``(B, D)`` and a tuple of memory; errors as ``trace``."""
    memory = tuple(parts.memory.zeros(2).values())
    shapes = dynamic("B"), tuple(dynamic(".B") for _ in memory)
    return trace(_Step(parts.core), (torch.zeros(2, parts.feature_size), memory), shapes, f"a frame of {parts.name}")


def dynamic(names: str) -> dict[int, Any]:
    """The dynamic dimensions of a tensor: one letter for each of its first dimensions, a dot for one that is fixed."""
    return {i: torch.export.Dim(name, max=LARGEST) for i, name in enumerate(names) if name != "."}


def cause(error: BaseException) -> str:
    """The first line of the error behind an exporter's error."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


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


class _Attention(Attention):
    """The same with all frames in one block: PyTorch cannot trace a number of blocks that depends on T."""

    def block_size(self, frames: int) -> int:
        return frames


class _Pool(Pool):
    """The same with a loop over time: a graph cannot hold log2(T) steps, and ONNX has no ``cummax``."""

    def running(self, parts: Frames, sequence: Tensor | None) -> Frames:
        if self.kind == "mean":
            return super().running(parts, sequence)
        if isinstance(parts[0].shape[1], int):  # a frame of a stream, after its state
            return running(COMBINE[self.kind], parts, sequence)
        from torch._higher_order_ops.scan import scan

        def step(before: Frames, frame: Frames) -> tuple[Frames, Frames]:
            after = COMBINE[self.kind](before, frame)
            return after, tuple(part.clone() for part in after)

        nothing = self._past(tuple(torch.zeros_like(part[None, :, 0]) for part in parts))
        over_time = tuple(part.transpose(0, 1) for part in parts)
        found = scan(step, tuple(part[:, 0].clone() for part in nothing), over_time)[1]
        return tuple(part.transpose(0, 1) for part in found)


_AS_GRAPH = {
    Attention: _Attention,
    LocalResponseNorm: _LocalResponseNorm,
    Normalize: _Normalize,
    Pool: _Pool,
    nn.AdaptiveMaxPool2d: _AdaptiveMaxPool2d,
    nn.BatchNorm1d: _BatchNorm,
    nn.BatchNorm2d: _BatchNorm,
}
"""Replacements of modules in graphs."""
