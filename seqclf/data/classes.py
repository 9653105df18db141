"""Which class a label means: names, or numbers that may count from 0 or from 1."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from seqclf.batch import SeqclfError
from seqclf.data.frame_numbers import natural_key
from seqclf.data.list_lines import Row
from seqclf.data.paths import resolve_path
from seqclf.data.tables import numbered_lines

MOST = 1_000_000  # a larger number is something else than a class, such as a date


@dataclass
class ClassIndex:
    """The class names of a file, in order, and the number of the first one where the file numbers them."""

    path: Path
    names: list[str]
    first: int | None


@dataclass
class Labels:
    """What the labels of a list mean.

    Attributes:
        classes: The class names, in the order of their indices.
        indices: The class index of each row.
        numbers: The index of the class that each number in the list means; empty where labels are names.
        description: Where the names come from and how numbers count.
    """

    classes: list[str]
    indices: list[int]
    numbers: dict[int, int]
    description: str


def read_classes(path: str | Path) -> list[str]:
    """Read class names, one a line: ``name``, or ``number name`` with numbers from 0 or 1 in any order.

    Raises:
        SeqclfError: A number or name is missing or there twice, or only some lines have a number; names file and line.
    """
    return read_class_index(path).names


def read_class_index(path: str | Path) -> ClassIndex:
    """As ``read_classes``, with the number of the first class where the file has numbers."""
    path = Path(path)
    lines, first = numbered_lines(path), None
    found = [re.fullmatch(r"(\d{1,18})(?:\s*[,;]\s*|\s+)(.+)", text) for _, text in lines]
    heads = [int(match[1]) for match in found if match is not None]
    if (found[0] is not None and heads[0] < 2) or (len(heads) == len(lines) and min(heads) < 2):
        numbered = []
        for (line, text), match in zip(lines, found, strict=True):
            if match is None:
                raise SeqclfError(f"{path}, line {line}: {text!r}: expected the number of a class and its name")
            numbered.append((int(match[1]), line, match[2]))
        first = min(numbered)[0]
        for expected, (number, line, name) in enumerate(sorted(numbered), first):
            if number != expected:
                raise SeqclfError(f"{path}, line {line}: class {name!r} has the number {number}, expected {expected}")
        lines = [(line, name) for _, line, name in sorted(numbered)]
    names: dict[str, int] = {}
    for line, name in lines:
        if name in names:
            raise SeqclfError(f"{path}, line {line}: class {name!r} is already in line {names[name]}")
        names[name] = line
    return ClassIndex(path, list(names), first)


def find_class_index(path: Path, root: Path, class_index: str | Path | None) -> ClassIndex | None:
    """The class index that a setting names (from here, beside the list or under root), or ``classInd.txt`` there."""
    if class_index is not None:
        return read_class_index(resolve_path(class_index, path.parent, root))
    beside = path.parent / "classInd.txt"
    return read_class_index(beside) if beside.exists() else None


def named_labels(rows: Sequence[Row], classes: Sequence[str] | None, source: str) -> Labels:
    """The meaning of labels that are class names.

    Args:
        rows: The rows of a list; ``label`` is a string.
        classes: The known class names, or None to take the names in the list.
        source: What the names are, for the description, such as "named in the list".
    """
    if classes is None:
        several = next((row for row in rows if "|" in str(row.label)), None)
        if several is not None:
            raise SeqclfError(
                f"{several.where}: {several.label!r} names several classes; a video has one here "
                "(class_index= names the classes where '|' belongs to a name)"
            )
        numeric = next((row for row in rows if re.fullmatch(r"-?\d*[.,]\d+", str(row.label))), None)
        if numeric is not None:
            raise SeqclfError(
                f"{numeric.where}: label {numeric.label!r} is no class; whole numbers or names are expected"
            )
        classes = sorted({str(row.label) for row in rows}, key=natural_key)
    index = {name: number for number, name in enumerate(classes)}
    for row in rows:
        if row.label not in index:
            near = get_close_matches(str(row.label), classes, 1)
            hint = f"; did you mean {near[0]!r}?" if near else " (class_index= names a file of all classes)"
            raise SeqclfError(f"{row.where}: class {row.label!r} is not one of the {len(index)} classes{hint}")
    return Labels(list(classes), [index[str(row.label)] for row in rows], {}, source)


def numbered_labels(
    rows: Sequence[Row],
    classes: Sequence[str] | None = None,
    numbers: Mapping[int, int] | None = None,
    index_first: int | None = None,
    first: int | None = None,
    check_folders: bool = True,
) -> Labels:
    """The meaning of labels that are numbers.

    Where no classes are known, every number in the list becomes a class, named by the list, by the folder of its
    videos, or by the number itself; so a class without a video is never made. Else the numbers count from 0 or 1 along
    the known classes, by the first of these that decides it: ``numbers``, class names that are the numbers themselves,
    ``first``, the folders of the videos, a label 0, a label as large as the number of classes, ``index_first``.

    Args:
        rows: The rows of a list; ``label`` is an integer.
        classes: The known class names, or None.
        numbers: The class index that each number means, as the training list gave them.
        index_first: The number of the first class in the class index.
        first: The number of the first class, as the caller says.
        check_folders: Refuse a video in the folder of another class.

    Raises:
        SeqclfError: It is not decided whether labels count from 0 or 1, or a label is out of range or at odds with its
            video's folder.
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
                "(class_index= names a file of all classes)"
            )
        if check_folders and row.folder in classes and classes[index] != row.folder:
            raise SeqclfError(
                f"{row.where}: label {row.label} is class {classes[index]!r}, counted from {min(numbers)}, but the "
                f"folder is {row.folder!r} (form=plain ignores folders)"
            )
    description = f"labels from {min(numbers)}"
    return Labels(list(classes), [numbers[int(row.label)] for row in rows], dict(numbers), description)


def _from_list(rows: Sequence[Row]) -> Labels:
    """Every number in the list as a class."""
    used = sorted({int(row.label) for row in rows})
    written = {int(row.label): row.written for row in reversed(rows)}
    by_name: dict[int, set[str]] = {n: set() for n in used}
    by_folder: dict[int, set[str]] = {n: set() for n in used}
    for row in rows:
        by_name[int(row.label)].add(row.class_name)
        by_folder[int(row.label)].add(row.folder)
    classes, source = [written[n] for n in used], "named by number"
    for names, by in ((by_folder, "named by folder"), (by_name, "named in the list")):
        single = [next(iter(names[n])) for n in used if len(names[n]) == 1]
        if len(single) == len(used) == len(set(single)) and all(single):
            classes, source = single, by
    absent = [n for n in range(used[0], used[-1]) if n not in used] if used[-1] < MOST else []
    gap = "" if not absent else f", without {', '.join(map(str, absent[:5]))}{', ...' if len(absent) > 5 else ''}"
    span = f"{used[0]} to {used[-1]}" if len(used) > 1 else str(used[0])
    numbers = {n: k for k, n in enumerate(used)}
    indices = [numbers[int(row.label)] for row in rows]
    return Labels(classes, indices, numbers, f"{source}, labels {span}{gap}")


def _first_number(rows: Sequence[Row], classes: Sequence[str], index_first: int | None) -> int:
    """Whether labels count from 0 or from 1 along these classes."""
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
    raise SeqclfError(
        f"{rows[0].where}: labels {min(labels)} to {max(labels)} may count from 0 or from 1; first_label=0 or "
        "first_label=1 says which, or class_index= names a file of numbered classes"
    )
