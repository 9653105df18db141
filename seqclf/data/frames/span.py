"""A clip inside a video, in frames or in seconds, as a source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.frames.source import Source
from seqclf.data.frames.times import FrameTimes, frame_times

Unit = Literal["frames", "seconds"]
ROUNDING = 0.001  # seconds; annotation tools round to milliseconds
CLOSE = 1e-6  # seconds; tolerance for rounding of floats


class VideoSpan(Source):
    """The frames of a video from ``start`` up to, but not including, ``end``, as a source.

    Args:
        source: the video.
        start: the number of the first frame in the file, or seconds of player time.
        end: the number after the last frame, or seconds.
        unit: "frames" or "seconds". In seconds, the span contains the frames whose middle is inside.
        past_end: how far the span may extend past the end of the video; it is then cut there. None
            allows one frame, or ``step`` if that is longer.
        step: the resolution of the times.

    Raises:
        SeqclfError: on first use: the video can't be read; the span contains no frame, or extends too far past the end;
            the unit is seconds and the frame rate is unknown.
    """

    def __init__(
        self, source: Source, start: float, end: float, unit: Unit, past_end: float | None = None, step: float = 0.0
    ) -> None:
        check_past_end(past_end)
        self.source, self.start, self.end, self.unit = source, start, end, unit
        self.past_end, self.step = past_end, step
        self._range: range | None = None
        self._clipped = False

    @property
    def path(self) -> str:
        """The video."""
        return self.source.path

    @property
    def kind(self) -> Any:
        """The kind of file of the video."""
        return getattr(self.source, "kind", None)

    def reader(self) -> Callable[..., Source]:
        """A function ``reader(path)`` that opens another whole video in the same way."""
        reader: Callable[..., Source] = self.source.reader()  # type: ignore[attr-defined]
        return reader

    def __len__(self) -> int:
        return len(self.places())

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """The shape of a frame."""
        return self.source.frame_shape

    @property
    def seconds(self) -> Tensor | None:
        """``(T,)`` float64, the time of each frame in the video; None if unknown."""
        seconds: Tensor | None = getattr(self.source, "seconds", None)
        frames = self.places()
        return None if seconds is None else seconds[frames.start : frames.stop]

    def read(self, numbers: Sequence[int]) -> Tensor:
        """Reads frames by number, from 0 at the start of the span."""
        frames = self.places()
        for number in numbers:
            if not 0 <= number < len(frames):
                raise SeqclfError(f"{self.path}: has no frame {number} in a span of {len(frames)} frames")
        return self.source.read([frames[number] for number in numbers])

    @property
    def clipped(self) -> bool:
        """Whether the span is cut at the end of the video."""
        self.places()
        return self._clipped

    def places(self) -> range:
        """The places of the frames in the source of the video."""
        if self._range is None:
            times = frame_times(self.source)
            first, stop = frames_between(times, self.start, self.end, self.unit, self.path)
            end, period = (times.end_seconds, times.period) if self.unit == "seconds" else (times.end, 1)
            end, period = end or 0.0, period or 0.0
            allowed = max(period, self.step) if self.past_end is None else self.past_end
            span = span_text(self.start, self.end, self.unit)
            if first == stop and self.end <= end:
                raise SeqclfError(f"{self.path}: {span} contains no frame, it is shorter than the time of one")
            if first == stop or self.end > end + allowed + ROUNDING:
                raise SeqclfError(
                    f"{self.path}: {span} is not inside the video, which ends at {end:g} (past_end= allows more than "
                    f"{allowed:.3g})"
                )
            self._clipped = self.end > end + ROUNDING
            self._range = range(first, stop)
        return self._range


def frames_between(times: FrameTimes, start: float, end: float, unit: Unit, name: str) -> tuple[int, int]:
    """The first frame of a source in a span, and the frame after the last.

    Raises:
        SeqclfError: the unit is seconds and the frame rate is unknown.
    """
    positions = times.middles if unit == "seconds" else times.numbers
    if positions is None:
        raise SeqclfError(f"{name}: times are in seconds, but the frame rate is unknown: set fps=")
    first, stop = np.searchsorted(positions, [start - CLOSE, end - CLOSE]).tolist()
    return first, stop


def check_past_end(past_end: float | None) -> None:
    """Raises a ``SeqclfError`` for a negative ``past_end``."""
    if past_end is not None and not past_end >= 0:
        raise SeqclfError(f"past_end={past_end}: expected at least 0")


def resolution(times: Sequence[float], unit: Unit | None) -> float:
    """The resolution of times: one frame, or 1, 0.1, 0.01 or 0.001 seconds, the coarsest that all are multiples of."""
    if unit != "seconds" or not len(times):
        return 1.0 if unit == "frames" else 0.0
    values = np.asarray(times, np.float64)
    return next((10.0**-n for n in range(3) if np.allclose(values, values.round(n), rtol=0, atol=1e-6)), 0.001)


def span_text(start: float, end: float, unit: Unit) -> str:
    """Describes a span, such as "frames 3 to 7"."""
    return f"{start:g} to {end:g} s" if unit == "seconds" else f"frames {start:g} to {end - 1:g}"
