"""How long each layer of a net takes, forward and backward, measured as ``caffe time`` does: layer by layer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.inspect import Given
from seqclf.caffe.net import Net


@dataclass
class Times:
    """Milliseconds, means over the iterations.

    Attributes:
        layers: of each layer, its name and the times of its forward and backward pass.
        forward, backward: of the whole net's passes.
        total: of all iterations together.
    """

    layers: list[tuple[str, float, float]]
    forward: float
    backward: float
    total: float


def measure(net: Net, iterations: int, log: Callable[[str], None]) -> Times:
    """Times a net on the device that it is on, after one pass that is not counted.

    Backward is each layer's own: from ones above it to its parameters that learn, and to its bottoms where anything
    below them learns (or, by ``force_backward``, everywhere).

    Args:
        log: called with a line for each iteration.

    Raises:
        CaffeFormatError: a layer can't run.
    """
    device = next(net.parameters(), torch.empty(0)).device
    inputs = _inputs(net, device)
    run = _Run(net, inputs, device)
    run.forward()
    log(f"Initial loss: {float(net.loss(run.blobs).detach()):.6g}")
    run.backward()
    layers = len(net.sequence)
    ahead, back = [0.0] * layers, [0.0] * layers
    forward = backward = 0.0
    began = run.clock()
    for j in range(iterations):
        start = run.clock()
        ahead = [a + b for a, b in zip(ahead, run.forward(), strict=True)]
        middle = run.clock()
        back = [a + b for a, b in zip(back, run.backward(), strict=True)]
        end = run.clock()
        forward, backward = forward + middle - start, backward + end - middle
        log(f"Iteration: {j + 1} forward-backward time: {end - start:.6g} ms.")
    names = [param.name for param, _ in net.sequence]
    means = [(n, a / iterations, b / iterations) for n, a, b in zip(names, ahead, back, strict=True)]
    return Times(means, forward / iterations, backward / iterations, run.clock() - began)


class _Run:
    """The passes of a net, every layer's graph by itself."""

    def __init__(self, net: Net, inputs: dict[str, Tensor], device: torch.device) -> None:
        self.net, self.inputs, self.device = net, inputs, device
        self.blobs: dict[str, Tensor] = {}
        self.graphs: list[tuple[list[Tensor], list[Tensor], list[Tensor]]] = []
        """Of each layer: the tops that have a gradient, ones like them, and what the gradient is to reach."""

    def clock(self) -> float:
        """Milliseconds, when the device has done all it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return 1000 * time.perf_counter()

    def forward(self) -> list[float]:
        """Milliseconds of each layer."""
        self.blobs, self.graphs, times = {}, [], []
        for param, layer in self.net.sequence:
            start = self.clock()
            if param.type == "Input" or isinstance(layer, Given):
                bottoms: list[Tensor] = []
                tops = tuple(self.inputs[top] for top in param.top)
            else:
                bottoms = [self.bottom(param, j) for j in range(len(param.bottom))]
                tops = self.run(layer, bottoms)
            times.append(self.clock() - start)
            self.blobs.update(zip(layer.top_names, tops, strict=True))
            above = [top for top in tops if top.requires_grad]
            below = [x for x in (*bottoms, *layer.parameters()) if x.requires_grad]
            self.graphs.append((above if below else [], [torch.ones_like(top) for top in above], below))
        return times

    def bottom(self, param: Any, j: int) -> Tensor:
        x = self.blobs[param.bottom[j]]
        learns = x.requires_grad and (j >= len(param.propagate_down) or param.propagate_down[j])
        return x.detach().requires_grad_(learns)

    def run(self, layer: Any, bottoms: list[Tensor]) -> tuple[Tensor, ...]:
        try:
            out = layer(*bottoms)
        except torch.OutOfMemoryError as error:
            layer.fail(f"out of memory ({str(error).splitlines()[0]})")
        except RuntimeError as error:
            layer.fail(f"can't take {', '.join(str(tuple(x.shape)) for x in bottoms)} ({error})")
        tops = out if isinstance(out, tuple) else (out,)
        return tops if bottoms else tuple(top.to(self.device) for top in tops)

    def backward(self) -> list[float]:
        """Milliseconds of each layer."""
        times = []
        while self.graphs:
            above, ones, below = self.graphs.pop()
            start = self.clock()
            if above:
                torch.autograd.grad(above, below, ones, allow_unused=True)
            del above, below
            times.append(self.clock() - start)
        return times[::-1]


def _inputs(net: Net, device: torch.device) -> dict[str, Tensor]:
    """Values for what the net is given: 0 for labels, the start of clips for cont, else from 0 to 1 at random."""
    values = {}
    generator = torch.Generator().manual_seed(0)
    for param, layer in net.sequence:
        if param.type != "Input" and not isinstance(layer, Given):
            continue
        for top in param.top:
            shape = net.blob_shapes[top]
            if 0 in shape:
                raise CaffeFormatError(f'{net.file}: input "{top}" has shape {shape}: nothing to time')
            kind, streams = _use(net, top)
            value = torch.zeros(shape) if kind == "label" else torch.rand(shape, generator=generator)
            if kind == "cont":
                value = torch.ones(prod(shape))
                value[:streams] = 0
                value = value.view(shape)
            value = value.to(device)
            values[top] = value.requires_grad_(bool(net.message.force_backward))
    return values


def _use(net: Net, blob: str) -> tuple[str, int]:
    """What a blob is for: "label", "cont" (and the number of streams), or "data"."""
    for param, layer in net.sequence:
        for j, bottom in enumerate(param.bottom):
            if bottom != blob:
                continue
            if param.type in ("LSTM", "RNN") and j == 1:
                return "cont", net.blob_shapes[blob][1]
            if param.type == "LSTMUnit" and j == 2:
                return "cont", 0
            if param.type == "Embed" or (j > 0 and (layer.is_loss or param.type in _WITH_NUMBERS)):
                return "label", 0
            if param.type in _REARRANGING and blob not in param.top:
                for top in param.top:
                    found = _use(net, top)
                    if found[0] != "data":
                        return found
    return "data", 0


_WITH_NUMBERS = ("Accuracy", "BatchReindex")
"""Types of layers whose further bottoms are labels or indices."""
_REARRANGING = ("Concat", "Flatten", "Reshape", "Slice", "Split", "Tile")
