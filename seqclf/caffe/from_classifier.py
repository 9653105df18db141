"""Ordinary classifiers as Caffe nets, in the manner of LRCN's deploy files: the way back of ``to_classifier``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seqclf import models
from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.net import Net, build_net
from seqclf.caffe.schema import schema
from seqclf.caffe.to_classifier import core_order


def from_classifier(
    model: models.FrameSequenceClassifier,
    frames: int = 16,
    streams: int = 1,
    name: str = "seqclf",
    lstm: str = "lstm",
    head: str = "fc-final",
    flavour: str = "bvlc",
) -> Net:
    """A classifier as a Caffe net in the manner of LRCN's deploy files: ``save_net`` writes its prototxt and weights.

    Its inputs are ``data`` (T*N, C, H, W), row t*N + n being step t of stream n, or (T, N, D) where frames are vectors,
    already preprocessed (``model.preprocess(frames)``), and clip markers ``cm`` (T*N), 0 where a sequence begins. Its
    output is ``probs`` (T, N, K).

    Args:
        model: with an encoder that is a ``Chain`` or ``Sequential`` of modules as ``to_classifier`` makes them, or
            ``Flatten``; an LSTM or none; a linear head.
        frames, streams: T and N, which a prototxt spells out.
        name: the net's name.
        lstm, head: the names of the layers after the encoder, whose own layers are called as its modules are. Several
            LSTM layers get a number from 1.

    Raises:
        CaffeFormatError: a part of the model has no counterpart here; it is named.
    """
    shape = model.frame_shape
    if shape is None:
        raise CaffeFormatError("a classifier becomes a net only if it was built with frame_shape=")
    net = schema(flavour).NetParameter(name=name)
    weights: dict[str, list[Tensor]] = {}

    def add(kind: str, called: str, bottom: str | list[str], top: str, *blobs: Tensor, **settings: Any) -> str:
        net.layer.add(
            name=called, type=kind, bottom=[bottom] if isinstance(bottom, str) else bottom, top=[top], **settings
        )
        if blobs:
            weights[called] = [blob.detach() for blob in blobs]
        return top

    vectors = isinstance(model.encoder, models.Flatten)
    rows = [frames, streams] if vectors else [frames * streams]
    inputs = net.layer.add(name="input", type="Input", top=["data", "cm"])
    inputs.input_param.shape.add(dim=[*rows, *shape])
    inputs.input_param.shape.add(dim=[frames * streams])
    blob = "data"
    if not vectors:
        if not isinstance(model.encoder, nn.Sequential):
            raise CaffeFormatError(f"the encoder is a {type(model.encoder).__name__}, expected a Chain or Flatten")
        blob, width = _encoder_layers(model.encoder, add, shape)
        reshape: Any = {"shape": {"dim": [frames, streams, width]}}
        blob = add("Reshape", "reshape-data", blob, "reshape-data", reshape_param=reshape)
    temporal = model.temporal
    if isinstance(temporal, models.LSTM):
        add("Reshape", "reshape-cm", "cm", "reshape-cm", reshape_param={"shape": {"dim": [frames, streams]}})
        H = temporal.hidden_size
        for n in range(temporal.num_layers):
            w_x, w_h, b_x, b_h = (
                temporal.get_parameter(f"{which}_l{n}") for which in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            called = lstm if temporal.num_layers == 1 else f"{lstm}{n + 1}"
            blobs = [core_order(w, H) for w in (w_x, b_x + b_h, w_h)]
            blob = add("LSTM", called, [blob, "reshape-cm"], called, *blobs, recurrent_param={"num_output": H})
            ratio = temporal.dropout_between if n + 1 < temporal.num_layers else temporal.dropout_after
            if ratio:
                blob = add("Dropout", f"drop-{called}", blob, blob, dropout_param={"dropout_ratio": ratio})
    elif isinstance(temporal, models.Identity):
        inputs.top.pop()
        inputs.input_param.shape.pop()
    else:
        raise CaffeFormatError(f"the temporal model is a {type(temporal).__name__}, expected an LSTM or Identity")
    if not isinstance(model.head, nn.Linear):
        raise CaffeFormatError(f"the head is a {type(model.head).__name__}, expected a Linear")
    product: Any = {"num_output": model.head.out_features, "axis": 2, "bias_term": model.head.bias is not None}
    blob = add("InnerProduct", head, blob, head, *_own(model.head), inner_product_param=product)
    add("Softmax", "probs", blob, "probs", softmax_param={"axis": 2})
    built = build_net(net, name, None, "TEST", flavour)
    with torch.no_grad():
        for layer, blobs in weights.items():
            for mine, theirs in zip(built.params[layer], blobs, strict=True):
                mine.copy_(theirs.view(mine.shape))
    return built


def _own(module: nn.Module) -> list[Tensor]:
    return [p for p in (module.weight, module.bias) if p is not None]  # type: ignore[misc, union-attr]


def _encoder_layers(encoder: nn.Sequential, add: Callable[..., str], shape: Sequence[int]) -> tuple[str, int]:
    """Adds the encoder's layers; gives the last blob's name and its features."""
    blob = "data"
    with torch.no_grad():
        probe = torch.empty(1, *shape, device="meta")
    for name, module in encoder.named_children():
        if isinstance(module, models.Chain):  # a Flatten and a Linear, which are one InnerProduct
            module = module[-1]
        elif isinstance(module, nn.Flatten):
            probe = probe.flatten(1)
            continue
        found = next((maker for kind, maker in _MODULES.items() if isinstance(module, kind)), None)
        if found is None:
            raise CaffeFormatError(f"the encoder's {name} is a {type(module).__name__}, which has no Caffe layer here")
        kind, settings, blobs = found(module)
        in_place = kind in ("ReLU", "Dropout", "Sigmoid", "TanH") and blob != "data"
        blob = add(kind, name, blob, blob if in_place else name, *blobs, **settings)
        probe = _shape_after(module, probe)
    return blob, probe[0].numel()


def _shape_after(module: nn.Module, probe: Tensor) -> Tensor:
    """The (meta) tensor that a module makes of one; the module itself is not run, only one like it."""
    if isinstance(module, nn.Linear):
        return probe.new_empty(len(probe), module.out_features)
    if isinstance(module, nn.Conv2d):
        weight = torch.empty(module.weight.shape, device="meta")
        return nn.functional.conv2d(probe, weight, None, module.stride, module.padding, module.dilation, module.groups)
    return module(probe) if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)) else probe


def _spatial(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _from_convolution(module: Any) -> tuple[str, dict[str, Any], list[Tensor]]:
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        raise CaffeFormatError(f"a convolution with padding {module.padding!r} has no Caffe layer")
    settings: dict[str, Any] = {"num_output": module.out_channels, "group": module.groups}
    settings["bias_term"] = module.bias is not None
    for name, value in (("kernel", module.kernel_size), ("stride", module.stride), ("pad", module.padding)):
        settings |= _sides(name, value)
    if _spatial(module.dilation) != (1, 1):  # lisa-caffe has none
        settings["dilation"] = list(_spatial(module.dilation))
    return "Convolution", {"convolution_param": settings}, _own(module)


def _sides(name: str, value: Any) -> dict[str, Any]:
    """A setting of both axes of a convolution, spelled so that 2014's Caffe takes it too."""
    h, w = _spatial(value)
    return {"kernel_size" if name == "kernel" else name: [h]} if h == w else {f"{name}_h": h, f"{name}_w": w}


