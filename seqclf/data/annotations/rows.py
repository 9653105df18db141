"""Rows of tables of segments, and tables with a file per video."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from seqclf.batch import SeqclfError
from seqclf.data.frames.source import plain_path, unicode_forms, without_suffix
from seqclf.data.frames.span import Unit
from seqclf.data.tables.columns import FRAME, LABEL, PATH, Columns, normal
from seqclf.data.tables.label_cells import (
    check_usual_names,
    class_columns,
    classes_of,
    labels_in,
    only_label,
    only_video,
    timed_labels,
)
from seqclf.data.tables.spans import has_spans, missing_bounds, read_span, span_columns, unit_of
from seqclf.data.tables.table import Record, Table, numbered_lines, read_table, read_text, whole_number
from seqclf.runtime.text import some


@dataclass
class SegmentRow:
    """A row of a table: a segment of a video, or with ``error`` the reason why it is invalid.

    ``labels`` are its classes as written, and ``unknown`` the classes with an unknown label. ``start`` is None in a row
    that names only a video.
    """

    where: str
    line: int
    video: str
    start: float | None = None
    end: float = 0.0
    labels: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    error: SeqclfError | None = None


@dataclass
class SegmentRows:
    """The rows of a table, whether they label single frames, and the columns that were read."""

    rows: list[SegmentRow]
    by_frame: bool
    header: str
    classes: list[str] | None = None


@dataclass(frozen=True)
class _Columns:
    """The columns of a table of segments; ``video`` is None in the file of one video."""

    video: int | None
    label: int | None
    hot: list[int]
    span: tuple[int, int] | None
    frame: int | None


def read_annotation(path: Path, columns: Columns | None, one_video: bool) -> Table | list[str]:
    """Reads a table of segments. The file of one video may instead have a class name per line, one for each frame.

    Errors are those of ``read_segments``.
    """
    names = _lines_of_frames(path) if one_video and not columns else None
    return read_table(path, columns) if names is None else names


def segment_rows(
    table: Table | list[str],
    path: Path,
    video: str | None,
    unit: Unit,
    inclusive: bool,
    separator: str | None,
    known: bool,
) -> SegmentRows:
    """The rows of a table. Rows of neighbouring frames with the same labels are joined.

    Args:
        table: the content of the file, from ``read_annotation``.
        path: the file.
        video: the video, if the file is that of one.
        known: whether the class names are known, so that any text may be one.

    The other arguments, and the errors, are those of ``read_segments``.
    """
    if isinstance(table, list):
        rows = [
            SegmentRow(f"{path}, line {k + 1}", k + 1, video or "", k, k + 1, [name]) for k, name in enumerate(table)
        ]
        return SegmentRows(_joined(rows), True, "a class per line")
    found = _find_columns(table, unit, separator is not None, video is not None)
    rows = []
    for record in table.records:
        name = video if found.video is None else only_video(record.cells[found.video], record.where)
        if not name:
            raise SeqclfError(f"{record.where}: names no video")
        row = SegmentRow(record.where, record.line, name)
        try:
            rows += _read_row(row, record, table, found, unit, inclusive, separator, known)
        except SeqclfError as error:
            row.error = error
            rows.append(row)
    used = table.described(found.video, *(found.span or (found.frame,)), found.label, *found.hot)
    classes = [table.header[k] for k in found.hot] or None
    by_frame = found.span is None and found.frame is not None
    return SegmentRows(_joined(rows) if by_frame else rows, by_frame, used, classes)


def annotation_files(path: Path, names: Iterable[str], missing: dict[str, str] | None) -> dict[str, Path]:
    """The file of each video, where each has its own.

    Args:
        path: a folder, in which a file belongs to the video whose name it has or begins with, such as
            ``video01-phase.txt``; or a path with ``*`` for the name of the video, such as ``phases/*-phase.txt``.
        names: the videos.
        missing: filled with the reason for each video without a file; None to raise.

    Raises:
        SeqclfError: a video has no file, or several.
    """
    there = {plain_path(file.name): file for file in sorted(path.iterdir()) if file.is_file()} if path.is_dir() else {}
    files = {}
    for name in names:
        stem = posixpath.basename(without_suffix(plain_path(name)))
        if there or path.is_dir():
            begin = [there[n] for n in there if n.startswith(stem) and not n[len(stem) : len(stem) + 1].isalnum()]
            same = [file for file in begin if plain_path(file.stem) == stem] or begin
            if len(same) > 1:
                shown = f"{path / same[0].name.replace(stem, '*', 1)}"
                raise SeqclfError(
                    f"{path}: {same[0].name} and {same[1].name} match video {name}: set a pattern, such as {shown!r}"
                )
        else:
            files_of = [Path(str(path).replace("*", one)) for one in unicode_forms(stem)]
            same = [file for file in files_of if file.is_file()][:1]
        if same:
            files[name] = same[0]
        elif missing is None:
            raise SeqclfError(f"{path}: has no file for video {name}")
        else:
            missing[name] = f"{path}: has no file for video {name}"
    return files


def _find_columns(table: Table, unit: Unit, several: bool, one_video: bool) -> _Columns:
    """The columns of a table.

    Raises:
        SeqclfError: a column is missing, or times are not in the unit.
    """
    video = None if one_video else table.find("video", PATH)
    label = table.find("label", LABEL) if "labels" not in table.columns else None
    frame, span = table.find("frame", FRAME), span_columns(table, unit)
    other = span_columns(table, "seconds" if unit == "frames" else "frames")
    hot = class_columns(table, several) if label is None else []
    if several and label is not None:
        check_usual_names(table, {"label": label})
    timed = label is not None and span is None and all(_timed(r.cells[label]) for r in table.records)
    times = span is not None or (frame is not None and unit == "frames") or (timed and unit == "seconds")
    if (video is None and not one_video) or (label is None and not hot) or not times:
        missing = ["video"] * (video is None and not one_video)
        missing += [] if times else missing_bounds(table)
        missing += ["label"] * (label is None and not hot)
        way = f"set columns={{{', '.join(f'{purpose!r}: <name>' for purpose in missing)}}}"
        if label is None:
            way += ", or multi_label=True for a column per class"
        elif video is None and not one_video:
            way += ", or give the folder of the files if each is of one video"
        elif timed or frame is not None or other is not None:
            way = f"its times are not in {unit}, set unit="
        needed = "start, end, label" if one_video else "video, start, end, label"
        way = table.advice() or way
        raise SeqclfError(f"{table.path}: expected the columns {needed}, not {some(table.header, 12)}: {way}")
    return _Columns(video, label, hot, None if span is None else span[:2], None if timed else frame)


def unit_of_tables(tables: Iterable[Table | list[str]]) -> Unit | None:
    """The unit of start and end in tables, as by ``unit_of``; None if they may be frames or seconds."""
    for table in tables:
        if isinstance(table, Table):
            single = table.find("frame", FRAME) is not None
            unit: Unit | None = unit_of(table) if has_spans(table) else "frames" if single else "seconds"
            if unit is not None:
                return unit
    return None


def _timed(cell: str) -> bool:
    return cell == "" or timed_labels(cell) is not None


def _read_row(
    row: SegmentRow,
    record: Record,
    table: Table,
    found: _Columns,
    unit: Unit,
    inclusive: bool,
    separator: str | None,
    known: bool,
) -> list[SegmentRow]:
    """The segments of a row: one, or one for each action with times."""
    cells = record.cells
    label = "" if found.label is None else cells[found.label]
    if found.span is None and found.frame is None:
        timed = timed_labels(label) if label else []
        spans = [(one.label, read_span(record, one.start, one.end, unit, ";")) for one in timed or []]
        return [replace(row, start=a, end=b, labels=[name]) for name, (a, b) in spans] or [row]
    if found.hot:
        row.labels, row.unknown = classes_of(record, found.hot, table.header)
    elif separator is not None:
        row.labels = labels_in(label, separator, record.where, known)
    elif label:
        row.labels = [label if known else only_label(label, record.where)]
    if found.span is not None:
        start, end = (cells[k] for k in found.span)
        if not (start or end or label):
            return [row]
        row.start, row.end = read_span(record, start, end, unit, table.delimiter, inclusive)
    else:
        assert found.frame is not None
        number = whole_number(cells[found.frame])
        if not (cells[found.frame] or label):
            return [row]
        after = "" if number is None else str(number + 1)
        row.start, row.end = read_span(record, cells[found.frame], after, unit, table.delimiter)
    if not row.labels and separator is None:
        raise SeqclfError(f"{record.where}: label '' is empty, expected a class")
    return [row]


def _joined(rows: Iterable[SegmentRow]) -> list[SegmentRow]:
    """Joins rows of one video that follow each other and have the same labels."""
    out: list[SegmentRow] = []
    for row in rows:
        last = out[-1] if out else None
        if (
            last is not None
            and last.error is row.error is None
            and last.start is not None
            and (last.video, last.end, last.labels, last.unknown) == (row.video, row.start, row.labels, row.unknown)
        ):
            last.end = row.end
        else:
            out.append(row)
    return out


def _lines_of_frames(path: Path) -> list[str] | None:
    """The class names of a file with one per line; None for a table."""
    head = next((line for _, line in numbered_lines(path, comments=False)), "")
    if any(delimiter in head for delimiter in ",;\t{["):
        return None
    names = [line.strip() for line in read_text(path).rstrip().split("\n")]
    if "" in names:
        raise SeqclfError(f"{path}, line {names.index('') + 1}: is empty, expected a class name")
    if (names[0].startswith("#") or normal(names[0]) in LABEL) and names[0] not in names[1:]:
        raise SeqclfError(f"{path}, line 1: {names[0]!r} seems to be a comment or a header: remove the line")
    if match := re.fullmatch(r"[\d.:]+(-|\s+)[\d.:]+\s+\S.*", names[0]):
        columns = "{'start': 0, 'end': 0, 'label': 1}" if match[1] == "-" else "{'start': 0, 'end': 1, 'label': 2}"
        raise SeqclfError(f"{path}, line 1: {names[0]!r} seems to be a segment, not a class: set columns={columns}")
    return names
