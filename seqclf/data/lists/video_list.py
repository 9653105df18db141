"""Reading of video lists."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.frames.source import without_suffix
from seqclf.data.frames.span import Unit
from seqclf.data.lists.classes import row_labels
from seqclf.data.lists.lines import Row, Rows
from seqclf.data.lists.places import Folders, missing_video
from seqclf.data.lists.splits import Selection, rows_of_part
from seqclf.data.lists.table_rows import FORMS, read_path_rows, read_rows
from seqclf.data.tables.columns import Columns
from seqclf.runtime.text import counted

Label = int | tuple[int, ...]
"""The class index of a video; or with several labels per video 0, 1 or ``IGNORE`` for each class."""


@dataclass
class Entry:
    """A video of a list.

    Attributes:
        name: the path of the video as written in the list.
        path: the path of the video on disk.
        label: its class index, from 0; or with several labels 0, 1 or ``IGNORE`` (unknown) for each class.
        line: the line of the list.
        frames: its number of frames, if the list has it.
        span: start and end of a clip inside the video, in ``VideoList.unit``; None for the whole video.
        group: its group, such as the subject, if the list has it.
        split: the content of its split column, if the list has it.
    """

    name: str
    path: Path
    label: Label
    line: int
    frames: int | None = None
    span: tuple[float, float] | None = None
    group: str | None = None
    split: str | None = None

    def labels(self) -> int | Tensor:
        """The label of a ``Video``: a class index, or ``(K,)`` int64."""
        return torch.tensor(self.label) if isinstance(self.label, tuple) else self.label


@dataclass
class VideoList:
    """The content of a list.

    Attributes:
        path: the list.
        videos: the videos, in the order of the list.
        classes: the class names, in the order of their indices.
        form: the form of the list.
        description: a one-line description.
        numbers: the class index of each number in the list; empty if labels are names.
        missing: line and name of the missing videos that were skipped.
        unit: the unit of spans, "frames" or "seconds"; None if videos are whole.
        group_column: the name of the group column, or None.
    """

    path: Path
    videos: list[Entry]
    classes: list[str]
    form: str
    description: str
    numbers: dict[int, int] = field(default_factory=dict)
    missing: list[tuple[int, str]] = field(default_factory=list)
    unit: Unit | None = None
    group_column: str | None = None

    def groups(self, names: Sequence[str] | None = None) -> list[str] | None:
        """The group of each video, or of those with these names; None if there is no group column.

        A video without a group forms its own group.
        """
        if self.group_column is None:
            return None
        of = {entry.name: entry.group or entry.name for entry in self.videos}
        return [of[entry.name] for entry in self.videos] if names is None else [of[name] for name in names]


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
    separator: str | None = None,
    inclusive: bool | None = None,
) -> VideoList:
    """Reads a list and finds its videos under ``root``, with or without suffix and class folder.

    Args:
        path: the list.
        root: the folder that its paths are relative to.
        form: one of the forms in ``seqclf.data.lists``; "auto" detects it.
        classes: the class names, such as those of the training list. None takes them from the class index, or else from
            the names in the list, the class folders, or the numbers; there is never a class without a video.
        class_index: a file with a line ``number name`` (from 0 or 1) or ``name`` per class. It is looked up in the
            current folder, beside the list and under ``root``. None uses ``classInd.txt`` beside the list, if it
            exists.
        missing: "raise" an error if a video is missing, or "skip" it.
        numbers: the class index of each number, as in ``VideoList.numbers`` of the training list.
        first_label: 0 or 1, the number of the first class; None detects it, or raises if it is ambiguous.
        columns: the names of the columns "path", "label", "split" and "group", if they are unusual; or their numbers
            from 0, if the file has no header. "labels" takes the names of several columns with one class each.
        select: which rows to take; None for all.
        clips: the unit of start and end of rows that are clips inside videos. "auto" detects it by the header and the
            times; None refuses such rows.
        separator: what separates the labels of a video with several, such as "|"; None if each video has one label.
        inclusive: whether the end of a clip in frames is its last frame. None reads it as the frame after the last, and
            refuses a list in which most clips end one frame before the next.

    Raises:
        SeqclfError: the list can't be read or is ambiguous; its lines have different forms; a label is not a class or
            contradicts the video's folder; a video is missing, or listed with two labels. The message names file and
            line.
    """
    if form not in FORMS:
        raise SeqclfError(f"form={form!r}: expected one of {', '.join(FORMS)}")
    if first_label not in (None, 0, 1):
        raise SeqclfError(f"first_label={first_label!r}: expected 0 or 1")
    path, root = Path(path), _checked(path, root, missing)
    known = bool(classes or class_index)
    found = read_rows(path, form, _with_split(columns, select), clips, separator, known, inclusive)
    chosen, split = _selected(path, found, select)
    several = separator is not None
    labels = row_labels(path, root, form, found, chosen, classes, class_index, numbers, first_label, several)
    videos, absent = _find_all(path, root, chosen, labels.of_rows, labels.classes, missing)
    out = VideoList(path, videos, labels.classes, found.form, "", labels.numbers, absent, found.unit)
    out.description = f"{path.name}: form {found.form}{found.header}{split}, {_described(out)} {labels.description}"
    if several:
        out.description += f", {counted(sum(v.label.count(1) for v in videos if isinstance(v.label, tuple)), 'label')}"
    return _with_groups(out, found, absent)


def read_paths(
    path: str | Path,
    root: str | Path,
    missing: str = "raise",
    *,
    columns: Columns | None = None,
    select: Selection | None = None,
    clips: Unit | Literal["auto"] | None = None,
    inclusive: bool | None = None,
) -> VideoList:
    """Reads only the paths of a list, and with ``clips`` start and end of clips, and finds its videos.

    In a file without a header, the path is the longest prefix of a line that is a video; the rest of the line is
    ignored. Videos are named by their paths from ``root`` and have no class. Repeated videos are read once. Arguments
    and errors are those of ``read_list``.
    """
    path, root = Path(path), _checked(path, root, missing)
    listed = read_path_rows(path, _with_split(columns, select), clips, inclusive)
    chosen, split = _selected(path, listed, select, refuse_shared=False)
    found, absent = _find_all(path, root, chosen, [0] * len(chosen), [], missing)
    videos = {(entry.path, entry.span, entry.split if select is None else None): entry for entry in found}
    groups = {entry.path: entry.group for entry in found}
    if any(groups[entry.path] != entry.group for entry in found):
        listed.group_column = None  # such as the subject of each action
    for entry in videos.values():
        entry.name = Path(
            os.path.relpath(entry.path, root) if entry.path.is_relative_to(root) else entry.path
        ).as_posix()
    description = f"{path.name}: {counted(len(videos), 'video')}{split}"
    out = VideoList(path, list(videos.values()), [], "paths", description, missing=absent, unit=listed.unit)
    return _with_groups(out, listed, absent)


def _with_split(columns: Columns | None, select: Selection | None) -> Columns:
    return {**(columns or {}), **({} if select is None or select.column is None else {"split": select.column})}


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
    rows = rows_of_part(path, found.rows, found.split_column, select)
    whole = len(rows) == len(found.rows)
    return rows, "" if whole else f", {select.part} rows by column {found.split_column}"


def _described(found: VideoList) -> str:
    """The number of videos or clips, and of classes."""
    videos = found.videos
    text = counted(len(videos), "video")
    if found.unit is not None:
        text = f"{counted(len(videos), 'clip')} in {found.unit} of {counted(len({v.path for v in videos}), 'video')}"
    if videos[0].frames is not None:
        text += f" of {sum(video.frames or 0 for video in videos):,} frames"
    repeated = len(videos) - len({(video.path, video.span) for video in videos})
    text += f" ({repeated:,} of them repeated)" if repeated else ""
    if found.form == "kinetics":
        whole = sum(Path(video.name).name != without_suffix(video.path.name) for video in videos)
        text += f" ({whole:,} of them without times in their names, read whole)" if whole else ""
    return f"{text}, {counted(len(found.classes), 'class')}"


def _with_groups(out: VideoList, found: Rows, absent: list[tuple[int, str]]) -> VideoList:
    """Completes the description by the groups and by what was skipped."""
    out.group_column = found.group_column
    if found.group_column is not None:
        groups = {video.group for video in out.videos}
        out.description += f", {counted(len(groups), 'group')} by column {found.group_column}"
    notes = list(found.notes)
    if absent:
        notes.append(f"{counted(len(absent), 'missing video')} skipped, the first in line {absent[0][0]}")
    out.description += "".join(f"; {note}" for note in notes)
    return out


def _checked(path: str | Path, root: str | Path, missing: str) -> Path:
    """The root, which must exist."""
    if missing not in ("raise", "skip"):
        raise SeqclfError(f'missing={missing!r}: expected "raise" or "skip"')
    root = Path(root).expanduser()
    if not root.is_dir():
        raise SeqclfError(f"{root}: no such folder (root of the videos in {path})")
    return root


def _find_all(
    path: Path, root: Path, rows: list[Row], labels: Sequence[Label], classes: Sequence[str], missing: str
) -> tuple[list[Entry], list[tuple[int, str]]]:
    """The videos that exist, and line and name of the missing ones."""
    folders = Folders(root.as_posix())
    videos: list[Entry] = []
    absent: list[tuple[int, str]] = []
    seen: dict[tuple[Path, tuple[float, float] | None], Entry] = {}
    for row, label in zip(rows, labels, strict=True):
        at = folders.find(row)
        if at is None:
            absent.append((row.line, row.name))
            if missing == "raise":
                raise SeqclfError(missing_video(row, root))
            continue
        entry = Entry(row.name, at, label, row.line, row.frames, row.span, row.group, row.split)
        first = seen.setdefault((at, row.span), entry)
        if isinstance(first.label, tuple) and isinstance(label, tuple) and first is not entry:
            first.label = tuple(map(max, first.label, label))  # a row for each class of a video
            continue
        if classes and (first.name, first.label) != (entry.name, entry.label):
            assert isinstance(first.label, int)
            raise SeqclfError(
                f"{row.where}: {row.name!r} with label {row.label} is {at}, but line {first.line} lists it as "
                f"{first.name!r} of class {classes[first.label]!r} (for several classes set multi_label=True)"
            )
        videos.append(entry)
    if not videos:
        raise SeqclfError(f"{path}: none of its {len(rows):,} videos exists under {root}, such as {rows[0].name!r}")
    return videos, absent
