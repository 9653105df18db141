"""Videos of lists with the labels that a table of segments gives their frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from seqclf.batch import SeqclfError
from seqclf.data.annotate import Annotation, annotate
from seqclf.data.find import open_video
from seqclf.data.frame_folder import FrameFolder
from seqclf.data.frame_times import frame_times
from seqclf.data.lists import VideoList
from seqclf.data.segments import Segments, name_of
from seqclf.data.source import Source, Video

MOST = 20  # folders with missing numbers that a run records


@dataclass
class Annotated:
    """The videos of each part, with labels of their frames.

    Attributes:
        videos: Of each part.
        damaged: Of each part, the names of videos that were left out, and why.
        descriptions: What was read, one line per part.
        notes: What was decided and adjusted.
        details: The same as plain values, for the record of a run.
    """

    videos: dict[str, list[Video]] = field(default_factory=dict)
    damaged: dict[str, dict[str, str]] = field(default_factory=dict)
    descriptions: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


def annotate_lists(
    table: Segments,
    lists: Mapping[str, VideoList],
    fps: float | None = None,
    pattern: str | None = None,
    frame_numbers: Literal["names", "order"] | None = None,
    past_end: float | None = None,
    workers: int = 2,
    on_error: str = "raise",
    reader: Callable[..., Source] = open_video,
) -> Annotated:
    """Open the videos of each part, and label their frames.

    Args:
        table: The segments.
        lists: The list of each part.
        fps: The frame rate that files are resampled to, and that folders have.
        pattern: Which pictures of a folder are frames.
        frame_numbers: What numbers in segments of folders count; None decides by evidence.
        past_end: How far segments may reach past the end of their video; see ``annotate``.
        workers: Threads that open videos.
        on_error: "raise", or "skip" to leave out a video that can't be read or whose segments are wrong.
        reader: ``open_video``, with further settings.

    Raises:
        SeqclfError: A video can't be read or a segment is wrong; names the file and line.
    """
    names = _names(table, lists, on_error)
    sources = {
        part: [(entry.name, reader(entry.path, fps, pattern, frame_numbers or "names", fps)) for entry in found.videos]
        for part, found in lists.items()
    }
    folders = [(name, s) for videos in sources.values() for name, s in videos if isinstance(s, FrameFolder)]
    out = Annotated()
    if folders:
        _number_frames(out, table, folders, frame_numbers)
    adjusted: list[Annotation] = []
    for part, videos in sources.items():
        out.videos[part], out.damaged[part], annotations = _annotate(table, videos, past_end, workers, on_error)
        adjusted += annotations
        labels = torch.cat([annotation.labels for annotation in annotations])
        inside = int((labels != table.elsewhere).sum())
        out.descriptions.append(f"{lists[part].description}, {len(labels):,} frames, {inside:,} of them in segments")
    for count, what in (
        (sum(a.clipped for a in adjusted), "segments clipped at the end of their video"),
        (sum(a.trimmed for a in adjusted), "segments cut off where the next one starts"),
        (sum(a.empty for a in adjusted), "segments contain no frame"),
        (len(table.videos.keys() - names), f"videos of {Path(table.path).name} are in no list"),
    ):
        if count:
            out.notes.append(f"{count:,} {what}")
            out.details.setdefault("segments", {})[what] = count
    return out


def choose_frame_numbers(table: Segments, folders: Iterable[tuple[str, FrameFolder]]) -> tuple[str, str]:
    """Decide what numbers in segments of frame folders count.

    Args:
        table: The segments.
        folders: The folders with their names, numbered by their names.

    Returns:
        "names" or "order", and the reason.

    Raises:
        SeqclfError: A segment starts at 0 though frames are named from 1, and another folder has gaps or starts late,
            so that numbers in names may be off by one.
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
            f"{irregular} are not numbered one by one: say frame_numbers='names' or 'order'"
        )
    return "order", f"a segment of {from_zero} starts at 0, and its frames are named from 1"


def _number_frames(
    out: Annotated, table: Segments, folders: list[tuple[str, FrameFolder]], setting: str | None
) -> None:
    """Sets what the numbers of folders are, and reports it with the folders whose numbers are not complete."""
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
            f"{len(gaps):,} folders are not numbered one by one from 0 or 1, such as {name} ({span}{step}{missing})"
        )


def _annotate(
    table: Segments, videos: list[tuple[str, Source]], past_end: float | None, workers: int, on_error: str
) -> tuple[list[Video], dict[str, str], list[Annotation]]:
    """The videos of a list with labels, why others are left out, and what was adjusted."""

    def label(video: tuple[str, Source]) -> Annotation | SeqclfError:
        name, source = video
        try:
            return annotate(table, name, frame_times(source), past_end)
        except SeqclfError as error:
            return error

    labelled, damaged, annotations = [], {}, []
    with ThreadPoolExecutor(max(1, workers), thread_name_prefix="reader") as pool:
        for (name, source), found in zip(videos, pool.map(label, videos), strict=True):
            if isinstance(found, Annotation):
                labelled.append(Video(name, source, found.labels))
                annotations.append(found)
            elif on_error == "raise":
                raise found
            else:
                damaged[name] = str(found)
    if not labelled:
        raise SeqclfError(f"no video can be used: {next(iter(damaged.values()))}")
    return labelled, damaged, annotations


def _names(table: Segments, lists: Mapping[str, VideoList], on_error: str) -> set[str]:
    """The names in the table that the lists' videos have; one name must not mean two videos."""
    paths: dict[str, str] = {}
    for entry in (entry for found in lists.values() for entry in found.videos):
        try:
            name = name_of(table, entry.name)
        except SeqclfError:
            if on_error == "raise":
                raise
            continue
        if paths.setdefault(name, entry.name) != entry.name:
            raise SeqclfError(f"{table.path}: video {name} may be {paths[name]} or {entry.name}; give its path there")
    return set(paths)
