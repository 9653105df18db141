"""LRCN-shaped Caffe nets as ordinary classifiers, batch first; ``from_classifier`` is the way back.

Such a net is one path: frames through convolutions and the like (each frame by itself), a Reshape to time-major,
LSTMs, and an InnerProduct at every step. What is found on it, and what becomes of it, is the table ``_FRAME_LAYERS``
and the walk in ``describe``; anything else is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from seqclf import models
from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.layers import Layer
from seqclf.caffe.net import Net

Part = Callable[[], nn.Module]


@dataclass
class Description:
    """An LRCN-shaped net, taken apart."""

    frame_shape: tuple[int, ...] = ()
    parts: dict[str, Part] = field(default_factory=dict)
    """The encoder's modules by the layers' names."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    """The classifier's state dict, but for the preprocessing."""
    recurrent: list[str] = field(default_factory=list)
    """The names of the LSTM layers."""
    hidden: int = 0
    dropout: float = 0.0
    dropout_after: float = 0.0
    head: str = ""
    num_classes: int = 0
    transform: Any = None
    """The ``TransformationParameter`` of the data layer, if the frames come from one."""


# ---- from a net


def to_classifier(
    net: Net,
    logits: str | None = None,
    mean: Sequence[float] | None = None,
    scale: float | None = None,
    bgr: bool | None = None,
) -> models.FrameSequenceClassifier:
    """An LRCN-shaped net as an ordinary classifier with the same logits, batch first.

    Args:
        net: frames (T*N, C, H, W) or (T, N, ...), LSTMs with ``cont``, an InnerProduct at every step (or at the last).
        logits: the blob to answer with. None: what the net's Softmax or loss reads.
        mean, scale, bgr: what makes raw RGB frames (uint8, or floats from 0 to 1) the net's data, as Caffe's tools say
            it: channels in BGR, values from 0 to 255, mean subtracted (one value, or one per channel in that order),
            times scale. None: as the net's data layer says; where it says nothing, the classifier takes the net's data
            as they are (floats).

    Returns:
        the classifier, in evaluation mode; its frames are ``(B, T, C, H, W)`` or ``(B, T, D)``, its ``is_first`` is
        ``cont == 0``.

    Raises:
        CaffeFormatError: the net is not of this shape; the layer that does not fit is named.
    """
    description = describe(net, logits)
    model = builder(description, mean, scale, bgr)(
        frame_shape=description.frame_shape, num_classes=description.num_classes
    )
    own = {name: value for name, value in model.state_dict().items() if name.startswith("preprocess.")}
    model.load_state_dict({**own, **description.weights})
    return model.eval()


def builder(
    found: Description, mean: Sequence[float] | None, scale: float | None, bgr: bool | None
) -> Callable[..., models.FrameSequenceClassifier]:
    """What builds the classifier: a partial that a config can hold."""
    settings: dict[str, Any] = {"preprocess": _preprocess(found, mean, scale, bgr)}
    if found.parts:
        settings["encoder"] = partial(models.Chain, parts=found.parts)
    if found.recurrent:
        temporal: dict[str, Any] = {"hidden": found.hidden, "layers": len(found.recurrent)}
        if found.dropout:
            temporal["dropout"] = found.dropout
        if found.dropout_after:
            temporal["dropout_after"] = found.dropout_after
        settings["temporal"] = partial(models.LSTM, **temporal)
    return partial(models.FrameSequenceClassifier, **settings)


def _preprocess(found: Description, mean: Any, scale: float | None, bgr: bool | None) -> Callable[..., nn.Module]:
    transform = found.transform
    if transform is not None:
        if transform.HasField("mean_file") and mean is None:
            raise CaffeFormatError(
                f"transform_param.mean_file {transform.mean_file}: a mean image is no part of a classifier: "
                "give its mean per channel as mean="
            )
        mean = (list(transform.mean_value) or None) if mean is None else mean
        scale = transform.scale if scale is None else scale
        bgr = True if bgr is None else bgr
    if mean is None and scale is None and bgr is None:
        return models.Normalize
    scale = 1.0 if scale is None else scale
    values = [float(v) / 255 for v in ([0.0] if mean is None else mean)]
    settings: dict[str, Any] = {"mean": values if len(values) > 1 else values[0], "std": 1 / (255 * scale)}
    if bgr is not False and found.frame_shape[:1] == (3,):
        settings["bgr"] = True
    return partial(models.Normalize, **settings)


