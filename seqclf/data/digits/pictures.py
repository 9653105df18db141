"""The pictures of the moving digits: a digit that moves, turns and grows in front of a moving texture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from seqclf.batch import SeqclfError

BACKGROUND = 10
"""The class of frames without a digit. The class of a digit is its value."""
SIZE = 64


@dataclass
class Segment:
    """Frames ``start`` to ``end - 1`` of a video, with one class: a digit or ``BACKGROUND``."""

    start: int
    end: int
    label: int


def draw_video(
    images: Tensor, labels: Tensor, task: str, frames: tuple[int, int], generator: torch.Generator, digit: int
) -> tuple[Tensor, list[Segment]]:
    """Draws one video.

    Args:
        images: ``(N, 28, 28)`` uint8, white digits on black, centred in 20x20 pixels.
        labels: ``(N,)`` int64, their classes.
        task: "clip" shows ``digit`` in all frames; "frames" shows it first, or second after background.
        frames: the smallest and the largest number of frames.
        generator: the source of all randomness.
        digit: the first digit.

    Returns:
        the frames ``(T, 3, 64, 64)`` uint8 RGB, and the segments, which cover all frames in order.

    Raises:
        SeqclfError: no image shows a digit that is needed.
    """
    T = int(_between(*frames, generator))
    segments = [Segment(0, T, digit)] if task == "clip" else _plan(T, digit, generator)
    video = _texture(T, generator)
    for segment in segments:
        if segment.label != BACKGROUND:
            own = (labels == segment.label).nonzero()[:, 0]
            if not len(own):
                raise SeqclfError(f"moving digits: no image shows the digit {segment.label}")
            image = images[own[int(_between(0, len(own) - 1, generator))]]
            shown = video[segment.start : segment.end]
            alpha = _cover(image, len(shown), generator)
            shown += alpha * (_colour(generator) - shown)
    return video.round_().clamp_(0, 255).to(torch.uint8), segments


def _plan(T: int, digit: int, generator: torch.Generator) -> list[Segment]:
    """Segments: digits of 12 to 24 frames, mostly followed by 6 to 14 frames of background, no class twice in a row."""
    segments: list[Segment] = []
    end = 0
    label = BACKGROUND if _uniform(0, 1, generator) < 0.5 else digit
    while end < T:
        start = end
        end = start + int(_between(6, 14, generator) if label == BACKGROUND else _between(12, 24, generator))
        if T - end < 6:
            end = T
        segments.append(Segment(start, end, label))
        if label == BACKGROUND:  # the digit before it may follow again
            label = int(_between(0, 9, generator)) if len(segments) > 1 else digit
        else:
            following = (label + int(_between(1, 9, generator))) % 10
            label = BACKGROUND if _uniform(0, 1, generator) < 0.7 else following
    return segments


def _texture(T: int, generator: torch.Generator) -> Tensor:
    """A window that moves over a dark coloured texture, with noise in every frame: ``(T, 3, 64, 64)`` float."""
    coarse = 60 + 20 * torch.randn(1, 3, 12, 12, generator=generator)
    texture = F.interpolate(coarse, size=(2 * SIZE, 2 * SIZE), mode="bicubic", align_corners=False).clamp(0, 120)[0]
    windows = texture.unfold(1, SIZE, 1).unfold(2, SIZE, 1)  # (3, 65, 65, 64, 64), a view
    down, right = (_bounce(T, 0, SIZE, 1.5, generator).long() for _ in range(2))
    return windows[:, down, right].transpose(0, 1) + 8 * torch.randn(T, 1, SIZE, SIZE, generator=generator)


def _cover(image: Tensor, T: int, generator: torch.Generator) -> Tensor:
    """How much of each pixel the moving digit covers: ``(T, 1, 64, 64)`` from 0 to 1."""
    time = torch.arange(T)
    turn = _wave(time, generator) * 0.35  # at most 20 degrees, so that 6 and 9 stay distinct
    scale = _uniform(1.0, 1.25, generator) * (1 + 0.12 * _wave(time, generator))  # the ink is 18 to 28 pixels high
    x, y = (_bounce(T, 14, SIZE - 14, 2.0, generator) for _ in range(2))
    # from pixels of the frame to coordinates of the digit, whose 28x28 image spans -1 to 1
    columns, rows = torch.meshgrid(torch.arange(SIZE) + 0.5, torch.arange(SIZE) + 0.5, indexing="xy")
    dx, dy = ((grid - at[:, None, None]) / (14 * scale[:, None, None]) for grid, at in ((columns, x), (rows, y)))
    cos, sin = turn.cos()[:, None, None], turn.sin()[:, None, None]
    own = torch.stack([cos * dx + sin * dy, cos * dy - sin * dx], dim=-1)
    ink = (image.float() / 255).expand(T, 1, -1, -1)
    alpha = F.grid_sample(ink, own, mode="bilinear", padding_mode="zeros", align_corners=False)
    start = int(_between(4, 12, generator))
    while start < T:
        end = start + int(_between(3, 8, generator))
        direction = _uniform(0, 2 * torch.pi, generator)
        cut = _quantile(ink[0, 0], direction, _uniform(0.4, 0.6, generator))
        alpha[start:end, 0] *= ((_side(own[start:end], direction) - cut) * 14 + 0.5).clamp(0, 1)
        start = end + int(_between(6, 16, generator))
    return alpha


def _side(own: Tensor, direction: Tensor) -> Tensor:
    """The coordinates of points ``(..., 2)`` along a direction, given as an angle."""
    return own[..., 0] * direction.cos() + own[..., 1] * direction.sin()


def _quantile(ink: Tensor, direction: Tensor, part: Tensor) -> Tensor:
    """The coordinate along a direction that has this part of the ink ``(28, 28)`` below it."""
    at = (torch.arange(28) + 0.5) / 14 - 1
    columns, rows = torch.meshgrid(at, at, indexing="xy")
    side, order = _side(torch.stack([columns, rows], dim=-1), direction).flatten().sort()
    passed = ink.flatten()[order].cumsum(0)
    return side[torch.searchsorted(passed, part * passed[-1])]


def _colour(generator: torch.Generator) -> Tensor:
    """A light colour ``(3, 1, 1)``: one channel at 255, none below 155."""
    colour = 155 + 100 * torch.rand(3, generator=generator)
    colour[int(_between(0, 2, generator))] = 255
    return colour[:, None, None]


def _bounce(T: int, low: float, high: float, fastest: float, generator: torch.Generator) -> Tensor:
    """A coordinate ``(T,)`` that moves by up to ``fastest`` per frame, back and forth between ``low`` and ``high``."""
    speed = _uniform(fastest / 4, fastest, generator) * (1 if _uniform(0, 1, generator) < 0.5 else -1)
    way = _uniform(0, 2 * (high - low), generator) + speed * torch.arange(T)
    return high - (way % (2 * (high - low)) - (high - low)).abs()


def _wave(time: Tensor, generator: torch.Generator) -> Tensor:
    """A sine ``(T,)`` from -1 to 1 with a period of 30 to 80 frames and a random phase."""
    return torch.sin(2 * torch.pi * (time / _uniform(30, 80, generator) + _uniform(0, 1, generator)))


def _uniform(low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand((), generator=generator)


def _between(low: int, high: int, generator: torch.Generator) -> Tensor:
    """An integer from ``low`` to ``high``, both included."""
    return torch.randint(low, high + 1, (), generator=generator)
