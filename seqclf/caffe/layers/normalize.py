"""Layers that subtract a mean and divide by a standard deviation."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqclf.caffe.formats.schema import schema
from seqclf.caffe.layers.base import Layer, Shape


class BatchNorm(Layer):
    """``(x - mean) / sqrt(var + eps)`` per channel of ``(N, C, ...)``, or of all of ``(N,)`` (batch_norm_layer.cpp).

    In training, mean and var are the batch's; in testing, or with ``use_global_stats``, the stored ones. Blobs: sums of
    means ``(C,)``, of unbiased variances ``(C,)`` and of weights ``(1,)``, which decay by ``moving_average_fraction``
    at each update. The stored value is sum / weight, or 0 if the weight is 0. Statistics with names are shared.
    """

    category = "normalization"
    caffe_source = "batch_norm_layer.cpp"
    in_lisa = False
    limits = "three blobs of sums, stored as in Caffe"
    statistics = True

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        specs = self.param.param
        if len(specs) != 3 and any(spec.lr_mult for spec in specs):  # of three Caffe makes them 0 (upgrade_proto.cpp)
            self.fail("a param has an lr_mult, expected lr_mult: 0: the blobs are statistics, which are not learned")
        self.channels = self._channels(shapes[0])
        zeros = schema(self.net.flavour).FillerParameter()
        for size in (self.channels, self.channels, 1):
            self.add_blob((size,), zeros)
        self.blobs.requires_grad_(False)
        return [shapes[0]]

    def _channels(self, shape: Shape) -> int:
        if not shape:
            self.fail("a bottom without axes, expected (N, C, ...)")
        return shape[1] if len(shape) > 1 else 1

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        if self._channels(tuple(x.shape)) != self.channels:
            self.fail(f"a bottom of shape {tuple(x.shape)}, expected {self.channels} channels on axis 1")
        p = self.param.batch_norm_param
        if p.use_global_stats if p.HasField("use_global_stats") else not self.training:
            mean, variance, weight = self.blobs
            scale = torch.where(weight == 0, 0, 1 / weight)
            along = (self.channels, *(1,) * (x.dim() - 2))
            return (x - (mean * scale).view(along)) / (variance * scale + p.eps).sqrt().view(along)
        axes = tuple(axis for axis in range(x.dim()) if axis != 1)
        y, mean, variance = _Standardize.apply(x, axes, p.eps, 0.0)
        values = x.numel() // self.channels
        with torch.no_grad():
            unbiased = variance.flatten() * (values / (values - 1) if values > 1 else 1)
            for blob, new in zip(self.blobs, (mean.flatten(), unbiased, 1), strict=True):
                blob.mul_(p.moving_average_fraction).add_(new)
        return y

    def operations(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        p = self.param.batch_norm_param
        stored = p.use_global_stats if p.HasField("use_global_stats") else not self.training
        return (2 if stored else 5) * prod(bottoms[0])


class MVN(Layer):
    """``(x - mean) / (std + eps)`` of each channel, or with ``across_channels`` of each image (mvn_layer.cpp).

    Without ``normalize_variance``, only ``x - mean``. The top is ``(N, C, H, W)``; axes that a bottom lacks are 1.
    """

    category = "normalization"
    caffe_source = "mvn_layer.cpp"

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        return [self._top_shape(shapes[0])]

    def _top_shape(self, shape: Shape) -> Shape:
        if len(shape) > 4:
            self.fail(f"a bottom of shape {shape}, expected at most 4 axes (N, C, H, W)")
        return shape + (1,) * (4 - len(shape))

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        p = self.param.mvn_param
        x = x.reshape(self._top_shape(tuple(x.shape)))
        axes = (1, 2, 3) if p.across_channels else (2, 3)
        if not p.normalize_variance:
            return x - x.mean(axes, keepdim=True)
        return _Standardize.apply(x, axes, 0.0, p.eps)[0]

    def operations(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        return (5 if self.param.mvn_param.normalize_variance else 2) * prod(bottoms[0])


class _Standardize(torch.autograd.Function):
    """``(x - mean) / (sqrt(var + inside) + outside)`` along some axes; also returns mean and var, with axes of size 1.

    The backward pass is Caffe's: ``dx = (dy - mean(dy) - y mean(dy y)) / std``. It is exact if only ``inside`` is set,
    and finite if only ``outside`` is set and var is 0.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, axes: tuple[int, ...], inside: float, outside: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean = x.mean(axes, keepdim=True)
        y = x - mean
        variance = y.square().mean(axes, keepdim=True)
        std = (variance + inside).sqrt_().add_(outside)
        y.div_(std)
        ctx.axes = axes
        ctx.save_for_backward(y, std)
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        y, std = ctx.saved_tensors
        dx = dy - dy.mean(ctx.axes, keepdim=True)
        dx.addcmul_(y, (dy * y).mean(ctx.axes, keepdim=True), value=-1)
        return dx.div_(std), None, None, None
