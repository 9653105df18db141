"""Multi-label data: each class is present (1), absent (0) or unknown (``IGNORE``), independent of the others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError
from seqclf.data.frames.arrays import Array, as_tensor
from seqclf.data.labelling import Labelling


def as_multi_labels(labels: Array | Sequence[Array], frames: Tensor, lengths: Tensor | None) -> Tensor:
    """Converts multi-label labels to an int64 tensor ``(N, K)`` or ``(N, T, K)`` that fits frames ``(N, T, ...)``.

    Args:
        labels: 0, 1, or ``IGNORE`` or NaN where it is unknown; ``(N, K)`` per clip, ``(N, T, K)`` per frame, or for a
            list of clips a list with labels ``(T_i, K)`` for each.
        frames: the frames.
        lengths: the lengths of the clips of a list; None if all have T frames.

    Raises:
        SeqclfError: a label has another value, or the shape does not fit the frames.
    """
    n, T = frames.shape[:2]
    if isinstance(labels, (list, tuple)) and any(np.ndim(one) > 1 for one in labels):
        rows = [as_tensor(row, f"labels of clip {i}") for i, row in enumerate(labels)]
        sizes = [T] * n if lengths is None else lengths.tolist()
        K = next(row.shape[-1] for row in rows if row.dim() > 1)
        for i in range(max(n, len(rows))):
            expected = f"({sizes[i]}, {K})" if i < n else "no labels, as there is no such clip"
            found = tuple(rows[i].shape) if i < len(rows) else "none"
            if i >= n or found != (sizes[i], K):
                raise SeqclfError(f"labels of clip {i}: expected {expected}, a row of classes per frame, found {found}")
        rows = [_entries(row, f"clip {i}, frame ") for i, row in enumerate(rows)]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=IGNORE)
    tensor = as_tensor(labels, "the labels")
    if tensor.dim() not in (2, 3) or tuple(tensor.shape[:-1]) not in ((n,), (n, T)) or not tensor.shape[-1]:
        raise SeqclfError(
            f"labels {tuple(tensor.shape)} do not fit frames {tuple(frames.shape)}: multi-label labels are ({n}, K), a "
            f"row of K classes per clip, or ({n}, {T}, K), a row per frame"
        )
    return _entries(tensor, "clip ")


def _entries(values: Tensor, name: str) -> Tensor:
    """Values ``(..., K)`` as 0, 1 and ``IGNORE``; ``name`` and a position of the first axis name them in errors."""
    if values.is_complex():
        raise SeqclfError(f"labels are {values.dtype}, expected 0, 1 or IGNORE ({IGNORE})")
    if values.is_floating_point():
        values = values.where(~values.isnan(), IGNORE)
    wrong = (values != 0) & (values != 1) & (values != IGNORE)
    if wrong.any():
        at = tuple(wrong.nonzero()[0].tolist())
        frame = f", frame {at[1]}" if len(at) == 3 else ""
        raise SeqclfError(
            f"{name}{at[0]}{frame}, class {at[-1]}: the label is {values[at].item():g}, expected 0, 1 or IGNORE "
            f"({IGNORE})"
        )
    return values.long()


def check_columns(labels: Tensor, num_classes: int, name: str) -> None:
    """Raises SeqclfError unless labels ``(..., K)`` have a column for each class."""
    if labels.shape[-1] != num_classes:
        raise SeqclfError(f"{name}: labels have {labels.shape[-1]} columns, but there are {num_classes} classes")


def frame_labels(
    labelling: Labelling, labels: Tensor, lengths: Tensor | None, frames: int, multi_label: bool
) -> Tensor:
    """The labels of the frames of clips; with ``multi_label``, the labelling function is applied to each class.

    Args:
        labelling: which frames are labelled.
        labels: ``(B,)`` or ``(B, T)``; of multi-label data ``(B, K)`` or ``(B, T, K)``.
        lengths: ``(B,)``, valid frames per clip; None if all have T.
        frames: T.
        multi_label: whether the last axis of the labels is the classes.

    Returns:
        ``(B, T)``, or ``(B, T, K)``.
    """
    if not multi_label:
        return labelling(labels, lengths, frames)
    K = labels.shape[-1]
    of_classes = labels.movedim(-1, 0).flatten(0, 1)  # (K B,) or (K B, T)
    found = labelling(of_classes, None if lengths is None else lengths.repeat(K), frames)
    return found.unflatten(0, (K, -1)).movedim(0, -1)
