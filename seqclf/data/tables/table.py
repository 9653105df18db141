"""Text tables: CSV, TSV, semicolons, JSON and JSON lines.

Lists of videos, tables of segments and class names are all read here, so that encodings, line ends, comments and
headers are handled in the same way everywhere.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seqclf.batch import SeqclfError
from seqclf.data.tables.columns import ENDS, PURPOSES, TIMES, Columns, known_header, normal
from seqclf.data.tables.json_tables import cell_text, json_objects, json_rows
from seqclf.runtime.text import some

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx and .ods, .xls
_DECIMAL = r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d\d?)?"


@dataclass
class Record:
    """One row of a table: its location for error messages, its line (or entry) number, and its cells."""

    where: str
    line: int
    cells: list[str]


@dataclass
class Table:
    """The rows of a table under a header.

    Attributes:
        path: the file.
        header: the column names as written; numbers if the file has no header.
        records: the rows, each with as many cells as the header. Lists and objects in JSON are cells of JSON text.
        comments: the number of comment lines skipped.
        delimiter: the delimiter of cells; "" in JSON.
        columns: the user's mapping, which takes precedence over the usual names.
        used: the columns that were found.
    """

    path: Path
    header: list[str]
    records: list[Record]
    comments: int = 0
    delimiter: str = ""
    columns: Columns = field(default_factory=dict)
    used: list[int] = field(default_factory=list)

    def find(self, purpose: str, *names: Sequence[str]) -> int | None:
        """Finds the column for a purpose: the mapped one, or the first of ``names`` in the header.

        Returns:
            the number of the column from 0, or None.

        Raises:
            SeqclfError: the mapping names a missing column, or the header has the name twice.
        """
        found = None
        if purpose in self.columns:
            if self.columns[purpose] is None:
                return None
            found = self.mapped(self.columns[purpose], purpose)
        else:
            given = self.columns.get("labels")
            classes: set[Any] = {given} if isinstance(given, str | int) else set(given or ())
            keys = ["" if name in classes else normal(name) for name in self.header]
            for name in (name for group in names for name in group):
                if keys.count(name) > 1:
                    raise SeqclfError(f"{self.path}: the header has the column {name!r} more than once")
                if name in keys:
                    found = keys.index(name)
                    break
        if found is not None and found not in self.used:
            self.used.append(found)
        return found

    def mapped(self, wanted: Any, purpose: str) -> int:
        """The number of the column that the user's mapping names for a purpose. Errors as in ``find``."""
        number = wanted if isinstance(wanted, int) else self.header.index(wanted) if wanted in self.header else -1
        if not 0 <= number < len(self.header):
            raise SeqclfError(
                f"{self.path}: columns has {purpose!r}: {wanted!r}, but the columns are {some(self.header, 12)}"
            )
        return number

    def advice(self) -> str:
        """Advice if columns are missing, by the signs of a table in another form. "" if there is none."""
        names = [normal(name) for name in self.header]
        if len(names) == 1 and " " in self.header[0]:
            return "separate the cells by commas, semicolons or tabs"
        if any(re.fullmatch(r"(start|begin|end|stop|onset|offset)(time)?(ms|msec)", name) for name in names):
            return "convert milliseconds to seconds, or name their columns with columns= and set annotation_fps=1000"
        if any(re.fullmatch(r"duration(s|sec|seconds|ms|msec)?", name) for name in names) and not set(names) & ENDS:
            return "give the end of each segment in place of its duration"
        if "time" in names and {"status", "behaviortype"} & set(names):
            return "its rows are single times, export segments with start and end (BORIS: aggregated events)"
        if not self.delimiter and any(cell[:1] in ("[", "{") for record in self.records[:1] for cell in record.cells):
            return "write a list with an object for each row, whose keys are the columns"
        times = sum(number_of_seconds(name) is not None for name in self.header)
        if times > 1 or any(name.startswith(("[", "{")) for name in self.header):
            return "if it has no header, set columns= to numbers from 0, such as {'start': 1, 'end': 2, 'label': 3}"
        return ""

    def described(self, *columns: int | None) -> str:
        """Names of columns, and the well-known table whose header this is: "id, actions; the header of Charades"."""
        known = known_header(normal(name) for name in self.header)
        names = dict.fromkeys(self.header[k] for k in columns if k is not None)
        return ", ".join(names) + (f"; the header of {known}" if known else "")


