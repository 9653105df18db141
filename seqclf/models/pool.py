"""Pooling over time: at every frame, the mean, maximum or weighted mean of the sequence so far."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqclf.batch import SeqclfError, valid_frames
from seqclf.models.contract import State, check_features, parts_of

Frames = tuple[Tensor, ...]
"""A partial result over some frames: the pooled value ``(B, T, D)``, the weight ``(B, T, 1)``, and for "attention" the
largest score ``(B, T, 1)``. Value and weight are divided by the exponential of this score."""

LOWEST = torch.finfo(torch.float32).min
"""The maximum over no frames. It is finite, because the difference of two infinities is NaN."""


class Pool(nn.Module):
    """Pools the frames of a sequence from its first to the current one.

    At the last frame this is the pooling over the whole clip, so train it with labels at the last frame. There is no
    ``kind="last"``, because a temporal model without ``Pool`` already returns the output at each frame.

    Args:
        input_size: D, the number of features per frame, and of outputs.
        kind: "mean", "max", or "attention" for the mean with the weights ``softmax(w x)`` and a learned vector w.

    The state is a tuple: the sum, maximum or weighted sum ``(1, B, D)``; the number of frames or the sum of weights
    ``(1, B, 1)``; and for "attention" the largest score ``(1, B, 1)``, which keeps the exponentials of scores from
    overflowing (Milakov and Gimelshein 2018, algorithm 3).

    Raises:
        SeqclfError: the kind is unknown.
    """

    causal, carries_state = True, True

    def __init__(self, input_size: int, kind: str = "mean") -> None:
        super().__init__()
        if kind not in COMBINE:
            raise SeqclfError(f"Pool: kind must be one of {', '.join(map(repr, COMBINE))}, not {kind!r}")
        self.kind, self.input_size, self.out_features = kind, input_size, input_size
        self.score = nn.Linear(input_size, 1, bias=False) if kind == "attention" else None

    def forward(
        self, features: Tensor, is_first: Tensor | None = None, state: State = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Returns the pooled features at every frame, and the state after each stream's last valid frame.

        Arguments and errors as for ``LSTM.forward``.

        Returns:
            outputs ``(B, T, D)``, zero at padding, and the state.
        """
        self._check(features, is_first, state, lengths)
        valid = valid_frames(lengths, features.shape, features.device)
        parts = self._frames(features, valid[..., None])
        sequence = None if is_first is None else (is_first & valid).cumsum(1)
        if isinstance(state, tuple):  # one more frame, before the first
            parts = tuple(torch.cat([a, b], 1) for a, b in zip(self._past(state), parts, strict=True))
            sequence = None if sequence is None else F.pad(sequence, (1, 0))
        parts = self.running(parts, sequence)
        value, weight = (part[:, -features.shape[1] :] for part in parts[:2])
        pooled = value if self.kind == "max" else value / weight
        return pooled.where(valid[..., None], 0.0).to(features.dtype), tuple(part[:, -1][None] for part in parts)

    def running(self, parts: Frames, sequence: Tensor | None) -> Frames:
        """Combines each frame with the earlier frames of its sequence.

        Args:
            parts: the partial results of single frames.
            sequence: ``(B, T)`` int64, the number of each frame's sequence; None for clips of one sequence.
        """
        if sequence is None and self.kind in _CUMULATIVE:  # faster
            return _CUMULATIVE[self.kind](parts[0]), parts[1].cumsum(1)
        return running(COMBINE[self.kind], parts, sequence)

    def _frames(self, features: Tensor, valid: Tensor) -> Frames:
        """The partial results of single frames; padding has weight 0."""
        x = features.where(valid, 0.0)
        score = None if self.score is None else self.score(x).float()
        x = x if x.dtype == torch.float64 else x.float()  # sums of half precision would lose digits
        if self.kind == "max":
            x = x.where(valid, LOWEST)
        parts = (x, valid.to(x.dtype))
        return parts if score is None else (*parts, score.where(valid, LOWEST))

    def _past(self, state: Frames) -> Frames:
        """The state as the partial result of a frame before the first; LOWEST where its weight is 0."""
        value, weight, *score = (part[0][:, None] for part in state)
        if self.kind == "max":
            value = value.where(weight > 0, LOWEST)
        return value, weight, *(part.where(weight > 0, LOWEST) for part in score)

    def _check(self, features: Tensor, is_first: Tensor | None, state: State, lengths: Tensor | None) -> None:
        check_features(self, features, self.input_size, is_first, lengths)
        B, _, D = features.shape
        expected = [(1, B, D), (1, B, 1), (1, B, 1)][: 3 if self.kind == "attention" else 2]
        if state is None:
            return
        shapes = [tuple(part.shape) for part in parts_of(state)]
        if shapes != expected or not isinstance(state, tuple):
            raise SeqclfError(f"Pool: the state must be a tuple of {len(expected)} tensors {expected}, not {shapes}")


def _mean(earlier: Frames, later: Frames) -> Frames:
    return tuple(a + b for a, b in zip(earlier, later, strict=True))


def _max(earlier: Frames, later: Frames) -> Frames:
    return torch.maximum(earlier[0], later[0]), earlier[1] + later[1]


def _attention(earlier: Frames, later: Frames) -> Frames:
    top = torch.maximum(earlier[2], later[2]).detach()  # it cancels out of value / weight, and so does its gradient
    a, b = (earlier[2] - top).exp(), (later[2] - top).exp()
    return a * earlier[0] + b * later[0], a * earlier[1] + b * later[1], top


COMBINE = {"mean": _mean, "max": _max, "attention": _attention}
"""By kind, the function that combines the partial results of frames and of the frames after them."""
_CUMULATIVE: dict[str, Callable[[Tensor], Tensor]] = {"mean": lambda x: x.cumsum(1), "max": lambda x: x.cummax(1)[0]}
"""The pooled value of all frames up to each, where PyTorch has an operator."""


def running(combine: Callable[[Frames, Frames], Frames], parts: Frames, sequence: Tensor | None) -> Frames:
    """``Pool.running`` in log2(T) steps (Hillis and Steele 1986).

    Step k adds the partial result of the frame ``2^k`` earlier. A running sum over all frames would carry the rounding
    errors of one sequence into the next, and a loop over time would be slow.
    """
    distance = 1
    while distance < parts[0].shape[1]:
        later = tuple(part[:, distance:] for part in parts)
        both = combine(tuple(part[:, :-distance] for part in parts), later)
        if sequence is not None:
            same = (sequence[:, distance:] == sequence[:, :-distance])[..., None]
            both = tuple(b.where(same, alone) for b, alone in zip(both, later, strict=True))
        parts = tuple(torch.cat([part[:, :distance], new], 1) for part, new in zip(parts, both, strict=True))
        distance *= 2
    return parts
