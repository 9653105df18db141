"""A function of tensors, captured as a CUDA graph and replayed with one launch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.runtime.random import default_generator

WARMUP = 3
"""Calls before the capture, in which libraries choose kernels and allocate memory."""


class Captured:
    """Calls a function eagerly at first, then captures it, and replays the capture from then on.

    Tensors that the function leaves behind, such as gradients, have the same addresses after each replay. Random
    numbers depend on the seed that was set before the replay.

    Args:
        run: takes and returns tensors of constant shapes. It must not synchronise with the GPU or read values, and must
            free what the previous call left behind first (``zero_grad(set_to_none=True)``).
        device: the GPU.
    """

    def __init__(self, run: Callable[..., tuple[Tensor, ...]], device: torch.device) -> None:
        self.run, self.device = run, device
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Calls or replays the function; inputs are copied to the GPU.

        Raises:
            SeqclfError: the function cannot be captured.
        """
        self.calls += 1
        if self.calls <= WARMUP:
            return self._eager(*(x.to(self.device) for x in inputs))
        if self.graph is None:
            self._capture(*(x.to(self.device) for x in inputs))
        assert self.graph is not None
        for place, x in zip(self.inputs, inputs, strict=True):
            place.copy_(x, non_blocking=True)
        self.graph.replay()
        return tuple(x.clone() for x in self.outputs)  # the next replay overwrites them

    def _eager(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """An eager call on a side stream, like that of the capture."""
        main, side = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        side.wait_stream(main)
        with torch.cuda.stream(side):
            outputs = self.run(*inputs)
        main.wait_stream(side)
        return outputs

    def _capture(self, *inputs: Tensor) -> None:
        self.inputs = inputs
        torch.cuda.synchronize(self.device)
        generator = default_generator(self.device)
        state = generator.clone_state()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.outputs = self.run(*inputs)
        except RuntimeError as error:
            generator.graphsafe_set_state(state)  # eager calls cannot use the state of the capture
            reason = " ".join(str(error).split())[:200]
            raise SeqclfError(f"setting cuda_graph=True: the step cannot be captured ({reason})") from None
        self.graph = graph
