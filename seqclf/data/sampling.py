"""Which frames of a video make a clip: pure functions of its length, and of a generator where they are random."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch

from seqclf.batch import SeqclfError

Sampling = Callable[[int, torch.Generator | None], list[list[int]]]
"""``sampling(length, generator)``: the clips of a video of so many frames, each as the numbers of its frames.

With a generator, in training, it gives one clip, drawn by it; without, in evaluation, all that the video is to be
measured by, the same ones always. No clip is longer than its video: a video shorter than a clip gives a shorter clip.
The defaults are what LRCN took: 16 frames, in evaluation every 8.
"""


def window(length: int, generator: torch.Generator | None, frames: int = 16, step: int = 1) -> list[list[int]]:
    """``frames`` frames, each ``step`` after the last, from a random place; in evaluation from the middle (LRCN)."""
    _check(length, frames, step)
    most = min(frames, (length - 1) // step + 1)
    room = length - (most - 1) * step
    start = (room - 1) // 2 if generator is None else int(torch.randint(room, (1,), generator=generator))
    return [list(range(start, start + most * step, step))[:most]]


def uniform(length: int, generator: torch.Generator | None, frames: int = 16) -> list[list[int]]:
    """``frames`` frames, one from each of as many equal parts: a random one, in evaluation the middle one (TSN)."""
    _check(length, frames, 1)
    n = min(frames, length)
    edges = [i * length // n for i in range(n + 1)]
    if generator is None:
        return [[(a + b - 1) // 2 for a, b in pairwise(edges)]]
    draws = torch.rand(n, generator=generator).tolist()
    return [[a + int(draw * (b - a)) for a, b, draw in zip(edges, edges[1:], draws, strict=False)]]


def dense(
    length: int, generator: torch.Generator | None, frames: int = 16, stride: int = 8, step: int = 1
) -> list[list[int]]:
    """Windows of ``frames`` frames every ``stride``, the last of them ending at the last frame; one of them at random.

    ``step`` is from frame to frame inside a window.
    """
    _check(length, frames, step)
    if stride < 1:
        raise SeqclfError(f"sampling dense: stride={stride}, expected at least 1")
    most = min(frames, (length - 1) // step + 1)
    last = length - 1 - (most - 1) * step
    starts = [*range(0, last, stride), last]
    if generator is not None:
        starts = [starts[int(torch.randint(len(starts), (1,), generator=generator))]]
    return [[start + i * step for i in range(most)] for start in starts]


def whole(length: int, generator: torch.Generator | None, step: int = 1) -> list[list[int]]:
    """Every ``step``-th frame of the video, in one clip."""
    _check(length, 1, step)
    return [list(range(0, length, step))]


def _check(length: int, frames: int, step: int) -> None:
    if length < 1:
        raise SeqclfError("a video of no frames has no clip")
    if frames < 1 or step < 1:
        raise SeqclfError(f"sampling: frames={frames}, step={step}, expected at least 1 of each")
