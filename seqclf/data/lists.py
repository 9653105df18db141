"""Lists of videos in the forms people have, and where their videos are.

==========  ==========================================  ===========================================================
form        a line                                      labels
==========  ==========================================  ===========================================================
lrcn        ``Walk/v_Walk_g01_c01 0``                   count from 0; the folder of the class need not be there
ucf101      ``Walk/v_Walk_g01_c01.avi 1``               count from 1; without a number the class is the folder's name
rawframes   ``Walk/v_Walk_g01_c01 120 0``               count from 0, after the number of frames (mmaction2)
plain       ``some/video.mp4 0``                        count from 0, or are names; without one, the folder's name
csv         ``some/video.mp4,walk``                     names, or numbers from 0; line 1 names the columns (path,label)
kinetics    ``label,youtube_id,time_start,time_end``    are names; the columns as the first line has them
==========  ==========================================  ===========================================================

Columns are parted by spaces, tabs, commas or semicolons; only the last ones are told apart by spaces, so paths may hold
some.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

from seqclf.batch import SeqclfError
from seqclf.data.find import names_in
from seqclf.data.frame_folder import is_picture, natural_key
from seqclf.data.list_lines import FORMS, NUMBER, Row, lines_of, path_rows_of, rows_of
from seqclf.data.source import is_video, without_suffix

_BASE = {"lrcn": 0, "ucf101": 1, "rawframes": 0, "plain": 0, "csv": 0}
_MOST = 1_000_000  # a class's number beyond it is something else, such as a date


@dataclass
class Entry:
    """A video of a list: its name there, where it is, its class from 0, the list's line, and its frames if it says."""

    name: str
    path: Path
    label: int
    line: int
    frames: int | None = None


@dataclass
class ListOf:
    """What a list holds.

    Attributes:
        videos: in the list's order.
        classes: the classes' names, in the order of their indices.
        form: the form that was read.
        told: all this in one line, for the user.
        missing: line and name of the videos that are not there, with ``missing="skip"``.
    """

    videos: list[Entry]
    classes: list[str]
    form: str
    told: str
    missing: list[tuple[int, str]] = field(default_factory=list)


def read_list(
    path: str | Path,
    root: str | Path,
    form: str = "auto",
    classes: Sequence[str] | None = None,
    class_index: str | Path | None = None,
    missing: str = "raise",
) -> ListOf:
    """Reads a list, and finds its videos under ``root``, with or without suffix and the folder of the class.

    Args:
        path: the list.
        root: the folder that its paths start from.
        form: one of the table above; "auto" tells it from the lines.
        classes: the classes' names, such as those that the training list gave; None to take them from the class index,
            the names in the list, the folders where each class has its own, or to number them.
        class_index: a file of the classes, a line ``number name`` (from 0 or 1) or ``name`` each, from here, beside the
            list or under root. None: ``classInd.txt`` beside the list, where there is one.
        missing: a video that is not there is an error ("raise"), or left out and told ("skip").

    Raises:
        SeqclfError: with the file and the line: it can't be understood, or in more than one way; lines are of different
            forms; a label is of no class, or of another than the video's folder; a video is not there, or twice.
    """
    if form not in FORMS:
        raise SeqclfError(f"form={form!r}: expected one of {', '.join(FORMS)}")
    path, root = Path(path), _checked(path, root, missing)
    form, shape, rows = rows_of(path, form)

    by, base = "as given", None
    file = _class_file(path, root, class_index) if classes is None else None
    if file is not None:
        classes, by = read_classes(file), f"by {file.name}"
    if isinstance(rows[0].label, str):
        if classes is None:
            by = "by their names" if shape == "a name" else "by the folders' names"
            classes = sorted({str(row.label) for row in rows}, key=natural_key)
        numbers = _named(path, rows, classes)
        if form == "auto":
            form = "ucf101" if shape == "no label" else "plain"
    else:
        base = _base(path, rows, form, shape, classes or [])
        numbers = _numbered(path, rows, base, classes or [], check_folders=form not in ("plain", "csv"))
        folders = _folders(rows, numbers)
        if form == "auto":
            form = "rawframes" if rows[0].frames is not None else "ucf101" if base else "lrcn" if folders else "plain"
        if classes is None:
            by = "by the folders' names" if folders else "numbered"
            classes = [folders.get(number, str(number)) for number in range(max(numbers) + 1)]
    videos, absent = _find_all(path, root, rows, numbers, classes, missing)
    told = f"{path.name}: form {form}, {len(videos):,} videos"
    if rows[0].frames is not None:
        told += f" of {sum(video.frames or 0 for video in videos):,} frames"
    told += f", {len(classes):,} classes {by}"
    if base is not None:
        told += f", labels from {base}"
    return ListOf(videos, list(classes), form, told + _told_absent(absent), absent)


