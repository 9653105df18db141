"""Times of a net's layers, forward and backward, measured one by one as ``caffe time`` does."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from seqclf.caffe.description.sketch import DataPlaceholder
from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.nets.net import Net


@dataclass
class Times:
    """Means over the iterations, in milliseconds.

    Attributes:
        layers: (name, forward, backward) of each layer.
        forward, backward: passes of the whole net.
        total: all iterations together.
    """

    layers: list[tuple[str, float, float]]
    forward: float
    backward: float
    total: float


def measure(net: Net, iterations: int, log: Callable[[str], None]) -> Times:
    """Times a net, or a ``Sketch``, on the device of its parameters, after one pass that is not counted.

    A layer's backward pass starts from gradients of ones. It computes the gradients of the parameters that are learned,
    and of the bottoms that depend on such parameters (of all bottoms with ``force_backward``).

    Args:
        iterations: number of forward and backward passes.
        log: called with one line per iteration.

    Raises:
        CaffeFormatError: a layer cannot run.
    """
    device = next(net.parameters(), torch.empty(0)).device
    passes = _Passes(net, random_inputs(net, device), device)
    passes.forward()
    log(f"Initial loss: {float(net.loss(passes.blobs).detach()):.6g}")
    passes.backward()
    layers = len(net.sequence)
    layers_forward, layers_backward = [0.0] * layers, [0.0] * layers
    forward = backward = 0.0
    began = passes.clock()
    for j in range(iterations):
        start = passes.clock()
        layers_forward = [a + b for a, b in zip(layers_forward, passes.forward(), strict=True)]
        middle = passes.clock()
        layers_backward = [a + b for a, b in zip(layers_backward, passes.backward(), strict=True)]
        end = passes.clock()
        forward, backward = forward + middle - start, backward + end - middle
        log(f"Iteration: {j + 1} forward-backward time: {end - start:.6g} ms.")
    total = passes.clock() - began
    names = [param.name for param, _ in net.sequence]
    sums = zip(names, layers_forward, layers_backward, strict=True)
    means = [(name, a / iterations, b / iterations) for name, a, b in sums]
    return Times(means, forward / iterations, backward / iterations, total)


class _Passes:
    """Forward and backward passes with a separate autograd graph for each layer.

    Attributes:
        blobs: the values of the last forward pass, by name.
        graphs: for each layer, the tops that have gradients, gradients of ones for them, and the tensors whose
            gradients are computed.
    """

    def __init__(self, net: Net, inputs: dict[str, Tensor], device: torch.device) -> None:
        self.net, self.inputs, self.device = net, inputs, device
        self.blobs: dict[str, Tensor] = {}
        self.graphs: list[tuple[list[Tensor], list[Tensor], list[Tensor]]] = []

    def clock(self) -> float:
        """Milliseconds, after the device has finished its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return 1000 * time.perf_counter()

    def forward(self) -> list[float]:
        """Returns the milliseconds of each layer."""
        self.blobs, self.graphs, times = {}, [], []
        for param, layer in self.net.sequence:
            start = self.clock()
            if _is_input(param, layer):
                bottoms: list[Tensor] = []
                tops = tuple(self.inputs[top] for top in param.top)
            else:
                bottoms = [self._bottom(param, j) for j in range(len(param.bottom))]
                tops = self._run(layer, bottoms)
            times.append(self.clock() - start)
            self.blobs.update(zip(layer.top_names, tops, strict=True))
            outputs = [top for top in tops if top.requires_grad]
            sources = [x for x in (*bottoms, *layer.parameters()) if x.requires_grad]
            self.graphs.append((outputs if sources else [], [torch.ones_like(top) for top in outputs], sources))
        return times

    def backward(self) -> list[float]:
        """Returns the milliseconds of each layer."""
        times = []
        while self.graphs:
            outputs, ones, sources = self.graphs.pop()
            start = self.clock()
            if outputs:
                torch.autograd.grad(outputs, sources, ones, allow_unused=True)
            del outputs, sources
            times.append(self.clock() - start)
        return times[::-1]

    def _bottom(self, param: Any, j: int) -> Tensor:
        x = self.blobs[param.bottom[j]]
        needs_gradient = x.requires_grad and (j >= len(param.propagate_down) or param.propagate_down[j])
        return x.detach().requires_grad_(needs_gradient)

    def _run(self, layer: Any, bottoms: list[Tensor]) -> tuple[Tensor, ...]:
        try:
            out = layer(*bottoms)
        except torch.OutOfMemoryError as error:
            layer.fail(f"out of memory ({str(error).splitlines()[0]})")
        except RuntimeError as error:
            layer.fail(f"cannot process bottoms of shapes {', '.join(str(tuple(x.shape)) for x in bottoms)} ({error})")
        tops = out if isinstance(out, tuple) else (out,)
        return tops if bottoms else tuple(top.to(self.device) for top in tops)


def random_inputs(net: Net, device: torch.device) -> dict[str, Tensor]:
    """Returns values for the inputs and data placeholders of a net, by name.

    Labels are 0, ``cont`` is 0 at the first step and 1 after it, and data are random values from 0 to 1.

    Raises:
        CaffeFormatError: an input has no values.
    """
    values = {}
    generator = torch.Generator().manual_seed(0)
    for param, layer in net.sequence:
        for top in param.top if _is_input(param, layer) else ():
            shape = net.blob_shapes[top]
            if 0 in shape:
                raise CaffeFormatError(f'{net.file}: input "{top}" has shape {shape}: nothing to time')
            role, streams = _role(net, top)
            value = torch.zeros(shape) if role == "labels" else torch.rand(shape, generator=generator)
            if role == "cont":
                value = torch.ones(prod(shape))
                value[:streams] = 0
                value = value.view(shape)
            value = value.to(device)
            values[top] = value.requires_grad_(bool(net.message.force_backward))
    return values


def _is_input(param: Any, layer: Any) -> bool:
    return param.type == "Input" or isinstance(layer, DataPlaceholder)


def _role(net: Net, blob: str) -> tuple[str, int]:
    """What a blob is used for (see ``Layer.bottom_roles``), possibly after changes of shape, and streams of "cont"."""
    for param, layer in net.sequence:
        for j, bottom in enumerate(param.bottom):
            if bottom != blob:
                continue
            role = layer.bottom_roles[min(j, len(layer.bottom_roles) - 1)]
            if role != "data":
                return role, net.blob_shapes[blob][1] if role == "cont" else 0
            if layer.category == "shape" and blob not in param.top:
                for top in param.top:
                    found = _role(net, top)
                    if found[0] != "data":
                        return found
    return "data", 0
