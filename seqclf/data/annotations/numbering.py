"""How a table counts the frames of videos, as the table and the videos show."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from seqclf.batch import SeqclfError
from seqclf.data.annotations.segments import Segment, Segments, name_of
from seqclf.data.frames.folder import FrameFolder
from seqclf.data.frames.source import Source
from seqclf.data.frames.times import FrameTimes

OTHER_RATE = 1.5
"""If the ratio of frames to rows is above this, the annotation has another frame rate."""


class Opened(NamedTuple):
    """A video and the times of its frames, or why it can't be read."""

    name: str
    source: Source
    times: FrameTimes | SeqclfError


def _in_table(table: Segments, videos: Iterable[Opened]) -> Iterator[tuple[Opened, FrameTimes, list[Segment]]]:
    """The videos that can be used, with their segments; errors of others are reported where they are annotated."""
    for video in videos:
        try:
            segments = table.videos[name_of(table, video.name)]
        except SeqclfError:
            continue
        if isinstance(video.times, FrameTimes):
            yield video, video.times, segments


def choose_frame_numbers(table: Segments, folders: Iterable[tuple[str, FrameFolder]]) -> tuple[str, str]:
    """Decides how segments number the frames of folders.

    "names" uses the numbers in the file names. "order" counts the pictures from 0; it is chosen if the names count from
    1 but a segment starts at 0.

    Args:
        table: the segments.
        folders: the folders with their names, numbered by their names.

    Returns:
        "names" or "order", and the reason.

    Raises:
        SeqclfError: the evidence is contradictory: a segment starts at 0 although the names count from 1, and another
            folder is not numbered consecutively, so "order" would be wrong for it.
    """
    from_zero = irregular = ""
    for name, folder in folders:
        try:
            numbering, segments = folder.numbering(), table.videos[name_of(table, name)]
        except SeqclfError:  # reported where the video is annotated
            continue
        if not numbering.is_plain:
            irregular = irregular or name
        elif numbering.first == 1 and any(segment.start < 1 for segment in segments):
            from_zero = from_zero or name
    if table.unit == "seconds" or not from_zero:
        return "names", "the default"
    if irregular:
        raise SeqclfError(
            f"{table.path}: a segment of {from_zero} starts at frame 0, but its frames are named from 1, and those of "
            f"{irregular} are not numbered consecutively: set frame_numbers='names' or frame_numbers='order'"
        )
    return "order", f"a segment of {from_zero} starts at 0, and its frames are named from 1"


def counts_from_1(table: Segments, videos: Sequence[Opened]) -> bool:
    """Whether a table counts frames from 1.

    It does if it has no frame 0 and, for some video with N frames, a row for frame N. Tables of segments must also
    start at 1 in all videos. Folders of pictures have their own numbers; see ``choose_frame_numbers``.
    """
    first = {min(segments).start for segments in table.videos.values() if segments}
    if table.unit == "seconds" or not first or min(first) < 1 or (not table.by_frame and first != {1}):
        return False
    return any(
        segments and max(segment.end for segment in segments) == times.end + 1
        for video, times, segments in _in_table(table, videos)
        if not isinstance(video.source, FrameFolder)
    )


def first_of(source: Source, first_frame: int) -> int:
    """The number of the first frame of a source in a table. Folders may have numbers of their own."""
    return 0 if isinstance(source, FrameFolder) and source.frame_numbers == "names" else first_frame


def expect_own_rate(table: Segments, videos: Sequence[Opened]) -> None:
    """Raises a ``SeqclfError`` if a table has a row per frame, but only for the first frames of every video."""
    few = ""
    for video, times, segments in _in_table(table, videos if table.by_frame else ()):
        rows = sorted(segments)
        starts, ends = [row.start for row in rows], [row.end for row in rows]
        if not rows or starts[0] > 1 or starts[1:] != ends[:-1] or OTHER_RATE * ends[-1] > times.end:
            return
        few = few or f"the first {ends[-1]:g} of {times.end:,} frames of {video.name}"
    if few:
        raise SeqclfError(
            f"{table.path}: only {few} have rows, and the other videos are alike: set annotation_fps= to the rate of "
            "the rows, or to that of the videos if frames without a row have no label"
        )


def expect_frames(table: Segments, videos: Iterable[Opened]) -> None:
    """Raises a ``SeqclfError`` if whole numbers in a table may be seconds, although they are read as frames.

    They are frames if most videos have a segment that would end after the video if they were seconds. Videos without
    times, or with a frame per second, prove nothing.
    """
    beyond, within = 0, list[str]()
    for video, times, segments in _in_table(table, videos if table.assumed and not table.by_frame else ()):
        end, seconds = max((segment.end for segment in segments), default=0.0), times.end_seconds
        if seconds is None or not math.isfinite(seconds) or math.isclose(times.period or 1.0, 1.0, abs_tol=0.01):
            continue
        if end > seconds + 1:
            beyond += 1
        elif end > 0:
            length = f"{times.end:,} frames in {seconds:.3g} s"
            within.append(f"segments of {video.name} end at {end:g}, and it has {length}")
    if len(within) >= max(1, beyond):
        raise SeqclfError(
            f"{table.path}: whole numbers may be frames or seconds: {within[0]}: set unit='frames' or unit='seconds'"
        )
