"""Local response normalization."""

from __future__ import annotations

from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from seqclf.caffe.layers.base import Layer, Shape
from seqclf.models.lrn import local_response_norm


class LRN(Layer):
    """Local response normalization of ``(N, C, H, W)`` with n = ``local_size`` (lrn_layer.cpp).

    ACROSS_CHANNELS: ``x / (k + alpha / n * sum of x^2 over n channels)^beta``.
    WITHIN_CHANNEL: ``x / (1 + alpha * mean of x^2 over n x n pixels)^beta``, where the mean is that of ``Pooling``.
    """

    category = "normalization"
    caffe_source = "lrn_layer.cpp"
    limits = "across channels and within channels; 4 axes, as in Caffe"

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        size = self.param.lrn_param.local_size
        if size % 2 == 0:
            self.fail(f"local_size is {size}, expected an odd number")
        return [self.check(shapes[0])]

    def check(self, shape: Shape) -> Shape:
        if len(shape) != 4:
            self.fail(f"a bottom of shape {shape}, expected 4 axes (N, C, H, W)")
        return shape

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        self.check(tuple(x.shape))
        p = self.param.lrn_param
        if p.norm_region == p.ACROSS_CHANNELS:
            return local_response_norm(x, p.local_size, p.alpha, p.beta, p.k)
        mean = F.avg_pool2d(x * x, p.local_size, stride=1, padding=(p.local_size - 1) // 2)
        return x * (1 + p.alpha * mean).pow(-p.beta)

    def operations(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        p = self.param.lrn_param
        return int(5 + p.local_size ** (1 if p.norm_region == p.ACROSS_CHANNELS else 2)) * prod(bottoms[0])

    @staticmethod
    def summary(param: Any) -> str:
        p = param.lrn_param
        return (
            f"{p.local_size} channels"
            if p.norm_region == p.ACROSS_CHANNELS
            else f"{p.local_size}×{p.local_size} window"
        )
