"""Batches of frames with a label per frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seqclf.errors import PeerFailed, SeqclfError

__all__ = ["IGNORE", "Batch", "PeerFailed", "SeqclfError"]

IGNORE = -100
"""The label of a frame that has none: no loss, no gradient, no metric (PyTorch's own ``ignore_index``)."""


@dataclass
class Batch:
    """A batch of B clips of T frames, clips shorter than T padded at their end.

    Attributes:
        frames: ``(B, T, *frame_shape)``, uint8 or float.
        labels: ``(B, T)`` int64; class indices, or ``IGNORE`` where a frame has no label.
        lengths: ``(B,)`` int64, the number of valid frames of each clip, from 1 to T; None where all have T.
        is_first: ``(B, T)`` bool, True where a frame begins a new sequence (no memory crosses into it); None where no
            sequence begins inside the clips. Caffe's ``cont`` and LRCN's ``clip_markers`` are its negation.
        indices: ``(B,)`` int64, the sample numbers in the data set; None if there are none.
    """

    frames: Tensor
    labels: Tensor
    lengths: Tensor | None = None
    is_first: Tensor | None = None
    indices: Tensor | None = None

    def __len__(self) -> int:
        return self.frames.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""

        def move(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.to(device, non_blocking=True)

        return Batch(
            self.frames.to(device, non_blocking=True),
            self.labels.to(device, non_blocking=True),
            move(self.lengths),
            move(self.is_first),
            move(self.indices),
        )

    def __getitem__(self, clips: slice) -> Batch:
        """A batch of some of the clips."""
        fields = (self.frames, self.labels, self.lengths, self.is_first, self.indices)
        return Batch(*(None if x is None else x[clips] for x in fields))  # type: ignore[arg-type]

    def split(self, parts: int) -> list[Batch]:
        """Splits the batch into at most ``parts`` batches of consecutive clips (for gradient accumulation)."""

        def chunks(x: Tensor | None) -> list[Tensor | None] | tuple[Tensor, ...]:
            return [None] * parts if x is None else x.chunk(parts)

        fields = (chunks(x) for x in (self.frames, self.labels, self.lengths, self.is_first, self.indices))
        return [Batch(*part) for part in zip(*fields, strict=False)]  # type: ignore[arg-type]

    def windows(self, frames: int | None) -> list[Batch]:
        """The batch cut along time into windows of at most ``frames`` frames, the state of one continuing in the next.

        A stream that has ended by then gets one frame of padding, which has no label.
        """
        T = self.frames.shape[1]
        if frames is None or frames >= T:
            return [self]

        def part(start: int) -> Batch:
            window = slice(start, start + frames)
            lengths = None if self.lengths is None else (self.lengths - start).clamp(1, min(frames, T - start))
            is_first = None if self.is_first is None else self.is_first[:, window]
            return Batch(self.frames[:, window], self.labels[:, window], lengths, is_first, self.indices)

        return [part(start) for start in range(0, T, frames)]


def valid_frames(lengths: Tensor | None, shape: torch.Size, device: torch.device) -> Tensor:
    """``(B, T)`` bool: True at the frames that are not padding; ``shape`` starts with B, T."""
    if lengths is None:
        return torch.ones(shape[:2], dtype=torch.bool, device=device)
    return torch.arange(shape[1], device=device) < lengths.to(device)[:, None]
