"""Which frames of a video make a clip: pure functions of its length, and of a generator where they are random."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch

from seqclf.batch import SeqclfError

Sampling = Callable[[int, torch.Generator | None], list[list[int]]]
"""``sampling(length, generator)``: the clips of a video of ``length`` frames, each as a list of frame numbers from 0.

With a generator, in training, it returns one clip, drawn at random. Without one, in evaluation, it returns all clips
that the video is measured by, which are always the same. A video shorter than a clip gives a shorter clip. Defaults
are those of LRCN: 16 frames, in evaluation every 8.
"""


def window(length: int, generator: torch.Generator | None, frames: int = 16, step: int = 1) -> list[list[int]]:
    """One window: at a random place in training, in the middle in evaluation (LRCN).

    Args:
        length: Frames of the video.
        generator: Draws the place; None for the middle.
        frames: Frames of the clip.
        step: Distance from one frame of the clip to the next.

    Returns:
        One clip of up to ``frames`` frame numbers.

    Raises:
        SeqclfError: An argument is below 1.
    """
    _check(length, frames, step)
    most = min(frames, (length - 1) // step + 1)
    room = length - (most - 1) * step
    start = (room - 1) // 2 if generator is None else int(torch.randint(room, (1,), generator=generator))
    return [list(range(start, start + most * step, step))[:most]]


def uniform(length: int, generator: torch.Generator | None, frames: int = 16) -> list[list[int]]:
    """One frame from each of ``frames`` equal parts of the video: a random one, in evaluation the middle one (TSN).

    Args:
        length: Frames of the video.
        generator: Draws the frames; None for the middle ones.
        frames: Frames of the clip.

    Returns:
        One clip of up to ``frames`` frame numbers.

    Raises:
        SeqclfError: An argument is below 1.
    """
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
    """Windows at regular distances, the last one ending at the last frame; in training a random one of them.

    Args:
        length: Frames of the video.
        generator: Draws the window; None for all of them.
        frames: Frames of a window.
        stride: Distance from the start of one window to the next, in frames of the video.
        step: Distance from one frame of a window to the next.

    Returns:
        The clips, each of up to ``frames`` frame numbers; with a generator one clip.

    Raises:
        SeqclfError: An argument is below 1.
    """
    _check(length, frames, step)
    if stride < 1:
        raise SeqclfError(f"sampling: stride={stride}, expected at least 1")
    most = min(frames, (length - 1) // step + 1)
    last = length - 1 - (most - 1) * step
    starts = [*range(0, last, stride), last]
    if generator is not None:
        starts = [starts[int(torch.randint(len(starts), (1,), generator=generator))]]
    return [[start + i * step for i in range(most)] for start in starts]


def whole(length: int, generator: torch.Generator | None, step: int = 1) -> list[list[int]]:
    """The whole video as one clip.

    Args:
        length: Frames of the video.
        generator: Not used; the clip is the same in training.
        step: Take every ``step``-th frame.

    Returns:
        One clip.

    Raises:
        SeqclfError: An argument is below 1.
    """
    _check(length, 1, step)
    return [list(range(0, length, step))]


def _check(length: int, frames: int, step: int) -> None:
    if length < 1:
        raise SeqclfError("a video of no frames has no clip")
    if frames < 1 or step < 1:
        raise SeqclfError(f"sampling: frames={frames}, step={step}, expected at least 1 of each")


CLIP = partial(window, frames=16)
"""The default clip: 16 frames, as in LRCN."""