def describe(net: Net, logits: str | None) -> Description:
    makers: dict[str, list[tuple[Any, Layer]]] = {}
    for param, layer in net.sequence:
        for top in param.top:
            makers.setdefault(top, []).append((param, layer))
    path: list[tuple[Any, Layer]] = []
    blob = logits or _logits(net)
    if blob not in makers:
        raise CaffeFormatError(f'{net.file}: has no blob "{blob}"')
    at = {top: len(found) for top, found in makers.items()}
    while True:  # back from the logits, the newest maker of each blob first
        if not at.get(blob):
            raise CaffeFormatError(f'{net.file}: blob "{blob}" is made by no layer')
        at[blob] -= 1
        param, layer = makers[blob][at[blob]]
        path.append((param, layer))
        if not param.bottom:
            break
        blob = param.bottom[0]
    path.reverse()
    found = Description()
    source = path[0][0]
    shape = net.blob_shapes[blob]
    if source.type != "Input":
        found.transform = source.transform_param if source.HasField("transform_param") else None
    time_major = False
    stage = "encoder"
    for param, layer in path[1:]:
        bottom = net.blob_shapes[param.bottom[0]]
        if param.type == "Split" or (param.type in ("Reshape", "Flatten") and stage == "recurrent"):
            continue
        if param.type in ("LSTM",):
            if stage == "head":
                _refuse(layer, "comes after the classifier's InnerProduct")
            if not found.recurrent and not time_major:
                time_major = True
                found.frame_shape = tuple(shape[2:]) or (1,)
                if found.parts:
                    _refuse(layer, "expected a Reshape to (T, N, features) before it")
            _add_lstm(found, param, layer)
            stage = "recurrent"
        elif param.type == "InnerProduct" and (stage == "recurrent" or (param, layer) == path[-1]):
            if (param, layer) != path[-1]:
                _refuse(layer, "expected one InnerProduct after the LSTM, whose top are the logits")
            weight = _inner_product(param, layer)
            found.weights["head.weight"] = weight
            found.weights["head.bias"] = (
                layer.blobs[1].detach() if param.inner_product_param.bias_term else torch.zeros(len(weight))
            )
            found.head, found.num_classes, stage = param.name, len(weight), "head"
            if not found.recurrent:
                found.frame_shape = tuple(shape[1:])
                if found.parts:
                    found.parts["flat"] = nn.Flatten
        elif param.type == "Dropout":
            ratio = param.dropout_param.dropout_ratio
            if stage == "encoder":
                found.parts[_name(param.name)] = partial(nn.Dropout, ratio)
            else:
                found.dropout_after = round(ratio, 7)
        elif stage == "recurrent":
            if param.type == "Slice" and layer.canonical_axis(param.slice_param.axis, len(bottom)) == 0:
                continue  # the last steps alone are labelled: a matter of labels
            _refuse(layer, "expected Dropout and InnerProduct after the LSTM")
        elif param.type == "Reshape" and not time_major:
            top = net.blob_shapes[param.top[0]]
            if len(top) < 3 or top[0] * top[1] != bottom[0]:
                _refuse(layer, f"expected a Reshape of ({bottom[0]}, ...) to (T, N, features), not to {top}")
            time_major, found.frame_shape = True, tuple(shape[1:])
            found.parts["flat"] = nn.Flatten
        elif param.type in _FRAME_LAYERS:
            if time_major:
                _refuse(layer, "stands between the Reshape to time-major and the LSTM")
            part, weights = _FRAME_LAYERS[param.type](param, layer, bottom)
            name = _name(param.name)
            found.parts[name] = part
            found.weights.update({f"encoder.{name}.{key}": value for key, value in weights.items()})
        else:
            _refuse(layer, "is of a type that a frame encoder's path is not made of here")
    if found.head == "":
        raise CaffeFormatError(f'{net.file}: the path to "{path[-1][0].top[0]}" does not end in an InnerProduct')
    return found


