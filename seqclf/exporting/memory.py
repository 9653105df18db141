"""The memory of a stream: the state of a classifier as named tensors, which go into exported files and come out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.models import GRU, LSTM, RNN
from seqclf.models.contract import State, parts_of

NAMES: dict[type, tuple[str, ...]] = {LSTM: ("h", "c"), GRU: ("h",), RNN: ("h",)}
"""The names of the state of a recurrent model; that of others is ``state_0``, ``state_1``, ..."""


class CannotExport(SeqclfError):
    """A kind of file cannot be written for a model; others may be."""


class Memory:
    """The state of a model as a dict of tensors, which have the batch at dimension 1.

    Args:
        model: a ``FrameSequenceClassifier``.

    Attributes:
        names: the names of the tensors; none for a model that does not stream or has no state.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        state = _run(model, 1, 1)[1] if model.streams and model.carries_state else None
        self.single = isinstance(state, Tensor)
        self.parts = parts_of(state)
        names = NAMES.get(type(model.temporal), ())
        self.names = names if len(names) == len(self.parts) else tuple(f"state_{i}" for i in range(len(self.parts)))

    def zeros(self, B: int) -> dict[str, Tensor]:
        """The memory of B streams before their first frame."""
        parts = zip(self.names, self.parts, strict=True)
        return {name: part.new_zeros(part.shape[0], B, *part.shape[2:]) for name, part in parts}

    def state(self, tensors: Sequence[Tensor]) -> State:
        """The tensors as the model takes its state; None for none."""
        return None if not tensors else tensors[0] if self.single else tuple(tensors)

    def named(self, state: State) -> dict[str, Tensor]:
        """The tensors of a state by name."""
        return dict(zip(self.names, parts_of(state), strict=True)) if self.names else {}

    def problem(self) -> str | None:
        """Why files of streams cannot hold this memory; None if they can, or if there is none.

        The batch of each tensor must be at dimension 1, its size must not depend on the number of frames, and a state
        of zeros must begin a sequence.
        """
        if not self.names:
            return None
        name = type(self.model.temporal).__name__
        shapes = [[tuple(part.shape) for part in parts_of(_run(self.model, 2, T)[1])] for T in (1, 3)]
        expected = [(part.shape[0], 2, *part.shape[2:]) for part in self.parts]
        if shapes != [expected, expected]:
            return (
                f"the state of {name} must be tensors (n, B, ...) of a fixed size; for B = 2 it is {shapes[0]} "
                f"after 1 frame and {shapes[1]} after 3"
            )
        fresh, _ = _run(self.model, 2, 3)
        zeros, _ = _run(self.model, 2, 3, self.state(list(self.zeros(2).values())))
        if not torch.allclose(fresh, zeros, rtol=1e-4, atol=1e-4):
            return f"a state of zeros must begin a sequence, but {name} gives other outputs for it"
        return None


@torch.no_grad()
def _run(model: Any, B: int, T: int, state: State = None) -> tuple[Tensor, State]:
    """Logits and the state after random features."""
    features = torch.randn(B, T, model.feature_size(), generator=torch.Generator().manual_seed(0))
    stages, state = model.classify(features, None, state, None)
    return stages[-1], state
