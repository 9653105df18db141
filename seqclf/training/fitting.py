"""What a run computes from its training part before the first step: the mean and standard deviation of frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError, valid_frames
from seqclf.data import Clips, Videos, batches, mix, sample_order
from seqclf.evaluation.evaluator import evaluation_batch
from seqclf.models import Normalize
from seqclf.runtime.distributed import World
from seqclf.runtime.text import some

FROM_VIDEOS = 1000
"""Training clips that are read from videos for the mean and standard deviation."""
MOST_VALUES = 2**24
"""Values that are converted to float64 at a time."""


def fit_normalization(model: nn.Module, clips: Clips | Videos, seed: int, world: World) -> dict[str, Any] | None:
    """Fits the ``Normalize(fit=...)`` that is the model's ``preprocess`` to the valid frames of training clips.

    All clips in memory are used; of videos up to ``FROM_VIDEOS``, drawn with the seed as training draws them. The
    leading process computes the statistics for all.

    Args:
        model: the model.
        clips: the training part.
        seed: the seed of the run.
        world: the processes of the run.

    Returns:
        what ``Normalize.fit_to`` returns, and ``clips``, their number; None if the model has nothing to fit.

    Raises:
        SeqclfError: a clip cannot be read, or a value is not finite.
    """
    part = part_to_fit(model)
    if part is None:
        return None
    rows = torch.arange(len(clips)) if isinstance(clips, Clips) else _drawn(clips, seed)
    found = world.lead(lambda: {"clips": len(rows), **part.fit_to(_valid_frames(clips, rows, seed))})
    for name in ("mean", "std"):
        buffer = torch.as_tensor(found[name], dtype=torch.float32).to(getattr(part, name).device)
        setattr(part, name, buffer.view(getattr(part, name).shape))
    return found


def part_to_fit(model: nn.Module) -> Normalize | None:
    """The model's ``Normalize(fit=...)``; None if it has none.

    Raises:
        SeqclfError: it is not the model's ``preprocess``, which alone gets raw frames.
    """
    found = {name: part for name, part in model.named_modules() if isinstance(part, Normalize) and part.fit is not None}
    other = [name for name in found if name != "preprocess"]
    if other:
        raise SeqclfError(
            f"setting model: Normalize(fit=...) works as its preprocess= only, but it is {', '.join(other)}: give mean "
            "and std"
        )
    return found.get("preprocess")


def _drawn(videos: Videos, seed: int) -> Tensor:
    return sample_order(len(videos), min(len(videos), FROM_VIDEOS), seed, 0)


def _valid_frames(clips: Clips | Videos, rows: Tensor, seed: int) -> Iterator[Tensor]:
    plan = ((some, mix(seed, 0)) for some in rows.split(evaluation_batch(clips)))
    for batch in batches(clips, plan):
        frames = batch.frames[valid_frames(batch.lengths, batch.frames.shape, batch.frames.device)]
        yield from frames.split(max(1, MOST_VALUES // frames[0].numel()))


def normalization_text(found: dict[str, Any]) -> str:
    """One line about what was fitted."""
    constant = f"; constant channels become 0: {some(found['constant'], 10)}" if found["constant"] else ""
    return f"normalisation: computed from {found['frames']:,} frames of {found['clips']:,} training clips{constant}"
