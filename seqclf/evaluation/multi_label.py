"""Metrics of multi-label data: average precision and F1 of each class, over frames and over clips.

For each class, the label of a frame or clip is 1 (present), 0 (absent) or unknown. Unknown labels are not counted.
Scores are the sigmoid of the logits.

- Average precision (AP): the mean precision over the positives, ``sum_n (R_n - R_(n-1)) P_n`` over the distinct scores
  from the highest, where P_n and R_n are precision and recall of all scores from the n-th. It is scikit-learn's
  ``average_precision_score``. mAP is its mean over classes; over frames it is the per-frame mAP of online action
  detection.
- F1: ``2 TP / (2 TP + FP + FN)``, where a class is predicted if its score is at least the threshold. Macro is the mean
  over classes; micro counts the entries of all classes together.

A class without a positive has no AP and no F1 (None), and is left out of the means over classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqclf.batch import IGNORE, Batch, SeqclfError, valid_frames
from seqclf.data.input_spec import DecisionRule

METRICS = ("frame_map", "clip_last_map", "clip_mean_map", "frame_macro_f1", "loss")
"""The metrics that a line of text shows, in this order."""

Threshold = float | Sequence[float]
"""The lowest probability of a predicted class: one number, or one for each class."""


class MultiLabelMetrics:
    """Accumulates the metrics over the batches of an evaluation; ``result`` returns them.

    All scores are kept, five bytes per label in main memory, because AP ranks them.

    Args:
        num_classes: K.
        threshold: the lowest score of a predicted class.
        decision: the rule by which clips are classified, "last" or "mean".
        worst: how many of the clips with wrong classes and the highest loss are listed.
    """

    def __init__(
        self, num_classes: int, threshold: Threshold = 0.5, decision: DecisionRule = "last", worst: int = 24
    ) -> None:
        self.k, self.threshold = num_classes, as_thresholds(threshold, num_classes)
        self.decision, self.worst = decision, worst
        self.losses: list[Tensor] = []  # one per batch; summed exactly, so in any order
        self.frames: list[tuple[Tensor, Tensor]] = []  # scores and labels, (M, K) each
        self.clips: dict[str, list[tuple[Tensor, Tensor]]] = {"last": [], "mean": []}
        self.mixed = 0  # clips whose frames do not agree
        self.wrong: list[tuple[int, list[int], list[int], float]] = []

    @torch.no_grad()
    def update(self, logits: Tensor, batch: Batch) -> None:
        """Adds a batch: logits ``(B, T, K)``, with labels ``(B, T, K)``."""
        labels, p = batch.labels, logits.float().sigmoid()
        known = labels != IGNORE
        target = labels.clamp(min=0).float()
        loss = F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none").masked_fill(~known, 0)
        self.losses.append(loss.double().sum().cpu())
        labelled = known.any(-1)
        self.frames.append((p[labelled].cpu(), labels[labelled].to(torch.int8).cpu()))
        truth, counted = clip_truth(labels)
        self.mixed += int((labelled.any(1) & ~counted).sum())
        by_rule = clip_scores(p, batch.lengths)
        for rule, scores in by_rule.items():
            self.clips[rule].append((scores[counted].cpu(), truth[counted].to(torch.int8).cpu()))
        if batch.indices is not None and self.worst:
            mean_loss = loss.sum((1, 2)) / known.sum((1, 2)).clamp(min=1)
            columns = (batch.indices, truth, by_rule[self.decision], mean_loss, counted)
            self._keep_worst(*(column.cpu() for column in columns))

    def _keep_worst(self, indices: Tensor, truth: Tensor, scores: Tensor, loss: Tensor, counted: Tensor) -> None:
        """Keeps the clips with the highest loss of those with a wrong class; of equal losses the lowest sample."""
        predicted = scores >= self.threshold
        missed = (((predicted != (truth == 1)) & (truth != IGNORE)).any(1) & counted).nonzero()[:, 0]
        self.wrong += [
            (int(indices[i]), _set(truth[i] == 1), _set(predicted[i] & (truth[i] != IGNORE)), float(loss[i]))
            for i in missed[loss[missed].argsort(descending=True, stable=True)[: self.worst]].tolist()
        ]
        self.wrong = sorted(self.wrong, key=lambda row: (-row[3], row[0]))[: self.worst]

    def cpu(self) -> MultiLabelMetrics:
        """Joins the stored scores, which are on the CPU, so that they can be sent to another process."""
        self.frames = [_joined(self.frames, self.k)]
        self.clips = {rule: [_joined(pairs, self.k)] for rule, pairs in self.clips.items()}
        return self

    def merge(self, others: Iterable[MultiLabelMetrics]) -> None:
        """Adds the counts of others, such as other processes; their order does not matter."""
        for other in others:
            self.losses += other.losses
            self.mixed += other.mixed
            self.frames += other.frames
            for rule, pairs in other.clips.items():
                self.clips[rule] += pairs
            self.wrong = sorted(self.wrong + other.wrong, key=lambda row: (-row[3], row[0]))[: self.worst]

    def result(self) -> dict[str, Any]:
        """Returns the metrics as plain values; means over classes are None if no class has a positive.

        Returns:
            a dictionary with

            - ``frames``, ``clips``, ``labels``: the number of frames with a known label, of clips whose frames agree on
                the label of each class, and of known labels of frames;
            - ``mixed_clips``: the number of clips whose frames do not agree;
            - ``loss`` (binary cross-entropy in nats) and ``label_accuracy``, over these labels;
            - ``frame_map``, ``clip_last_map`` (from the score at the last valid frame), ``clip_mean_map`` (from the
                mean score over valid frames);
            - ``frame_macro_f1``, ``frame_micro_f1``, ``clip_macro_f1``, ``clip_micro_f1``, by the decision rule;
            - ``frame_class_ap``, ``frame_class_f1``, ``clip_class_ap``, ``clip_class_f1``: K numbers each;
            - ``frame_positive_classes``, ``clip_positive_classes``: the number of classes with a positive label;
            - ``class_labels``, ``class_positives``: the number of known and of positive labels of frames, by class;
            - ``threshold``: K numbers;
            - ``most_wrong``: the clips with wrong classes by the decision rule and the highest loss, as
                [sample, true classes, predicted classes, loss].
        """
        scores, labels = _joined(self.frames, self.k)
        known = labels != IGNORE
        total, right = int(known.sum()), int((((scores >= self.threshold) == (labels == 1)) & known).sum())
        clips = {rule: _joined(pairs, self.k) for rule, pairs in self.clips.items()}
        aps = {over: self._aps(*pair) for over, pair in (clips | {"frame": (scores, labels)}).items()}
        return {
            "frames": len(scores),
            "clips": len(clips["last"][0]),
            "mixed_clips": self.mixed,
            "labels": total,
            "loss": math.fsum(torch.stack(self.losses).tolist()) / total if total else None,
            "label_accuracy": right / total if total else None,
            "frame_map": _mean(aps["frame"]),
            "clip_last_map": _mean(aps["last"]),
            "clip_mean_map": _mean(aps["mean"]),
            **self._metrics("frame", scores, labels, aps["frame"]),
            **self._metrics("clip", *clips[self.decision], aps[self.decision]),
            "class_labels": known.sum(0).tolist(),
            "class_positives": (labels == 1).sum(0).tolist(),
            "threshold": self.threshold.tolist(),
            "most_wrong": [list(row) for row in self.wrong],
        }

    def _aps(self, scores: Tensor, labels: Tensor) -> list[float | None]:
        """The average precision of each class over scores and labels ``(M, K)``."""
        known, positive = labels != IGNORE, labels == 1
        columns = [(scores[known[:, k], k], positive[known[:, k], k]) for k in range(self.k)]
        return [average_precision(x, y) if y.any() else None for x, y in columns]

    def _metrics(self, unit: str, scores: Tensor, labels: Tensor, aps: list[float | None]) -> dict[str, Any]:
        """The metrics of the classes over frames or clips."""
        known, positive, predicted = labels != IGNORE, labels == 1, scores >= self.threshold
        hits, wrong = (predicted & positive).sum(0), ((predicted != positive) & known).sum(0)
        f1 = [None if ap is None else x for ap, x in zip(aps, _f1(hits, wrong).tolist(), strict=True)]
        counted = sum(ap is not None for ap in aps)
        return {
            f"{unit}_macro_f1": _mean(f1),
            f"{unit}_micro_f1": float(_f1(hits.sum(), wrong.sum())) if counted else None,
            f"{unit}_class_ap": aps,
            f"{unit}_class_f1": f1,
            f"{unit}_positive_classes": counted,
        }


def probabilities_of(logits: Tensor, multi_label: bool) -> Tensor:
    """Logits ``(..., K)`` as probabilities: the sigmoid of each for multi-label data, else their softmax."""
    return logits.sigmoid() if multi_label else logits.softmax(-1)


def average_precision(scores: Tensor, positive: Tensor) -> float:
    """The average precision of scores ``(M,)`` for targets ``(M,)`` bool. At least one target must be True."""
    ranked, order = scores.sort(descending=True)
    last_of_equal = torch.cat([(ranked[1:] != ranked[:-1]).nonzero()[:, 0], torch.tensor([len(ranked) - 1])])
    hits = positive[order].cumsum(0)[last_of_equal].double()
    new = hits.diff(prepend=hits.new_zeros(1))
    return float((new * hits / (last_of_equal + 1)).sum() / hits[-1])


def as_thresholds(threshold: Threshold, num_classes: int) -> Tensor:
    """Thresholds as ``(K,)`` float32.

    Raises:
        SeqclfError: the threshold is neither a number from 0 to 1 nor a list of K such numbers.
    """
    try:
        given = torch.as_tensor(threshold, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError):
        given = torch.full((num_classes,), torch.nan)
    if given.shape not in ((), (num_classes,)) or not ((given >= 0) & (given <= 1)).all():
        raise SeqclfError(
            f"threshold={threshold}: expected a number from 0 to 1, or one for each of {num_classes} classes"
        )
    return given.cpu().repeat(1 if given.dim() else num_classes)


def clip_truth(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The labels of clips, from labels ``(B, T, K)`` of their frames.

    Returns:
        the labels ``(B, K)``, ``IGNORE`` where unknown; and ``(B,)`` bool, whether the frames of the clip agree on the
        label of each class and at least one label is known.
    """
    known = labels != IGNORE
    highest, lowest = labels.amax(1), labels.masked_fill(~known, 2).amin(1)
    return highest, ((highest == lowest) | ~known.any(1)).all(1) & known.any((1, 2))


