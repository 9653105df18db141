"""Elementwise layers: activations, powers, dropout. The top has the shape of the bottom."""

from __future__ import annotations

import math
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqclf.caffe.layers.base import Layer, Shape


class _Neuron(Layer):
    """A layer that applies ``function`` to its bottom."""

    category = "activation"

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        return shapes

    def forward(self, *bottoms: Tensor) -> Tensor:
        return self.function(bottoms[0])

    def function(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def log_base(self, base: float) -> float:
        """Returns the logarithm of a ``base`` field, where -1 means e."""
        if base != -1 and not 0 < base < math.inf:
            self.fail(f"base {base}: expected a positive number, or -1 for e")
        return 1.0 if base == -1 else math.log(base)


class AbsVal(_Neuron):
    """``y = abs(x)``, with gradient 0 at 0 (absval_layer.cpp)."""

    caffe_source = "absval_layer.cpp"
    per_value = 1

    def function(self, x: Tensor) -> Tensor:
        return x.abs()


class BNLL(_Neuron):
    """``y = log(1 + exp(x))`` (bnll_layer.cpp)."""

    caffe_source = "bnll_layer.cpp"
    per_value = 1

    def function(self, x: Tensor) -> Tensor:
        return F.softplus(x)


class Clip(_Neuron):
    """``y = max(min, min(x, max))``, with gradient 1 from min to max, both included (clip_layer.cpp)."""

    caffe_source = "clip_layer.cpp"
    per_value = 1
    in_lisa = False

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        if not self.param.HasField("clip_param"):
            self.fail("needs clip_param with min and max")
        return shapes

    def function(self, x: Tensor) -> Tensor:
        p = self.param.clip_param
        bounded = x.detach().clamp(max=p.max).clamp(min=p.min)  # in Caffe's order, which matters if min > max
        return torch.where((x >= p.min) & (x <= p.max), x, bounded)  # clamp has another gradient at the bounds


class Dropout(_Neuron):
    """``y = x * mask / (1 - ratio)`` in training, ``y = x`` in testing (dropout_layer.cpp)."""

    caffe_source = "dropout_layer.cpp"
    limits = "scaled in training, as in Caffe; masks differ from Caffe's"

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        ratio = self.param.dropout_param.dropout_ratio
        if not 0 <= ratio < 1:
            self.fail(f"dropout_ratio {ratio}: expected 0 <= ratio < 1")
        return shapes

    def function(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.param.dropout_param.dropout_ratio) if self.training else x

    def operations(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        return prod(bottoms[0]) if self.training else 0

    @staticmethod
    def summary(param: Any) -> str:
        return f"{param.dropout_param.dropout_ratio:g}"


class ELU(_Neuron):
    """``y = x`` if x > 0, else ``alpha * (exp(x) - 1)`` (elu_layer.cpp)."""

    caffe_source = "elu_layer.cpp"
    per_value = 1
    in_lisa = False

    def function(self, x: Tensor) -> Tensor:
        return F.elu(x, self.param.elu_param.alpha)


class Exp(_Neuron):
    """``y = base^(shift + scale * x)``, where base -1 means e (exp_layer.cpp)."""

    caffe_source = "exp_layer.cpp"
    per_value = 3

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        p = self.param.exp_param
        log_base = self.log_base(p.base)
        self.inner = log_base * p.scale
        self.outer = float(
            torch.tensor(p.shift * log_base, dtype=torch.float64, device="cpu").exp()
        )  # inf on overflow, where math.exp raises
        return shapes

    def function(self, x: Tensor) -> Tensor:
        y = torch.exp(x if self.inner == 1 else x * self.inner)
        return y if self.outer == 1 else y * self.outer


class Log(_Neuron):
    """``y = log_base(shift + scale * x)``, where base -1 means e (log_layer.cpp)."""

    caffe_source = "log_layer.cpp"
    per_value = 3
    in_lisa = False

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        if self.net.flavour == "lisa":
            self.fail("lisa-caffe has no such layer")
        log_base = self.log_base(self.param.log_param.base)
        if log_base == 0:
            self.fail("base 1: expected a positive number other than 1, or -1 for e")
        self.outer = 1 / log_base
        return shapes

    def function(self, x: Tensor) -> Tensor:
        p = self.param.log_param
        y = torch.log(_affine(x, p.scale, p.shift))
        return y if self.outer == 1 else y * self.outer


class Power(_Neuron):
    """``y = (shift + scale * x)^power`` (power_layer.cpp)."""

    caffe_source = "power_layer.cpp"
    per_value = 3
    limits = "where the base is 0 the gradient is NaN, as in Caffe, except for powers 0, 1 and 2"

    def function(self, x: Tensor) -> Tensor:
        p = self.param.power_param
        if p.power * p.scale == 0:  # constant, without gradient
            return x.new_full((), p.shift).pow(p.power).expand_as(x)
        base = _affine(x, p.scale, p.shift)
        if p.power == 1:
            return base
        return base.square() if p.power == 2 else _Power.apply(base, p.power)

    @staticmethod
    def summary(param: Any) -> str:
        p = param.power_param
        return f"({p.shift:g} + {p.scale:g} x)^{p.power:g}"


class _Power(torch.autograd.Function):
    """``x^power`` with the gradient ``power * y / x``, as in Caffe: NaN at 0."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, power: float) -> Tensor:
        y = x.pow(power)
        ctx.power = power
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        x, y = ctx.saved_tensors
        return y.div(x).mul_(ctx.power).mul_(g), None


class PReLU(_Neuron):
    """``y = max(x, 0) + a * min(x, 0)``, with x ``(N, C, ...)`` and a ``(C,)`` or ``()`` (prelu_layer.cpp)."""

    caffe_source = "prelu_layer.cpp"
    per_value = 2

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        p = self.param.prelu_param
        if len(shapes[0]) < 2:
            self.fail(f"a bottom of shape {shapes[0]}: expected (N, C, ...)")
        filler = p.filler if p.HasField("filler") else type(p.filler)(type="constant", value=0.25)
        self.add_blob(() if p.channel_shared else (shapes[0][1],), filler)
        return shapes

    def function(self, x: Tensor) -> Tensor:
        slope = self.blobs[0]
        if slope.dim() and (x.dim() < 2 or x.shape[1] != len(slope)):
            self.fail(f"a bottom of shape {tuple(x.shape)}: expected (N, {len(slope)}, ...)")
        return F.prelu(x, slope)


class ReLU(_Neuron):
    """``y = max(x, 0) + negative_slope * min(x, 0)``; the gradient at 0 is negative_slope (relu_layer.cpp)."""

    caffe_source = "relu_layer.cpp"
    per_value = 1

    def function(self, x: Tensor) -> Tensor:
        slope = self.param.relu_param.negative_slope
        return F.leaky_relu(x, slope) if slope else F.relu(x)

    @staticmethod
    def summary(param: Any) -> str:
        slope = param.relu_param.negative_slope
        return f"slope {slope:g}" if slope else ""


class Sigmoid(_Neuron):
    """``y = 1 / (1 + exp(-x))`` (sigmoid_layer.cpp)."""

    caffe_source = "sigmoid_layer.cpp"
    per_value = 1

    def function(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


class Swish(_Neuron):
    """``y = x * sigmoid(beta * x)`` (swish_layer.cpp)."""

    caffe_source = "swish_layer.cpp"
    per_value = 3
    in_lisa = False

    def function(self, x: Tensor) -> Tensor:
        beta = self.param.swish_param.beta
        return F.silu(x) if beta == 1 else x * torch.sigmoid(x * beta)


class TanH(_Neuron):
    """``y = tanh(x)`` (tanh_layer.cpp)."""

    caffe_source = "tanh_layer.cpp"
    per_value = 1

    def function(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


class Threshold(_Neuron):
    """``y = 1`` if x > threshold, else 0; without gradient (threshold_layer.cpp)."""

    caffe_source = "threshold_layer.cpp"
    per_value = 1

    def function(self, x: Tensor) -> Tensor:
        return (x > self.param.threshold_param.threshold).to(x.dtype)


def _affine(x: Tensor, scale: float, shift: float) -> Tensor:
    """Returns ``shift + scale * x``."""
    x = x if scale == 1 else x * scale
    return x if shift == 0 else x + shift