def _from_pooling(module: Any) -> tuple[str, dict[str, Any], list[Tensor]]:
    kernel, stride, pad = (_spatial(v) for v in (module.kernel_size, module.stride, module.padding))
    average = isinstance(module, nn.AvgPool2d)
    if (average and (not module.count_include_pad or module.divisor_override)) or getattr(module, "dilation", 1) != 1:
        raise CaffeFormatError(f"{module} has no Caffe layer")
    settings: dict[str, Any] = {"pool": int(average)}
    for key, (h, w) in (("kernel", kernel), ("stride", stride), ("pad", pad)):
        settings |= {f"{key}_h": h, f"{key}_w": w}
    if not module.ceil_mode:
        settings["round_mode"] = 1
    return "Pooling", {"pooling_param": settings}, []


def _from_lrn(module: Any) -> tuple[str, dict[str, Any], list[Tensor]]:
    settings = {"local_size": module.size, "alpha": module.alpha, "beta": module.beta, "k": module.k}
    return "LRN", {"lrn_param": settings}, []


def _from_linear(module: Any) -> tuple[str, dict[str, Any], list[Tensor]]:
    settings = {"num_output": module.out_features, "bias_term": module.bias is not None}
    return "InnerProduct", {"inner_product_param": settings}, _own(module)


def _from_batch_norm(module: Any) -> tuple[str, dict[str, Any], list[Tensor]]:
    if module.affine:
        raise CaffeFormatError(f"{module}: Caffe's BatchNorm has no scale: use affine=False and a ChannelScale")
    settings = {"eps": module.eps, "moving_average_fraction": 1 - module.momentum}
    mean = module.running_mean
    return "BatchNorm", {"batch_norm_param": settings}, [mean, module.running_var, torch.ones(1)]


def _from_scale(module: Any) -> tuple[str, dict[str, Any], list[Tensor]]:
    return "Scale", {"scale_param": {"bias_term": module.bias is not None}}, _own(module)


_MODULES: dict[type[nn.Module], Callable[[Any], tuple[str, dict[str, Any], list[Tensor]]]] = {
    # what a module of an encoder becomes: the layer's type, its settings, its blobs
    nn.Conv2d: _from_convolution,
    nn.MaxPool2d: _from_pooling,
    nn.AvgPool2d: _from_pooling,
    models.LocalResponseNorm: _from_lrn,
    nn.Linear: _from_linear,
    nn.BatchNorm1d: _from_batch_norm,
    nn.BatchNorm2d: _from_batch_norm,
    models.ChannelScale: _from_scale,
    nn.ReLU: lambda module: ("ReLU", {}, []),
    nn.LeakyReLU: lambda module: ("ReLU", {"relu_param": {"negative_slope": module.negative_slope}}, []),
    nn.Dropout: lambda module: ("Dropout", {"dropout_param": {"dropout_ratio": module.p}}, []),
    nn.Sigmoid: lambda module: ("Sigmoid", {}, []),
    nn.Tanh: lambda module: ("TanH", {}, []),
}
