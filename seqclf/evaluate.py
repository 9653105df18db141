"""Evaluation: every clip once, the last incomplete batch included."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from seqclf.data import Clips
from seqclf.metrics import Metrics

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(device: torch.device, precision: str) -> AbstractContextManager[None]:
    """The context that runs a model in a precision: "fp32", "bf16" or "fp16"."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, _DTYPES[precision])


def evaluate(
    model: nn.Module, clips: Clips, num_classes: int, batch_size: int = 1000, precision: str = "fp32"
) -> dict[str, Any]:
    """The figures of a model on clips, as ``Metrics.result`` lists them; the model's mode is left as it was.

    Args:
        model: a ``FrameSequenceClassifier``, on the clips' device.
        batch_size: clips at a time; of no influence on the figures but for rounding.
    """
    device = clips.frames.device
    metrics = Metrics(num_classes, device)
    training = model.training
    model.eval()
    with torch.inference_mode(), autocast(device, precision):
        for rows in torch.arange(len(clips)).split(batch_size):
            batch = clips.batch(rows)
            logits, _ = model(batch.frames, batch.is_first, lengths=batch.lengths)
            metrics.update(logits, batch)
    model.train(training)
    return metrics.result()
