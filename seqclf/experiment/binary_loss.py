"""The loss of multi-label data: binary cross-entropy over the known labels of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError


def binary_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    total: int | Tensor | None = None,
    pos_weight: float | Sequence[float] | None = None,
) -> Tensor:
    """Mean binary cross-entropy over the known labels of multi-label data, each class on its own.

    A label of ``IGNORE`` is unknown: it has no loss and no gradient.

    Args:
        logits: ``(B, T, K)``, any float dtype; the loss is computed in float32. Their sigmoid is the probability.
        labels: ``(B, T, K)`` int64, 0, 1 or ``IGNORE``.
        total: the number of known labels to divide by, if these are a part of a batch. None for those of ``labels``.
            Without any known label the loss is 0.
        pos_weight: the weight of the present (1) against the absent (0) labels, above 0: one number, or one for each
            class. Negatives per positive balance the two. None for 1.

    Returns:
        a scalar, in nats.

    Raises:
        SeqclfError: labels are not ``(B, T, K)``; weights are not positive numbers, one for each class.
    """
    if labels.shape != logits.shape:
        raise SeqclfError(
            f"labels {tuple(labels.shape)} differ from logits {tuple(logits.shape)}: they must be (B, T, K)"
        )
    known = labels != IGNORE
    weights = None if pos_weight is None else _weights(pos_weight, logits)
    each = F.binary_cross_entropy_with_logits(
        logits.float().masked_fill(~known, 0),
        labels.clamp(min=0).float(),
        reduction="none",
        pos_weight=weights,
    )
    total = known.sum() if total is None else total
    return (each * known).sum() / (total.clamp(min=1) if isinstance(total, Tensor) else max(total, 1))


def _weights(given: float | Sequence[float], logits: Tensor) -> Tensor:
    """The weights as a tensor on the device of the logits, which is copied there once."""
    each = (float(given),) if isinstance(given, int | float) else tuple(float(w) for w in given)
    if len(each) not in (1, logits.shape[-1]) or not all(0 < w < float("inf") for w in each):
        raise SeqclfError(
            f"pos_weight={list(each)}: expected a number above 0, or one for each of {logits.shape[-1]} classes"
        )
    return _on_device(each, logits.device)


@lru_cache(maxsize=8)
def _on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device)
