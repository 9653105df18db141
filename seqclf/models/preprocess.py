"""Preprocessing of raw frames, as a part of the model: its settings are saved with the weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError


class Normalize(nn.Module):
    """Normalises raw frames to ``(x - mean) / std``.

    uint8 frames are divided by 255 first; float frames are used as they are, like in torchvision.

    Args:
        mean, std: a number, or one value per channel of images ``(..., C, H, W)`` or per feature of vectors
            ``(..., D)``. For uint8 frames they are on the scale from 0 to 1.
        bgr: whether to reorder RGB frames to BGR first, as for models trained with OpenCV. mean and std are then in
            the order BGR, too.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: float | Sequence[float] = 0.0, std: float | Sequence[float] = 1.0, bgr: bool = False
    ) -> None:
        super().__init__()
        self.bgr = bgr

        def shaped(value: float | Sequence[float]) -> Tensor:
            x = torch.tensor(value, dtype=torch.float32)
            return x if x.dim() == 0 else x.view(-1, 1, 1)

        self.register_buffer("mean", shaped(mean))
        self.register_buffer("std", shaped(std))

    def forward(self, frames: Tensor) -> Tensor:
        mean, std = self._fitted(self.mean, frames), self._fitted(self.std, frames)
        if self.bgr:
            if frames.dim() < 4 or frames.shape[-3] != 3:
                raise SeqclfError(f"Normalize(bgr=True) takes frames (3, H, W), not {tuple(frames.shape[1:])}")
            frames = frames.flip(-3)
        scale = 1 / std
        if not frames.is_floating_point():
            scale = scale / 255
        return torch.addcmul(-mean / std, frames.to(mean.dtype), scale)

    def _fitted(self, statistic: Tensor, frames: Tensor) -> Tensor:
        """Reshapes a statistic to broadcast over the channels of images or over the features."""
        if not statistic.dim():
            return statistic
        pictures = frames.dim() >= 4
        if frames.shape[-3 if pictures else -1] != len(statistic):
            raise SeqclfError(
                f"Normalize has {len(statistic)} channels, but frames are {tuple(frames.shape[1:])}: expected "
                "(C, H, W) with as many channels, or as many features (D,)"
            )
        return statistic if pictures else statistic.view(-1)
