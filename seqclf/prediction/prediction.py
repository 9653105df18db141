"""The predictions for one sequence, and the fusion of several models' predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import torch
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError
from seqclf.data.input_spec import DecisionRule
from seqclf.evaluation.multi_label import Threshold, as_thresholds
from seqclf.evaluation.segment_metrics import segments


@dataclass
class Prediction:
    """The predictions for one sequence of frames.

    Attributes:
        probabilities: ``(T, K)`` float32 on the CPU, at every frame.
        classes: the K names.
        decision: how the sequence is classified: by its "last" frame or by the "mean" over its frames.
        by_rule: the probabilities ``(K,)`` of the sequence by each rule; by default computed from ``probabilities``.
        seen: ``(T,)``, the number of clips that contain each frame; None for one each. Frames in no clip have no
            prediction, and zero probabilities.
        multi_label: whether the sequence can have several classes at once. ``label_set`` names them, and ``label`` is
            not available.
        threshold: of multi-label predictions, the lowest probability of a class that is predicted; a number, or one for
            each class.
    """

    probabilities: Tensor
    classes: Sequence[str]
    decision: DecisionRule = "last"
    by_rule: Mapping[str, Tensor] = field(default_factory=dict)
    seen: Tensor | None = None
    multi_label: bool = False
    threshold: Threshold = 0.5

    def __post_init__(self) -> None:
        if not self.by_rule and len(self.probabilities):
            self.by_rule = {"last": self.probabilities[-1], "mean": self.probabilities.mean(0)}

    def label(self, rule: DecisionRule | None = None) -> tuple[str, float]:
        """The class of the sequence and its probability.

        Args:
            rule: "last" or "mean"; None: the rule that the run was trained for (``decision``).

        Raises:
            SeqclfError: the prediction is multi-label; see ``label_set``.
        """
        if self.multi_label:
            raise SeqclfError("a multi-label prediction has any number of classes: use label_set() in place of label()")
        return self.ranking(rule, 1)[0]

    def label_set(self, rule: DecisionRule | None = None) -> list[tuple[str, float]]:
        """The predicted classes of the sequence and their probabilities, the highest first.

        They are those with a probability of at least the threshold; without ``multi_label`` the one of ``label``.
        """
        if not self.multi_label:
            return [self.label(rule)]
        ranking = self.ranking(rule, len(self.classes))
        least = dict(zip(self.classes, self._thresholds().tolist(), strict=True))
        return [(name, p) for name, p in ranking if p >= least[name]]

    def ranking(self, rule: DecisionRule | None = None, most: int = 5) -> list[tuple[str, float]]:
        """The most probable classes of the sequence and their probabilities, the highest first; see ``label``."""
        rule = self.decision if rule is None else rule
        if rule not in self.by_rule:
            raise SeqclfError(f'decision rule {rule!r}: expected "last" or "mean"')
        p = self.by_rule[rule]
        order = p.argsort(descending=True, stable=True)[:most].tolist()
        return [(self.classes[k], float(p[k])) for k in order]

    def labels(self) -> Tensor:
        """The predicted class of each frame ``(T,)`` int64; ``IGNORE`` for frames in no clip.

        With ``multi_label``, ``(T, K)``: 1 for predicted classes, else 0.
        """
        if self.multi_label:
            present = (self.probabilities >= self._thresholds()).long()
            return present if self.seen is None else present.where(self.seen[:, None] > 0, IGNORE)
        best = self.probabilities.argmax(1)
        return best if self.seen is None else best.where(self.seen > 0, IGNORE)

    def segments(self) -> list[tuple[str, int, int]]:
        """The runs of frames with one predicted class: (class, first frame, frame after the last).

        With ``multi_label``, those of different classes may overlap. They are in the order of their first frames.
        """
        labels = self.labels()
        if not self.multi_label:
            return [(self.classes[k], start, end) for k, start, end in segments(labels)]
        of_classes = ((k, segments(column, background=[0])) for k, column in enumerate(labels.unbind(1)))
        found = sorted((start, k, end) for k, spans in of_classes for _, start, end in spans)
        return [(self.classes[k], start, end) for start, k, end in found]

    def _thresholds(self) -> Tensor:
        return as_thresholds(self.threshold, len(self.classes))


AnyPrediction = TypeVar("AnyPrediction", bound=Prediction)


def fuse(predictions: Sequence[AnyPrediction], weights: Sequence[float] | None = None) -> AnyPrediction:
    """Late fusion: the weighted mean of the predictions of several models, such as LRCN's RGB and flow models.

    Args:
        predictions: predictions for the same frames and classes.
        weights: one for each, such as (1, 2); only their ratios matter. None for equal weights.

    Raises:
        SeqclfError: there are no predictions; the numbers of frames, the classes, the kinds of labels, the decision
            rules or the number of weights differ; a weight is negative or not finite, or all are 0.
    """
    if not predictions:
        raise SeqclfError("there is no prediction to fuse")
    first = predictions[0]
    for other in predictions[1:]:
        if other.multi_label != first.multi_label:
            raise SeqclfError("predictions to fuse must all be multi-label, or all have one class")
        if list(other.classes) != list(first.classes):
            raise SeqclfError("predictions to fuse must have the same classes in the same order")
        if other.probabilities.shape != first.probabilities.shape:
            sizes = " and ".join(str(len(p.probabilities)) for p in (first, other))
            raise SeqclfError(f"predictions to fuse must have the same number of frames, not {sizes}")
        if other.decision != first.decision:
            raise SeqclfError(
                f"predictions to fuse have the decision rules {first.decision} and {other.decision}: choose one "
                "(decision=, --decision)"
            )
    share = shares(len(predictions), weights)

    def mean(tensors: list[Tensor]) -> Tensor:
        return torch.stack([w * x.double() for w, x in zip(share, tensors, strict=True)]).sum(0).float()

    seen = None if first.seen is None else torch.stack([p.seen for p in predictions if p.seen is not None]).amin(0)
    return replace(
        first,
        probabilities=mean([p.probabilities for p in predictions]),
        by_rule={rule: mean([p.by_rule[rule] for p in predictions]) for rule in first.by_rule},
        seen=seen,
    )


def shares(count: int, weights: Sequence[float] | None) -> list[float]:
    """The weights of ``count`` models as shares of 1; errors as in ``fuse``."""
    weights = [1.0] * count if weights is None else list(weights)
    if len(weights) != count:
        raise SeqclfError(f"there are {count} models to fuse, but {len(weights)} weights")
    if not all(math.isfinite(w) and w >= 0 for w in weights) or not sum(weights) > 0:
        raise SeqclfError(f"weights {', '.join(map(str, weights))}: expected numbers from 0, not all 0")
    return [w / sum(weights) for w in weights]
