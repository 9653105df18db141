"""The labels of lists as class indices: labels are names, or numbers that count from 0 or from 1."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

from seqclf.batch import IGNORE, SeqclfError
from seqclf.data.frames.numbers import natural_key
from seqclf.data.lists.class_index import find_class_index
from seqclf.data.lists.lines import Row, Rows
from seqclf.data.tables.label_cells import check_alike
from seqclf.data.tables.table import whole_number
from seqclf.runtime.text import counted, some

MOST = 1_000_000
"""The largest label accepted as a class number; larger numbers are dates or ids."""
_BRACKETS = str.maketrans("", "", "[]")
"""Something-Something writes "Holding [something]" in lists, and "Holding something" in its class index."""


@dataclass
class Labels:
    """The labels of a list as class indices.

    Attributes:
        classes: the class names, in the order of their indices.
        indices: the class index of each label.
        numbers: the class index of each number in the list; empty if labels are names.
        description: the source of the names, and the first number.
        of_rows: the class index of each row; or with several labels per row 0, 1 or ``IGNORE`` for each class.
    """

    classes: list[str]
    indices: list[int]
    numbers: dict[int, int]
    description: str
    of_rows: list[int | tuple[int, ...]] = field(default_factory=list)


FIRST_NUMBER = {"lrcn": 0, "ucf101": 1, "rawframes": 0, "plain": 0}
"""The number of the first class in lists of a given form."""


def row_labels(
    path: Path,
    root: Path,
    form: str,
    found: Rows,
    rows: Sequence[Row],
    classes: Sequence[str] | None,
    class_index: str | Path | None,
    numbers: Mapping[int, int] | None,
    first_label: int | None,
    several: bool,
) -> Labels:
    """The class of each row of a list, or its classes if it may have several.

    Args:
        found: the whole list.
        rows: its rows that are used.
        several: whether rows have ``labels``, in place of one ``label``.

    The other arguments, and the errors, are those of ``read_list``.
    """
    index = find_class_index(path, root, class_index) if classes is None else None
    known = classes if index is None else index.names
    source = f"named by {index.path.name}" if index is not None else "as in training" if classes is not None else None
    if several and known is None and found.classes is not None:
        known, source = found.classes, "named in the header"
    single = _single(rows) if several else rows
    if not single and known is None:
        raise SeqclfError(f"{path}: no row has a label")
    if any(isinstance(row.label, str) for row in single):
        by_folder = "named by folder" if found.shape == "no label" else "named in the list"
        labels = named_labels(single, known, source or by_folder)
    else:
        first = first_label if first_label is not None else FIRST_NUMBER.get(form)
        checked = form not in ("plain", "csv")
        labels = numbered_labels(single, known, numbers, index.first if index else None, first, checked)
        labels.description = labels.description if source is None else f"{source}, {labels.description}"
    labels.of_rows = _of_several(rows, labels, found) if several else list(labels.indices)
    return labels


def _single(rows: Sequence[Row]) -> list[Row]:
    """A row for each label of each row. Labels are numbers if all of them are."""
    single = [
        replace(row, label=label, written=label, folder="", class_name="")
        for row in rows
        for label in row.labels + row.unknown
    ]
    numbers = [whole_number(row.written) for row in single]
    if all(number is not None for number in numbers):
        for row, number in zip(single, numbers, strict=True):
            row.label = number or 0
    return single


def _of_several(rows: Sequence[Row], labels: Labels, found: Rows) -> list[int | tuple[int, ...]]:
    """For each row 0, 1 or ``IGNORE`` for each class, which is unknown if the header has no column for it."""
    absent = [] if found.classes is None else [k for k, name in enumerate(labels.classes) if name not in found.classes]
    indices = iter(labels.indices)
    out: list[int | tuple[int, ...]] = []
    for row in rows:
        values = [0] * len(labels.classes)
        for value, names in ((1, row.labels), (IGNORE, row.unknown)):
            for _ in names:
                values[next(indices)] = value
        for k in absent:
            values[k] = IGNORE
        out.append(tuple(values))
    return out


def named_labels(rows: Sequence[Row], classes: Sequence[str] | None, source: str) -> Labels:
    """Converts labels that are class names to class indices.

    Args:
        rows: the rows of a list; ``label`` is a string.
        classes: the known class names; None takes the names in the list.
        source: the description of the names, such as "named in the list".

    Raises:
        SeqclfError: a label is not one of the classes, or is a decimal number.
    """
    if classes is None:
        numeric = next((row for row in rows if re.fullmatch(r"-?\d*[.,]\d+", str(row.label))), None)
        if numeric is not None:
            raise SeqclfError(f"{numeric.where}: label {numeric.label!r}: expected a whole number or a class name")
        check_alike((str(row.label), row.where) for row in rows)
        classes = sorted({str(row.label) for row in rows}, key=natural_key)
    index = {name: number for number, name in enumerate(classes)}
    for row in rows:
        if row.label not in index and str(row.label).translate(_BRACKETS) in index:
            row.label = str(row.label).translate(_BRACKETS)
        if row.label not in index:
            near = get_close_matches(str(row.label), classes, 1)
            hint = f"; did you mean {near[0]!r}?" if near else " (list all classes with class_index=)"
            known = counted(len(index), "class")
            raise SeqclfError(f"{row.where}: class {row.label!r} is not one of the {known}{hint}")
    return Labels(list(classes), [index[str(row.label)] for row in rows], {}, source)


def numbered_labels(
    rows: Sequence[Row],
    classes: Sequence[str] | None = None,
    numbers: Mapping[int, int] | None = None,
    index_first: int | None = None,
    first: int | None = None,
    check_folders: bool = True,
) -> Labels:
    """Converts labels that are numbers to class indices.

    If no classes are known, each number in the list becomes a class, named by the list, the folder of its videos, or
    the number itself. There is never a class without a video. If classes are known, numbers count from 0 or 1 along
    them. The first of these that applies decides: ``numbers``, class names that are numbers, ``first``, the folders of
    the videos, a label 0, a label equal to the number of classes, ``index_first``.

    Args:
        rows: the rows of a list; ``label`` is an integer.
        classes: the known class names, or None.
        numbers: the class index of each number in the training list.
        index_first: the number of the first class in the class index.
        first: the number of the first class, if the caller knows it.
        check_folders: whether to refuse a video in the folder of another class.

    Raises:
        SeqclfError: labels may count from 0 or from 1, or a label is out of range or contradicts its video's folder.
    """
    for row in rows:
        if not (first or 0) <= int(row.label) <= MOST:
            raise SeqclfError(f"{row.where}: label {row.label}, expected a class number from {first or 0} to {MOST:,}")
    if classes is None:
        return _from_list(rows)
    if numbers is None:
        if all(name.isdecimal() and name.isascii() for name in classes):
            numbers = {int(name): index for index, name in enumerate(classes)}
        else:
            base = first if first is not None else _first_number(rows, classes, index_first)
            numbers = {base + index: index for index in range(len(classes))}
    for row in rows:
        index = numbers.get(int(row.label))
        if index is None:
            known = f"{min(numbers)} to {max(numbers)}" if numbers else "given by name"
            raise SeqclfError(
                f"{row.where}: label {row.label}, but the {len(classes)} classes are {known} "
                "(list all classes with class_index=)"
            )
        if check_folders and row.folder in classes and classes[index] != row.folder:
            raise SeqclfError(
                f"{row.where}: label {row.label} is class {classes[index]!r}, counted from {min(numbers)}, but the "
                f"folder is {row.folder!r} (form=plain ignores folders)"
            )
    description = f"labels from {min(numbers)}"
    return Labels(list(classes), [numbers[int(row.label)] for row in rows], dict(numbers), description)


def _from_list(rows: Sequence[Row]) -> Labels:
    """Makes a class of every number in the list."""
    used = sorted({int(row.label) for row in rows})
    written = {int(row.label): row.written for row in reversed(rows)}
    by_name: dict[int, set[str]] = {n: set() for n in used}
    by_folder: dict[int, set[str]] = {n: set() for n in used}
    for row in rows:
        number, name = int(row.label), row.class_name
        if name and by_name[number] - {name}:
            raise SeqclfError(
                f"{row.where}: class {number} is {name!r}, but above it is {min(by_name[number])!r}; "
                "columns={'class_name': None} ignores the names"
            )
        by_name[number].add(name)
        by_folder[int(row.label)].add(row.folder)
    classes, source = [written[n] for n in used], "named by number"
    for names, by in ((by_folder, "named by folder"), (by_name, "named in the list")):
        single = [next(iter(names[n])) for n in used if len(names[n]) == 1]
        if len(single) == len(used) == len(set(single)) and all(single):
            classes, source = single, by
    absent = [n for n in range(used[0], used[-1]) if n not in used] if used[-1] < MOST else []
    gap = "" if not absent else f", without {some(absent, 5)}"
    span = f"{used[0]} to {used[-1]}" if len(used) > 1 else str(used[0])
    numbers = {n: k for k, n in enumerate(used)}
    indices = [numbers[int(row.label)] for row in rows]
    return Labels(classes, indices, numbers, f"{source}, labels {span}{gap}")


def _first_number(rows: Sequence[Row], classes: Sequence[str], index_first: int | None) -> int:
    """The number of the first class, 0 or 1."""
    labels = [int(row.label) for row in rows]
    bases = [int(row.label) - classes.index(row.folder) for row in rows if row.folder in classes]
    if 0 in bases or 1 in bases:
        return max((0, 1), key=bases.count)
    if min(labels) == 0:
        return 0
    if max(labels) == len(classes):
        return 1
    if index_first is not None:
        return index_first
    if max(labels) > len(classes):
        row = max(rows, key=lambda row: int(row.label))
        raise SeqclfError(f"{row.where}: label {row.label}, but there are only {len(classes)} classes")
    raise SeqclfError(
        f"{rows[0].where}: labels {min(labels)} to {max(labels)} may count from 0 or from 1: set first_label=0 or "
        "first_label=1, or class_index= to a file of numbered classes"
    )