def clip_scores(p: Tensor, lengths: Tensor | None) -> dict[str, Tensor]:
    """Scores ``(B, T, K)`` of frames as scores ``(B, K)`` of clips, by each decision rule."""
    valid = valid_frames(lengths, p.shape, p.device)
    counts = valid.sum(1)
    last = p.gather(1, (counts - 1)[:, None, None].expand(-1, 1, p.shape[-1]))[:, 0]
    return {"last": last, "mean": (p * valid[..., None]).sum(1) / counts[:, None]}


def _f1(hits: Tensor, wrong: Tensor) -> Tensor:
    """``2 TP / (2 TP + FP + FN)``; 0 for 0 / 0."""
    return 2 * hits.double() / (2 * hits + wrong).clamp(min=1)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [x for x in values if x is not None]
    return math.fsum(known) / len(known) if known else None


def _joined(pairs: Sequence[tuple[Tensor, Tensor]], k: int) -> tuple[Tensor, Tensor]:
    if len(pairs) == 1:
        return pairs[0]
    scores, labels = zip(*pairs, strict=True) if pairs else ((), ())
    return torch.cat([torch.zeros(0, k), *scores]), torch.cat([torch.zeros(0, k, dtype=torch.int8), *labels])


def _set(present: Tensor) -> list[int]:
    found: list[int] = present.nonzero()[:, 0].tolist()
    return found
