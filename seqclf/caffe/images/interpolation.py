"""Interpolation of images without anti-aliasing, as in scikit-image and SciPy at the time of pycaffe."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.caffe.formats.files import LARGEST_BLOB
from seqclf.caffe.images.arrays import times


def resample(x: Tensor, size: tuple[int, int], order: int, border: str) -> Tensor:
    """Resizes images ``(..., H, W, K)``, one axis after the other."""
    *batch, H, W, K = x.shape
    if math.prod((*batch, *size, K)) > LARGEST_BLOB:
        raise SeqclfError(f"new_dims {times(size)}: more than 2**31 - 1 values, which no blob of Caffe's holds")
    x = _along(x.reshape(-1, H, W * K), *_taps(H, size[0], 1, order, border, x.device))
    x = _along(x.reshape(-1, W * K, 1), *_taps(W, size[1], K, order, border, x.device))
    return x.reshape(*batch, *size, K)


def _along(x: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """``y[:, m] = sum over t of weight[t, m] x[:, index[t, m]]``, of ``(B, N, D)`` and ``(T, M)``: ``(B, M, D)``."""
    y = x.index_select(1, index[0]).mul_(weight[0, :, None])
    for i, w in zip(index[1:], weight[1:, :, None], strict=True):
        y = y.addcmul_(x.index_select(1, i), w)
    return y


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # cached, and also used where gradients are computed
def _taps(N: int, M: int, K: int, order: int, border: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """The taps of a resize from N to M pixels of K channels: their indices and weights, each ``(taps, M K)``.

    Args:
        N: pixels of the source.
        M: pixels of the result.
        K: channels.
        order: 0 nearest, 1 linear, 3 cubic spline.
        border: the values outside the image, "zero" or "edge"; or "corners" for the geometry of SciPy's ``zoom``, whose
            splines continue as their mirror image.
        device: where the result is.
    """
    k = torch.arange(M, dtype=torch.float64)
    at = k * ((N - 1) / (M - 1) if M > 1 else 1.0) if border == "corners" else (k + 0.5) * (N / M) - 0.5
    first = (at + 0.5).floor() if order == 0 else at.floor()
    part = at - first
    if order == 0:
        steps, weight = torch.arange(1), torch.ones(1, M, dtype=torch.float64)
    elif order == 1:
        steps, weight = torch.arange(2), torch.stack([1 - part, part])
    else:
        # The spline is a sum of B-splines. Four of them reach a point. Their coefficients are the pixels filtered with
        # sqrt(3) z**|n|, z = sqrt(3) - 2. The filter is cut after 16 pixels, which changes it by 1e-9.
        steps, near = torch.arange(-15, 17), torch.arange(-1, 3)
        distance = (part - near[:, None]).abs()
        spline = torch.where(distance < 1, 2 / 3 - distance**2 + distance**3 / 2, (2 - distance) ** 3 / 6)
        reach = (steps[:, None] - near).abs()
        weight = math.sqrt(3) * (math.sqrt(3) - 2) ** reach.double() @ spline
    index = first.long() + steps[:, None]
    if border == "zero":
        weight = weight * ((index >= 0) & (index < N))
    elif border == "corners":
        # If rounding puts the last point beyond the last pixel, SciPy reads zeros there, and so did Caffe.
        weight = weight * (at <= N - 1)
        index = index % max(2 * N - 2, 1)
        index = torch.minimum(index, 2 * N - 2 - index)
    index = index.clamp(0, N - 1)[..., None] * K + torch.arange(K)
    weight = weight.float()[..., None].expand(-1, -1, K)
    return index.flatten(1).to(device), weight.flatten(1).to(device)
