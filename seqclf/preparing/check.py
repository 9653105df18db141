"""Checks the videos of lists before training: every file is opened, and every annotation is compared with its video."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.annotations.segments import Segments, read_segments
from seqclf.data.annotations.videos import annotate_lists
from seqclf.data.find import open_video
from seqclf.data.frames.source import Source, Video
from seqclf.data.frames.span import VideoSpan, resolution
from seqclf.data.frames.times import frame_times
from seqclf.data.lists.splits import Selection, part_of
from seqclf.data.lists.video_list import Entry, VideoList
from seqclf.data.sets.parts import choices
from seqclf.data.sets.video_sets import class_names, unit_at_rate
from seqclf.preparing.check_result import Clip, File, VideoCheck, compare_parts, compare_sizes
from seqclf.preparing.jobs import Job, check_workers, run_jobs
from seqclf.preparing.listed import read_listed, reading_settings
from seqclf.runtime.paths import as_list, resolve_path
from seqclf.runtime.text import counted

CHUNK = 32
"""Frames that are decoded at a time by a full check."""
THUMBNAIL = (176, 132)
"""The largest width and height of a thumbnail."""
Row = tuple[str, VideoList, Entry]
"""A row of a list with the name of its part and its list."""


def check_videos(
    lists: str | Path | Sequence[str | Path],
    root: str | Path,
    *,
    segments: str | None = None,
    fps: float | None = None,
    full: bool = False,
    workers: int | None = None,
    **reading: Any,
) -> VideoCheck:
    """Opens every video of lists, and compares the annotations with them.

    Args:
        lists: one or more lists, such as those for training and test. The split column of a list gives its parts.
        root: the folder that the paths in the lists start from.
        segments: a table of segments; labels are then per frame.
        fps: the frame rate of folders of pictures.
        full: decode all frames of all videos. Otherwise the first, the middle and the last are decoded.
        workers: the number of videos that are read at a time; None for one per core.
        reading: arguments for reading lists: those of ``annotated_set`` with ``segments``, else of ``video_set``,
            such as ``multi_label``, ``columns`` or ``annotation_fps``.

    Returns:
        what was found. ``problems`` is empty if training can start.

    Raises:
        SeqclfError: a list can't be read, or an argument is out of range.
    """
    check_workers(workers, fps)
    how = reading_settings(segments, reading)
    out, rows = _read(as_list(lists), root, how, segments is not None)
    sources = _look_at_all(out, rows, how, fps, full, workers)
    if chosen := choices([Video(path, source) for path, source in sources.items()], how["stream"]):
        out.lists.append(chosen.removeprefix(", "))
    if segments is None:
        _add_clips(out, rows, sources, how["past_end"])
    else:
        names, first = class_names(how["classes"], str(root), how["first_label"])
        listed = dict.fromkeys(entry.name for _, _, entry in rows)
        several = how["separator"] if how["multi_label"] else None
        table = read_segments(
            resolve_path(segments, root),
            classes=names,
            on_error="skip",
            first_label=first,
            separator=several,
            names=listed,
            unit=unit_at_rate(how["unit"], how["annotation_fps"]),
            **{name: how[name] for name in ("background", "inclusive", "columns")},
        )
        out.classes = table.classes
        _add_segments(out, rows, table, sources, how)
    compare_sizes(out)
    compare_parts(out)
    return out


def _read(
    paths: Sequence[str | Path], root: str | Path, how: Mapping[str, Any], only_paths: bool
) -> tuple[VideoCheck, list[Row]]:
    """What the lists hold. Classes are those of the first, as in training."""
    found: list[VideoList] = []
    for path in paths:
        found.append(read_listed(path, Path(root).expanduser(), how, only_paths, found[0] if found else None))
    out, rows = VideoCheck([one.description for one in found], found[0].classes), []
    for path, one in zip(paths, found, strict=True):
        rows += [(_part(entry, path, paths, how["test_split"]), one, entry) for entry in one.videos]
        out.problems += [f"{path}, line {line}: video {name!r} does not exist" for line, name in one.missing]
        out.problems += _part_problems(path, Path(root).expanduser(), how, only_paths, one)
    return out, rows


def _part_problems(
    path: str | Path, root: Path, how: Mapping[str, Any], only_paths: bool, whole: VideoList
) -> list[str]:
    """Why the parts of a list with a split column can't be read as in training, where classes are those of one part."""
    values = dict.fromkeys(entry.split for entry in whole.videos if entry.split is not None)
    present = {part_of(value, how["test_split"]) or "train" for value in values} if len(values) > 1 else set()
    first: VideoList | None = None
    problems: dict[str, None] = {}
    for part in ("train", "validation", "test"):
        if part in present:
            select = Selection(part, True, how["split_column"], how["test_split"])
            try:
                listed = read_listed(path, root, how, only_paths, first, select)
                first = first or listed
            except SeqclfError as error:
                problems[str(error)] = None
    return list(problems)


def _part(entry: Entry, path: str | Path, paths: Sequence[str | Path], test_split: str | None) -> str:
    """The part of a row: by its split column, or else the name of its list."""
    if entry.split is not None:
        return part_of(entry.split, test_split) or entry.split
    return Path(path).stem if len(paths) > 1 else "all"


