"""Accuracy of logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqclf.caffe.layers.base import Shape
from seqclf.caffe.layers.labelled import Labelled


class Accuracy(Labelled):
    """The fraction of labels whose class is among the ``top_k`` highest logits (accuracy_layer.cpp).

    x ``(..., C, ...)`` has C classes at ``axis``, with one label for each index of the other axes. A second top holds
    the accuracy of each class, 0 for a class without labels. A class whose logit equals that of the label counts as
    higher; in lisa-caffe only if its index is higher. Without any label the accuracy is 0; in lisa-caffe it is NaN, and
    ``denominator`` can replace the number of labels. There is no gradient.
    """

    category = "loss"
    caffe_source = "accuracy_layer.cpp"
    per_value = 1
    bottom_roles = ("data", "labels")
    limits = "ties as in each fork; a second top holds the accuracy per class"
    bottoms = (2, 2)
    tops = (1, 2)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        p = self.param.accuracy_param
        self.dim = self.canonical_axis(p.axis, len(shapes[0]))
        classes = shapes[0][self.dim]
        if not 1 <= p.top_k <= classes:
            self.fail(f"top_k {p.top_k} of {classes} classes: expected 1 to {classes}")
        self.lisa = self.net.flavour == "lisa"
        if self.lisa and p.denominator < 0:
            self.fail(f"denominator {p.denominator}: expected a positive number, or 0 for the number of labels")
        self.check_labels(shapes, self.dim)
        return [(), (classes,)][: len(self.param.top)]

    @torch.no_grad()
    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        p, dim = self.param.accuracy_param, self.dim
        x, labels = bottoms
        self.check_labels([x.shape, labels.shape], dim)
        index, valid = self.read_labels(labels, x, dim, p.ignore_label if p.HasField("ignore_label") else None)
        own = x.gather(dim, index)
        if self.lisa:
            classes = torch.arange(x.shape[dim], device=x.device).reshape(-1, *[1] * (x.dim() - 1 - dim))
            higher = (x > own) | ((x == own) & (classes > index))
        else:
            higher = x >= own
        correct = higher.sum(dim, keepdim=True) < p.top_k + (not self.lisa)  # BVLC counts the label's class, too
        if valid is None:
            valid = torch.ones_like(correct)
        correct &= valid
        count = valid.sum() if self.lisa else valid.sum().clamp(min=1)
        accuracy = correct.sum().to(x.dtype) / ((self.lisa and p.denominator) or count)
        if len(self.param.top) == 1:
            return accuracy
        hits, labelled = (
            x.new_zeros(x.shape[dim]).scatter_add_(0, index.flatten(), which.flatten().to(x.dtype))
            for which in (correct, valid)
        )
        return accuracy, hits / labelled.clamp(min=1)

    @staticmethod
    def summary(param: Any) -> str:
        return f"top {param.accuracy_param.top_k}"
