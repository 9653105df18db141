"""Start and end of segments, or of clips inside videos, in tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

from seqclf.batch import SeqclfError
from seqclf.data.frames.span import Unit
from seqclf.data.tables.columns import END, END_FRAME, END_SECONDS, START, START_FRAME, START_SECONDS
from seqclf.data.tables.table import Record, Table, number_of_seconds, whole_number

_TIME_CODE = re.compile(r"\d+:\d+:\d+[:;]\d+")
_BOTH = re.compile(r"[\[(]?\s*([\d.:]+)\s*[-,]\s*([\d.:]+)\s*[\])]?")


def span_columns(table: Table, unit: Unit | Literal["auto"]) -> tuple[int, int, Unit] | None:
    """Finds the columns of start and end in a table, and their unit; None if the table has none in this unit.

    Args:
        table: the table.
        unit: the unit; "auto" for that of ``unit_of``.

    Raises:
        SeqclfError: with "auto", times may be frames or seconds.
    """
    found = _columns_by_unit(table)
    if unit == "auto" and found:
        decided = unit_of(table)
        if decided is None:
            shown = " and ".join(repr(table.header[k]) for k in found["frames"])
            raise SeqclfError(
                f"{table.path}: {shown} are whole numbers, which may be frames or seconds: set unit='frames' or "
                "unit='seconds'"
            )
        unit = decided
    return None if unit == "auto" or unit not in found else (*found[unit], unit)


def unit_of(table: Table) -> Unit | None:
    """The unit of start and end in a table, by their names, or else by the times: fractions are seconds.

    None if times are whole numbers, which may be either, or if the table has no such columns. A table with both is read
    in seconds, which hold for copies of its videos at any frame rate.
    """
    found = _columns_by_unit(table)
    if len(found) < 2 or found["frames"] != found["seconds"]:
        return "seconds" if "seconds" in found else "frames" if found else None
    start, end = found["frames"]
    return "seconds" if any(_has_fraction(record.cells[start], record.cells[end]) for record in table.records) else None


def has_spans(table: Table) -> bool:
    """Whether a table has columns of start and end."""
    return bool(_columns_by_unit(table))


def missing_bounds(table: Table) -> list[str]:
    """Which of "start" and "end" have no column in any unit."""
    start = table.find("start", START, START_FRAME, START_SECONDS)
    end = table.find("end", END, END_FRAME, END_SECONDS)
    return [name for name, column in (("start", start), ("end", end)) if column is None]


def _columns_by_unit(table: Table) -> dict[Unit, tuple[int, int]]:
    """The columns of start and end in each unit that the table has. Columns named "start" and "end" may be both."""
    found: dict[Unit, tuple[int, int]] = {}
    names: dict[Unit, tuple[Sequence[str], Sequence[str]]]
    names = {"frames": (START_FRAME, END_FRAME), "seconds": (START_SECONDS, END_SECONDS)}
    for unit, (starts, ends) in names.items():
        start, end = table.find("start", START, starts), table.find("end", END, ends)
        if start is not None and end is not None:
            found[unit] = start, end
    return found


def _has_fraction(start: str, end: str) -> bool:
    """Whether times are no whole numbers, such as 1.5, 1,5 or 00:01."""
    return any(
        whole_number(time) is None and number_of_seconds(time, comma=True) is not None for time in _bounds(start, end)
    )


def _bounds(start: str, end: str) -> tuple[str, str]:
    """Start and end as texts; equal ones may hold both, as in ``[1.5, 3]`` or ``31-150``."""
    both = _BOTH.fullmatch(start) if start == end else None
    return (start, end) if both is None else (both[1], both[2])


def read_span(
    record: Record, start: str, end: str, unit: Unit, delimiter: str, inclusive: bool = False
) -> tuple[float, float]:
    """Parses start and end of a row.

    Args:
        record: the row, for errors.
        start, end: the texts; equal ones may hold both, as in ``[1.5, 3]`` or ``31-150``.
        unit: their unit.
        delimiter: the delimiter of the table. Times may have a decimal comma; without semicolons as delimiters, 1,500
            is refused, because it may be 1500.
        inclusive: whether the end is the last frame.

    Raises:
        SeqclfError: one is not a number of at least 0, or the end is not after the start.
    """
    start, end = _bounds(start, end)
    bounds: list[float] = []
    for name, text in (("start", start), ("end", end)):
        thousands = delimiter != ";" and re.fullmatch(r"[1-9]\d{0,2}(,\d{3})+", text)  # 1,500 may be 1.5 or 1500
        number: float | None = whole_number(text) if unit == "frames" else number_of_seconds(text, not thousands)
        if number is None or number < 0:
            kind = "a frame number" if unit == "frames" else "a number of seconds, mm:ss or hh:mm:ss"
            timed = unit == "frames" and number_of_seconds(text, True) is not None
            hint = " (for times, set unit='seconds')" if timed else ""
            hint = " (write a decimal point: the comma may separate thousands)" if thousands else hint
            hint = " (convert time codes with frames to seconds)" if _TIME_CODE.fullmatch(text) else hint
            raise SeqclfError(f"{record.where}: {name} is {text!r}, expected {kind} of at least 0{hint}")
        bounds.append(number)
    if bounds[1] + inclusive <= bounds[0]:
        hint = " (if the end is the last frame, set inclusive=True)" if unit == "frames" else " (give it a duration)"
        hint = hint if start == end else ""
        raise SeqclfError(f"{record.where}: ends at {end}, not after its start at {start}{hint}")
    return bounds[0], bounds[1] + inclusive


def check_inclusive(inclusive: bool | None, unit: str) -> None:
    """Raises a ``SeqclfError`` for inclusive ends in seconds."""
    if inclusive and unit == "seconds":
        raise SeqclfError("inclusive=True is for frames; in seconds a segment ends where the next begins")


def expect_ends(videos: Iterable[list[tuple[float, float, int, str]]]) -> None:
    """Raises a ``SeqclfError`` if ends in frames seem to be inclusive, such as 30 before a start of 31.

    Args:
        videos: start, end, line and location of the spans of each video.
    """
    pairs = [pair for spans in videos for pair in pairwise(sorted(spans))]
    after = [(one, other) for one, other in pairs if other[0] == one[1] + 1]
    if len(after) > 1 and 2 * len(after) > len(pairs) and not any(one[1] == other[0] for one, other in pairs):
        (_, end, line, _), (start, _, _, where) = after[0]
        raise SeqclfError(
            f"{where}: starts at {start:g}, and line {line} ends at {end:g}: set inclusive=True if this is its last "
            "frame, or inclusive=False"
        )
