"""Layers with a window that slides over the spatial axes, which follow the channels."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from seqclf.caffe.layers.base import Layer, Shape
from seqclf.caffe.layers.window import window_summary


class _Sliding(Layer):
    """A layer with the window of a ``ConvolutionParameter``.

    Axis ``axis`` holds the channels. The axes before it are batch axes, those after it are spatial axes.
    """

    category = "convolution"

    def read_window(self, shape: Shape) -> None:
        """Sets ``kernel``, ``stride``, ``pad`` and ``dilation`` to tuples with one value per spatial axis."""
        self.axes = len(shape)
        self.axis = self.canonical_axis(self.param.convolution_param.axis, self.axes)
        self.channels = shape[self.axis]
        self.kernel = self._per_axis("kernel", [])
        self.stride = self._per_axis("stride", [1])
        self.pad = self._per_axis("pad", [0])
        self.dilation = self._per_axis("dilation", [1])
        for name, sizes in (("kernel", self.kernel), ("stride", self.stride), ("dilation", self.dilation)):
            if 0 in sizes:
                self.fail(f"{name} is {sizes}, expected 1 or more along each axis")
        self.extent = tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))
        axes = zip(shape[self.axis + 1 :], self.pad, self.extent, strict=True)
        padded = (max(n + 2 * p, extent) for n, p, extent in axes)
        self.check_memory(prod(shape[: self.axis + 1]) * prod(padded), "its padded bottom")

    def _per_axis(self, name: str, default: list[int]) -> tuple[int, ...]:
        """Reads a setting that is given once for all axes, once for each axis, or as ``_h`` and ``_w``."""
        p, spatial = self.param.convolution_param, self.axes - self.axis - 1
        field = "kernel_size" if name == "kernel" else name
        values = list(getattr(p, field))
        if name != "dilation" and (p.HasField(f"{name}_h") or p.HasField(f"{name}_w")):
            if values or spatial != 2:
                self.fail(f"{name}_h and {name}_w need 2 spatial axes (here {spatial}) and exclude {field}")
            values = [getattr(p, f"{name}_h"), getattr(p, f"{name}_w")]
        values = values or default
        if len(values) not in (1, spatial):
            self.fail(
                f"{field} is given {len(values)} times, expected once, or once for each of {spatial} spatial axes"
            )
        return tuple(values * spatial if len(values) == 1 else values)

    def top_shape(self, shape: Shape, channels: int) -> Shape:
        """Returns the shape of the top for a bottom of this shape."""
        if len(shape) != self.axes or shape[self.axis] != self.channels or 0 in shape[self.axis :]:
            self.fail(
                f"a bottom of shape {shape}, expected {self.axes} axes, none of size 0 and "
                f"the channels, {self.channels}, on axis {self.axis}"
            )
        sizes = tuple(self.places(n, i) for i, n in enumerate(shape[self.axis + 1 :]))
        if any(n < 1 for n in sizes):
            self.fail(f"a bottom of shape {shape} gives a top of spatial sizes {sizes}, expected 1 or more each")
        return (*shape[: self.axis], channels, *sizes)

    def places(self, n: int, i: int) -> int:
        """Returns the number of positions of the window along spatial axis i, of size n."""
        room = n + 2 * self.pad[i] - self.extent[i]
        return (
            int(room / self.stride[i]) + 1
        )  # rounds towards zero as C++ does, which allows slightly too large windows

    def padded(self, x: Tensor, pad: tuple[int, ...]) -> Tensor:
        """Returns x with ``pad`` zeros at both ends of each axis, and more at the end for a larger window."""
        ends: list[int] = []
        for n, p, all_pad, extent in zip(x.shape[x.dim() - len(pad) :], pad, self.pad, self.extent, strict=True):
            ends = [p, p + max(0, extent - n - 2 * all_pad), *ends]  # F.pad expects the last axis first
        return F.pad(x, ends) if any(ends) else x


class Convolution(_Sliding):
    """Convolution of ``(..., C, *sizes)`` to ``(..., O, *sizes)``; all bottoms share the weights (conv_layer.cpp).

    Blobs: weights ``(O, C / group, *kernel)`` and, with ``bias_term``, a bias ``(O,)``. At most 3 spatial axes.
    ``engine`` and ``force_nd_im2col`` select implementations in Caffe and do not affect the result.
    """

    caffe_source = "conv_layer.cpp"
    limits = "0 to 3 spatial axes; groups, dilation, several bottoms"
    bottoms = (1, None)
    tops = (1, None)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        p = self.param.convolution_param
        if len(self.param.top) != len(shapes):
            self.fail(f"has {len(shapes)} bottoms and {len(self.param.top)} tops, expected as many of each")
        if any(shape != shapes[0] for shape in shapes):
            self.fail(f"bottoms of shapes {', '.join(map(str, shapes))}, expected one shape")
        self.read_window(shapes[0])
        if len(self.kernel) > 3:
            self.fail(f"{len(self.kernel)} spatial axes, expected 3 at most")
        if p.num_output < 1 or p.group < 1 or p.num_output % p.group or self.channels % p.group:
            self.fail(
                f"num_output {p.num_output} of {self.channels} channels in group {p.group}: "
                "expected 1 or more each, and a group that divides the other two"
            )
        top = self.top_shape(shapes[0], p.num_output)
        self.add_blob(self.weight_shape(p.num_output, p.group), p.weight_filler)
        if p.bias_term:
            self.add_blob((p.num_output,), p.bias_filler)
        return [top] * len(shapes)

    def weight_shape(self, outputs: int, group: int) -> Shape:
        return (outputs, self.channels // group, *self.kernel)

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        weight, bias = self.blobs[0], self.blobs[1] if len(self.blobs) > 1 else None
        tops = []
        for x in bottoms:
            shape = tuple(x.shape)
            top = self.top_shape(shape, self.param.convolution_param.num_output)
            x = x.reshape(prod(shape[: self.axis]), *shape[self.axis :])
            # no spatial axes are treated like one of size 1
            y = self.slide(x, weight, bias) if self.kernel else self.slide(x[..., None], weight[..., None], bias)
            tops.append(y.reshape(top))
        return tuple(tops) if len(tops) > 1 else tops[0]

    def slide(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolves ``(N, C, *sizes)`` with 1 to 3 sizes."""
        convolve = (F.conv1d, F.conv2d, F.conv3d)[x.dim() - 3]
        x = self.padded(x, (0,) * len(self.pad))
        if x.dim() == 4 and x.device.type == "cpu":  # makes the pooling that follows ten times faster
            x = x.contiguous(memory_format=torch.channels_last)
        group = self.param.convolution_param.group
        return convolve(x, weight, bias, self.stride or 1, self.pad or 0, self.dilation or 1, group)

    def operations(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        return 2 * prod(self.blobs[0].shape[1:]) * sum(map(prod, tops))

    @staticmethod
    def summary(param: Any) -> str:
        p = param.convolution_param
        return f"{p.num_output} of {window_summary(p)}" + (f" group {p.group}" if p.group > 1 else "")


class Deconvolution(Convolution):
    """Transposed convolution of ``(..., C, *sizes)`` to ``(..., O, *sizes)`` (deconv_layer.cpp).

    Blobs: weights ``(C, O / group, *kernel)`` and, with ``bias_term``, a bias ``(O,)``. At most 3 spatial axes.
    """

    caffe_source = "deconv_layer.cpp"
    limits = "0 to 3 spatial axes; groups, dilation, several bottoms"

    def weight_shape(self, outputs: int, group: int) -> Shape:
        return (self.channels, outputs // group, *self.kernel)

    def places(self, n: int, i: int) -> int:
        return self.stride[i] * (n - 1) + self.extent[i] - 2 * self.pad[i]

    def slide(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        spread = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[x.dim() - 3]
        group = self.param.convolution_param.group
        return spread(x, weight, bias, self.stride or 1, self.pad or 0, 0, group, self.dilation or 1)

    def operations(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        return 2 * prod(self.blobs[0].shape[1:]) * sum(map(prod, bottoms))


class Im2col(_Sliding):
    """The K values in every window: ``(..., C, *sizes)`` to ``(..., C * K, *positions)`` (im2col_layer.cpp)."""

    caffe_source = "im2col_layer.cpp"
    limits = "any number of spatial axes"

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        self.read_window(shapes[0])
        if not self.kernel:
            self.fail(f"a bottom of shape {shapes[0]} has no spatial axis after axis {self.axis}")
        return [self.top_shape(shapes[0], self.channels * prod(self.kernel))]

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        top = self.top_shape(tuple(x.shape), self.channels * prod(self.kernel))
        x = self.padded(x, self.pad)
        for i, (extent, stride, dilation) in enumerate(zip(self.extent, self.stride, self.dilation, strict=True)):
            x = x.unfold(self.axis + 1 + i, extent, stride)[..., ::dilation]
        # now (..., C, *places, *kernel)
        spatial = len(self.kernel)
        behind = range(self.axis + 1, self.axis + 1 + spatial)
        return x.movedim(tuple(range(-spatial, 0)), tuple(behind)).reshape(top)
