"""Conversion of raw frames (arrays, tensors, lists) to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import SeqclfError

Frames = Tensor | np.ndarray[Any, Any] | list[Any] | tuple[Any, ...]
"""Raw frames: an array, a tensor or a list of them; pictures are RGB with channels first."""


class FramesInMemory:
    """Frames ``(T, *frame_shape)`` in memory, as a ``Source``."""

    path = "the frames"

    def __init__(self, frames: Tensor) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        return tuple(self.frames.shape[1:])

    def read(self, numbers: Sequence[int]) -> Tensor:
        return self.frames[list(numbers)]


def to_tensor(frames: Frames) -> Tensor:
    """Converts frames to a uint8 or float tensor. Other integers from 0 to 255 become uint8, and float64 float32.

    Raises:
        SeqclfError: the frames are not numbers, out of range, or a list of frames of different shapes.
    """
    if isinstance(frames, list | tuple):
        if not frames:
            raise SeqclfError("there are no frames: the list is empty")
        frames = [to_tensor(frame) for frame in frames]
        if len({frame.shape for frame in frames}) > 1:
            raise SeqclfError("the frames of the list have different shapes: resize or crop them to one")
        return torch.stack(frames)
    if np.ma.is_masked(frames):
        raise SeqclfError("some frames are masked; fill them first (filled())")
    if hasattr(frames, "__array__") and not isinstance(frames, Tensor):  # NumPy and pandas
        # copies where strides are negative (BGR made RGB) or the array is read-only
        frames = np.require(frames, requirements=["C", "W"])
    try:
        tensor = torch.as_tensor(frames)
    except (TypeError, ValueError, RuntimeError) as error:
        raise SeqclfError(f"frames must be an array or a tensor of numbers ({error})") from None
    if tensor.is_floating_point():
        return tensor.float() if tensor.dtype == torch.float64 else tensor
    if tensor.dtype == torch.uint8:
        return tensor
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise SeqclfError(f"frames must be uint8 or float, not {str(tensor.dtype).removeprefix('torch.')}")
    wide = tensor.long()  # PyTorch can't compare every integer type
    if wide.numel() and not 0 <= int(wide.min()) <= int(wide.max()) <= 255:
        raise SeqclfError(
            f"integer frames must be from 0 to 255, these are from {int(wide.min())} to {int(wide.max())}"
        )
    return wide.to(torch.uint8)


def wrong_shape(given: tuple[int, ...], shape: tuple[int, ...], name: str) -> SeqclfError:
    """The error for frames of the shape ``given`` where the model takes ``shape``, with what to do about it."""
    hint = ""
    if len(shape) == 3 and len(given) == 3 and given[2] == shape[0]:
        hint = (
            ": channels come first, frames.transpose(0, 3, 1, 2) (and RGB: OpenCV's frames are BGR, "
            "frames[..., ::-1] before)"
        )
    elif len(shape) == 3 and len(given) == 3 and given[0] == shape[0]:
        hint = ": scale them (resize=, --resize) or take their center (crop=True, --crop)"
    elif len(given) == len(shape) - 1:
        hint = ": a clip is (T, ...), one frame is frame[None]"
    elif len(given) == len(shape) + 1:
        hint = ": pass one clip at a time (several with predictor.batch), and one frame to a stream"
    return SeqclfError(f"{name}: has frames {given}, but the model takes {shape}{hint}")
