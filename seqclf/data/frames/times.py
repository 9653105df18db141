"""The numbers and times of a source's frames in their file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from seqclf.data.frames.source import Source

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class FrameTimes:
    """The numbers and times of a source's T frames in their file.

    Annotations refer to the file, so they are looked up here at any frame rate. Times are in seconds of player time,
    from the beginning of the file, where sound may start before the first frame.

    Attributes:
        numbers: ``(T,)`` int64, the number of each frame in the file, in ascending order.
        end: the number after the last frame of the file.
        middles: ``(T,)`` float64, the middle of each frame's display time; None if the frame rate is unknown.
        end_seconds: the end of the last frame of the file; None if the frame rate is unknown.
        period: the mean display time of a frame of the file; None if the frame rate is unknown.
    """

    numbers: Ints
    end: int
    middles: Floats | None = None
    end_seconds: float | None = None
    period: float | None = None


def frame_times(source: Source, fps: float | None = None) -> FrameTimes:
    """The frame times of a source.

    Args:
        source: a video. Without a method ``frame_times``, its frames are numbered from 0.
        fps: the frame rate of a source that does not know it, such as a folder of pictures.
    """
    own = getattr(source, "frame_times", None)
    times: FrameTimes = FrameTimes(np.arange(len(source)), len(source)) if own is None else own()
    if times.middles is None and fps is not None:
        return at_rate(times.numbers, times.end, fps)
    return times


def at_rate(numbers: Ints, end: int, fps: float) -> FrameTimes:
    """Frame times at a constant rate. Frame 0 starts at 0 s, or frame 1 if there is no frame 0."""
    first = min(int(numbers[0]), 1)
    middles = ((numbers - first + 0.5) / fps).astype(np.float64)
    return FrameTimes(numbers, end, middles, float((end - first) / fps), 1 / fps)


def at_seconds(numbers: Ints, seconds: Floats) -> FrameTimes:
    """Frame times from timestamps.

    Each frame is displayed until the next one starts, and the last frame for the mean duration of the others. If a file
    has only one frame, its display time is unbounded.

    Args:
        numbers: ``(T,)``, the numbers of the source's frames.
        seconds: ``(N,)``, the timestamps of all N frames of the file.
    """
    if len(seconds) == 1:
        return FrameTimes(numbers, 1, seconds[numbers], np.inf, np.inf)
    period = float(seconds[-1] - seconds[0]) / (len(seconds) - 1)
    edges = np.append(seconds, seconds[-1] + period)
    middles: Floats = (edges[:-1] + edges[1:]) / 2
    return FrameTimes(numbers, len(seconds), middles[numbers], float(edges[-1]), period)
