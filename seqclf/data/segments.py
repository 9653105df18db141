"""Tables of segments: ``video,start,end,label``, one segment per row.

The header may have the columns in any order, and other columns. Common names such as ``video_id``, ``start_frame``,
``Start (s)`` or ``action`` are recognised. A row with only a video declares that it has no segments. A table with a
column ``frame`` instead of start and end labels single frames.

    unit "frames":   ``start`` is the first frame and ``end`` the frame after the last, as in Python's slices (with
                     ``inclusive=True``, the last frame). Frames are numbered as in the file, at any frame rate.
    unit "seconds":  seconds, ``mm:ss`` or ``hh:mm:ss``, in player time. A frame belongs to the segment that contains
                     the middle of its display time.
"""

from __future__ import annotations

import difflib
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from seqclf.batch import IGNORE, SeqclfError
from seqclf.data.frame_numbers import natural_key
from seqclf.data.source import without_suffix
from seqclf.data.spans import Unit, read_span, span_columns
from seqclf.data.tables import FRAME, LABEL, PATH, Columns, Record, Table, read_table, whole_number


class Segment(NamedTuple):
    """A segment from ``start`` up to, but not including, ``end`` in the unit of the table; class index; line."""

    start: float
    end: float
    label: int
    line: int


@dataclass
class Segments:
    """The content of a table of segments.

    Attributes:
        path: The file.
        unit: "frames" or "seconds".
        classes: The class names, in the order of their indices.
        elsewhere: The label of frames outside all segments: ``IGNORE``, or the index of the background class.
        videos: The segments of each video, in the order of the file.
        bad: With ``on_error="skip"``, the videos with invalid segments: name -> reason.
        by_stem, by_name: The names of videos by name without suffix, and without suffix and folders.
    """

    path: str
    unit: Unit
    classes: list[str]
    elsewhere: int
    videos: dict[str, list[Segment]]
    bad: dict[str, str] = field(default_factory=dict)
    by_stem: dict[str, list[str]] = field(default_factory=dict)
    by_name: dict[str, list[str]] = field(default_factory=dict)


def read_segments(
    path: str | Path,
    unit: Unit = "frames",
    classes: Sequence[str] | None = None,
    background: str | None = None,
    inclusive: bool = False,
    columns: Columns | None = None,
    on_error: str = "raise",
    first_label: int | None = None,
) -> Segments:
    """Read a table of segments.

    Args:
        path: The file: CSV, TSV, semicolons, JSON or JSON lines.
        unit: The unit of start and end.
        classes: The class names; a label is a name or a number. None takes the labels in the file, sorted.
        background: The class of frames outside all segments; None leaves them without a label. With ``classes=None`` it
            becomes the first class if no segment has it.
        inclusive: With unit "frames", ``end`` is the last frame of a segment.
        columns: The names of the columns "video", "start", "end" and "label" (or "frame"), if they are unusual; or
            their numbers from 0, if the file has no header.
        on_error: "raise", or "skip" to add the videos of invalid rows to ``bad``.
        first_label: 0 or 1, the number of the first class, if labels are numbers. None detects it by a label 0 or a
            label equal to the number of classes, or raises.

    Raises:
        SeqclfError: The file is missing or not such a table; a row lacks a value, has an invalid time, ends before it
            starts, or has an unknown label. The message names the file and line.
    """
    if unit not in ("frames", "seconds"):
        raise SeqclfError(f'unit={unit!r}: expected "frames" or "seconds"')
    if inclusive and unit == "seconds":
        raise SeqclfError("inclusive=True is for frames; in seconds a segment ends where the next begins")
    table = read_table(path, columns)
    rows = _rows(table, unit)
    known = _classes((row[3] for _, row in rows if row[3]), background) if classes is None else list(classes)
    if background is not None and background not in known:
        raise SeqclfError(f"background={background!r} is not one of the classes {_listed(known)}")
    elsewhere = IGNORE if background is None else known.index(background)
    first = first_label if first_label is not None else _first_number(rows, known)
    found = Segments(str(path), unit, known, elsewhere, {})
    for record, row in rows:
        if not row[0]:
            raise SeqclfError(f"{record.where}: names no video")
        segments = found.videos.setdefault(row[0], [])
        try:
            if any(row[1:]):  # otherwise the video has no segments
                start, end = read_span(record, row[1], row[2], unit, table.delimiter, inclusive)
                segments.append(Segment(start, end, _index(row[3], known, first, record.where), record.line))
        except SeqclfError as error:
            if on_error == "raise":
                raise
            found.bad.setdefault(row[0], str(error))
    for name in found.videos:
        found.by_stem.setdefault(_stem(name), []).append(name)
        found.by_name.setdefault(posixpath.basename(_stem(name)), []).append(name)
    return found


