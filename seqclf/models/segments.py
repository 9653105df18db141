"""Sequences that begin inside a batch, and clips of different length, packed into steps that know neither.

A *segment* is a run of frames through which memory flows: it begins where ``is_first`` says so (or where its clip
begins) and ends before the next one. Sorted by length and laid side by side, the segments of a batch make one packed
sequence (as ``torch.nn.utils.rnn.PackedSequence``): step t holds the t-th frame of every segment that has one. A
recurrent net then runs over fewer, fuller steps, without masks, and padding is not there at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor


@dataclass
class Segments:
    """Where each valid frame of a ``(B, T)`` batch stands in the packed sequence of N frames.

    Attributes:
        sizes: how many segments reach each step, not increasing; they sum to N.
        frames: ``(N,)`` int64, the position ``b * T + t`` of each packed frame.
        positions: ``(B * T,)`` int64, the packed position of each frame, N where the frame is padding.
        stream: ``(sizes[0],)`` int64, the stream b that each segment belongs to.
        carried: ``(sizes[0],)`` bool, True where the segment goes on from the stream's state.
        last: ``(B,)`` int64, the packed position of each stream's last valid frame.
        final: ``(B,)`` int64, which segment (a row of step 0) that frame belongs to.
    """

    sizes: list[int]
    frames: Tensor
    positions: Tensor
    stream: Tensor
    carried: Tensor
    last: Tensor
    final: Tensor


def find_segments(is_first: Tensor, lengths: Tensor | None = None) -> Segments:
    """The segments of a batch: ``is_first`` (B, T) bool, ``lengths`` (B,) int64 from 1 to T, or None for all T.

    Segments of one length keep the order of their streams, so that where all clips have one length and none is reset
    the packed sequence is the batch time-major.
    """
    B, T = is_first.shape
    # In NumPy: these many small integer arrays take a quarter of PyTorch's time, and on a GPU one transfer each way.
    starts = is_first.cpu().numpy().copy()
    starts[:, 0] = True
    counts = np.full(B, T) if lengths is None else lengths.cpu().numpy()
    frames = np.flatnonzero(np.arange(T) < counts[:, None])
    begin = np.flatnonzero(starts.ravel()[frames])
    length = np.diff(begin, append=len(frames))

    order = np.argsort(-length, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    segment = np.repeat(np.arange(len(begin)), length)
    offset = np.arange(len(frames)) - begin[segment]
    sizes = np.bincount(offset)
    packed = (np.cumsum(sizes) - sizes)[offset] + rank[segment]

    positions = np.full(B * T, len(frames))
    positions[frames] = packed
    by_step = np.empty_like(frames)
    by_step[packed] = frames
    first_frame = frames[begin[order]]
    last_valid = np.cumsum(counts) - 1

    def tensor(x: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(x).to(is_first.device, non_blocking=True)

    return Segments(
        sizes=sizes.tolist(),
        frames=tensor(by_step),
        positions=tensor(positions),
        stream=tensor(first_frame // T),
        carried=tensor((first_frame % T == 0) & ~is_first.cpu().numpy().ravel()[first_frame]),
        last=tensor(packed[last_valid]),
        final=tensor(rank[segment[last_valid]]),
    )


class Take(torch.autograd.Function):
    """Rows taken by index, each at most once: its backward is a take too, many times faster than a scatter-add."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(rows, back)
        return _take(x, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        rows, back = ctx.saved_tensors
        return Take.apply(grad, back, rows), None, None


def _take(x: Tensor, rows: Tensor) -> Tensor:
    """Rows of x; the row after the last is zero."""
    if rows.shape[0] <= x.shape[0]:
        return x.index_select(0, rows)
    return torch.cat([x, x.new_zeros(1, x.shape[1])]).index_select(0, rows)


def pack(features: Tensor, segments: Segments) -> Tensor:
    """Features ``(B, T, D)`` as a packed sequence ``(N, D)``."""
    return Take.apply(rearrange(features, "b t d -> (b t) d"), segments.frames, segments.positions)


def unpack(packed: Tensor, segments: Segments, frames: int) -> Tensor:
    """A packed sequence ``(N, H)`` as features ``(B, T, H)``, zero at padding; ``frames`` is T."""
    flat = Take.apply(packed, segments.positions, segments.frames)
    return rearrange(flat, "(b t) h -> b t h", t=frames)
