"""The loss of multi-label data: binary cross-entropy over the known labels of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError
from seqclf.experiment.losses import divisor, weight_tensor


def binary_cross_entropy(
    logits: Tensor, labels: Tensor, total: int | Tensor | None = None, pos_weight: float | Sequence[float] | None = None
) -> Tensor:
    """Mean binary cross-entropy over the known labels of multi-label data, each class on its own.

    A label of ``IGNORE`` is unknown: it has no loss and no gradient.

    Args:
        logits: ``(B, T, K)``, any float dtype; the loss is computed in float32. Their sigmoid is the probability.
        labels: ``(B, T, K)`` int64, 0, 1 or ``IGNORE``.
        total: the number of known labels of the whole batch, if ``labels`` are a part of it. None to count them in
            ``labels``. Without any known label the loss is 0.
        pos_weight: the weight of positive labels (1) relative to negative ones (0), at least 0: one number, or one for
            each class. The number of negatives per positive balances the two. None for 1.

    Returns:
        a scalar, in nats.

    Raises:
        SeqclfError: labels are not ``(B, T, K)``; there are not K weights, or one is negative or not finite.
    """
    if labels.shape != logits.shape:
        raise SeqclfError(
            f"labels {tuple(labels.shape)} differ from logits {tuple(logits.shape)}: they must be (B, T, K)"
        )
    known = labels != IGNORE
    if isinstance(pos_weight, int | float):
        pos_weight = [pos_weight] * logits.shape[-1]
    each = F.binary_cross_entropy_with_logits(
        logits.float().masked_fill(~known, 0),
        labels.clamp(min=0).float(),
        reduction="none",
        pos_weight=weight_tensor(pos_weight, logits, "pos_weight"),
    )
    return (each * known).sum() / divisor(total, labels)
