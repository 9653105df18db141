"""The predictions of an evaluation, one row per clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqclf.batch import IGNORE, Batch, valid_frames
from seqclf.data import Clips, Videos
from seqclf.data.input_spec import DecisionRule
from seqclf.evaluation.multi_label import clip_scores, clip_truth, probabilities_of
from seqclf.runtime.files import write_csv


@dataclass
class ClipRow:
    """One clip of an evaluation.

    Attributes:
        index: the index of the clip in its part.
        video: the name of the video; for clips in memory, the index.
        path: the path of the video; None for clips in memory.
        clip: the number of the clip in its video, from 0.
        truth: the class of all labelled frames; of multi-label clips K labels 0, 1 or ``IGNORE``. None if the frames
            differ or have no label.
        label: the predicted class, as the metrics count it; None for multi-label clips.
        decision: the rule that classifies the clip.
        by_rule: the probabilities ``(K,)`` by each decision rule.
    """

    index: int
    video: str
    path: str | None
    clip: int
    truth: int | list[int] | None
    label: int | None
    decision: DecisionRule
    by_rule: dict[str, Tensor]

    @property
    def probabilities(self) -> Tensor:
        """The probabilities ``(K,)`` by the rule that classifies the clip."""
        return self.by_rule[self.decision]


class ClipRows:
    """Collects a row for each clip from the batches of an evaluation."""

    def __init__(self, clips: Clips | Videos, decision: DecisionRule) -> None:
        self.clips, self.decision = clips, decision
        self.rows: list[ClipRow] = []
        self._places = _places(clips)

    def update(self, logits: Tensor, batch: Batch) -> None:
        """Adds the clips of a batch: logits ``(B, T, K)``."""
        p = probabilities_of(logits.float(), self.clips.multi_label)
        scores = clip_scores(p, batch.lengths)
        assert batch.indices is not None
        rules = [dict(zip(scores, rows, strict=True)) for rows in zip(*(p.cpu() for p in scores.values()), strict=True)]
        columns = (batch.indices.tolist(), self._truth(batch.labels), self._labels(logits, batch), rules)
        for index, truth, label, by_rule in zip(*columns, strict=True):
            video, path, clip = self._places(index)
            self.rows.append(ClipRow(index, video, path, clip, truth, label, self.decision, by_rule))

    def _labels(self, logits: Tensor, batch: Batch) -> list[Any]:
        """``ClipRow.label`` of each clip, by the operations of ``Metrics``, so that rounding decides alike."""
        if self.clips.multi_label:
            return [None] * len(logits)
        valid = valid_frames(batch.lengths, logits.shape[:2], logits.device)
        if self.decision == "last":
            found = logits.argmax(-1).gather(1, valid.sum(1, keepdim=True) - 1)[:, 0]
        else:
            found = (logits.float().log_softmax(-1).exp() * valid[..., None]).sum(1).argmax(-1)
        return found.tolist()

    def _truth(self, labels: Tensor) -> list[Any]:
        """``ClipRow.truth`` of each clip, from the labels of its frames."""
        if self.clips.multi_label:
            truth, counted = clip_truth(labels)
            return [row if known else None for row, known in zip(truth.tolist(), counted.tolist(), strict=True)]
        labelled = labels != IGNORE
        highest = labels.masked_fill(~labelled, -1).amax(1)
        lowest = labels.masked_fill(~labelled, torch.iinfo(labels.dtype).max).amin(1)
        return [None if label < 0 else label for label in highest.where(lowest == highest, -1).tolist()]


def _places(clips: Clips | Videos) -> Any:
    """A function from a clip's index to its video's name and path, and its number in the video."""
    if isinstance(clips, Clips):
        return lambda index: (str(index), None, 0)
    if clips.training:
        return lambda index: (clips.videos[index].name, clips.videos[index].source.path, 0)
    numbers: list[int] = []
    for k, (v, _) in enumerate(clips.clips):
        numbers.append(numbers[-1] + 1 if k and clips.clips[k - 1][0] == v else 0)
    videos = [clips.videos[v] for v, _ in clips.clips]
    return lambda index: (videos[index].name, videos[index].source.path, numbers[index])


def write_rows(
    path: str | Path, rows: Sequence[ClipRow], classes: Sequence[str], thresholds: Sequence[float] | None = None
) -> None:
    """Writes a CSV with a row for each clip: video, clip, truth, label, probability, and those of all classes.

    Args:
        path: the file.
        rows: the clips.
        classes: the K names.
        thresholds: of multi-label data, the lowest probability of each class that is predicted. Columns are then
            video, clip, truth, unknown, classes, and the probabilities; "|" separates the classes of a cell. None
            otherwise.

    Raises:
        SeqclfError: the file can't be written.
    """
    if thresholds is not None:
        _write_sets(path, rows, classes, thresholds)
        return
    lines = []
    for row in rows:
        assert row.label is not None
        p = row.probabilities.tolist()
        truth = classes[row.truth] if isinstance(row.truth, int) else ""
        values = (f"{x:.7f}" for x in p)
        lines.append([row.video, row.clip, truth, classes[row.label], f"{p[row.label]:.7f}", *values])
    write_csv(path, ["video", "clip", "truth", "label", "probability", *classes], lines)


def _write_sets(path: str | Path, rows: Sequence[ClipRow], classes: Sequence[str], thresholds: Sequence[float]) -> None:
    lines = []
    for row in rows:
        p, truth = row.probabilities.tolist(), row.truth if isinstance(row.truth, list) else [IGNORE] * len(classes)
        sets = (
            [y == 1 for y in truth],
            [y == IGNORE for y in truth],
            [x >= t for x, t in zip(p, thresholds, strict=True)],
        )
        cells = ("|".join(compress(classes, chosen)) for chosen in sets)
        lines.append([row.video, row.clip, *cells, *(f"{x:.7f}" for x in p)])
    write_csv(path, ["video", "clip", "truth", "unknown", "classes", *classes], lines)