def read_paths(path: str | Path, root: str | Path, missing: str = "raise") -> ListOf:
    """Reads a list of which only the paths matter, and finds its videos; arguments and errors as of ``read_list``.

    The path is the longest beginning of a line that is a video; columns after it are not looked at. Videos are named by
    their paths from ``root``, have no class, and those that are there twice are taken once.
    """
    path, root = Path(path), _checked(path, root, missing)
    rows = path_rows_of(path)
    found, absent = _find_all(path, root, rows, [0] * len(rows), [], missing)
    videos = list({entry.path: entry for entry in found}.values())
    for entry in videos:
        entry.name = Path(
            os.path.relpath(entry.path, root) if entry.path.is_relative_to(root) else entry.path
        ).as_posix()
    told = f"{path.name}: {len(videos):,} videos{_told_absent(absent)}"
    return ListOf(videos, [], "paths", told, absent)


def read_classes(path: str | Path) -> list[str]:
    """The classes' names from a file with a line ``number name`` each, from 0 or 1, in any order; or only the names.

    Raises:
        SeqclfError: with file and line: a number or name is there twice, is missing, or some lines have no number.
    """
    lines = lines_of(Path(path))
    found = [re.fullmatch(rf"({NUMBER})(?:\s*,\s*|\s+)(.+)", text) for _, text in lines]
    heads = [int(match[1]) for match in found if match is not None]
    if (found[0] is not None and heads[0] < 2) or (len(heads) == len(lines) and min(heads) < 2):
        numbered = []
        for (line, text), match in zip(lines, found, strict=True):
            if match is None:
                raise SeqclfError(f"{path}, line {line}: {text!r}: expected a class's number and its name")
            numbered.append((int(match[1]), line, match[2]))
        first = min(numbered)[0]
        for expected, (number, line, name) in enumerate(sorted(numbered), first):
            if number != expected:
                raise SeqclfError(f"{path}, line {line}: class {name!r} has number {number}, expected {expected}")
        lines = [(line, name) for _, line, name in sorted(numbered)]
    names: dict[str, int] = {}
    for line, name in lines:
        if name in names:
            raise SeqclfError(f"{path}, line {line}: class {name!r} is there already, in line {names[name]}")
        names[name] = line
    return list(names)


def _class_file(path: Path, root: Path, class_index: str | Path | None) -> Path | None:
    if class_index is None:
        beside = path.parent / "classInd.txt"
        return beside if beside.exists() else None
    for place in (Path(class_index).expanduser(), path.parent / class_index, root / class_index):
        if place.exists():
            return place
    raise SeqclfError(f"{class_index}: no such file, here, beside {path} or in {root}")


def _named(path: Path, rows: list[Row], classes: Sequence[str]) -> list[int]:
    """The indices of classes that are named."""
    index = {name: number for number, name in enumerate(classes)}
    for row in rows:
        if row.label not in index:
            near = get_close_matches(str(row.label), classes, 1)
            hint = f"; did you mean {near[0]!r}?" if near else " (a file of all of them: class_index=)"
            raise SeqclfError(f"{path}, line {row.line}: class {row.label!r} is none of the {len(index)} classes{hint}")
    return [index[str(row.label)] for row in rows]


def _base(path: Path, rows: list[Row], form: str, shape: str, classes: Sequence[str]) -> int:
    """Whether labels count from 0 or 1: by the form, the classes of the videos' folders, or the labels there are."""
    if form in _BASE:
        return _BASE[form]
    labels = [int(row.label) for row in rows]
    for row, label in zip(rows, labels, strict=True):
        if row.folder in classes:
            return 1 if label == classes.index(row.folder) + 1 else 0
    if shape == "frames and a number" or min(labels) < 1:
        return 0
    if max(labels) == len(classes):
        return 1
    raise SeqclfError(
        f"{path}, line {rows[0].line}: labels are {min(labels)} to {max(labels)}, which may count from 0 or from 1: "
        "say form=plain (from 0) or form=ucf101 (from 1), or give class_index=classInd.txt"
    )


