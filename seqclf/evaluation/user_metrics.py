"""The user's own metrics: functions of all predictions of an evaluation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import IGNORE, Batch
from seqclf.data.input_spec import DecisionRule
from seqclf.evaluation.multi_label import clip_scores, probabilities_of

Metric = Callable[..., float]
"""``metric(truth, predicted, probabilities)``: a number from NumPy arrays ``(N,)``, ``(N,)`` int64 and ``(N, K)``.

N counts clips if the data has a label per clip, and labelled frames if it has a label per frame. Of multi-label data
all arrays are ``(N, K)``: truth is 0, 1 or ``IGNORE``, and predicted is 1 where the probability reaches the threshold.
"""


Rows = list[tuple[Tensor, Tensor, Tensor]]
"""Sample numbers, truth and probabilities, by batch."""


class UserMetrics:
    """Collects predictions over the batches of an evaluation; ``result`` calls the metrics with all of them.

    Args:
        metrics: name -> function; see ``Metric``.
        decision: the rule by which a clip is classified, "last" or "mean".
        per_frame: whether the data has a label per frame, so that frames are counted, not clips.
        thresholds: for multi-label data, ``(K,)``, the lowest probability at which each class is predicted; else None.
    """

    def __init__(
        self, metrics: Mapping[str, Metric], decision: DecisionRule, per_frame: bool, thresholds: Tensor | None = None
    ) -> None:
        self.metrics, self.decision, self.per_frame = dict(metrics), decision, per_frame
        self.thresholds = thresholds
        self.rows: Rows = []

    @torch.no_grad()
    def add(self, logits: Tensor, batch: Batch) -> None:
        """Adds a batch: logits ``(B, T, K)``."""
        if not self.metrics:
            return
        labels, probabilities = batch.labels, probabilities_of(logits.float(), self.thresholds is not None)
        assert batch.indices is not None
        samples = batch.indices
        if self.per_frame:
            samples = samples[:, None].expand(labels.shape[:2])
        else:
            probabilities = clip_scores(probabilities, batch.lengths)[self.decision]
            labels = labels.amax(1)
        known = labels != IGNORE if self.thresholds is None else (labels != IGNORE).any(-1)
        self.rows.append((samples[known].cpu(), labels[known].cpu(), probabilities[known].cpu()))

    def merge(self, others: Iterable[Rows]) -> None:
        """Adds the rows of others, such as other processes."""
        for rows in others:
            self.rows += rows

    def result(self) -> dict[str, float | None]:
        """The value of each metric. None, with a warning, for a metric that fails or is not finite."""
        if not self.rows:
            return dict.fromkeys(self.metrics)
        samples, truth, probabilities = (torch.cat(parts) for parts in zip(*self.rows, strict=True))
        order = samples.argsort(stable=True)  # the same order for any number of processes
        predicted = probabilities.argmax(-1)
        if self.thresholds is not None:
            predicted = (probabilities >= self.thresholds).long()
        arrays = tuple(x[order].numpy() for x in (truth, predicted, probabilities))
        found: dict[str, float | None] = {}
        for name, metric in self.metrics.items():
            value, reason = metric_value(metric, *(array.copy() for array in arrays))  # it may change them
            if reason is not None:
                warnings.warn(f"metric {name}: {reason}; it is recorded as null", stacklevel=2)
            found[name] = value
        return found


def metric_value(metric: Metric, *arrays: np.ndarray[Any, Any]) -> tuple[float | None, str | None]:
    """The value of a metric, or None and the reason why it has none."""
    try:
        value = float(metric(*arrays))
    except Exception as error:  # user code
        return None, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    return (value, None) if math.isfinite(value) else (None, f"its value is {value}")
