"""The one loss: cross-entropy, averaged over the labelled frames of the whole batch."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from seqclf.batch import IGNORE


def cross_entropy(logits: Tensor, labels: Tensor, total: int | Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy over labelled frames; frames of label ``IGNORE`` have no part in it and get zero gradient.

    Args:
        logits: ``(B, T, K)``; computed in float32 whatever their dtype.
        labels: ``(B, T)`` int64, 0 to K - 1 or ``IGNORE``.
        total: how many labelled frames to divide by, where this is a part of a batch; None for those of ``labels``.
            Without any labelled frame the loss is 0.
        smoothing: label smoothing (Szegedy et al. 2016): this share of each label is spread over all classes.

    Returns:
        a scalar, in nats.
    """
    if total is None:
        total = (labels != IGNORE).sum()
    logits, labels = rearrange(logits, "b t k -> (b t) k"), rearrange(labels, "b t -> (b t)")
    if labels.device.type == "cpu":  # few frames may be labelled; elsewhere finding them would cost a wait
        rows = (labels != IGNORE).nonzero()[:, 0]
        logits, labels = logits[rows], labels[rows]
    summed = F.cross_entropy(
        logits.float(),
        labels,
        ignore_index=IGNORE,
        reduction="sum",
        label_smoothing=smoothing,
    )
    return summed / (total.clamp(min=1) if isinstance(total, Tensor) else max(total, 1))
