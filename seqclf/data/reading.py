"""Reading frames through a transform, in pieces that bound the memory."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.frames.source import NewArray, Source
from seqclf.data.transforms import Transform, apply_transform, is_framewise

CLIP = 16
"""The largest clip, in frames, that is read at once."""
FIRST = 4
"""Frames in the first piece of a longer clip, from which the size of a frame is known."""
PIECE_BYTES = 16_000_000
"""Bytes of raw frames in each further piece."""


def read_frames(
    source: Source,
    numbers: Sequence[int],
    transform: Transform | None = None,
    generator: torch.Generator | None = None,
    new: NewArray | None = None,
) -> Tensor:
    """Reads the frames ``numbers`` of a source and transforms them to ``(n, *frame_shape)``.

    A transform marked by ``framewise`` is applied piece by piece while frames are decoded. Each piece starts from the
    same generator state, so the result is bit for bit that of the whole clip. Any other transform receives the whole
    clip at once.

    Args:
        source: the source.
        numbers: the numbers of the frames.
        transform: the transform; None for none.
        generator: the generator of the transform.
        new: a function of a shape that returns the memory to read into, if the source can do so and nothing transforms
            the frames.

    Raises:
        SeqclfError: a frame can't be read, has values that are not finite, or does not fit into memory.
    """
    try:
        if transform is None or not is_framewise(transform) or len(numbers) <= CLIP:
            frames = _finite(source, numbers, new if transform is None else None)
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


def _finite(source: Source, numbers: Sequence[int], new: NewArray | None = None) -> Tensor:
    """Reads raw frames, and checks that they are as many as asked for, and finite."""
    into = getattr(source, "read_into", None)
    try:
        frames = source.read(numbers) if new is None or into is None else into(numbers, new)
    except Exception as error:
        if not isinstance(error, SeqclfError | MemoryError) and hasattr(error, "add_note"):  # Python 3.11
            error.add_note(f"while {type(source).__name__}.read() read frames of {source.path}")
        raise
    if not isinstance(frames, Tensor) or len(frames) != len(numbers):
        found = f"{len(frames):,} frames" if isinstance(frames, Tensor) else f"a {type(frames).__name__}"
        raise SeqclfError(f"{source.path}: read() returned {found}, expected a tensor of {len(numbers):,} frames")
    if frames.is_floating_point() and not frames.sum().isfinite():  # the sum is quick, but overflows
        finite = frames.flatten(1).isfinite().all(1)
        if not finite.all():
            at = numbers[int((~finite).nonzero()[0])]
            raise SeqclfError(f"{source.path}: frame {at} holds values that are not finite (NaN or infinite)")
    return frames
