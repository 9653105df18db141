"""Layers of frame encoders as PyTorch modules. ``modules_to_layers`` is the inverse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from seqclf import models
from seqclf.caffe.layers import Layer

Part = Callable[[], nn.Module]
Converted = tuple[Part, dict[str, Tensor]]
"""What builds the module, and its state dict."""


def refuse(layer: Layer, why: str) -> NoReturn:
    """Raises a ``CaffeFormatError`` that names the layer."""
    layer.fail(f"does not fit an LRCN-shaped net: {why}")


def inner_product_weight(param: Any, layer: Layer) -> Tensor:
    """The weight (O, K) of an InnerProduct, also where the blob is transposed."""
    weight: Tensor = layer.blobs[0].detach()
    return weight.t().contiguous() if param.inner_product_param.transpose else weight


def _convolution(param: Any, layer: Any, shape: Sequence[int]) -> Converted:
    p = param.convolution_param
    if len(shape) != 4 or p.axis not in (1, -3):
        refuse(layer, "expected a convolution over (C, H, W)")
    kernel = tuple(layer.blobs[0].shape[2:])
    settings: dict[str, Any] = {
        "stride": _pair(p, "stride", 1),
        "padding": _pair(p, "pad", 0),
        "dilation": tuple((list(p.dilation) or [1]) * (2 if len(p.dilation) < 2 else 1)),
        "groups": p.group,
        "bias": p.bias_term,
    }
    defaults = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1, "bias": True}
    settings = {key: value for key, value in settings.items() if value != defaults[key]}
    return partial(nn.Conv2d, shape[1], p.num_output, kernel, **settings), _state(layer)


def _pooling(param: Any, layer: Any, shape: Sequence[int]) -> Converted:
    p = param.pooling_param
    kernel = tuple(shape[2:]) if p.global_pooling else _pair(p, "kernel", 0)
    stride, pad = ((1, 1), (0, 0)) if p.global_pooling else (_pair(p, "stride", 1), _pair(p, "pad", 0))
    if p.pool not in (p.MAX, p.AVE):
        refuse(layer, "stochastic pooling has no counterpart")
    kind: type[nn.Module] = nn.MaxPool2d if p.pool == p.MAX else nn.AvgPool2d
    part = partial(kind, kernel, stride=stride, padding=pad, ceil_mode=p.round_mode == p.CEIL)
    try:
        size = tuple(part()(torch.empty(1, *shape[1:], device="meta")).shape[1:])
    except RuntimeError:
        size = ()
    if size != tuple(layer.top_shapes[0][1:]) or len(layer.top_shapes) > 1:
        refuse(layer, "PyTorch's pooling has no windows that extend beyond the image in this way")
    return part, {}


def _lrn(param: Any, layer: Any, shape: Sequence[int]) -> Converted:
    p = param.lrn_param
    if p.norm_region != p.ACROSS_CHANNELS:
        refuse(layer, "WITHIN_CHANNEL normalization has no counterpart")
    return partial(models.LocalResponseNorm, p.local_size, _decimal(p.alpha), _decimal(p.beta), _decimal(p.k)), {}


def _inner_product(param: Any, layer: Any, shape: Sequence[int]) -> Converted:
    p = param.inner_product_param
    if layer.canonical_axis(p.axis, len(shape)) != 1:
        refuse(layer, "expected an InnerProduct with axis 1 on frames")
    weight = inner_product_weight(param, layer)
    state = {"weight": weight} | ({"bias": layer.blobs[1].detach()} if p.bias_term else {})
    linear: Part = partial(nn.Linear, weight.shape[1], weight.shape[0], **({} if p.bias_term else {"bias": False}))
    if len(shape) == 2:
        return linear, state
    chain = partial(models.Chain, (), {"0": nn.Flatten, "1": linear})
    return chain, {f"1.{key}": value for key, value in state.items()}


def _relu(param: Any, layer: Any, shape: Sequence[int]) -> Converted:
    slope = _decimal(param.relu_param.negative_slope)
    return (partial(nn.LeakyReLU, slope) if slope else nn.ReLU), {}


def _dropout(param: Any, layer: Any, shape: Sequence[int]) -> Converted:
    return partial(nn.Dropout, param.dropout_param.dropout_ratio), {}


def _batch_norm(param: Any, layer: Any, shape: Sequence[int]) -> Converted:
    p = param.batch_norm_param
    mean, variance, factor = (blob.detach() for blob in layer.blobs)
    scale = 0 if float(factor) == 0 else 1 / factor
    norm: type[nn.Module] = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    momentum = _decimal(1 - p.moving_average_fraction)
    state = {"running_mean": mean * scale, "running_var": variance * scale, "num_batches_tracked": torch.tensor(0)}
    return partial(norm, shape[1], eps=_decimal(p.eps), momentum=momentum, affine=False), state


def _scale(param: Any, layer: Any, shape: Sequence[int]) -> Converted:
    p = param.scale_param
    if len(param.bottom) > 1 or layer.canonical_axis(p.axis, len(shape)) != 1 or p.num_axes != 1:
        refuse(layer, "expected a Scale with one factor per channel")
    return partial(models.ChannelScale, shape[1], **({} if p.bias_term else {"bias": False})), _state(layer)


def _without_settings(module: Part) -> Callable[[Any, Any, Sequence[int]], Converted]:
    return lambda param, layer, shape: (module, {})


CONVERTERS: dict[str, Callable[[Any, Any, Sequence[int]], Converted]] = {
    # by layer type; called with the layer's message, the layer, and the shape of its bottom
    "BatchNorm": _batch_norm,
    "Convolution": _convolution,
    "Dropout": _dropout,
    "Flatten": _without_settings(nn.Flatten),
    "InnerProduct": _inner_product,
    "LRN": _lrn,
    "Pooling": _pooling,
    "ReLU": _relu,
    "Scale": _scale,
    "Sigmoid": _without_settings(nn.Sigmoid),
    "TanH": _without_settings(nn.Tanh),
}


def _pair(p: Any, name: str, default: int) -> tuple[int, int]:
    """A setting of two axes: one number for both, one each, or ``<name>_h`` and ``<name>_w``."""
    if p.HasField(f"{name}_h") or p.HasField(f"{name}_w"):
        return getattr(p, f"{name}_h"), getattr(p, f"{name}_w")
    value = p.kernel_size if name == "kernel" else getattr(p, name)
    values = [value] if isinstance(value, int) else list(value)
    return (values[0], values[-1]) if values else (default, default)


def _state(layer: Layer) -> dict[str, Tensor]:
    return {name: blob.detach() for name, blob in zip(("weight", "bias"), layer.blobs, strict=False)}


def _decimal(value: float) -> float:
    """The shortest decimal number that a float32 setting stands for: 0.1, not 0.10000000149."""
    return float(f"{value:.7g}")
