"""Feature sequences as temporal action segmentation keeps them: a file of features and one of labels for each video.

features/<video>.npy      (D, T), the field's layout, or (T, D)
groundTruth/<video>.txt   the name of a class for each frame, one a line
mapping.txt               "index name", one a line
splits/<split>.bundle     the videos of a split, "<video>.txt", one a line
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.frame_times import FrameTimes
from seqclf.data.source import Source, Video

Transpose = bool | Literal["auto"]

OTHER_RATE = 1.5
"""Features and labels of which one is so many times as long as the other are of different frame rates."""


class FeatureFile:
    """The feature vectors of one video in an ``.npy`` file, as a ``Source``; frames of ``(D,)`` float32.

    The file is mapped, not loaded: a clip reads its own frames. It is opened anew by each ``read``, so that thousands
    of videos hold no file open, and one goes to a worker process as little more than its path.

    Args:
        path: the file, of numbers of any type.
        sample_rate: every how many of the file's frames one is taken, from the first on.
        transpose: True for files of ``(D, T)``, False for ``(T, D)``; "auto" goes by ``size``, and is ``(D, T)`` where
            that is not given or says nothing.
        size: D, where it is known; a file of another is an error.
        length: only so many of the file's frames are there (before sampling); None for all.
    """

    def __init__(
        self,
        path: str | Path,
        sample_rate: int = 1,
        transpose: Transpose = "auto",
        size: int | None = None,
        length: int | None = None,
    ) -> None:
        if sample_rate < 1:
            raise SeqclfError(f"sample_rate={sample_rate}: must be 1 or more")
        if transpose not in (True, False, "auto"):
            raise SeqclfError(f'transpose is True, False or "auto", not {transpose!r}')
        self.path = str(path)
        self.sample_rate, self.transpose, self.size, self.length = sample_rate, transpose, size, length

    kind = "array"

    def reader(self) -> Callable[..., Source]:
        """Opens another file in the same way: with this file's layout and number of features."""
        D, _, transposed = self._layout
        return partial(FeatureFile, sample_rate=self.sample_rate, transpose=transposed, size=D)

    @property
    def file_length(self) -> int:
        """The number of frames in the file, before sampling."""
        return self._layout[1]

    def __len__(self) -> int:
        return len(range(0, self._layout[1], self.sample_rate))

    def frame_times(self) -> FrameTimes:
        """The number in the file of each frame."""
        return FrameTimes(np.arange(len(self)) * self.sample_rate, self._layout[1])

    @property
    def frame_shape(self) -> tuple[int]:
        return (self._layout[0],)

    def read(self, numbers: Sequence[int]) -> Tensor:
        """The frames of these numbers, ``(n, D)`` float32.

        Raises:
            SeqclfError: the file is missing, damaged or of another shape; there is no such frame; a value of a frame
                is not finite.
        """
        chosen = np.asarray(numbers, dtype=np.int64).reshape(-1)
        beyond = chosen[(chosen < 0) | (chosen >= len(self))]
        if len(beyond):
            raise SeqclfError(f"{self.path}: there is no frame {beyond[0]}, only 0 to {len(self) - 1}")
        D, _, transposed = self._layout
        rows: Any = chosen * self.sample_rate
        steps = np.unique(np.diff(rows, append=rows[-1:] + self.sample_rate))
        if len(steps) == 1 and steps[0] > 0:
            rows = slice(rows[0], rows[-1] + 1, steps[0])  # a view: nothing but the conversion copies
        mapped = _open(self.path)
        frames = torch.empty(len(chosen), D)
        with np.errstate(over="ignore"):  # what float32 can't hold becomes infinite, and is refused beneath
            frames.numpy()[:] = mapped[:, rows].T if transposed else mapped[rows]
        if not frames.sum().isfinite() and not (finite := frames.isfinite().all(1)).all():  # the sum is the quick look
            at = int(chosen[int((~finite).nonzero()[0])]) * self.sample_rate
            raise SeqclfError(f"{self.path}: frame {at} of the file holds values that are not finite (NaN or infinite)")
        return frames

    @cached_property
    def _layout(self) -> tuple[int, int, bool]:
        """D, the T that is there before sampling, and whether the file is (D, T)."""
        shape = _open(self.path).shape
        by_size = self.size is not None and shape[1] == self.size != shape[0]
        transposed = not by_size if self.transpose == "auto" else self.transpose
        D, T = shape if transposed else shape[::-1]
        if self.size is not None and self.size != D:
            raise SeqclfError(f"{self.path}: features of {D} values (the file is {shape}), expected {self.size}")
        return D, T if self.length is None else min(T, self.length), transposed


