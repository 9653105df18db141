"""A Caffe net as a PyTorch module: called by blob names, with parameters by layer name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.layers import LAYERS, Layer, Shape, Surroundings
from seqclf.caffe.nets.graph import check_graph, insert_splits, without_input_layers
from seqclf.caffe.nets.sharing import Parameters
from seqclf.caffe.nets.weights import assign, read_weights

PHASES = ("TRAIN", "TEST")
FAILURES = (ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)
"""Errors that layers raise for unsuitable settings, shapes or files."""
_CPU = torch.empty(0)
"""The device and type of the blobs of a net without parameters."""


class Step(NamedTuple):
    """A layer and its blobs in a forward pass. They are read once, because reading the fields of a message is slow."""

    layer: Layer
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    is_input: bool
    stops: tuple[int, ...]
    """The bottoms that get no gradient (``propagate_down: false``)."""

    @staticmethod
    def of(param: Any, layer: Layer) -> Step:
        stops = tuple(j for j, down in enumerate(param.propagate_down) if not down)
        return Step(layer, tuple(param.bottom), tuple(layer.top_names), param.type == "Input", stops)


class Net(nn.Module):
    """A Caffe net in one phase.

    Called with its inputs by name, it returns every blob by name. It is differentiable, and its mode (``train()``,
    ``eval()``) is Caffe's phase. As in Caffe, recurrent layers continue from the last call wherever ``cont`` is not 0;
    ``reset_state()`` clears their state.

    Attributes:
        message: the ``NetParameter``, in today's form, with the layers of this phase.
        params: each layer's parameters by the layer's name, in Caffe's order and shapes.
        inputs: the names of the blobs that the caller provides.
        outputs: the names of the blobs that no layer reads.
        blob_shapes: the shape of every blob, at the sizes in the prototxt.
        loss_weights: the weights of the blobs that are part of the loss.
        multipliers: ``(parameter, lr_mult, decay_mult)`` in Caffe's order, once per parameter; lisa-caffe has one
            entry per use of a shared parameter.
    """

    def __init__(
        self,
        message: Any,
        phase: str = "TEST",
        flavour: str = "bvlc",
        file: str = "net",
        python: Mapping[str, Callable[..., Any]] | None = None,
        problems: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.message, self.flavour, self.file = message, flavour, file
        self.inputs: list[str] = []
        self.blob_shapes: dict[str, Shape] = {}
        self.loss_weights: dict[str, float] = {}
        self.sequence: list[tuple[Any, Layer]] = []
        parameters = Parameters(flavour)
        self.params, self.multipliers = parameters.by_layer, parameters.multipliers
        self.outputs, wrong = check_graph(message)
        found = [*problems, *wrong]
        surroundings = Surroundings(file, flavour, python or {})  # type: ignore[arg-type]
        for i, param in enumerate(message.layer):
            try:
                self._add(i, param, surroundings, parameters)
            except CaffeFormatError as error:
                found.append(str(error).removeprefix(f"{file}: "))
        named = Counter(param.name for param, _ in self.sequence)
        found += [
            f'layer "{name}": {named[name]} layers have this name, expected one, as it has parameters'
            for name in self.params
            if named[name] > 1
        ]
        if found:
            raise CaffeFormatError(file, found)
        self._steps = [Step.of(param, layer) for param, layer in self.sequence]
        self._with_blobs = tuple(step.layer for step in self._steps if len(step.layer.blobs))  # a tuple: no submodule
        self._last_reads: dict[frozenset[str], list[tuple[str, ...]]] = {}
        self.train(phase == "TRAIN")

    def train(self, mode: bool = True) -> Net:
        """Switches to Caffe's TRAIN or TEST phase. Layers with their own ``phase`` keep it."""
        super().train(mode)
        for param, layer in self.sequence:
            if param.HasField("phase"):
                layer.train(PHASES[param.phase] == "TRAIN")
        return self

    # ---- building

    def _add(self, i: int, param: Any, surroundings: Surroundings, parameters: Parameters) -> None:
        if param.type in LAYERS and any(bottom not in self.blob_shapes for bottom in param.bottom):
            return  # the missing bottom has been reported
        layer = self._build(param, surroundings)
        self.add_module(f"{i}_{param.name.replace('.', '_')}", layer)
        self.sequence.append((param, layer))
        if layer.is_loss and not layer.top_names:
            layer.top_names.append(f"(automatic {i})")
        self.blob_shapes.update(zip(layer.top_names, layer.top_shapes, strict=True))
        if param.type == "Input":
            self.inputs += param.top
        parameters.add(param, layer)
        for j, top in enumerate(layer.top_names):
            default = 1.0 if layer.is_loss and j == 0 else 0.0
            weight = param.loss_weight[j] if j < len(param.loss_weight) else default
            if weight:
                self.loss_weights[top] = weight

    def _build(self, param: Any, surroundings: Surroundings) -> Layer:
        where = f'{self.file}: layer "{param.name}"'
        if param.type not in LAYERS:
            what = (
                f" ({param.type}): unknown type; docs/caffe.md lists the known ones"
                if param.HasField("type")
                else ": field type is missing"
            )
            raise CaffeFormatError(f"{where}{what}")
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

    # ---- computing

    def forward(self, **inputs: Any) -> dict[str, Tensor]:
        """Computes every blob of the net.

        Args:
            inputs: the net's inputs by name, tensors or arrays in Caffe's layout (recurrent blobs time-major). Their
                sizes may differ from the prototxt's if all layers support it. A net whose data layers provide all
                inputs takes none.

        Returns:
            the tops of all layers by name. After layers that work in place, the last value.

        Raises:
            CaffeFormatError: an input is missing or unknown; a layer cannot process its bottoms.
        """
        return self.compute(inputs)

    def compute(self, inputs: Mapping[str, Any], keep: Iterable[str] | None = None) -> dict[str, Tensor]:
        """Like calling the net; with ``keep``, only these blobs are kept in memory and returned."""
        if inputs.keys() != set(self.inputs):
            self._refuse_inputs(inputs)
        first = self._with_blobs[0].blobs[0] if self._with_blobs else _CPU
        device, dtype = first.device, first.dtype
        done = None if keep is None else self._reads_ending(frozenset(keep))
        blobs: dict[str, Tensor] = {}
        for i, step in enumerate(self._steps):
            if step.is_input:
                tops = tuple(torch.as_tensor(inputs[top], dtype=dtype, device=device) for top in step.tops)
            else:
                bottoms = [blobs[bottom] for bottom in step.bottoms]
                for j in step.stops:
                    bottoms[j] = bottoms[j].detach()
                try:
                    out = step.layer(*bottoms)
                except torch.OutOfMemoryError:
                    raise
                except FAILURES as error:
                    raise self._failed(step, bottoms, error) from error
                tops = out if isinstance(out, tuple) else (out,)
                if not bottoms:
                    tops = tuple(top.to(device, dtype, non_blocking=True) for top in tops)
            blobs.update(zip(step.tops, tops, strict=True))
            if done is not None:
                for name in done[i]:
                    del blobs[name]
        return blobs

    def _refuse_inputs(self, inputs: Mapping[str, Any]) -> None:
        missing, unknown = sorted(set(self.inputs) - set(inputs)), sorted(set(inputs) - set(self.inputs))
        raise CaffeFormatError(
            f"{self.file}: expected the inputs {', '.join(self.inputs) or '(none)'}"
            + (f"; missing: {', '.join(missing)}" if missing else "")
            + (f"; unknown: {', '.join(unknown)}" if unknown else "")
        )

    def _failed(self, step: Step, bottoms: Sequence[Tensor], error: Exception) -> CaffeFormatError:
        shapes = ", ".join(f"{name} {tuple(b.shape)}" for name, b in zip(step.bottoms, bottoms, strict=True))
        param = step.layer.param
        return CaffeFormatError(
            f'{self.file}: layer "{param.name}" ({param.type}): can\'t take {shapes or "what it reads"} ({error})'
        )

    def _reads_ending(self, keep: frozenset[str]) -> list[tuple[str, ...]]:
        """Returns, for each layer, the blobs that are not in ``keep`` and that no later layer reads."""
        if keep not in self._last_reads:
            if not keep <= set(self.blob_shapes):
                raise CaffeFormatError(f"{self.file}: has no blob {', '.join(sorted(keep - set(self.blob_shapes)))}")
            used = [{*step.bottoms, *step.tops} for step in self._steps]
            last = {name: i for i, names in enumerate(used) for name in names if name not in keep}
            self._last_reads[keep] = [tuple(n for n in names if last.get(n) == i) for i, names in enumerate(used)]
        return self._last_reads[keep]

    def loss(self, blobs: Mapping[str, Tensor]) -> Tensor:
        """Returns the loss ``()``: the sum of all blobs times their ``loss_weight``, or 0 if none has a weight."""
        terms = []
        for name, weight in self.loss_weights.items():
            value = blobs[name]
            value = value.sum() if value.dim() else value
            terms.append(value if weight == 1 else weight * value)
        return torch.stack(terms).sum() if len(terms) > 1 else terms[0] if terms else torch.zeros(())

    def reset_state(self) -> None:
        """Clears the state that recurrent layers kept from earlier calls."""
        for _, layer in self.sequence:
            if hasattr(layer, "state"):
                layer.state = None  # type: ignore[assignment]

    # ---- parameters

    def load_weights(self, path: str | Path, strict: bool = True) -> tuple[list[str], list[str]]:
        """Copies trained parameters into the layers of the same name (Net::CopyTrainedLayersFrom).

        Args:
            path: a ``.caffemodel``, or an HDF5 file.
            strict: raise an error if a layer gets no parameters, or if the file has layers that the net lacks.

        Returns:
            the layers that the file does not fill, and the layers in the file that the net does not have.

        Raises:
            CaffeFormatError: the file is damaged; a parameter's shape or a layer's number of parameters differs; or see
                ``strict``.
        """
        shared = {param.name: layer.shared for param, layer in self.sequence}
        return assign(read_weights(path, self.flavour), self.params, shared, path, strict)

    def share(self, other: Net) -> None:
        """Shares the parameters of another net's layers of the same names (Net::ShareTrainedLayersWith)."""
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
        """Initializes the parameters of these layers (None: all) with the fillers of the layers that own them."""
        by_name = {param.name: layer for param, layer in reversed(self.sequence)}
        for name in self.params if layers is None else layers:
            for j in range(len(by_name[name].blobs)):
                by_name[name].fill(j)

    def to_message(self) -> Any:
        """Returns the ``NetParameter`` that Caffe saves: with ``Split`` layers, phases, loss weights, but no blobs."""
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
        return without_input_layers(net, shapes=False) if self.flavour == "lisa" else net
