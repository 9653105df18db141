"""Preprocessing of raw frames, as a part of the model: its settings are saved with the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError

Fit = Literal["channel", "all"]
"""Whether mean and standard deviation are computed for each channel or feature, or for all values together."""


class Normalize(nn.Module):
    """Normalises raw frames to ``(x - mean) / std``.

    uint8 frames are divided by 255 first; float frames are not scaled, as in torchvision.

    Args:
        mean, std: a number, or one value per channel of images ``(..., C, H, W)`` or per feature of vectors
            ``(..., D)``. For uint8 frames they are on the scale from 0 to 1.
        bgr: whether to reorder RGB frames to BGR first, as for models trained with OpenCV. mean and std are then in
            the order BGR, too.
        fit: ``train`` computes mean and std from the training frames when a run starts: with "channel" for each channel
            of images or feature of vectors, with "all" for all values together. They are buffers, saved with the
            weights, and NaN before the run starts. None uses ``mean`` and ``std``.

    Raises:
        SeqclfError: ``fit`` is none of these, or given together with ``mean`` or ``std``; ``std`` is not above 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        bgr: bool = False,
        fit: Fit | None = None,
    ) -> None:
        super().__init__()
        if fit is not None and fit not in get_args(Fit):
            raise SeqclfError(f'Normalize: fit={fit!r}: expected "channel", "all" or None')
        if fit is not None and (mean, std) != (0.0, 1.0):
            raise SeqclfError(f"Normalize: mean and std are computed with fit={fit!r}: leave them out")
        self.bgr, self.fit = bgr, fit
        mean, std = (mean, std) if fit is None else (math.nan, math.nan)

        def shaped(value: float | Sequence[float]) -> Tensor:
            x = torch.tensor(value, dtype=torch.float32)
            return x if x.dim() == 0 else x.view(-1, 1, 1)

        self.register_buffer("mean", shaped(mean))
        self.register_buffer("std", shaped(std))
        stds = [std] if isinstance(std, int | float) else std  # not the buffer, which has no values on the meta device
        if fit is None and not all(value > 0 for value in stds):
            raise SeqclfError(f"Normalize: std must be above 0, not {std}")

    def resize_to(self, frame_shape: Sequence[int]) -> None:
        """With ``fit="channel"``, gives mean and std their final size, so that weights can be loaded."""
        if self.fit == "channel":
            size = (frame_shape[-3] if len(frame_shape) >= 3 else frame_shape[-1], 1, 1)
            self.mean, self.std = self.mean.new_full(size, math.nan), self.std.new_full(size, math.nan)

    def fit_to(self, batches: Iterable[Tensor]) -> dict[str, Any]:
        """Sets mean and std to those of raw frames.

        Values are summed in float64, so the result does not depend on how the frames are batched. A constant channel
        gets the standard deviation 1, so it becomes 0.

        Args:
            batches: frames ``(M, *frame_shape)``; one batch at a time is in memory.

        Returns:
            ``frames``, their number; ``mean`` and ``std``, numbers or lists; ``constant``, the indices of constant
            channels.

        Raises:
            SeqclfError: there is no frame, or a value is not finite.
        """
        moments = _Moments()
        for frames in batches:
            moments.add(self._values(frames), len(frames))
        mean, std, constant = moments.result()
        shape = () if self.fit == "all" else (-1, 1, 1)
        self.mean, self.std = (x.to(self.mean).view(shape) for x in (mean, std))
        return {
            "frames": moments.frames,
            "mean": self.mean.squeeze((-2, -1)).tolist() if shape else self.mean.item(),
            "std": self.std.squeeze((-2, -1)).tolist() if shape else self.std.item(),
            "constant": constant,
        }

    def _values(self, frames: Tensor) -> Tensor:
        """The values of frames ``(M, *frame_shape)`` as ``(N, C)`` float64; ``(N, 1)`` for ``fit="all"``."""
        values = frames.double() if frames.is_floating_point() else frames.double() / 255
        if self.bgr:
            values = values.flip(-3)
        if self.fit == "all":
            return values.reshape(-1, 1)
        return (values.movedim(-3, -1) if values.dim() >= 4 else values).flatten(0, -2)

    def forward(self, frames: Tensor) -> Tensor:
        return self.prepared(frames)(frames)

    def prepared(self, frames: Tensor) -> Callable[[Tensor], Tensor]:
        """The forward pass for frames with the shape and dtype of these, with scale and offset computed once."""
        mean, std = self._fitted(self.mean, frames), self._fitted(self.std, frames)
        if self.bgr and (frames.dim() < 4 or frames.shape[-3] != 3):
            raise SeqclfError(f"Normalize(bgr=True) takes frames (3, H, W), not {tuple(frames.shape[1:])}")
        scale, offset = std.reciprocal(), -mean / std
        if not frames.is_floating_point():
            scale = scale / 255

        def normalize(frames: Tensor) -> Tensor:
            return torch.addcmul(offset, (frames.flip(-3) if self.bgr else frames).to(offset.dtype), scale)

        return normalize

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


class _Moments:
    """Mean and standard deviation of columns, of batches of rows (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.frames = self.rows = 0
        self.mean = self.squares = self.low = self.high = torch.zeros(())  # (C,) with the first rows

    def add(self, rows: Tensor, frames: int) -> None:
        """Adds rows ``(N, C)`` float64, which are this many frames."""
        if not rows.isfinite().all():
            raise SeqclfError("Normalize cannot be fitted: a training frame has a value that is not finite")
        if not len(rows):
            return
        mean = rows.mean(0)
        squares, low, high = (rows - mean).square().sum(0), rows.amin(0), rows.amax(0)
        if self.rows:
            share = len(rows) / (self.rows + len(rows))
            change = mean - self.mean
            squares = self.squares + squares + change.square() * self.rows * share
            mean = self.mean + change * share
            low, high = low.minimum(self.low), high.maximum(self.high)
        self.mean, self.squares, self.low, self.high = mean, squares, low, high
        self.frames, self.rows = self.frames + frames, self.rows + len(rows)

    def result(self) -> tuple[Tensor, Tensor, list[int]]:
        """Mean and standard deviation ``(C,)``, 1 where there is one value only; and the indices of those columns."""
        if not self.rows:
            raise SeqclfError("Normalize cannot be fitted: there is no training frame")
        same = self.low == self.high
        mean = self.mean.where(~same, self.low)
        std = (self.squares / self.rows).sqrt().where(~same, 1)
        return mean, std, same.nonzero()[:, 0].tolist()