def segmentation_set(
    root: str | Path,
    split: str,
    sample_rate: int = 1,
    mapping: str = "mapping.txt",
    on_length: Literal["cut", "refuse"] = "cut",
    transpose: Transpose = "auto",
) -> tuple[list[Video], list[str], list[str]]:
    """The videos of one split, each with a label per frame ``(T,)`` int64 at the sample rate.

    Args:
        root: the folder of ``features``, ``groundTruth``, ``splits`` and the mapping.
        split: such as "train.split1".
        sample_rate: every how many frames one is taken, of features and labels.
        mapping: the mapping's file name.
        on_length: where a video has more features than labels or fewer, "cut" both to the shorter or "refuse".
        transpose: as of ``FeatureFile``; "auto" is the layout under which all videos have features of one size; where
            both are such, or none, the one under which the lengths agree better with the labels.

    Returns:
        the videos, the classes' names, and what to tell the user, line by line: what was read, and what was cut.

    Raises:
        SeqclfError: a file is missing or damaged; a class is not in the mapping; features and labels differ in length
            and that is to be refused, or so much that they are of different frame rates; features of different sizes.
    """
    if on_length not in ("cut", "refuse"):
        raise SeqclfError(f'on_length is "cut" or "refuse", not {on_length!r}')
    root = Path(root)
    classes = read_mapping(root / mapping)
    index = {name: k for k, name in enumerate(classes)}
    names = _read_bundle(root / "splits", split)
    labels = [read_labels(root / "groundTruth" / f"{name}.txt", index, root / mapping) for name in names]
    paths = [root / "features" / f"{name}.npy" for name in names]
    shapes = [_open(path).shape for path in paths]
    if transpose == "auto":
        one_size = [len({shape[axis] for shape in shapes}) == 1 for axis in (0, 1)]
        off = [sum(abs(shape[axis] - len(y)) for shape, y in zip(shapes, labels, strict=True)) for axis in (1, 0)]
        transpose = one_size[0] if one_size[0] != one_size[1] else off[0] <= off[1]
    size = shapes[0][0 if transpose else 1]
    videos, differing, most = [], [], 0
    for name, path, y in zip(names, paths, labels, strict=True):
        whole = len(FeatureFile(path, 1, transpose, size))
        short = min(whole, len(y))
        if whole != len(y):
            sizes = f"{path} has {whole:,} frames, but {root / 'groundTruth' / name}.txt {len(y):,} labels"
            if on_length == "refuse":
                raise SeqclfError(f"{sizes} (on_length=cut takes the shorter)")
            if max(whole, len(y)) >= OTHER_RATE * short:
                raise SeqclfError(f"{sizes}: they can't be of the same frame rate")
            differing.append(sizes)
            most = max(most, abs(whole - len(y)))
        videos.append(
            Video(name, FeatureFile(path, sample_rate, transpose, size, short), y[:short:sample_rate].clone())
        )
    frames = sum(len(video.source) for video in videos)
    every = f", one frame of {sample_rate}" if sample_rate > 1 else ""
    what = f"{len(videos):,} videos, {frames:,} frames of {size} features{every}, {len(classes)} classes"
    told = [f"{root}, split {split}: {what}"]
    if differing:
        told.append(
            f"warning: {len(differing):,} of {len(videos):,} videos have more features than labels or fewer (by up to "
            f"{most:,} frames) and are cut to the shorter; the first: {differing[0]}"
        )
    return videos, classes, told