def _logits(net: Net) -> str:
    read = {param.bottom[0] for param, _ in net.sequence if param.type in ("Softmax", "SoftmaxWithLoss")}
    last = [param.top[0] for param, _ in net.sequence if param.type == "InnerProduct"]
    read = read or set(last[-1:])
    if len(read) != 1:
        raise CaffeFormatError(
            f"{net.file}: logits={', '.join(sorted(read)) or 'None'}: expected one blob to answer with: name it"
        )
    return read.pop()


def _refuse(layer: Layer, why: str) -> NoReturn:
    layer.fail(f"not a part of an LRCN-shaped net: {why}")


def _name(layer: str) -> str:
    """A layer's name as a module's."""
    return layer.replace(".", "_")


def _add_lstm(found: Description, param: Any, layer: Any) -> None:
    H = param.recurrent_param.num_output
    if param.recurrent_param.expose_hidden or len(param.bottom) != 2:
        _refuse(layer, "expected an LSTM with the bottoms x and cont alone")
    if found.recurrent:
        if found.hidden != H:
            _refuse(layer, f"has {H} units, the LSTM below it {found.hidden}")
        if len(found.recurrent) > 1 and found.dropout != found.dropout_after:
            _refuse(layer, "expected the same Dropout between all LSTMs")
        found.dropout, found.dropout_after = found.dropout_after, 0.0
    n = len(found.recurrent)
    w_x, b, w_h = (core_order(blob.detach(), H) for blob in layer.blobs)
    found.weights.update(
        {
            f"temporal.weight_ih_l{n}": w_x,
            f"temporal.weight_hh_l{n}": w_h,
            f"temporal.bias_ih_l{n}": b,
            f"temporal.bias_hh_l{n}": torch.zeros_like(b),
        }
    )
    found.hidden = H
    found.recurrent.append(param.name)


def core_order(w: Tensor, H: int) -> Tensor:
    """Rows of the gates i, f, o, g as i, f, g, o; and the other way round."""
    i_f, third, fourth = w.split([2 * H, H, H])
    return torch.cat([i_f, fourth, third])


def _inner_product(param: Any, layer: Layer) -> Tensor:
    weight: Tensor = layer.blobs[0].detach()
    return weight.t().contiguous() if param.inner_product_param.transpose else weight


Converted = tuple[Part, dict[str, Tensor]]


def _convolution(param: Any, layer: Any, shape: Sequence[int]) -> Converted:
    p = param.convolution_param
    if len(shape) != 4 or p.axis not in (1, -3):
        _refuse(layer, "expected a convolution over (C, H, W)")
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
    part = partial(nn.Conv2d, shape[1], p.num_output, kernel, **settings)
    return part, _named(layer)


def _pair(p: Any, what: str, default: int) -> tuple[int, int]:
    """A setting of two axes, said as one number, as two, or as ``<what>_h`` and ``<what>_w``."""
    if p.HasField(f"{what}_h") or p.HasField(f"{what}_w"):
        return getattr(p, f"{what}_h"), getattr(p, f"{what}_w")
    value = p.kernel_size if what == "kernel" else getattr(p, what)
    values = [value] if isinstance(value, int) else list(value)
    return (values[0], values[-1]) if values else (default, default)


def _named(layer: Layer, *names: str) -> dict[str, Tensor]:
    return {name: blob.detach() for name, blob in zip(names or ("weight", "bias"), layer.blobs, strict=False)}


