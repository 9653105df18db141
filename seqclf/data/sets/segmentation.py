"""Feature sequences in the layout of temporal action segmentation.

features/<video>.npy      the features of the frames, (D, T) by default
groundTruth/<video>.txt   the class name of each frame, one per line
mapping.txt               the classes, "index name", one per line
splits/<split>.bundle     the videos of a split, "<video>.txt", one per line

seqclf adds two files to this layout:

groundTruth/<video>.npy   labels of another kind, as in ``Video``: (T,) class indices or ``IGNORE``; () one index for
                          the whole video; of multi-label data (T, K) or (K,) of 0, 1 and ``IGNORE``
groups.csv                the columns video, group
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.data import Data
from seqclf.data.frames.feature_file import FeatureFile, check_layout, open_array
from seqclf.data.frames.source import Layout, Video
from seqclf.data.input_spec import DecisionRule
from seqclf.data.labelling import Labelling
from seqclf.data.sampling import Sampling, reads_whole, whole
from seqclf.data.sets.ground_truth import read_bundle, read_ground_truth, read_groups, read_mapping, truth_file
from seqclf.data.sets.parts import SetParts

OTHER_RATE = 1.5
"""Features and labels whose lengths differ by this factor are taken to have different frame rates."""


def feature_set(
    root: str,
    split: int = 1,
    sample_rate: int = 1,
    on_length: Literal["cut", "refuse"] = "cut",
    sampling: Sampling = whole,
    background: Sequence[str] = (),
    workers: int = 2,
    on_error: str = "raise",
    layout: Layout | Literal["auto"] = "features_first",
    test_sampling: Sampling = whole,
    labelling: Labelling | None = None,
    decision: DecisionRule | None = None,
    multi_label: bool = False,
) -> Data:
    """Feature sequences with labels of their frames, or one label each, in the layout of temporal action segmentation.

    Args:
        root: the folder of ``features/``, ``groundTruth/``, ``mapping.txt`` and ``splits/``.
        split: the number n of ``splits/train.split<n>.bundle`` and ``splits/test.split<n>.bundle``. If there is a
            ``splits/validation.split<n>.bundle``, it is the validation part.
        sample_rate: take every ``sample_rate``-th frame.
        on_length: if the lengths of features and labels differ, "cut" both to the shorter and report it, or "refuse".
        sampling: which frames form a clip in training.
        background: classes that the segment metrics ignore.
        workers: the number of threads that read ahead.
        on_error: "raise", or "skip" to leave out videos with values that are not finite.
        layout: the axes of the files: "features_first" for (D, T), the convention of the field, or "time_first" for
            (T, D). "auto" compares the axes with the lengths of the labels, and raises if that is ambiguous.
        test_sampling: which frames form the clips of an evaluation.
        labelling: which frames of a clip are labelled; None for every frame, or the labelled ones.
        decision: how a clip is classified; see ``video_set``.
        multi_label: whether a frame, or video, may have several labels.

    Raises:
        SeqclfError: a file is missing or wrong.
    """
    folder = Path(root).expanduser()
    parts = SetParts(sampling, test_sampling, None, None, labelling, workers, on_error, multi_label)
    groups, notes, classes = read_groups(folder), list[str](), list[str]()
    for part in ("train", "validation", "test"):
        if part == "validation" and not (folder / "splits" / f"validation.split{split}.bundle").is_file():
            continue
        name = f"{part}.split{split}"
        videos, classes, read = segmentation_set(folder, name, sample_rate, on_length, layout, multi_label)
        notes += read
        grouped = [groups.get(v.name, v.name) for v in videos] if any(v.name in groups for v in videos) else None
        parts.add(part, videos, grouped)
    per_frame = parts.found["test"].per_frame and not multi_label
    return parts.data(
        classes,
        f"{root} ({'; '.join(notes)})",
        background=_background(background, classes, per_frame, test_sampling),
        decision=decision,
        name=root,
    )


def _background(
    background: Sequence[str], classes: Sequence[str], per_frame: bool, test_sampling: Sampling
) -> list[int] | None:
    """The indices of the classes that segment metrics ignore; None if test clips give no such metrics."""
    unknown = sorted(set(background) - set(classes))
    if unknown:
        raise SeqclfError(f"background={unknown[0]!r}: the classes are {', '.join(classes)}")
    if background and not per_frame:
        raise SeqclfError(f"background={background[0]!r}: is for data with one class per frame")
    return [classes.index(name) for name in background] if per_frame and reads_whole(test_sampling) else None


def segmentation_set(
    root: str | Path,
    split: str,
    sample_rate: int = 1,
    on_length: Literal["cut", "refuse"] = "cut",
    layout: Layout | Literal["auto"] = "features_first",
    multi_label: bool = False,
) -> tuple[list[Video], list[str], list[str]]:
    """Opens the videos of one split, with their labels.

    Args:
        root: the folder of ``features/``, ``groundTruth/``, ``mapping.txt`` and ``splits/``.
        split: the name of the split, such as "train.split1".
        sample_rate: take every ``sample_rate``-th frame of features and labels.
        on_length: "cut" features and labels of a video to the shorter of both, or "refuse" a difference.
        layout: the axes of the feature files; see ``FeatureFile``. "auto" takes the layout in which all videos have the
            same number of features and about as many frames as labels. It refuses if both or neither do.
        multi_label: whether a frame, or video, may have several labels.

    Returns:
        the videos with labels as in ``Video``, the class names, and notes on what was read and cut.

    Raises:
        SeqclfError: a file is missing or damaged; a class is not in the mapping; the videos differ in their number of
            features; features and labels differ in length, and ``on_length`` is "refuse" or the difference is large.
    """
    if on_length not in ("cut", "refuse"):
        raise SeqclfError(f'on_length={on_length!r}: expected "cut" or "refuse"')
    check_layout(layout, ("time_first", "features_first", "auto"))
    root, names = Path(root), read_bundle(Path(root) / "splits", split)
    mapping = root / "mapping.txt"
    classes = read_mapping(mapping)
    index = {name: k for k, name in enumerate(classes)}
    labels = [read_ground_truth(root / "groundTruth", name, index, mapping, multi_label) for name in names]
    paths = [root / "features" / f"{name}.npy" for name in names]
    if layout == "auto" and any(y.dim() == multi_label for y in labels):
        raise SeqclfError(f"{paths[0]}: layout=auto needs labels per frame; set layout=time_first or features_first")
    chosen = _layout_by_labels(paths, labels) if layout == "auto" else layout
    size = FeatureFile(paths[0], layout=chosen).frame_shape[0]
    videos, differing, most = [], [], 0
    for name, path, y in zip(names, paths, labels, strict=True):
        frames = len(FeatureFile(path, layout=chosen, size=size))
        if y.dim() == multi_label:  # a label for the whole video
            videos.append(Video(name, FeatureFile(path, sample_rate, chosen, size), y if multi_label else int(y)))
            continue
        if frames != len(y):
            differing.append(_expect_similar(path, frames, truth_file(root / "groundTruth", name), len(y), on_length))
            most = max(most, abs(frames - len(y)))
        source = FeatureFile(path, sample_rate, chosen, size, min(frames, len(y)))
        videos.append(Video(name, source, y[: min(frames, len(y)) : sample_rate].clone()))
    what = f"{_content(videos, sample_rate, size)}, {len(classes)} classes"
    axes = "(D, T)" if chosen == "features_first" else "(T, D)"
    notes = [f"{root}, split {split}: {what}, files {axes} (layout={chosen})"]
    if differing:
        notes.append(
            f"warning: in {len(differing):,} of {len(videos):,} videos the numbers of features and labels differ "
            f"by up to {most:,} frames; both are cut to the shorter. The first is {differing[0]}"
        )
    return videos, classes, notes


def _content(videos: Sequence[Video], sample_rate: int, size: int) -> str:
    total = sum(len(video.source) for video in videos)
    every = f", one frame of {sample_rate}" if sample_rate > 1 else ""
    return f"{len(videos):,} videos, {total:,} frames of {size} features{every}"


def _expect_similar(features: Path, frames: int, labels: Path, count: int, on_length: str) -> str:
    """A description of the difference; an error where it is refused or large."""
    sizes = f"{features} has {frames:,} frames, but {labels} has {count:,} labels"
    if max(frames, count) >= OTHER_RATE * min(frames, count):
        raise SeqclfError(f"{sizes}: their frame rates differ, or the axes are swapped (layout=)")
    if on_length == "refuse":
        raise SeqclfError(f"{sizes} (on_length=cut cuts both to the shorter)")
    return sizes


def _layout_by_labels(paths: list[Path], labels: list[Tensor]) -> Layout:
    """The layout in which all files have one number of features, and about as many frames as labels."""
    shapes = [open_array(path).shape for path in paths]

    def fits(time: int) -> bool:
        similar = (
            max(s[time], len(y)) < OTHER_RATE * min(s[time], len(y)) for s, y in zip(shapes, labels, strict=True)
        )
        return len({shape[1 - time] for shape in shapes}) == 1 and all(similar)

    first, second = fits(0), fits(1)
    if first == second:
        raise SeqclfError(
            f"{paths[0]}: layout=auto: {'both' if first else 'neither'} of (T, D) and (D, T) agree with the labels "
            f"({len(labels[0])} labels, an array of {shapes[0]}); set layout=time_first or layout=features_first"
        )
    return "time_first" if first else "features_first"
