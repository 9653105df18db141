"""Base class of layers that read labels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from torch import Tensor

from seqclf.caffe.layers.base import Layer, Shape


class Labelled(Layer):
    """A layer with one label for every position of the logits, that is for every index of all axes but the classes'.

    Labels are floats that hold whole numbers, as in Caffe.
    """

    def check_labels(self, shapes: Sequence[Shape], dim: int) -> None:
        """Raises an error unless there is one label per position of the logits; ``dim`` is the axis of the classes."""
        x, labels = shapes[:2]
        if prod(labels) != prod(x[:dim]) * prod(x[dim + 1 :]):
            self.fail(
                f"labels {tuple(labels)} for logits {tuple(x)} with the classes at axis {dim}: "
                f"expected {prod(x[:dim])} * {prod(x[dim + 1 :])} labels"
            )

    def read_labels(
        self, labels: Tensor, x: Tensor, dim: int, ignore: int | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Returns labels as indices of axis ``dim`` of x, and where they count.

        Returns:
            index: int64, 0 where ignored; the shape of x, but 1 at axis ``dim``.
            valid: bool, of the same shape; None if no label is ignored.
        """
        index = labels.detach().reshape(*x.shape[:dim], 1, *x.shape[dim + 1 :]).long()
        valid = None
        if ignore is not None:
            valid = index != ignore
            index = index.masked_fill(~valid, 0)
        if index.device.type == "cpu" and index.numel():  # a GPU would have to synchronize; its kernels check, too
            low, high = map(int, index.aminmax())
            if low < 0 or high >= x.shape[dim]:
                wrong = low if low < 0 else high
                self.fail(f"a label of {wrong}: expected 0 to {x.shape[dim] - 1}, or an ignore_label of {wrong}")
        return index, valid
