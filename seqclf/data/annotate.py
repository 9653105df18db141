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

    A frame is in a segment if its number in the file is (unit "frames"), or the middle of the time that the file
    shows it for (unit "seconds"). So frames that are left out, missing or resampled do not move the others.

    Args:
        segments: The table.
        name: The video, as ``name_of`` finds it.
        times: The place of its T frames in the file.
        past_end: How far a segment may reach past the end of the video, and over the start of the next segment, in the
            unit of the table; None: one frame of the file. The excess is cut off and counted.

    Raises:
        SeqclfError: The video is not in the table; a segment reaches too far past the end; two segments of different
            classes overlap by more; none of its segments contains a frame; times are in seconds, and the frame rate
            is not known. Names the line.
    """
    name = name_of(segments, name)
    if name in segments.bad:
        raise SeqclfError(segments.bad[name])
    in_seconds = segments.unit == "seconds"
    if in_seconds and times.middles is None:
        raise SeqclfError(f"{segments.path}: is in seconds, and the frame rate of {name} is not known; fps= gives it")
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
        hint = "" if in_seconds else "; frame_numbers='order' counts the frames of a folder from 0"
        raise SeqclfError(
            f"{segments.path}, line {ordered[0].line}: no segment of {name} contains one of its {span}{hint}"
        )
    return out


def _check_end(
    segments: Segments, name: str, segment: Segment, times: FrameTimes, end: float, tolerance: float
) -> None:
    if segment.start < end and segment.end <= end + tolerance:
        return
    span = span_text(segment.start, segment.end, segments.unit)
    size = f"{end:g} s long" if segments.unit == "seconds" else f"numbered up to frame {times.end - 1}"
    raise SeqclfError(
        f"{segments.path}, line {segment.line}: {span} reach {segment.end - end:.6g} past the end of {name}, which is "
        f"{size} (past_end= allows more than {tolerance:.3g})"
    )
