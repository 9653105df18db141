"""Layers that reduce each window of an image to one value."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from seqclf.caffe.layers.base import Layer, Shape
from seqclf.caffe.layers.window import window_summary

Pair: TypeAlias = tuple[int, int]

MAX, AVE, STOCHASTIC = 0, 1, 2
"""The values of ``PoolMethod`` in both messages."""

FLOAT = torch.finfo(torch.float32)


class Window(NamedTuple):
    """A window that moves over images; settings are (height, width).

    It has ``(size + 2 pad - kernel) / stride + 1`` positions, rounded up, or down with ``down``. If there is padding, a
    last position that would begin beyond it is dropped. Without padding, it is kept and empty.
    """

    kernel: Pair
    stride: Pair
    pad: Pair
    down: bool = False

    def places(self, size: Pair) -> Pair:
        """The number of positions on an image (PoolingLayer::Reshape)."""
        counts = []
        for n, k, s, p in zip(size, self.kernel, self.stride, self.pad, strict=True):
            room = n + 2 * p - k
            count = (room // s if self.down else -(-room // s)) + 1
            counts.append(count - 1 if any(self.pad) and (count - 1) * s >= n + p else count)
        return counts[0], counts[1]

    def suits_pytorch(self, size: Pair) -> bool:
        """Whether PyTorch's pooling supports it: padding up to half the kernel, and no empty window."""
        axes = zip(size, self.places(size), self.kernel, self.stride, self.pad, strict=True)
        return all(2 * p <= k and (count - 1) * s < n + p for n, count, k, s, p in axes)

    def fit(self, x: Tensor, value: float) -> Tensor:
        """Pads x with ``value``, or crops it, to the area that all positions cover."""
        size = (x.shape[2], x.shape[3])
        ends: list[int] = []
        for n, count, k, s, p in zip(size, self.places(size), self.kernel, self.stride, self.pad, strict=True):
            ends = [p, (count - 1) * s + k - p - n, *ends]  # F.pad takes the last axis first
        return F.pad(x, ends, value=value)


def max_pool(x: Tensor, window: Window) -> tuple[Tensor, Tensor]:
    """Returns the largest value of each window, and its position row * W + column.

    The first of equal values gets the gradient. An empty window gives -FLT_MAX and -1.
    """
    height, width = x.shape[2:]
    if window.suits_pytorch((height, width)):
        k, s, p, down = window
        return F.max_pool2d(x, k, s, p, ceil_mode=not down, return_indices=True)
    fitted = window.fit(x, max(FLOAT.min, torch.finfo(x.dtype).min))
    y, index = F.max_pool2d(fitted, window.kernel, window.stride, return_indices=True)
    row, column = index // fitted.shape[3] - window.pad[0], index % fitted.shape[3] - window.pad[1]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    return y, torch.where(inside, row * width + column, -1)


def average_pool(x: Tensor, window: Window) -> Tensor:
    """Returns the mean of each window. Padding counts as zeros, positions beyond it do not count.

    An empty window gives 0 divided by its area, which is 0 (so NaN) or negative.
    """
    height, width = x.shape[2:]
    k, s, p, down = window
    if window.suits_pytorch((height, width)):
        return F.avg_pool2d(x, k, s, p, ceil_mode=not down)
    total = F.avg_pool2d(window.fit(x, 0), k, s, divisor_override=1)
    rows, columns = (torch.arange(count, device=x.device) for count in total.shape[2:])
    rows = (height + 2 * p[0] - s[0] * rows).clamp(max=k[0])
    columns = (width + 2 * p[1] - s[1] * columns).clamp(max=k[1])
    return total / (rows[:, None] * columns)


def stochastic_pool(x: Tensor, window: Window, training: bool) -> Tensor:
    """Returns a value of each window, drawn with a probability proportional to it; in testing, the expectation.

    For values that are not negative, without padding (Zeiler and Fergus 2013; in Caffe only in pooling_layer.cu).
    """
    (kh, kw), (sh, sw), _, _ = window
    values = window.fit(x, 0).unfold(2, kh, sh).unfold(3, kw, sw).flatten(4)
    if not training:
        return (values * values).sum(-1) / (values.sum(-1) + FLOAT.tiny)
    upto = values.detach().cumsum(-1)
    drawn = (1 - torch.rand_like(upto[..., 0])) * upto[..., -1]  # above 0, up to the sum
    first = (upto >= drawn[..., None]).to(torch.uint8).argmax(-1, keepdim=True)
    return values.gather(-1, first)[..., 0]


class _Pool(Layer):
    """Base class of both layers. ``method``: MAX, AVE or STOCHASTIC."""

    category = "pooling"
    method: int

    def pool(self, x: Tensor, window: Window) -> Tensor:
        if self.method == MAX:
            return max_pool(x, window)[0]
        return average_pool(x, window) if self.method == AVE else stochastic_pool(x, window, self.training)

    def check_bottom(self, shape: Shape) -> None:
        if len(shape) != 4 or 0 in shape[1:]:
            self.fail(f"a bottom of shape {shape}, expected 4 axes (N, C, H, W)")

    def check_window(self, window: Window, shape: Shape) -> Pair:
        """Checks the window and returns its number of positions on a bottom of this shape."""
        if 0 in window.kernel or 0 in window.stride:
            self.fail(f"kernel {window.kernel} and stride {window.stride}, expected 1 or more")
        if any(p >= k for p, k in zip(window.pad, window.kernel, strict=True)):
            self.fail(f"pad {window.pad} with kernel {window.kernel}, expected a pad smaller than the kernel")
        if self.method == STOCHASTIC and any(window.pad):
            self.fail(f"pad {window.pad} with STOCHASTIC pooling, which takes none")
        places = window.places((shape[2], shape[3]))
        if min(places) < 1:
            self.fail(f"kernel {window.kernel} with pad {window.pad} is too large for a bottom of shape {shape}")
        if self.method == STOCHASTIC:
            self.check_memory(prod((*shape[:2], *places, *window.kernel)), "its windows")
        elif not window.suits_pytorch((shape[2], shape[3])):
            axes = zip(places, window.kernel, window.stride, strict=True)
            self.check_memory(prod((*shape[:2], *((n - 1) * s + k for n, k, s in axes))), "its bottom with padding")
        return places


