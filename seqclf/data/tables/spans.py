"""Start and end of segments in tables, and clips inside videos as sources."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.frames.source import Source
from seqclf.data.frames.times import FrameTimes, frame_times
from seqclf.data.tables.columns import END, END_FRAME, END_SECONDS, START, START_FRAME, START_SECONDS
from seqclf.data.tables.table import Record, Table, number_of_seconds, whole_number

Unit = Literal["frames", "seconds"]
ROUNDING = 0.001  # seconds; annotation tools round to milliseconds
CLOSE = 1e-6  # seconds; tolerance for rounding of floats


_BOTH = re.compile(r"[\[(]?\s*([\d.:]+)\s*[-,]\s*([\d.:]+)\s*[\])]?")


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
        self.source, self.start, self.end, self.unit, self.past_end, self.step = (
            source,
            start,
            end,
            unit,
            past_end,
            step,
        )
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
            if first == stop or self.end > end + allowed + ROUNDING:
                span = span_text(self.start, self.end, self.unit)
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


def span_columns(table: Table, unit: Unit | Literal["auto"]) -> tuple[int, int, Unit] | None:
    """Finds the columns of start and end in a table, and their unit; None if the table has none in this unit.

    Args:
        table: the table.
        unit: the unit. "auto" detects it by the header, or else by the times: fractions are seconds.

    Raises:
        SeqclfError: with "auto", all times are whole numbers, which may be frames or seconds.
    """
    frames = table.find("start", START, START_FRAME), table.find("end", END, END_FRAME)
    seconds = table.find("start", START, START_SECONDS), table.find("end", END, END_SECONDS)
    if unit == "auto":
        if None in frames or None in seconds or frames != seconds:
            unit = "seconds" if None in frames else "frames"
        elif all(whole_number(record.cells[k or 0]) is not None for record in table.records for k in frames):
            shown = " and ".join(repr(table.header[k or 0]) for k in frames)
            raise SeqclfError(
                f"{table.path}: {shown} are whole numbers, which may be frames or seconds: set unit='frames' or "
                "unit='seconds'"
            )
        else:
            unit = "seconds"
    start, end = frames if unit == "frames" else seconds
    return None if start is None or end is None else (start, end, unit)


def read_span(
    record: Record, start: str, end: str, unit: Unit, delimiter: str, inclusive: bool = False
) -> tuple[float, float]:
    """Parses start and end of a row.

    Args:
        record: the row, for errors.
        start, end: the texts; equal ones may hold both, as in ``[1.5, 3]`` or ``31-150``.
        unit: their unit.
        delimiter: the delimiter of the table. Times may have a decimal comma; without semicolons as delimiters, 1,500
            is refused, because it may be 1500.
        inclusive: whether the end is the last frame.

    Raises:
        SeqclfError: one is not a number of at least 0, or the end is not after the start.
    """
    both = _BOTH.fullmatch(start) if start == end else None
    if both is not None:
        start, end = both[1], both[2]
    bounds: list[float] = []
    for name, text in (("start", start), ("end", end)):
        thousands = delimiter != ";" and re.fullmatch(r"[1-9]\d{0,2}(,\d{3})+", text)  # 1,500 may be 1.5 or 1500
        number: float | None = whole_number(text) if unit == "frames" else number_of_seconds(text, not thousands)
        if number is None or number < 0:
            kind = "a frame number" if unit == "frames" else "a number of seconds, mm:ss or hh:mm:ss"
            timed = unit == "frames" and number_of_seconds(text, True) is not None
            hint = " (for times, set unit='seconds')" if timed else ""
            hint = " (write a decimal point: the comma may separate thousands)" if thousands else hint
            raise SeqclfError(f"{record.where}: {name} is {text!r}, expected {kind} of at least 0{hint}")
        bounds.append(number)
    if bounds[1] + inclusive <= bounds[0]:
        hint = " (if the end is the last frame, set inclusive=True)" if unit == "frames" else " (give it a duration)"
        hint = hint if start == end else ""
        raise SeqclfError(f"{record.where}: ends at {end}, not after its start at {start}{hint}")
    return bounds[0], bounds[1] + inclusive


def check_inclusive(inclusive: bool | None, unit: str) -> None:
    """Raises a ``SeqclfError`` for inclusive ends in seconds."""
    if inclusive and unit == "seconds":
        raise SeqclfError("inclusive=True is for frames; in seconds a segment ends where the next begins")


def check_past_end(past_end: float | None) -> None:
    """Raises a ``SeqclfError`` for a negative ``past_end``."""
    if past_end is not None and not past_end >= 0:
        raise SeqclfError(f"past_end={past_end}: expected at least 0")


def expect_ends(videos: Iterable[list[tuple[float, float, int, str]]]) -> None:
    """Raises a ``SeqclfError`` if ends in frames seem to be inclusive, such as 30 before a start of 31.

    Args:
        videos: start, end, line and location of the spans of each video.
    """
    pairs = [pair for spans in videos for pair in pairwise(sorted(spans))]
    after = [(one, other) for one, other in pairs if other[0] == one[1] + 1]
    if len(after) > 1 and 2 * len(after) > len(pairs) and not any(one[1] == other[0] for one, other in pairs):
        (_, end, line, _), (start, _, _, where) = after[0]
        raise SeqclfError(
            f"{where}: starts at {start:g}, and line {line} ends at {end:g}: set inclusive=True if this is its last "
            "frame, or inclusive=False"
        )


def resolution(times: Sequence[float], unit: Unit | None) -> float:
    """The resolution of times: one frame, or 1, 0.1, 0.01 or 0.001 seconds, the coarsest that all are multiples of."""
    if unit != "seconds" or not len(times):
        return 1.0 if unit == "frames" else 0.0
    values = np.asarray(times, np.float64)
    return next((10.0**-n for n in range(3) if np.allclose(values, values.round(n), rtol=0, atol=1e-6)), 0.001)


def span_text(start: float, end: float, unit: Unit) -> str:
    """Describes a span, such as "frames 3 to 7"."""
    return f"{start:g} to {end:g} s" if unit == "seconds" else f"frames {start:g} to {end - 1:g}"
