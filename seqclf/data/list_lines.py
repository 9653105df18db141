"""Parsing of video lists: each line becomes a row with a path and a label."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seqclf.batch import SeqclfError
from seqclf.data.source import VIDEOS
from seqclf.data.spans import Unit, read_span, span_columns
from seqclf.data.tables import (
    LABEL,
    LABEL_NAME,
    PATH,
    SPLIT,
    START,
    START_FRAME,
    START_SECONDS,
    Columns,
    Record,
    Table,
    header_of,
    numbered_lines,
    read_table,
    read_text,
    whole_number,
)

FORMS = ("auto", "lrcn", "ucf101", "rawframes", "plain", "csv", "kinetics")

_GAP, _NUMBER = r"(?:\s*[,;]\s*|\s+)", r"\d{1,18}"
_VIDEO = rf".+(?i:{'|'.join(map(re.escape, VIDEOS))})\"?"
_SHAPES = (  # what a line has after the path, and its pattern, by precedence
    ("frames and a number", rf"(?P<path>.+?){_GAP}(?P<frames>{_NUMBER}){_GAP}(?P<label>-?{_NUMBER})"),
    ("a number", rf"(?P<path>.+?){_GAP}\"?(?P<label>-?{_NUMBER}(?:\.0*)?)\"?"),
    ("no label", rf"(?P<path>{_VIDEO}|[^\s,;]+)"),
    ("a name", rf"(?P<path>{_VIDEO}){_GAP}(?P<label>.+)"),
    ("a name", r"(?P<path>[^,;\t]+?)\s*[,;\t]\s*(?P<label>.+)"),
    ("a name", r"(?P<path>\S+)\s+(?P<label>\S+)"),
)
_SHAPES_OF = {
    "auto": {shape for shape, _ in _SHAPES},
    "lrcn": {"a number"},
    "ucf101": {"a number", "no label"},
    "rawframes": {"frames and a number"},
    "plain": {"a number", "a name", "no label"},
}
_SEVERAL = re.compile(rf".+?(?:{_GAP}{_NUMBER}){{3,}}")
_HMDB51 = re.compile(r"_test_split\d\.txt$")
_LONGEST = 4_000  # characters of a line: the patterns can take minutes on longer lines


@dataclass
class Row:
    """A row of a list.

    Attributes:
        where: The file and line, for error messages.
        line: The line number, from 1.
        name: The path of the video as written.
        label: The class number or the class name.
        folder: The name of the video's parent folder; "" if the path has none.
        places: Paths from the root where the video may be, in order of precedence.
        frames: The number of frames, if the list has it.
        written: The label as written.
        class_name: The class name in a column beside a numeric label, or "".
        split: The content of the split column, or None if there is no such column.
        span: Start and end of a clip inside the video, or None for the whole video.
    """

    where: str
    line: int
    name: str
    label: int | str
    folder: str
    places: list[str]
    frames: int | None = None
    written: str = ""
    class_name: str = ""
    split: str | None = None
    span: tuple[float, float] | None = None


@dataclass
class Rows:
    """The rows of a list.

    Attributes:
        form: The form of the list.
        shape: What a line has after the path: "a number", "a name", "frames and a number" or "no label".
        rows: The rows.
        comments: The number of comment lines skipped.
        split_column: The name of the split column, or None.
        unit: The unit of the spans, or None.
    """

    form: str
    shape: str
    rows: list[Row]
    comments: int = 0
    split_column: str | None = None
    unit: Unit | None = None


def read_rows(
    path: Path,
    form: str,
    columns: Columns | None = None,
    split_column: str | None = None,
    clips: Unit | Literal["auto"] | None = None,
) -> Rows:
    """Read the rows of a list.

    Args:
        path: The list.
        form: One of ``FORMS``.
        columns: The columns for ``path``, ``label`` and ``split``, if the header has unusual names or is missing.
        split_column: The name of the split column in the header; None looks for the usual names.
        clips: The unit of start and end times of rows that are clips inside videos; "auto" detects it; None refuses
            such rows.

    Raises:
        SeqclfError: A line can't be read, or differs in shape from the first. The message names file and line.
    """
    columns = {**(columns or {}), **({} if split_column is None else {"split": split_column})}
    header = header_of(path, columns)
    if form == "kinetics" or (form == "auto" and header.find("", ("youtubeid",)) is not None and not columns):
        return _kinetics_rows(path, columns)
    usual = (
        header.find("path", PATH) is not None
        and (header.find("label", LABEL) is not None or len(header.header) > 2)
        and all(whole_number(name) is None for name in header.header)  # a first row of values, not a header
    )
    if form == "csv" or columns or header.records or (form == "auto" and usual):
        return _table_rows(path, columns, clips)
    return _line_rows(path, form)


def path_rows(path: Path, columns: Columns | None = None, split_column: str | None = None) -> Rows:
    """Read a list of paths. Without a header, the video is the longest prefix of a line that exists."""
    columns = {**(columns or {}), **({} if split_column is None else {"split": split_column})}
    header = header_of(path, columns)
    others = [header.find("", names) for names in (LABEL, SPLIT, START, START_FRAME, START_SECONDS)]
    video = header.find("path", PATH)
    if columns or header.records or (video is not None and (len(header.header) == 1 or others != [None] * len(others))):
        table = read_table(path, columns)
        video, split = _need(table, "path", PATH), table.find("split", SPLIT)
        rows = [
            _row(record.where, record.line, record.cells[video], "", split=_cell(record, split))
            for record in table.records
        ]
        return Rows("csv", "no label", rows, table.comments, None if split is None else table.header[split])
    rows = []
    lines = _checked_lines(path)
    for line, text in lines:
        cuts = [len(text), *(gap.start() for gap in reversed(list(re.finditer(_GAP, text))))]
        places = [place for cut in cuts if cut for place in _row("", line, _unquoted(text[:cut]), "").places[:1]]
        rows.append(Row(f"{path}, line {line}", line, text, "", "", places))
    return Rows("paths", "no label", rows, _comments(path))


def _line_rows(path: Path, form: str) -> Rows:
    """The rows of a list without a header."""
    if _HMDB51.search(path.name):
        raise SeqclfError(
            f"{path}: is a split file of HMDB51, whose numbers mean training (1) and test (2), not classes: convert it "
            "to lists of videos with their classes"
        )
    rows: list[Row] = []
    first = ""
    for line, text in _checked_lines(path):
        where = f"{path}, line {line}"
        if _SEVERAL.fullmatch(text):
            raise SeqclfError(
                f"{where}: {text!r} has three numbers or more after the path, expected one label; clips inside videos "
                "need a header, such as path,start,end,label"
            )
        matches = ((shape, re.fullmatch(rule, text)) for shape, rule in _SHAPES if shape in _SHAPES_OF[form])
        shape, match = next(((shape, match) for shape, match in matches if match), ("", None))
        if match is None:
            raise SeqclfError(f"{where}: {text!r} is not in the form {form}: expected a path and its label")
        first = first or shape
        if shape != first:
            raise SeqclfError(
                f"{where}: {text!r} is a path with {shape}, but line {rows[0].line} has {first}: all lines must have "
                "the same form (set form=)"
            )
        parts = match.groupdict()
        label: int | str | None = None
        written = _unquoted(parts.get("label") or "")
        if "label" in parts:
            number = None if shape == "a name" else whole_number(written)
            label = written if number is None else number
        frames = int(parts["frames"]) if "frames" in parts else None
        rows.append(_row(where, line, _unquoted(parts["path"]), label, frames, written))
        if rows[-1].label == "":
            raise SeqclfError(f"{where}: {text!r} has no label and no parent folder that names its class")
    if form == "auto":
        form = "rawframes" if rows[0].frames is not None else "plain"
    return Rows(form, first, rows, _comments(path))


def _table_rows(path: Path, columns: Columns, clips: Unit | Literal["auto"] | None) -> Rows:
    """The rows of a table with a header. Labels are numbers if all of them are."""
    table = read_table(path, columns)
    video, label = _need(table, "path", PATH), _need(table, "label", LABEL)
    name, split = table.find("class_name", LABEL_NAME), table.find("split", SPLIT)
    any_span = span_columns(table, "seconds") or span_columns(table, "frames")
    span = None if clips is None else span_columns(table, clips)
    if any_span is not None and span is None:
        shown = " and ".join(repr(table.header[column]) for column in any_span[:2])
        expected = "only whole videos can be used here" if clips is None else f"they are not in {clips} (set unit=)"
        raise SeqclfError(f"{path}: columns {shown} define clips inside videos, but {expected}")
    found = Rows("csv", "a name", [], table.comments, None if split is None else table.header[split])
    found.unit = None if span is None else span[2]
    for record in table.records:
        if not record.cells[video] or not record.cells[label]:
            missing = table.header[video if not record.cells[video] else label]
            raise SeqclfError(f"{record.where}: the column {missing!r} is empty")
        written = record.cells[label]
        row = _row(record.where, record.line, record.cells[video], written, None, written, _cell(record, split))
        row.class_name = "" if name is None or name == label else record.cells[name]
        if span is not None:
            row.span = read_span(record, record.cells[span[0]], record.cells[span[1]], span[2], table.delimiter)
        found.rows.append(row)
    numbers = [whole_number(row.written) for row in found.rows]
    if all(number is not None for number in numbers):
        found.shape = "a number"
        for row, number in zip(found.rows, numbers, strict=True):
            row.label, row.written = int(number or 0), re.sub(r"\.0*$", "", row.written)
    return found


def _kinetics_rows(path: Path, columns: Columns) -> Rows:
    """The rows of a Kinetics list. Files are named by id and times, or by id, optionally in a folder per class."""
    table = read_table(path, columns)
    video, label = _need(table, "path", ("youtubeid",)), _need(table, "label", ("label",))
    start, end, split = (table.find(*names) for names in (("", ("timestart",)), ("", ("timeend",)), ("split", SPLIT)))
    rows = []
    for record in table.records:
        name, label_name = record.cells[video], record.cells[label]
        if not name or not label_name:
            raise SeqclfError(f"{record.where}: the video or the class is empty")
        names = [name]
        if start is not None and end is not None:
            try:
                first, last = int(float(record.cells[start])), int(float(record.cells[end]))
            except (ValueError, OverflowError):
                raise SeqclfError(f"{record.where}: time_start and time_end must be numbers of seconds") from None
            names.insert(0, f"{name}_{first:06d}_{last:06d}")
        folders = dict.fromkeys(("", label_name, label_name.replace(" ", "_")))
        places = [posixpath.join(folder, one) for one in names for folder in folders]
        row = Row(record.where, record.line, names[0], label_name, "", places, written=label_name)
        row.split = _cell(record, split)
        rows.append(row)
    return Rows("kinetics", "a name", rows, table.comments, None if split is None else table.header[split])


def _need(table: Table, purpose: str, names: tuple[str, ...]) -> int:
    """The column for a purpose, which must exist."""
    found = table.find(purpose, names)
    if found is None:
        raise SeqclfError(
            f"{table.path}: no column for the {purpose} in the header {', '.join(table.header)}: "
            f"set columns={{{purpose!r}: <name>}} (one column per class is not supported)"
        )
    return found


def _cell(record: Record, column: int | None) -> str | None:
    return None if column is None else record.cells[column]


def _checked_lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a list without comments, checked for their length."""
    lines = numbered_lines(path)
    for number, line in lines:
        if len(line) > _LONGEST:
            raise SeqclfError(f"{path}, line {number}: has {len(line):,} characters, expected a list of videos")
    return lines


def _comments(path: Path) -> int:
    return sum(line.lstrip().startswith("#") for line in read_text(path).split("\n"))


def _row(
    where: str,
    line: int,
    name: str,
    label: int | str | None,
    frames: int | None = None,
    written: str = "",
    split: str | None = None,
) -> Row:
    """A row. Without a label, the class is the name of the video's parent folder."""
    place = posixpath.normpath(name if "/" in name else name.replace("\\", "/"))
    above, last = posixpath.split(place)
    folder = posixpath.basename(above)
    places = [place, last] if above else [place]
    return Row(where, line, name, folder if label is None else label, folder, places, frames, written, "", split)


def _unquoted(text: str) -> str:
    return text[1:-1].strip() if len(text) > 2 and text[0] == text[-1] == '"' else text
