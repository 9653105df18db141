"""Shapes, parameters, memory and operations of nets, and the settings of solvers, from their definitions."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from seqclf.caffe.formats.binary import cut, parse_binary
from seqclf.caffe.formats.files import is_text, read_bytes
from seqclf.caffe.formats.schema import Flavour, schema
from seqclf.caffe.formats.text import decode
from seqclf.caffe.layers import Shape
from seqclf.caffe.nets.net import Net
from seqclf.caffe.nets.weights import read_weights
from seqclf.caffe.policies import policy, single


@dataclass(frozen=True)
class LayerFigures:
    """Figures of one layer.

    Attributes:
        bottoms, tops: the names of its blobs.
        shapes: the shapes of its tops; empty if they are unknown.
        blobs: the shapes of its parameters.
        values: the number of parameter values, without those shared with an earlier layer.
        memory: bytes of the tops as float32, without tops that share another blob's memory.
        operations: of one forward pass, see ``Layer.operations``.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    shapes: tuple[Shape, ...]
    blobs: tuple[Shape, ...]
    values: int
    memory: int = 0
    operations: int = 0


def figures(net: Net) -> list[LayerFigures]:
    """Returns the figures of every layer of a net, or of a ``Sketch``."""
    shapes: dict[str, Shape] = {}
    found = []
    for param, layer in net.sequence:
        bottoms = [shapes[name] for name in param.bottom]
        tops = [tuple(shape) for shape in layer.top_shapes]
        shapes.update(zip(layer.top_names, tops, strict=True))
        new = [shape for top, shape in zip(layer.top_names, tops, strict=True) if top not in param.bottom]
        blobs = [tuple(blob.shape) for blob in layer.blobs]
        found.append(
            LayerFigures(
                param.name,
                param.type,
                tuple(param.bottom),
                tuple(param.top),
                tuple(tops),
                tuple(blobs),
                sum(prod(shape) for j, shape in enumerate(blobs) if j not in layer.shared),
                0 if layer.views else 4 * sum(map(prod, new)),
                layer.operations(bottoms, tops),
            )
        )
    return found


def figures_of_weights(path: str | Path, message: Any, flavour: Flavour = "bvlc") -> list[LayerFigures]:
    """Returns figures of the layers of a ``.caffemodel`` without shapes of tops, memory and operations.

    Use it if the net cannot be built because the file does not contain the shapes of its inputs.
    """
    weights = read_weights(path, flavour)
    return [
        LayerFigures(
            param.name,
            param.type,
            tuple(param.bottom),
            tuple(param.top),
            (),
            tuple(blob.shape for blob in weights.get(param.name, ())),
            sum(len(blob.data) for blob in weights.get(param.name, ())),
        )
        for param in message.layer
    ]


def saved_phase(path: str | Path, flavour: Flavour = "bvlc") -> str:
    """Returns the phase of the net that wrote a ``.caffemodel``; TEST if the file does not contain it."""
    rest, _ = cut(read_bytes(path), "NetParameter", str(path))
    message: Any = parse_binary(rest, schema(flavour).NetParameter(), str(path))
    phases = {layer.phase for layer in message.layer if layer.HasField("phase")}
    return "TRAIN" if phases == {0} else "TEST"


def is_solver(path: str | Path, flavour: Flavour = "bvlc") -> bool:
    """Returns whether a file is the prototxt of a solver: whether it sets fields that only solvers have."""
    data = read_bytes(path)
    if not is_text(data, str(path)):
        return False
    message: Any = schema(flavour).SolverParameter()
    with suppress(text_format.ParseError):  # the fields before the first error are enough
        text_format.Parse(decode(data, str(path)), message, allow_unknown_field=True)
    return any(field.name != "debug_info" for field, _ in message.ListFields())


def solver_settings(param: Any) -> list[str]:
    """Returns the fields of a ``SolverParameter`` as lines of text, without the nets that it contains."""
    plain = type(param)()
    plain.CopyFrom(param)
    for field in ("net_param", "train_net_param", "test_net_param"):
        plain.ClearField(field)
    plain.type = param.type  # print the default, too
    return text_format.MessageToString(plain).splitlines()


def learning_rates(param: Any) -> list[tuple[int, float]]:
    """Returns pairs (iteration, learning rate) of a ``SolverParameter``.

    The iterations are those at which the rate changes in steps, or else evenly spaced ones, and the last.

    Raises:
        CaffeFormatError: the policy is unknown or lacks a field.
    """
    schedule, last = policy(param).schedule, max(0, param.max_iter - 1)
    at = [last * i // 4 for i in range(5)]
    if param.lr_policy == "fixed":
        at = [0]
    elif param.lr_policy == "multistep":
        at = [0, *param.stepvalue, last]
    elif param.lr_policy == "step":
        at = [*range(0, last + 1, param.stepsize)[:8], last]
    return [(i, single(param.base_lr * schedule(i, param.max_iter))) for i in sorted(set(at)) if i <= last]
