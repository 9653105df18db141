"""Sigmoid and binary cross-entropy in one layer."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqclf.caffe.layers.base import Shape
from seqclf.caffe.layers.loss import Loss


class SigmoidCrossEntropyLoss(Loss):
    """``sum(-t log s(x) - (1 - t) log(1 - s(x))) / normalizer`` (sigmoid_cross_entropy_loss_layer.cpp).

    s is the sigmoid function. x ``(N, ...)`` holds logits; t holds as many targets from 0 to 1. The normalizer is N by
    default. The gradient ``s(x) - t`` goes to x only.
    """

    caffe_source = "sigmoid_cross_entropy_loss_layer.cpp"
    per_value = 5

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        self.lisa_lacks(self.param.loss_param, "ignore_label", "normalize", "normalization")
        self.mode = self.normalization(self.param.loss_param.BATCH_SIZE)
        return super().setup(shapes)

    def check(self, shapes: Sequence[Shape]) -> None:
        super().check(shapes)
        if prod(shapes[0]) != prod(shapes[1]):
            self.fail(f"logits {tuple(shapes[0])} and targets {tuple(shapes[1])}: expected as many targets as logits")

    def loss(self, *bottoms: Tensor) -> Tensor:
        x, t = bottoms[0], bottoms[1].detach().reshape(bottoms[0].shape)
        valid = None if self.ignore is None else t.trunc() != self.ignore
        return _SigmoidLoss.apply(x, t, valid, self.normalizer(self.mode, len(x), x.numel(), valid))


class _SigmoidLoss(torch.autograd.Function):
    """``max(x, 0) - t x + log(1 + exp(-abs(x)))``. Unlike PyTorch's own loss, it does not subtract large values."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, t: Tensor, valid: Tensor | None, normalizer: float | Tensor) -> Tensor:
        ctx.normalizer = normalizer
        ctx.save_for_backward(x, t, valid)
        losses = x.relu().addcmul_(x, t, value=-1).add_(F.softplus(-x.abs()))
        return (losses if valid is None else losses.masked_fill_(~valid, 0)).sum() / normalizer

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, t, valid = ctx.saved_tensors
        weight = g / ctx.normalizer if valid is None else valid * (g / ctx.normalizer)
        return x.sigmoid().sub_(t).mul_(weight), None, None, None
