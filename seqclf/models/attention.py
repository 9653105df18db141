"""Self-attention over time: a transformer that streams from the keys and values of its window."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqclf.batch import SeqclfError, valid_frames
from seqclf.models.contract import State, check_counts, check_dropout, check_features, parts_of

PADDING, EMPTY = -2, -1
"""The sequence numbers of padding, and of an empty place in the cache."""


class Attention(nn.Module):
    """A transformer over time (Vaswani et al. 2017) with pre-norm blocks and rotary positions (Su et al. 2021).

    A block is ``x + attention(norm(x))``, followed by ``x + mlp(norm(x))`` (Xiong et al. 2020). No frame attends across
    a reset or to padding. Positions are relative, so it does not matter where in a clip a sequence begins.

    A causal model streams. Its state is the keys and values of the last ``window - 1`` frames of each layer, so the
    cost of a frame does not grow with the stream. An output depends on the last ``layers * (window - 1) + 1`` frames,
    because each layer attends to outputs of the layer below. With a window, memory grows linearly with T.

    Args:
        input_size: D, the features per frame.
        hidden: H, the width of the blocks and of the outputs.
        layers: the number of blocks.
        heads: the number of attention heads; ``hidden / heads`` must be even.
        window: the number of frames that a frame attends to in each layer. In a causal model these are the frame and
            those before it. Otherwise the number is odd, and the frame is in the middle. None for all frames of the
            sequence; a causal model needs a window, because its state would grow.
        causal: whether a frame attends only to itself and earlier frames.
        mlp_ratio: the hidden units of the MLP, as a multiple of H.
        dropout: the probability of dropout on the output of each attention and MLP, from 0 to below 1.

    Raises:
        SeqclfError: an argument is out of range.
    """

    def __init__(
        self,
        input_size: int,
        hidden: int,
        layers: int = 2,
        heads: int = 4,
        window: int | None = 64,
        causal: bool = True,
        mlp_ratio: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_counts("Attention", hidden=hidden, layers=layers, heads=heads, mlp_ratio=mlp_ratio)
        check_dropout("Attention", dropout=dropout)
        if hidden % (2 * heads):
            raise SeqclfError(f"Attention: hidden must be a multiple of 2 * heads = {2 * heads}, not {hidden}")
        _check_window(window, causal)
        self.causal = self.carries_state = causal
        self.input_size, self.out_features, self.window = input_size, hidden, window
        others = 0 if window is None else window - 1
        self.before, self.after = (others, 0) if causal else (others // 2, others // 2)
        self.project = nn.Linear(input_size, hidden)
        self.blocks = nn.ModuleList(_Block(hidden, heads, mlp_ratio, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)

    def forward(
        self, features: Tensor, is_first: Tensor | None = None, state: State = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Returns the outputs at every frame, and the state after each stream's last valid frame.

        Arguments and errors as for ``LSTM.forward``.

        Returns:
            outputs ``(B, T, H)``, zero at padding, and the state. The state of a causal model is a tuple: keys and
            values, each ``(layers, B, window - 1, H)``, and the number of these frames that belong to the sequence,
            ``(1, B)`` int64. Keys are stored before the rotation. A model that is not causal returns None.
        """
        self._check(features, is_first, state, lengths)
        T = features.shape[1]
        valid = valid_frames(lengths, features.shape, features.device)[..., None]
        x = self.project(features.where(valid, 0.0))
        cached_keys, cached_values, count = self._empty(x) if state is None else state
        sequence = self._sequence_numbers(count[0], is_first, valid[..., 0])
        pattern = self._pattern(sequence, T, unmasked=self.window is None and is_first is None and lengths is None)
        keys, values = [], []
        for block, k, v in zip(self.blocks, cached_keys, cached_values, strict=True):
            x, k, v = block(x, k, v, pattern)
            keys.append(k)
            values.append(v)
        outputs = self.norm(x).where(valid, 0.0)
        return outputs, self._state(keys, values, sequence, lengths) if self.causal else None

    def _state(self, keys: list[Tensor], values: list[Tensor], sequence: Tensor, lengths: Tensor | None) -> State:
        """The keys and values of the ``before`` frames up to each stream's last, out of ``before + T``."""
        B, T = sequence.shape[0], sequence.shape[1] - self.before
        end = torch.full((B,), T, device=sequence.device) if lengths is None else lengths.to(sequence.device)
        latest = end[:, None] + torch.arange(self.before, device=sequence.device)
        rows = latest[..., None].expand(-1, -1, self.out_features)
        own = sequence.gather(1, latest) == sequence.gather(1, latest[:, -1:])
        k, v = (
            torch.stack([x.gather(1, rows) for x in layers]).where(own[..., None], 0.0) for layers in (keys, values)
        )
        return k, v, own.sum(1)[None]

    def block_size(self, frames: int) -> int:
        """The number of frames that attend together; a larger one costs memory, a smaller one repeats keys."""
        return frames if self.window is None else min(frames, self.window)

    def _empty(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cache = x.new_zeros(len(self.blocks), x.shape[0], self.before, self.out_features)
        return cache, cache, torch.zeros(1, x.shape[0], dtype=torch.int64, device=x.device)

    def _sequence_numbers(self, count: Tensor, is_first: Tensor | None, valid: Tensor) -> Tensor:
        """The sequence of each cached frame and each frame of the batch, ``(B, before + T)``; the carried one is 0."""
        starts = torch.zeros_like(valid) if is_first is None else is_first
        frames = starts.long().cumsum(1).where(valid, PADDING)
        place = torch.arange(self.before, 0, -1, device=valid.device)  # the newest is 1
        cached = torch.where(place <= count[:, None], 0, EMPTY)
        return torch.cat([cached, frames], 1)

    def _pattern(self, sequence: Tensor, T: int, unmasked: bool) -> _Pattern:
        size = self.block_size(T)
        around = self.before + size + self.after
        extra = -(-T // size) * size - T
        sequence = F.pad(sequence, (0, extra + self.after), value=PADDING)
        q_at = torch.arange(self.before, self.before + size, device=sequence.device)
        k_at = torch.arange(around, device=sequence.device)
        keys = _overlapping(sequence, around, size)
        queries = keys[..., self.before : self.before + size]
        mask = queries[..., None] == keys[..., None, :]  # (B, blocks, size, around)
        if self.window is not None:
            distance = q_at[:, None] - k_at
            mask = mask & (distance <= self.before) & (distance >= -self.after)
        return _Pattern(T, size, around, q_at, k_at, None if unmasked else mask.flatten(0, 1)[:, None])

    def _check(self, features: Tensor, is_first: Tensor | None, state: State, lengths: Tensor | None) -> None:
        check_features(self, features, self.input_size, is_first, lengths)
        if state is None:
            return
        if not self.causal:
            raise SeqclfError("Attention with causal=False has no state: give it whole sequences")
        B = features.shape[0]  # len() would be a constant in an exported graph
        cache = (len(self.blocks), B, self.before, self.out_features)
        found = [tuple(part.shape) for part in parts_of(state)]
        if found != [cache, cache, (1, B)]:
            raise SeqclfError(f"Attention: the state must be keys and values {cache} and counts (1, {B}), not {found}")


@dataclass
class _Pattern:
    """Which keys the queries of a block attend to.

    Attributes:
        frames: T; the last block is filled up to ``size``.
        size: the number of queries of a block.
        around: the number of keys of a block.
        q_at, k_at: the positions of the queries and keys of a block.
        mask: ``(B * blocks, 1, size, around)`` bool, True where a query attends; None for everywhere.
    """

    frames: int
    size: int
    around: int
    q_at: Tensor
    k_at: Tensor
    mask: Tensor | None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        """Attention of queries ``(B, T, H)`` to keys and values ``(B, before + T, H)``, as outputs ``(B, T, H)``."""
        blocks = -(-self.frames // self.size)
        extra = blocks * self.size - self.frames
        more = (blocks - 1) * self.size + self.around - k.shape[1]
        q = F.pad(q, (0, 0, 0, extra)).unflatten(1, (blocks, self.size))
        k, v = (_overlapping(F.pad(x, (0, 0, 0, more)), self.around, self.size) for x in (k, v))
        q, k, v = (x.flatten(0, 1).unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        out = F.scaled_dot_product_attention(rotate(q, self.q_at), rotate(k, self.k_at), v, self.mask)
        return out.transpose(1, 2).flatten(2).unflatten(0, (-1, blocks)).flatten(1, 2)[:, : self.frames]


class _Block(nn.Module):
    """A pre-norm block: attention, then an MLP, each added to its input."""

    def __init__(self, hidden: int, heads: int, mlp_ratio: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(hidden)
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.out = nn.Linear(hidden, hidden)
        self.norm_mlp = nn.LayerNorm(hidden)
        self.mlp = nn.Sequential(
            nn.Linear(hidden, mlp_ratio * hidden), nn.GELU(), nn.Linear(mlp_ratio * hidden, hidden)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, cached_keys: Tensor, cached_values: Tensor, pattern: _Pattern
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Outputs ``(B, T, H)`` of x ``(B, T, H)``, and the keys and values ``(B, before + T, H)``."""
        q, k, v = self.qkv(self.norm_attention(x)).chunk(3, -1)
        keys, values = torch.cat([cached_keys.to(k), k], 1), torch.cat([cached_values.to(v), v], 1)
        x = x + self.dropout(self.out(pattern.attend(q, keys, values, self.heads)))
        return x + self.dropout(self.mlp(self.norm_mlp(x))), keys, values


def _overlapping(x: Tensor, size: int, step: int) -> Tensor:
    """Blocks of x ``(B, N, ...)`` that begin every ``step`` rows, ``(B, blocks, size, ...)``."""
    if x.shape[1] == size:
        return x[:, None]
    return x.unfold(1, size, step).movedim(-1, 2)


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021, equation 34) of queries or keys ``(..., S, d)``.

    Features i and i + d/2 are a pair, rotated by ``position * 10000 ** (-2 i / d)``. The product of a query and a key
    then depends on the difference of their positions only.

    Args:
        x: queries or keys, d even.
        positions: ``(S,)`` int64.
    """
    half = x.shape[-1] // 2
    frequency = 10000.0 ** (-torch.arange(half, device=x.device) / half)
    angle = positions[:, None] * frequency
    a, b = x.chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1).type_as(x)


def _check_window(window: int | None, causal: bool) -> None:
    if not isinstance(window, int | None):
        raise SeqclfError(f"Attention: window must be an integer or None, not {window!r}")
    if causal and (window is None or window < 2):
        raise SeqclfError(f"Attention: a causal model needs a window of at least 2 frames, not {window}")
    if not causal and window is not None and (window < 3 or window % 2 == 0):
        raise SeqclfError(f"Attention: with causal=False, window must be odd and at least 3, or None, not {window}")
