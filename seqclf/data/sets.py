"""Data sets of videos on disk, with one label per video or a label per frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Literal

from seqclf.batch import SeqclfError
from seqclf.data.annotated import annotate_lists
from seqclf.data.classes import read_class_index
from seqclf.data.columns import Columns
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
from seqclf.data.spans import Unit, VideoSpan, resolution, span_text
from seqclf.data.transforms import Transform
from seqclf.data.video_file import VideoFile
from seqclf.data.videos import Videos
from seqclf.runtime.text import counted


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
) -> Data:
    """Videos with one label each, or several, from lists in common formats (see ``seqclf.data.lists``).

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
        past_end: How far a clip may extend past the end of its video, in ``unit``; see ``VideoSpan``.
        decision: How a clip is classified, by its "last" frame or by the "mean" over frames; None follows
            ``labelling``.
        stream: The video stream to read from files with several, from 0; None for FFmpeg's choice.
        layout: The axes of ``.npy`` files: "time_first" for (T, D), "features_first" for (D, T).
        multi_label: Whether a video may have several labels: ``walk|run``, several numbers or names per line, a row for
            each label, or a column of 0 and 1 for each class, in which an empty cell is unknown.
        separator: What separates the labels of a video.

    Raises:
        SeqclfError: A list or a video is missing or invalid. The message names the file and line.
    """
    check_layout(layout)
    how = _Clips(sampling, test_sampling, transform, test_transform, labelling, workers, on_error, multi_label)
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
            separator=_separator(multi_label, separator),
        )
        training = training or found
        reader = partial(open_video, fps=fps, pattern=pattern, stream=stream, layout=layout, on_error=_damage(on_error))
        videos = _videos(found, reader, past_end)
        parts[part] = how.videos(part, videos, _absent(path, found), found.groups())
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
        warning=_leak(parts, measured=split is not None),
        decision=decision,
    )


def annotated_set(
    root: str,
    train: str,
    test: str,
    segments: str = "segments.csv",
    classes: str | Sequence[str] | None = "classes.txt",
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
    multi_label: bool = False,
    separator: str = "|",
    annotation_fps: float | None = None,
    first_frame: Literal[0, 1] | None = None,
) -> Data:
    """Videos with a label per frame, from a table of segments ``video,start,end,label``.

    All videos are opened at the start, to check the segments. Arguments that are not listed are those of ``video_set``.

    Args:
        train, test, validation: Lists of videos, one path per line; the rest of a line is ignored.
        segments: The table. It names videos by their paths in the lists, with or without suffix and folders. If each
            video has a file of its own, their folder, or their path with ``*`` for the name of the video.
        classes: The class names, or a file with one per line; None takes the labels in the table, sorted.
        background: The class of frames outside all segments; None leaves them without a label. The segment metrics
            ignore it; they are computed if test clips are whole videos.
        unit: The unit of start and end, "frames" or "seconds". Frames are those of the file, at its own rate.
        fps: The frame rate to resample video files to; a frame keeps its label in the file. For folders of pictures,
            the rate at which they were recorded, which segments in seconds need.
        frame_numbers: How segments number the frames of folders: "names", by the numbers in the names of the pictures,
            or "order", by position from 0. None uses the names if they are numbered, unless they count from 1 and a
            segment starts at 0. The choice is reported and recorded.
        past_end: How far a segment may extend past the end of its video or into the next segment, in ``unit``; None
            for one frame, or for the resolution of the table's times if that is coarser. The excess is cut off, and
            the number of such segments is reported.
        inclusive: With unit "frames", ``end`` is the last frame of a segment.
        first_label: 0 or 1, the number of the first class, if labels are numbers. None takes it from the file of
            classes, or detects it, or raises if it is ambiguous.
        columns: The columns "video", "start", "end" and "label" of the table; see ``read_segments``.
        multi_label: Whether a frame may have several labels; segments may then overlap.
        annotation_fps: The rate at which the table counts frames; None for that of each video.
        first_frame: The number of a video's first frame in the table. None: 1 if the table has a row per frame and its
            last row shows it, else 0. Folders of pictures follow ``frame_numbers``.

    Raises:
        SeqclfError: A list, a video or a segment is missing or invalid. The message names the file and line.
    """
    check_layout(layout)
    names, first_label = class_names(classes, root, first_label)
    how = _Clips(sampling, test_sampling, transform, test_transform, None, workers, on_error, multi_label)
    paths = _lists(root, {"train": train, "test": split or test, "validation": validation})
    select = _selections(paths, split_column, test_split, measured=split is not None)
    lists = {part: read_paths(path, root, _missing(on_error), select=select[part]) for part, path in paths.items()}
    table = read_segments(
        resolve_path(segments, root),
        unit,
        names,
        background,
        inclusive,
        columns,
        on_error,
        first_label,
        _separator(multi_label, separator),
        dict.fromkeys(entry.name for found in lists.values() for entry in found.videos),
    )
    names = table.classes
    reader = partial(open_video, stream=stream, layout=layout, on_error=_damage(on_error))
    found = annotate_lists(
        table, lists, fps, pattern, frame_numbers, past_end, workers, on_error, reader, annotation_fps, first_frame
    )
    parts = {
        part: how.videos(
            part,
            videos,
            _absent(paths[part], lists[part]) | found.damaged[part],
            lists[part].groups([video.name for video in videos]),
        )
        for part, videos in found.videos.items()
    }
    over_videos = getattr(test_sampling, "func", test_sampling) is whole and not multi_label
    return Data(
        parts["train"],
        parts["test"],
        names,
        f"{root} ({'; '.join([*found.descriptions, f'{len(names):,} classes', *found.notes])})",
        parts.get("validation"),
        warning=_leak(parts, measured=split is not None),
        details=found.details,
        background=None if not over_videos else [] if background is None else [names.index(background)],
        decision=decision,
    )


@dataclass(frozen=True)
class _Clips:
    """How the videos of a part become clips."""

    sampling: Sampling
    test_sampling: Sampling
    transform: Transform | None
    test_transform: Transform | None
    labelling: Labelling | None
    workers: int
    on_error: str
    multi_label: bool

    def videos(self, part: str, videos: list[Video], skipped: dict[str, str], groups: list[str] | None) -> Videos:
        """The data set of a part."""
        training = part == "train"
        out = Videos(
            videos,
            self.sampling if training else self.test_sampling,
            self.transform if training or self.test_transform is None else self.test_transform,
            training,
            self.labelling,
            self.workers,
            self.on_error,
            multi_label=self.multi_label,
            groups=groups,
        )
        out.skipped.update(skipped)
        return out


def class_names(
    classes: str | Sequence[str] | None, root: str, first_label: int | None
) -> tuple[list[str] | None, int | None]:
    """The class names of ``annotated_set``, and the number of the first one."""
    if not isinstance(classes, str):
        return None if classes is None else list(classes), first_label
    try:
        index = read_class_index(resolve_path(classes, root))
    except SeqclfError as error:
        raise SeqclfError(
            f"{error}; classes= takes a file, a list of names, or None for the labels in the table"
        ) from None
    return index.names, index.first if first_label is None else first_label


def _separator(multi_label: bool, separator: str) -> str | None:
    """The separator for the readers of lists and tables."""
    if not separator.strip():
        raise SeqclfError(f"separator={separator!r}: expected a character such as '|'")
    return separator if multi_label else None


def _lists(root: str, names: dict[str, str | None]) -> dict[str, Path]:
    """The list of each part that has one."""
    return {part: resolve_path(name, root) for part, name in names.items() if name is not None}


def _selections(
    lists: dict[str, Path], column: str | None, test_split: str | None, measured: bool
) -> dict[str, Selection]:
    """The rows of its list that each part takes; with ``measured``, any list may replace the test list."""
    paths = [path.resolve() for part, path in lists.items() if part != "test" or not measured]
    return {part: Selection(part, paths.count(path.resolve()) > 1, column, test_split) for part, path in lists.items()}


def _videos(found: VideoList, reader: Callable[[Path], Source], past_end: float | None) -> list[Video]:
    """The videos of a list, or clips inside them."""
    sources: dict[Path, Source] = {}  # clips of one video share a source, so that it is indexed once
    step = resolution([bound for entry in found.videos for bound in entry.span or ()], found.unit)
    videos = []
    for entry in found.videos:
        name, source = entry.name, reader(entry.path)
        if entry.span is not None and found.unit is not None:
            name += f", {span_text(*entry.span, found.unit)}"
            source = VideoSpan(sources.setdefault(entry.path, source), *entry.span, found.unit, past_end, step)
        videos.append(Video(name, source, entry.labels()))
    return videos


def _leak(parts: dict[str, Videos], measured: bool) -> str | None:
    """A warning if videos or groups are in training and in another part; None otherwise.

    Other parts than training then have no groups, as data sets may divide subjects on purpose. With ``measured``, the
    test list was replaced to measure other videos, which may be those of training.
    """
    train, test = ({(v.source.path, v.name) for v in parts[part].videos} for part in ("train", "test"))
    warnings = []
    if train & test:
        same = counted(len(train & test), "video")
        warnings.append(f"{same} in training and in test, such as {min(train & test)[1]}")
    groups = {name: set(part.groups or ()) for name, part in parts.items()}
    for one, other in combinations(groups, 2):
        if both := groups[one] & groups[other]:
            warnings.append(f"{counted(len(both), 'group')} in {one} and in {other}, such as {min(both)}")
            parts[other].groups = None
    return None if measured else "; ".join(warnings) or None


def _choices(videos: Sequence[Video], stream: int | None) -> str:
    """What was chosen where files could be read in several ways, for the source line."""
    several, chosen, clipped = 0, set(), 0
    for video in videos:
        if isinstance(video.source, VideoSpan):
            with suppress(SeqclfError):
                clipped += video.source.clipped
        if isinstance(video.source, VideoFile):
            with suppress(SeqclfError):  # left out, and reported as such
                count, number = video.source.streams()
                several += count > 1
                chosen |= {number} if count > 1 else set()
    arrays = next((video.source for video in videos if isinstance(video.source, FeatureFile)), None)
    notes = f", arrays {'(T, D)' if arrays.layout == 'time_first' else '(D, T)'}" if arrays else ""
    notes += f", {counted(clipped, 'clip')} cut at the end of their video" if clipped else ""
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
