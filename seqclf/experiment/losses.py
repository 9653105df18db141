"""Losses: cross-entropy over the labelled frames of a batch, optionally with a penalty on flickering predictions."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from seqclf.batch import IGNORE


def cross_entropy(logits: Tensor, labels: Tensor, total: int | Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy over labelled frames. Frames with the label ``IGNORE`` have no loss and no gradient.

    Args:
        logits: ``(B, T, K)``, any float dtype; the loss is computed in float32.
        labels: ``(B, T)`` int64, 0 to K - 1 or ``IGNORE``.
        total: the number of labelled frames to divide by, if these are a part of a batch. None for those of
            ``labels``. Without any labelled frame the loss is 0.
        smoothing: the share of each label that is spread evenly over all classes (Szegedy et al. 2016), from 0 to 1.

    Returns:
        a scalar, in nats.
    """
    if total is None:
        total = (labels != IGNORE).sum()
    logits, labels = rearrange(logits, "b t k -> (b t) k"), rearrange(labels, "b t -> (b t)")
    if labels.device.type == "cpu":  # few frames may be labelled; on a GPU, finding them would synchronise
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


def steady_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    total: int | Tensor | None = None,
    smoothing: float = 0.0,
    weight: float = 0.15,
    largest: float = 4.0,
) -> Tensor:
    """Cross-entropy plus a penalty on log-probabilities that change between consecutive labelled frames.

    It reduces flickering, which lowers segment metrics more than frame accuracy. The penalty is the truncated mean
    squared error of MS-TCN (Farha and Gall 2019), with its lambda and tau as defaults. The gradient reaches only the
    later frame of each pair.

    Args:
        logits, labels, total, smoothing: as in ``cross_entropy``.
        weight: lambda, the weight of the penalty.
        largest: tau, the change above which the penalty is constant.

    Returns:
        a scalar.
    """
    if total is None:
        total = (labels != IGNORE).sum()
    log_p = logits.float().log_softmax(-1)
    change = (log_p[:, 1:] - log_p[:, :-1].detach()).clamp(-largest, largest).square().mean(-1)
    pairs = (labels[:, 1:] != IGNORE) & (labels[:, :-1] != IGNORE)
    penalty = (change * pairs).sum() / (total.clamp(min=1) if isinstance(total, Tensor) else max(total, 1))
    return cross_entropy(logits, labels, total, smoothing) + weight * penalty
