"""Layers that multiply by a matrix or select its rows."""

from __future__ import annotations

from math import prod
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from seqclf.caffe.layers.base import Layer, Shape


class InnerProduct(Layer):
    """``y = W x + b``, where x are the K values of the axes from ``axis`` on (inner_product_layer.cpp).

    Shapes: ``(..., *sizes)`` to ``(..., O)``. Blobs: W ``(O, K)``, or ``(K, O)`` with ``transpose``; with ``bias_term``
    also b ``(O,)``.
    """

    category = "product"
    caffe_source = "inner_product_layer.cpp"

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        p = self.param.inner_product_param
        if p.num_output < 1:
            self.fail(f"num_output is {p.num_output}, expected 1 or more")
        self.axis = self.canonical_axis(p.axis, len(shapes[0]))
        self.inputs = prod(shapes[0][self.axis :])
        self.add_blob((self.inputs, p.num_output) if p.transpose else (p.num_output, self.inputs), p.weight_filler)
        if p.bias_term:
            self.add_blob((p.num_output,), p.bias_filler)
        return [(*shapes[0][: self.axis], p.num_output)]

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        if x.dim() <= self.axis or prod(x.shape[self.axis :]) != self.inputs:
            self.fail(f"a bottom of shape {tuple(x.shape)}, expected {self.inputs} values from axis {self.axis} on")
        weight = self.blobs[0].t() if self.param.inner_product_param.transpose else self.blobs[0]
        return F.linear(x.flatten(self.axis), weight, self.blobs[1] if len(self.blobs) > 1 else None)

    def operations(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        return 2 * self.inputs * prod(tops[0])

    @staticmethod
    def summary(param: Any) -> str:
        return str(param.inner_product_param.num_output)


class Embed(Layer):
    """``y = W[x] + b`` for integers x: ``(...)`` to ``(..., O)`` (embed_layer.cpp).

    Blobs: W ``(input_dim, O)``; with ``bias_term`` also b ``(O,)``.
    """

    category = "product"
    caffe_source = "embed_layer.cpp"
    bottom_roles = ("labels",)
    limits = "an index out of range is an error"

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        p = self.param.embed_param
        if p.num_output < 1 or p.input_dim < 1:
            self.fail(f"num_output is {p.num_output} and input_dim {p.input_dim}, expected 1 or more each")
        self.add_blob((p.input_dim, p.num_output), p.weight_filler)
        if p.bias_term:
            self.add_blob((p.num_output,), p.bias_filler)
        return [(*shapes[0], p.num_output)]

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        rows, index = len(self.blobs[0]), x.detach().long()
        wrong = (index != x) | (index < 0) | (index >= rows)
        if bool(wrong.any()):
            self.fail(f"its bottom contains {x[wrong][0].item():g}, expected integers from 0 to {rows - 1}")
        y = F.embedding(index, self.blobs[0])
        return y + self.blobs[1] if len(self.blobs) > 1 else y

    @staticmethod
    def summary(param: Any) -> str:
        return f"{param.embed_param.input_dim} → {param.embed_param.num_output}"
