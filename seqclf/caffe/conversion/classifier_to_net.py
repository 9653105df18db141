"""Conversion of classifiers to Caffe nets in the form of LRCN's deploy files. ``to_classifier`` is the inverse."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seqclf import models
from seqclf.caffe.conversion.modules_to_layers import to_layer, weight_and_bias
from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.formats.schema import schema
from seqclf.caffe.layers.recurrent import swap_gates
from seqclf.caffe.nets.load import build_net
from seqclf.caffe.nets.net import Net


def from_classifier(
    model: models.FrameSequenceClassifier,
    frames: int = 16,
    streams: int = 1,
    name: str = "seqclf",
    lstm: str = "lstm",
    head: str = "fc-final",
    flavour: str = "bvlc",
) -> Net:
    """Converts a classifier to a Caffe net. Write its prototxt and weights with ``save_net``.

    The inputs of the net are ``data`` and the clip markers ``cm`` (T*N), which are 0 where a sequence begins. ``data``
    holds preprocessed frames (``model.preprocess(frames)``): images (T*N, C, H, W), where row t*N + n is step t of
    stream n, or vectors (T, N, D). The output is ``probs`` (T, N, K).

    Args:
        model: a classifier whose encoder is a ``Flatten``, or a ``Chain`` or ``Sequential`` of modules that
            ``to_classifier`` can produce; with an LSTM or no temporal model; and with a linear head.
        frames, streams: T and N, which are part of the prototxt.
        name: the net's name.
        lstm, head: names of the layers after the encoder. Several LSTM layers are numbered from 1. The encoder's layers
            are named like its modules.
        flavour: the fork of Caffe that reads the net, "bvlc" or "lisa".

    Raises:
        CaffeFormatError: a part of the model has no counterpart in Caffe; the message names it.
    """
    if model.frame_shape is None:
        raise CaffeFormatError("the classifier has no frame shape: build it with frame_shape= to convert it")
    if model.refine:
        raise CaffeFormatError("refine: a classifier with refinement stages cannot be converted")
    writer = _NetWriter(name, frames, streams, flavour)
    vectors = isinstance(model.encoder, models.Flatten)
    inputs = writer.add_inputs(model.frame_shape, vectors)
    if not vectors:
        writer.add_encoder(model.encoder, model.frame_shape)
    if isinstance(model.temporal, models.LSTM):
        writer.add_lstm(model.temporal, lstm)
    elif isinstance(model.temporal, models.Identity):
        inputs.top.pop()
        inputs.input_param.shape.pop()
    else:
        kind = type(model.temporal).__name__
        raise CaffeFormatError(f"temporal: a {kind} cannot be converted, expected an LSTM or Identity")
    writer.add_head(model.head, head)
    return writer.build()


class _NetWriter:
    """Collects the layers and weights of a net; ``blob`` is the top of the last layer on the path."""

    def __init__(self, name: str, frames: int, streams: int, flavour: str) -> None:
        self.name, self.frames, self.streams, self.flavour = name, frames, streams, flavour
        self.net = schema(flavour).NetParameter(name=name)
        self.weights: dict[str, list[Tensor]] = {}
        self.blob = "data"

    def add(self, kind: str, name: str, bottoms: list[str], top: str, *blobs: Tensor, **settings: Any) -> None:
        self.net.layer.add(name=name, type=kind, bottom=bottoms, top=[top], **settings)
        if blobs:
            self.weights[name] = [blob.detach() for blob in blobs]

    def append(self, kind: str, name: str, top: str, *blobs: Tensor, **settings: Any) -> None:
        """Adds a layer that reads the last blob of the path."""
        self.add(kind, name, [self.blob], top, *blobs, **settings)
        self.blob = top

    def add_inputs(self, frame_shape: tuple[int, ...], vectors: bool) -> Any:
        rows = [self.frames, self.streams] if vectors else [self.frames * self.streams]
        inputs = self.net.layer.add(name="input", type="Input", top=["data", "cm"])
        inputs.input_param.shape.add(dim=[*rows, *frame_shape])
        inputs.input_param.shape.add(dim=[self.frames * self.streams])
        return inputs

    def add_encoder(self, encoder: nn.Module, frame_shape: tuple[int, ...]) -> None:
        if not isinstance(encoder, nn.Sequential):
            raise CaffeFormatError(
                f"encoder: a {type(encoder).__name__} cannot be converted, expected a Chain or Flatten"
            )
        with torch.no_grad():
            probe = torch.empty(1, *frame_shape, device="meta")
        for name, module in encoder.named_children():
            if isinstance(module, nn.Flatten):
                probe = probe.flatten(1)
                continue
            if isinstance(module, models.Chain):  # a Flatten and a Linear, which together are one InnerProduct
                module = module[-1]
            kind, settings, blobs = to_layer(name, module)
            in_place = kind in ("ReLU", "Dropout", "Sigmoid", "TanH") and self.blob != "data"
            self.append(kind, name, self.blob if in_place else name, *blobs, **settings)
            probe = _run_on_meta(module, probe)
        shape: Any = {"shape": {"dim": [self.frames, self.streams, probe[0].numel()]}}
        self.append("Reshape", "reshape-data", "reshape-data", reshape_param=shape)

    def add_lstm(self, lstm: models.LSTM, name: str) -> None:
        if lstm.extensions():
            used = " and ".join(lstm.extensions())
            raise CaffeFormatError(
                f"temporal: an LSTM with {used} cannot be converted, as Caffe's LSTM has no such option"
            )
        shape: Any = {"shape": {"dim": [self.frames, self.streams]}}
        self.add("Reshape", "reshape-cm", ["cm"], "reshape-cm", reshape_param=shape)
        H, layers = lstm.hidden_size, lstm.num_layers
        for n in range(layers):
            w_x, w_h, b_x, b_h = (
                lstm.get_parameter(f"{kind}_l{n}") for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            layer = name if layers == 1 else f"{name}{n + 1}"
            blobs = [swap_gates(w) for w in (w_x, b_x + b_h, w_h)]
            self.add("LSTM", layer, [self.blob, "reshape-cm"], layer, *blobs, recurrent_param={"num_output": H})
            self.blob = layer
            ratio = lstm.dropout_between if n + 1 < layers else lstm.dropout_after
            if ratio:
                self.append("Dropout", f"drop-{layer}", layer, dropout_param={"dropout_ratio": ratio})

    def add_head(self, head: nn.Module, name: str) -> None:
        if not isinstance(head, nn.Linear):
            raise CaffeFormatError(f"head: a {type(head).__name__} cannot be converted, expected a Linear")
        settings: Any = {"num_output": head.out_features, "axis": 2, "bias_term": head.bias is not None}
        self.append("InnerProduct", name, name, *weight_and_bias(head), inner_product_param=settings)
        self.append("Softmax", "probs", "probs", softmax_param={"axis": 2})

    def build(self) -> Net:
        net = build_net(self.net, self.name, None, "TEST", self.flavour)
        with torch.no_grad():
            for name, blobs in self.weights.items():
                for target, blob in zip(net.params[name], blobs, strict=True):
                    target.copy_(blob.view(target.shape))
        return net


def _run_on_meta(module: nn.Module, probe: Tensor) -> Tensor:
    """The output of a module for a meta tensor, computed without the module's own parameters."""
    if isinstance(module, nn.Linear):
        return probe.new_empty(len(probe), module.out_features)
    if isinstance(module, nn.Conv2d):
        weight = torch.empty(module.weight.shape, device="meta")
        return nn.functional.conv2d(probe, weight, None, module.stride, module.padding, module.dilation, module.groups)
    return module(probe) if isinstance(module, (nn.MaxPool2d, nn.AvgPool2d)) else probe
