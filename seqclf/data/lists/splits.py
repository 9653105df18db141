"""Which rows of a list belong to training, validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seqclf.batch import SeqclfError
from seqclf.data.lists.lines import Row
from seqclf.runtime.text import some

NAMES = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "validate", "valid", "val", "dev"),
    "test": ("test", "testing", "tst"),
}


@dataclass(frozen=True)
class Selection:
    """Which rows of a list to take.

    Attributes:
        part: "train", "validation" or "test".
        shared: whether the list also serves other parts; it must then have a split column.
        column: the header of the split column; None looks for "split", "subset", "fold", "partition" and "usage".
        test_split: the value in that column that marks test rows, such as the number of a fold; None for the usual
            names. All other rows are then training rows, except those marked as validation rows.
    """

    part: str
    shared: bool = False
    column: str | None = None
    test_split: str | None = None


def rows_of_part(path: Path, rows: Sequence[Row], column: str, select: Selection) -> list[Row]:
    """The rows of a list that its split column assigns to a part.

    All rows are taken if the list serves this part alone, and the column has only one value.

    Args:
        path: the list, for errors.
        rows: its rows, each with its ``split``.
        column: the name of the split column.
        select: which rows to take.

    Raises:
        SeqclfError: the column has unknown values, or no row belongs to the part.
    """
    values = sorted({str(row.split) for row in rows})
    if len(values) == 1 and not select.shared:
        return list(rows)
    parts = {value: part_of(value, select.test_split) for value in values}
    unknown = next((value for value in values if parts[value] is None), None)
    if unknown is None and select.test_split not in (None, *values):
        unknown = select.test_split
    way_out = "mark the test rows with test_split=<value>"
    has = f"column {column!r} has the values {some([*map(repr, values)])}"
    if unknown is not None:
        raise SeqclfError(f"{path}: {has}, and {unknown!r} is not a known part: {way_out}")
    chosen = [row for row in rows if parts[str(row.split)] == select.part]
    if not chosen:
        raise SeqclfError(f"{path}: no row is for {select.part}: {has}; {way_out}")
    return chosen


def part_of(value: str, test_split: str | None = None) -> str | None:
    """The part of a value of the split column; None if unknown."""
    if test_split is not None and value == test_split:
        return "test"
    named = next((part for part, names in NAMES.items() if value.strip().lower() in names), None)
    if test_split is None:
        return named
    return "train" if named in (None, "test") else named