def name_of(segments: Segments, path: str) -> str:
    """Find the name of the video at ``path`` in a table.

    It is the path itself, or else the only name that is equal without suffix, or without suffix and folders.

    Raises:
        SeqclfError: The table does not have the video, or several names match.
    """
    if path in segments.videos:
        return path
    stem = _stem(path)
    names = segments.by_stem.get(stem) or segments.by_name.get(posixpath.basename(stem), [])
    if len(names) > 1:  # prefer names that share the last folders of the path
        both = {name: (f"/{_stem(name)}", f"/{stem}") for name in names}
        names = [name for name, (a, b) in both.items() if a.endswith(b) or b.endswith(a)] or names
    if len(names) > 1:
        raise SeqclfError(f"{segments.path}: video {path} matches several names: {', '.join(names[:4])}")
    if names:
        return names[0]
    near = difflib.get_close_matches(path, segments.videos, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise SeqclfError(
        f"{segments.path}: has no row for video {path} (add a row with only the video if it has no segments){hint}"
    )


def _rows(table: Table, unit: Unit) -> list[tuple[Record, list[str]]]:
    """The rows with their video, start, end and label as written."""
    video, label, frame = table.find("video", PATH), table.find("label", LABEL), table.find("frame", FRAME)
    span = span_columns(table, unit)
    if video is None or label is None or (span is None and (frame is None or unit == "seconds")):
        other = (
            video is not None and label is not None and (frame is not None or span_columns(table, "auto") is not None)
        )
        way = f"its times are not in {unit}, set unit=" if other else "set columns={'video': <name>, ...}"
        raise SeqclfError(
            f"{table.path}: expected the columns video, start, end, label, not {', '.join(table.header)}: {way}"
        )
    if span is not None:
        return [(r, [r.cells[k] for k in (video, span[0], span[1], label)]) for r in table.records]
    assert frame is not None
    rows = []
    for record in table.records:
        number = whole_number(record.cells[frame])
        after = "" if number is None else str(number + 1)
        rows.append((record, [record.cells[video], record.cells[frame], after, record.cells[label]]))
    return rows


def _classes(labels: Iterable[str], background: str | None) -> list[str]:
    """The classes of a table without given classes, in natural order."""
    named = set(labels)
    every = named if background is None else named | {background}
    if all(map(str.isdecimal, every)):
        return sorted(every, key=natural_key)
    return sorted(every - named) + sorted(named, key=natural_key)


def _first_number(rows: Sequence[tuple[Record, list[str]]], classes: Sequence[str]) -> int:
    """The number of the first class, where labels are numbers."""
    numbers: dict[int, Record] = {}
    for record, row in rows:
        number = whole_number(row[3])
        if number is not None and not {row[3], str(number)} & set(classes):
            numbers.setdefault(number, record)
    if not numbers or min(numbers) <= 0:
        return 0
    if max(numbers) >= len(classes):
        return 1
    raise SeqclfError(
        f"{numbers[min(numbers)].where}: labels {min(numbers)} to {max(numbers)} may count from 0 or from 1: set "
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
    raise SeqclfError(f"{where}: label {label!r} is not one of the {len(classes)} classes {_listed(classes)}{hint}")


def _stem(name: str) -> str:
    return without_suffix(posixpath.normpath(name))


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
