"""Softmax and cross-entropy in one layer."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqclf.caffe.layers.base import Shape
from seqclf.caffe.layers.loss import Loss

FLT_MIN = torch.finfo(torch.float32).tiny
"""Probabilities are clamped to this minimum before the logarithm."""


class SoftmaxWithLoss(Loss):
    """``sum(-log softmax(x)[label]) / normalizer`` with the gradient ``p - onehot(label)`` (softmax_loss_layer.cpp).

    x ``(N, ..., C, ...)`` has C classes at ``softmax_param.axis``, with one label for each index of the other axes. A
    second top holds the probabilities, without gradient.
    """

    caffe_source = "softmax_loss_layer.cpp"
    per_value = 5
    limits = "two tops need two `loss_weight`s, as in Caffe; a label out of range is an error (on a CPU)"
    tops = (1, 2)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        p = self.param.loss_param
        self.lisa_lacks(p, "normalization")
        self.mode = self.normalization(p.VALID)
        self.dim = self.canonical_axis(self.param.softmax_param.axis, len(shapes[0]))
        self.check_two_tops()
        return [*super().setup(shapes), shapes[0]][: max(1, len(self.param.top))]

    def check(self, shapes: Sequence[Shape]) -> None:
        super().check(shapes)
        self.check_labels(shapes, self.dim)

    def loss(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        x, labels = bottoms
        index, valid = self.read_labels(labels, x, self.dim, self.ignore)
        normalizer = self.normalizer(self.mode, prod(x.shape[: self.dim]), index.numel(), valid)
        loss, probs = _SoftmaxLoss.apply(x, index, valid, self.dim, normalizer)
        return (loss, probs) if len(self.param.top) == 2 else loss


class _SoftmaxLoss(torch.autograd.Function):
    """Returns the loss and the probabilities, which are computed once and kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, index: Tensor, valid: Tensor | None, dim: int, normalizer: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        probs = x.softmax(dim)
        p = probs.gather(dim, index)
        ctx.dim, ctx.normalizer = dim, normalizer
        ctx.save_for_backward(probs, p, index, valid)
        ctx.mark_non_differentiable(probs)
        logs = p.clamp(min=FLT_MIN).log_()
        return -(logs if valid is None else logs.masked_fill_(~valid, 0)).sum() / normalizer, probs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        probs, p, index, valid = ctx.saved_tensors
        weight = g / ctx.normalizer if valid is None else valid * (g / ctx.normalizer)
        return (probs * weight).scatter_(ctx.dim, index, (p - 1) * weight), None, None, None, None
