"""Evaluation of a model on all clips of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqclf.batch import Batch
from seqclf.data import Clips, Videos, batches
from seqclf.data.input_spec import DecisionRule
from seqclf.evaluation.metrics import Metrics
from seqclf.evaluation.multi_label import MultiLabelMetrics, Threshold, as_thresholds
from seqclf.evaluation.segment_metrics import SegmentMetrics
from seqclf.evaluation.user_metrics import Metric, UserMetrics
from seqclf.runtime.distributed import ALONE, World

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """The context to run a model in, for the precision "fp32", "bf16" or "fp16"."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, _DTYPES[precision])


def evaluation_batch(clips: Clips | Videos, batch_size: int | None = None) -> int:
    """Clips per batch of an evaluation: ``batch_size``, or by default 1,000 in memory and 16 from videos."""
    return batch_size or (1000 if isinstance(clips, Clips) else 16)


def evaluate(
    model: nn.Module,
    clips: Clips | Videos,
    num_classes: int,
    batch_size: int | None = None,
    precision: str = "fp32",
    background: Sequence[int] | None = None,
    world: World = ALONE,
    on_batch: Callable[[Tensor, Batch], None] | None = None,
    decision: DecisionRule = "last",
    metrics: Mapping[str, Metric] | None = None,
    threshold: Threshold = 0.5,
) -> dict[str, Any]:
    """Evaluates a model on every clip once, the last incomplete batch included.

    The model runs in evaluation mode; its mode is restored.

    Args:
        model: a ``FrameSequenceClassifier``, on the clips' device.
        clips: the data set.
        num_classes: K.
        batch_size: clips per batch. It affects metrics by rounding only. None: 1,000 in memory, 16 from videos.
        precision: "fp32", "bf16" or "fp16".
        background: the classes without segments. If given, segment metrics are computed too; clips must then be whole
            videos with a label per frame. None: no segment metrics.
        world: the processes that share the batches; each gets the metrics over all of them.
        on_batch: called with the logits ``(B, T, K)`` of each batch of this process.
        decision: how a clip is classified, by its "last" frame or the "mean" of the probabilities over its frames.
        metrics: your own metrics, by name; see ``seqclf.evaluation.user_metrics.Metric``.
        threshold: for multi-label clips, the lowest probability of a predicted class; one number, or one for each
            class.

    Returns:
        the metrics of ``Metrics.result``, or for multi-label clips of ``MultiLabelMetrics.result``; those of
        ``metrics``; and with ``background`` the ``edit`` score and ``f1_<k>`` from 0 to 100 (see ``SegmentMetrics``).
    """
    counts = _Counts(clips, num_classes, background, decision, metrics or {}, threshold)
    training = model.training
    model.eval()
    with torch.inference_mode(), autocast(clips.device, precision):
        every = torch.arange(len(clips)).split(evaluation_batch(clips, batch_size))
        for batch in batches(clips, ((rows, 0) for rows in every[world.rank :: world.size])):
            logits, _ = model(batch.frames, batch.is_first, lengths=batch.lengths)
            counts.add(logits, batch)
            if on_batch is not None:
                on_batch(logits, batch)
        counts.merge(world)
    model.train(training)
    return counts.result()


def possible_metrics(
    clips: Clips | Videos, num_classes: int, background: Sequence[int] | None, decision: DecisionRule
) -> dict[str, Any]:
    """Computes the metrics of perfect predictions from labels. A metric that is None here is None for any model.

    Arguments as in ``evaluate``. No frame is read.
    """
    counts = _Counts(clips, num_classes, background, decision, {}, 0.5)
    for labels, lengths in clips.label_batches():
        truth = labels.clamp(min=0)
        logits = 2.0 * truth - 1 if clips.multi_label else F.one_hot(truth, num_classes).float()
        counts.add(logits, Batch(logits, labels, lengths))
    return counts.result()


class _Counts:
    """Accumulates the metrics of an evaluation."""

    def __init__(
        self,
        clips: Clips | Videos,
        num_classes: int,
        background: Sequence[int] | None,
        decision: DecisionRule,
        metrics: Mapping[str, Metric],
        threshold: Threshold,
    ) -> None:
        thresholds, self.main = None, Metrics(num_classes, clips.device, decision)  # type: Any, Any
        if clips.multi_label:
            thresholds = as_thresholds(threshold, num_classes)
            self.main = MultiLabelMetrics(num_classes, threshold, decision)
        self.own = UserMetrics(metrics, decision, clips.per_frame, thresholds)
        self.segments = None if background is None else SegmentMetrics(background)

    def add(self, logits: Tensor, batch: Batch) -> None:
        """Adds a batch: logits ``(B, T, K)``."""
        self.main.update(logits, batch)
        self.own.add(logits, batch)
        if self.segments is not None:
            lengths = [logits.shape[1]] * len(batch) if batch.lengths is None else batch.lengths.tolist()
            for row, truth, length in zip(logits.argmax(-1).cpu(), batch.labels.cpu(), lengths, strict=True):
                self.segments.add(row[:length], truth[:length])

    def merge(self, world: World) -> None:
        """Adds the counts of the other processes."""
        others = world.gather((self.main.cpu(), self.own.rows, self.segments))
        del others[world.rank]
        self.main.merge(main for main, _, _ in others)
        self.own.merge(rows for _, rows, _ in others)
        if self.segments is not None:
            self.segments.merge(segments for _, _, segments in others if segments is not None)

    def result(self) -> dict[str, Any]:
        found = {} if self.segments is None else self.segments.result()
        found.pop("frame_accuracy", None)  # in Metrics from 0 to 1
        return self.main.result() | found | self.own.result()
