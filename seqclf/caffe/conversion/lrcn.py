"""Analysis of LRCN-shaped nets: one path from frames through an encoder and LSTMs to the logits.

The path consists of layers that treat every frame alone, a Reshape to time-major ``(T, N, features)``, LSTMs, and an
InnerProduct at every step. Any other layer on it is an error that names the layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from seqclf.caffe.conversion.layers_to_modules import CONVERTERS, Part, inner_product_weight, refuse
from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.layers import Layer, Shape
from seqclf.caffe.layers.recurrent import swap_gates
from seqclf.caffe.nets.net import Net


@dataclass
class Description:
    """The parts of an LRCN-shaped net.

    Attributes:
        frame_shape: shape of one frame.
        parts: the encoder's modules by their names in the classifier.
        weights: the classifier's state dict, without its preprocessing.
        recurrent: the names of the LSTM layers.
        hidden: hidden units of each LSTM.
        dropout, dropout_after: dropout between the LSTMs and after the last one.
        head: the name of the InnerProduct that computes the logits.
        num_classes: the number of logits.
        transform: the ``TransformationParameter`` of the data layer, if the frames come from one.
    """

    frame_shape: Shape = ()
    parts: dict[str, Part] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    recurrent: list[str] = field(default_factory=list)
    hidden: int = 0
    dropout: float = 0.0
    dropout_after: float = 0.0
    head: str = ""
    num_classes: int = 0
    transform: Any = None


def describe(net: Net, logits: str | None = None) -> Description:
    """Analyses an LRCN-shaped net.

    Args:
        logits: the blob that holds the logits. None: the input of the net's Softmax or loss.

    Raises:
        CaffeFormatError: the net has another shape; the message names the layer that does not fit.
    """
    reader = _PathReader(net, logits or _find_logits(net))
    for param, layer in reader.path:
        reader.read(param, layer)
    if not reader.found.head:
        raise CaffeFormatError(f'{net.file}: the path to "{reader.logits}" does not end in an InnerProduct')
    return reader.found


def module_name(layer: str) -> str:
    """The name of a layer's module: modules cannot have dots in their names."""
    return layer.replace(".", "_")


def _find_logits(net: Net) -> str:
    read = {param.bottom[0] for param, _ in net.sequence if param.type in ("Softmax", "SoftmaxWithLoss")}
    last = [param.top[0] for param, _ in net.sequence if param.type == "InnerProduct"]
    read = read or set(last[-1:])
    if len(read) != 1:
        found = ", ".join(sorted(read)) or "none"
        raise CaffeFormatError(f"{net.file}: expected one blob of logits, found {found}: name it with logits=")
    return read.pop()


def _path_to(net: Net, blob: str) -> Iterator[tuple[str, Any, Layer]]:
    """Yields (top, param, layer) from the layer that computes a blob back to the data, along first bottoms."""
    makers: dict[str, list[tuple[Any, Layer]]] = {}
    for param, layer in net.sequence:
        for top in param.top:
            makers.setdefault(top, []).append((param, layer))
    if blob not in makers:
        raise CaffeFormatError(f'{net.file}: has no blob "{blob}"')
    while True:
        if not makers.get(blob):
            raise CaffeFormatError(f'{net.file}: no layer computes the blob "{blob}"')
        param, layer = makers[blob].pop()  # of layers that work in place, the last first
        yield blob, param, layer
        if not param.bottom:
            return
        blob = param.bottom[0]


