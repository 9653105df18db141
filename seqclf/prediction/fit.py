"""Fitting frames to the size of a model's input: scaled, cropped, or refused, never silently cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.transforms import Size, Transform, apply_transform, center_crop, is_framewise, mirror, ten_crops
from seqclf.data.transforms import resize as resized
from seqclf.prediction.frames import wrong_shape


@dataclass(frozen=True)
class Fit:
    """The transform of a clip's frames to the model's input.

    Attributes:
        transform: ``transform(frames, None)``, applied first; None for none.
        resize: height and width to scale to, or the length of the shorter side; None keeps the size.
        crop: whether to crop the center to the size of the model's input.
        crops: 1; or 10 for crops of that size at the corners and the center, and their mirror images. Frames that
            already have that size are only mirrored.
        flow: whether frames are optical flow, whose first channel is negated in a mirror image.
    """

    transform: Transform | None = None
    resize: Size | None = None
    crop: bool = False
    crops: int = 1
    flow: bool = False

    def __post_init__(self) -> None:
        if self.crops not in (1, 10):
            raise SeqclfError(
                f"crops={self.crops}: expected 1, or 10 (the corners and the center, and their mirror images)"
            )

    @property
    def is_framewise(self) -> bool:
        """Whether each frame is transformed on its own, so that a long clip can be read in pieces."""
        return self.transform is None or is_framewise(self.transform)

    def __call__(self, frames: Tensor, shape: tuple[int, ...] | None, name: str) -> Tensor:
        """Fits frames ``(T, ...)`` to ``(1, T, *shape)``, or with several crops to ``(crops, T, *shape)``.

        Args:
            frames: the raw frames.
            shape: the shape of one frame of the model's input; None if unknown.
            name: the name of the clip, for errors.

        Raises:
            SeqclfError: the result does not have the model's shape.
        """
        if self.transform is not None:
            frames = apply_transform(self.transform, frames, None, name)
        given = tuple(frames.shape[1:])
        if frames.dim() != 4 or (shape is not None and (len(shape) != 3 or given[0] != shape[0])):
            if shape is not None and given != shape:
                raise wrong_shape(given, shape, name)
            if self.crops != 1 or self.crop or self.resize is not None:
                raise SeqclfError(f"{name}: has frames {given}; only pictures (C, H, W) can be resized or cropped")
            return frames[None]
        if self.resize is not None:
            frames = resized(frames, None, size=self.resize)
        H, W = frames.shape[2:]
        h, w = (H, W) if shape is None else shape[1:]
        if (self.crops == 10 or self.crop) and (h > H or w > W):
            raise SeqclfError(
                f"{name}: has frames of {H}x{W} (height x width), too small for a crop of {h}x{w}: scale them "
                "(resize=, --resize)"
            )
        if self.crops == 10:
            if (h, w) == (H, W):
                return torch.stack([frames, mirror(frames, self.flow)])
            return ten_crops(frames, (h, w), self.flow)
        if self.crop:
            frames = center_crop(frames, None, size=(h, w))
        elif (h, w) != (H, W):
            raise SeqclfError(
                f"{name}: has frames of {H}x{W} (height x width), but the model takes {h}x{w}: scale them (resize=, "
                "--resize) or take their center (crop=True, --crop)"
            )
        return frames[None]

    def bound(self, shape: tuple[int, ...] | None, name: str) -> Callable[[Tensor], Tensor]:
        """The same as a function of the frames alone."""
        return partial(self.__call__, shape=shape, name=name)
