"""Evaluation of a model on all clips of a data set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
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
    samples: Sequence[int] | None = None,
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
        threshold: of multi-label clips, the lowest probability of a class that is predicted; one number, or one for
            each class.
        samples: the numbers of the clips to evaluate; none gives all names of metrics, with None as values. None: all.

    Returns:
        The metrics of ``Metrics.result``, of multi-label clips of ``MultiLabelMetrics.result``; those of ``metrics``;
        and with ``background`` the ``edit`` score and ``f1_<k>`` from 0 to 100 (see ``SegmentMetrics``).
    """
    device = clips.device
    batch_size = evaluation_batch(clips, batch_size)
    counts: Metrics | MultiLabelMetrics = Metrics(num_classes, device, decision)
    if clips.multi_label:
        counts = MultiLabelMetrics(num_classes, threshold, decision)
    per_frame = clips.labels.dim() > 1 + clips.multi_label if isinstance(clips, Clips) else clips.per_frame
    thresholds = as_thresholds(threshold, num_classes) if clips.multi_label else None
    own = UserMetrics(metrics or {}, decision, per_frame, thresholds)
    segments = None if background is None else SegmentMetrics(background)
    training = model.training
    model.eval()
    with torch.inference_mode(), autocast(device, precision):
        numbers = torch.arange(len(clips)) if samples is None else torch.as_tensor(samples, dtype=torch.int64)
        mine = (numbers.split(batch_size) if len(numbers) else ())[world.rank :: world.size]
        for batch in batches(clips, ((rows, 0) for rows in mine)):
            logits, _ = model(batch.frames, batch.is_first, lengths=batch.lengths)
            counts.update(logits, batch)
            own.add(logits, batch)
            if on_batch is not None:
                on_batch(logits, batch)
            if segments is not None:
                _add_videos(segments, logits, batch)
        others = world.gather((counts.cpu(), own.rows, segments))
        del others[world.rank]
        counts.merge(theirs for theirs, _, _ in others)  # type: ignore[arg-type, misc]  # all of the same kind
        own.merge(rows for _, rows, _ in others)
        if segments is not None:
            segments.merge(theirs for _, _, theirs in others if theirs is not None)
    model.train(training)
    found = {} if segments is None else segments.figures()
    found.pop("frame_accuracy", None)  # in Metrics from 0 to 1
    return counts.result() | found | own.result()


def _add_videos(segments: SegmentMetrics, logits: Tensor, batch: Batch) -> None:
    """Adds the videos of a batch: logits ``(B, T, K)``."""
    lengths = [logits.shape[1]] * len(batch) if batch.lengths is None else batch.lengths.tolist()
    for row, truth, length in zip(logits.argmax(-1).cpu(), batch.labels.cpu(), lengths, strict=True):
        segments.add(row[:length], truth[:length])
