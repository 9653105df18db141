"""Stages that refine the classification of the previous stage, as in MS-TCN (Farha and Gall 2019, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain, islice

from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.models.contract import State, check_result, parts_of


def softmax(logits: Tensor) -> Tensor:
    """The probabilities of classes that exclude each other, ``(..., K)``."""
    return logits.softmax(-1)


class Stage(nn.Module):
    """A temporal model and a head.

    Args:
        temporal: a temporal model that reads K features per frame.
        head: maps outputs ``(B, T, H)`` to logits ``(B, T, K)``.
        input_size: K.
        activation: maps the logits of the previous stage to the input of the temporal model.
    """

    def __init__(
        self, temporal: nn.Module, head: nn.Module, input_size: int, activation: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.temporal, self.head, self.input_size, self.activation = temporal, head, input_size, activation

    def forward(
        self, logits: Tensor, is_first: Tensor | None, state: State, lengths: Tensor | None
    ) -> tuple[Tensor, State]:
        """Returns the refined logits ``(B, T, K)`` and the state of the temporal model."""
        read = self.activation(logits)
        hidden, state = check_result(self.temporal, self.temporal(read, is_first, state, lengths), read.shape)
        return self.head(hidden), state


def join_states(states: Sequence[State]) -> State:
    """The states of all stages, or of all parts of a chain, as one tuple of tensors."""
    return tuple(chain.from_iterable(map(parts_of, states)))


def split_state(state: State, examples: Sequence[State]) -> list[State]:
    """The inverse of ``join_states``: the state of each stage, divided as the examples are.

    Raises:
        SeqclfError: the number of tensors differs.
    """
    parts, expected = parts_of(state), sum(len(parts_of(example)) for example in examples)
    if len(parts) != expected:
        raise SeqclfError(f"the state must be a tuple of {expected} tensors, but has {len(parts)}")
    rest = iter(parts)
    return [
        tuple(islice(rest, len(example))) if isinstance(example, tuple) else None if example is None else next(rest)
        for example in examples
    ]
