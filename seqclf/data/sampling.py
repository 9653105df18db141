"""Sampling functions: which frames of a video form clips. Pure functions of its length and a random generator."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from operator import index

import torch

from seqclf.batch import SeqclfError

Sampling = Callable[[int, torch.Generator | None], list[list[int]]]
"""``sampling(length, generator)`` returns the clips of a video of ``length`` frames, each a list of frame numbers.

With a generator (training), it returns one random clip. With None (evaluation), it returns all clips to evaluate,
which are deterministic. A video shorter than a clip gives a shorter clip. Defaults are those of LRCN: 16 frames, and
in evaluation a stride of 8.
"""


def sample_clips(sampling: Sampling, length: int, generator: torch.Generator | None, name: str) -> list[list[int]]:
    """The clips that a sampling function takes from a video.

    Args:
        sampling: the function.
        length: the number of frames of the video.
        generator: passed to the function.
        name: the name of the video, for errors.

    Raises:
        SeqclfError: the sampling does not return lists of whole numbers, or no clip, an empty clip or a number that is
            no frame.
    """
    found = sampling(length, generator)
    try:
        clips = [list(map(index, clip)) for clip in found]  # of NumPy and PyTorch too
    except TypeError:
        raise SeqclfError(
            f"{name}: the sampling returns {str(found)[:80]}: expected a list of clips, each a list of frame numbers"
        ) from None
    if not clips or not all(clips):
        raise SeqclfError(f"{name}: the sampling returns {'an empty clip' if clips else 'no clip'} of {length} frames")
    if any(min(clip) < 0 or max(clip) >= length for clip in clips):
        wrong = next(n for clip in clips for n in clip if not 0 <= n < length)
        raise SeqclfError(f"{name}: the sampling returns frame {wrong}, but there are frames 0 to {length - 1}")
    return clips


def window(length: int, generator: torch.Generator | None, frames: int = 16, step: int = 1) -> list[list[int]]:
    """One window, at a random position in training and in the middle in evaluation (LRCN).

    Args:
        length: the number of frames of the video.
        generator: the generator that draws the position; None for the middle.
        frames: the number of frames of the clip.
        step: the distance between consecutive frames of the clip.

    Returns:
        one clip of up to ``frames`` frame numbers.

    Raises:
        SeqclfError: an argument is below 1.
    """
    _check(length, frames, step)
    most = min(frames, (length - 1) // step + 1)
    room = length - (most - 1) * step
    start = (room - 1) // 2 if generator is None else int(torch.randint(room, (1,), generator=generator))
    return [list(range(start, start + most * step, step))[:most]]


def uniform(length: int, generator: torch.Generator | None, frames: int = 16) -> list[list[int]]:
    """One frame from each of ``frames`` equal parts of the video, random or in evaluation the middle one (TSN).

    Args:
        length: the number of frames of the video.
        generator: the generator that draws the frames; None for the middle frames.
        frames: the number of frames of the clip.

    Returns:
        one clip of up to ``frames`` frame numbers.

    Raises:
        SeqclfError: an argument is below 1.
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
    """Windows at a regular stride, the last one ending at the last frame; in training, a random one of them.

    Args:
        length: the number of frames of the video.
        generator: the generator that draws one window; None for all windows.
        frames: the number of frames of a window.
        stride: the distance between the starts of consecutive windows, in frames of the video.
        step: the distance between consecutive frames of a window.

    Returns:
        the clips, each of up to ``frames`` frame numbers; one clip with a generator.

    Raises:
        SeqclfError: an argument is below 1.
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
        length: the number of frames of the video.
        generator: unused; the clip is the same in training.
        step: take every ``step``-th frame.

    Returns:
        one clip.

    Raises:
        SeqclfError: an argument is below 1.
    """
    _check(length, 1, step)
    return [list(range(0, length, step))]


def reads_whole(sampling: Sampling) -> bool:
    """Whether a sampling function is ``whole``, with any step."""
    return getattr(sampling, "func", sampling) is whole


def _check(length: int, frames: int, step: int) -> None:
    if length < 1:
        raise SeqclfError(f"sampling: the video has {length} frames, expected at least 1")
    if frames < 1 or step < 1:
        raise SeqclfError(f"sampling: frames={frames}, step={step}, expected at least 1 of each")


CLIP = partial(window, frames=16)
"""The default clip: 16 frames, as in LRCN."""
