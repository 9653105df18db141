"""A data layer's ``transform_param``: mean, scale, crops and mirroring of images (data_transformer.cpp)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqclf.caffe.error import CaffeFormatError


class Transform:
    """``(x - mean) * scale`` of an image, with random crops and mirroring: a layer's ``transform_param``.

    Args:
        param: a ``TransformationParameter`` of either fork.
        mean: the mean image ``(C, H, W)`` float32 of its ``mean_file``, or None.

    Raises:
        CaffeFormatError: contradictory settings.
    """

    def __init__(self, param: Any, mean: Tensor | None = None) -> None:
        if mean is not None and len(param.mean_value):
            raise CaffeFormatError("transform_param has both mean_file and mean_value, expected one of them")
        self.param, self.mean = param, mean
        self.values = torch.tensor(list(param.mean_value), dtype=torch.float32).view(-1, 1, 1)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The result's shape for an image of shape ``(C, H, W)``.

        Raises:
            CaffeFormatError: crop, mean image or mean values do not fit the shape.
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
        """Transforms an image.

        Crops are random if ``train``, else central. Half of all images are mirrored, even if not ``train``, as in
        Caffe. With lisa-caffe's ``flow``, channel 2 of a mirrored image (x, the horizontal motion, in BGR order)
        becomes 255 - x.

        Args:
            picture: ``(C, H, W)`` uint8 or float.
            train: whether crops are random.
            generator: the source of random numbers.

        Returns:
            ``(C, h, w)`` float32.

        Raises:
            CaffeFormatError: see ``shape``.
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
