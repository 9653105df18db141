"""Segment metrics of temporal action segmentation: frame accuracy, edit score and F1@{10,25,50}.

As the field defines them (Lea et al. 2016, "Segmental Spatiotemporal CNNs"; 2017, "Temporal Convolutional Networks"):
a *segment* is a run of frames of one class; background classes have no segments. All figures run from 0 to 100.

- frame accuracy: the share of labelled frames that are right, of all videos together, background frames included.
- edit score: 100 (1 - d / n), d being the Levenshtein distance of the two lists of segments' classes, whatever their
  lengths in frames, and n the longer list's length; the mean over videos.
- F1@k: each predicted segment goes to the true segment of its class with the highest intersection over union (the
  earlier of equals); it is right where that is at least k % and no other predicted segment was counted for that true
  segment. F1 = 2 right / (predicted + true), of the counts of all videos together.

What the definition leaves open is decided so:

- A frame without label (``IGNORE``) counts nowhere, and is to both sides what background is: no segment reaches across
  it, so that a segment on either side of it is a segment each. A video without any labelled frame is not counted.
- Neither side has a segment (nothing but background, and so predicted): edit 100. One side has none: edit 0.
- F1 is 0 where nothing is right, and 100 where no video has a segment on either side.
- All figures are None where nothing was counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError

Array = np.ndarray[Any, Any]
Labels = Tensor | Array | Sequence[int]
"""A class per frame, ``(T,)`` whole numbers, ``IGNORE`` where there is none."""

OVERLAPS = (10, 25, 50)
"""The k of F1@k, in per cent."""


def segments(labels: Labels, background: Iterable[int] = ()) -> list[tuple[int, int, int]]:
    """The runs of one class, as (class, first frame, frame after the last), but for ``IGNORE`` and background.

    Raises:
        SeqclfError: the labels are not ``(T,)`` whole numbers.
    """
    found = _segments(_array(labels, "labels"), list(background))
    return list(zip(found.classes.tolist(), found.starts.tolist(), found.ends.tolist(), strict=True))


class SegmentMetrics:
    """Counts over videos; ``figures`` gives what they come to.

    Args:
        background: the classes that have no segments; their frames count in the frame accuracy alone.
    """

    def __init__(self, background: Iterable[int] = ()) -> None:
        self.background = list(background)
        self.videos = self.frames = self.right_frames = 0
        self.edits: list[float] = []  # of each video; their sum is exact, so the same in any order
        self.segments = 0  # predicted and true
        self.right = np.zeros(len(OVERLAPS), dtype=np.int64)

    def add(self, predicted: Labels, labels: Labels) -> None:
        """Counts one video, whole: the classes predicted and the true ones, ``(T,)`` each.

        Raises:
            SeqclfError: they are not ``(T,)`` whole numbers, or of different T.
        """
        said, truth = _array(predicted, "predicted classes"), _array(labels, "labels")
        if len(said) != len(truth):
            raise SeqclfError(f"{len(said):,} frames are predicted, but {len(truth):,} have labels")
        labelled = truth != IGNORE
        if not labelled.any():
            return
        self.videos += 1
        self.frames += int(labelled.sum())
        self.right_frames += int((said == truth)[labelled].sum())
        guess = _segments(np.where(labelled, said, IGNORE), self.background)
        true = _segments(truth, self.background)
        longer = max(len(guess.classes), len(true.classes))
        self.edits.append(100 * (1 - _distance(guess.classes, true.classes) / longer) if longer else 100)
        self.segments += len(guess.classes) + len(true.classes)
        self.right += _right(guess, true)

    def merge(self, others: Iterable[SegmentMetrics]) -> None:
        """Counts the videos that others counted, such as other processes; the order is of no influence."""
        for other in others:
            self.videos += other.videos
            self.frames += other.frames
            self.right_frames += other.right_frames
            self.edits += other.edits
            self.segments += other.segments
            self.right = self.right + other.right

    def figures(self) -> dict[str, float | None]:
        """``frame_accuracy``, ``edit``, ``f1_10``, ``f1_25`` and ``f1_50``, from 0 to 100."""
        f1 = 200 * self.right / self.segments if self.segments else np.full(len(OVERLAPS), 100.0)
        figures = {
            "frame_accuracy": 100 * self.right_frames / max(self.frames, 1),
            "edit": math.fsum(self.edits) / max(self.videos, 1),
        }
        figures |= {f"f1_{k}": value for k, value in zip(OVERLAPS, f1.tolist(), strict=True)}
        return {name: value if self.videos else None for name, value in figures.items()}


class _Segments(NamedTuple):
    """Classes, first frames and frames after the last, ``(N,)`` each, in order."""

    classes: Array
    starts: Array
    ends: Array


def _segments(labels: Array, background: list[int]) -> _Segments:
    starts = np.flatnonzero(np.diff(labels, prepend=labels[:1] - 1))  # where the class is another than before
    ends = np.append(starts[1:], len(labels))
    kept = ~np.isin(labels[starts], [IGNORE, *background])
    return _Segments(labels[starts][kept], starts[kept], ends[: len(starts)][kept])


def _distance(a: Array, b: Array) -> int:
    """The Levenshtein distance, a row of its table at a time, along the longer list."""
    if len(a) > len(b):
        a, b = b, a
    columns = np.arange(len(b) + 1)
    row = columns
    for i, item in enumerate(a, 1):
        new = np.empty_like(row)
        new[0] = i
        np.minimum(row[1:] + 1, row[:-1] + (b != item), out=new[1:])  # delete, substitute
        row = np.minimum.accumulate(new - columns) + columns  # insert: the least of all to the left, plus the way
    return int(row[-1])


def _right(guess: _Segments, true: _Segments) -> Array:
    """How many predicted segments are right at each of ``OVERLAPS``."""
    if not len(guess.classes) or not len(true.classes):
        return np.zeros(len(OVERLAPS), dtype=np.int64)
    # Segments of one side do not overlap, so between two neighbouring edges of any lies one pair at most, and each
    # pair that overlaps lies between one such two alone: at most P + Y pairs, not P times Y.
    edges = np.unique(np.concatenate([guess.starts, guess.ends, true.starts, true.ends]))
    begin, shared = edges[:-1], np.diff(edges)
    p, y = _holding(guess, begin), _holding(true, begin)
    pairs = (p >= 0) & (y >= 0) & (guess.classes[p] == true.classes[y])
    p, y, shared = p[pairs], y[pairs], shared[pairs]
    union = (guess.ends - guess.starts)[p] + (true.ends - true.starts)[y] - shared
    overlap = shared / union
    order = np.lexsort((y, -overlap, p))  # of each p the highest first, of equals the earlier
    best = order[np.unique(p[order], return_index=True)[1]]
    return np.array([len(np.unique(y[best][overlap[best] >= k / 100])) for k in OVERLAPS])


def _holding(found: _Segments, frames: Array) -> Array:
    """Which segment holds each of these frames, -1 for none."""
    at = np.searchsorted(found.starts, frames, side="right") - 1
    return np.where(frames < found.ends[at], at, -1)


def _array(labels: Labels, what: str) -> Array:
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise SeqclfError(f"{what} are {array.dtype} of shape {array.shape}, expected whole numbers (T,)")
    return array.astype(np.int64)