def read_text(path: str | Path) -> str:
    """Reads a text file in UTF-8, or in UTF-16 with a byte order mark. Line ends become ``\\n``.

    Raises:
        SeqclfError: the file is missing, unreadable, empty, or in another encoding.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        if content.startswith(_SPREADSHEETS):
            raise SeqclfError(f"{path}: is a spreadsheet or an archive, expected text: export it as CSV")
        text = content.decode("utf-16" if content.startswith(_UTF16) else "utf-8-sig")
    except FileNotFoundError:
        raise SeqclfError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise SeqclfError(
            f"{path}: is not UTF-8 text (byte {error.start}: {error.reason}); save the file as UTF-8"
        ) from None
    except OSError as error:
        raise SeqclfError(f"{path}: can't be read ({error.strerror})") from None
    if not text.strip():
        raise SeqclfError(f"{path}: is empty")
    if text.lstrip()[:9].lower().startswith(("<?xml", "<!doctype")):
        raise SeqclfError(f"{path}: is XML, expected a table: export it as tab-separated text, CSV or JSON")
    if "\0" in text:
        raise SeqclfError(
            f"{path}: has zero bytes, as a binary file or UTF-16 without its mark; save the file as UTF-8"
        )
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(r"\Asep=.\n", "\n", text)  # Excel's note on the delimiter; the line numbers stay


def numbered_lines(path: str | Path, comments: bool = True) -> list[tuple[int, str]]:
    """The lines of a file with their numbers from 1, stripped, without blank ones.

    Args:
        path: the file.
        comments: leave out lines that begin with ``#``.

    Raises:
        SeqclfError: as in ``read_text``; or no line is left.
    """
    lines = [(number, line.strip()) for number, line in enumerate(read_text(path).split("\n"), 1)]
    lines = [(number, line) for number, line in lines if line and not (comments and line.startswith("#"))]
    if not lines:
        raise SeqclfError(f"{path}: has only comments")
    return lines


def read_table(path: str | Path, columns: Columns | None = None) -> Table:
    """Reads a table whose first line is a header, or JSON objects, whose keys form the header.

    The delimiter is ``,``, ``;`` or tab, whichever is most frequent in the header. Lines that begin with ``#`` are
    comments.

    Args:
        path: the file.
        columns: names or numbers of columns. If all are numbers, the file has no header.

    Raises:
        SeqclfError: as in ``read_text``; or a row is not CSV or differs from the header in its number of cells; or
            there are no rows.
    """
    path, columns = Path(path), check_columns(path, columns)
    text = read_text(path)
    if (objects := json_objects(path, text)) is not None:
        return _json_table(path, objects, columns)
    lines = text.split("\n")
    comments = [k for k, line in enumerate(lines) if line.lstrip().startswith("#")]
    for k in comments:
        lines[k] = ""  # keeps the line numbers
    head = next((line for line in lines if line.strip()), "")
    delimiter, named = delimiter_of(head), named_columns(columns)
    headless = bool(named) and all(isinstance(column, int) for column in named)
    if headless and delimiter not in head:  # cells between spaces; only a label in the last one may have spaces
        last = max(named)
        most = last if last in (columns.get("label"), columns.get("video")) else last + 1
        lines, delimiter = ["\t".join(line.split(None, most)[: last + 1]) for line in lines], "\t"
        head = next((line for line in lines if line), "")
    reader = csv.reader(
        io.StringIO("\n".join(lines), newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    header: list[str] = []
    if headless:
        header = [str(k) for k in range(len(next(csv.reader([head], delimiter=delimiter))))]
    records: list[Record] = []
    try:
        for row in reader:
            cells = [cell_text(cell) for cell in row]
            where = f"{path}, line {reader.line_num}"
            if not any(cells):
                continue
            if not header:
                header = cells
            elif len(cells) != len(header):
                hint = "" if records else " (the first line must be the header, or set columns= to numbers)"
                raise SeqclfError(f"{where}: has {len(cells)} cells, but the header has {len(header)}{hint}")
            else:
                records.append(Record(where, reader.line_num, cells))
    except csv.Error as error:
        raise SeqclfError(f"{path}, line {reader.line_num}: not CSV ({error})") from None
    if not records:
        raise SeqclfError(f"{path}: has no rows below the header (without a header, set columns= to numbers)")
    return Table(path, header, records, len(comments), delimiter, columns)


def named_columns(columns: Columns | None) -> list[Any]:
    """The columns of a mapping that are not ignored."""
    return [column for column in (columns or {}).values() if column is not None]


def check_columns(path: str | Path, columns: Columns | None) -> Columns:
    """The mapping with "path" and "video" as the same purpose.

    Raises:
        SeqclfError: a purpose is unknown.
    """
    columns = dict(columns or {})
    unknown = next((purpose for purpose in columns if purpose not in PURPOSES), None)
    if unknown is not None:
        raise SeqclfError(f"{path}: columns has {unknown!r}, expected {', '.join(PURPOSES)}")
    for one, other in (("path", "video"), ("video", "path")):
        if one in columns:
            columns[other] = columns[one]
    return columns


def header_of(path: str | Path, columns: Columns | None = None) -> Table:
    """Reads only the first line of a file, as the header of a table without rows. JSON files are read in full."""
    text = read_text(path)
    if (objects := json_objects(Path(path), text)) is not None:
        return _json_table(Path(path), objects, check_columns(path, columns))
    head = next((line for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")), "")
    names = [name.strip(' "') for name in head.split(delimiter_of(head))]
    return Table(Path(path), names, [], columns=check_columns(path, columns))


def delimiter_of(header: str) -> str:
    """The delimiter of a header: comma, semicolon or tab, whichever is most frequent."""
    return max(",;\t", key=header.count)


def whole_number(text: str) -> int | None:
    """Parses a whole number such as ``3``, ``-1`` or ``3.0``; None if the text is not one."""
    match = re.fullmatch(r"(-?\d{1,18})(\.0*)?", text, re.ASCII)
    return None if match is None else int(match[1])


def number_of_seconds(text: str, comma: bool = False) -> float | None:
    """Parses a time such as ``1.5``, ``0:01.5`` or ``00:00:01.500`` to seconds; None if the text is not one.

    Args:
        text: the time, as seconds, ``mm:ss`` or ``hh:mm:ss``.
        comma: allow a decimal comma, as in ``1,5``.
    """
    if comma:
        text = text.replace(",", ".") if text.count(",") == 1 and "." not in text else text
    match = re.fullmatch(rf"(?:(?:(\d+):)?(\d+):)?({_DECIMAL})", text, re.ASCII)
    if match is None:
        return None
    hours, minutes, seconds = int(match[1] or 0), int(match[2] or 0), float(match[3])
    if (match[2] is not None and seconds >= 60) or (match[1] is not None and minutes >= 60):
        return None
    return hours * 3600 + minutes * 60 + seconds


def _json_table(path: Path, objects: list[Any], columns: Columns) -> Table:
    """Makes a table of JSON objects, whose keys form the header; see ``json_rows`` for their rows."""
    times = {*TIMES, *(str(columns[purpose]) for purpose in ("start", "end", "frame") if purpose in columns)}
    rows = json_rows(path, objects, times)
    header = list(dict.fromkeys(key for _, row in rows for key in row))
    records = [
        Record(f"{path}, entry {number}", number, [cell_text(row.get(key)) for key in header]) for number, row in rows
    ]
    if not records:
        raise SeqclfError(f"{path}: has no entry")
    return Table(path, header, records, columns=columns)
