"""Caffe's losses: scalars, each with the gradient that Caffe gives it. Labels are floats that hold whole numbers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from google.protobuf.message import DecodeError
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqclf.caffe.layers.base import Layer, Shape
from seqclf.caffe.schema import schema

FLT_MIN = torch.finfo(torch.float32).tiny
LOG_THRESHOLD = 1e-20
"""The least probabilities whose logarithm is taken (Caffe's kLOG_THRESHOLD)."""


class Labelled(Layer):
    """A layer that reads labels, one for every position of the logits: for every index of all axes but the classes'."""

    def check_labels(self, shapes: Sequence[Shape], dim: int) -> None:
        """Refuses labels that are not one per position of the logits; ``dim`` is the classes' axis."""
        x, labels = shapes[:2]
        if prod(labels) != prod(x[:dim]) * prod(x[dim + 1 :]):
            self.fail(
                f"labels {tuple(labels)} for logits {tuple(x)} with the classes at axis {dim}: "
                f"expected {prod(x[:dim])} * {prod(x[dim + 1 :])} labels"
            )

    def read_labels(
        self, labels: Tensor, x: Tensor, dim: int, ignore: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Labels as int64 indices of x's axis ``dim``, 0 where ignored; and where they count, None for everywhere.

        Both have x's shape, but 1 at axis ``dim``.
        """
        index = labels.detach().reshape(*x.shape[:dim], 1, *x.shape[dim + 1 :]).long()
        valid = None
        if ignore is not None:
            valid = index != ignore
            index = index.masked_fill(~valid, 0)
        if index.device.type == "cpu" and index.numel():  # elsewhere a look would wait for the device, which checks too
            low, high = map(int, index.aminmax())
            if low < 0 or high >= x.shape[dim]:
                wrong = low if low < 0 else high
                self.fail(f"a label of {wrong}: expected 0 to {x.shape[dim] - 1}, or an ignore_label that says so")
        return index, valid


class _Loss(Labelled):
    """A scalar that is part of the net's loss; x ``(N, ...)`` and labels ``(N, ...)``."""

    category = "loss"
    bottom_roles: ClassVar[tuple[str, ...]] = ("data", "labels")
    bottoms = (2, 2)
    is_loss = True

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        self.check(shapes)
        return [()]

    def check(self, shapes: Sequence[Shape]) -> None:
        """Refuses bottoms that do not fit together, when the net is built and when it runs."""
        if not shapes[0] or shapes[0][:1] != shapes[1][:1]:
            self.fail(f"bottoms {tuple(shapes[0])} and {tuple(shapes[1])}: expected first axes of one size")

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        self.check([x.shape for x in bottoms])
        return self.loss(*bottoms)

    def loss(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        raise NotImplementedError

    def lisa_lacks(self, param: Any, *names: str) -> None:
        """Refuses fields that lisa-caffe's messages do not have."""
        for field, _ in param.ListFields():
            if self.net.flavour == "lisa" and field.name in names:
                self.fail(f"lisa-caffe's {self.param.type} has no {field.name}")

    def check_two_tops(self) -> None:
        """Refuses a second top without the loss_weight that Caffe wants of it (LossLayer::LayerSetUp)."""
        if len(self.param.top) == 2 and len(self.param.loss_weight) != 2:
            self.fail("with two tops needs two loss_weights")

    @property
    def ignore(self) -> int | None:
        p = self.param.loss_param
        return p.ignore_label if p.HasField("ignore_label") else None

    def normalization(self, default: int) -> int:
        """Which of ``LossParameter``'s modes the loss is divided by; ``normalize`` is what it was before."""
        p = self.param.loss_param
        if p.HasField("normalization"):
            return p.normalization
        if p.HasField("normalize"):
            return p.VALID if p.normalize else p.BATCH_SIZE
        return default

    def normalizer(self, mode: int, outer: int, positions: int, valid: Tensor | None) -> float | Tensor:
        """What the loss is divided by: at least 1, but in lisa-caffe, where a batch of ignored labels gives NaN."""
        p = self.param.loss_param
        if mode == p.VALID and valid is not None:
            count = valid.sum()
            return count if self.net.flavour == "lisa" else count.clamp(min=1)
        return float(max(1, {p.BATCH_SIZE: outer, p.NONE: 1}.get(mode, positions)))

    @staticmethod
    def summary(param: Any) -> str:
        return f"weight {param.loss_weight[0]:g}" if len(param.loss_weight) else ""


class SoftmaxWithLoss(_Loss):
    """Σ -log softmax(x)_label / normalizer, with p - onehot(label) for a gradient (softmax_loss_layer.cpp).

    x ``(N, ..., C, ...)`` with C at ``softmax_param.axis``, a label for each of the other axes' indices. A second top
    has the probabilities, without gradient.
    """

    caffe_source = "softmax_loss_layer.cpp"
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

    def operations(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        return 5 * prod(bottoms[0])


class _SoftmaxLoss(torch.autograd.Function):
    """The loss, of the most nets, and the probabilities (without gradient), which are computed once and kept."""

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


class InfogainLoss(_Loss):
    """Σ_c -H_label,c log p_c / normalizer (infogain_loss_layer.cpp).

    H ``(C, C)`` is the third bottom or in the file ``source``. p = softmax(x) along ``infogain_loss_param.axis``, and
    the second top, if there is one. In lisa-caffe x is p itself, ``(N, ...)`` of C values an item; the normalizer is N.
    """

    caffe_source = "infogain_loss_layer.cpp"
    limits = "the matrix is a third bottom or a file"
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
            self.fail("loss_param.normalize is not for InfogainLoss: expected normalization")
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
        """H from a ``BlobProto`` file, found from here or from where the prototxt is."""
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
        p = self.param.loss_param
        mode = p.normalization
        normalizer = self.normalizer(mode, prod(x.shape[: self.dim]), index.numel(), valid)
        loss, probs = _InfogainLoss.apply(x, rows, valid, self.dim, normalizer)
        return (loss, probs) if len(self.param.top) == 2 else loss

    def operations(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        return 7 * prod(bottoms[0])


class _InfogainLoss(torch.autograd.Function):
    """The loss and the probabilities (without gradient), from logits and the row of H for every position."""

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


class MultinomialLogisticLoss(_Loss):
    """Σ -log max(p_label, 1e-20) / N (multinomial_logistic_loss_layer.cpp).

    Probabilities p ``(N, ...)`` of C values an item, labels ``(N,)``.
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
    """log max(p, threshold), with the gradient 1 / max(p, threshold) below the threshold too."""

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


class SigmoidCrossEntropyLoss(_Loss):
    """Σ -t log σ(x) - (1 - t) log(1 - σ(x)) / normalizer, by default N (sigmoid_cross_entropy_loss_layer.cpp).

    x ``(N, ...)``, targets t from 0 to 1 as many. The gradient, σ(x) - t, goes to x only.
    """

    caffe_source = "sigmoid_cross_entropy_loss_layer.cpp"

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        self.lisa_lacks(self.param.loss_param, "ignore_label", "normalize", "normalization")
        self.mode = self.normalization(self.param.loss_param.BATCH_SIZE)
        return super().setup(shapes)

    def check(self, shapes: Sequence[Shape]) -> None:
        super().check(shapes)
        if prod(shapes[0]) != prod(shapes[1]):
            self.fail(f"logits {tuple(shapes[0])} and targets {tuple(shapes[1])}: expected as many of both")

    def loss(self, *bottoms: Tensor) -> Tensor:
        x, t = bottoms[0], bottoms[1].detach().reshape(bottoms[0].shape)
        valid = None if self.ignore is None else t.trunc() != self.ignore
        return _SigmoidLoss.apply(x, t, valid, self.normalizer(self.mode, len(x), x.numel(), valid))

    def operations(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        return 5 * prod(bottoms[0])


class _SigmoidLoss(torch.autograd.Function):
    """max(x, 0) - t x + log(1 + exp(-abs(x))), where no large values cancel (in PyTorch's own they do)."""

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


class EuclideanLoss(_Loss):
    """Σ (a - b)² / 2N of bottoms ``(N, ...)``, with gradients to both (euclidean_loss_layer.cpp)."""

    caffe_source = "euclidean_loss_layer.cpp"
    bottom_roles = ("data",)

    def check(self, shapes: Sequence[Shape]) -> None:
        super().check(shapes)
        if prod(shapes[0]) != prod(shapes[1]):
            self.fail(f"bottoms {tuple(shapes[0])} and {tuple(shapes[1])}: expected as many values in both")

    def loss(self, *bottoms: Tensor) -> Tensor:
        a, b = bottoms
        return F.mse_loss(a, b.reshape(a.shape), reduction="sum") / (2 * len(a))

    def operations(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        return 3 * prod(bottoms[0])


class HingeLoss(_Loss):
    """Σ max(0, 1 ± x) / N, minus at the label, or of the squares with norm L2 (hinge_loss_layer.cpp).

    x ``(N, ...)`` of C values an item, labels ``(N,)``.
    """

    caffe_source = "hinge_loss_layer.cpp"

    def check(self, shapes: Sequence[Shape]) -> None:
        super().check(shapes)
        self.check_labels([(shapes[0][0], prod(shapes[0][1:])), shapes[1]], 1)

    def loss(self, *bottoms: Tensor) -> Tensor:
        p, x = self.param.hinge_loss_param, bottoms[0].unsqueeze(1).flatten(1)
        index, _ = self.read_labels(bottoms[1], x, 1)
        margins = F.relu(1 + x * torch.ones_like(x).scatter_(1, index, -1))
        return (margins.square() if p.norm == p.L2 else margins).sum() / len(x)

    def operations(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        return 3 * prod(bottoms[0])


class ContrastiveLoss(_Loss):
    """Σ d² / 2N over similar pairs, Σ max(margin - d, 0)² / 2N over the others (contrastive_loss_layer.cpp).

    d is the distance of a and b, ``(N, C)`` each; the third bottom ``(N,)`` is not 0 for similar pairs. In the
    ``legacy_version``, the only one that lisa-caffe has, others have max(margin - d², 0).
    """

    caffe_source = "contrastive_loss_layer.cpp"
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

    def operations(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        return 3 * prod(bottoms[0])


class _ContrastiveLoss(torch.autograd.Function):
    """As above; the gradient of d divides by d + 1e-4."""

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
