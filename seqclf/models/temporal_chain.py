"""Temporal models one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.models.contract import State, build_part, can_stream, check_result, declares
from seqclf.models.refinement import join_states, split_state
from seqclf.models.trial import hidden_size, state_example


class TemporalChain(nn.Module):
    """Temporal models one after another, such as convolutions over time and a pooling.

    It is causal, streams and takes clips of unequal length if all its parts do.

    Args:
        input_size: D, the features per frame.
        parts: classes, or ``functools.partial`` of them, that build the models, by name, such as
            ``{"tcn": partial(TCN, causal=False), "pool": partial(Pool, kind="max")}``. Each is called with the number
            of features that the previous one returns.

    The state is a tuple with the tensors of all parts.

    Raises:
        SeqclfError: there are no parts, a name cannot be used, or a part fails in the trial run that finds its sizes.
    """

    def __init__(self, input_size: int, parts: Mapping[str, Callable[[int], nn.Module]]) -> None:
        super().__init__()
        if not parts or not isinstance(parts, Mapping):
            raise SeqclfError(
                'TemporalChain: parts must be temporal models by name, such as {"convolutions": TCN, "pool": Pool}, '
                f"not {parts!r}"
            )
        self.out_features = input_size
        self.state_examples: list[State] = []
        for name, build in parts.items():
            self._append(name, build_part(f"TemporalChain: {name}", build, self.out_features))
        models = list(self.children())
        self.causal = all(declares(part, "causal") for part in models)
        self.frame_wise = all(declares(part, "frame_wise") for part in models)
        self.carries_state = all(map(can_stream, models)) and not self.frame_wise
        self.equal_lengths = any(declares(part, "equal_lengths") for part in models)

    def _append(self, name: str, part: nn.Module) -> None:
        if not name.isidentifier() or hasattr(self, name):
            raise SeqclfError(f"TemporalChain: a part cannot have the name {name!r}: choose another word")
        input_size = self.out_features
        self.add_module(name, part)
        self.state_examples.append(state_example(part, input_size))
        self.out_features = hidden_size(part, lambda: input_size)

    def forward(
        self, features: Tensor, is_first: Tensor | None = None, state: State = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Returns the outputs of the last part at every frame, and the state after each stream's last valid frame.

        Arguments and errors as for ``LSTM.forward``.

        Returns:
            outputs ``(B, T, H)``, and the state; None if a part cannot continue a sequence.
        """
        if state is not None and not self.carries_state:
            raise SeqclfError("TemporalChain: a part cannot continue a sequence, so the chain takes no state")
        before = [None for _ in self.children()] if state is None else split_state(state, self.state_examples)
        after = []
        for part, own in zip(self.children(), before, strict=True):
            features, own = check_result(part, part(features, is_first, own, lengths), features.shape)
            after.append(own)
        return features, join_states(after) if self.carries_state else None
