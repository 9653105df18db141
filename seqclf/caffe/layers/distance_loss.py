"""Losses of distances and margins."""

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


class EuclideanLoss(Loss):
    """``sum((a - b)^2) / 2N`` of bottoms ``(N, ...)``, with gradients to both (euclidean_loss_layer.cpp)."""

    caffe_source = "euclidean_loss_layer.cpp"
    per_value = 3
    bottom_roles = ("data",)

    def check(self, shapes: Sequence[Shape]) -> None:
        super().check(shapes)
        if prod(shapes[0]) != prod(shapes[1]):
            self.fail(f"bottoms {tuple(shapes[0])} and {tuple(shapes[1])}: expected as many values in both")

    def loss(self, *bottoms: Tensor) -> Tensor:
        a, b = bottoms
        return F.mse_loss(a, b.reshape(a.shape), reduction="sum") / (2 * len(a))


class HingeLoss(Loss):
    """``sum(max(0, 1 + s x)) / N``, where s is -1 at the label and 1 elsewhere (hinge_loss_layer.cpp).

    With norm L2, the sum is over the squares. x ``(N, ...)`` holds C values per item; labels ``(N,)``.
    """

    caffe_source = "hinge_loss_layer.cpp"
    per_value = 3

    def check(self, shapes: Sequence[Shape]) -> None:
        super().check(shapes)
        self.check_labels([(shapes[0][0], prod(shapes[0][1:])), shapes[1]], 1)

    def loss(self, *bottoms: Tensor) -> Tensor:
        p, x = self.param.hinge_loss_param, bottoms[0].unsqueeze(1).flatten(1)
        index, _ = self.read_labels(bottoms[1], x, 1)
        margins = F.relu(1 + x * torch.ones_like(x).scatter_(1, index, -1))
        return (margins.square() if p.norm == p.L2 else margins).sum() / len(x)


class ContrastiveLoss(Loss):
    """The mean of ``d^2 / 2`` of similar and ``max(margin - d, 0)^2 / 2`` of other pairs (contrastive_loss_layer.cpp).

    d is the distance between a and b, ``(N, C)`` each. The third bottom ``(N,)`` is nonzero for similar pairs. With
    ``legacy_version``, which is the only version in lisa-caffe, other pairs contribute ``max(margin - d^2, 0) / 2``.
    """

    caffe_source = "contrastive_loss_layer.cpp"
    per_value = 3
    bottom_roles = ("data", "data", "labels")
    bottoms = (3, 3)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        p = self.param.contrastive_loss_param
        self.lisa_lacks(p, "legacy_version")
        self.legacy = self.net.flavour == "lisa" or p.legacy_version
        return super().setup(shapes)

    def check(self, shapes: Sequence[Shape]) -> None:
        super().check(shapes)
        a, b, similar = map(tuple, shapes)
        if a[1:2] != b[1:2] or prod(a[2:]) != 1 or prod(b[2:]) != 1 or prod(similar) != a[0]:
            self.fail(f"bottoms {a}, {b} and {similar}: expected (N, C), (N, C) and (N,)")

    def loss(self, *bottoms: Tensor) -> Tensor:
        a, b, similar = bottoms
        N = len(a)
        return _ContrastiveLoss.apply(
            a.reshape(N, -1),
            b.reshape(N, -1),
            similar.detach().reshape(N).trunc() != 0,
            self.param.contrastive_loss_param.margin,
            self.legacy,
        )


class _ContrastiveLoss(torch.autograd.Function):
    """The loss, with Caffe's gradient, which divides by d + 1e-4 instead of d."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, similar: Tensor, margin: float, legacy: bool) -> Tensor:
        diff = a - b
        squared = diff.square().sum(1)
        d = squared if legacy else squared.sqrt()
        short = (margin - d).clamp_(min=0)
        ctx.legacy = legacy
        ctx.save_for_backward(diff, d, short, similar)
        return torch.where(similar, squared, short if legacy else short.square()).sum() / (2 * len(a))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        diff, d, short, similar = ctx.saved_tensors
        pull = (short > 0).to(d.dtype) if ctx.legacy else short / (d + 1e-4)
        weight = torch.where(similar, 1, -pull) * (g / len(diff))
        grad = diff * weight[:, None]
        return grad, -grad, None, None, None
