"""Modules of frame encoders as Caffe layers. ``layers_to_modules`` is the inverse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from seqclf import models
from seqclf.caffe.error import CaffeFormatError

Converted = tuple[str, dict[str, Any], list[Tensor]]
"""The type of the layer, its fields, and its blobs."""


def to_layer(name: str, module: nn.Module) -> Converted:
    """Converts a module of an encoder.

    Raises:
        CaffeFormatError: the module, or one of its settings, has no Caffe layer.
    """
    for kind, converter in CONVERTERS.items():
        if isinstance(module, kind):
            return converter(module)
    raise CaffeFormatError(f"encoder.{name}: a {type(module).__name__} cannot be converted to a Caffe layer")


def weight_and_bias(module: nn.Module) -> list[Tensor]:
    return [p for p in (module.weight, module.bias) if p is not None]  # type: ignore[misc, union-attr]


def _convolution(module: Any) -> Converted:
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        raise CaffeFormatError(f"{module}: Caffe's Convolution has no padding {module.padding!r}")
    settings: dict[str, Any] = {
        "num_output": module.out_channels,
        "group": module.groups,
        "bias_term": module.bias is not None,
    }
    for name, value in (("kernel", module.kernel_size), ("stride", module.stride), ("pad", module.padding)):
        settings |= _window_fields(name, value)
    if _pair(module.dilation) != (1, 1):  # lisa-caffe has no such field
        settings["dilation"] = list(_pair(module.dilation))
    return "Convolution", {"convolution_param": settings}, weight_and_bias(module)


def _window_fields(name: str, value: Any) -> dict[str, Any]:
    """Fields of a convolution's window, in the form that Caffe of 2014 reads, too."""
    h, w = _pair(value)
    return {"kernel_size" if name == "kernel" else name: [h]} if h == w else {f"{name}_h": h, f"{name}_w": w}


def _pooling(module: Any) -> Converted:
    average = isinstance(module, nn.AvgPool2d)
    if (average and (not module.count_include_pad or module.divisor_override)) or getattr(module, "dilation", 1) != 1:
        raise CaffeFormatError(f"{module}: cannot be converted to a Caffe layer")
    settings: dict[str, Any] = {"pool": int(average)}
    for name, value in (("kernel", module.kernel_size), ("stride", module.stride), ("pad", module.padding)):
        settings[f"{name}_h"], settings[f"{name}_w"] = _pair(value)
    if not module.ceil_mode:
        settings["round_mode"] = 1
    return "Pooling", {"pooling_param": settings}, []


def _lrn(module: Any) -> Converted:
    settings = {"local_size": module.size, "alpha": module.alpha, "beta": module.beta, "k": module.k}
    return "LRN", {"lrn_param": settings}, []


def _linear(module: Any) -> Converted:
    settings = {"num_output": module.out_features, "bias_term": module.bias is not None}
    return "InnerProduct", {"inner_product_param": settings}, weight_and_bias(module)


def _batch_norm(module: Any) -> Converted:
    if module.affine:
        raise CaffeFormatError(f"{module}: Caffe's BatchNorm has no scale: use affine=False and a ChannelScale")
    settings = {"eps": module.eps, "moving_average_fraction": 1 - module.momentum}
    blobs = [module.running_mean, module.running_var, torch.ones(1)]
    return "BatchNorm", {"batch_norm_param": settings}, blobs


def _scale(module: Any) -> Converted:
    return "Scale", {"scale_param": {"bias_term": module.bias is not None}}, weight_and_bias(module)


CONVERTERS: dict[type[nn.Module], Callable[[Any], Converted]] = {
    nn.Conv2d: _convolution,
    nn.MaxPool2d: _pooling,
    nn.AvgPool2d: _pooling,
    models.LocalResponseNorm: _lrn,
    nn.Linear: _linear,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    models.ChannelScale: _scale,
    nn.ReLU: lambda module: ("ReLU", {}, []),
    nn.LeakyReLU: lambda module: ("ReLU", {"relu_param": {"negative_slope": module.negative_slope}}, []),
    nn.Dropout: lambda module: ("Dropout", {"dropout_param": {"dropout_ratio": module.p}}, []),
    nn.Sigmoid: lambda module: ("Sigmoid", {}, []),
    nn.Tanh: lambda module: ("TanH", {}, []),
}


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)
