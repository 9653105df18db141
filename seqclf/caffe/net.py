"""Caffe nets as PyTorch modules: loaded from a prototxt and weights, called by blob names, saved as Caffe does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from google.protobuf import text_format
from torch import Tensor, nn

from seqclf.caffe import hdf5
from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.files import (
    Blob,
    blob_of,
    cut,
    head,
    is_text,
    parse_binary,
    read_bytes,
    read_message,
    with_blobs,
    write_file,
)
from seqclf.caffe.graph import check_graph, filter_layers, insert_splits
from seqclf.caffe.layers import LAYERS, Layer, Shape, Surroundings
from seqclf.caffe.schema import schema
from seqclf.caffe.upgrade import read_upgraded, upgrade_net

PHASES = ("TRAIN", "TEST")
FAILURES = (ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)
"""What is raised in a layer that can't do with its settings, its shapes or the files that it reads."""


class Net(nn.Module):
    """A Caffe net in one phase.

    Called with its inputs by name, it gives every blob by name; it is differentiable, and its mode (``train()``,
    ``eval()``) is Caffe's phase. Recurrent layers go on from where the last call left off, as in Caffe, wherever
    ``cont`` is not 0; ``reset_state()`` forgets.

    Attributes:
        message: the ``NetParameter``, in today's form, with the layers of this phase.
        params: each layer's parameters by the layer's name, in Caffe's order and shapes.
        inputs, outputs: the names of the blobs that are given, and of those that no layer reads.
        blob_shapes: the shape of every blob, at the sizes that the prototxt says.
        loss_weights: by blob, what it counts for in the loss.
        multipliers: for each parameter that is learned, its ``lr_mult`` and ``decay_mult``.
    """

    def __init__(
        self,
        message: Any,
        phase: str = "TEST",
        flavour: str = "bvlc",
        file: str = "net",
        python: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        super().__init__()
        self.message, self.flavour, self.file = message, flavour, file
        self.outputs = check_graph(message, file)
        self.inputs: list[str] = []
        self.blob_shapes: dict[str, Shape] = {}
        self.loss_weights: dict[str, float] = {}
        self.params: dict[str, nn.ParameterList] = {}
        self.multipliers: list[tuple[nn.Parameter, float, float]] = []
        self.sequence: list[tuple[Any, Layer]] = []
        surroundings = Surroundings(file, flavour, python or {})  # type: ignore[arg-type]
        owners: dict[str, tuple[Any, nn.Parameter]] = {}
        for i, param in enumerate(message.layer):
            layer = self._build(param, surroundings)
            self.add_module(f"{i}_{param.name.replace('.', '_')}", layer)
            self.sequence.append((param, layer))
            if layer.is_loss and not layer.top_names:
                layer.top_names.append(f"(automatic {i})")
            self.blob_shapes.update(zip(layer.top_names, layer.top_shapes, strict=True))
            if param.type == "Input":
                self.inputs += param.top
            self._add_params(param, layer, owners)
            for j, top in enumerate(layer.top_names):
                default = 1.0 if layer.is_loss and j == 0 else 0.0
                weight = param.loss_weight[j] if j < len(param.loss_weight) else default
                if weight:
                    self.loss_weights[top] = weight
        named = Counter(param.name for param, _ in self.sequence)
        for name in self.params:
            if named[name] > 1:
                raise CaffeFormatError(
                    f'{file}: layer "{name}": {named[name]} layers have this name, expected one, as it has parameters'
                )
        self.train(phase == "TRAIN")

    def train(self, mode: bool = True) -> Net:
        """Goes to Caffe's TRAIN phase, or its TEST; a layer whose own ``phase`` is said keeps to it."""
        super().train(mode)
        for param, layer in self.sequence:
            if param.HasField("phase"):
                layer.train(PHASES[param.phase] == "TRAIN")
        return self

    def _build(self, param: Any, surroundings: Surroundings) -> Layer:
        where = f'{self.file}: layer "{param.name}"'
        if param.type not in LAYERS:
            what = f"unknown type {param.type!r}" if param.HasField("type") else "field type is missing"
            raise CaffeFormatError(f"{where}: {what}; the types are {', '.join(sorted(LAYERS))}")
        tops = max(len(param.top), int(LAYERS[param.type].is_loss))
        if len(param.loss_weight) not in (0, tops):
            raise CaffeFormatError(
                f"{where}: field loss_weight: has {len(param.loss_weight)} values, expected one for each of {tops} tops"
            )
        if len(param.propagate_down) not in (0, len(param.bottom)):
            raise CaffeFormatError(
                f"{where}: field propagate_down: has {len(param.propagate_down)} values, "
                f"expected one for each of {len(param.bottom)} bottoms"
            )
        try:
            return LAYERS[param.type](param, [self.blob_shapes[b] for b in param.bottom], surroundings)
        except FAILURES as error:
            raise CaffeFormatError(
                f"{where} ({param.type}): can't be built ({type(error).__name__}: {error})"
            ) from error

    def _add_params(self, param: Any, layer: Layer, owners: dict[str, tuple[Any, nn.Parameter]]) -> None:
        """Parameters by layer, shared where they have one name (Net::AppendParam), with their multipliers."""
        if not len(layer.blobs):
            if len(param.param):
                layer.fail(f"field param: has {len(param.param)} entries, but the layer has no parameters")
            return
        if len(param.param) > len(layer.blobs):
            layer.fail(f"field param: has {len(param.param)} entries, but the layer has {len(layer.blobs)} parameters")
        self.params[param.name] = layer.blobs
        for j in range(len(layer.blobs)):
            spec = param.param[j] if j < len(param.param) else None
            name = spec.name if spec is not None else ""
            if name in owners and name:
                self._share(layer, j, spec, *owners[name])
                continue
            blob = layer.blobs[j]
            lr = 0.0 if layer.statistics else spec.lr_mult if spec is not None else 1.0
            decay = spec.decay_mult if spec is not None else 1.0
            if layer.statistics and spec is not None and spec.lr_mult:
                layer.fail("its parameters are statistics, so their lr_mult must be 0")
            blob.requires_grad_(lr != 0)
            self.multipliers.append((blob, lr, decay))
            if spec is not None and name:  # a copy: what sharers add to it is none of its layer's message
                owners[name] = (type(spec).FromString(spec.SerializeToString()), blob)

    def _share(self, layer: Layer, j: int, spec: Any, owner: Any, blob: nn.Parameter) -> None:
        mine = layer.blobs[j]
        permissive = spec.share_mode == 1
        if mine.shape != blob.shape and not (permissive and mine.numel() == blob.numel()):
            layer.fail(
                f'shares parameter "{spec.name}" of shape {tuple(blob.shape)}, '
                f"but its own blob {j} is {tuple(mine.shape)}"
            )
        for field in ("lr_mult", "decay_mult"):
            if spec.HasField(field):
                if owner.HasField(field) and getattr(owner, field) != getattr(spec, field):
                    layer.fail(
                        f'shares parameter "{spec.name}" with {field} {getattr(spec, field):g}, its owner has '
                        f"{getattr(owner, field):g}"
                    )
                if not owner.HasField(field):
                    setattr(owner, field, getattr(spec, field))
                    at = next(i for i, entry in enumerate(self.multipliers) if entry[0] is blob)
                    self.multipliers[at] = (blob, owner.lr_mult, owner.decay_mult)
                    blob.requires_grad_(owner.lr_mult != 0)
        layer.share(j, blob)

    def forward(self, **inputs: Any) -> dict[str, Tensor]:
        """Every blob of the net, by name.

        Args:
            inputs: the net's inputs by name, tensors or arrays in Caffe's layout (recurrent blobs time-major). Sizes
                other than the prototxt's are fine where the layers can take them. A net whose data layers give all
                takes none.

        Returns:
            the tops of all layers; where layers work in place, as the last of them left the blob.

        Raises:
            CaffeFormatError: an input is missing or unknown; a layer can't take what it is given.
        """
        return self.compute(inputs)

    def compute(self, inputs: Mapping[str, Any], keep: Iterable[str] | None = None) -> dict[str, Tensor]:
        """As calling the net; with ``keep``, only these blobs are held on to (less memory) and given."""
        if set(inputs) != set(self.inputs):
            missing, unknown = sorted(set(self.inputs) - set(inputs)), sorted(set(inputs) - set(self.inputs))
            raise CaffeFormatError(
                f"{self.file}: expected the inputs {', '.join(self.inputs) or '(none)'}"
                + (f"; missing: {', '.join(missing)}" if missing else "")
                + (f"; unknown: {', '.join(unknown)}" if unknown else "")
            )
        like = next(self.parameters(), torch.empty(0))
        last: dict[str, int] = {}
        if keep is not None:
            wanted = set(keep)
            if not wanted <= set(self.blob_shapes):
                raise CaffeFormatError(f"{self.file}: has no blob {', '.join(sorted(wanted - set(self.blob_shapes)))}")
            last = {
                b: i
                for i, (param, layer) in enumerate(self.sequence)
                for b in (*param.bottom, *layer.top_names)
                if b not in wanted
            }
        blobs: dict[str, Tensor] = {}
        for i, (param, layer) in enumerate(self.sequence):
            if param.type == "Input":
                tops: Sequence[Tensor] = [
                    torch.as_tensor(inputs[t], dtype=like.dtype, device=like.device) for t in param.top
                ]
            else:
                bottoms = [blobs[bottom] for bottom in param.bottom]
                for j, down in enumerate(param.propagate_down):
                    if not down:
                        bottoms[j] = bottoms[j].detach()
                try:
                    out = layer(*bottoms)
                except torch.OutOfMemoryError:
                    raise
                except FAILURES as error:
                    shapes = ", ".join(
                        f"{name} {tuple(b.shape)}" for name, b in zip(param.bottom, bottoms, strict=True)
                    )
                    raise CaffeFormatError(
                        f'{self.file}: layer "{param.name}" ({param.type}): '
                        f"can't take {shapes or 'what it reads'} ({error})"
                    ) from error
                tops = out if isinstance(out, tuple) else (out,)
                if not param.bottom:
                    tops = [top.to(like.device, like.dtype, non_blocking=True) for top in tops]
            blobs.update(zip(layer.top_names, tops, strict=True))
            for name in (*param.bottom, *layer.top_names) if last else ():
                if last.get(name) == i:
                    del blobs[name]
        return blobs

    def loss(self, blobs: Mapping[str, Tensor]) -> Tensor:
        """The net's loss ``()``, the sum of its blobs by ``loss_weight``; without any, 0 (Net::ForwardFromTo)."""
        terms = [weight * blobs[name].sum() for name, weight in self.loss_weights.items()]
        return torch.stack(terms).sum() if len(terms) > 1 else terms[0] if terms else torch.zeros(())

    def reset_state(self) -> None:
        """Forgets what recurrent layers kept of earlier calls."""
        for _, layer in self.sequence:
            if hasattr(layer, "state"):
                layer.state = None  # type: ignore[assignment]

    def load_weights(self, path: str | Path, strict: bool = True) -> tuple[list[str], list[str]]:
        """Copies trained parameters into the layers of the same name (Net::CopyTrainedLayersFrom).

        Args:
            path: a ``.caffemodel``, or HDF5 (``.h5``).
            strict: whether layers that the file lacks, and parameters in it that no layer takes, are an error.

        Returns:
            the layers that the file does not fill, and those in it that the net lacks.

        Raises:
            CaffeFormatError: the file is damaged; a parameter has another shape or number; with ``strict``, see there.
        """
        found = read_weights(path, self.flavour)
        shared = {param.name: layer.shared for param, layer in self.sequence}
        missing, unread = [name for name in self.params if name not in found], []
        for name, blobs in found.items():
            mine = self.params.get(name)
            if mine is None:
                if any(param.name == name for param, _ in self.sequence) and blobs:
                    raise CaffeFormatError(f'{path}: layer "{name}": has {len(blobs)} blobs, the net\'s has none')
                if blobs:
                    unread.append(name)
                continue
            absent = {j for j, blob in enumerate(blobs) if blob.absent}
            if Path(path).suffix == ".h5":  # which leaves out what another layer owns
                absent |= {j for j in shared[name] if j >= len(blobs)}
            if len(set(range(len(blobs))) | absent) != len(mine) or not absent <= shared[name]:
                there = len(blobs) - sum(blob.absent for blob in blobs)
                raise CaffeFormatError(f'{path}: layer "{name}": has {there} blobs, expected {len(mine)}')
            for j, blob in enumerate(blobs):
                shape = tuple(mine[j].shape)
                if not (blob.fits(shape) or blob.absent):
                    raise CaffeFormatError(f'{path}: layer "{name}": blob {j} has shape {blob.shape}, expected {shape}')
        if strict and (missing or unread):
            told = [f"it has no weights for layer {', '.join(missing)}"] if missing else []
            told += [f"the net has no layer {', '.join(unread)}, which it has weights for"] if unread else []
            raise CaffeFormatError(f"{path}: {'; '.join(told)} (strict=False takes what there is)")
        for name, blobs in found.items():
            for blob, mine_j in zip(blobs, self.params.get(name, ()), strict=False):
                if not blob.absent:
                    copy_blob(blob, mine_j)
        return missing, unread

    def share(self, other: Net) -> None:
        """Takes the parameters of another net's layers of the same name for its own (Net::ShareTrainedLayersWith)."""
        named = {param.name: layer.blobs for param, layer in reversed(other.sequence)}
        for param, layer in self.sequence:
            theirs = named.get(param.name)
            if theirs is None:
                continue
            if [b.shape for b in layer.blobs] != [b.shape for b in theirs]:
                shapes = [[tuple(b.shape) for b in blobs] for blobs in (layer.blobs, theirs)]
                layer.fail(f"its parameters are {shapes[0]}, but those of {other.file} are {shapes[1]}")
            for j in range(len(theirs)):
                layer.blobs[j] = theirs[j]

    def fill(self, layers: Iterable[str] | None = None) -> None:
        """Draws parameters by the layers' fillers, of all layers or of these; shared ones once, by their owner."""
        for name in self.params if layers is None else layers:
            layer = next(layer for param, layer in self.sequence if param.name == name)
            for j in range(len(layer.blobs)):
                layer.fill(j)

    def to_message(self) -> Any:
        """The ``NetParameter`` that Caffe saves, without the blobs: splits put in, phases and loss weights said."""
        net = type(self.message)()
        net.CopyFrom(self.message)
        for field in ("force_backward", "state", "debug_info"):
            net.ClearField(field)
        for param in net.layer:
            if not param.HasField("phase"):
                param.phase = PHASES.index("TRAIN" if self.training else "TEST")
        insert_splits(net)
        layers = {param.name: layer for param, layer in self.sequence}
        for param in net.layer:
            layer = layers.get(param.name)
            if layer is not None and layer.is_loss and not len(param.loss_weight):
                readers = any(
                    s.type == "Split" and list(s.bottom) == param.top[:1] and len(s.loss_weight) for s in net.layer
                )
                if not readers:
                    param.loss_weight.append(1.0)
            if layer is not None and layer.statistics:
                for _ in range(len(param.param), len(layer.blobs)):
                    param.param.add(lr_mult=0.0)
        return _without_input_layers(net, shapes=False) if self.flavour == "lisa" else net


def _without_input_layers(net: Any, shapes: bool) -> Any:
    """A ``NetParameter`` with its inputs as lisa-caffe has them, fields and no layer; in saved weights only names."""
    result = type(net)()
    result.CopyFrom(net)
    result.ClearField("layer")
    for param in net.layer:
        if param.type != "Input":
            result.layer.add().CopyFrom(param)
            continue
        result.input.extend(param.top)
        given = param.input_param.shape
        for i in range(len(param.top) if shapes else 0):
            result.input_shape.add().CopyFrom(given[i if len(given) > 1 else 0])
    return result


def copy_blob(blob: Blob, into: Tensor) -> None:
    """Copies a file's values into a tensor of as many."""
    if into.is_meta:
        return
    source, target = blob.data, into.detach()
    if target.device.type == "cpu" and target.is_contiguous():
        array = target.view(-1).numpy()
        if array.dtype == source.dtype:
            array.view(np.uint8)[:] = source.view(np.uint8)  # as bytes: a file's floats are not aligned
        else:
            with np.errstate(over="ignore"):  # doubles too large for a float are infinite
                array[:] = source
    else:
        target.copy_(torch.from_numpy(np.array(source)).view(target.shape))


def read_net(path: str | Path, flavour: str = "bvlc") -> Any:
    """The ``NetParameter`` in a ``.prototxt`` or ``.caffemodel``, in today's form, with all of its layers and blobs.

    Raises:
        CaffeFormatError: the file is missing, damaged, or of Caffe's first form (V0).
    """
    return read_upgraded(read_message(path, schema(flavour).NetParameter()), str(path))


def read_weights(path: str | Path, flavour: str = "bvlc") -> dict[str, list[Blob]]:
    """The parameters in a ``.caffemodel`` (views of the file, nothing copied) or HDF5 file, by layer, in Caffe's order.

    Raises:
        CaffeFormatError: the file is missing or damaged; a blob's shape and values do not agree.
    """
    if Path(path).suffix == ".h5":
        return hdf5.read_weights(path)
    name = str(path)
    rest, cuts = cut(read_bytes(path), "NetParameter", name)
    net: Any = parse_binary(rest, schema(flavour).NetParameter(), name)
    numbers = [*cuts[2], *cuts[100]]
    messages = [list(layer.blobs) for layer in (*net.layers, *net.layer)]
    for layer in (*net.layers, *net.layer):
        layer.ClearField("blobs")
    upgrade_net(net, name)
    found: dict[str, list[Blob]] = {}
    layers = list(net.layer)[len(net.layer) - len(messages) :]  # without the Input layer that the upgrade put first
    for layer, blobs, pieces in zip(layers, messages, numbers, strict=True):
        if layer.name in found and blobs and found[layer.name]:
            raise CaffeFormatError(f'{name}: layer "{layer.name}": is there twice, with weights')
        if blobs or layer.name not in found:
            found[layer.name] = [
                blob_of(blob, piece, f'{name}: layer "{layer.name}", blob {j}')
                for j, (blob, piece) in enumerate(zip(blobs, pieces, strict=True))
            ]
    return found


def load_net(
    prototxt: str | Path,
    weights: str | Path | None = None,
    phase: str = "TEST",
    flavour: str = "bvlc",
    *,
    level: int = 0,
    stages: Sequence[str] = (),
    python: Mapping[str, Callable[..., Any]] | None = None,
    strict: bool = True,
) -> Net:
    """A Caffe net from its prototxt, with its weights.

    Args:
        prototxt: the net's definition, of any form since 2014's; or a ``.caffemodel``, which holds one.
        weights: a ``.caffemodel`` or HDF5 file. None: those of a ``.caffemodel`` given as the prototxt, or drawn by the
            fillers from PyTorch's generator.
        phase: "TRAIN" or "TEST".
        flavour: "bvlc", or "lisa" for nets and files of lisa-caffe, where the two differ (see docs/caffe.md).
        level, stages: the rest of the net's state, which ``include`` and ``exclude`` rules ask.
        python: what stands in for ``Python`` layers, by the layer's class name; see ``layers/data.py``.
        strict: whether weights that no layer takes, and layers without weights, are an error; else those are drawn.

    Returns:
        the net, in that phase, on the CPU.

    Raises:
        CaffeFormatError: what is wrong with which file, layer and field.
    """
    message = read_net_structure(prototxt, flavour)
    return build_net(message, str(prototxt), weights, phase, flavour, level, stages, python, strict)


def build_net(
    message: Any,
    file: str,
    weights: str | Path | None = None,
    phase: str = "TEST",
    flavour: str = "bvlc",
    level: int = 0,
    stages: Sequence[str] = (),
    python: Mapping[str, Callable[..., Any]] | None = None,
    strict: bool = True,
) -> Net:
    """As ``load_net``, from an upgraded ``NetParameter`` that ``file`` names in errors."""
    if phase not in PHASES:
        raise CaffeFormatError(f'phase={phase!r}: expected "TRAIN" or "TEST"')
    filter_layers(message, phase, level, tuple(stages), file)
    net = Net(message, phase, flavour, file, python)
    if weights is None and Path(file).suffix == ".caffemodel":
        weights = file
    missing = list(net.params) if weights is None else net.load_weights(weights, strict)[0]
    net.fill(missing)
    return net


def read_net_structure(path: str | Path, flavour: str = "bvlc") -> Any:
    """As ``read_net``, without the numbers of blobs: for a large ``.caffemodel`` that is to be a net's definition."""
    data = read_bytes(path)
    if is_text(data, str(path)):
        return read_net(path, flavour)
    rest, _ = cut(data, "NetParameter", str(path))
    message = read_upgraded(parse_binary(rest, schema(flavour).NetParameter(), str(path)), str(path))
    for layer in message.layer:
        layer.ClearField("blobs")
        layer.ClearField("phase")  # that of the net that was saved
    return message


def save_net(net: Net, path: str | Path) -> Path:
    """Writes a net as Caffe does: its weights (``.caffemodel``, or ``.h5``), or its definition (``.prototxt``).

    The file is written whole or not at all. A ``.caffemodel`` of a net as loaded from Caffe's own is the same bytes.

    Raises:
        CaffeFormatError: the ending is none of these; the file can't be written.
    """
    ending = Path(path).suffix
    if ending == ".prototxt":
        message = _without_input_layers(net.message, shapes=True) if net.flavour == "lisa" else net.message
        return write_file(path, [text_format.MessageToString(message).encode()])
    if ending == ".h5":
        every = {param.name: list(net.params.get(param.name, ())) for param in net.to_message().layer}
        return hdf5.write_weights(path, every)
    if ending != ".caffemodel":
        raise CaffeFormatError(f"{path}: expected the ending .caffemodel, .h5 or .prototxt")
    return write_file(path, _binary(net))


def _binary(net: Net) -> Iterator[Any]:
    """A ``.caffemodel``'s bytes, a layer at a time."""
    message = net.to_message()
    layers = list(message.layer)
    top = type(message)()
    top.CopyFrom(message)
    top.ClearField("layer")
    yield top.SerializeToString()
    for layer in layers:
        arrays = [blob.detach().cpu().numpy() for blob in net.params.get(layer.name, ())]
        parts = list(with_blobs(layer, 7, arrays))
        yield head(100, sum(map(len, parts)))
        yield from parts
