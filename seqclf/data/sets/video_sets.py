"""Data sets of videos on disk, with one label per video or a label per frame."""

from __future__ import annotations

from collections.abc import Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any, Literal

from seqclf.batch import SeqclfError
from seqclf.data.annotations.segments import read_segments
from seqclf.data.annotations.videos import annotate_lists
from seqclf.data.data import Data
from seqclf.data.find import open_video
from seqclf.data.frames.feature_file import check_layout
from seqclf.data.frames.folder import FrameFolder
from seqclf.data.frames.source import Layout
from seqclf.data.frames.span import Unit
from seqclf.data.input_spec import DecisionRule
from seqclf.data.labelling import Labelling, every_frame
from seqclf.data.lists.class_index import read_class_index
from seqclf.data.lists.video_list import read_list, read_paths
from seqclf.data.sampling import CLIP, Sampling, reads_whole, whole
from seqclf.data.sets.parts import SetParts, choices, label_separator, part_lists, videos_of
from seqclf.data.tables.columns import Columns
from seqclf.data.transforms import Transform
from seqclf.runtime.paths import resolve_path
from seqclf.runtime.text import counted

CLASSES = "classes.txt"
"""The usual name of a file of class names."""


def video_set(
    root: str,
    train: str,
    test: str,
    validation: str | None = None,
    split: str | None = None,
    form: str = "auto",
    class_index: str | None = None,
    pattern: str | None = None,
    fps: float | None = None,
    sampling: Sampling = CLIP,
    test_sampling: Sampling = whole,
    transform: Transform | None = None,
    test_transform: Transform | None = None,
    labelling: Labelling = every_frame,
    workers: int = 2,
    on_error: str = "raise",
    first_label: int | None = None,
    columns: Columns | None = None,
    split_column: str | None = None,
    test_split: str | None = None,
    unit: Unit | Literal["auto"] = "auto",
    past_end: float | None = None,
    decision: DecisionRule | None = None,
    stream: int | None = None,
    layout: Layout = "time_first",
    multi_label: bool = False,
    separator: str = "|",
    inclusive: bool | None = None,
) -> Data:
    """Videos with one label each, or several, from lists in common formats (see ``seqclf.data.lists``).

    The same list may serve as ``train``, ``test`` and ``validation`` if it has a split column.

    Args:
        root: the folder that the paths in the lists are relative to.
        train: the list to train on, relative to the current folder or to ``root``.
        test: the list to test on.
        validation: the list to choose the best checkpoint on; None for no validation part.
        split: a list that replaces ``test``, as in ``seqclf evaluate runs/<run> data.split=test02.txt``.
        form: the form of the lists; see ``read_list``.
        class_index: a file with the numbers and names of the classes; see ``read_list``.
        pattern: which pictures of a folder are frames, such as "img_*"; None for all.
        fps: the frame rate to resample video files to; None keeps the rate of each file.
        sampling: which frames form a clip in training.
        test_sampling: which frames form the clips of an evaluation.
        transform: the transform of a clip's frames, with new random parameters each time; None for none.
        test_transform: the transform in evaluation; None for ``transform``.
        labelling: which frames of a clip are labelled.
        workers: the number of threads that read ahead.
        on_error: "raise"; "skip" to leave out videos that are missing or can't be read; "skip_frames" to leave out the
            frames of video files that can't be decoded. What is left out is reported and recorded.
        first_label: 0 or 1, the number of the first class; None detects it, or raises if it is ambiguous.
        columns: the columns "path", "label", "split" and "group" of the lists; see ``read_list``. ``{"group": None}``
            ignores the column of groups.
        split_column: the column that assigns rows to training, validation and test; None looks for the usual names,
            such as "split" or "fold".
        test_split: the value in that column that marks test rows, such as the number of a fold.
        unit: the unit of start and end in a list whose rows are clips inside videos; "auto" detects it by the header
            and the times, or raises if it is ambiguous. Frames are numbered as in the file or the names of pictures.
        past_end: how far a clip may extend past the end of its video, in ``unit``; see ``VideoSpan``.
        decision: how a clip is classified, by its "last" frame or by the "mean" over frames; None follows
            ``labelling``.
        stream: the video stream to read from files with several, from 0; None for FFmpeg's choice.
        layout: the axes of ``.npy`` files: "time_first" for (T, D), "features_first" for (D, T).
        multi_label: whether a video may have several labels: ``walk|run``, several numbers or names per line, a row for
            each label, or a column of 0 and 1 for each class, in which an empty cell is unknown.
        separator: what separates the labels of a video.
        inclusive: whether the end of a clip in frames is its last frame. None reads it as the frame after the last, and
            refuses a list in which most clips end one frame before the next.

    Raises:
        SeqclfError: a list or a video is missing or invalid. The message names the file and line.
    """
    check_layout(layout)
    lists = part_lists(root, train, test, validation, split, split_column, test_split)
    parts = SetParts(sampling, test_sampling, transform, test_transform, labelling, workers, on_error, multi_label)
    reader = partial(open_video, fps=fps, pattern=pattern, stream=stream, layout=layout, on_error=parts.damage())
    first: dict[str, Any] = {}
    descriptions = []
    for part, (path, select) in lists.items():
        found = read_list(
            path,
            root,
            form,
            first.get("classes"),
            class_index,
            parts.missing(),
            numbers=first.get("numbers"),
            first_label=first_label,
            columns=columns,
            select=select,
            clips=unit,
            separator=label_separator(multi_label, separator),
            inclusive=inclusive,
        )
        first = first or {"classes": found.classes, "numbers": found.numbers}
        videos = videos_of(found, reader, past_end)
        clips = parts.add(part, videos, found.groups(), found)
        descriptions.append(found.description)
        if part != "train" or all(isinstance(video.source, FrameFolder) for video in videos):  # these open quickly
            descriptions[-1] += f", {clips.open():,} frames{choices(videos, stream)}"
    listing = {"unit": unit, "inclusive": inclusive, "columns": dict(columns or {})}
    source = f"{root} ({'; '.join(descriptions)})"
    details = {"listing": listing}
    shared = split is not None
    return parts.data(first["classes"], source, decision=decision, details=details, allow_shared=shared, name=root)


