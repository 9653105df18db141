"""Cells with several labels, and columns with one class each."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from typing import NamedTuple
from unicodedata import normalize

from seqclf.batch import SeqclfError
from seqclf.data.frames.source import is_video
from seqclf.data.tables.columns import normal
from seqclf.data.tables.table import Record, Table, whole_number

_TIMED = re.compile(r"([^\s\d]\S*)\s+(\d+(?:\.\d+)?)\s+(\d+(?:\.\d+)?)")
_NUMBERS = re.compile(r"\d+(?:\s+\d+)+")
_ROW_NUMBERS = {"index", "idx", "id", "no", "nr", "row", "rowid", "rownumber"}
_MANY = "names several classes: set multi_label=True, or write one class per row"


class TimedLabel(NamedTuple):
    """A label with its start and end as written."""

    label: str
    start: str
    end: str


def timed_labels(cell: str) -> list[TimedLabel] | None:
    """The labels of a cell such as ``c092 11.90 21.20;c147 0.00 12.60`` (Charades); None for other cells."""
    if " " not in cell:  # quick, for long lists of single labels
        return None
    matches = [_TIMED.fullmatch(part.strip()) for part in cell.split(";")]
    return [TimedLabel(*match.groups()) for match in matches if match] if all(matches) else None


def labels_in(cell: str, separator: str, where: str, known: bool = False) -> list[str]:
    """The labels of a cell: ``walk|run``, ``1 3 5``, ``["walk", "run"]``, or those of ``timed_labels``.

    Raises:
        SeqclfError: the cell seems to have another separator, and the class names are not known.
    """
    timed, listed = timed_labels(cell), _listed(cell)
    other = next((mark for mark in "|;," if mark in cell), "")
    if other and separator not in cell and not (timed or listed is not None or known):
        raise SeqclfError(
            f"{where}: {cell!r} has no {separator!r}: set separator={other!r} if it has several labels, or list the "
            "names of all classes if it is one"
        )
    parts = [one.label for one in timed] if timed else cell.split(separator) if listed is None else listed
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))


def only_label(cell: str, where: str) -> str:
    """Returns the label of a cell. It may be in a list or a JSON object.

    Raises:
        SeqclfError: the cell holds several labels.
    """
    listed = _listed(cell)
    if listed is not None and len(listed) == 1:
        return listed[0].strip()
    if "|" in cell or listed is not None or timed_labels(cell):
        shown = cell if len(cell) < 60 else f"{cell[:57]}..."
        raise SeqclfError(f"{where}: {shown!r} {_MANY} (if it is one name, list the names of all classes)")
    return cell


def only_video(cell: str, where: str) -> str:
    """Returns the video of a cell. It may be in a list.

    Raises:
        SeqclfError: the cell names several videos.
    """
    listed = _listed(cell) if cell[:1] in ("[", "{") else [part for part in cell.split(";") if part.strip()]
    if listed is None or len(listed) < 2:
        return listed[0].strip() if listed else cell
    if all(is_video(part.strip()) for part in listed):
        raise SeqclfError(f"{where}: {cell!r} names {len(listed)} videos: write a row for each, with its own times")
    return cell


def class_columns(table: Table, several: bool) -> list[int]:
    """The columns of one class each, with 0 or 1: those of "labels" in ``columns``, or all that have no other use.

    Args:
        table: the table, in which all other columns have been found.
        several: whether clips may have several labels; otherwise there are no such columns.

    Raises:
        SeqclfError: a cell is not 0, 1 or empty.
    """
    given = table.columns.get("labels")
    if given is not None:
        names = [given] if isinstance(given, str | int) else list(given)
        found = [table.mapped(name, "labels") for name in names]
    else:
        found = _free(table)
    if not several:
        return []
    for record in table.records:
        wrong = next((k for k in found if _hot(record.cells[k]) is None), None)
        if wrong is not None:
            raise SeqclfError(
                f"{record.where}: column {table.header[wrong]!r} is {record.cells[wrong]!r}, expected 0, 1 or nothing "
                "for a class per column; set columns={'label': <name>}, or columns={'labels': [<names>]} for classes"
            )
    table.used += [k for k in found if k not in table.used]
    return found


def check_usual_names(table: Table, used: dict[str, int | None]) -> None:
    """Raises a ``SeqclfError`` if a column found by its usual name may be one of the columns with one class each.

    It then holds only 0, 1 or nothing, as a column without another use does, or as the columns of classes do.

    Args:
        table: the table, in which all columns have been found. Clips may have several labels.
        used: the purpose of columns, and their numbers.
    """

    def is_hot(column: int) -> bool:
        return all(_hot(record.cells[column]) is not None for record in table.records)

    found = {purpose: k for purpose, k in used.items() if k is not None and purpose not in table.columns and is_hot(k)}
    other = next((k for k in _free(table) if is_hot(k)), None) if found else None
    for purpose, column in found.items():
        if other is not None or "label" not in used:
            name = table.header[column]
            beside = "as those of classes do" if other is None else f"and so does {table.header[other]!r}"
            raise SeqclfError(
                f"{table.path}: column {name!r} holds only 0 and 1, {beside}: set columns={{'labels': [<names>]}} if "
                f"it is a class, or columns={{{purpose!r}: {name!r}}}"
            )


def _free(table: Table) -> list[int]:
    """The columns that have a name and no other use, and do not number the rows, as pandas writes."""

    def numbers_rows(column: int, name: str) -> bool:
        if name not in _ROW_NUMBERS:
            return re.fullmatch(r"unnamed\d+", name) is not None
        cells = [whole_number(record.cells[column]) for record in table.records]
        return None not in cells and len(set(cells)) == len(cells)

    names = enumerate(table.header)
    return [k for k, name in names if name and k not in table.used and not numbers_rows(k, normal(name))]


def classes_of(record: Record, columns: list[int], header: list[str]) -> tuple[list[str], list[str]]:
    """The classes whose columns are 1 in a row, and those whose columns are empty and so unknown."""
    values = {header[k]: _hot(record.cells[k]) for k in columns}
    return [name for name, value in values.items() if value == "1"], [n for n, value in values.items() if value == ""]


def check_alike(labels: Iterable[tuple[str, str]]) -> None:
    """Raises a ``SeqclfError`` if two labels, each with its location, look almost alike.

    They differ only in upper and lower case, in their spaces, or in how Unicode composes a letter such as "é".
    """
    first: dict[str, str] = {}
    for label, where in labels:
        other = first.setdefault(" ".join(normalize("NFC", label).casefold().split()), label)
        if other != label:
            one, two = map(repr if normalize("NFC", other) != normalize("NFC", label) else ascii, (label, other))
            raise SeqclfError(
                f"{where}: labels {one} and {two} differ only in case, spaces or accents: write one of them, or list "
                "the names of all classes (class_index= or classes=)"
            )


def _hot(cell: str) -> str | None:
    """Normalises a cell of a class column to "0", "1" or ""; None for another content."""
    number = {"true": 1, "false": 0}.get(cell.lower(), whole_number(cell))
    return "" if cell == "" else str(number) if number in (0, 1) else None


def _listed(cell: str) -> list[str] | None:
    """The values of a list or object in JSON or Python, or numbers between spaces; None for other cells."""
    if _NUMBERS.fullmatch(cell):
        return cell.split()
    if not ((cell.startswith("[") and cell.endswith("]")) or (cell.startswith("{") and cell.endswith("}"))):
        return None
    try:
        values = ast.literal_eval(cell)
    except (ValueError, SyntaxError):
        return None
    if isinstance(values, dict):  # such as {"choices": ["walk", "run"]}
        values = [one for value in values.values() for one in (value if isinstance(value, list) else [value])]
    return [str(value) for value in values] if isinstance(values, list) else None