def _numbered(path: Path, rows: list[Row], base: int, classes: Sequence[str], check_folders: bool) -> list[int]:
    """The indices from 0 of classes that are numbered, which fit the classes there are and the videos' folders."""
    index = {name: number for number, name in enumerate(classes)}
    numbers = [int(row.label) - base for row in rows]
    for row, number in zip(rows, numbers, strict=True):
        if not 0 <= number < (len(index) or _MOST):
            most = (
                f"{len(index) - 1 + base}, for {len(index)} classes (a file of all: class_index=)"
                if index
                else f"{_MOST:,}"
            )
            raise SeqclfError(f"{path}, line {row.line}: label {row.label}, expected from {base} to {most}")
        if check_folders and index.get(row.folder, number) != number:
            raise SeqclfError(
                f"{path}, line {row.line}: label {row.label} is class {classes[number]!r}, counted from {base}, "
                f"but the folder is {row.folder!r} (form=plain takes labels as they are)"
            )
    return numbers


def _folders(rows: list[Row], numbers: list[int]) -> dict[int, str]:
    """The folder of each class, where each has one of its own; else nothing."""
    pairs = {(number, row.folder) for number, row in zip(numbers, rows, strict=True)}
    names = dict(pairs)
    return names if len(pairs) == len(names) == len(set(names.values())) and "" not in names.values() else {}


def _checked(path: str | Path, root: str | Path, missing: str) -> Path:
    """The root, which must be there."""
    if missing not in ("raise", "skip"):
        raise SeqclfError(f'missing={missing!r}: expected "raise" or "skip"')
    root = Path(root).expanduser()
    if not root.is_dir():
        raise SeqclfError(f"{root}: no such folder, for the videos of {path}")
    return root


def _told_absent(absent: list[tuple[int, str]]) -> str:
    return f"; left out as they are not there: {len(absent):,}, from line {absent[0][0]} on" if absent else ""


def _find_all(
    path: Path, root: Path, rows: list[Row], numbers: list[int], classes: Sequence[str], missing: str
) -> tuple[list[Entry], list[tuple[int, str]]]:
    """The videos that are there, and line and name of those that are not."""
    top = root.as_posix()
    listings: dict[str, dict[str, list[str]]] = {}  # of each folder, once: names by their stems

    def find(row: Row) -> Path | None:
        for place in row.places:
            folder, name = posixpath.split(posixpath.join(top, place))
            if folder not in listings:
                listings[folder] = {}
                for there, is_folder in names_in(folder) if os.path.isdir(folder) else ():
                    if is_folder or is_video(there):
                        listings[folder].setdefault(without_suffix(there), []).append(there)
            names = listings[folder].get(without_suffix(name), [])
            if name in names:
                return Path(folder, name)
            if len(names) > 1:
                raise SeqclfError(f"{path}, line {row.line}: {row.name!r} may be {' or '.join(names)} in {folder}")
            if names:
                return Path(folder, names[0])
        return None

    videos: list[Entry] = []
    absent: list[tuple[int, str]] = []
    seen: dict[Path, Entry] = {}
    for row, number in zip(rows, numbers, strict=True):
        at = find(row)
        if at is None:
            absent.append((row.line, row.name))
            if missing == "raise":
                other = next((place for place in row.places if os.path.isfile(posixpath.join(top, place))), None)
                if other is not None:
                    what = "is one picture" if is_picture(other) else "is no video by its name"
                    raise SeqclfError(
                        f"{path}, line {row.line}: {other!r} {what}: a folder of pictures or a video is meant"
                    )
                raise SeqclfError(f"{path}, line {row.line}: video {row.name!r} is not in {root}")
            continue
        entry = Entry(row.name, at, number, row.line, row.frames)
        first = seen.setdefault(at, entry)
        if classes and (first.name, first.label) != (entry.name, entry.label):
            raise SeqclfError(
                f"{path}, line {row.line}: {row.name!r} with label {row.label} is {at}, "
                f"which line {first.line} has as {first.name!r} of class {classes[first.label]!r}"
            )
        videos.append(entry)
    if not videos:
        raise SeqclfError(f"{path}: none of its {len(rows):,} videos is in {root}, such as {rows[0].name!r}")
    return videos, absent
