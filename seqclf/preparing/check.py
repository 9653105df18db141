"""Check the videos of lists before training: every file is opened, and every annotation is compared with its video."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.annotated import annotate_lists
from seqclf.data.columns import Columns
from seqclf.data.find import open_video
from seqclf.data.frame_times import frame_times
from seqclf.data.lists import Entry, VideoList, read_list, read_paths
from seqclf.data.paths import resolve_path
from seqclf.data.segments import Segments, read_segments
from seqclf.data.sets import class_names
from seqclf.data.source import Source
from seqclf.data.spans import Unit, VideoSpan, resolution
from seqclf.data.splits import part_of
from seqclf.preparing.jobs import Job, check_workers, run_jobs
from seqclf.preparing.thumbnails import thumbnail
from seqclf.runtime.text import counted

CHUNK = 32
"""Frames that are decoded at a time by a full check."""


@dataclass
class File:
    """A video file, folder of pictures or feature file.

    Attributes:
        path: Its path.
        frames: The number of frames.
        shape: The shape of a frame.
        seconds: Its duration; None if unknown.
        fps: The mean frame rate; None if unknown.
        error: Why it can't be read, or "".
        picture: Its middle frame as a JPEG file, scaled down; b"" for features.
    """

    path: str
    frames: int = 0
    shape: tuple[int, ...] = ()
    seconds: float | None = None
    fps: float | None = None
    error: str = ""
    picture: bytes = field(default=b"", repr=False)


@dataclass
class Clip:
    """A row of a list: its part, video, classes and group, and how many frames each class has."""

    part: str
    name: str
    path: str
    classes: list[str]
    group: str | None = None
    frames: dict[str, int] = field(default_factory=dict)


@dataclass
class VideoCheck:
    """The result of a check.

    Attributes:
        lists: A description of each list.
        classes: The class names.
        clips: The rows of the lists.
        files: The videos, by path.
        problems: What would stop training, or cost it a video.
        warnings: What may be a mistake.
    """

    lists: list[str]
    classes: list[str]
    clips: list[Clip] = field(default_factory=list)
    files: dict[str, File] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def parts(self) -> list[str]:
        """The names of the parts, in the order of the lists."""
        return list(dict.fromkeys(clip.part for clip in self.clips))

    def clips_of(self, part: str) -> list[Clip]:
        """The clips of a part."""
        return [clip for clip in self.clips if clip.part == part]

    def class_counts(self, part: str) -> Counter[str]:
        """The number of clips of each class in a part."""
        return Counter(name for clip in self.clips_of(part) for name in clip.classes)

    def files_of(self, part: str) -> list[File]:
        """The files of a part."""
        return [self.files[path] for path in dict.fromkeys(clip.path for clip in self.clips_of(part))]


def check_videos(
    lists: str | Path | Sequence[str | Path],
    root: str | Path,
    *,
    form: str = "auto",
    class_index: str | Path | None = None,
    segments: str | None = None,
    classes: str | Sequence[str] | None = None,
    unit: Unit | Literal["auto"] = "auto",
    background: str | None = None,
    columns: Columns | None = None,
    multi_label: bool = False,
    separator: str = "|",
    inclusive: bool = False,
    past_end: float | None = None,
    annotation_fps: float | None = None,
    first_frame: Literal[0, 1] | None = None,
    pattern: str | None = None,
    fps: float | None = None,
    full: bool = False,
    workers: int | None = None,
) -> VideoCheck:
    """Open every video of lists, and compare the annotations with them.

    Args:
        lists: One or more lists, such as those for training and test. The split column of a list gives its parts.
        root: The folder that the paths in the lists start from.
        form, class_index: As in ``video_set``.
        segments: A table of segments; labels are then per frame.
        classes: The class names, or a file with one per line, for ``segments``; None takes the labels in the table.
        unit: The unit of start and end; "auto" detects it for clips in lists, and is "frames" for segments.
        background: The class of frames outside all segments.
        columns: The columns of the lists; with ``segments``, of the table.
        multi_label, separator: Whether a video, or a frame, may have several labels, and what separates them.
        inclusive, past_end, annotation_fps, first_frame: As in ``annotated_set``.
        pattern: Which pictures of a folder are frames.
        fps: The frame rate of folders of pictures.
        full: Decode all frames of all videos. Otherwise the first, the middle and the last are decoded.
        workers: The number of videos that are read at a time; None for one per core.

    Returns:
        What was found. ``problems`` is empty if training can start.

    Raises:
        SeqclfError: A list can't be read, or an argument is out of range.
    """
    check_workers(workers, fps)
    paths = [lists] if isinstance(lists, str | Path) else list(lists)
    several = separator if multi_label else None
    read = partial(_read, paths, Path(root).expanduser(), form, class_index, columns, unit, several)
    found = read(segments is not None)
    out = VideoCheck([one.description for one in found], found[0].classes)
    rows = [
        (_part(entry, path, paths), one, entry) for path, one in zip(paths, found, strict=True) for entry in one.videos
    ]
    for path, one in zip(paths, found, strict=True):
        out.problems += [f"{path}, line {line}: video {name!r} does not exist" for line, name in one.missing]
    entries = {str(entry.path): entry.path for _, _, entry in rows}
    out.files = {path: File(path) for path in entries}
    sources = {path: open_video(place, pattern=pattern, folder_fps=fps) for path, place in entries.items()}
    jobs = {path: partial(_look, out.files[path], source, fps, full) for path, source in sources.items()}
    for path, error in run_jobs(jobs, workers).failed.items():
        out.files[path].error = error
    out.problems += [file.error for file in out.files.values() if file.error]
    if segments is None:
        _add_clips(out, rows, sources, past_end)
    else:
        names, first = class_names(classes, str(root), None)
        table = read_segments(
            resolve_path(segments, root),
            "frames" if unit == "auto" else unit,
            *(names, background, inclusive, columns, "skip", first, several),
            names=dict.fromkeys(entry.name for _, _, entry in rows),
        )
        out.classes = table.classes
        _add_segments(out, rows, table, sources, past_end, annotation_fps, first_frame)
    _compare_sizes(out)
    _compare_parts(out)
    return out


def _read(
    paths: Sequence[str | Path],
    root: Path,
    form: str,
    class_index: str | Path | None,
    columns: Columns | None,
    unit: Unit | Literal["auto"],
    separator: str | None,
    only_paths: bool,
) -> list[VideoList]:
    """The lists. Classes are those of the first, as in training."""
    found: list[VideoList] = []
    for path in paths:
        place = resolve_path(path, root)
        if only_paths:
            found.append(read_paths(place, root, "skip"))
            continue
        known = {"classes": found[0].classes, "numbers": found[0].numbers} if found else {}
        found.append(
            read_list(
                *(place, root, form),
                class_index=class_index,
                missing="skip",
                columns=columns,
                clips=unit,
                separator=separator,
                **known,  # type: ignore[arg-type]
            )
        )
    return found


def _part(entry: Entry, path: str | Path, paths: Sequence[str | Path]) -> str:
    """The part of a row: by its split column, or else the name of its list."""
    if entry.split is not None:
        return part_of(entry.split) or entry.split
    return Path(path).stem if len(paths) > 1 else "all"


def _look(file: File, source: Source, fps: float | None, full: bool) -> Job:
    """Fill in the facts of a file; a job."""
    file.frames, file.shape = len(source), tuple(source.frame_shape)
    times = frame_times(source, fps)
    if times.end_seconds is not None and times.period and times.end_seconds < float("inf"):
        file.seconds, file.fps = times.end_seconds, 1 / times.period
    middle = file.frames // 2
    file.picture = thumbnail(source.read([0, middle, file.frames - 1])[1])
    for start in range(0, file.frames, CHUNK) if full else ():
        source.read(range(start, min(start + CHUNK, file.frames)))
        yield len(range(start, min(start + CHUNK, file.frames)))
    yield 0 if full else file.frames


def _add_clips(
    out: VideoCheck,
    rows: Iterable[tuple[str, VideoList, Entry]],
    sources: dict[str, Source],
    past_end: float | None,
) -> None:
    """Add the rows of lists; clips inside videos are compared with their video."""
    clipped = 0
    for part, found, entry in rows:
        path, labels = str(entry.path), entry.label
        names = (
            [out.classes[labels]]
            if isinstance(labels, int)
            else [name for name, value in zip(out.classes, labels, strict=True) if value == 1]
        )
        frames = out.files[path].frames
        if entry.span is not None and found.unit is not None and not out.files[path].error:
            step = resolution([bound for one in found.videos for bound in one.span or ()], found.unit)
            span = VideoSpan(sources[path], *entry.span, found.unit, past_end, step)
            try:
                frames, clipped = len(span), clipped + span.clipped
            except SeqclfError as error:
                out.problems.append(f"line {entry.line}: {error}")
        out.clips.append(Clip(part, entry.name, path, names, entry.group, dict.fromkeys(names, frames)))
    if clipped:
        out.warnings.append(f"{counted(clipped, 'clip')} cut at the end of the video")


def _add_segments(
    out: VideoCheck,
    rows: Iterable[tuple[str, VideoList, Entry]],
    table: Segments,
    sources: dict[str, Source],
    past_end: float | None,
    rate: float | None,
    first_frame: Literal[0, 1] | None,
) -> None:
    """Add videos with the number of frames of each class; segments are compared with their video as in training."""
    parts: dict[str, VideoList] = {}
    for part, found, entry in rows:
        parts.setdefault(part, replace(found, videos=[])).videos.append(entry)
    labels: dict[tuple[str, str], Tensor] = {}
    try:
        annotated = annotate_lists(
            table,
            parts,
            past_end=past_end,
            on_error="skip",
            reader=lambda path, *_: sources[str(path)],
            rate=rate,
            first_frame=first_frame,
        )
    except SeqclfError as error:
        out.problems.append(str(error))
    else:
        bad = (why for damaged in annotated.damaged.values() for why in damaged.values())
        out.problems += [why for why in dict.fromkeys(bad) if why not in out.problems]
        out.lists += annotated.notes
        out.warnings += annotated.adjusted
        for part, videos in annotated.videos.items():
            labels |= {(part, video.name): torch.as_tensor(video.labels) for video in videos}
    for part, one in parts.items():
        for entry in one.videos:
            y = labels.get((part, entry.name), torch.empty(0, dtype=torch.int64))
            counts = {name: int((y[:, k] == 1 if y.dim() > 1 else y == k).sum()) for k, name in enumerate(out.classes)}
            counts = {name: count for name, count in counts.items() if count}
            out.clips.append(Clip(part, entry.name, str(entry.path), list(counts), entry.group, counts))


def _compare_sizes(out: VideoCheck) -> None:
    """Frames of different sizes, rates and kinds."""
    good = [file for file in out.files.values() if not file.error]
    shapes = Counter(file.shape for file in good)
    if len(shapes) > 1:
        shown = ", ".join(f"{shape} ({count:,})" for shape, count in shapes.most_common(4))
        odd = next(file.path for file in good if file.shape == shapes.most_common()[-1][0])
        if any(len(shape) == 1 for shape in shapes):
            out.problems.append(f"videos have different numbers of features: {shown}, such as {odd}")
        else:
            out.warnings.append(
                f"frames have {len(shapes):,} sizes: {shown}, such as {odd}: resize or crop them (transform=)"
            )
    rates = Counter(round(file.fps, 2) for file in good if file.fps is not None)
    if len(rates) > 1:
        shown = ", ".join(f"{rate:g} ({count:,})" for rate, count in rates.most_common(4))
        out.warnings.append(f"videos have {len(rates):,} frame rates: {shown}: set fps= to resample them to one")


def _compare_parts(out: VideoCheck) -> None:
    """Videos that are in two parts or twice in one, groups in two parts, and classes without videos."""
    same = _same_content(out.files.values())
    content = {path: same.get(path, path) for path in out.files}
    parts = {part: {content[clip.path] for clip in out.clips_of(part)} for part in out.parts}
    for one, other in combinations(parts, 2):
        both = sorted(parts[one] & parts[other])
        if both:
            copies = [path for path in out.files if content[path] == both[0]]
            shown = " and ".join(dict.fromkeys((copies[0], copies[-1])))
            out.warnings.append(f"{counted(len(both), 'video')} in {one} and in {other}: {shown}")
        groups = {clip.group for clip in out.clips_of(one)} & {clip.group for clip in out.clips_of(other)} - {None}
        if groups:
            out.warnings.append(f"{counted(len(groups), 'group')} in {one} and in {other}: {min(map(str, groups))}")
    copies = [path for path in same if same[path] != path]
    if copies:
        out.warnings.append(f"{counted(len(copies), 'duplicate file')}, such as {copies[0]} of {same[copies[0]]}")
    for part in out.parts:
        counts = out.class_counts(part)
        absent = [name for name in out.classes if not counts[name]]
        if absent:
            shown = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
            out.warnings.append(f"{len(absent):,} of {len(out.classes):,} classes have no video in {part}: {shown}")


def _same_content(files: Iterable[File]) -> dict[str, str]:
    """For each file whose content others have, the first of them. Only files of equal size are read."""
    by_size: dict[Any, list[str]] = defaultdict(list)
    for file in files:
        if not file.error:
            inside = _contents(file.path)
            by_size[file.frames, tuple(path.stat().st_size for path in inside)].append(file.path)
    first: dict[tuple[Any, bytes], str] = {}
    out = {}
    for size, paths in by_size.items():
        for path in paths if len(paths) > 1 else ():
            digest = hashlib.sha256()
            for inside_path in _contents(path):
                with inside_path.open("rb") as content:
                    while piece := content.read(1 << 20):
                        digest.update(piece)
            out[path] = first.setdefault((size, digest.digest()), path)
    counts = Counter(out.values())
    return {path: other for path, other in out.items() if counts[other] > 1}


def _contents(path: str) -> list[Path]:
    """The file, or the files of a folder."""
    place = Path(path)
    return sorted(entry for entry in place.iterdir() if entry.is_file()) if place.is_dir() else [place]
