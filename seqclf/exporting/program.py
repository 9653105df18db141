"""A classifier as ``torch.export`` programs, over whole clips and over streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seqclf.exporting.memory import CannotExport
from seqclf.exporting.parts import Parts, dynamic, trace, trace_step, trace_whole
from seqclf.exporting.recurrent import CellRecurrent

OUTPUTS = ("logits", "probabilities")


class Clips(nn.Module):
    """Frames ``(B, T, *frame_shape)`` of whole clips to logits and probabilities ``(B, T, K)``."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.encode, self.core = parts.encode, trace_whole(parts).module()

    def forward(self, frames: Tensor) -> dict[str, Tensor]:
        return dict(zip(OUTPUTS, self.core(_features(self.encode, frames)), strict=True))


class Stream(nn.Module):
    """A classifier with memory as input and output: ``next_h`` is ``h`` of the next call."""

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self.encode, self.step, self.memory = parts.encode, trace_step(parts).module(), parts.memory

    def forward(self, frames: Tensor, is_first: Tensor, memory: dict[str, Tensor]) -> dict[str, Tensor]:
        """Frames ``(B, T, *frame_shape)``, is_first ``(B, T)`` bool and the memory to outputs by name."""
        from torch._higher_order_ops.scan import scan  # a loop over time of any length

        def step(memory: tuple[Tensor, ...], inputs: tuple[Tensor, Tensor]) -> Any:
            frame, first = inputs
            kept = tuple(part.masked_fill(first.view(1, -1, *(1,) * (part.dim() - 2)), 0) for part in memory)
            logits, probabilities, *after = self.step(frame, kept)
            return tuple(map(_compact, after)), (logits.clone(), probabilities.clone())

        before = tuple(map(_compact, memory.values()))
        after, found = scan(step, before, (_features(self.encode, frames).transpose(0, 1), is_first.t()))
        outputs = {name: x.transpose(0, 1) for name, x in zip(OUTPUTS, found, strict=True)}
        return outputs | {f"next_{name}": part for name, part in zip(memory, after, strict=True)}


class StreamedClips(Stream):
    """Whole clips as streams that begin with zeros: for models that only trace frame by frame."""

    def forward(self, frames: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        B, T = frames.shape[:2]
        found = super().forward(frames, torch.zeros(B, T, dtype=torch.bool), self.memory.zeros(B))
        return {name: found[name] for name in OUTPUTS}


def export_program(
    model: nn.Module, frame_shape: Sequence[int], dtype: torch.dtype, form: str, multi_label: bool = False
) -> torch.export.ExportedProgram:
    """A form of a classifier, "model" (whole clips) or "stream", as a program with dynamic batch and time.

    Raises:
        CannotExport: PyTorch cannot trace the model; before 2.8 it may not support the loop over time.
    """
    parts = Parts(model, CellRecurrent, multi_label)
    inputs: dict[str, Any] = {"frames": torch.zeros(2, 3, *frame_shape, dtype=dtype)}
    shapes: dict[str, Any] = {"frames": dynamic("BT")}
    if form == "stream":
        inputs |= {"is_first": torch.zeros(2, 3, dtype=torch.bool), "memory": parts.memory.zeros(2)}
        shapes |= {"is_first": dynamic("BT"), "memory": {name: dynamic(".B") for name in parts.memory.names}}
    return trace(_program(parts, form), inputs, shapes, f"{parts.name} as a program")


def _program(parts: Parts, form: str) -> nn.Module:
    if form == "stream":
        return Stream(parts)
    try:
        return Clips(parts)
    except CannotExport:
        if not parts.streams:
            raise
        return StreamedClips(parts)


def _features(encode: nn.Module, frames: Tensor) -> Tensor:
    return encode(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])  # type: ignore[no-any-return]


def _compact(x: Tensor) -> Tensor:
    """A contiguous copy, as the loop over time requires it."""
    return x.clone(memory_format=torch.contiguous_format)
