"""Tables of segments: ``video,start,end,label``, one segment per row.

The header may have the columns in any order, and other columns. Common names such as ``video_id``, ``start_frame``,
``Start (s)`` or ``action`` are recognised. A row with only a video declares that it has no segments. A table with a
column ``frame`` instead of start and end labels single frames. A column of actions with their times, such as
``c092 11.90 21.20;c147 0.00 12.60`` (Charades), has several segments per row.

    unit "frames":   ``start`` is the first frame and ``end`` the frame after the last, as in Python's slices (with
                     ``inclusive=True``, the last frame). Frames are numbered as in the file, at any frame rate.
    unit "seconds":  seconds, ``mm:ss`` or ``hh:mm:ss``, in player time. A frame belongs to the segment that contains
                     the middle of its display time.

Each video may have its own file, without the column ``video``; see ``annotation_files``.
"""

from __future__ import annotations

import difflib
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from seqclf.batch import IGNORE, SeqclfError
from seqclf.data.annotations.rows import SegmentRow, annotation_files, read_annotation, segment_rows, unit_of_tables
from seqclf.data.frames.numbers import natural_key
from seqclf.data.frames.source import plain_path, without_suffix
from seqclf.data.frames.span import Unit, resolution
from seqclf.data.tables.columns import Columns
from seqclf.data.tables.label_cells import check_alike
from seqclf.data.tables.spans import check_inclusive, expect_ends
from seqclf.data.tables.table import whole_number
from seqclf.runtime.text import some


class Segment(NamedTuple):
    """A segment from ``start`` up to, but not including, ``end`` in the unit of the table.

    ``label`` is a class index, and ``line`` the line of the table. With several labels per frame, ``value`` is 1 if the
    class applies and ``IGNORE`` if that is unknown, and ``label`` is -1 if no class applies.
    """

    start: float
    end: float
    label: int
    line: int
    value: int = 1


@dataclass
class Segments:
    """The content of a table of segments.

    Attributes:
        path: the file.
        unit: "frames" or "seconds".
        classes: the class names, in the order of their indices.
        elsewhere: the label of frames outside all segments: ``IGNORE``, or the index of the background class.
        videos: the segments of each video, in the order of the file.
        bad: with ``on_error="skip"``, the videos with invalid segments: name -> reason.
        multi_label: whether a frame may have several labels.
        by_frame: whether the table labels single frames, so that others are unknown.
        step: the resolution of the times, in the unit.
        header: the columns that were read.
        files: the file of each video, if each has its own.
        assumed: whether frames are only assumed, because times are whole numbers, which may also be seconds.
    """

    path: str
    unit: Unit
    classes: list[str]
    elsewhere: int
    videos: dict[str, list[Segment]]
    bad: dict[str, str] = field(default_factory=dict)
    multi_label: bool = False
    by_frame: bool = False
    step: float = 0.0
    header: str = ""
    files: dict[str, Path] = field(default_factory=dict)
    assumed: bool = False

    @cached_property
    def by_stem(self) -> dict[str, list[str]]:
        """The names of videos by name without suffix, and by name without suffix and folders."""
        names: dict[str, list[str]] = {}
        for name in self.videos:
            stem = _stem(name)
            for key in {stem, f"*/{posixpath.basename(stem)}"}:
                names.setdefault(key, []).append(name)
        return names

    def where(self, video: str, segment: Segment) -> str:
        """File and line of a segment, for errors."""
        return f"{self.files.get(video, self.path)}, line {segment.line}"


