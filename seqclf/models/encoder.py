"""Frame encoders: modules from frames ``(M, *frame_shape)`` to features ``(M, D)``; they know nothing of time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn


class Flatten(nn.Module):
    """A frame's own values are its features. ``frame_shape`` is ``(D,)`` or ``(C, H, W)``, () for any."""

    def __init__(self, frame_shape: Sequence[int] = ()) -> None:
        super().__init__()
        self.out_features = prod(frame_shape) if frame_shape else None

    def forward(self, frames: Tensor) -> Tensor:
        return frames.flatten(1)


class Chain(nn.Sequential):
    """Modules one after the other: an encoder that a config can spell out.

    Args:
        frame_shape: not looked at; the first part must take frames ``(M, *frame_shape)``, and the last give ``(M, D)``.
        parts: by name, what is called without arguments for each module, such as
            ``{"conv1": partial(nn.Conv2d, 3, 96, 7, stride=2), "relu1": nn.ReLU, "flat": nn.Flatten}``.
    """

    def __init__(self, frame_shape: Sequence[int], parts: Mapping[str, Callable[[], nn.Module]]) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part())


class ChannelScale(nn.Module):
    """A factor, and perhaps an offset, for each channel of ``(M, C, ...)``: what follows a norm without them."""

    def __init__(self, channels: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1,) + (1,) * (x.dim() - 2)
        y = x * self.weight.view(shape)
        return y if self.bias is None else y + self.bias.view(shape)
