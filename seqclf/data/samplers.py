"""Samplers: which clips a training step takes, as pure functions of the seed and the step.

A sampler returns the clips of all processes. Any number of processes therefore shares the same batch, and a resumed run
needs nothing saved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError
from seqclf.data.clips import Clips
from seqclf.data.held_out import class_of_clips
from seqclf.data.order import mix, permutation, sample_order, take
from seqclf.data.shards.data_set import Shards
from seqclf.data.videos import Videos

Sampler = Callable[[Clips | Videos, int, int, int], Tensor]
"""``sampler(clips, batch_size, seed, step)``: the sample numbers ``(batch_size,)`` int64 of a step, on the CPU."""


def shuffled(clips: Clips | Videos, batch_size: int, seed: int, step: int) -> Tensor:
    """Every clip once in each epoch, in random order. A batch may span two epochs. Shards are read in their lanes.

    Args:
        clips: the training part of the data.
        batch_size: clips per step, of all processes together.
        seed: the seed of the run.
        step: the step, from 0.

    Returns:
        ``(batch_size,)`` int64 on the CPU, from 0 to ``len(clips) - 1``.
    """
    return clips.order(batch_size, seed, step)


def balanced(clips: Clips | Videos, batch_size: int, seed: int, step: int) -> Tensor:
    """Draws each class equally often: ``weighted`` with the same weight for all classes that have clips.

    Arguments and result as in ``shuffled``.

    Raises:
        SeqclfError: the data is multi-label, or shards.
    """
    return _drawn(clips, batch_size, seed, step, None)


def weighted(clips: Clips | Videos, batch_size: int, seed: int, step: int, weights: Sequence[float]) -> Tensor:
    """Draws clips so that class k has the share ``weights[k] / sum(weights)``, whatever the sizes of the classes.

    Each clip of a class is drawn once before any is repeated. A pass has about as many draws as there are clips. The
    shares hold in every pass, up to rounding, and each class with a weight is drawn at least once. A clip with labels
    per frame has the class of most of its labelled frames; of equally frequent classes, the first. Clips without a
    label are not drawn.

    Args:
        clips, batch_size, seed, step: as in ``shuffled``.
        weights: a number of at least 0 for each class.

    Returns:
        ``(batch_size,)`` int64 on the CPU.

    Raises:
        SeqclfError: a weight is missing, negative or not finite, all are 0, or a class with a weight has no clip;
            the data is multi-label, or shards.
    """
    return _drawn(clips, batch_size, seed, step, tuple(weights))


def _drawn(clips: Clips | Videos, batch_size: int, seed: int, step: int, weights: tuple[float, ...] | None) -> Tensor:
    classes = _classes(clips)
    size = len(_pass(classes, weights, seed, 0))
    return take(size, batch_size, step, lambda number: _pass(classes, weights, seed, number))


@lru_cache(maxsize=3)
def _pass(classes: Tensor, weights: tuple[float, ...] | None, seed: int, number: int) -> Tensor:
    """The sample numbers of a pass, in their order; all passes have the same length. None for equal weights."""
    counts = classes[classes != IGNORE].bincount(minlength=0 if weights is None else len(weights))
    if weights is None:
        weights = tuple((counts > 0).double().tolist())
    _check_weights(counts, weights)
    shares = torch.tensor(weights, dtype=torch.float64) / sum(weights) * counts.sum()
    draws = [max(round(share), 1) if share else 0 for share in shares.tolist()]
    with torch.inference_mode(False):  # the cached tensor must be usable outside inference mode
        class_of_draw = torch.arange(len(draws)).repeat_interleave(torch.tensor(draws))
        class_of_draw = class_of_draw[permutation(len(class_of_draw), seed, number)]
        drawn = torch.empty_like(class_of_draw)
        for k, n in enumerate(draws):
            if n:
                members = (classes == k).nonzero()[:, 0]
                drawn[class_of_draw == k] = members[sample_order(len(members), n, mix(seed, k + 1), number)]
        return drawn


def _check_weights(counts: Tensor, weights: tuple[float, ...]) -> None:
    if len(weights) < len(counts):
        raise SeqclfError(f"weights has {len(weights)} numbers, but there are clips of class {len(counts) - 1}")
    if not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
        raise SeqclfError(f"weights={weights}: each must be finite and at least 0, and one above 0")
    for k, (weight, count) in enumerate(zip(weights, counts.tolist(), strict=True)):
        if weight and not count:
            raise SeqclfError(f"the weight of class {k} is {weight}, but no training clip has this class")


_CLASSES: WeakKeyDictionary[Clips | Videos, Tensor] = WeakKeyDictionary()


def _classes(clips: Clips | Videos) -> Tensor:
    """The class of each sample; the same tensor for each step."""
    if clips.multi_label:
        raise SeqclfError("multi-label clips cannot be drawn by class: weight the positive labels (loss.pos_weight)")
    if isinstance(clips, Shards):
        raise SeqclfError(
            "shards are read one after the other, so their clips cannot be drawn by class: weight the loss"
        )
    if clips not in _CLASSES:
        classes = class_of_clips(clips, ())
        if isinstance(clips, Videos) and not clips.training:  # several clips of each video
            classes = [classes[video] for video, _ in clips.clips]
        _CLASSES[clips] = torch.tensor(classes)
    return _CLASSES[clips]
