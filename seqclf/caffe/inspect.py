"""What a net is and costs, told from its definition alone: nothing is allocated, no data are needed.

Operations are counted by the definition of each layer: a multiplication with its addition is 2, whatever else is done
to a value (a comparison, a division, an exponential) is 1. Biases, copies and what is done once per channel are 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from google.protobuf import text_format

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.files import cut, is_text, parse_binary, read_bytes
from seqclf.caffe.graph import filter_layers
from seqclf.caffe.layers import Layer, Shape, Surroundings
from seqclf.caffe.net import Net, read_weights
from seqclf.caffe.policies import policy, single
from seqclf.caffe.schema import Flavour, schema
from seqclf.caffe.solver import Solver

Python = Mapping[str, Callable[..., Any]]

# ---- nets without their data


class Given(Layer):
    """Stands in for a layer that gives a net its data: it has the shapes of the tops, and nothing else."""

    bottoms = (0, 0)
    tops = (1, None)

    def setup(self, shapes: list[Shape]) -> list[Shape]:
        return shapes


class Sketch(Net):
    """A net whose data need not be there.

    A layer without bottoms is stood in for where shapes are given for its tops, or where it can't open what it reads
    but its settings say the shapes of its pictures. On PyTorch's meta device its parameters take no memory.

    Args:
        shapes: shapes of tops of such layers by name, instead of those that the layers say or find.

    Attributes:
        notes: a sentence for each layer whose shapes are taken from its settings.
    """

    def __init__(
        self,
        message: Any,
        phase: str = "TEST",
        flavour: Flavour = "bvlc",
        file: str = "net",
        shapes: Mapping[str, Sequence[int]] | None = None,
        python: Python | None = None,
    ) -> None:
        self.given = {top: tuple(shape) for top, shape in (shapes or {}).items()}
        self.notes: list[str] = []
        super().__init__(message, phase, flavour, file, python)
        sources = {top for param, layer in self.sequence if not param.bottom for top in param.top}
        unknown = sorted(set(self.given) - sources)
        if unknown:
            told = ", ".join(sorted(sources)) or "none"
            raise CaffeFormatError(f"{file}: shapes are given for {', '.join(unknown)}; the net's data are {told}")

    def _build(self, param: Any, surroundings: Surroundings) -> Layer:
        if param.bottom or param.type == "Parameter":
            return super()._build(param, surroundings)
        given = [self.given.get(top) for top in param.top]
        shapes = [shape for shape in given if shape is not None]
        if len(shapes) == len(given):
            return Given(param, shapes, surroundings)
        try:
            with torch.device("cpu"):  # what reads data works with numbers
                layer = super()._build(param, surroundings)
            found = layer.top_shapes
        except CaffeFormatError as error:
            found = _by_settings(param)
            if not found:
                wanted = " ".join(f"--shape {top}=..." for top in param.top)
                raise CaffeFormatError(f"{error} (or say what it gives: {wanted})") from None
            told = ", ".join(f"{top} {shape}" for top, shape in zip(param.top, found, strict=True))
            self.notes.append(f"{error}; taken to give {told}")
            layer = Given(param, found, surroundings)
        if shapes:
            layer = Given(param, [a or b for a, b in zip(given, found, strict=True)], surroundings)
        return layer


_PICTURES = {"Data": "data_param", "ImageData": "image_data_param", "WindowData": "window_data_param"}


def _by_settings(param: Any) -> list[Shape]:
    """The shapes of a layer's pictures and labels where its settings fix their size; in colour, unless they deny it."""
    if param.type not in _PICTURES:
        return []
    p, t = getattr(param, _PICTURES[param.type]), param.transform_param
    crop = t.crop_size or p.crop_size
    height, width = (crop, crop) if crop else (getattr(p, "new_height", 0), getattr(p, "new_width", 0))
    grey = not getattr(p, "is_color", True) or getattr(t, "force_gray", False)
    if not (p.batch_size and height and width) or len(param.top) > 2:
        return []
    return [(p.batch_size, 1 if grey else 3, height, width), (p.batch_size,)][: len(param.top)]


