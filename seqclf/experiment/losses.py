"""The loss: cross-entropy, averaged over the labelled frames of the whole batch; or that and a price on flickering."""

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


def steady_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    total: int | Tensor | None = None,
    smoothing: float = 0.0,
    weight: float = 0.15,
    largest: float = 4.0,
) -> Tensor:
    """Cross-entropy, and a price on log-probabilities that change from one labelled frame to the next.

    It is against predictions that flicker, which frame accuracy hardly sees and segment metrics do: the truncated mean
    squared error of MS-TCN (Farha and Gall 2019), whose lambda and tau are the defaults here. Only the later frame of a
    pair learns from it.

    Args:
        logits, labels, total, smoothing: as of ``cross_entropy``.
        weight: lambda, of the price against the cross-entropy.
        largest: tau; a change beyond it costs no more.

    Returns:
        a scalar.
    """
    if total is None:
        total = (labels != IGNORE).sum()
    log_p = logits.float().log_softmax(-1)
    change = (log_p[:, 1:] - log_p[:, :-1].detach()).clamp(-largest, largest).square().mean(-1)
    both = (labels[:, 1:] != IGNORE) & (labels[:, :-1] != IGNORE)
    price = (change * both).sum() / (total.clamp(min=1) if isinstance(total, Tensor) else max(total, 1))
    return cross_entropy(logits, labels, total, smoothing) + weight * price