def read_mapping(path: str | Path) -> list[str]:
    """The classes' names in the order of their indices, from lines of "index name".

    Raises:
        SeqclfError: the file is missing; a line is no such pair, or says again what another said; an index is missing.
    """
    lines: dict[int, tuple[int, str]] = {}
    seen: dict[str, int] = {}
    for number, line in _lines(path):
        parts = line.split(maxsplit=1)
        if len(parts) != 2 or not (parts[0].isascii() and parts[0].isdigit()):
            raise SeqclfError(f'{path}, line {number}: expected "index name", such as "0 background", not {line!r}')
        k, name = int(parts[0]), parts[1]
        if k in lines or name in seen:
            what = f"index {k}" if k in lines else f"class {name}"
            first = lines[k][0] if k in lines else seen[name]
            raise SeqclfError(f"{path}, line {number}: {what} is already in line {first}")
        lines[k], seen[name] = (number, name), number
    absent = [k for k in range(len(lines)) if k not in lines]
    if absent:
        raise SeqclfError(f"{path}: has {len(lines)} classes, but none of index {absent[0]}: they count from 0 on")
    return [lines[k][1] for k in range(len(lines))]


def _read_bundle(folder: Path, split: str) -> list[str]:
    """The videos' names, in the order of the list, without ".txt"."""
    path = folder / f"{split.removesuffix('.bundle')}.bundle"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in folder.glob("*.bundle"))) or "none"
        raise SeqclfError(f"{path}: no such file; splits there: {there}")
    seen: dict[str, int] = {}
    for number, line in _lines(path):
        name = line.removesuffix(".txt").removesuffix(".npy")
        if name in seen:
            raise SeqclfError(f"{path}, line {number}: video {name} is already in line {seen[name]}")
        seen[name] = number
    return list(seen)


def read_labels(path: Path, index: dict[str, int], mapping: str | Path) -> Tensor:
    """The labels ``(T,)`` int64 of a file with the name of each frame's class a line, by ``index`` of the names.

    Raises:
        SeqclfError: the file is missing, or a class is not in the index, which comes from ``mapping``: with the line.
    """
    lines = _text(path).rstrip().split("\n")
    labels = [index.get(line.strip(), -1) for line in lines]
    if -1 in labels:
        number = labels.index(-1)
        name = lines[number].strip()
        wrong = f"class {name!r} is not in {mapping}" if name else "empty, expected the class of a frame"
        raise SeqclfError(f"{path}, line {number + 1}: {wrong}")
    return torch.tensor(labels, dtype=torch.int64)


def _lines(path: str | Path) -> list[tuple[int, str]]:
    """The lines that are not blank, with their numbers from 1."""
    return [(number, line.strip()) for number, line in enumerate(_text(path).split("\n"), 1) if line.strip()]


def _text(path: str | Path) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise SeqclfError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SeqclfError(f"{path}: can't be read as text ({error})") from None
    if not text.strip():
        raise SeqclfError(f"{path}: empty")
    return text


def _open(path: str | Path) -> np.ndarray[Any, Any]:
    """The file's array, mapped."""
    try:
        mapped = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise SeqclfError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, SyntaxError, TypeError) as error:
        raise SeqclfError(f"{path}: no .npy file of numbers, or a damaged one ({error})") from None
    if mapped.ndim != 2 or not mapped.size or mapped.dtype.kind not in "fiub":
        raise SeqclfError(
            f"{path}: {mapped.dtype} of shape {mapped.shape}, expected numbers (D, T) or (T, D), none empty"
        )
    return mapped
