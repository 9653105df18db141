"""Labels of a video's frames from its segments."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.frame_times import FrameTimes
from seqclf.data.segments import Segment, Segments, name_of
from seqclf.data.spans import ROUNDING, frames_between, span_text


@dataclass
class Annotation:
    """The labels of a video's frames.

    Attributes:
        labels: ``(T,)`` int64; ``Segments.elsewhere`` outside all segments.
        clipped: How many segments were cut off at the end of the video.
        trimmed: How many segments were cut off where the next one starts.
        empty: How many segments contain no frame.
    """

    labels: Tensor
    clipped: int = 0
    trimmed: int = 0
    empty: int = 0


def annotate(segments: Segments, name: str, times: FrameTimes, past_end: float | None = None) -> Annotation:
    """Label the frames of a video.

    With unit "frames", a frame belongs to the segment that contains its number in the file. With unit "seconds", it
    belongs to the segment that contains the middle of its display time. Dropping or resampling frames therefore never
    shifts the labels of the others.

    Args:
        segments: The table.
        name: The path or name of the video; see ``name_of``.
        times: The numbers and times of its T frames in the file.
        past_end: How far a segment may extend past the end of the video or into the next segment, in the unit of the
            table. None allows one frame of the file. The excess is cut off and counted.

    Raises:
        SeqclfError: The video is not in the table; a segment extends too far past the end; two segments of different
            classes overlap by more than ``past_end``; no segment contains a frame; times are in seconds and the frame
            rate is unknown. The message names the line.
    """
    name = name_of(segments, name)
    if name in segments.bad:
        raise SeqclfError(segments.bad[name])
    in_seconds = segments.unit == "seconds"
    if in_seconds and times.middles is None:
        raise SeqclfError(f"{segments.path}: times are in seconds, but the frame rate of {name} is unknown: set fps=")
    end, period = (times.end_seconds, times.period) if in_seconds else (float(times.end), 1.0)
    assert end is not None and period is not None
    tolerance = (period if past_end is None else past_end) + (ROUNDING if in_seconds else 0)
    T = len(times.numbers)
    out = Annotation(torch.full((T,), segments.elsewhere))
    owner = torch.full((T,), -1)  # which segment labelled a frame
    ordered = sorted(segments.videos[name])
    for k, segment in enumerate(ordered):
        _check_end(segments, name, segment, times, end, tolerance)
        out.clipped += segment.end > end + (ROUNDING if in_seconds else 0)
        first, stop = frames_between(times, segment.start, segment.end, segments.unit, name)
        out.empty += first == stop
        clash = (owner[first:stop] >= 0) & (out.labels[first:stop] != segment.label)
        for before in (ordered[i] for i in owner[first:stop][clash].unique().tolist()):
            nested = before.start == segment.start or before.end >= segment.end
            if nested or before.end - segment.start > tolerance:
                at = int(times.numbers[first + int(clash.nonzero()[0])])
                raise SeqclfError(
                    f"{segments.path}, line {segment.line}: frame {at} of {name} is {segments.classes[segment.label]}, "
                    f"but line {before.line} says {segments.classes[before.label]}"
                )
            out.trimmed += 1
        out.labels[first:stop], owner[first:stop] = segment.label, k
    if ordered and out.empty == len(ordered):
        span = f"frames {int(times.numbers[0])} to {times.end - 1}"
        hint = "" if in_seconds else "; frame_numbers='order' numbers the frames of a folder from 0"
        raise SeqclfError(f"{segments.path}, line {ordered[0].line}: no segment of {name} contains any of {span}{hint}")
    return out


def _check_end(
    segments: Segments, name: str, segment: Segment, times: FrameTimes, end: float, tolerance: float
) -> None:
    if segment.start < end and segment.end <= end + tolerance:
        return
    span = span_text(segment.start, segment.end, segments.unit)
    last = f"{end:g} s" if segments.unit == "seconds" else f"frame {times.end - 1}"
    raise SeqclfError(
        f"{segments.path}, line {segment.line}: segment {span} extends {segment.end - end:.6g} past the end of {name} "
        f"at {last}; to allow more than {tolerance:.3g}, set past_end="
    )
