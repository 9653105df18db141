"""Reading of video lists in common formats, and finding their videos on disk.

==========  ==========================================  ===========================================================
form        a line                                      labels
==========  ==========================================  ===========================================================
lrcn        ``Walk/v_Walk_g01_c01 0``                   count from 0; the folder of the class may be missing on disk
ucf101      ``Walk/v_Walk_g01_c01.avi 1``               count from 1; without a number the class is the folder's name
rawframes   ``Walk/v_Walk_g01_c01 120 0``               count from 0, after the number of frames (mmaction2)
plain       ``some/video.mp4 0``                        count from 0, or names; without a label, the folder's name
csv         ``some/video.mp4,walk``                     names or numbers; a header, or JSON keys, name the columns
kinetics    ``label,youtube_id,time_start,time_end``    names; the header has these columns in any order
==========  ==========================================  ===========================================================

Columns are separated by spaces, tabs, commas or semicolons. Lines are split from the right, so paths may contain
spaces. Lines that begin with ``#`` are comments.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from seqclf.batch import SeqclfError
from seqclf.data.classes import find_class_index, named_labels, numbered_labels
from seqclf.data.find import names_in
from seqclf.data.list_lines import FORMS, Row, Rows, path_rows, read_rows
from seqclf.data.pictures import is_picture
from seqclf.data.source import is_video, without_suffix
from seqclf.data.spans import Unit
from seqclf.data.splits import rows_of_part
from seqclf.data.tables import Columns

_FIRST = {"lrcn": 0, "ucf101": 1, "rawframes": 0, "plain": 0}


@dataclass
class Entry:
    """A video of a list.

    Attributes:
        name: The path of the video as written in the list.
        path: The path of the video on disk.
        label: Its class index, from 0.
        line: The line of the list.
        frames: Its number of frames, if the list has it.
        span: Start and end of a clip inside the video, in ``VideoList.unit``; None for the whole video.
    """

    name: str
    path: Path
    label: int
    line: int
    frames: int | None = None
    span: tuple[float, float] | None = None


@dataclass
class VideoList:
    """The content of a list.

    Attributes:
        videos: The videos, in the order of the list.
        classes: The class names, in the order of their indices.
        form: The form of the list.
        description: A one-line description.
        numbers: The class index of each number in the list; empty if labels are names.
        missing: Line and name of the missing videos that were skipped.
        unit: The unit of spans, "frames" or "seconds"; None if videos are whole.
    """

    videos: list[Entry]
    classes: list[str]
    form: str
    description: str
    numbers: dict[int, int] = field(default_factory=dict)
    missing: list[tuple[int, str]] = field(default_factory=list)
    unit: Unit | None = None


@dataclass(frozen=True)
class Selection:
    """Which rows of a list to take.

    Attributes:
        part: "train", "validation" or "test".
        shared: Whether the list also serves other parts; it must then have a split column.
        column: The header of the split column; None looks for "split", "subset", "fold", "partition" and "usage".
        test_split: The value in that column that marks test rows, if it is not a usual name.
    """

    part: str
    shared: bool = False
    column: str | None = None
    test_split: str | None = None


def read_list(
    path: str | Path,
    root: str | Path,
    form: str = "auto",
    classes: Sequence[str] | None = None,
    class_index: str | Path | None = None,
    missing: str = "raise",
    *,
    numbers: Mapping[int, int] | None = None,
    first_label: int | None = None,
    columns: Columns | None = None,
    select: Selection | None = None,
    clips: Unit | Literal["auto"] | None = None,
) -> VideoList:
    """Read a list and find its videos under ``root``, with or without suffix and class folder.

    Args:
        path: The list.
        root: The folder that its paths are relative to.
        form: One of the forms above; "auto" detects it.
        classes: The class names, such as those of the training list. None takes them from the class index, or else from
            the names in the list, the class folders, or the numbers; there is never a class without a video.
        class_index: A file with a line ``number name`` (from 0 or 1) or ``name`` per class. It is looked up in the
            current folder, beside the list and under ``root``. None uses ``classInd.txt`` beside the list, if it
            exists.
        missing: "raise" an error if a video is missing, or "skip" it.
        numbers: The class index of each number, as in ``VideoList.numbers`` of the training list.
        first_label: 0 or 1, the number of the first class; None detects it, or raises if it is ambiguous.
        columns: The names of the columns "path", "label" and "split", if they are unusual; or their numbers from 0, if
            the file has no header.
        select: Which rows to take; None for all.
        clips: The unit of start and end of rows that are clips inside videos. "auto" detects it by the header and the
            times; None refuses such rows.

    Raises:
        SeqclfError: The list can't be read or is ambiguous; its lines have different forms; a label is not a class or
            contradicts the video's folder; a video is missing, or listed with two labels. The message names file and
            line.
    """
    if form not in FORMS:
        raise SeqclfError(f"form={form!r}: expected one of {', '.join(FORMS)}")
    if first_label not in (None, 0, 1):
        raise SeqclfError(f"first_label={first_label!r}: expected 0 or 1")
    path, root = Path(path), _checked(path, root, missing)
    found = read_rows(path, form, columns, select.column if select else None, clips)
    chosen, split = _selected(path, found, select)
    index = find_class_index(path, root, class_index) if classes is None else None
    known = classes if index is None else index.names
    source = f"named by {index.path.name}" if index is not None else "as in training" if classes is not None else None
    if isinstance(chosen[0].label, str):
        by_folder = "named by folder" if found.shape == "no label" else "named in the list"
        labels = named_labels(chosen, known, source or by_folder)
    else:
        first = first_label if first_label is not None else _FIRST.get(form)
        checked = form not in ("plain", "csv")
        labels = numbered_labels(chosen, known, numbers, index.first if index else None, first, checked)
        source = labels.description if source is None else f"{source}, {labels.description}"
        labels.description = source
    videos, absent = _find_all(path, root, chosen, labels.indices, labels.classes, missing)
    things = "videos" if found.unit is None else f"clips in {found.unit} of {len({v.path for v in videos}):,} videos"
    description = f"{path.name}: form {found.form}{split}, {len(videos):,} {things}"
    if chosen[0].frames is not None:
        description += f" of {sum(video.frames or 0 for video in videos):,} frames"
    repeated = len(videos) - len({(video.path, video.span) for video in videos})
    description += f" ({repeated:,} of them repeated)" if repeated else ""
    description += f", {len(labels.classes):,} classes {labels.description}{_notes(found, absent)}"
    return VideoList(videos, labels.classes, found.form, description, labels.numbers, absent, found.unit)


def read_paths(
    path: str | Path,
    root: str | Path,
    missing: str = "raise",
    *,
    columns: Columns | None = None,
    select: Selection | None = None,
) -> VideoList:
    """Read only the paths of a list, and find its videos.

    In a file without a header, the path is the longest prefix of a line that is a video; the rest of the line is
    ignored. Videos are named by their paths from ``root`` and have no class. Repeated videos are read once. Arguments
    and errors are those of ``read_list``.
    """
    path, root = Path(path), _checked(path, root, missing)
    listed = path_rows(path, columns, select.column if select else None)
    chosen, split = _selected(path, listed, select, refuse_shared=False)
    found, absent = _find_all(path, root, chosen, [0] * len(chosen), [], missing)
    videos = list({entry.path: entry for entry in found}.values())
    for entry in videos:
        entry.name = Path(
            os.path.relpath(entry.path, root) if entry.path.is_relative_to(root) else entry.path
        ).as_posix()
    description = f"{path.name}: {len(videos):,} videos{split}{_notes(listed, absent)}"
    return VideoList(videos, [], "paths", description, missing=absent)


def _selected(path: Path, found: Rows, select: Selection | None, refuse_shared: bool = True) -> tuple[list[Row], str]:
    """The rows to take, and a description of the choice."""
    if select is None:
        return found.rows, ""
    if found.split_column is None:
        if select.shared and refuse_shared:
            raise SeqclfError(
                f"{path}: the same list is given for training and test, but it has no split column: give two lists, "
                "add a column split, or name the column with split_column="
            )
        return found.rows, ""
    rows = rows_of_part(path, found.rows, found.split_column, select.part, select.shared, select.test_split)
    whole = len(rows) == len(found.rows)
    return rows, "" if whole else f", {select.part} rows by column {found.split_column}"


def _notes(found: Rows, absent: list[tuple[int, str]]) -> str:
    """What was skipped, for the description."""
    comments = f"; {found.comments} comment lines" if found.comments else ""
    return comments + (f"; {len(absent):,} missing videos skipped, the first in line {absent[0][0]}" if absent else "")


def _checked(path: str | Path, root: str | Path, missing: str) -> Path:
    """The root, which must exist."""
    if missing not in ("raise", "skip"):
        raise SeqclfError(f'missing={missing!r}: expected "raise" or "skip"')
    root = Path(root).expanduser()
    if not root.is_dir():
        raise SeqclfError(f"{root}: no such folder (root of the videos in {path})")
    return root


class _Folders:
    """Finds videos on disk. Each folder is listed once."""

    def __init__(self, top: str) -> None:
        self.top = top
        self.listings: dict[str, dict[str, list[str]]] = {}  # folder -> stem -> names

    def find(self, row: Row) -> Path | None:
        """The path of a row's video; None if it does not exist."""
        for place in row.places:
            folder, name = posixpath.split(posixpath.join(self.top, place))
            names = self._listing(folder).get(without_suffix(name), [])
            if name in names or self.is_other_file(place):
                return Path(folder, name)
            if len(names) > 1:
                raise SeqclfError(f"{row.where}: {row.name!r} is ambiguous: {' or '.join(names)} in {folder}")
            if names:
                return Path(folder, names[0])
        return None

    def is_other_file(self, place: str) -> bool:
        """Whether a place is an existing file with any suffix but a picture's."""
        return not is_picture(place) and os.path.isfile(posixpath.join(self.top, place))

    def _listing(self, folder: str) -> dict[str, list[str]]:
        if folder not in self.listings:
            self.listings[folder] = {}
            for name, is_folder in names_in(folder) if os.path.isdir(folder) else ():
                if is_folder or is_video(name):
                    self.listings[folder].setdefault(without_suffix(name), []).append(name)
        return self.listings[folder]


