"""A data layer's ``transform_param``: mean, scale, crops and mirroring of images (data_transformer.cpp)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqclf.caffe.error import CaffeFormatError


class Transform:
    """(x - mean) · scale of a picture, cropped and mirrored at random: a layer's ``transform_param``.

    Args:
        param: a ``TransformationParameter``, of either fork.
        mean: the mean picture ``(C, H, W)`` float32 that its ``mean_file`` names, else None.

    Raises:
        CaffeFormatError: settings that contradict each other.
    """

    def __init__(self, param: Any, mean: Tensor | None = None) -> None:
        if mean is not None and len(param.mean_value):
            raise CaffeFormatError("transform_param has both mean_file and mean_value, expected one of them")
        self.param, self.mean = param, mean
        self.values = torch.tensor(list(param.mean_value), dtype=torch.float32).view(-1, 1, 1)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """What becomes of a picture of shape ``(C, H, W)``.

        Raises:
            CaffeFormatError: crop, mean picture or mean values do not fit it.
        """
        channels, *size = shape
        crop = self.param.crop_size
        if min(size) < crop:
            raise CaffeFormatError(f"a picture of {size[0]} x {size[1]} (H x W) is smaller than crop_size {crop}")
        if self.mean is not None and self.mean.shape != shape:
            raise CaffeFormatError(f"a picture of shape {shape}, but the mean picture's is {tuple(self.mean.shape)}")
        if len(self.values) not in (0, 1, channels):
            raise CaffeFormatError(f"{len(self.values)} mean_values, expected 1 or one for each of {channels} channels")
        return (channels, crop, crop) if crop else shape

    def __call__(self, picture: Tensor, train: bool, generator: torch.Generator) -> Tensor:
        """The picture as a net takes it.

        Crops lie anywhere when ``train`` and else in the middle; half of all pictures are mirrored, when not ``train``
        too, as in Caffe. With lisa-caffe's ``flow``, a mirrored picture's channel 2 (where x, the horizontal motion, is
        in BGR order) becomes 255 - x.

        Args:
            picture: ``(C, H, W)`` uint8 or float.
            generator: what is random is drawn from it.

        Returns:
            ``(C, h, w)`` float32.

        Raises:
            CaffeFormatError: as of ``shape``.
        """
        channels, height, width = self.shape(tuple(picture.shape))
        mirrored = self.param.mirror and _draw(2, generator)
        room = (picture.shape[1] - height, picture.shape[2] - width)
        top, left = (_draw(n + 1, generator) if train else n // 2 for n in room) if self.param.crop_size else (0, 0)
        window = (slice(None), slice(top, top + height), slice(left, left + width))
        x = picture[window].float()
        if mirrored and getattr(self.param, "flow", False) and channels > 2:
            x = torch.cat((x[:2], 255 - x[2:3], x[3:]))
        if self.mean is not None:
            x = x - self.mean[window]
        elif len(self.values):
            x = x - self.values
        if self.param.scale != 1:
            x = x * self.param.scale
        return x.flip(2) if mirrored else x


def _draw(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (), generator=generator))