def read_segments(
    path: str | Path,
    unit: Unit | Literal["auto"] = "frames",
    classes: Sequence[str] | None = None,
    background: str | None = None,
    inclusive: bool | None = None,
    columns: Columns | None = None,
    on_error: str = "raise",
    first_label: int | None = None,
    separator: str | None = None,
    names: Iterable[str] = (),
) -> Segments:
    """Reads a table of segments.

    Args:
        path: the file: CSV, TSV, semicolons, JSON or JSON lines; or a file per video, see ``annotation_files``.
        unit: the unit of start and end. "auto" detects it by the columns and times, or else assumes frames.
        classes: the class names; a label is a name or a number. None takes the labels in the file, sorted.
        background: the class of frames outside all segments; None leaves them without a label. With ``classes=None`` it
            becomes the first class if no segment has it.
        inclusive: with unit "frames", whether ``end`` is the last frame of a segment. None reads it as the frame
            after the last, and refuses a table in which most segments end one frame before the next.
        columns: the columns "video", "start", "end" and "label" (or "frame"), by unusual names, or by numbers from 0 if
            the file has no header. "labels" takes the columns of classes with 0 or 1.
        on_error: "raise", or "skip" to add the videos of invalid rows to ``bad``.
        first_label: 0 or 1, the number of the first class, if labels are numbers. None detects it by a label 0 or a
            label equal to the number of classes, or raises.
        separator: what separates several labels of a frame, such as "|"; segments may then overlap. None for one.
        names: the videos, if each has its own file.

    Raises:
        SeqclfError: the file is missing or not such a table; a row lacks a value, has an invalid time, ends before it
            starts, or has an unknown label. The message names the file and line.
    """
    _check(unit, inclusive, background, separator)
    path, bad = Path(path), dict[str, str]()
    each = path.is_dir() or "*" in str(path)
    files = annotation_files(path, names, bad if on_error == "skip" else None) if each else {}
    places = [(file, video) for video, file in files.items()] if each else [(path, None)]
    tables = [read_annotation(file, columns, each) for file, _ in places]
    decided = unit_of_tables(tables) if unit == "auto" else unit
    unit = decided or "frames"
    check_inclusive(inclusive, unit)
    how = unit, bool(inclusive), separator, classes is not None
    read = [segment_rows(table, file, video, *how) for table, (file, video) in zip(tables, places, strict=True)]
    rows = [row for found in read for row in found.rows]
    known = list(classes) if classes is not None else read[0].classes if read else None
    if known is None:
        known = _classes([(label, row.where) for row in rows for label in row.labels], background)
    found = Segments(str(path), unit, known, _elsewhere(background, known), {v: [] for v in bad}, bad, files=files)
    first = first_label if first_label is not None else _first_number(rows, known)
    found.by_frame, found.header = any(one.by_frame for one in read), read[0].header if read else ""
    found.multi_label, found.assumed = separator is not None, decided is None
    _add(found, rows, first, on_error)
    if inclusive is None and unit == "frames":
        expect_ends(
            [(*s[:2], s.line, found.where(name, s)) for s in segments] for name, segments in found.videos.items()
        )
    found.step = resolution([bound for video in found.videos.values() for s in video for bound in s[:2]], unit)
    return found


def _add(found: Segments, rows: Iterable[SegmentRow], first: int, on_error: str) -> None:
    """Adds the segments of rows; with ``on_error="skip"`` the videos of invalid rows to ``bad``."""
    for row in rows:
        segments = found.videos.setdefault(row.video, [])
        try:
            segments += _segments(row, found.classes, first, found.multi_label)
        except SeqclfError as error:
            if on_error == "raise":
                raise
            found.bad.setdefault(row.video, str(error))


def _elsewhere(background: str | None, classes: Sequence[str]) -> int:
    """The label of frames outside all segments."""
    if background is not None and background not in classes:
        raise SeqclfError(f"background={background!r} is not one of the classes {some(classes)}")
    return IGNORE if background is None else classes.index(background)


def _check(unit: str, inclusive: bool | None, background: str | None, separator: str | None) -> None:
    """Raises a ``SeqclfError`` for arguments of ``read_segments`` that are wrong or do not go together."""
    if unit not in ("frames", "seconds", "auto"):
        raise SeqclfError(f'unit={unit!r}: expected "frames", "seconds" or "auto"')
    check_inclusive(inclusive, unit)
    if separator is not None and background is not None:
        raise SeqclfError(
            f"background={background!r}: with several labels per frame, no class applies outside all segments"
        )


