"""Caffe's weight fillers (filler.hpp): distributions for new parameters and dummy data."""

from __future__ import annotations

from math import ceil, sqrt
from typing import Any

import torch
from torch import Tensor

from seqclf.caffe.error import CaffeFormatError

FAN_OUT, AVERAGE = 1, 2
"""``FillerParameter.VarianceNorm``, whose 0 is FAN_IN."""


@torch.no_grad()
def fill(blob: Tensor, filler: Any) -> None:
    """Fills a blob in place, drawn from PyTorch's global generator.

    Args:
        blob: a floating-point tensor (or parameter) of any shape, with at least one value.
        filler: a ``FillerParameter``; None fills with 0, as a message without fields does.

    Raises:
        CaffeFormatError: the filler is unknown, or does not support this blob or its settings.
    """
    kind = "constant" if filler is None else filler.type
    if blob.numel() == 0:
        raise CaffeFormatError(f'filler "{kind}": a blob of shape {tuple(blob.shape)} has nothing to fill')
    if filler is None:
        blob.zero_()
        return
    if filler.sparse != -1 and kind != "gaussian":
        raise CaffeFormatError(f'filler "{kind}" can\'t be sparse ({filler.sparse}): "gaussian" alone can')
    if kind == "constant":
        blob.fill_(filler.value)
    elif kind == "uniform":
        if not filler.min <= filler.max:
            raise CaffeFormatError(f'filler "uniform": min {filler.min:g} is above max {filler.max:g}')
        blob.uniform_(filler.min, filler.max)
    elif kind == "gaussian":
        _gaussian(blob, filler)
    elif kind == "xavier":
        limit = sqrt(3 / _fan(blob, filler))
        blob.uniform_(-limit, limit)
    elif kind == "msra":
        blob.normal_(0, sqrt(2 / _fan(blob, filler)))
    elif kind == "positive_unitball":
        blob.uniform_()
        rows = blob.view(len(blob) if blob.ndim else 1, -1)
        rows /= rows.sum(1, keepdim=True)
    elif kind == "bilinear":
        _bilinear(blob)
    else:
        raise CaffeFormatError(
            f'filler "{kind}": expected constant, uniform, gaussian, xavier, msra, positive_unitball or bilinear'
        )


def _fan(blob: Tensor, filler: Any) -> float:
    """The number n of values per output (or input, or the mean of the two), for a variance of order 1 / n.

    Counts like Caffe: values / shape[0] and values / shape[1], which for a grouped convolution covers all groups.
    """
    fan_in = blob.numel() // (blob.shape[0] if blob.ndim else 1)
    fan_out = blob.numel() // (blob.shape[1] if blob.ndim > 1 else 1)
    if filler.variance_norm == AVERAGE:
        return (fan_in + fan_out) / 2
    return fan_out if filler.variance_norm == FAN_OUT else fan_in


def _gaussian(blob: Tensor, filler: Any) -> None:
    """N(mean, std²); ``sparse`` s >= 0 keeps each value with probability s / shape[0] and makes the others 0."""
    if not filler.std > 0:
        raise CaffeFormatError(f'filler "gaussian": std {filler.std:g}, expected above 0')
    blob.normal_(filler.mean, filler.std)
    if filler.sparse == -1:
        return
    outputs = blob.shape[0] if blob.ndim else 0
    if not 0 <= filler.sparse <= outputs:
        raise CaffeFormatError(f'filler "gaussian": sparse {filler.sparse}, expected 0 to the {outputs} outputs')
    blob.mul_(torch.empty_like(blob).bernoulli_(filler.sparse / outputs))


def _bilinear(blob: Tensor) -> None:
    """The kernel with which a ``Deconvolution`` of stride f = ceil(K / 2) interpolates linearly, for all channels.

    w[y, x] = (1 - |x / f - c|) (1 - |y / f - c|), with c = (K - 1) / (2 f).
    """
    if blob.ndim != 4 or blob.shape[2] != blob.shape[3]:
        raise CaffeFormatError(f'filler "bilinear": a blob of shape {tuple(blob.shape)}, expected (N, C, K, K)')
    size = blob.shape[-1]
    f = ceil(size / 2)
    line = 1 - (torch.arange(size, dtype=blob.dtype, device=blob.device) / f - (size - 1) / (2 * f)).abs()
    blob.copy_(line[:, None] * line)
