"""Which frame of its file each frame of a source is, and when it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from seqclf.data.source import Source

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class FrameTimes:
    """The place of a source's T frames in their file.

    Annotations refer to the file, so they are looked up here, whatever rate the source is read at. Times are player
    time: seconds from the beginning of the file, where sound may start before the first frame.

    Attributes:
        numbers: ``(T,)`` int64, the number of each frame in the file, in ascending order.
        end: The number after the last frame of the file.
        middles: ``(T,)`` float64, the middle of the time that each of these frames of the file is shown for; None where
            the rate is not known.
        end_seconds: When the last frame of the file ends; None likewise.
        period: The mean time that a frame of the file is shown for; None likewise.
    """

    numbers: Ints
    end: int
    middles: Floats | None = None
    end_seconds: float | None = None
    period: float | None = None


def frame_times(source: Source, fps: float | None = None) -> FrameTimes:
    """The frame times of a source: its own, or else those of frames counted from 0.

    Args:
        source: A video; one with a method ``frame_times`` knows its own.
        fps: The frame rate of a file that does not say it, such as a folder of pictures.
    """
    own = getattr(source, "frame_times", None)
    times: FrameTimes = FrameTimes(np.arange(len(source)), len(source)) if own is None else own()
    if times.middles is None and fps is not None:
        return at_rate(times.numbers, times.end, fps)
    return times


def at_rate(numbers: Ints, end: int, fps: float) -> FrameTimes:
    """The times of frames at a constant rate. Number 0 is shown at 0 s, or number 1 where the numbers begin later."""
    first = min(int(numbers[0]), 1)
    middles = ((numbers - first + 0.5) / fps).astype(np.float64)
    return FrameTimes(numbers, end, middles, float((end - first) / fps), 1 / fps)


def at_seconds(numbers: Ints, seconds: Floats) -> FrameTimes:
    """The times of some frames of a file.

    A frame is shown until the next one; the last one of the file for the mean time of the others. The only frame of a
    file is shown for all time.

    Args:
        numbers: ``(T,)``, the number of each frame.
        seconds: ``(N,)``, when each of the file's N frames is shown.
    """
    if len(seconds) == 1:
        return FrameTimes(numbers, 1, seconds[numbers], np.inf, np.inf)
    period = float(seconds[-1] - seconds[0]) / (len(seconds) - 1)
    edges = np.append(seconds, seconds[-1] + period)
    middles: Floats = (edges[:-1] + edges[1:]) / 2
    return FrameTimes(numbers, len(seconds), middles[numbers], float(edges[-1]), period)