class Pooling(_Pool):
    """``(N, C, H, W)`` to ``(N, C, h, w)``: MAX, AVE or STOCHASTIC of each window (pooling_layer.cpp).

    With MAX, a second top holds each value's position, row * W + column (-1: none), as floats. ``round_mode: FLOOR``,
    or ``ceil_mode: false`` of other forks, rounds the output size down.
    """

    caffe_source = "pooling_layer.cpp"
    limits = "MAX, AVE and STOCHASTIC; stochastic values differ from Caffe's"
    tops = (1, 2)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        p = self.param.pooling_param
        self.method = p.pool
        if len(self.param.top) > 1 and p.pool != MAX:
            self.fail(f"has 2 tops, expected 1: only MAX pooling has a mask, not {p.PoolMethod.Name(p.pool)}")
        if p.global_pooling and any(p.HasField(name) for name in ("kernel_size", "kernel_h", "kernel_w")):
            self.fail("global_pooling is with a kernel size, expected one or the other")
        self.kernel = None if p.global_pooling else self._pair("kernel", "kernel_size")
        self.stride, self.pad = self._pair("stride", "stride"), self._pair("pad", "pad")
        if p.global_pooling and (self.stride, self.pad) != ((1, 1), (0, 0)):
            self.fail(f"global_pooling is with stride {self.stride} and pad {self.pad}, expected 1 and 0")
        self.check_bottom(shapes[0])
        top = (*shapes[0][:2], *self.check_window(self._window(shapes[0]), shapes[0]))
        return [top] * len(self.param.top)

    def _pair(self, name: str, field: str) -> Pair:
        """Reads a setting for height and width: ``field`` for both, or ``name``_h and ``name``_w."""
        p = self.param.pooling_param
        h, w = p.HasField(f"{name}_h"), p.HasField(f"{name}_w")
        if h != w or (h and p.HasField(field)) or (name == "kernel" and not h and not p.HasField(field)):
            self.fail(f"expected either {field}, or both {name}_h and {name}_w")
        return (getattr(p, f"{name}_h"), getattr(p, f"{name}_w")) if h else (getattr(p, field),) * 2

    def _window(self, shape: Shape) -> Window:
        down = self.param.pooling_param.round_mode == self.param.pooling_param.FLOOR
        return Window(self.kernel or (shape[2], shape[3]), self.stride, self.pad, down)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:  # type: ignore[override]
        shape = tuple(x.shape)
        self.check_bottom(shape)
        window = self._window(shape)
        self.check_window(window, shape)
        if len(self.param.top) == 1:
            return self.pool(x, window)
        y, index = max_pool(x, window)
        return y, index.to(x.dtype)

    def operations(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        return prod(self.kernel or bottoms[0][2:]) * prod(tops[0])

    @staticmethod
    def summary(param: Any) -> str:
        p = param.pooling_param
        return f"{p.PoolMethod.Name(p.pool).lower()} " + ("global" if p.global_pooling else window_summary(p))


class SPP(_Pool):
    """Spatial pyramid pooling, ``(N, C, H, W)`` to ``(N, F)`` (spp_layer.cpp).

    Level i divides the image into 2^i times 2^i windows without overlap. The levels are flattened and concatenated, so
    F is C times the number of windows. A pyramid of one level stays ``(N, C, 1, 1)``.
    """

    caffe_source = "spp_layer.cpp"
    in_lisa = False

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        if self.net.flavour == "lisa":
            self.fail("lisa-caffe has no such layer")
        self.method = self.param.spp_param.pool
        if self.param.spp_param.pyramid_height < 1:
            self.fail("pyramid_height is 0, expected 1 or more")
        levels = self._levels(shapes[0])
        N, C, H, W = shapes[0]
        places = [window.places((H, W)) for window in levels]
        return [(N, C, *places[0]) if len(places) == 1 else (N, C * sum(h * w for h, w in places))]

    def _levels(self, shape: Shape) -> list[Window]:
        """Returns the window of each level for a bottom of this shape."""
        self.check_bottom(shape)
        levels: list[Window] = []
        for level in range(self.param.spp_param.pyramid_height):
            bins = 2**level
            kernel = (-(-shape[2] // bins), -(-shape[3] // bins))
            pad = ((kernel[0] * bins - shape[2] + 1) // 2, (kernel[1] * bins - shape[3] + 1) // 2)
            levels.append(Window(kernel, kernel, pad))
            self.check_window(levels[-1], shape)  # also the error for a pyramid that is too high
        return levels

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        levels = [self.pool(x, window) for window in self._levels(tuple(x.shape))]
        return levels[0] if len(levels) == 1 else torch.cat([level.flatten(1) for level in levels], 1)

    def operations(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        return int(self.param.spp_param.pyramid_height) * prod(bottoms[0])
