"""The videos of lists, with frame labels from a table of segments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from seqclf.batch import SeqclfError
from seqclf.data.annotations.frame_labels import Annotation, annotate
from seqclf.data.annotations.numbering import (
    Opened,
    choose_frame_numbers,
    counts_from_1,
    expect_frames,
    expect_own_rate,
    first_of,
)
from seqclf.data.annotations.segments import Segments, name_of
from seqclf.data.frames.folder import FrameFolder
from seqclf.data.frames.source import Source, Video
from seqclf.data.frames.span import check_past_end
from seqclf.data.frames.times import FrameTimes, frame_times
from seqclf.data.lists.video_list import VideoList
from seqclf.runtime.text import counted

MOST = 20
"""The largest number of incompletely numbered folders that a run records."""


@dataclass
class Annotated:
    """Videos with frame labels, by part of the data.

    Attributes:
        videos: the videos of each part.
        damaged: for each part, the skipped videos: name -> reason.
        descriptions: one line per part about its list.
        notes: lines about choices and adjustments.
        adjusted: the notes about segments that were clipped or not used.
        details: the notes as plain values, for the record of a run.
        first_frame: the number of the first frame of a video in the table.
    """

    videos: dict[str, list[Video]] = field(default_factory=dict)
    damaged: dict[str, dict[str, str]] = field(default_factory=dict)
    descriptions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    adjusted: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    first_frame: int = 0


def annotate_lists(
    table: Segments,
    lists: Mapping[str, VideoList],
    reader: Callable[..., Source],
    frame_numbers: Literal["names", "order"] | None = None,
    past_end: float | None = None,
    workers: int = 2,
    on_error: str = "raise",
    rate: float | None = None,
    first_frame: Literal[0, 1] | None = None,
) -> Annotated:
    """Opens the videos of each part and labels their frames.

    Args:
        table: the segments.
        lists: the list of each part.
        reader: opens a path; it takes ``frame_numbers`` as ``open_video`` does.
        frame_numbers: how segments number the frames of folders, "names" or "order"; None: see
            ``choose_frame_numbers``.
        past_end: how far segments may extend past the end of their video; see ``annotate``.
        workers: the number of threads that open videos.
        on_error: "raise", or "skip" to leave out videos that can't be read or that have invalid segments.
        rate: the frame rate of the table's frame numbers; None for that of each video.
        first_frame: the number of the first frame of a video in the table; None decides by ``counts_from_1``.

    Raises:
        SeqclfError: a video can't be read or a segment is wrong; names the file and line.
    """
    check_past_end(past_end)
    if rate is not None and not rate > 0:
        raise SeqclfError(f"annotation_fps={rate}: expected a positive number")
    names = _names(table, lists, on_error)
    sources = {
        part: [(entry.name, reader(entry.path, frame_numbers=frame_numbers or "names")) for entry in found.videos]
        for part, found in lists.items()
    }
    folders = [(name, s) for videos in sources.values() for name, s in videos if isinstance(s, FrameFolder)]
    out = Annotated()
    if folders:
        _number_frames(out, table, folders, frame_numbers)
    opened = {part: _open(videos, workers) for part, videos in sources.items()}
    every = [one for videos in opened.values() for one in videos]
    if first_frame is None and counts_from_1(table, every):
        first_frame = 1
        out.notes.append("frames are numbered from 1, as the last row of a video shows")
    if rate is None:
        expect_own_rate(table, every)
        expect_frames(table, every)
    out.first_frame = first_frame or 0
    adjusted: list[Annotation] = []
    for part, videos in opened.items():
        out.videos[part], out.damaged[part], annotations = _annotate(
            table, videos, on_error, past_end, rate, out.first_frame
        )
        adjusted += annotations
        out.descriptions.append(f"{lists[part].description}, {_counts(table, annotations)}")
    _report(out, table, rate, adjusted, len(table.videos.keys() - names))
    return out


def _counts(table: Segments, annotations: Sequence[Annotation]) -> str:
    """How many frames there are, and how many of them are in segments."""
    labels = torch.cat([annotation.labels for annotation in annotations])
    inside = (labels == 1).any(1) if table.multi_label else labels != table.elsewhere
    return f"{len(labels):,} frames, {int(inside.sum()):,} of them in segments"


def _report(out: Annotated, table: Segments, rate: float | None, adjusted: Sequence[Annotation], unused: int) -> None:
    """Reports the columns of the table, and the segments that were adjusted."""
    unit = "" if table.by_frame else f"; in {table.unit}"
    unit += f"; {rate:g} frames/s" if rate is not None else ""
    out.notes.append(f"{Path(table.path).name}: {table.header}{unit}")
    for count, noun, what in (
        (sum(a.clipped for a in adjusted), "segment", "clipped at the end of their video"),
        (sum(a.trimmed for a in adjusted), "segment", "clipped at the start of the next one"),
        (sum(a.empty for a in adjusted), "segment", "without a frame"),
        (unused, "video", f"of {Path(table.path).name} in no list"),
    ):
        if count:
            out.adjusted.append(f"{counted(count, noun)} {what}")
            out.details.setdefault("segments", {})[f"{noun}s {what}"] = count
    out.notes += out.adjusted


def _number_frames(
    out: Annotated, table: Segments, folders: list[tuple[str, FrameFolder]], setting: str | None
) -> None:
    """Sets how folders number their frames, and reports the choice and the incompletely numbered folders."""
    choice, reason = (setting, "as set") if setting else choose_frame_numbers(table, folders)
    gaps = {}
    for name, folder in folders:
        folder.frame_numbers = choice
        try:
            numbering = folder.numbering()
        except SeqclfError:
            continue
        if not numbering.is_plain:
            gaps[name] = asdict(numbering)
    how = "by the numbers in their names" if choice == "names" else "in order from 0"
    out.notes.append(f"segments count the frames of folders {how} ({reason})")
    out.details["frame_numbers"] = {"choice": choice, "reason": reason, "incomplete": dict(list(gaps.items())[:MOST])}
    if gaps:
        name, first = next(iter(gaps.items()))
        span = f"{first['first']} to {first['last']}"
        step = f", every {first['step']}th" if first["step"] > 1 else ""
        missing = f", {first['missing']:,} missing" if first["missing"] else ""
        out.notes.append(
            f"{len(gaps):,} folders are not numbered consecutively from 0 or 1, such as {name} ({span}{step}{missing})"
        )


def _open(videos: list[tuple[str, Source]], workers: int) -> list[Opened]:
    """Reads the times of all frames, in parallel."""

    def times(source: Source) -> FrameTimes | SeqclfError:
        try:
            return frame_times(source)
        except SeqclfError as error:
            return error

    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="reader") as pool:
        found = pool.map(times, [source for _, source in videos])
        return [Opened(name, source, one) for (name, source), one in zip(videos, found, strict=True)]


def _annotate(
    table: Segments, videos: list[Opened], on_error: str, past_end: float | None, rate: float | None, first_frame: int
) -> tuple[list[Video], dict[str, str], list[Annotation]]:
    """The labelled videos of a list, the skipped ones with reasons, and the annotations."""
    labelled, damaged, annotations = [], {}, []
    for name, source, times in videos:
        try:
            if isinstance(times, SeqclfError):
                raise times
            found = annotate(table, name, times, past_end, rate, first_of(source, first_frame))
        except SeqclfError as error:
            if on_error == "raise":
                raise
            damaged[name] = str(error)
        else:
            labelled.append(Video(name, source, found.labels))
            annotations.append(found)
    if not labelled:
        raise SeqclfError(f"no video can be used: {next(iter(damaged.values()))}")
    return labelled, damaged, annotations


def _names(table: Segments, lists: Mapping[str, VideoList], on_error: str) -> set[str]:
    """The names in the table of all listed videos; a name must match one video only."""
    paths: dict[str, str] = {}
    for entry in (entry for found in lists.values() for entry in found.videos):
        try:
            name = name_of(table, entry.name)
        except SeqclfError:
            if on_error == "raise":
                raise
            continue
        if paths.setdefault(name, entry.name) != entry.name:
            raise SeqclfError(
                f"{table.path}: video {name} matches both {paths[name]} and {entry.name}: write its path in the table"
            )
    return set(paths)
