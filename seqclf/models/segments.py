"""Packs a batch with resets and padding into one packed sequence without either.

A *segment* is a run of frames through which the state flows. It begins at the first frame of its clip or where
``is_first`` is True, and ends before the next segment or at the clip's last valid frame. The segments of a batch,
sorted by length, form a packed sequence as in ``torch.nn.utils.rnn.PackedSequence``: step t holds frame t of every
segment that is long enough. A recurrent layer needs no masks on it, and computes no padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

Mask = np.ndarray[Any, Any]


@dataclass
class Segments:
    """The position of each valid frame of a ``(B, T)`` batch in the packed sequence of N frames.

    Attributes:
        sizes: the number of segments at each step, not increasing, with sum N.
        starts: ``(len(sizes) + 1,)`` int64 on the CPU, the packed position of each step's first frame, and N.
        frames: ``(N,)`` int64, the index ``b * T + t`` of each packed frame.
        positions: ``(B * T,)`` int64, the packed position of each frame; N for padding.
        stream: ``(sizes[0],)`` int64, the index b of the stream of each segment.
        carried: ``(sizes[0],)`` bool, True if the segment continues from the stream's state: it begins at frame 0.
        last: ``(B,)`` int64, the packed position of each stream's last valid frame.
        final: ``(B,)`` int64, the segment (a row of step 0) that contains this frame.
    """

    sizes: list[int]
    starts: Tensor
    frames: Tensor
    positions: Tensor
    stream: Tensor
    carried: Tensor
    last: Tensor
    final: Tensor

    def reverse(self, packed: Tensor) -> Tensor:
        """The packed frames ``(N, D)`` with those of each segment in the opposite order."""
        starts = self.starts.numpy()
        step = np.repeat(np.arange(len(self.sizes)), self.sizes)
        segment = np.arange(len(step)) - starts[step]
        opposite = np.bincount(segment)[segment] - 1 - step
        rows = torch.from_numpy(starts[opposite] + segment).to(packed.device, non_blocking=True)
        return Take.apply(packed, rows, rows)


def find_segments(counts: Sequence[int], T: int, is_first: Mask | None, device: torch.device) -> Segments:
    """Finds the segments of a batch.

    Segments of equal length keep the order of their streams. A batch without resets and padding is therefore packed
    time-major.

    Args:
        counts: the number of valid frames of each of the B clips, from 1 to T.
        T: the number of frames.
        is_first: ``(B, T)`` bool, True where a frame begins a new sequence; None for nowhere. Frame 0 does not matter.
        device: the device of the result.
    """
    # NumPy is four times as fast as PyTorch on these small arrays, and a GPU needs only one transfer each way.
    valid, clips = np.array(counts), np.arange(len(counts))
    if is_first is None:
        begin, length = clips * T, valid
    else:
        frames = np.flatnonzero(np.arange(T) < valid[:, None])
        begins = is_first.copy()
        begins[:, 0] = True
        first = np.flatnonzero(begins.ravel()[frames])
        begin, length = frames[first], np.diff(first, append=len(frames))

    order = np.argsort(-length, kind="stable")
    begin = begin[order]
    sizes = len(length) - np.cumsum(np.bincount(length))[:-1]
    starts = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=starts[1:])
    step = np.repeat(np.arange(len(sizes)), sizes)
    packed = np.arange(len(step))
    segment = packed - starts[step]
    frames = begin[segment] + step
    positions = np.full(len(counts) * T, len(step))
    positions[frames] = packed
    last = positions[clips * T + valid - 1]

    def tensor(x: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(x).to(device, non_blocking=True)

    return Segments(
        sizes=sizes.tolist(),
        starts=torch.from_numpy(starts),
        frames=tensor(frames),
        positions=tensor(positions),
        stream=tensor(begin // T),
        carried=tensor(begin % T == 0),
        last=tensor(last),
        final=tensor(segment[last]),
    )


@lru_cache(maxsize=8)
def whole_segments(B: int, T: int) -> Segments:
    """The segments of a batch without resets and padding, on the CPU. They are shared, so never change them."""
    with torch.inference_mode(False):
        return find_segments([T] * B, T, None, torch.device("cpu"))


class Take(torch.autograd.Function):
    """Takes rows of x by index. ``back`` is the inverse, so that the backward pass takes rows, too.

    This is many times faster than the scatter-add of ``index_select``. No row may be taken twice, unless its gradient
    is zero there; index N, for N rows, gives zeros.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(rows, back)
        return _take(x, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        rows, back = ctx.saved_tensors
        return Take.apply(grad, back, rows), None, None


def _take(x: Tensor, rows: Tensor) -> Tensor:
    if rows.shape[0] <= x.shape[0]:
        return x.index_select(0, rows)
    return torch.cat([x, x.new_zeros(1, x.shape[1])]).index_select(0, rows)


def pack(features: Tensor, segments: Segments) -> Tensor:
    """Packs features ``(B, T, D)`` into a sequence ``(N, D)``."""
    return Take.apply(rearrange(features, "b t d -> (b t) d"), segments.frames, segments.positions)


def unpack(packed: Tensor, segments: Segments, frames: int) -> Tensor:
    """Unpacks a sequence ``(N, H)`` to features ``(B, T, H)``, zero at padding; ``frames`` is T."""
    flat = Take.apply(packed, segments.positions, segments.frames)
    return rearrange(flat, "(b t) h -> b t h", t=frames)
