"""A function of tensors on a GPU, recorded once as a CUDA graph and then replayed: one launch in place of many."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from seqclf.batch import SeqclfError

WARMUP = 3
"""Calls before the recording, in which libraries choose their kernels and take their memory."""


class Captured:
    """Calls a function as it is at first, then records it, and replays the recording from then on.

    What the function leaves behind, such as gradients, lies at the same place in memory after each call. Random numbers
    are drawn anew in each replay, from the seed set before it.

    Args:
        run: takes tensors and gives tensors, all of shapes that never change. It neither waits for the GPU nor looks
            at a value, and gives up what it left behind before it begins (``zero_grad(set_to_none=True)``).
        device: the GPU.
    """

    def __init__(self, run: Callable[..., tuple[Tensor, ...]], device: torch.device) -> None:
        self.run, self.device = run, device
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What the function gives for the inputs, which are copied to the GPU.

        Raises:
            SeqclfError: it can't be recorded.
        """
        self.calls += 1
        if self.calls <= WARMUP:
            return self._aside(*(x.to(self.device) for x in inputs))
        if self.graph is None:
            self._record(*(x.to(self.device) for x in inputs))
        assert self.graph is not None
        for place, x in zip(self.inputs, inputs, strict=True):
            place.copy_(x, non_blocking=True)
        self.graph.replay()
        return tuple(x.clone() for x in self.outputs)  # the next replay overwrites them

    def _aside(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """A call on a stream of its own, as recording will have one."""
        here, aside = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            outputs = self.run(*inputs)
        here.wait_stream(aside)
        return outputs

    def _record(self, *inputs: Tensor) -> None:
        self.inputs = inputs
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.outputs = self.run(*inputs)
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise SeqclfError(f"this can't be recorded as a CUDA graph ({reason})") from None
        self.graph = graph
