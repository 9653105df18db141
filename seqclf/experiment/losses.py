"""Losses over the labelled frames of a batch: cross-entropy, focal loss, and cross-entropy for steady predictions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError

Weights = Sequence[float] | Literal["balanced"] | None
"""Weights of the K classes. In an experiment, "balanced" stands for ``balanced_weights``."""


def cross_entropy(
    logits: Tensor, labels: Tensor, total: int | Tensor | None = None, smoothing: float = 0.0, weights: Weights = None
) -> Tensor:
    """Mean cross-entropy over labelled frames. Frames with the label ``IGNORE`` have no loss and no gradient.

    With ``weights``, the loss of each frame is multiplied by the weight of its class. With ``smoothing``, the part of a
    label that goes to another class has the weight of that class, as in PyTorch. The sum is still divided by the
    number of labelled frames, while PyTorch divides by the sum of the weights in the batch. A frame therefore has the
    same weight in every batch, and the losses of the parts of a batch add up to the loss of the batch.

    Args:
        logits: ``(B, T, K)``, any float dtype; the loss is computed in float32.
        labels: ``(B, T)`` int64, 0 to K - 1 or ``IGNORE``.
        total: the number of labelled frames of the whole batch, if ``labels`` are a part of it. None to count them in
            ``labels``. Without any labelled frame the loss is 0.
        smoothing: the share of each label that is spread evenly over all classes (Szegedy et al. 2016), from 0 to 1.
        weights: a weight of at least 0 for each of the K classes. None for equal weights. As a setting of an experiment
            also "balanced", which ``train`` replaces by ``balanced_weights``.

    Returns:
        a scalar, in nats.

    Raises:
        SeqclfError: ``smoothing`` is out of range; there are not K weights, or one is negative or not finite.
    """
    if not 0 <= smoothing <= 1:
        raise SeqclfError(f"smoothing={smoothing}: must be from 0 to 1")
    total = divisor(total, labels)
    weight = weight_tensor(weights, logits)
    logits, labels = labelled_rows(logits, labels)
    summed = F.cross_entropy(logits, labels, weight, ignore_index=IGNORE, reduction="sum", label_smoothing=smoothing)
    return summed / total


def focal_loss(
    logits: Tensor, labels: Tensor, total: int | Tensor | None = None, gamma: float = 2.0, weights: Weights = None
) -> Tensor:
    """Focal loss of the softmax, ``-w (1 - p)^gamma log p`` (Lin et al. 2017, equation 5), over labelled frames.

    p is the probability of the true class, w its weight. Frames that are classified well have almost no loss, so rare
    and difficult frames have more influence.

    Args:
        logits, labels, total, weights: as in ``cross_entropy``; the weights are the alpha of the paper.
        gamma: the exponent, at least 0. With 0, the loss is the cross-entropy.

    Returns:
        a scalar, in nats.

    Raises:
        SeqclfError: ``gamma`` is negative, or a weight is wrong.
    """
    if gamma < 0:
        raise SeqclfError(f"focal_loss: gamma={gamma}: must be at least 0")
    total = divisor(total, labels)
    weight = weight_tensor(weights, logits)
    logits, labels = labelled_rows(logits, labels)
    truth = labels.clamp(min=0)
    log_p = logits.log_softmax(-1).gather(1, truth[:, None])[:, 0]
    missing = (-log_p.expm1()).clamp(min=torch.finfo(log_p.dtype).tiny)  # 1 - p; at 0 a power has no gradient
    losses = -(missing**gamma) * log_p
    return mean_loss(losses if weight is None else losses * weight[truth], labels, total)


def labelled_rows(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logits ``(M, K)`` in float32 and labels ``(M,)`` of all frames; on the CPU, of the labelled frames only."""
    logits, labels = rearrange(logits, "b t k -> (b t) k"), rearrange(labels, "b t -> (b t)")
    if labels.device.type == "cpu":  # few frames may be labelled; on a GPU, finding them would synchronise
        rows = (labels != IGNORE).nonzero()[:, 0]
        logits, labels = logits[rows], labels[rows]
    return logits.float(), labels


def divisor(total: int | Tensor | None, labels: Tensor) -> int | Tensor:
    """The divisor of a loss: ``total``, or for None the number of labels that are not ``IGNORE``; at least 1."""
    if total is None:
        total = (labels != IGNORE).sum()
    return total.clamp(min=1) if isinstance(total, Tensor) else max(total, 1)


def mean_loss(losses: Tensor, labels: Tensor, total: int | Tensor) -> Tensor:
    """The sum of the losses ``(M,)`` of labelled frames, divided by ``total``."""
    return losses.where(labels != IGNORE, 0).sum() / total


def weight_tensor(weights: Weights, logits: Tensor, name: str = "weights") -> Tensor | None:
    """The weights of classes ``(K,)`` float32 on the device of the logits ``(..., K)``.

    Raises:
        SeqclfError: there are not K weights, or one is negative or not finite.
    """
    if weights is None:
        return None
    if isinstance(weights, str):
        hint = '; "balanced" is a setting (loss.weights) of an experiment, elsewhere pass losses.balanced_weights(data)'
        raise SeqclfError(f"{name}={weights!r}: expected K numbers{hint if name == 'weights' else ''}")
    if len(weights) != logits.shape[-1]:
        raise SeqclfError(f"{name} has {len(weights)} numbers, but there are {logits.shape[-1]} classes")
    return _on_device(tuple(map(float, weights)), logits.device)


@lru_cache(maxsize=16)
def _on_device(weights: tuple[float, ...], device: torch.device) -> Tensor:
    """Caches the tensor, because a copy to a GPU would make each step wait, and cannot be captured as a graph."""
    with torch.inference_mode(False):
        tensor = torch.tensor(weights, dtype=torch.float32)
        if not (tensor.isfinite() & (tensor >= 0)).all():
            raise SeqclfError(f"class weights {weights}: each must be finite and at least 0")
        return tensor.to(device)


def steady_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    total: int | Tensor | None = None,
    smoothing: float = 0.0,
    weights: Weights = None,
    penalty: float = 0.15,
    largest: float = 4.0,
) -> Tensor:
    """Cross-entropy plus a penalty on log-probabilities that change between consecutive labelled frames.

    It reduces flickering, which lowers segment metrics more than frame accuracy. The penalty is the truncated mean
    squared error of MS-TCN (Farha and Gall 2019), with its lambda and tau as defaults. The gradient
    reaches only the later frame of each pair. With ``truncate=``, pairs across two windows have no penalty.

    Args:
        logits, labels, total, smoothing, weights: as in ``cross_entropy``; the weights do not affect the penalty.
        penalty: lambda, the weight of the penalty, at least 0.
        largest: tau, the change above which the penalty is constant, above 0.

    Returns:
        a scalar.

    Raises:
        SeqclfError: ``penalty`` or ``largest`` is out of range, or the weights are wrong.
    """
    if not penalty >= 0 or not largest > 0:
        raise SeqclfError(f"penalty={penalty}, largest={largest}: penalty must be at least 0 and largest above 0")
    total = divisor(total, labels)
    log_p = logits.float().log_softmax(-1)
    change = (log_p[:, 1:] - log_p[:, :-1].detach()).clamp(-largest, largest).square().mean(-1)
    pairs = (labels[:, 1:] != IGNORE) & (labels[:, :-1] != IGNORE)
    changes = (change * pairs).sum() / total
    return cross_entropy(logits, labels, total, smoothing, weights) + penalty * changes
