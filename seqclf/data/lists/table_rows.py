"""Rows of video lists that are tables with a header, or JSON objects."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Literal

from seqclf.batch import SeqclfError
from seqclf.data.frames.span import Unit
from seqclf.data.lists.lines import Rows, hmdb51_rows, line_rows, make_row, path_lines
from seqclf.data.tables.columns import (
    GROUP,
    LABEL,
    LABEL_NAME,
    PATH,
    SPLIT,
    START,
    START_FRAME,
    START_SECONDS,
    Columns,
    normal,
)
from seqclf.data.tables.label_cells import (
    check_usual_names,
    class_columns,
    classes_of,
    labels_in,
    only_label,
    only_video,
)
from seqclf.data.tables.spans import check_inclusive, expect_ends, read_span, span_columns
from seqclf.data.tables.table import Record, Table, header_of, named_columns, read_table, whole_number
from seqclf.runtime.text import counted, some

_LIKE_START = re.compile(
    "(clip|segment|event|action|t)?(start|begin|onset)(time|stamp|frame|index|idx|number|s|secs?|seconds|ms|msecs?|us|ns)*"
)
"""Normalised names like those of the start of a clip."""
FORMS = ("auto", "lrcn", "ucf101", "rawframes", "plain", "csv", "kinetics")


def read_rows(
    path: Path,
    form: str,
    columns: Columns | None = None,
    clips: Unit | Literal["auto"] | None = None,
    separator: str | None = None,
    known: bool = False,
    inclusive: bool | None = None,
) -> Rows:
    """Reads the rows of a list.

    Args:
        path: the list; or the split files of HMDB51, with ``*`` for the class.
        form: one of ``FORMS``.
        columns: the columns for ``path``, ``label``, ``split`` and ``group``, if the header has unusual names or is
            missing.
        clips: the unit of start and end times of rows that are clips inside videos; "auto" detects it; None refuses
            such rows.
        separator: what separates the class names of a video with several; None if every video has one class.
        known: whether the class names are known, so that any text may be one.
        inclusive: whether the end of a clip is its last frame; None expects that it is not.

    Raises:
        SeqclfError: a line can't be read, or differs in shape from the first. The message names file and line.
    """
    if "*" in path.name:
        return hmdb51_rows(path)
    header = header_of(path, columns)
    usual = (
        header.find("path", PATH) is not None
        and (header.find("label", LABEL) is not None or len(header.header) > 2 - (separator is not None))
        and all(whole_number(name) is None for name in header.header)  # a first row of values, not a header
    )
    named = named_columns(columns)
    kinetics = form == "kinetics" or (form == "auto" and not named and header.find("", ("youtubeid",)) is not None)
    if kinetics or form == "csv" or named or header.records or (form == "auto" and usual):
        return _table_rows(read_table(path, columns), kinetics, clips, separator, known, inclusive)
    return line_rows(path, form, separator, known)


def read_path_rows(
    path: Path,
    columns: Columns | None = None,
    clips: Unit | Literal["auto"] | None = None,
    inclusive: bool | None = None,
) -> Rows:
    """Reads a list of paths. Without a header, the video is the longest prefix of a line that exists.

    Arguments are those of ``read_rows``, but without ``clips`` start and end are ignored.
    """
    if "*" in path.name:
        return hmdb51_rows(path)
    header = header_of(path, columns)
    others = [header.find("", names) for names in (LABEL, SPLIT, GROUP, START, START_FRAME, START_SECONDS)]
    video = header.find("path", PATH)
    if (
        named_columns(columns)
        or header.records
        or (video is not None and (len(header.header) == 1 or others != [None] * len(others)))
    ):
        table = read_table(path, columns)
        found = _rows_of(table, "csv", "no label")
        video, label = _need(table, "path", PATH), table.find("label", LABEL)
        times = None if named_columns(columns) else _kinetics_times(table)
        for record in table.records:
            row = make_row(record.where, record.line, only_video(record.cells[video], record.where), "")
            if times is not None:
                written = "" if label is None else record.cells[label]
                row.name, row.places = _kinetics_places(record, row.name, written, times)
            found.rows.append(row)
        if clips is not None and times is None:
            _add_spans(found, table, _span_columns(table, clips), inclusive)
        _fill(found, table, video)
        return found
    return path_lines(path)


def _table_rows(
    table: Table,
    kinetics: bool,
    clips: Unit | Literal["auto"] | None,
    separator: str | None,
    known: bool,
    inclusive: bool | None,
) -> Rows:
    """The rows of a table with a header. Labels are numbers if all of them are."""
    video = _need(table, "path", ("youtubeid",) if kinetics else PATH)
    label = table.find("label", LABEL) if "labels" not in table.columns else None
    found = _rows_of(table, "kinetics" if kinetics else "csv", "a name")
    span = None if kinetics else _span_columns(table, clips)
    times = _kinetics_times(table) if kinetics else None
    name = table.find("class_name", LABEL_NAME)
    hot = class_columns(table, separator is not None) if label is None else []
    if label is None and not hot:
        label = _need(table, "label", LABEL)
    found.classes = [table.header[k] for k in hot] or None
    if separator is not None:
        check_usual_names(table, {"group": table.find("group", GROUP)} if hot else {"label": label})
    for record in table.records:
        cells = record.cells
        row = make_row(record.where, record.line, only_video(cells[video], record.where), "")
        if label is not None:
            row.label = row.written = cells[label]
        if not row.name or (row.written == "" and label is not None and separator is None):
            empty = table.header[video if not row.name or label is None else label]
            raise SeqclfError(f"{record.where}: the column {empty!r} is empty")
        if times is not None:
            row.name, row.places, row.folder = *_kinetics_places(record, cells[video], row.written, times), ""
        if hot:
            row.labels, row.unknown = classes_of(record, hot, table.header)
        elif separator is not None:
            row.labels = labels_in(row.written, separator, record.where, known)
        elif not known:
            row.label = row.written = only_label(row.written, record.where)
        row.class_name = "" if name is None or name == label else cells[name]
        found.rows.append(row)
    _add_spans(found, table, span, inclusive)
    _fill(found, table, video, label, *(times or span or ())[:2], *hot)
    if separator is None and all(whole_number(row.written) is not None for row in found.rows):
        found.shape = "a number"
        for row in found.rows:
            row.label, row.written = whole_number(row.written) or 0, re.sub(r"\.0*$", "", row.written)
    return found


def _add_spans(found: Rows, table: Table, span: tuple[int, int, Unit] | None, inclusive: bool | None) -> None:
    """Fills in start and end of each row, from these columns.

    Raises:
        SeqclfError: as in ``read_span``; or the ends seem to be inclusive, and that is not set.
    """
    if span is None:
        return
    start, end, found.unit = span
    check_inclusive(inclusive, found.unit)
    videos: dict[str, list[tuple[float, float, int, str]]] = {}
    for row, record in zip(found.rows, table.records, strict=True):
        cells = record.cells
        row.span = read_span(record, cells[start], cells[end], found.unit, table.delimiter, bool(inclusive))
        videos.setdefault(row.name, []).append((*row.span, row.line, row.where))
    if inclusive is None and found.unit == "frames":
        expect_ends(videos.values())


def _rows_of(table: Table, form: str, shape: str) -> Rows:
    """Rows with the split and group columns of a table, and a note on its comments."""
    found = Rows(form, shape, [])
    for purpose, names in (("split", SPLIT), ("group", GROUP)):
        column = table.find(purpose, names)
        setattr(found, f"{purpose}_column", None if column is None else table.header[column])
    if table.comments:
        found.notes.append(counted(table.comments, "comment line"))
    return found


def _fill(found: Rows, table: Table, *columns: int | None) -> None:
    """Fills in split and groups of each row, and describes the columns."""
    split, group = table.find("split", SPLIT), table.find("group", GROUP)
    for row, record in zip(found.rows, table.records, strict=True):
        row.split = None if split is None else record.cells[split]
        row.group = None if group is None else record.cells[group]
    found.header = f" ({table.described(*columns, split, group)})"


def _span_columns(table: Table, clips: Unit | Literal["auto"] | None) -> tuple[int, int, Unit] | None:
    """The columns of start and end of clips inside videos."""
    any_span = span_columns(table, "seconds") or span_columns(table, "frames")
    start = table.find("start", START, START_FRAME, START_SECONDS)
    if any_span is None and start is not None:
        raise SeqclfError(
            f"{table.path}: column {table.header[start]!r} is the start of a clip, but there is no column for its end: "
            "set columns={'end': <name>}, or columns={'start': None} for whole videos"
        )
    like = next((name for name in table.header if _LIKE_START.fullmatch(normal(name))), None)
    if any_span is None and like is not None and "start" not in table.columns:
        raise SeqclfError(
            f"{table.path}: column {like!r} seems to be the start of a clip: set columns={{'start': {like!r}, 'end': "
            "<name>}, with times in seconds or frames, or columns={'start': None} for whole videos"
        )
    span = None if clips is None or any_span is None else span_columns(table, clips)
    if any_span is not None and span is None:
        shown = " and ".join(dict.fromkeys(repr(table.header[column]) for column in any_span[:2]))
        expected = "only whole videos can be used here" if clips is None else f"they are not in {clips} (set unit=)"
        raise SeqclfError(f"{table.path}: {shown} define clips inside videos, but {expected}")
    return span


def _kinetics_times(table: Table) -> list[int | None] | None:
    """The columns of start and end of a list of Kinetics, which name its files; None for other lists."""
    if table.find("", ("youtubeid",)) is None:
        return None
    return [table.find("", (name,)) for name in ("timestart", "timeend")]


def _kinetics_places(record: Record, name: str, label: str, times: list[int | None]) -> tuple[str, list[str]]:
    """Name and places of a video of Kinetics: a file named by id and times, or by id, or one in a folder per class."""
    names = [name]
    start, end = times
    if start is not None and end is not None:
        try:
            first, last = int(float(record.cells[start])), int(float(record.cells[end]))
        except (ValueError, OverflowError):
            raise SeqclfError(f"{record.where}: time_start and time_end must be numbers of seconds") from None
        names.insert(0, f"{name}_{first:06d}_{last:06d}")
    folders = dict.fromkeys(("", label, label.replace(" ", "_")))
    return names[0], [posixpath.join(folder, one) for one in names for folder in folders]


def _need(table: Table, purpose: str, names: tuple[str, ...]) -> int:
    """The column for a purpose, which must exist."""
    found = table.find(purpose, names)
    if found is None:
        way = table.advice() or f"set columns={{{purpose!r}: <name>}}, or multi_label=True for one column per class"
        raise SeqclfError(f"{table.path}: no column for the {purpose} in the header {some(table.header, 12)}: {way}")
    return found
