"""Frame encoders: modules from frames ``(M, *frame_shape)`` to features ``(M, D)``; they know nothing of time."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn


class Flatten(nn.Module):
    """A frame's own values are its features. ``frame_shape`` is ``(D,)`` or ``(C, H, W)``, () for any."""

    def __init__(self, frame_shape: Sequence[int] = ()) -> None:
        super().__init__()
        self.out_features = prod(frame_shape) if frame_shape else None

    def forward(self, frames: Tensor) -> Tensor:
        return frames.flatten(1)