def sketch(
    message: Any,
    file: str,
    phase: str = "TEST",
    flavour: Flavour = "bvlc",
    level: int = 0,
    stages: Sequence[str] = (),
    shapes: Mapping[str, Sequence[int]] | None = None,
    python: Python | None = None,
) -> Sketch:
    """A net of an upgraded ``NetParameter``, whose layers are left as they are in the phase; see ``Sketch``.

    Raises:
        CaffeFormatError: as of ``load_net``; shapes are given for what is not the net's data.
    """
    filter_layers(message, phase, level, tuple(stages), file)
    return Sketch(message, phase, flavour, file, shapes, python)


class SolverSketch(Solver):
    """A solver whose nets are sketches on the meta device."""

    def __init__(
        self,
        param: Any,
        file: str,
        flavour: Flavour = "bvlc",
        shapes: Mapping[str, Sequence[int]] | None = None,
        python: Python | None = None,
    ) -> None:
        self.shapes = shapes or {}
        with torch.device("meta"):
            super().__init__(param, file, flavour, "meta", python)

    def _net(self, message: Any, file: str, phase: str, state: Any, python: Any) -> Net:
        return sketch(message, file, phase, self.flavour, state.level, tuple(state.stage), self.shapes, python)


# ---- figures


@dataclass(frozen=True)
class LayerFigures:
    """One layer, in figures.

    Attributes:
        bottoms, tops: the names of its blobs.
        shapes: of the tops; empty where they are not known.
        blobs: the shapes of its parameters.
        values: how many values those are that belong to no earlier layer.
        memory: bytes of the tops that are no other blob's memory, as float32.
        operations: of one forward pass; see above.
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
    """Every layer of a net, in figures."""
    shapes: dict[str, Shape] = {}
    found = []
    for param, layer in net.sequence:
        below = [shapes[name] for name in param.bottom]
        above = [tuple(shape) for shape in layer.top_shapes]
        shapes.update(zip(layer.top_names, above, strict=True))
        new = [s for top, s in zip(layer.top_names, above, strict=True) if top not in param.bottom]
        blobs = [tuple(blob.shape) for blob in layer.blobs]
        found.append(
            LayerFigures(
                param.name,
                param.type,
                tuple(param.bottom),
                tuple(param.top),
                tuple(above),
                tuple(blobs),
                sum(prod(shape) for j, shape in enumerate(blobs) if j not in layer.shared),
                0 if param.type in _VIEWS else 4 * sum(map(prod, new)),
                0 if isinstance(layer, Given) else OPERATIONS[param.type](layer, below, above),
            )
        )
    return found


def figures_of_weights(path: str | Path, message: Any, flavour: Flavour = "bvlc") -> list[LayerFigures]:
    """The layers of a ``.caffemodel`` by what it says alone: blobs' shapes, not those of tops."""
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
    """The phase of the net that a ``.caffemodel`` was saved of; TEST where it does not say."""
    rest, _ = cut(read_bytes(path), "NetParameter", str(path))
    message: Any = parse_binary(rest, schema(flavour).NetParameter(), str(path))
    phases = {layer.phase for layer in message.layer if layer.HasField("phase")}
    return "TRAIN" if phases == {0} else "TEST"


def misfits(net: Net, path: str | Path) -> list[str]:
    """A sentence for every parameter that a file of weights lacks, has too much, or has in another shape.

    Raises:
        CaffeFormatError: the file is missing or damaged.
    """
    found = read_weights(path, net.flavour)
    told = []
    for name, blobs in net.params.items():
        mine = [tuple(blob.shape) for blob in blobs]
        if name not in found:
            told.append(f'layer "{name}": no weights for it, expected {_shapes(mine)}')
        elif len(found[name]) != len(mine):
            told.append(f'layer "{name}": has {len(found[name])} blobs, expected {_shapes(mine)}')
        else:
            for j, (blob, shape) in enumerate(zip(found[name], mine, strict=True)):
                if not blob.fits(shape):
                    told.append(f'layer "{name}": blob {j} has shape {blob.shape}, expected {shape}')
    for name, theirs in found.items():
        if theirs and name not in net.params:
            there = any(param.name == name for param, _ in net.sequence)
            what = "the net's layer has no parameters" if there else "the net has no such layer"
            told.append(f'layer "{name}": has {_shapes([blob.shape for blob in theirs])}, but {what}')
    return told


