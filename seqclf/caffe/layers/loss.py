"""Base class of Caffe's losses: scalars, with the gradients that Caffe computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from seqclf.caffe.layers.base import Shape
from seqclf.caffe.layers.labelled import Labelled


class Loss(Labelled):
    """A scalar loss of x ``(N, ...)`` and labels or targets ``(N, ...)``.

    A subclass implements ``loss`` and extends ``check``, which both construction and ``forward`` call.
    """

    category = "loss"
    bottom_roles: ClassVar[tuple[str, ...]] = ("data", "labels")
    bottoms = (2, 2)
    is_loss = True

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        self.check(shapes)
        return [()]

    def check(self, shapes: Sequence[Shape]) -> None:
        """Raises an error if the shapes of the bottoms do not fit together."""
        if not shapes[0] or shapes[0][:1] != shapes[1][:1]:
            self.fail(f"bottoms {tuple(shapes[0])} and {tuple(shapes[1])}: expected first axes of one size")

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        self.check([x.shape for x in bottoms])
        return self.loss(*bottoms)

    def loss(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        raise NotImplementedError

    def lisa_lacks(self, param: Any, *names: str) -> None:
        """Raises an error if a message sets fields that lisa-caffe does not have."""
        for field, _ in param.ListFields():
            if self.net.flavour == "lisa" and field.name in names:
                self.fail(f"lisa-caffe's {self.param.type} has no {field.name}")

    def check_two_tops(self) -> None:
        """Raises an error for a second top without a loss_weight, as Caffe does (LossLayer::LayerSetUp)."""
        if len(self.param.top) == 2 and len(self.param.loss_weight) != 2:
            self.fail("with two tops needs two loss_weights")

    @property
    def ignore(self) -> int | None:
        p = self.param.loss_param
        return p.ignore_label if p.HasField("ignore_label") else None

    def normalization(self, default: int) -> int:
        """Returns the ``LossParameter.NormalizationMode``; the older field ``normalize`` selects one, too."""
        p = self.param.loss_param
        if p.HasField("normalization"):
            return int(p.normalization)
        if p.HasField("normalize"):
            return int(p.VALID if p.normalize else p.BATCH_SIZE)
        return default

    def normalizer(self, mode: int, outer: int, positions: int, valid: Tensor | None) -> float | Tensor:
        """Returns the divisor of the loss.

        It is at least 1, except in lisa-caffe, where a batch without valid labels gives NaN.

        Args:
            mode: a ``LossParameter.NormalizationMode``.
            outer: the divisor of BATCH_SIZE.
            positions: the divisor of FULL, and of VALID if no label is ignored.
            valid: where labels count, or None for everywhere.
        """
        p = self.param.loss_param
        if mode == p.VALID and valid is not None:
            count = valid.sum()
            return count if self.net.flavour == "lisa" else count.clamp(min=1)
        return float(max(1, {p.BATCH_SIZE: outer, p.NONE: 1}.get(mode, positions)))

    @staticmethod
    def summary(param: Any) -> str:
        return f"weight {param.loss_weight[0]:g}" if len(param.loss_weight) else ""