def _pooling(param: Any, layer: Any, shape: Sequence[int]) -> Converted:
    p = param.pooling_param
    kernel = tuple(shape[2:]) if p.global_pooling else _pair(p, "kernel", 0)
    stride, pad = ((1, 1), (0, 0)) if p.global_pooling else (_pair(p, "stride", 1), _pair(p, "pad", 0))
    settings: dict[str, Any] = {"stride": stride, "padding": pad, "ceil_mode": p.round_mode == 0}
    if p.pool not in (0, 1):
        _refuse(layer, "stochastic pooling")
    kind: type[nn.Module] = nn.MaxPool2d if p.pool == 0 else nn.AvgPool2d
    part = partial(kind, kernel, **settings)
    try:
        size = tuple(part()(torch.empty(1, *shape[1:], device="meta")).shape[1:])
    except RuntimeError:
        size = ()
    if size != tuple(layer.top_shapes[0][1:]) or len(layer.top_shapes) > 1:
        _refuse(layer, "its windows run past the image in a way that PyTorch's pooling has not")
    return part, {}


def _lrn(param: Any, layer: Any, shape: Sequence[int]) -> Converted:
    p = param.lrn_param
    if p.norm_region != 0:
        _refuse(layer, "WITHIN_CHANNEL normalisation")
    return partial(models.LocalResponseNorm, p.local_size, _short(p.alpha), _short(p.beta), _short(p.k)), {}


def _frame_product(param: Any, layer: Any, shape: Sequence[int]) -> Converted:
    p = param.inner_product_param
    if layer.canonical_axis(p.axis, len(shape)) != 1:
        _refuse(layer, "expected an InnerProduct of axis 1 on frames")
    weight = _inner_product(param, layer)
    weights = {"1.weight": weight} | ({"1.bias": layer.blobs[1].detach()} if p.bias_term else {})
    linear: Part = partial(nn.Linear, weight.shape[1], weight.shape[0], **({} if p.bias_term else {"bias": False}))
    if len(shape) == 2:
        return linear, {key.removeprefix("1."): value for key, value in weights.items()}
    return partial(models.Chain, (), {"0": nn.Flatten, "1": linear}), weights


def _relu(param: Any, layer: Any, shape: Sequence[int]) -> Converted:
    slope = _short(param.relu_param.negative_slope)
    return (partial(nn.LeakyReLU, slope) if slope else nn.ReLU), {}


def _simple(module: Part) -> Callable[[Any, Any, Sequence[int]], Converted]:
    return lambda param, layer, shape: (module, {})


def _batch_norm(param: Any, layer: Any, shape: Sequence[int]) -> Converted:
    p = param.batch_norm_param
    mean, variance, factor = (blob.detach() for blob in layer.blobs)
    scale = 0 if float(factor) == 0 else 1 / factor
    norm: type[nn.Module] = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    settings: dict[str, Any] = {
        "eps": _short(p.eps),
        "momentum": _short(1 - p.moving_average_fraction),
        "affine": False,
    }
    weights = {
        "running_mean": mean * scale,
        "running_var": variance * scale,
        "num_batches_tracked": torch.tensor(0),
    }
    return partial(norm, shape[1], **settings), weights


def _scale(param: Any, layer: Any, shape: Sequence[int]) -> Converted:
    p = param.scale_param
    if len(param.bottom) > 1 or layer.canonical_axis(p.axis, len(shape)) != 1 or p.num_axes != 1:
        _refuse(layer, "expected a Scale with one factor per channel")
    weights = {"weight": layer.blobs[0].detach()}
    if p.bias_term:
        weights["bias"] = layer.blobs[1].detach()
    return partial(models.ChannelScale, shape[1], **({} if p.bias_term else {"bias": False})), weights


def _short(value: float) -> float:
    """The shortest decimal that is this float32, as a person wrote it."""
    return float(f"{value:.7g}")


_FRAME_LAYERS: dict[str, Callable[[Any, Any, Sequence[int]], Converted]] = {
    # what a layer on the frames' path becomes, and its weights by their names there
    "BatchNorm": _batch_norm,
    "Convolution": _convolution,
    "Flatten": _simple(nn.Flatten),
    "InnerProduct": _frame_product,
    "LRN": _lrn,
    "Pooling": _pooling,
    "ReLU": _relu,
    "Scale": _scale,
    "Sigmoid": _simple(nn.Sigmoid),
    "TanH": _simple(nn.Tanh),
}
