"""Segment metrics of temporal action segmentation: frame accuracy, edit score and F1@{10,25,50}.

Definitions follow Lea et al. (2016, "Segmental Spatiotemporal CNNs"; 2017, "Temporal Convolutional Networks"). A
*segment* is a run of frames of one class. Background classes have no segments. All metrics are from 0 to 100.

- Frame accuracy: the share of labelled frames that are correct, over all videos, background frames included.
- Edit score: 100 (1 - d / n), where d is the Levenshtein distance between the predicted and the true list of segment
  classes, and n the length of the longer list; the mean over videos.
- F1@k: each predicted segment is matched to the true segment of its class with the highest intersection over union
  (the earlier of equals). It is correct if that is at least k % and no other predicted segment was counted for the same
  true segment. F1 = 2 correct / (predicted + true), over the counts of all videos.

Cases that the definitions leave open:

- A frame without a label (``IGNORE``) is not counted, and separates segments as background does. A video without any
  labelled frame is not counted.
- If neither side has a segment, the edit score is 100; if one side has none, it is 0.
- F1 is 0 if nothing is correct, and 100 if no video has a segment on either side.
- All metrics are None if nothing was counted.
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
"""A class per frame, ``(T,)`` integers, ``IGNORE`` where a frame has none."""

OVERLAPS = (10, 25, 50)
"""The k of F1@k, in percent."""


def segments(labels: Labels, background: Iterable[int] = ()) -> list[tuple[int, int, int]]:
    """The segments of a sequence of labels, as (class, first frame, frame after the last).

    Args:
        labels: ``(T,)`` integers; frames with ``IGNORE`` belong to no segment.
        background: classes that have no segments.

    Raises:
        SeqclfError: the labels are not ``(T,)`` integers.
    """
    found = _segments(_array(labels, "labels"), list(background))
    return list(zip(found.classes.tolist(), found.starts.tolist(), found.ends.tolist(), strict=True))


class SegmentMetrics:
    """Accumulates segment metrics over videos; ``result`` returns them.

    Args:
        background: classes that have no segments; their frames count for the frame accuracy only.
    """

    def __init__(self, background: Iterable[int] = ()) -> None:
        self.background = list(background)
        self.videos = self.frames = self.right_frames = 0
        self.edits: list[float] = []  # one per video; summed exactly, so in any order
        self.segments = 0  # predicted plus true
        self.right = np.zeros(len(OVERLAPS), dtype=np.int64)

    def add(self, predicted: Labels, labels: Labels) -> None:
        """Adds one whole video.

        Args:
            predicted: ``(T,)`` integers, the predicted class of each frame.
            labels: ``(T,)`` integers, the true ones.

        Raises:
            SeqclfError: they are not ``(T,)`` integers, or differ in T.
        """
        found, truth = _array(predicted, "predicted classes"), _array(labels, "labels")
        if len(found) != len(truth):
            raise SeqclfError(f"there are {len(found):,} predicted classes, but {len(truth):,} labels")
        labelled = truth != IGNORE
        if not labelled.any():
            return
        self.videos += 1
        self.frames += int(labelled.sum())
        self.right_frames += int((found == truth)[labelled].sum())
        guess = _segments(np.where(labelled, found, IGNORE), self.background)
        true = _segments(truth, self.background)
        longer = max(len(guess.classes), len(true.classes))
        self.edits.append(100 * (1 - _distance(guess.classes, true.classes) / longer) if longer else 100)
        self.segments += len(guess.classes) + len(true.classes)
        self.right += _right(guess, true)

    def merge(self, others: Iterable[SegmentMetrics]) -> None:
        """Adds the counts of others, such as other processes; their order does not matter."""
        for other in others:
            self.videos += other.videos
            self.frames += other.frames
            self.right_frames += other.right_frames
            self.edits += other.edits
            self.segments += other.segments
            self.right = self.right + other.right

    def result(self) -> dict[str, float | None]:
        """Returns ``frame_accuracy``, ``edit``, ``f1_10``, ``f1_25`` and ``f1_50``, from 0 to 100."""
        f1 = 200 * self.right / self.segments if self.segments else np.full(len(OVERLAPS), 100.0)
        metrics = {
            "frame_accuracy": 100 * self.right_frames / max(self.frames, 1),
            "edit": math.fsum(self.edits) / max(self.videos, 1),
        }
        metrics |= {f"f1_{k}": value for k, value in zip(OVERLAPS, f1.tolist(), strict=True)}
        return {name: value if self.videos else None for name, value in metrics.items()}


class _Segments(NamedTuple):
    """Classes, first frames, and frames after the last, each ``(N,)``, in order."""

    classes: Array
    starts: Array
    ends: Array


def _segments(labels: Array, background: list[int]) -> _Segments:
    starts = np.flatnonzero(np.diff(labels, prepend=labels[:1] - 1))  # where the class changes
    ends = np.append(starts[1:], len(labels))
    kept = ~np.isin(labels[starts], [IGNORE, *background])
    return _Segments(labels[starts][kept], starts[kept], ends[: len(starts)][kept])


def _distance(a: Array, b: Array) -> int:
    """The Levenshtein distance, one row of its table at a time, along the longer list."""
    if len(a) > len(b):
        a, b = b, a
    columns = np.arange(len(b) + 1)
    row = columns
    for i, item in enumerate(a, 1):
        new = np.empty_like(row)
        new[0] = i
        np.minimum(row[1:] + 1, row[:-1] + (b != item), out=new[1:])  # delete, substitute
        row = np.minimum.accumulate(new - columns) + columns  # insert
    return int(row[-1])


def _right(guess: _Segments, true: _Segments) -> Array:
    """How many predicted segments are correct at each of ``OVERLAPS``."""
    if not len(guess.classes) or not len(true.classes):
        return np.zeros(len(OVERLAPS), dtype=np.int64)
    # Segments of one side do not overlap. Between two neighboring edges there is therefore at most one pair of a
    # predicted and a true segment, and in all there are at most P + Y pairs instead of P times Y.
    edges = np.unique(np.concatenate([guess.starts, guess.ends, true.starts, true.ends]))
    begin, shared = edges[:-1], np.diff(edges)
    p, y = _holding(guess, begin), _holding(true, begin)
    pairs = (p >= 0) & (y >= 0) & (guess.classes[p] == true.classes[y])
    p, y, shared = p[pairs], y[pairs], shared[pairs]
    union = (guess.ends - guess.starts)[p] + (true.ends - true.starts)[y] - shared
    overlap = shared / union
    order = np.lexsort((y, -overlap, p))  # by p, the highest overlap first, of equals the earlier
    best = order[np.unique(p[order], return_index=True)[1]]
    return np.array([len(np.unique(y[best][overlap[best] >= k / 100])) for k in OVERLAPS])


def _holding(found: _Segments, frames: Array) -> Array:
    """The index of the segment that contains each of these frames, -1 for none."""
    at = np.searchsorted(found.starts, frames, side="right") - 1
    return np.where(frames < found.ends[at], at, -1)


def _array(labels: Labels, what: str) -> Array:
    array = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise SeqclfError(f"{what} are {array.dtype} of shape {array.shape}, expected integers (T,)")
    return array.astype(np.int64)
