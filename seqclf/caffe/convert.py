"""LRCN-shaped Caffe nets as ordinary classifiers, batch first, and back.

Such a net is one path: frames through convolutions and the like (each frame by itself), a Reshape to time-major,
LSTMs, and an InnerProduct at every step. What is found on it, and what becomes of it, is the table ``_FRAME_LAYERS``
and the walk in ``_describe``; anything else is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from seqclf import models
from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.layers import Layer
from seqclf.caffe.net import Net, build_net
from seqclf.caffe.schema import schema
from seqclf.checkpoint import save_checkpoint
from seqclf.config import Experiment, called, numbers, save_experiment
from seqclf.data import no_data
from seqclf.record import environment, now, write_json

Part = Callable[[], nn.Module]


@dataclass
class _Description:
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
    description = _describe(net, logits)
    model = _builder(description, mean, scale, bgr)(
        frame_shape=description.frame_shape, num_classes=description.num_classes
    )
    own = {name: value for name, value in model.state_dict().items() if name.startswith("preprocess.")}
    model.load_state_dict({**own, **description.weights})
    return model.eval()


def _builder(
    found: _Description, mean: Sequence[float] | None, scale: float | None, bgr: bool | None
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


def _preprocess(found: _Description, mean: Any, scale: float | None, bgr: bool | None) -> Callable[..., nn.Module]:
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


def _describe(net: Net, logits: str | None) -> _Description:
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
    found = _Description()
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


def _add_lstm(found: _Description, param: Any, layer: Any) -> None:
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
    w_x, b, w_h = (_core_order(blob.detach(), H) for blob in layer.blobs)
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


def _core_order(w: Tensor, H: int) -> Tensor:
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


# ---- from a classifier


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
            blobs = [_core_order(w, H) for w in (w_x, b_x + b_h, w_h)]
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
    settings = {
        "num_output": module.out_channels,
        "kernel_size": _both(module.kernel_size),
        "stride": _both(module.stride),
        "pad": _both(module.padding),
        "dilation": _both(module.dilation),
        "group": module.groups,
        "bias_term": module.bias is not None,
    }
    return "Convolution", {"convolution_param": settings}, _own(module)


def _both(value: Any) -> list[int]:
    """One number where both axes have the same."""
    pair = _spatial(value)
    return [pair[0]] if pair[0] == pair[1] else list(pair)


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


# ---- a run


def write_run(
    net: Net,
    workdir: str | Path,
    experiment: Experiment | None = None,
    classes: Sequence[str] | None = None,
    logits: str | None = None,
    mean: Sequence[float] | None = None,
    scale: float | None = None,
    bgr: bool | None = None,
) -> Path:
    """A run folder of the classifier that a net becomes, as training would have left it at step 0.

    Args:
        workdir: the folder, new or empty.
        experiment: whose data and training settings the run takes; None for a run without data.
        classes: the classes' names; None for the experiment's, or numbers.
        logits, mean, scale, bgr: as of ``to_classifier``.

    Returns:
        the checkpoint.

    Raises:
        CaffeFormatError: the net is not LRCN-shaped, or does not fit the experiment's data; the folder is not empty.
    """
    workdir = Path(workdir)
    if workdir.exists() and any(workdir.iterdir()):
        raise CaffeFormatError(f"{workdir}: is not empty: a converted run needs a folder of its own")
    found = _describe(net, logits)
    model = to_classifier(net, logits, mean, scale, bgr)
    names = list(classes) if classes is not None else [str(k) for k in range(found.num_classes)]
    if len(names) != found.num_classes:
        raise CaffeFormatError(f"{net.file}: has {found.num_classes} classes, but there are {len(names)} names")
    identity: dict[str, Any] = {
        "source": f"converted from {net.file}",
        "loud": None,
        "classes": names,
        "train": {"frame_shape": list(found.frame_shape)},
    }
    build = _builder(found, mean, scale, bgr)
    if experiment is None:
        reason = f"this run was converted from {net.file} and has no data: give some, such as data=seqclf.mnist"
        experiment = Experiment(
            data=partial(no_data, reason=reason),
            model=build,
            optimizer=partial(torch.optim.SGD, lr=0.01, momentum=0.9),
            steps=1,
            batch_size=1,
        )
    else:
        data = called("data", experiment.data)
        if data.train.frame_shape != found.frame_shape or data.num_classes != found.num_classes:
            raise CaffeFormatError(
                f"{net.file}: takes frames {found.frame_shape} and has {found.num_classes} classes, "
                f"but {data.source} has {data.train.frame_shape} and {data.num_classes}"
            )
        identity = data.identity()
        experiment = replace(experiment, model=build)
    workdir.mkdir(parents=True, exist_ok=True)
    save_experiment(experiment, workdir)
    content = {
        "model": model.state_dict(),
        "optimizer": {},
        "scaler": {},
        "window": {},
        "best": None,
        "data": identity,
    }
    path = save_checkpoint(content, workdir / "checkpoints", 0, 1)
    write_json(
        workdir / "run.json",
        {
            "started": now(),
            "environment": environment(torch.device("cpu")),
            "parameters": sum(p.numel() for p in model.parameters()),
            "numbers": numbers(experiment),
            "data": identity,
        },
    )
    return path
