"""Layers that multiply by or add an operand that spans some axes of the bottom."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor

from seqclf.caffe.formats.schema import schema
from seqclf.caffe.layers.base import Layer, Shape


class _Spanning(Layer):
    """A layer with an operand that spans axes from ``axis`` on: the second bottom, or else a parameter."""

    category = "normalization"
    bottoms = (1, 2)

    def operand_shape(self, shapes: list[Shape], p: Any) -> Shape:
        """Returns the shape of the second bottom, or of ``num_axes`` axes of the first (-1: all from ``axis`` on)."""
        if len(shapes) == 2:
            self.axes_after(shapes[0], shapes[1], p.axis)
            return shapes[1]
        axis = self.canonical_axis(p.axis, len(shapes[0]))
        if p.num_axes < -1 or axis + p.num_axes > len(shapes[0]):
            self.fail(f"num_axes is {p.num_axes}, from axis {axis} of a bottom of shape {shapes[0]}")
        return shapes[0][axis:] if p.num_axes == -1 else shapes[0][axis : axis + p.num_axes]

    def axes_after(self, shape: Shape, operand: Shape, axis: int) -> int:
        """Returns the number of axes of a bottom after those that the operand spans."""
        first = self.canonical_axis(axis, len(shape)) if operand else 0
        if shape[first : first + len(operand)] != operand:
            self.fail(f"an operand of shape {operand} does not fit a bottom of shape {shape} from axis {first} on")
        return len(shape) - first - len(operand)

    def spread(self, operand: Tensor, x: Tensor, axis: int) -> Tensor:
        """Returns the operand with axes of size 1 appended so that it broadcasts with x."""
        after = self.axes_after(tuple(x.shape), tuple(operand.shape), axis)
        return operand.reshape(*operand.shape, *(1,) * after)


class Scale(_Spanning):
    """``y = a * x``, or ``y = a * x + b`` with ``bias_term``; a and b span the same axes (scale_layer.cpp).

    Blobs: a, unless it is the second bottom; b.
    """

    caffe_source = "scale_layer.cpp"
    in_lisa = False
    limits = "learned, or a second bottom"

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        p = self.param.scale_param
        shape = self.operand_shape(shapes, p)
        if len(shapes) == 1:
            ones = schema(self.net.flavour).FillerParameter(type="constant", value=1)
            self.add_blob(shape, p.filler if p.HasField("filler") else ones)
        if p.bias_term:
            self.add_blob(shape, p.bias_filler)
        return [shapes[0]]

    def forward(self, x: Tensor, operand: Tensor | None = None) -> Tensor:  # type: ignore[override]
        p = self.param.scale_param
        factor = self.spread(self.blobs[0] if operand is None else operand, x, p.axis)
        return torch.addcmul(self.spread(self.blobs[-1], x, p.axis), x, factor) if p.bias_term else x * factor

    def operations(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        return (2 if self.param.scale_param.bias_term else 1) * prod(bottoms[0])


class Bias(_Spanning):
    """``y = x + b`` (bias_layer.cpp). Blobs: b, unless it is the second bottom."""

    caffe_source = "bias_layer.cpp"
    per_value = 1
    in_lisa = False
    limits = "learned, or a second bottom"

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        shape = self.operand_shape(shapes, self.param.bias_param)
        if len(shapes) == 1:
            self.add_blob(shape, self.param.bias_param.filler)
        return [shapes[0]]

    def forward(self, x: Tensor, operand: Tensor | None = None) -> Tensor:  # type: ignore[override]
        return x + self.spread(self.blobs[0] if operand is None else operand, x, self.param.bias_param.axis)
