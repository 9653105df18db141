"""Frame encoders: modules from frames ``(M, *frame_shape)`` to features ``(M, D)``, each frame on its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn


class Flatten(nn.Module):
    """Uses the values of a frame as its features.

    Args:
        frame_shape: ``(D,)`` or ``(C, H, W)``, to declare ``out_features``; () if unknown.
    """

    def __init__(self, frame_shape: Sequence[int] = ()) -> None:
        super().__init__()
        self.out_features = prod(frame_shape) if frame_shape else None

    def forward(self, frames: Tensor) -> Tensor:
        return frames.flatten(1)


class Chain(nn.Sequential):
    """A sequence of named modules, as an encoder that a config can spell out.

    Args:
        frame_shape: the shape of one frame; unused, as the parts fix their own sizes.
        parts: functions without arguments that build the modules, by name, such as
            ``{"conv1": partial(nn.Conv2d, 3, 96, 7, stride=2), "relu1": nn.ReLU, "flat": nn.Flatten}``. The first takes
            frames ``(M, *frame_shape)``, the last returns features ``(M, D)``.
    """

    def __init__(self, frame_shape: Sequence[int], parts: Mapping[str, Callable[[], nn.Module]]) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part())


class ChannelScale(nn.Module):
    """Multiplies each channel of ``(M, C, ...)`` by a weight and adds a bias, as after a norm without its own.

    Args:
        channels: C.
        bias: whether to add a bias.
    """

    def __init__(self, channels: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1,) + (1,) * (x.dim() - 2)
        y = x * self.weight.view(shape)
        return y if self.bias is None else y + self.bias.view(shape)
