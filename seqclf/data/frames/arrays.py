"""Conversion of users' arrays to tensors: tensors, NumPy arrays, and lists of clips of unequal length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError

Array = Any
"""A tensor, a NumPy array, or anything that ``numpy.asarray`` accepts."""


def as_frames(frames: Array | Sequence[Array]) -> tuple[Tensor, Tensor | None, list[str]]:
    """Converts frames to one tensor.

    uint8 and float32 are kept. Other floats become float32; bool and other integers from 0 to 255 become uint8.

    Args:
        frames: ``(N, T, *frame_shape)``, ``(N, T)`` for one feature per frame, or a list of N clips
            ``(T_i, *frame_shape)``, which are padded with zeros to the longest.

    Returns:
        the frames ``(N, T, *frame_shape)``; the lengths ``(N,)`` of a list of unequal clips, else None; and a note for
        each conversion.

    Raises:
        SeqclfError: there are no frames; clips of a list have frames of different shapes; integers do not fit uint8.
    """
    lengths = None
    if isinstance(frames, (list, tuple)) or (isinstance(frames, np.ndarray) and frames.dtype == object):
        clips = [as_tensor(clip, f"clip {i}") for i, clip in enumerate(frames)]
        if not clips:
            raise SeqclfError("the list of clips is empty, expected at least one clip (T, *frame_shape)")
        if all(clip.dim() == 0 for clip in clips):
            raise SeqclfError("frames are a list of numbers, expected a list of clips (T, *frame_shape)")
        clips = [clip[:, None] if clip.dim() == 1 else clip for clip in clips]
        for i, clip in enumerate(clips):
            if clip.shape[1:] != clips[0].shape[1:]:
                shapes = f"{tuple(clip.shape[1:])}, but clip 0 has frames {tuple(clips[0].shape[1:])}"
                raise SeqclfError(f"clip {i} has frames {shapes}: all clips must have frames of one shape")
        sizes = [len(clip) for clip in clips]
        if 0 in sizes:
            raise SeqclfError(f"clip {sizes.index(0)} has no frames")
        dtype = clips[0].dtype
        for clip in clips[1:]:
            dtype = torch.promote_types(dtype, clip.dtype)
        lengths = torch.tensor(sizes) if len(set(sizes)) > 1 else None
        tensor = torch.nn.utils.rnn.pad_sequence([clip.to(dtype) for clip in clips], batch_first=True)
    else:
        tensor = as_tensor(frames, "the frames")
        if tensor.dim() == 2:
            tensor = tensor[..., None]
    if tensor.dim() < 3 or not tensor.numel():
        raise SeqclfError(f"frames {tuple(tensor.shape)}: expected (N, T, *frame_shape), not empty")
    before = tensor.dtype
    tensor = _converted(tensor)
    _expect_finite(tensor, lengths)
    name, after = (str(dtype).removeprefix("torch.") for dtype in (before, tensor.dtype))
    return tensor, lengths, [] if before == tensor.dtype else [f"frames converted from {name} to {after}"]


def as_labels(labels: Array | Sequence[Array], frames: Tensor, lengths: Tensor | None) -> Tensor:
    """Converts labels to an int64 tensor ``(N,)`` or ``(N, T)`` that fits frames ``(N, T, ...)``.

    Args:
        labels: whole numbers of any dtype; for a list of clips also a list with labels ``(T_i,)`` for each clip.
        frames: the frames.
        lengths: the lengths of the clips of a list; None if all have T frames.

    Raises:
        SeqclfError: they are not whole numbers, or their shape does not fit the frames.
    """
    n, T = frames.shape[:2]
    if isinstance(labels, (list, tuple)) and any(np.ndim(one) for one in labels):
        rows = [as_tensor(row, f"labels of clip {i}") for i, row in enumerate(labels)]
        sizes = [T] * n if lengths is None else lengths.tolist()
        if [tuple(row.shape) for row in rows] != [(size,) for size in sizes]:
            wrong = next((i for i, row in enumerate(rows) if i >= n or tuple(row.shape) != (sizes[i],)), len(rows))
            frames_found = f"{sizes[wrong]} frames" if wrong < n else "no frames"
            labels_found = f"labels {tuple(rows[wrong].shape)}" if wrong < len(rows) else "no labels"
            raise SeqclfError(f"clip {wrong} has {frames_found}, but {labels_found}")
        tensor = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=IGNORE)
    else:
        tensor = as_tensor(labels, "the labels")
    if tensor.is_complex() or (tensor.is_floating_point() and not torch.equal(tensor, tensor.round())):
        raise SeqclfError("labels are not whole numbers, expected class indices from 0")
    if tuple(tensor.shape) not in ((n,), (n, T)):
        raise SeqclfError(
            f"labels {tuple(tensor.shape)} do not fit frames {tuple(frames.shape)}: expected ({n},), one per clip, or "
            f"({n}, {T}), one per frame (multi_label=True takes a column of 0 and 1 for each class, ({n}, K) or "
            f"({n}, {T}, K))"
        )
    return tensor.long()


def as_lengths(lengths: Array, frames: Tensor) -> Tensor:
    """Converts lengths to an int64 tensor ``(N,)`` of values from 1 to T.

    Raises:
        SeqclfError: they are not integers, not one per clip, or out of range.
    """
    tensor, (n, T) = as_tensor(lengths, "the lengths"), frames.shape[:2]
    if tensor.is_floating_point() or tuple(tensor.shape) != (n,):
        raise SeqclfError(f"lengths {tuple(tensor.shape)} {tensor.dtype}: expected {n} integers, one per clip")
    tensor = tensor.long()
    wrong = (tensor < 1) | (tensor > T)
    if wrong.any():
        i = int(wrong.nonzero()[0])
        raise SeqclfError(f"lengths: clip {i} has length {int(tensor[i])}, expected 1 to {T}")
    return tensor


def as_groups(groups: Sequence[Any] | None, clips: int) -> list[str] | None:
    """The names of the groups of clips as strings; None for none.

    Raises:
        SeqclfError: there is not one name per clip, or a name is None or NaN.
    """
    if groups is None:
        return None
    names = list(groups.tolist() if hasattr(groups, "tolist") else groups)
    if len(names) != clips:
        raise SeqclfError(f"groups: {len(names):,} names, expected {clips:,}, one per clip")
    missing = next((i for i, name in enumerate(names) if name is None or name != name), None)
    if missing is not None:
        raise SeqclfError(f"groups: clip {missing} has no group ({names[missing]}): name one for each clip")
    return [str(name) for name in names]


def as_tensor(values: Array, name: str) -> Tensor:
    """Converts values to a tensor that shares their memory if possible."""
    if isinstance(values, Tensor):
        return values.detach()
    if np.ma.is_masked(values):
        raise SeqclfError(f"{name}: some values are masked; fill them first (filled())")
    try:
        array = np.asarray(values)
        if array.dtype.kind not in "fiub":
            raise SeqclfError(f"{name}: {_not_numbers(array)}")
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        return torch.from_numpy(np.require(array, requirements=["C", "W"]))
    except (TypeError, ValueError) as error:
        raise SeqclfError(f"{name}: expected an array of numbers ({error})") from None


def _not_numbers(array: np.ndarray[Any, Any]) -> str:
    """What an array holds in place of numbers, and how to convert it."""
    if array.ndim == 0:
        return f"expected an array or a list of numbers, not {type(array.item()).__name__}"
    if array.dtype.kind in "US" or any(isinstance(value, str) for value in array.flat):
        return "expected numbers, not strings: use numpy.unique(labels, return_inverse=True)"
    return f"expected real numbers, not {array.dtype}"


def _converted(frames: Tensor) -> Tensor:
    """Converts frames to uint8 or float32."""
    if frames.dtype in (torch.uint8, torch.float32):
        return frames
    if frames.is_floating_point():
        return frames.float()
    if frames.is_complex():
        raise SeqclfError(f"frames are {frames.dtype}, expected real numbers")
    wide = frames.long()
    low, high = int(wide.min()), int(wide.max())
    if not 0 <= low <= high <= 255:
        raise SeqclfError(
            f"frames are integers from {low} to {high}: integers are read as uint8, 0 to 255; convert them to float32"
        )
    return frames.to(torch.uint8)


def _expect_finite(frames: Tensor, lengths: Tensor | None) -> None:
    if not frames.is_floating_point() or bool(frames.sum().isfinite()):  # the sum is quick, but overflows
        return
    for i, clip in enumerate(frames):
        finite = clip.flatten(1).isfinite().all(1)
        if not finite.all():
            t = int((~finite).nonzero()[0])
            padding = " (in its padding)" if lengths is not None and t >= int(lengths[i]) else ""
            raise SeqclfError(f"clip {i}, frame {t}{padding}: holds values that are not finite (NaN or infinite)")
