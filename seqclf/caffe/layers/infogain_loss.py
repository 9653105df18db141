"""Losses that take the logarithm of probabilities."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from google.protobuf.message import DecodeError
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqclf.caffe.formats.schema import schema
from seqclf.caffe.layers.base import Shape
from seqclf.caffe.layers.loss import Loss

LOG_THRESHOLD = 1e-20
"""Probabilities are clamped to this minimum before the logarithm (Caffe's kLOG_THRESHOLD)."""


class InfogainLoss(Loss):
    """``sum_c(-H[label, c] * log p_c) / normalizer`` (infogain_loss_layer.cpp).

    H ``(C, C)`` is the third bottom, or is read from the file ``source``. ``p = softmax(x)`` along
    ``infogain_loss_param.axis``, and also the second top, if there is one. In lisa-caffe x itself is p, ``(N, ...)``
    with C values per item, and the normalizer is N.
    """

    caffe_source = "infogain_loss_layer.cpp"
    per_value = 7
    limits = "the matrix is a third bottom or a file"
    bottom_roles = ("data", "labels", "data")
    bottoms = (2, 3)
    tops = (1, 2)
    matrix: Tensor
    """H from the file, flat."""

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        p, tops = self.param.infogain_loss_param, self.param.top
        self.lisa = self.net.flavour == "lisa"
        self.lisa_lacks(p, "axis")
        self.lisa_lacks(self.param.loss_param, "ignore_label", "normalize", "normalization")
        if self.param.loss_param.HasField("normalize"):
            self.fail("loss_param.normalize does not apply to InfogainLoss: expected normalization")
        if len(tops) == 2 and self.lisa:
            self.fail("has 2 tops, expected 1")
        self.check_two_tops()
        self.dim = 1 if self.lisa else self.canonical_axis(p.axis, len(shapes[0]))
        if len(shapes) == 2:
            self.register_buffer("matrix", self.read_matrix(p.source), persistent=False)
        return [*super().setup(shapes), *[shapes[0]] * (len(tops) - 1)]

    def check(self, shapes: Sequence[Shape]) -> None:
        super().check(shapes)
        x, labels, *matrix = shapes
        x = (x[0], prod(x[1:])) if self.lisa else x
        self.check_labels([x, labels], self.dim)
        H = tuple(matrix[0] if matrix else self.matrix.shape)
        if prod(H) != x[self.dim] ** 2:
            self.fail(f"an infogain matrix of shape {H}: expected {x[self.dim]} by {x[self.dim]}")

    def read_matrix(self, source: str) -> Tensor:
        """Reads H from a ``BlobProto`` file, relative to the working directory or to the prototxt."""
        if not source:
            self.fail("needs an infogain matrix: a third bottom, or infogain_loss_param.source")
        paths = [Path(source), Path(os.path.dirname(self.net.file), source)]
        path = next((path for path in paths if os.path.isfile(path)), None)
        if path is None:
            self.fail(f"no infogain matrix at {' or '.join(dict.fromkeys(map(str, paths)))}")
        blob: Any = schema(self.net.flavour).BlobProto()
        try:
            blob.ParseFromString(path.read_bytes())
        except (OSError, DecodeError) as error:
            self.fail(f"{path} is not a BlobProto: {error}")
        return torch.tensor(list(blob.double_data or blob.data), dtype=torch.float32)

    def loss(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        x, labels = bottoms[:2]
        if self.lisa:
            x = x.unsqueeze(1).flatten(1)
        C = x.shape[self.dim]
        H = (bottoms[2] if len(bottoms) == 3 else self.matrix).detach().to(x.dtype).reshape(C, C)
        index, valid = self.read_labels(labels, x, self.dim, self.ignore)
        rows = H[index.squeeze(self.dim)].movedim(-1, self.dim)
        if self.lisa:
            return -(rows * _ThresholdedLog.apply(x)).sum() / len(x)
        mode = self.param.loss_param.normalization
        normalizer = self.normalizer(mode, prod(x.shape[: self.dim]), index.numel(), valid)
        loss, probs = _InfogainLoss.apply(x, rows, valid, self.dim, normalizer)
        return (loss, probs) if len(self.param.top) == 2 else loss


class _InfogainLoss(torch.autograd.Function):
    """Returns the loss, from logits and the row of H for every position, and the probabilities, without gradient."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, rows: Tensor, valid: Tensor | None, dim: int, normalizer: float | Tensor
    ) -> tuple[Tensor, Tensor]:
        probs = x.softmax(dim)
        ctx.dim, ctx.normalizer = dim, normalizer
        ctx.save_for_backward(probs, rows, valid)
        ctx.mark_non_differentiable(probs)
        gains = probs.clamp(min=LOG_THRESHOLD).log_().mul_(rows)
        return -(gains if valid is None else gains.masked_fill_(~valid, 0)).sum() / normalizer, probs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        probs, rows, valid = ctx.saved_tensors
        weight = g / ctx.normalizer if valid is None else valid * (g / ctx.normalizer)
        return (probs * rows.sum(ctx.dim, keepdim=True) - rows) * weight, None, None, None, None


class MultinomialLogisticLoss(Loss):
    """``sum(-log max(p[label], 1e-20)) / N`` (multinomial_logistic_loss_layer.cpp).

    p ``(N, ...)`` holds probabilities, C values per item; labels ``(N,)``.
    """

    caffe_source = "multinomial_logistic_loss_layer.cpp"

    def check(self, shapes: Sequence[Shape]) -> None:
        super().check(shapes)
        self.check_labels([(shapes[0][0], prod(shapes[0][1:])), shapes[1]], 1)

    def loss(self, *bottoms: Tensor) -> Tensor:
        x = bottoms[0].unsqueeze(1).flatten(1)
        index, _ = self.read_labels(bottoms[1], x, 1)
        return -_ThresholdedLog.apply(x.gather(1, index)).sum() / len(x)


class _ThresholdedLog(torch.autograd.Function):
    """``log max(p, threshold)`` with the gradient ``1 / max(p, threshold)``, also below the threshold."""

    @staticmethod
    def forward(ctx: Any, p: Tensor) -> Tensor:
        p = p.clamp(min=LOG_THRESHOLD)
        ctx.save_for_backward(p)
        return p.log()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (p,) = ctx.saved_tensors
        return g / p