def annotated_set(
    root: str,
    train: str,
    test: str,
    segments: str = "segments.csv",
    classes: str | Sequence[str] | None = "auto",
    validation: str | None = None,
    split: str | None = None,
    background: str | None = None,
    unit: Unit | Literal["auto"] = "auto",
    pattern: str | None = None,
    fps: float | None = None,
    sampling: Sampling = CLIP,
    test_sampling: Sampling = whole,
    transform: Transform | None = None,
    test_transform: Transform | None = None,
    workers: int = 2,
    on_error: str = "raise",
    frame_numbers: Literal["names", "order"] | None = None,
    past_end: float | None = None,
    inclusive: bool | None = None,
    first_label: int | None = None,
    columns: Columns | None = None,
    split_column: str | None = None,
    test_split: str | None = None,
    decision: DecisionRule | None = None,
    stream: int | None = None,
    layout: Layout = "time_first",
    multi_label: bool = False,
    separator: str = "|",
    annotation_fps: float | None = None,
    first_frame: Literal[0, 1] | None = None,
) -> Data:
    """Videos with a label per frame, from a table of segments ``video,start,end,label``.

    All videos are opened at the start, to check the segments. Arguments that are not listed are those of ``video_set``.

    Args:
        train, test, validation: lists of videos, one path per line; the rest of a line is ignored.
        segments: the table. It names videos by their paths in the lists, with or without suffix and folders. If each
            video has its own table, the folder of the tables, or a path with ``*`` for the name of the video.
        classes: the class names, or a file with one per line; None takes the labels in the table, sorted. "auto" is the
            file ``classes.txt`` if there is one, and None otherwise. The choice is reported.
        background: the class of frames outside all segments; None leaves them without a label. The segment metrics
            ignore it; they are computed if test clips are whole videos.
        unit: the unit of start and end, "frames" or "seconds"; "auto" detects it by the header and the times, or raises
            if it is ambiguous. Frames are those of the file, at its own rate.
        fps: the frame rate to resample video files to; a frame keeps its label in the file. For folders of pictures,
            the rate at which they were recorded, which segments in seconds need.
        frame_numbers: how segments number the frames of folders: "names", by the numbers in the names of the pictures,
            or "order", by position from 0. None uses the names if they are numbered, unless they count from 1 and a
            segment starts at 0. The choice is reported and recorded.
        past_end: how far a segment may extend past the end of its video or into the next segment, in ``unit``; None
            for one frame, or for the resolution of the table's times if that is coarser. The excess is cut off, and
            the number of such segments is reported.
        inclusive: with unit "frames", whether ``end`` is the last frame of a segment. None reads it as the frame
            after the last, and refuses a table in which most segments end one frame before the next.
        first_label: 0 or 1, the number of the first class, if labels are numbers. None takes it from the file of
            classes, or detects it, or raises if it is ambiguous.
        columns: the columns "video", "start", "end" and "label" of the table, see ``read_segments``; and "group" of the
            lists.
        multi_label: whether a frame may have several labels; segments may then overlap.
        annotation_fps: the frame rate of the annotation; None for the rate of each video.
        first_frame: the number of a video's first frame in the table. None means 1 if rows start at 1 and some end
            one frame after their video, and 0 otherwise. Folders of pictures follow ``frame_numbers``.

    Raises:
        SeqclfError: a list, a video or a segment is missing or invalid. The message names the file and line.
    """
    check_layout(layout)
    names, first_label = class_names(classes, root, first_label)
    parts = SetParts(sampling, test_sampling, transform, test_transform, None, workers, on_error, multi_label)
    given = part_lists(root, train, test, validation, split, split_column, test_split)
    lists = {
        part: read_paths(path, root, parts.missing(), columns=of_lists(columns), select=select)
        for part, (path, select) in given.items()
    }
    path, mark = resolve_path(segments, root), label_separator(multi_label, separator)
    listed = dict.fromkeys(entry.name for found in lists.values() for entry in found.videos)
    how = unit_at_rate(unit, annotation_fps), names, background, inclusive, columns, on_error, first_label, mark
    table = read_segments(path, *how, listed)
    reader = partial(
        open_video, fps=fps, pattern=pattern, folder_fps=fps, stream=stream, layout=layout, on_error=parts.damage()
    )
    found = annotate_lists(
        table, lists, reader, frame_numbers, past_end, workers, on_error, annotation_fps, first_frame
    )
    for part, videos in found.videos.items():
        clips = parts.add(part, videos, lists[part].groups([video.name for video in videos]), lists[part])
        clips.skipped.update(found.damaged[part])
    annotation = {  # how prediction reads other tables like this one
        "unit": table.unit,
        "inclusive": inclusive,
        "first_label": first_label,
        "separator": mark,
        "columns": dict(columns or {}),
        "past_end": past_end,
        "annotation_fps": annotation_fps,
        "first_frame": found.first_frame,
    }
    every = [video for videos in found.videos.values() for video in videos]
    origin = " of the table" if names is None else ""
    classes_found = f"{counted(len(table.classes), 'class')}{origin}{choices(every, stream)}"
    notes = [*found.descriptions, classes_found, *found.notes]
    over_videos = reads_whole(test_sampling) and not multi_label
    return parts.data(
        table.classes,
        f"{root} ({'; '.join(notes)})",
        details={**found.details, "annotation": annotation},
        background=None if not over_videos else [] if background is None else [table.classes.index(background)],
        decision=decision,
        allow_shared=split is not None,
        name=root,
    )