def _shapes(shapes: Sequence[Shape]) -> str:
    return ", ".join(map(str, shapes))


def mapping(net: Net, classifier: Any) -> list[str]:
    """A line for every layer of a net: what it is in the classifier that ``to_classifier`` made of it."""
    encoder, head = dict(classifier.encoder.named_children()), classifier.get_parameter("head.weight")
    lstms, told = 0, []
    for param, layer in net.sequence:
        name = param.name.replace(".", "_")
        if name in encoder:
            becomes = f"encoder.{name}: {' '.join(str(encoder[name]).split())}"
        elif param.type == "LSTM":
            becomes, lstms = f"temporal, its layer {lstms}", lstms + 1
        elif param.type == "InnerProduct" and any(torch.equal(w, head) for w in (layer.blobs[0], layer.blobs[0].t())):
            becomes = "head"
        elif param.type == "Dropout":
            becomes = "temporal, its dropout"
        elif not param.bottom:
            becomes = "the classifier's arguments"
        elif param.type in _VIEWS or param.type == "Slice":
            becomes = "nothing: a classifier is batch first"
        else:
            becomes = "nothing: a classifier ends with its logits"
        told.append(f"{param.name} ({param.type}) -> {becomes}")
    return told


# ---- solvers


def is_solver(path: str | Path, flavour: Flavour = "bvlc") -> bool:
    """Whether a file is a solver's prototxt rather than a net's: whether it has fields that only a solver's has."""
    data = read_bytes(path)
    if not is_text(data, str(path)):
        return False
    message: Any = schema(flavour).SolverParameter()
    with suppress(text_format.ParseError):  # what was read up to a mistake tells enough
        text_format.Parse(bytes(data).decode(), message, allow_unknown_field=True)
    return any(field.name != "debug_info" for field, _ in message.ListFields())


def settings(param: Any) -> list[str]:
    """What a ``SolverParameter`` says, a line each, without the nets that it may hold."""
    plain = type(param)()
    plain.CopyFrom(param)
    for field in ("net_param", "train_net_param", "test_net_param"):
        plain.ClearField(field)
    plain.type = param.type  # its default too
    return text_format.MessageToString(plain).splitlines()


def rates(param: Any) -> list[tuple[int, float]]:
    """The learning rate of a ``SolverParameter`` at some iterations: where it steps, or evenly spread, and the last.

    Raises:
        CaffeFormatError: the policy is not known, or lacks a field.
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


# ---- operations

Count = Callable[[Any, list[Shape], list[Shape]], int]
"""From a layer and the shapes of its bottoms and tops to how many operations its forward pass is."""

_VIEWS = {"Flatten", "Reshape", "Silence", "Split"}
"""Types of layers whose tops are the bottom's memory."""


def _none(layer: Any, below: list[Shape], above: list[Shape]) -> int:
    return 0


def _each(operations: int) -> Count:
    """So many for each value of the first bottom."""
    return lambda layer, below, above: operations * prod(below[0])


def _convolution(layer: Any, below: list[Shape], above: list[Shape]) -> int:
    return 2 * prod(layer.blobs[0].shape[1:]) * sum(map(prod, above))


def _deconvolution(layer: Any, below: list[Shape], above: list[Shape]) -> int:
    return 2 * prod(layer.blobs[0].shape[1:]) * sum(map(prod, below))


def _inner_product(layer: Any, below: list[Shape], above: list[Shape]) -> int:
    return 2 * layer.inputs * prod(above[0])


