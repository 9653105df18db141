"""Layers that combine values: sums, maxima, softmax, selections of items; and a layer that is only a parameter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqclf.caffe.formats.schema import schema
from seqclf.caffe.layers.base import Layer, Shape


class ArgMax(Layer):
    """The indices of the ``top_k`` largest values; of equal values, the higher index comes first (argmax_layer.cpp).

    With ``axis``, the top has the indices along that axis, or the values with ``out_max_val``. Without ``axis``, the
    indices count all values of an item, and the top is ``(N, 1, top_k)``, or ``(N, 2, top_k)`` with indices and values,
    followed by axes of size 1 up to the number of axes of the bottom (in lisa-caffe up to 4). There is no gradient.
    """

    category = "combination"
    caffe_source = "argmax_layer.cpp"
    per_value = 1
    limits = "of equal values, the higher index comes first"

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        p, shape = self.param.argmax_param, shapes[0]
        self.k, self.values = p.top_k, p.out_max_val
        lisa = self.net.flavour == "lisa"
        given = "axis" in {field.name for field, _ in p.ListFields()}
        if lisa and given:
            self.fail("lisa-caffe's ArgMax has no axis")
        self.dim = self.canonical_axis(p.axis, len(shape)) if given else None
        self.canonical_axis(0, len(shape))
        choices = prod(shape[1:]) if self.dim is None else shape[self.dim]
        if not 1 <= self.k <= choices:
            self.fail(f"top_k {self.k} of {choices} values: expected 1 to {choices}")
        self.ones = (1,) * (1 if lisa else max(len(shape) - 3, 0))
        if self.dim is None:
            return [(shape[0], 2 if self.values else 1, self.k, *self.ones)]
        return [(*shape[: self.dim], self.k, *shape[self.dim + 1 :])]

    def forward(self, *bottoms: Tensor) -> Tensor:
        x = bottoms[0].detach()
        if self.dim is not None:
            values, indices = self.greatest(x, self.dim)
            return values if self.values else indices.to(x.dtype)
        values, indices = self.greatest(x.unsqueeze(1).flatten(1), 1)
        parts = [indices.to(x.dtype), values] if self.values else [indices.to(x.dtype)]
        return torch.stack(parts, 1).reshape(len(x), len(parts), self.k, *self.ones)

    def greatest(self, x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
        if self.k == 1:
            values, indices = x.flip(dim).max(dim, keepdim=True)  # the first maximum of the flipped x is the last of x
            return values, x.shape[dim] - 1 - indices
        values, indices = x.sort(stable=True, dim=dim)
        start = x.shape[dim] - self.k
        return values.narrow(dim, start, self.k).flip(dim), indices.narrow(dim, start, self.k).flip(dim)


class BatchReindex(Layer):
    """``y[i] = x[index[i]]`` with x ``(N, ...)`` and index ``(M,)`` from 0 to N - 1 (batch_reindex_layer.cpp)."""

    category = "shape"
    caffe_source = "batch_reindex_layer.cpp"
    bottom_roles = ("data", "labels")
    in_lisa = False
    limits = "an index out of range is an error (on a CPU)"
    bottoms = (2, 2)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        x, index = shapes
        self.canonical_axis(0, len(x))
        if len(index) != 1:
            self.fail(f"indices of shape {index}: expected one axis")
        return [(*index, *x[1:])]

    def forward(self, *bottoms: Tensor) -> Tensor:
        x, index = bottoms
        if index.device.type == "cpu" and index.numel():  # a GPU would have to synchronize
            low, high = map(float, index.detach().aminmax())
            if low < 0 or high >= len(x):
                self.fail(f"indices from {low:g} to {high:g}: expected 0 to {len(x) - 1}")
        return x.index_select(0, index.long())


class Eltwise(Layer):
    """The weighted sum, the product or the maximum of bottoms of one shape (eltwise_layer.cpp).

    If values are equal, the gradient of the maximum goes to the second bottom before the first, and to these two before
    later ones. In lisa-caffe the last bottom of a sum can hold coefficients (``coeff_blob``): one per other bottom, or
    one per bottom and index of the leading axes. Coefficients get no gradient.
    """

    category = "combination"
    caffe_source = "eltwise_layer.cpp"
    limits = "PROD, SUM and MAX"
    bottoms = (2, None)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        p = self.param.eltwise_param
        self.coeff_blob = self.net.flavour == "lisa" and p.coeff_blob
        if p.operation != p.SUM and (p.coeff or self.coeff_blob):
            self.fail("coefficients are for the operation SUM only")
        terms = len(shapes) - self.coeff_blob
        if len(p.coeff) not in (0, terms):
            self.fail(f"{len(p.coeff)} coefficients for {terms} bottoms")
        self.check(shapes)
        return shapes[:1]

    def check(self, shapes: Sequence[Shape]) -> None:
        terms = shapes[: len(shapes) - self.coeff_blob]
        if any(shape != terms[0] for shape in terms):
            self.fail(f"bottoms of shapes {', '.join(map(str, map(tuple, terms)))}: expected one shape")
        if self.coeff_blob:
            coeff = shapes[-1]
            if coeff[:1] != (len(terms),) or len(coeff) > len(terms[0]) + 1 or coeff[1:] != terms[0][: len(coeff) - 1]:
                leading = f"({len(terms)}, ...) and leading axes of {tuple(terms[0])}"
                self.fail(f"coefficients of shape {tuple(coeff)}: expected {leading}")

    def forward(self, *bottoms: Tensor) -> Tensor:
        self.check([x.shape for x in bottoms])
        p = self.param.eltwise_param
        if p.operation == p.SUM:
            return self.sum(bottoms)
        if p.operation == p.MAX:
            y = torch.where(bottoms[0] > bottoms[1], bottoms[0], bottoms[1])
            for x in bottoms[2:]:
                y = torch.where(x > y, x, y)
            return y
        return reduce(torch.mul, bottoms) if p.stable_prod_grad else _Product.apply(*bottoms)

    def sum(self, bottoms: Sequence[Tensor]) -> Tensor:
        coeffs = list(self.param.eltwise_param.coeff) or [1] * len(bottoms)
        if self.coeff_blob:
            *bottoms, blob = bottoms
            blob = blob.detach().reshape(*blob.shape, *[1] * (bottoms[0].dim() + 1 - blob.dim()))
            bottoms = [x * c for x, c in zip(bottoms, blob, strict=True)]
        y = bottoms[0] if coeffs[0] == 1 else bottoms[0] * coeffs[0]
        for x, c in zip(bottoms[1:], coeffs[1:], strict=False):
            y = torch.add(y, x, alpha=c)
        return y

    def operations(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        terms = len(bottoms) - self.coeff_blob
        weighted = bool(self.param.eltwise_param.coeff) or self.coeff_blob
        return (2 * terms if weighted else terms - 1) * prod(tops[0])

    @staticmethod
    def summary(param: Any) -> str:
        p = param.eltwise_param
        return str(p.EltwiseOp.Name(p.operation).lower())


class _Product(torch.autograd.Function):
    """The product with the gradients ``y / x_i``, as in Caffe without stable_prod_grad: NaN at 0."""

    @staticmethod
    def forward(ctx: Any, *xs: Tensor) -> Tensor:
        y = reduce(torch.mul, xs)
        ctx.save_for_backward(y, *xs)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        y, *xs = ctx.saved_tensors
        return tuple(y / x * g if needed else None for x, needed in zip(xs, ctx.needs_input_grad, strict=True))


class Filter(Layer):
    """Selects the items for which the last bottom, the selector ``(N, 1, ...)``, is not 0 (filter_layer.cpp).

    The number of selected items is known only when the layer runs; ``top_shapes`` assumes all N.
    """

    category = "shape"
    caffe_source = "filter_layer.cpp"
    in_lisa = False
    limits = "the number of items is known only when it runs"
    bottoms = (2, None)
    tops = (1, None)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        if len(self.param.top) != len(shapes) - 1:
            self.fail(f"{len(self.param.top)} tops for {len(shapes)} bottoms: expected {len(shapes) - 1}")
        self.check(shapes)
        return shapes[:-1]

    def check(self, shapes: Sequence[Shape]) -> None:
        *items, selector = shapes
        if not selector or prod(selector[1:]) != 1:
            self.fail(f"a selector of shape {tuple(selector)}: expected (N, 1, ...)")
        for shape in items:
            if shape[:1] != selector[:1]:
                self.fail(f"a bottom of shape {tuple(shape)}: expected as many items as the selector's {selector[0]}")

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        self.check([x.shape for x in bottoms])
        chosen = bottoms[-1].detach().reshape(-1).nonzero()[:, 0]
        return tuple(x.index_select(0, chosen) for x in bottoms[:-1])


class Parameter(Layer):
    """A parameter, initialized with 0, as a top (parameter_layer.hpp)."""

    category = "data"
    caffe_source = "parameter_layer.hpp"
    in_lisa = False
    bottoms = (0, 0)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        shape = tuple(int(dim) for dim in self.param.parameter_param.shape.dim)
        self.add_blob(shape, schema(self.net.flavour).FillerParameter())  # type: ignore[attr-defined]
        return [shape]

    def forward(self, *bottoms: Tensor) -> Tensor:
        return self.blobs[0]


class Reduction(Layer):
    """``coeff`` times the sum, mean, L1 norm or sum of squares over the axes from ``axis`` on (reduction_layer.cpp)."""

    category = "combination"
    caffe_source = "reduction_layer.cpp"
    per_value = 1
    in_lisa = False

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        self.start = self.canonical_axis(self.param.reduction_param.axis, len(shapes[0]))
        return [shapes[0][: self.start]]

    def forward(self, *bottoms: Tensor) -> Tensor:
        p, x = self.param.reduction_param, bottoms[0].flatten(self.start)
        if p.operation == p.ASUM:
            x = x.abs()
        elif p.operation == p.SUMSQ:
            x = x.square()
        y = x.mean(-1) if p.operation == p.MEAN else x.sum(-1)
        return y if p.coeff == 1 else y * p.coeff

    @staticmethod
    def summary(param: Any) -> str:
        p = param.reduction_param
        return str(p.ReductionOp.Name(p.operation).lower())


class Softmax(Layer):
    """``y = exp(x) / sum(exp(x))`` along ``axis`` (softmax_layer.cpp)."""

    category = "combination"
    caffe_source = "softmax_layer.cpp"
    per_value = 5

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        self.dim = self.canonical_axis(self.param.softmax_param.axis, len(shapes[0]))
        return shapes

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0].softmax(self.dim)
