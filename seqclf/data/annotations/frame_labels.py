"""Labels of a video's frames from its segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError
from seqclf.data.annotations.segments import Segment, Segments, name_of
from seqclf.data.frames.span import ROUNDING, Unit, frames_between, span_text
from seqclf.data.frames.times import FrameTimes


@dataclass
class Annotation:
    """The labels of a video's frames.

    Attributes:
        labels: ``(T,)`` int64; ``Segments.elsewhere`` outside all segments. With several labels per frame ``(T, K)`` of
            0, 1 and ``IGNORE``; 0 outside all segments.
        clipped: how many segments were cut off at the end of the video.
        trimmed: how many segments were cut off where the next one starts.
        empty: how many segments contain no frame.
    """

    labels: Tensor
    clipped: int = 0
    trimmed: int = 0
    empty: int = 0


def annotate(
    segments: Segments,
    name: str,
    times: FrameTimes,
    past_end: float | None = None,
    rate: float | None = None,
    first_frame: int = 0,
) -> Annotation:
    """Labels the frames of a video.

    A frame belongs to the segment that contains its number in the file, or in seconds the middle of its display time.
    Dropping or resampling frames therefore never shifts the labels of the others.

    Args:
        segments: the table.
        name: the path or name of the video; see ``name_of``.
        times: the numbers and times of its T frames in the file.
        past_end: how far a segment may extend past the end of the video or into the next segment, in the table's unit.
            None for one frame, or the resolution of its times if that is coarser. The excess is cut off and counted.
        rate: the frame rate of the table's frame numbers, if it is not that of the file.
        first_frame: the number of the first frame of the file in the table.

    Raises:
        SeqclfError: the video is not in the table; a segment extends too far past the end; two segments of different
            classes overlap by more than ``past_end``; no segment contains a frame; times are in seconds and the frame
            rate is unknown. The message names the line.
    """
    name = name_of(segments, name)
    if name in segments.bad:
        raise SeqclfError(segments.bad[name])
    scale = _Scale.of(segments, name, times, past_end, rate, first_frame)
    T = len(times.numbers)
    shape = (T, len(segments.classes)) if segments.multi_label else (T,)
    out = Annotation(torch.full(shape, 0 if segments.multi_label else segments.elsewhere))
    owner = torch.full((T,), -1)  # the last segment that labelled a frame
    ordered = sorted(segments.videos[name])
    for k, segment in enumerate(ordered):
        start, end = scale.bounds(segment)
        _check_end(segments, name, segment, scale)
        out.clipped += end > scale.end + scale.rounding
        first, stop = frames_between(times, start, end, scale.unit, name)
        out.empty += first == stop
        if not segments.multi_label:
            clash = (owner[first:stop] >= 0) & (out.labels[first:stop] != segment.label)
            for other in (ordered[i] for i in owner[first:stop][clash].unique().tolist()):
                if segments.by_frame or not scale.trims(other, segment):
                    at = int(times.numbers[first + int(clash.nonzero()[0])])
                    raise _overlap(segments, name, segment, other, at)
                out.trimmed += 1
            out.labels[first:stop] = segment.label
        elif segment.label >= 0:
            out.labels[first:stop, segment.label] = segment.value
        owner[first:stop] = k
    if segments.by_frame:
        _label_shown(out, owner, ordered, scale, times)
    if ordered and out.empty == len(ordered):
        span = f"frames {int(times.numbers[0])} to {times.end - 1}"
        hint = "" if scale.unit == "seconds" else "; frame_numbers='order' numbers the frames of a folder from 0"
        raise SeqclfError(f"{segments.where(name, ordered[0])}: no segment of {name} contains any of {span}{hint}")
    return out


def _label_shown(out: Annotation, owner: Tensor, rows: Sequence[Segment], scale: _Scale, times: FrameTimes) -> None:
    """Labels the remaining frames by the first row within their display time, or as unknown.

    If the table and the video have different rates, a frame may have no row at the middle of its display time: for
    example, if a table at 25 rows per second has every 25th row, and the video has one frame per second.
    """
    period, taken = times.period or 0.0, dict[int, float]()
    begins = np.empty(0) if scale.unit == "frames" or times.middles is None else times.middles - period / 2
    for k, row in enumerate(rows if len(begins) else ()):
        start = scale.bounds(row)[0]
        frame = int(np.searchsorted(begins, start + ROUNDING, "right")) - 1
        if frame < 0 or start >= begins[frame] + period or (owner[frame] >= 0 and frame not in taken):
            continue
        if taken.setdefault(frame, start) == start:
            owner[frame] = k
            out.empty -= 1
            if out.labels.dim() == 1:
                out.labels[frame] = row.label
            elif row.label >= 0:
                out.labels[frame, row.label] = row.value
    if out.labels.dim() == 2:
        out.labels[owner < 0] = IGNORE


@dataclass(frozen=True)
class _Scale:
    """How the numbers of a table map to a video: its unit and end, and what is tolerated and rounded."""

    unit: Unit
    end: float
    tolerance: float
    rounding: float
    rate: float
    first_frame: int

    @staticmethod
    def of(
        segments: Segments, name: str, times: FrameTimes, past_end: float | None, rate: float | None, first_frame: int
    ) -> _Scale:
        """The scale of a video. Arguments and errors as in ``annotate``."""
        if rate is not None and segments.unit == "seconds":
            raise SeqclfError(f"annotation_fps={rate:g} is for frame numbers, but unit is seconds")
        unit: Unit = "frames" if segments.unit == "frames" and rate is None else "seconds"
        if unit == "frames":
            return _Scale(unit, float(times.end), 1.0 if past_end is None else past_end, 0.0, 1.0, first_frame)
        if times.end_seconds is None or times.period is None:
            what = "times are in seconds" if rate is None else f"annotation_fps={rate:g} is set"
            raise SeqclfError(f"{segments.path}: {what}, but the frame rate of {name} is unknown: set fps=")
        step = segments.step / (rate or 1.0)
        default = max(times.period, step)
        allowed = (default if past_end is None else past_end / (rate or 1.0)) + ROUNDING
        return _Scale(unit, times.end_seconds, allowed, ROUNDING, rate or 1.0, first_frame)

    def bounds(self, segment: Segment) -> tuple[float, float]:
        """Start and end of a segment in frames of the file, or in seconds."""
        return (segment.start - self.first_frame) / self.rate, (segment.end - self.first_frame) / self.rate

    def trims(self, before: Segment, segment: Segment) -> bool:
        """Whether a segment overlaps the end of the one before so little that this is cut off."""
        nested = before.start == segment.start or before.end >= segment.end
        return not nested and self.bounds(before)[1] - self.bounds(segment)[0] <= self.tolerance


def _overlap(segments: Segments, name: str, segment: Segment, before: Segment, frame: int) -> SeqclfError:
    """The error for two segments of different classes."""
    return SeqclfError(
        f"{segments.where(name, segment)}: frame {frame} of {name} is {segments.classes[segment.label]}, but line "
        f"{before.line} says {segments.classes[before.label]} (multi_label=True keeps both)"
    )


def _check_end(segments: Segments, name: str, segment: Segment, scale: _Scale) -> None:
    """Raises a ``SeqclfError`` if a segment is not inside the video."""
    span, (start, end) = span_text(segment.start, segment.end, segments.unit), scale.bounds(segment)
    where = f"{segments.where(name, segment)}: segment {span}"
    if start < 0:
        raise SeqclfError(f"{where} starts before frame {scale.first_frame}, the first of {name} (first_frame=)")
    if (start < scale.end or segments.by_frame) and end <= scale.end + scale.tolerance:
        return
    last = f"{scale.end:g} s" if scale.unit == "seconds" else f"frame {scale.end - 1 + scale.first_frame:g}"
    way = ", or annotation_fps= for numbers at another rate (1000: milliseconds)" * (segments.unit == "frames")
    raise SeqclfError(
        f"{where} ends {end - scale.end:.6g} {scale.unit} after the end of {name} at {last}; to allow more than "
        f"{scale.tolerance:.3g}, set past_end={way}"
    )
