"""Sequences that begin inside a batch, and clips of different length, packed into steps that know neither.

A *segment* is a run of frames through which memory flows: it begins where ``is_first`` says so (or where its clip
begins) and ends before the next one. Sorted by length and laid side by side, the segments of a batch make one packed
sequence (as ``torch.nn.utils.rnn.PackedSequence``): step t holds the t-th frame of every segment that has one. A
recurrent net then runs over fewer, fuller steps, without masks, and padding is not there at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from seqclf.batch import valid_frames


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
    device = is_first.device
    valid = valid_frames(lengths, is_first.shape, device)
    starts = is_first.clone()
    starts[:, 0] = True
    frames = valid.flatten().nonzero()[:, 0]
    starts = starts.flatten()[frames]
    segment = starts.cumsum(0) - 1
    begin = starts.nonzero()[:, 0]
    length = torch.bincount(segment, minlength=len(begin))
    offset = torch.arange(len(frames), device=device) - begin[segment]

    order = length.argsort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=device)
    sizes = torch.bincount(offset)
    before = sizes.cumsum(0) - sizes
    packed = before[offset] + rank[segment]

    n = len(frames)
    positions = torch.full((B * T,), n, dtype=torch.int64, device=device)
    positions[frames] = packed
    by_step = torch.empty_like(frames)
    by_step[packed] = frames
    first_frame = frames[begin[order]]
    counts = lengths.to(device) if lengths is not None else torch.full((B,), T, device=device)
    last_frame = torch.arange(B, device=device) * T + counts - 1
    return Segments(
        sizes=sizes.tolist(),
        frames=by_step,
        positions=positions,
        stream=torch.div(first_frame, T, rounding_mode="floor"),
        carried=(first_frame % T == 0) & ~is_first.flatten()[first_frame],
        last=positions[last_frame],
        final=rank[segment[counts.cumsum(0) - 1]],
    )


class _Take(torch.autograd.Function):
    """Rows taken by index, each at most once: its backward is a take too, many times faster than a scatter-add."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(rows, back)
        return _take(x, rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        rows, back = ctx.saved_tensors
        return _Take.apply(grad, back, rows), None, None


def _take(x: Tensor, rows: Tensor) -> Tensor:
    """Rows of x; the row after the last is zero."""
    if rows.shape[0] <= x.shape[0]:
        return x.index_select(0, rows)
    return torch.cat([x, x.new_zeros(1, x.shape[1])]).index_select(0, rows)


def pack(features: Tensor, segments: Segments) -> Tensor:
    """Features ``(B, T, D)`` as a packed sequence ``(N, D)``."""
    return _Take.apply(rearrange(features, "b t d -> (b t) d"), segments.frames, segments.positions)


def unpack(packed: Tensor, segments: Segments, frames: int) -> Tensor:
    """A packed sequence ``(N, H)`` as features ``(B, T, H)``, zero at padding; ``frames`` is T."""
    flat = _Take.apply(packed, segments.positions, segments.frames)
    return rearrange(flat, "(b t) h -> b t h", t=frames)