def _recurrent(layer: Any, below: list[Shape], above: list[Shape]) -> int:
    """The products of all weights at every step (the static input's once), and the units' own arithmetic."""
    (T, N), H = below[0][:2], layer.H
    static = layer.blobs[2].numel() if layer.static is not None else 0
    products = sum(blob.numel() for blob in layer.blobs if blob.dim() == 2) - static
    return 2 * N * (T * products + static) + T * N * H * (11 if layer.param.type == "LSTM" else 3)


def _pooling(layer: Any, below: list[Shape], above: list[Shape]) -> int:
    return prod(layer.kernel or below[0][2:]) * prod(above[0])


def _pyramid(layer: Any, below: list[Shape], above: list[Shape]) -> int:
    return layer.param.spp_param.pyramid_height * prod(below[0])


def _lrn(layer: Any, below: list[Shape], above: list[Shape]) -> int:
    p = layer.param.lrn_param
    return (5 + p.local_size ** (1 if p.norm_region == p.ACROSS_CHANNELS else 2)) * prod(below[0])


def _eltwise(layer: Any, below: list[Shape], above: list[Shape]) -> int:
    terms = len(below) - layer.coeff_blob
    weighted = bool(layer.param.eltwise_param.coeff) or layer.coeff_blob
    return (2 * terms if weighted else terms - 1) * prod(above[0])


def _batch_norm(layer: Any, below: list[Shape], above: list[Shape]) -> int:
    p = layer.param.batch_norm_param
    stored = p.use_global_stats if p.HasField("use_global_stats") else not layer.training
    return (2 if stored else 5) * prod(below[0])


def _mvn(layer: Any, below: list[Shape], above: list[Shape]) -> int:
    return (5 if layer.param.mvn_param.normalize_variance else 2) * prod(below[0])


def _dropout(layer: Any, below: list[Shape], above: list[Shape]) -> int:
    return prod(below[0]) if layer.training else 0


def _scale(layer: Any, below: list[Shape], above: list[Shape]) -> int:
    return (2 if layer.param.scale_param.bias_term else 1) * prod(below[0])


OPERATIONS: dict[str, Count] = {
    "AbsVal": _each(1),
    "Accuracy": _each(1),
    "ArgMax": _each(1),
    "BNLL": _each(1),
    "BatchNorm": _batch_norm,
    "BatchReindex": _none,
    "Bias": _each(1),
    "Clip": _each(1),
    "Concat": _none,
    "ContrastiveLoss": _each(3),
    "Convolution": _convolution,
    "Crop": _none,
    "Data": _none,
    "Deconvolution": _deconvolution,
    "Dropout": _dropout,
    "DummyData": _none,
    "ELU": _each(1),
    "Eltwise": _eltwise,
    "Embed": _none,
    "EuclideanLoss": _each(3),
    "Exp": _each(3),
    "Filter": _none,
    "Flatten": _none,
    "HDF5Data": _none,
    "HDF5Output": _none,
    "HingeLoss": _each(3),
    "Im2col": _none,
    "ImageData": _none,
    "InfogainLoss": _each(7),
    "InnerProduct": _inner_product,
    "Input": _none,
    "LRN": _lrn,
    "LSTM": _recurrent,
    "LSTMUnit": _each(10),
    "Log": _each(3),
    "MVN": _mvn,
    "MemoryData": _none,
    "MultinomialLogisticLoss": _none,
    "PReLU": _each(2),
    "Parameter": _none,
    "Pooling": _pooling,
    "Power": _each(3),
    "Python": _none,
    "RNN": _recurrent,
    "ReLU": _each(1),
    "Reduction": _each(1),
    "Reshape": _none,
    "SPP": _pyramid,
    "Scale": _scale,
    "Sigmoid": _each(1),
    "SigmoidCrossEntropyLoss": _each(5),
    "Silence": _none,
    "Slice": _none,
    "Softmax": _each(5),
    "SoftmaxWithLoss": _each(5),
    "Split": _none,
    "Swish": _each(3),
    "TanH": _each(1),
    "Threshold": _each(1),
    "Tile": _none,
}
"""By layer type, every type of ``LAYERS``."""