def name_of(segments: Segments, path: str) -> str:
    """Finds the name of the video at ``path`` in a table.

    It is the path itself, or else the only name that is equal without suffix, or without suffix and folders.

    Raises:
        SeqclfError: the table does not have the video, or several names match.
    """
    if path in segments.videos:
        return path
    stem = _stem(path)
    names = segments.by_stem.get(stem) or segments.by_stem.get(f"*/{posixpath.basename(stem)}", [])
    if len(names) > 1:  # prefer names that share the last folders of the path
        both = {name: (f"/{_stem(name)}", f"/{stem}") for name in names}
        names = [name for name, (a, b) in both.items() if a.endswith(b) or b.endswith(a)] or names
    if len(names) > 1:
        raise SeqclfError(f"{segments.path}: video {path} matches several names: {some(names, 4)}")
    if names:
        return names[0]
    names_of = {name.casefold(): name for name in segments.videos}
    near = difflib.get_close_matches(path.casefold(), names_of, n=1, cutoff=0.5)
    hint = f"did you mean {names_of[near[0]]}?" if near else f"it has rows for {some(segments.videos, 2)}"
    raise SeqclfError(
        f"{segments.path}: has no row for video {path} (add a row with only the video if it has no segments); {hint}"
    )


def _segments(row: SegmentRow, classes: list[str], first: int, several: bool) -> list[Segment]:
    """The segments of a row: one for each class, or one without a class."""
    if row.error is not None:
        raise row.error
    if row.start is None:  # the video has no segments
        return []
    found = [
        Segment(row.start, row.end, _index(label, classes, first, row.where), row.line, value)
        for value, labels in ((1, row.labels), (IGNORE, row.unknown))
        for label in labels
    ]
    return found if found or not several else [Segment(row.start, row.end, -1, row.line)]


def _classes(labels: Sequence[tuple[str, str]], background: str | None) -> list[str]:
    """The classes of a table without given classes, in natural order; labels come with their locations."""
    check_alike(labels if background is None else [(background, "background="), *labels])
    named = {label for label, _ in labels}
    every = named if background is None else named | {background}
    if all(map(str.isdecimal, every)):
        return sorted(every, key=natural_key)
    return sorted(every - named) + sorted(named, key=natural_key)


def _first_number(rows: Sequence[SegmentRow], classes: Sequence[str]) -> int:
    """The number of the first class, where labels are numbers."""
    numbers: dict[int, str] = {}
    for row in rows:
        for label in row.labels:
            number = whole_number(label)
            if number is not None and not {label, str(number)} & set(classes):
                numbers.setdefault(number, row.where)
    if not numbers or min(numbers) <= 0:
        return 0
    if max(numbers) >= len(classes):
        return 1
    raise SeqclfError(
        f"{numbers[min(numbers)]}: labels {min(numbers)} to {max(numbers)} may count from 0 or from 1: set "
        "first_label=0 or first_label=1, or write class names"
    )


def _index(label: str, classes: list[str], first: int, where: str) -> int:
    number = whole_number(label)
    for name in (label, str(number)):  # 1.0 for 1
        if name in classes:
            return classes.index(name)
    if number is not None and first <= number < first + len(classes):
        return number - first
    near = difflib.get_close_matches(label.lower(), [name.lower() for name in classes], 1)
    hint = next((f"; did you mean {name!r}?" for name in classes if near and name.lower() == near[0]), "")
    raise SeqclfError(f"{where}: label {label!r} is not one of the {len(classes)} classes {some(classes)}{hint}")


def _stem(name: str) -> str:
    return without_suffix(plain_path(name.removesuffix(".eaf")))  # ELAN names its own file
