"""Reading frames through a transform, in pieces that bound the memory, and padding of clips to batches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.source import Source, one_shape
from seqclf.data.transforms import Transform, apply_transform, is_framewise

CLIP = 16
"""The largest clip, in frames, that is read at once."""
FIRST = 4
"""Frames in the first piece of a longer clip, from which the size of a frame is known."""
PIECE_BYTES = 16_000_000
"""Bytes of raw frames in each further piece."""
LARGE = 1 << 22
"""The size in bytes from which NumPy asks for large pages."""
ALIGNED = 64
"""Bytes. PyTorch's memory begins at a multiple of this."""


def read_frames(
    source: Source, numbers: Sequence[int], transform: Transform | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Reads the frames ``numbers`` of a source and transforms them to ``(n, *frame_shape)``.

    A transform marked by ``framewise`` is applied piece by piece while frames are decoded. Each piece starts from the
    same generator state, so the result is bit for bit that of the whole clip. Any other transform receives the whole
    clip at once.

    Raises:
        SeqclfError: a frame can't be read, has values that are not finite, or does not fit into memory.
    """
    try:
        if transform is None or not is_framewise(transform) or len(numbers) <= CLIP:
            frames = _finite(source, numbers)
            return frames if transform is None else apply_transform(transform, frames, generator, source.path)
        state = None if generator is None else generator.get_state()
        out, start, count = torch.empty(0), 0, FIRST
        while start < len(numbers):
            if generator is not None and state is not None:
                generator.set_state(state)
            raw = _finite(source, numbers[start : start + count])
            changed = apply_transform(transform, raw, generator, source.path)
            if start == 0:  # allocated once, because small tensors between large ones would fragment the heap
                out = changed.new_empty((len(numbers), *changed.shape[1:]))
            out[start : start + count] = changed
            start, count = start + count, max(1, PIECE_BYTES // raw[0].nbytes)
        return out
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "can't allocate memory" not in str(error):
            raise
        raise SeqclfError(
            f"{source.path}: not enough memory for {len(numbers):,} frames: sample fewer (sampling=, test_sampling=), "
            "scale them down (transform= with resize), or use smaller batches (batch_size, eval_batch)"
        ) from None


def _finite(source: Source, numbers: Sequence[int]) -> Tensor:
    """Reads raw frames and checks that they are finite."""
    frames = source.read(numbers)
    if frames.is_floating_point() and not frames.sum().isfinite():  # the sum is quick, but overflows
        finite = frames.flatten(1).isfinite().all(1)
        if not finite.all():
            at = numbers[int((~finite).nonzero()[0])]
            raise SeqclfError(f"{source.path}: frame {at} holds values that are not finite (NaN or infinite)")
    return frames


def padded(clips: Sequence[Tensor]) -> Tensor:
    """Clips ``(t, *frame_shape)`` as one tensor ``(B, T, *frame_shape)``, with zeros after the end of shorter ones.

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
        frames = _empty((len(clips), T, *shape[1:], shape[0]), first.dtype).movedim(-1, 2)
    else:
        frames = _empty((len(clips), T, *shape), first.dtype)
    for row, clip in zip(frames, clips, strict=True):
        row[: len(clip)], row[len(clip) :] = clip, 0
    return frames


def _empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """``torch.empty`` in memory of NumPy, which asks for large pages: the first write then costs a quarter."""
    if (size := math.prod(shape) * dtype.itemsize) < LARGE:
        return torch.empty(*shape, dtype=dtype)
    memory = np.empty(size + ALIGNED, np.uint8)
    start = -memory.ctypes.data % ALIGNED  # results of matrix products depend on it
    return torch.from_numpy(memory[start : start + size]).view(dtype).view(*shape)
