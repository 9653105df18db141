"""Labelling functions: which frames of a clip are labelled. Clip-level and per-frame tasks differ only here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from numbers import Integral
from typing import Protocol

import torch
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError, valid_frames

Labelling = Callable[[Tensor, Tensor | None, int], Tensor]
"""``labelling(labels, lengths, T)`` maps a data set's labels ``(B,)`` or ``(B, T)`` to frame labels ``(B, T)``.

For multi-label data, it is called once with ``K * B`` clips: the labels of class 0 for all B clips, then those of class
1, and so on.
"""


class Labelled(Protocol):
    """A data set that labels frames: ``Clips`` or ``Videos``."""

    labelling: Labelling


def last_frame(labels: Tensor, lengths: Tensor | None, frames: int) -> Tensor:
    """Labels only the last valid frame of each clip; the others are ``IGNORE``.

    Args:
        labels: ``(B,)`` int64, one per clip.
        lengths: ``(B,)`` int64, valid frames per clip; None if all have T.
        frames: T.

    Returns:
        labels ``(B, T)`` int64.

    Raises:
        SeqclfError: the labels are not one per clip.
    """
    _expect(labels, 1, "last_frame")
    per_frame = torch.full((len(labels), frames), IGNORE, dtype=torch.int64, device=labels.device)
    last = (torch.full_like(labels, frames) if lengths is None else lengths.to(labels.device)) - 1
    return per_frame.scatter_(1, last[:, None], labels[:, None])


def every_frame(labels: Tensor, lengths: Tensor | None, frames: int) -> Tensor:
    """Labels every valid frame with the label of its clip, as in LRCN. Arguments as in ``last_frame``."""
    _expect(labels, 1, "every_frame")
    per_frame = labels[:, None].expand(-1, frames)
    if lengths is None:
        return per_frame.contiguous()
    return per_frame.where(valid_frames(lengths, per_frame.shape, labels.device), IGNORE)


def last_frames(labels: Tensor, lengths: Tensor | None, frames: int, n: int = 5) -> Tensor:
    """Labels the last ``n`` valid frames of each clip; the others are ``IGNORE``.

    With n = 1 it equals ``last_frame``, and with n = T ``every_frame``. The loss leaves out the first frames of a clip,
    where a causal model has seen few frames. MiniROAD (An et al., ICCV 2023) trains recurrent networks for streams this
    way.

    Args:
        labels: ``(B,)`` int64, one per clip, or ``(B, T)``, one per frame; frames with ``IGNORE`` keep it.
        lengths, frames: as in ``last_frame``.
        n: the number of frames, at least 1. In shorter clips, all valid frames are labelled.

    Returns:
        labels ``(B, T)`` int64.

    Raises:
        SeqclfError: ``n`` is not an integer of at least 1.
    """
    if not isinstance(n, Integral) or n < 1:
        raise SeqclfError(f"labelling last_frames: n={n!r}: expected an integer of at least 1")
    per_frame = (given if labels.dim() == 2 else every_frame)(labels, lengths, frames)
    ends = torch.full((len(labels),), frames) if lengths is None else lengths
    first = ends.to(labels.device)[:, None] - n
    return per_frame.where(torch.arange(frames, device=labels.device) >= first, IGNORE)


def given(labels: Tensor, lengths: Tensor | None, frames: int) -> Tensor:
    """Keeps labels per frame ``(B, T)`` as given, with ``IGNORE`` at padding. Arguments as in ``last_frame``."""
    _expect(labels, 2, "given")
    return labels.where(valid_frames(lengths, labels.shape, labels.device), IGNORE)


def labelling_text(labelling: Labelling) -> str:
    """A labelling function as text, such as ``last_frames(n=3)``."""
    if isinstance(labelling, partial):
        arguments = [*map(repr, labelling.args), *(f"{name}={value!r}" for name, value in labelling.keywords.items())]
        return f"{labelling_text(labelling.func)}({', '.join(arguments)})"
    return getattr(labelling, "__name__", type(labelling).__name__)


def _expect(labels: Tensor, dims: int, name: str) -> None:
    if labels.dim() != dims:
        form = "one label per clip (B,)" if dims == 1 else "labels per frame (B, T)"
        other = "given or last_frames" if labels.dim() == 2 else "last_frame, last_frames or every_frame"
        classes = ", or multi_label=True if the second axis is classes" if labels.dim() == 2 else ""
        raise SeqclfError(
            f"labelling {name} takes {form}, but the data's labels are {tuple(labels.shape)}: "
            f"set labelling=labelling.{other}{classes}"
        )