def unit_at_rate(unit: Unit | Literal["auto"], annotation_fps: float | None) -> Unit | Literal["auto"]:
    """The unit of a table of segments: frames if their rate is given."""
    return unit if unit != "auto" or annotation_fps is None else "frames"


def of_lists(columns: Columns | None) -> Columns:
    """The columns of ``annotated_set`` that belong to the lists, not to the table."""
    return {purpose: column for purpose, column in (columns or {}).items() if purpose == "group"}


def class_names(
    classes: str | Sequence[str] | None, root: str, first_label: int | None
) -> tuple[list[str] | None, int | None]:
    """The class names of ``annotated_set``, and the number of the first one."""
    if isinstance(classes, Set):
        raise SeqclfError(f"classes={classes!r}: a set has no order, expected a list of names")
    if classes == "auto":
        folders = Path(), Path(root).expanduser()  # as resolve_path searches them
        classes = CLASSES if any((folder / CLASSES).is_file() for folder in folders) else None
    if not isinstance(classes, str):
        return None if classes is None else list(classes), first_label
    try:
        index = read_class_index(resolve_path(classes, root))
    except SeqclfError as error:
        raise SeqclfError(
            f"{error}; classes= (--classes) takes a file, a list of names, or None for the labels in the table"
        ) from None
    return index.names, index.first if first_label is None else first_label