def _find_all(
    path: Path, root: Path, rows: list[Row], indices: list[int], classes: Sequence[str], missing: str
) -> tuple[list[Entry], list[tuple[int, str]]]:
    """The videos that exist, and line and name of the missing ones."""
    folders = _Folders(root.as_posix())
    videos: list[Entry] = []
    absent: list[tuple[int, str]] = []
    seen: dict[tuple[Path, tuple[float, float] | None], Entry] = {}
    for row, index in zip(rows, indices, strict=True):
        at = folders.find(row)
        if at is None:
            absent.append((row.line, row.name))
            if missing == "raise":
                raise SeqclfError(_missing_video(row, root))
            continue
        entry = Entry(row.name, at, index, row.line, row.frames, row.span)
        first = seen.setdefault((at, row.span), entry)
        if classes and (first.name, first.label) != (entry.name, entry.label):
            raise SeqclfError(
                f"{row.where}: {row.name!r} with label {row.label} is {at}, but line {first.line} lists it as "
                f"{first.name!r} of class {classes[first.label]!r}"
            )
        videos.append(entry)
    if not videos:
        raise SeqclfError(f"{path}: none of its {len(rows):,} videos exists under {root}, such as {rows[0].name!r}")
    return videos, absent


def _missing_video(row: Row, root: Path) -> str:
    """The error message for a missing video."""
    picture = next((place for place in row.places if is_picture(place) and (root / place).is_file()), None)
    if picture is not None:
        return f"{row.where}: {picture!r} is a single picture, expected a video or a folder of pictures"
    header = " (if this line is a header, set columns={'path': <name>, 'label': <name>})"
    absolute = "; paths must be relative to root=" if re.match(r"[A-Za-z]:[\\/]|/", row.name) else ""
    return f"{row.where}: video {row.name!r} is not in {root}{absolute}{header if row.line == 1 else ''}"