def _look_at_all(
    out: VideoCheck, rows: Iterable[Row], how: Mapping[str, Any], fps: float | None, full: bool, workers: int | None
) -> dict[str, Source]:
    """Opens every video and fills in the facts and problems of its file; returns the videos by path."""
    paths = {str(entry.path): entry.path for _, _, entry in rows}
    out.files = {path: File(path) for path in paths}
    reader = partial(open_video, pattern=how["pattern"], folder_fps=fps, stream=how["stream"], layout=how["layout"])
    sources = {path: reader(place) for path, place in paths.items()}
    jobs = {path: partial(_look, out.files[path], source, fps, full) for path, source in sources.items()}
    for path, error in run_jobs(jobs, workers, print_errors=False).failed.items():
        out.files[path].error = error
    out.problems += [file.error for file in out.files.values() if file.error]
    return sources


def _look(file: File, source: Source, fps: float | None, full: bool) -> Job:
    """Fills in the facts of a file; a job."""
    file.frames, file.shape = len(source), tuple(source.frame_shape)
    times = frame_times(source, fps)
    if times.end_seconds is not None and times.period and times.end_seconds < float("inf"):
        file.seconds, file.fps = times.end_seconds, 1 / times.period
    middle = file.frames // 2
    file.picture = _thumbnail(source.read([0, middle, file.frames - 1])[1])
    for start in range(0, file.frames, CHUNK) if full else ():
        source.read(range(start, min(start + CHUNK, file.frames)))
        yield len(range(start, min(start + CHUNK, file.frames)))
    yield 0 if full else file.frames


def _thumbnail(frame: Tensor) -> bytes:
    """A frame ``(C, H, W)`` uint8 as a small JPEG file; b"" for features."""
    from PIL import Image

    if frame.dim() != 3 or frame.shape[0] not in (1, 3) or frame.is_floating_point():
        return b""
    picture = Image.fromarray(frame.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
    picture.thumbnail(THUMBNAIL)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=80)
    return stream.getvalue()


def _add_clips(out: VideoCheck, rows: Iterable[Row], sources: dict[str, Source], past_end: float | None) -> None:
    """Adds the rows of lists; clips inside videos are compared with their video."""
    clipped, other = 0, list[str]()
    for part, found, entry in rows:
        path, labels = str(entry.path), entry.label
        names = (
            [out.classes[labels]]
            if isinstance(labels, int)
            else [name for name, value in zip(out.classes, labels, strict=True) if value == 1]
        )
        frames = out.files[path].frames
        if entry.frames not in (None, frames) and not out.files[path].error:
            other.append(f"{entry.name} ({frames:,}, not {entry.frames:,})")
        if entry.span is not None and found.unit is not None and not out.files[path].error:
            step = resolution([bound for one in found.videos for bound in one.span or ()], found.unit)
            span = VideoSpan(sources[path], *entry.span, found.unit, past_end, step)
            try:
                frames, clipped = len(span), clipped + span.clipped
            except SeqclfError as error:
                out.problems.append(f"{found.path}, line {entry.line}: {error}")
        out.clips.append(Clip(part, entry.name, path, names, entry.group, dict.fromkeys(names, frames), entry.span))
    if clipped:
        out.warnings.append(f"{counted(clipped, 'clip')} cut at the end of the video")
    if other:
        out.warnings.append(f"{counted(len(other), 'video')} without the listed number of frames, such as {other[0]}")


def _add_segments(
    out: VideoCheck, rows: Iterable[Row], table: Segments, sources: dict[str, Source], how: Mapping[str, Any]
) -> None:
    """Adds videos with the number of frames of each class; segments are compared with their video as in training."""
    parts: dict[str, VideoList] = {}
    for part, found, entry in rows:
        parts.setdefault(part, replace(found, videos=[])).videos.append(entry)
    labels: dict[tuple[str, str], Tensor] = {}
    try:
        annotated = annotate_lists(
            table,
            parts,
            lambda path, **_: sources[str(path)],
            frame_numbers=how["frame_numbers"],
            past_end=how["past_end"],
            on_error="skip",
            rate=how["annotation_fps"],
            first_frame=how["first_frame"],
        )
    except SeqclfError as error:
        out.problems.append(str(error))
    else:
        bad = (why for damaged in annotated.damaged.values() for why in damaged.values())
        out.problems += [why for why in dict.fromkeys(bad) if why not in out.problems]
        out.lists += [note for note in annotated.notes if note not in annotated.adjusted]
        out.warnings += annotated.adjusted
        for part, videos in annotated.videos.items():
            labels |= {(part, video.name): torch.as_tensor(video.labels) for video in videos}
    for part, one in parts.items():
        for entry in one.videos:
            y = labels.get((part, entry.name), torch.empty(0, dtype=torch.int64))
            counts = {name: int((y[:, k] == 1 if y.dim() > 1 else y == k).sum()) for k, name in enumerate(out.classes)}
            counts = {name: count for name, count in counts.items() if count}
            out.clips.append(Clip(part, entry.name, str(entry.path), list(counts), entry.group, counts))
