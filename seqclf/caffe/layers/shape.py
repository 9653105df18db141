"""Layers that rearrange values: reshape, concatenate, slice, crop, repeat."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import torch
from torch import Tensor

from seqclf.caffe.layers.base import Layer, Shape


class _Along(Layer):
    """A layer with an axis that nets of 2014 specify in an older, unsigned field."""

    def axis(self, param: Any, old: str, axes: int) -> int:
        if not param.HasField(old):
            return self.canonical_axis(param.axis, axes)
        if param.HasField("axis"):
            self.fail(f"sets both axis and {old}, expected one of them")
        return self.canonical_axis(getattr(param, old), axes, old)


class Concat(_Along):
    """Concatenates the bottoms along ``axis``; their other axes must agree (concat_layer.cpp)."""

    category = "shape"
    caffe_source = "concat_layer.cpp"
    bottoms = (1, None)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        self.dim = self.axis(self.param.concat_param, "concat_dim", len(shapes[0]))
        self.check(shapes)
        joined = sum(shape[self.dim] for shape in shapes)
        return [(*shapes[0][: self.dim], joined, *shapes[0][self.dim + 1 :])]

    def check(self, shapes: Sequence[Shape]) -> None:
        d = self.dim
        kept = [(*shape[:d], *shape[d + 1 :]) for shape in shapes]
        if any(len(a) != len(shapes[0]) or b != kept[0] for a, b in zip(shapes, kept, strict=True)):
            self.fail(f"bottoms of shapes {', '.join(map(str, map(tuple, shapes)))}: all but axis {d} must agree")

    def forward(self, *bottoms: Tensor) -> Tensor:
        if len(bottoms) == 1:
            return bottoms[0]
        self.check([x.shape for x in bottoms])
        return torch.cat(bottoms, self.dim)

    @staticmethod
    def summary(param: Any) -> str:
        return f"axis {param.concat_param.axis}"


class Slice(_Along):
    """Splits the bottom along ``axis`` at the ``slice_point``s, or into equal parts (slice_layer.cpp)."""

    category = "shape"
    caffe_source = "slice_layer.cpp"
    tops = (1, None)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        p, parts = self.param.slice_param, len(self.param.top)
        self.dim = self.axis(p, "slice_dim", len(shapes[0]))
        self.points = list(p.slice_point)
        if self.points and len(self.points) != parts - 1:
            self.fail(f"{len(self.points)} slice_points for {parts} tops: expected {parts - 1}")
        head, tail = shapes[0][: self.dim], shapes[0][self.dim + 1 :]
        return [(*head, size, *tail) for size in self.sizes(shapes[0])]

    def sizes(self, shape: Shape) -> list[int]:
        """Returns the size of each part for a bottom of this shape."""
        parts, length = len(self.param.top), shape[self.dim]
        if self.points:
            sizes = [b - a for a, b in pairwise([0, *self.points, length])]
            if min(sizes) <= 0:
                self.fail(
                    f"slice_points {self.points} of {length}: expected increasing points above 0 and below {length}"
                )
            return sizes
        if length % parts:
            self.fail(f"axis {self.dim} of {tuple(shape)} does not divide into {parts} equal tops")
        return [length // parts] * parts

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return bottoms[0].split(self.sizes(bottoms[0].shape), self.dim)

    @staticmethod
    def summary(param: Any) -> str:
        return f"axis {param.slice_param.axis}"


class Crop(Layer):
    """Crops the first bottom to the size of the second from ``axis`` on, at the offsets (crop_layer.cpp)."""

    category = "shape"
    caffe_source = "crop_layer.cpp"
    in_lisa = False
    bottoms = (2, 2)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        p, axes = self.param.crop_param, len(shapes[0])
        self.start = self.canonical_axis(p.axis, axes)
        cropped = axes - self.start
        if len(p.offset) not in (0, 1, cropped):
            self.fail(
                f"{len(p.offset)} offsets: expected one, or one for each of the {cropped} axes from {self.start} on"
            )
        self.offsets = list(p.offset) if len(p.offset) == cropped else [*p.offset, 0][:1] * cropped
        return [(*shapes[0][: self.start], *self.sizes(*shapes))]

    def sizes(self, shape: Shape, like: Shape) -> Shape:
        """Returns the sizes of the cropped axes."""
        have, want = shape[self.start :], like[self.start : len(shape)]
        fits = len(have) == len(want) == len(self.offsets)
        if not fits or any(a - o < b for a, o, b in zip(have, self.offsets, want, strict=True)):
            self.fail(f"{tuple(like)} at offsets {self.offsets} from axis {self.start} on is not inside {tuple(shape)}")
        return want

    def forward(self, *bottoms: Tensor) -> Tensor:
        x, like = bottoms
        for i, (offset, size) in enumerate(zip(self.offsets, self.sizes(x.shape, like.shape), strict=True)):
            x = x.narrow(self.start + i, offset, size)
        return x

    @staticmethod
    def summary(param: Any) -> str:
        return f"from axis {param.crop_param.axis}"


class Flatten(Layer):
    """Flattens the axes from ``axis`` to ``end_axis`` (flatten_layer.cpp)."""

    category = "shape"
    caffe_source = "flatten_layer.cpp"
    views = True

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        p, axes = self.param.flatten_param, len(shapes[0])
        self.start = self.canonical_axis(p.axis, axes)
        self.end = self.canonical_axis(p.end_axis, axes, "end_axis") + 1
        if self.end < self.start:
            self.fail(f"end_axis {self.end - 1} before axis {self.start}")
        return [self.flat(shapes[0])]

    def flat(self, shape: Shape) -> Shape:
        return (*shape[: self.start], prod(shape[self.start : self.end]), *shape[self.end :])

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0].reshape(self.flat(bottoms[0].shape))


class Reshape(Layer):
    """Replaces ``num_axes`` axes from ``axis`` on by ``shape``: 0 keeps a size, -1 infers one (reshape_layer.cpp).

    A negative ``axis`` counts the positions between axes: -1 is after the last axis. lisa-caffe supports only literal
    sizes for the whole shape.
    """

    category = "shape"
    caffe_source = "reshape_layer.cpp"
    views = True

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        p = self.param.reshape_param
        self.dims = [int(dim) for dim in p.shape.dim]
        if min(self.dims, default=0) < -1 or self.dims.count(-1) > 1:
            self.fail(f"shape {self.dims}: expected sizes, 0 to keep one, and -1 at most once to infer one")
        if self.net.flavour == "lisa" and (len(p.ListFields()) > p.HasField("shape") or min(self.dims, default=0) < 1):
            self.fail("lisa-caffe's Reshape takes a shape of sizes above 0, without axis and num_axes")
        return [self.reshaped(shapes[0])]

    def reshaped(self, shape: Shape) -> Shape:
        """Returns the shape of the top for a bottom of this shape."""
        p, axes = self.param.reshape_param, len(shape)
        start = p.axis if p.axis >= 0 else axes + 1 + p.axis
        end = axes if p.num_axes == -1 else start + p.num_axes
        if not 0 <= start <= end <= axes:
            self.fail(f"axis {p.axis} and num_axes {p.num_axes} of a blob with {axes} axes")
        dims = list(self.dims)
        for i, dim in enumerate(dims):
            if dim == 0:
                if start + i >= axes:
                    self.fail(f"shape {self.dims} keeps the size of axis {start + i}, but {tuple(shape)} has none")
                dims[i] = shape[start + i]
        new = [*shape[:start], *dims, *shape[end:]]
        if -1 in dims:
            known = -prod(new)
            new[start + dims.index(-1)] = prod(shape) // known if known else 0
        if prod(new) != prod(shape):
            self.fail(f"shape {self.dims} at axis {start} does not hold the {prod(shape)} values of {tuple(shape)}")
        return tuple(new)

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0].reshape(self.reshaped(bottoms[0].shape))

    @staticmethod
    def summary(param: Any) -> str:
        return "×".join(map(str, param.reshape_param.shape.dim))


class Silence(Layer):
    """Discards its bottoms (silence_layer.cpp)."""

    category = "shape"
    caffe_source = "silence_layer.cpp"
    views = True
    bottoms = (1, None)
    tops = (0, 0)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        return []

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return ()


class Split(Layer):
    """Copies the bottom to every top; the gradients are summed (split_layer.cpp)."""

    category = "shape"
    caffe_source = "split_layer.cpp"
    views = True
    limits = "not needed in a prototxt; saved nets contain it where Caffe inserts it"
    tops = (1, None)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        return shapes * len(self.param.top)

    def forward(self, *bottoms: Tensor) -> tuple[Tensor, ...]:
        return bottoms * len(self.param.top)


class Tile(Layer):
    """Repeats the bottom ``tiles`` times along ``axis`` (tile_layer.cpp)."""

    category = "shape"
    caffe_source = "tile_layer.cpp"
    in_lisa = False

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        p, axes = self.param.tile_param, len(shapes[0])
        axis = self.canonical_axis(p.axis, axes)
        if p.tiles < 1:
            self.fail(f"tiles {p.tiles}: expected 1 or more")
        self.repeats = [p.tiles if i == axis else 1 for i in range(axes)]
        return [tuple(n * times for n, times in zip(shapes[0], self.repeats, strict=True))]

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0].repeat(self.repeats)

    @staticmethod
    def summary(param: Any) -> str:
        return f"{param.tile_param.tiles} times on axis {param.tile_param.axis}"
