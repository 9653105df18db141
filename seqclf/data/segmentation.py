"""Feature sequences in the layout of temporal action segmentation.

features/<video>.npy      the features of the frames, (D, T) by default
groundTruth/<video>.txt   the class name of each frame, one per line
mapping.txt               the classes, "index name", one per line
splits/<split>.bundle     the videos of a split, "<video>.txt", one per line
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.data import Data
from seqclf.data.feature_file import FeatureFile, check_layout, open_array
from seqclf.data.sampling import Sampling, whole
from seqclf.data.source import Layout, Video
from seqclf.data.tables import numbered_lines, read_text
from seqclf.data.videos import Videos

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
) -> Data:
    """Feature sequences with labels of their frames, in the layout of temporal action segmentation.

    Args:
        root: the folder of ``features/``, ``groundTruth/``, ``mapping.txt`` and ``splits/``.
        split: the number n of ``splits/train.split<n>.bundle`` and ``splits/test.split<n>.bundle``.
        sample_rate: take every ``sample_rate``-th frame.
        on_length: if the lengths of features and labels differ, "cut" both to the shorter and report it, or "refuse".
        sampling: which frames form a clip in training; evaluation uses whole sequences.
        background: classes that the segment metrics ignore.
        workers: the number of threads that read ahead.
        on_error: "raise", or "skip" to leave out videos with values that are not finite.
        layout: the axes of the files: "features_first" for (D, T), the convention of the field, or "time_first" for
            (T, D). "auto" compares the axes with the lengths of the labels, and raises if that is ambiguous.

    Raises:
        SeqclfError: a file is missing or wrong.
    """
    folder = Path(root).expanduser()
    (train, classes, notes), (test, _, test_notes) = (
        segmentation_set(folder, f"{part}.split{split}", sample_rate, "mapping.txt", on_length, layout)
        for part in ("train", "test")
    )
    unknown = sorted(set(background) - set(classes))
    if unknown:
        raise SeqclfError(f"background={unknown[0]!r}: the classes are {', '.join(classes)}")
    return Data(
        Videos(train, sampling, training=True, workers=workers, on_error=on_error),
        Videos(test, workers=workers, on_error=on_error),
        classes,
        f"{root} ({'; '.join([*notes, *test_notes])})",
        background=[classes.index(name) for name in background],
    )


def segmentation_set(
    root: str | Path,
    split: str,
    sample_rate: int = 1,
    mapping: str = "mapping.txt",
    on_length: Literal["cut", "refuse"] = "cut",
    layout: Layout | Literal["auto"] = "features_first",
) -> tuple[list[Video], list[str], list[str]]:
    """Opens the videos of one split, with their labels.

    Args:
        root: the folder of ``features``, ``groundTruth``, ``splits`` and the mapping.
        split: the name of the split, such as "train.split1".
        sample_rate: take every ``sample_rate``-th frame of features and labels.
        mapping: the name of the mapping file.
        on_length: "cut" features and labels of a video to the shorter of both, or "refuse" a difference.
        layout: the axes of the feature files; see ``FeatureFile``. "auto" takes the layout in which all videos have the
            same number of features and about as many frames as labels. It refuses if both or neither do.

    Returns:
        the videos with labels ``(T,)`` int64, the class names, and notes on what was read and cut.

    Raises:
        SeqclfError: a file is missing or damaged; a class is not in the mapping; the videos differ in their number of
            features; features and labels differ in length, and ``on_length`` is "refuse" or the difference is large.
    """
    if on_length not in ("cut", "refuse"):
        raise SeqclfError(f'on_length={on_length!r}: expected "cut" or "refuse"')
    check_layout(layout, ("time_first", "features_first", "auto"))
    root = Path(root)
    classes = read_mapping(root / mapping)
    index = {name: k for k, name in enumerate(classes)}
    names = _read_bundle(root / "splits", split)
    labels = [read_labels(root / "groundTruth" / f"{name}.txt", index, root / mapping) for name in names]
    paths = [root / "features" / f"{name}.npy" for name in names]
    chosen = _layout_by_labels(paths, labels) if layout == "auto" else layout
    size = FeatureFile(paths[0], layout=chosen).frame_shape[0]
    videos, differing, most = [], [], 0
    for name, path, y in zip(names, paths, labels, strict=True):
        frames = len(FeatureFile(path, layout=chosen, size=size))
        short = min(frames, len(y))
        if frames != len(y):
            differing.append(_expect_similar(path, frames, root / "groundTruth" / f"{name}.txt", len(y), on_length))
            most = max(most, abs(frames - len(y)))
        source = FeatureFile(path, sample_rate, chosen, size, short)
        videos.append(Video(name, source, y[:short:sample_rate].clone()))
    total = sum(len(video.source) for video in videos)
    every = f", one frame of {sample_rate}" if sample_rate > 1 else ""
    axes = "(D, T)" if chosen == "features_first" else "(T, D)"
    what = f"{len(videos):,} videos, {total:,} frames of {size} features{every}, {len(classes)} classes"
    notes = [f"{root}, split {split}: {what}, files {axes} (layout={chosen})"]
    if differing:
        notes.append(
            f"warning: in {len(differing):,} of {len(videos):,} videos the numbers of features and labels differ "
            f"by up to {most:,} frames; both are cut to the shorter. The first is {differing[0]}"
        )
    return videos, classes, notes


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


def read_mapping(path: str | Path) -> list[str]:
    """Reads the class names, in the order of their indices, from lines of "index name".

    Raises:
        SeqclfError: the file is missing; a line has another form, or repeats an index or a name; an index is missing.
    """
    lines: dict[int, tuple[int, str]] = {}
    seen: dict[str, int] = {}
    for number, line in numbered_lines(path, comments=False):
        parts = line.split(maxsplit=1)
        if len(parts) != 2 or not (parts[0].isascii() and parts[0].isdigit()):
            raise SeqclfError(f'{path}, line {number}: {line!r}, expected "index name", such as "0 background"')
        k, name = int(parts[0]), parts[1]
        if k in lines or name in seen:
            what = f"index {k}" if k in lines else f"class {name}"
            first = lines[k][0] if k in lines else seen[name]
            raise SeqclfError(f"{path}, line {number}: {what} is already in line {first}")
        lines[k], seen[name] = (number, name), number
    absent = [k for k in range(len(lines)) if k not in lines]
    if absent:
        raise SeqclfError(f"{path}: has {len(lines)} classes, but index {absent[0]} is missing")
    return [lines[k][1] for k in range(len(lines))]


def _read_bundle(folder: Path, split: str) -> list[str]:
    """The names of the videos in a split, without ".txt"."""
    path = folder / f"{split.removesuffix('.bundle')}.bundle"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in folder.glob("*.bundle"))) or "none"
        raise SeqclfError(f"{path}: no such file; available splits: {there}")
    seen: dict[str, int] = {}
    for number, line in numbered_lines(path, comments=False):
        name = line.removesuffix(".txt").removesuffix(".npy")
        if name in seen:
            raise SeqclfError(f"{path}, line {number}: video {name} is already in line {seen[name]}")
        seen[name] = number
    return list(seen)


def read_labels(path: Path, index: dict[str, int], mapping: str | Path) -> Tensor:
    """Reads the labels ``(T,)`` int64 of a file with one class name per line.

    Args:
        path: the file.
        index: the number of each class name.
        mapping: the file of the class names, for error messages.

    Raises:
        SeqclfError: the file is missing, or a class is not in the index; names the line.
    """
    lines = read_text(path).rstrip().split("\n")
    labels = [index.get(line.strip(), -1) for line in lines]
    if -1 in labels:
        number = labels.index(-1)
        name = lines[number].strip()
        wrong = f"class {name!r} is not in {mapping}" if name else "empty, expected a class name"
        raise SeqclfError(f"{path}, line {number + 1}: {wrong}")
    return torch.tensor(labels, dtype=torch.int64)
