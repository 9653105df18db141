"""Assembles clips into batches, in memory that is reused."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.frames.source import one_shape

Bytes = NDArray[np.uint8]
ALIGNED = 64
"""The alignment of PyTorch's memory in bytes. The results of matrix products depend on it."""


class Memory:
    """Memory for batches. Blocks are reused once no tensor refers to them, because first writes to memory are slow."""

    def __init__(self) -> None:
        self._blocks: list[Bytes] = []
        self._lock = Lock()

    def new(self, shape: Sequence[int], dtype: torch.dtype = torch.uint8) -> Tensor:
        """Returns a tensor with arbitrary values."""
        size = math.prod(shape) * dtype.itemsize
        with self._lock:
            block = self._free_block(size + ALIGNED)
            start = -block.ctypes.data % ALIGNED
            return (
                torch.from_numpy(block[start : start + size]).view(dtype).view(*shape) if size else torch.empty(*shape)
            )

    def _free_block(self, size: int) -> Bytes:
        used = [count > UNUSED for count in _references(self._blocks)]
        fitting = [
            block for block, is_used in zip(self._blocks, used, strict=True) if not is_used and block.size >= size
        ]
        if fitting:
            return fitting[0]
        block = np.empty(size, np.uint8)
        self._blocks = [block, *(other for other, is_used in zip(self._blocks, used, strict=True) if is_used)]
        return block


def _references(blocks: list[Bytes]) -> list[int]:
    return [sys.getrefcount(block) for block in blocks]


UNUSED = _references([np.empty(0, np.uint8)])[0]


class Rows:
    """The rows of a batch, into which frames are decoded. The first clip determines the shape of all rows.

    Args:
        count: the number of clips.
        memory: where the batch is allocated.
    """

    def __init__(self, count: int, memory: Memory) -> None:
        self.count, self.memory = count, memory
        self._frames: Tensor | None = None
        self._rows: Bytes | None = None
        self._lock = Lock()

    def take(self, row: int, shape: tuple[int, ...]) -> Bytes:
        """Returns an array for the clip of a row. It is outside the batch if its shape differs from the first one."""
        with self._lock:
            if self._rows is None:
                self._frames = self.memory.new((self.count, *shape))
                self._rows = self._frames.numpy()
        return self._rows[row] if self._rows.shape[1:] == shape else np.empty(shape, np.uint8)

    def batch(self, clips: Sequence[Tensor]) -> Tensor:
        """Assembles clips ``(t, *frame_shape)`` into one tensor ``(B, T, *frame_shape)``, padded with zeros at the end.

        Raises:
            SeqclfError: their frames differ in shape.
        """
        frames, first = self._frames, clips[0]
        if frames is None or len(clips) < self.count or first.dtype != frames.dtype:
            return padded(clips, self.memory)
        layout = first.shape, first.stride(), first.dtype  # a transform may return a part of the row, or a view of it
        start, size = frames.data_ptr(), frames.stride(0)
        for row, clip in enumerate(clips):
            if clip.data_ptr() != start + row * size or (clip.shape, clip.stride(), clip.dtype) != layout:
                return padded(clips, self.memory)
        return frames.as_strided((self.count, *first.shape), (size, *first.stride()))


def padded(clips: Sequence[Tensor], memory: Memory) -> Tensor:
    """Copies clips ``(t, *frame_shape)`` into one tensor ``(B, T, *frame_shape)``, with zeros after shorter clips.

    Raises:
        SeqclfError: their frames differ in shape.
    """
    shapes = {tuple(clip.shape[1:]) for clip in clips}
    if len(shapes) > 1:
        raise SeqclfError(
            f"frames of shapes {' and '.join(map(str, sorted(shapes)))} can't form one batch: {one_shape(min(shapes))}"
        )
    first, shape, T = clips[0], shapes.pop(), max(map(len, clips))
    if first.dim() == 4 and first.stride(1) == 1:  # keep channels last: reordering is slower than copying
        frames = memory.new((len(clips), T, *shape[1:], shape[0]), first.dtype).movedim(-1, 2)
    else:
        frames = memory.new((len(clips), T, *shape), first.dtype)
    for row, clip in zip(frames, clips, strict=True):
        row[: len(clip)], row[len(clip) :] = clip, 0
    return frames
