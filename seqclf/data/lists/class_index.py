"""Files of class names: one per line, with numbers or without, or a list or an object in JSON."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from seqclf.batch import SeqclfError
from seqclf.data.tables.table import numbered_lines, whole_number
from seqclf.runtime.files import read_json
from seqclf.runtime.paths import resolve_path


@dataclass
class ClassIndex:
    """The class names of a file, in order, and the number of the first class if the file has numbers."""

    path: Path
    names: list[str]
    first: int | None


def read_classes(path: str | Path) -> list[str]:
    """Reads class names, one per line: ``name``, or ``number name`` with numbers from 0 or 1 in any order.

    Raises:
        SeqclfError: a number or name is missing or repeated, or only some lines have a number. The message names the
            file and line.
    """
    return read_class_index(path).names


def read_class_index(path: str | Path) -> ClassIndex:
    """Reads class names and the number of the first class. Format and errors as in ``read_classes``."""
    path = Path(path)
    lines, first = _json_lines(path) or numbered_lines(path), None
    found = [re.fullmatch(r"(\d{1,18})(?:\s*[,;]\s*|\s+)(.+)", text) for _, text in lines]
    heads = [int(match[1]) for match in found if match is not None]
    if (found[0] is not None and heads[0] < 2) or (len(heads) == len(lines) and min(heads) < 2):
        numbered = []
        for (line, text), match in zip(lines, found, strict=True):
            if match is None:
                raise SeqclfError(f"{path}, line {line}: expected a class number and a name, not {text!r}")
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


def _json_lines(path: Path) -> list[tuple[int, str]] | None:
    """The numbered lines of a JSON file with a list of names, or with names and numbers; None for other files."""
    if path.suffix.lower() != ".json":
        return None
    found = read_json(path)
    if isinstance(found, dict):
        pairs = [
            (number, name) if whole_number(str(number)) is not None else (name, number)
            for name, number in found.items()
        ]
        found = [f"{number} {name}" for number, name in pairs]
    if not isinstance(found, list) or not all(isinstance(line, str) for line in found):
        raise SeqclfError(f"{path}: expected a list of class names, or an object of names and numbers")
    return list(enumerate(found, 1))


def find_class_index(path: Path, root: Path, class_index: str | Path | None) -> ClassIndex | None:
    """The class index of a setting, or else ``classInd.txt`` beside the list, if it exists."""
    if class_index is not None:
        return read_class_index(resolve_path(class_index, path.parent, root))
    beside = path.parent / "classInd.txt"
    return read_class_index(beside) if beside.exists() else None
