"""Data sets of videos on disk, with one label per video or a label per frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Literal

from seqclf.batch import SeqclfError
from seqclf.data.annotated import annotate_lists
from seqclf.data.classes import read_class_index
from seqclf.data.data import Data
from seqclf.data.feature_file import FeatureFile, check_layout
from seqclf.data.find import open_video
from seqclf.data.frame_folder import FrameFolder
from seqclf.data.input_spec import DecisionRule
from seqclf.data.labelling import Labelling, every_frame
from seqclf.data.lists import Selection, VideoList, read_list, read_paths
from seqclf.data.paths import resolve_path
from seqclf.data.sampling import CLIP, Sampling, whole
from seqclf.data.segments import read_segments
from seqclf.data.source import Layout, Source, Video
from seqclf.data.spans import Unit, VideoSpan, span_text
from seqclf.data.tables import Columns
from seqclf.data.transforms import Transform
from seqclf.data.video_file import VideoFile
from seqclf.data.videos import Videos


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
    decision: DecisionRule | None = None,
    stream: int | None = None,
    layout: Layout = "time_first",
) -> Data:
    """Videos with one label each, from lists in common formats (see ``seqclf.data.lists``).

    The same list may serve as ``train``, ``test`` and ``validation`` if it has a split column.

    Args:
        root: The folder that the paths in the lists are relative to.
        train: The list to train on, relative to the current folder or to ``root``.
        test: The list to test on.
        validation: The list that chooses the best checkpoint; None for none.
        split: A list that replaces ``test``, as in ``seqclf evaluate runs/<run> data.split=test02.txt``.
        form: The form of the lists; see ``read_list``.
        class_index: A file with the numbers and names of the classes; see ``read_list``.
        pattern: Which pictures of a folder are frames, such as "img_*"; None for all.
        fps: The frame rate to resample video files to; None keeps the rate of each file.
        sampling: Which frames form a clip in training.
        test_sampling: Which frames form the clips of an evaluation.
        transform: The transform of a clip's frames, with new random parameters each time; None for none.
        test_transform: The transform in evaluation; None for ``transform``.
        labelling: Which frames of a clip are labelled.
        workers: The number of threads that read ahead.
        on_error: "raise"; "skip" to leave out videos that are missing or can't be read; "skip_frames" to leave out the
            frames of video files that can't be decoded. What is left out is reported and recorded.
        first_label: 0 or 1, the number of the first class; None detects it, or raises if it is ambiguous.
        columns: The columns "path", "label" and "split" of the lists; see ``read_list``.
        split_column: The column that assigns rows to training, validation and test; None looks for the usual names,
            such as "split" or "fold".
        test_split: The value in that column that marks test rows, such as the number of a fold.
        unit: The unit of start and end in a list whose rows are clips inside videos; "auto" detects it by the header
            and the times, or raises if it is ambiguous. Frames are numbered as in the file or the names of pictures.
        decision: How a clip is classified, by its "last" frame or by the "mean" over frames; None follows
            ``labelling``.
        stream: The video stream to read from files with several, from 0; None for FFmpeg's choice.
        layout: The axes of ``.npy`` files: "time_first" for (T, D), "features_first" for (D, T).

    Raises:
        SeqclfError: A list or a video is missing or invalid. The message names the file and line.
    """
    check_layout(layout)
    lists = _lists(root, {"train": train, "test": split or test, "validation": validation})
    select = _selections(lists, split_column, test_split, measured=split is not None)
    descriptions, parts = [], {}
    training: VideoList | None = None
    for part, path in lists.items():
        found = read_list(
            path,
            root,
            form,
            None if training is None else training.classes,
            class_index,
            _missing(on_error),
            numbers=None if training is None else training.numbers,
            first_label=first_label,
            columns=columns,
            select=select[part],
            clips=unit,
        )
        training = training or found
        reader = partial(open_video, fps=fps, pattern=pattern, stream=stream, layout=layout, on_error=_damage(on_error))
        videos = _videos(found, reader)
        parts[part] = Videos(
            videos,
            sampling if part == "train" else test_sampling,
            transform if part == "train" or test_transform is None else test_transform,
            part == "train",
            labelling,
            workers,
            on_error,
        )
        parts[part].skipped.update(_absent(path, found))
        descriptions.append(found.description)
        if part != "train" or all(isinstance(video.source, FrameFolder) for video in videos):  # these open quickly
            descriptions[-1] += f", {parts[part].open():,} frames{_choices(videos, stream)}"
    assert training is not None
    return Data(
        parts["train"],
        parts["test"],
        training.classes,
        f"{root} ({'; '.join(descriptions)})",
        parts.get("validation"),
        warning=None if split else _leak(parts),
        decision=decision,
    )


def annotated_set(
    root: str,
    train: str,
    test: str,
    segments: str = "segments.csv",
    classes: str | Sequence[str] = "classes.txt",
    validation: str | None = None,
    split: str | None = None,
    background: str | None = None,
    unit: Unit = "frames",
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
    inclusive: bool = False,
    first_label: int | None = None,
    columns: Columns | None = None,
    split_column: str | None = None,
    test_split: str | None = None,
    decision: DecisionRule | None = None,
    stream: int | None = None,
    layout: Layout = "time_first",
) -> Data:
    """Videos with a label per frame, from a table of segments ``video,start,end,label``.

    All videos are opened at the start, to check the segments. Arguments that are not listed are those of ``video_set``.

    Args:
        train, test, validation: Lists of videos, one path per line; the rest of a line is ignored.
        segments: The table. It names videos by their paths in the lists, with or without suffix and folders.
        classes: The class names, or a file with one per line.
        background: The class of frames outside all segments; None leaves them without a label. The segment metrics
            ignore it; they are computed if test clips are whole videos.
        unit: The unit of start and end, "frames" or "seconds". Frames are those of the file, at its own rate.
        fps: The frame rate to resample video files to; a frame keeps its label in the file. For folders of pictures,
            the rate at which they were recorded, which segments in seconds need.
        frame_numbers: How segments number the frames of folders: "names", by the numbers in the names of the pictures,
            or "order", by position from 0. None uses the names if they are numbered, unless they count from 1 and a
            segment starts at 0. The choice is reported and recorded.
        past_end: How far a segment may extend past the end of its video or into the next segment, in ``unit``; None
            for one frame. The excess is cut off, and the number of such segments is reported.
        inclusive: With unit "frames", ``end`` is the last frame of a segment.
        first_label: 0 or 1, the number of the first class, if labels are numbers. None takes it from the file of
            classes, or detects it, or raises if it is ambiguous.
        columns: The columns "video", "start", "end" and "label" of the table; see ``read_segments``.

    Raises:
        SeqclfError: A list, a video or a segment is missing or invalid. The message names the file and line.
    """
    check_layout(layout)
    names = list(classes)
    if isinstance(classes, str):
        index = read_class_index(resolve_path(classes, root))
        names, first_label = index.names, index.first if first_label is None else first_label
    place = resolve_path(segments, root)
    table = read_segments(place, unit, names, background, inclusive, columns, on_error, first_label)
    paths = _lists(root, {"train": train, "test": split or test, "validation": validation})
    select = _selections(paths, split_column, test_split, measured=split is not None)
    lists = {part: read_paths(path, root, _missing(on_error), select=select[part]) for part, path in paths.items()}
    reader = partial(open_video, stream=stream, layout=layout, on_error=_damage(on_error))
    found = annotate_lists(table, lists, fps, pattern, frame_numbers, past_end, workers, on_error, reader)
    parts = {}
    for part, videos in found.videos.items():
        parts[part] = Videos(
            videos,
            sampling if part == "train" else test_sampling,
            transform if part == "train" or test_transform is None else test_transform,
            part == "train",
            workers=workers,
            on_error=on_error,
        )
        parts[part].skipped.update(_absent(paths[part], lists[part]) | found.damaged[part])
    over_videos = getattr(test_sampling, "func", test_sampling) is whole
    return Data(
        parts["train"],
        parts["test"],
        names,
        f"{root} ({'; '.join([*found.descriptions, f'{len(names):,} classes', *found.notes])})",
        parts.get("validation"),
        warning=None if split else _leak(parts),
        details=found.details,
        background=None if not over_videos else [] if background is None else [names.index(background)],
        decision=decision,
    )


def _lists(root: str, names: dict[str, str | None]) -> dict[str, Path]:
    """The list of each part that has one."""
    return {part: resolve_path(name, root) for part, name in names.items() if name is not None}


def _selections(
    lists: dict[str, Path], column: str | None, test_split: str | None, measured: bool
) -> dict[str, Selection]:
    """The rows of its list that each part takes; with ``measured``, any list may replace the test list."""
    paths = [path.resolve() for part, path in lists.items() if part != "test" or not measured]
    return {part: Selection(part, paths.count(path.resolve()) > 1, column, test_split) for part, path in lists.items()}


def _videos(found: VideoList, reader: Callable[[Path], Source]) -> list[Video]:
    """The videos of a list, or clips inside them."""
    sources: dict[Path, Source] = {}  # clips of one video share a source, so that it is indexed once
    videos = []
    for entry in found.videos:
        if entry.span is None or found.unit is None:
            videos.append(Video(entry.name, reader(entry.path), entry.label))
            continue
        source = sources.setdefault(entry.path, reader(entry.path))
        name = f"{entry.name}, {span_text(*entry.span, found.unit)}"
        videos.append(Video(name, VideoSpan(source, *entry.span, found.unit), entry.label))
    return videos


def _leak(parts: dict[str, Videos]) -> str | None:
    """A warning if videos are in both training and test; None otherwise."""
    train, test = ({(v.source.path, v.name) for v in parts[part].videos} for part in ("train", "test"))
    if not train & test:
        return None
    return f"{len(train & test):,} videos are both in training and in test, such as {min(train & test)[1]}"


def _choices(videos: Sequence[Video], stream: int | None) -> str:
    """What was chosen where files could be read in several ways, for the source line."""
    several, chosen = 0, set()
    for video in videos:
        if isinstance(video.source, VideoFile):
            with suppress(SeqclfError):  # left out, and reported as such
                count, number = video.source.streams()
                several += count > 1
                chosen |= {number} if count > 1 else set()
    arrays = next((video.source for video in videos if isinstance(video.source, FeatureFile)), None)
    notes = f", arrays {'(T, D)' if arrays.layout == 'time_first' else '(D, T)'}" if arrays else ""
    numbers = " or ".join(map(str, sorted(chosen)))
    why = "FFmpeg's choice" if stream is None else "as set"
    return notes + (
        f", {several:,} files have several video streams; stream {numbers} is read ({why}, stream= changes it)"
        if several
        else ""
    )


def _damage(on_error: str) -> Literal["raise", "skip_frames"]:
    return "skip_frames" if on_error == "skip_frames" else "raise"


def _missing(on_error: str) -> str:
    return "skip" if on_error == "skip" else "raise"


def _absent(path: Path, found: VideoList) -> dict[str, str]:
    """The missing videos of a list: name -> reason."""
    return {video: f"{path.name}, line {line}: no such video" for line, video in found.missing}
