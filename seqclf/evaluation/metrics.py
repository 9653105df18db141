"""Metrics over labelled frames and over clips, counted on the device, with one transfer at the end."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqclf.batch import IGNORE, Batch, valid_frames
from seqclf.data.input_spec import DecisionRule
from seqclf.evaluation.classification import classification_metrics


class Metrics:
    """Accumulates metrics over the batches of an evaluation; ``result`` returns them.

    Over labelled frames: ``loss`` (cross-entropy in nats), ``frame_accuracy``, ``top<k>_accuracy``, the accuracy of
    each class, the confusion matrix, and the accuracy by frame index. Over clips whose labelled frames have one label:
    ``clip_last`` (the class at the last valid frame) and ``clip_mean`` (the class of the mean of the softmax over valid
    frames, LRCN's rule). Both are always measured, for any labelling. Accuracies are from 0 to 1. Precision,
    recall, F1, balanced accuracy and Cohen's kappa are measured over frames, and over clips by the decision rule.

    Args:
        num_classes: K.
        decision: the rule, "last" or "mean".
        top_k: the k of the top-k accuracy, which is measured if there are more than k classes.
        worst: how many of the misclassified clips with the highest loss are listed.
    """

    def __init__(
        self,
        num_classes: int,
        device: torch.device | str = "cpu",
        decision: DecisionRule = "last",
        top_k: int = 5,
        worst: int = 24,
    ) -> None:
        self.k, self.decision, self.top_k, self.worst = num_classes, decision, top_k, worst
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        self.clip_confusion = torch.zeros_like(self.confusion)
        self.counts = torch.zeros(5, dtype=torch.int64, device=device)  # in top k, clips, mixed clips, by last, by mean
        self.losses: list[Tensor] = []  # one per batch; summed exactly, so in any order
        self.by_index = torch.zeros(2, 0, dtype=torch.int64, device=device)  # labelled, correct
        self.clip_by_index = torch.zeros(2, 0, dtype=torch.int64, device=device)
        self.wrong: list[Tensor] = []

    @torch.no_grad()
    def update(self, logits: Tensor, batch: Batch) -> None:
        """Adds a batch: logits ``(B, T, K)``, on the device of the metrics."""
        labels, T = batch.labels, logits.shape[1]
        log_p = logits.float().log_softmax(-1)
        predicted = logits.argmax(-1)
        labelled = labels != IGNORE
        truth = labels.clamp(min=0)
        correct = (predicted == labels) & labelled

        self.confusion += self._table(truth[labelled], predicted[labelled])
        true_logit = logits.gather(-1, truth[..., None])
        before = torch.arange(self.k, device=logits.device) < truth[..., None]  # of equal logits the first ranks higher
        above = ~(logits <= true_logit) | ((logits == true_logit) & before)  # ~<=: NaN ranks above all
        in_top = (above.sum(-1) < self.top_k) & labelled
        frame_loss = -log_p.gather(-1, truth[..., None])[..., 0].masked_fill(~labelled, 0)
        self.losses.append(frame_loss.double().sum())
        self.by_index = _grow(self.by_index, T)
        self.by_index[:, :T] += torch.stack([labelled.sum(0), correct.sum(0)])

        lowest = labels.masked_fill(~labelled, self.k).amin(1)
        highest = labels.masked_fill(~labelled, -1).amax(1)
        one_label = lowest == highest
        valid = valid_frames(batch.lengths, labels.shape, labels.device)
        last = valid.sum(1) - 1
        by_last = predicted.gather(1, last[:, None])[:, 0]
        mean_p = (log_p.exp() * valid[..., None]).sum(1)
        by_mean = mean_p.argmax(-1)
        decided = by_last if self.decision == "last" else by_mean
        self.clip_confusion += self._table(highest[one_label], decided[one_label])
        self.counts += torch.stack(
            [
                in_top.sum(),
                one_label.sum(),
                (lowest < highest).sum(),
                (one_label & (by_last == highest)).sum(),
                (one_label & (by_mean == highest)).sum(),
            ]
        )
        known = valid & one_label[:, None]
        self.clip_by_index = _grow(self.clip_by_index, T)
        self.clip_by_index[:, :T] += torch.stack([known.sum(0), (known & (predicted == highest[:, None])).sum(0)])

        if batch.indices is not None and self.worst:
            clip_loss = frame_loss.sum(1) / labelled.sum(1).clamp(min=1)
            last_p = log_p.gather(1, last[:, None, None].expand(-1, 1, self.k))[:, 0].exp()
            highest_p = (last_p if self.decision == "last" else mean_p / valid.sum(1, keepdim=True)).amax(-1)
            missed = one_label & (decided != highest)
            columns = (batch.indices, highest, decided, highest_p, clip_loss)
            self._keep_worst(torch.stack([column.double() for column in columns], 1)[missed])

    def _table(self, truth: Tensor, predicted: Tensor) -> Tensor:
        """The confusion matrix of classes ``(N,)`` and ``(N,)``."""
        return torch.bincount(truth * self.k + predicted, minlength=self.k**2).view(self.k, self.k)

    def cpu(self) -> Metrics:
        """Moves the counts to the CPU, to be sent to another process or merged."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                setattr(self, name, value.cpu())
        self.losses = list(torch.stack(self.losses).cpu()) if self.losses else []
        self.wrong = [rows.cpu() for rows in self.wrong]
        return self

    def merge(self, others: Iterable[Metrics]) -> None:
        """Adds the counts of others on the same device, such as other processes; their order does not matter."""
        for other in others:
            self.confusion += other.confusion
            self.clip_confusion += other.clip_confusion
            self.counts += other.counts
            self.losses += other.losses
            frames = other.by_index.shape[1]
            self.by_index, self.clip_by_index = _grow(self.by_index, frames), _grow(self.clip_by_index, frames)
            self.by_index[:, :frames] += other.by_index
            self.clip_by_index[:, :frames] += other.clip_by_index
            for rows in other.wrong:
                self._keep_worst(rows)

    def _keep_worst(self, rows: Tensor) -> None:
        """Keeps the rows with the highest loss; of equal losses the lowest sample comes first."""
        kept = torch.cat([*self.wrong, rows])
        kept = kept[kept[:, 0].argsort(stable=True)]
        self.wrong = [kept[kept[:, 4].argsort(descending=True, stable=True)[: self.worst]]]

    def result(self) -> dict[str, Any]:
        """Returns the metrics as plain values.

        Returns:
            a dictionary with

            - ``frames``, ``clips``: how many were counted;
            - ``mixed_clips``: how many clips were not, as their labelled frames have several classes;
            - ``loss``, ``frame_accuracy``, ``clip_last``, ``clip_mean``: None if there are none;
            - ``top<k>_accuracy``, if there are more than k classes;
            - ``class_accuracy``: K numbers;
            - ``confusion``, ``clip_confusion``: K rows, one per true class, of K columns, one per predicted class;
            - the metrics of ``classification_metrics`` over frames ("frame_...") and over clips ("clip_...");
            - ``accuracy_by_frame``: T numbers, the accuracy of labelled frames at each index;
            - ``known_by_frame``: T numbers, the share of clips whose label is predicted at each index;
            - ``most_wrong``: the clips misclassified by the decision rule with the highest loss, as
                [sample, true class, predicted class, its probability, loss].
        """
        confusion = self.confusion.cpu()
        in_top, clips, mixed, by_last, by_mean = self.counts.tolist()
        frames, right = int(confusion.sum()), int(confusion.diagonal().sum())

        def share(part: int, whole: int) -> float | None:
            return part / whole if whole else None

        def shares(pairs: Tensor) -> list[float | None]:
            return [share(part, whole) for whole, part in pairs.t().tolist()]

        def by_frame(pairs: Tensor) -> list[float | None]:
            counted = pairs[0].nonzero()[:, 0]  # leaves out frames that are padding in every clip
            return shares(pairs[:, : int(counted[-1]) + 1 if len(counted) else 0].cpu())

        wrong = self.wrong[0].tolist() if self.wrong else []
        return {
            "frames": frames,
            "clips": clips,
            "mixed_clips": mixed,
            "loss": math.fsum(torch.stack(self.losses).tolist()) / frames if frames else None,
            "frame_accuracy": share(right, frames),
            **({f"top{self.top_k}_accuracy": share(in_top, frames)} if self.top_k < self.k else {}),
            "clip_last": share(by_last, clips),
            "clip_mean": share(by_mean, clips),
            "class_accuracy": shares(torch.stack([confusion.sum(1), confusion.diagonal()])),
            "confusion": confusion.tolist(),
            "clip_confusion": self.clip_confusion.tolist(),
            **classification_metrics(confusion, "frame"),
            **classification_metrics(self.clip_confusion, "clip"),
            "accuracy_by_frame": by_frame(self.by_index),
            "known_by_frame": by_frame(self.clip_by_index),
            "most_wrong": [[int(i), int(true), int(guess), p, loss] for i, true, guess, p, loss in wrong],
        }


def _grow(counts: Tensor, frames: int) -> Tensor:
    """Counts by frame index, padded with zeros to this many frames."""
    return F.pad(counts, (0, max(0, frames - counts.shape[1])))


METRICS = ("frame_accuracy", "clip_last", "clip_mean", "loss")
"""The metrics that a line of text shows, in this order."""


def clips_have_one_label(*parts: dict[str, Any]) -> bool:
    """Whether all clips of these parts have one label each, so that the metrics of clips count all of them.

    Args:
        parts: the metrics of each part, as ``Metrics.result`` or ``MultiLabelMetrics.result`` returns them.
    """
    return any(part["clips"] for part in parts) and not any(part.get("mixed_clips") for part in parts)
