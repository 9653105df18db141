"""Which frames carry a label: the one place where clip-level and per-frame labelling differ."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError, valid_frames

Labelling = Callable[[Tensor, Tensor | None, int], Tensor]
"""``labelling(labels, lengths, T)``: a data set's labels ``(B,)`` or ``(B, T)`` as labels per frame ``(B, T)``."""


def last_frame(labels: Tensor, lengths: Tensor | None, frames: int) -> Tensor:
    """The clip's label at its last valid frame, ``IGNORE`` before it: clip-level labelling.

    Args:
        labels: ``(B,)`` int64, one per clip.
        lengths: ``(B,)`` int64, valid frames per clip; None where all have T.
        frames: T.
    """
    _expect(labels, 1, "last_frame")
    per_frame = torch.full((len(labels), frames), IGNORE, dtype=torch.int64, device=labels.device)
    last = (torch.full_like(labels, frames) if lengths is None else lengths.to(labels.device)) - 1
    return per_frame.scatter_(1, last[:, None], labels[:, None])


def every_frame(labels: Tensor, lengths: Tensor | None, frames: int) -> Tensor:
    """The clip's label at each of its valid frames, as LRCN trains; arguments as in ``last_frame``."""
    _expect(labels, 1, "every_frame")
    per_frame = labels[:, None].expand(-1, frames)
    return per_frame.where(valid_frames(lengths, per_frame.shape, labels.device), IGNORE)


def given(labels: Tensor, lengths: Tensor | None, frames: int) -> Tensor:
    """Labels per frame ``(B, T)`` as the data has them, ``IGNORE`` at padding."""
    _expect(labels, 2, "given")
    return labels.where(valid_frames(lengths, labels.shape, labels.device), IGNORE)


def _expect(labels: Tensor, dims: int, name: str) -> None:
    if labels.dim() != dims:
        form = "one label per clip (B,)" if dims == 1 else "labels per frame (B, T)"
        raise SeqclfError(f"labelling {name} reads {form}, but the data's labels are {tuple(labels.shape)}")