class _PathReader:
    """Reads the layers of a path in order and collects a ``Description``.

    Attributes:
        path: the layers after the source of the frames.
        shape: the shape of the source's blob.
        time_major: whether the layer that is read next has time-major bottoms.
    """

    def __init__(self, net: Net, logits: str) -> None:
        self.net, self.logits = net, logits
        (blob, source, _), *rest = reversed(list(_path_to(net, logits)))
        self.path = [(param, layer) for _, param, layer in rest]
        self.shape = net.blob_shapes[blob]
        self.time_major = False
        self.found = Description()
        if source.type != "Input" and source.HasField("transform_param"):
            self.found.transform = source.transform_param

    def read(self, param: Any, layer: Any) -> None:
        last, recurrent = layer is self.path[-1][1], bool(self.found.recurrent)
        if param.type == "Split":
            return
        if param.type == "LSTM":
            self._read_lstm(param, layer)
        elif param.type == "InnerProduct" and last:
            self._read_head(param, layer)
        elif param.type == "Dropout" and recurrent:
            self.found.dropout_after = round(param.dropout_param.dropout_ratio, 7)
        elif recurrent:
            self._skip_after_lstm(param, layer)
        elif param.type == "Reshape" and not self.time_major:
            self._read_reshape(param, layer)
        elif param.type in CONVERTERS:
            if self.time_major and param.type != "Dropout":
                refuse(layer, "is between the Reshape to time-major and the LSTM")
            name = module_name(param.name)
            part, weights = CONVERTERS[param.type](param, layer, self.net.blob_shapes[param.bottom[0]])
            self.found.parts[name] = part
            self.found.weights.update({f"encoder.{name}.{key}": value for key, value in weights.items()})
        else:
            refuse(layer, "a frame encoder cannot contain this type")

    def _read_lstm(self, param: Any, layer: Any) -> None:
        found, H = self.found, param.recurrent_param.num_output
        if not found.recurrent and not self.time_major:
            self.time_major = True
            found.frame_shape = tuple(self.shape[2:]) or (1,)
            if found.parts:
                refuse(layer, "expected a Reshape to (T, N, features) before it")
        if param.recurrent_param.expose_hidden or len(param.bottom) != 2:
            refuse(layer, "expected an LSTM with only the bottoms x and cont")
        if found.recurrent:
            if found.hidden != H:
                refuse(layer, f"has {H} units, but the LSTM before it has {found.hidden}")
            if len(found.recurrent) > 1 and found.dropout != found.dropout_after:
                refuse(layer, "expected the same Dropout between all LSTMs")
            found.dropout, found.dropout_after = found.dropout_after, 0.0
        n = len(found.recurrent)
        w_x, b, w_h = (swap_gates(blob.detach()) for blob in layer.blobs)
        found.weights[f"temporal.weight_ih_l{n}"] = w_x
        found.weights[f"temporal.weight_hh_l{n}"] = w_h
        found.weights[f"temporal.bias_ih_l{n}"] = b
        found.weights[f"temporal.bias_hh_l{n}"] = torch.zeros_like(b)
        found.hidden = H
        found.recurrent.append(param.name)

    def _read_head(self, param: Any, layer: Any) -> None:
        found, weight = self.found, inner_product_weight(param, layer)
        bias = layer.blobs[1].detach() if param.inner_product_param.bias_term else torch.zeros(len(weight))
        found.weights["head.weight"], found.weights["head.bias"] = weight, bias
        found.head, found.num_classes = param.name, len(weight)
        if not found.recurrent:
            found.frame_shape = tuple(self.shape[1:])
            if found.parts:
                found.parts["flat"] = nn.Flatten

    def _skip_after_lstm(self, param: Any, layer: Any) -> None:
        """Accepts layers that only rearrange the steps; a Slice of the last steps is a question of labels."""
        axes = len(self.net.blob_shapes[param.bottom[0]])
        slices = param.type == "Slice" and layer.canonical_axis(param.slice_param.axis, axes) == 0
        if not slices and param.type not in ("Reshape", "Flatten"):
            refuse(layer, "expected Dropout and one InnerProduct, which computes the logits, after the LSTM")

    def _read_reshape(self, param: Any, layer: Any) -> None:
        bottom, top = self.net.blob_shapes[param.bottom[0]], self.net.blob_shapes[param.top[0]]
        if len(top) < 3 or top[0] * top[1] != bottom[0]:
            refuse(layer, f"expected a Reshape of ({bottom[0]}, ...) to (T, N, features), not to {top}")
        self.time_major, self.found.frame_shape = True, tuple(self.shape[1:])
        self.found.parts["flat"] = nn.Flatten
