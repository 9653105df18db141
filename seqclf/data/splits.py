"""Which rows of a list belong to training, validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seqclf.batch import SeqclfError
from seqclf.data.list_lines import Row
from seqclf.runtime.text import some

NAMES = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "validate", "valid", "val", "dev"),
    "test": ("test", "testing", "tst"),
}


def rows_of_part(
    path: Path, rows: Sequence[Row], column: str, part: str, shared: bool, test_split: str | None = None
) -> list[Row]:
    """The rows of a list that its split column assigns to a part.

    Args:
        path: the list, for errors.
        rows: its rows, each with its ``split``.
        column: the name of the split column.
        part: "train", "validation" or "test".
        shared: whether the list serves several parts. If not, and the column has only one value, all rows are taken.
        test_split: the value that marks test rows, such as the number of a fold. All other rows are then training rows,
            except those marked as validation rows.

    Raises:
        SeqclfError: the column has unknown values, or no row belongs to the part.
    """
    values = sorted({str(row.split) for row in rows})
    if len(values) == 1 and not shared:
        return list(rows)
    parts = {value: part_of(value, test_split) for value in values}
    unknown = [value for value in values if parts[value] is None]
    if unknown or (test_split is not None and test_split not in values):
        raise SeqclfError(
            f"{path}: column {column!r} has the values {some([*map(repr, values)])}, and "
            f"{(unknown[0] if unknown else test_split)!r} is not a known part: mark the test rows with "
            "test_split=<value>"
        )
    chosen = [row for row in rows if parts[str(row.split)] == part]
    if not chosen:
        raise SeqclfError(
            f"{path}: no row is for {part}: column {column!r} has the values {some([*map(repr, values)])}; mark "
            "the test rows with test_split=<value>"
        )
    return chosen


def part_of(value: str, test_split: str | None = None) -> str | None:
    """The part of a value of the split column; None if unknown."""
    if test_split is not None and value == test_split:
        return "test"
    named = next((part for part, names in NAMES.items() if value.strip().lower() in names), None)
    if test_split is None:
        return named
    return "train" if named in (None, "test") else named
