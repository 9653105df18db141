"""The folds of a cross-validation: each is the test part of one run, and the other clips are its training part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError
from seqclf.data.clips import Clips
from seqclf.data.data import Data
from seqclf.data.held_out import class_of_clips, count_of, groups_of, shuffled
from seqclf.data.order import mix
from seqclf.data.videos import Videos

_FOLDS = 2
"""A key that gives folds another order than the clips held out for validation with the same seed."""


def fold(
    data: Callable[[], Data] | Data, number: int, folds: int | None = None, seed: int = 0, pool: bool = False
) -> Data:
    """The data of one run of a cross-validation.

    Args:
        data: the data, or a function that returns it.
        number: the number of the fold, from 0.
        folds: the number of folds; None for one fold per group.
        seed: the seed of the assignment of clips to folds.
        pool: whether to cut the folds from all clips: training, validation and test. By default they are cut from the
            training part, and the test part is not used.

    Returns:
        the data with the fold as its test part, and the other clips as its training part.

    Raises:
        SeqclfError: there are too few clips or groups, or no groups.
    """
    whole = data if isinstance(data, Data) else data()
    clips = _joined(whole) if pool else whole.train
    assigned, names = assign_folds(clips, folds, seed, whole.background or ())
    rest = [i for i, at in enumerate(assigned) if at != number]
    tested = [i for i, at in enumerate(assigned) if at == number]
    return replace(
        whole,
        train=clips.subset(rest),
        test=clips.subset(tested, whole.test),
        validation=None if pool else whole.validation,
        source=f"{whole.source}; fold {number} of {len(names)}, test: {names[number]}",
        warning=None,
        details={**whole.details, "folds": names},
    )


def assign_folds(
    clips: Clips | Videos, folds: int | None, seed: int, background: Sequence[int] = ()
) -> tuple[list[int], list[str]]:
    """Assigns each clip to a fold: whole groups, or else the clips of each class evenly.

    Args:
        clips: the clips.
        folds: the number of folds; None for one per group.
        seed: the seed of the assignment.
        background: the classes that do not count as the class of a clip with labels per frame, if it has others.

    Returns:
        the number of the fold of each clip, and the names of the folds: their groups, or their numbers.

    Raises:
        SeqclfError: there are too few clips or groups, or no groups.
    """
    count, groups = count_of(clips), groups_of(clips)
    if folds is None:
        if groups is None:
            raise SeqclfError(
                "leave-one-group-out needs a group for each clip: a column group in the list, or "
                "groups= of Clips or Videos"
            )
        folds = len(set(groups))
        where = {group: at for at, group in enumerate(sorted(set(groups)))}
    elif groups is not None:
        where = _balanced(groups, folds, seed)
    most, units = (count, "clips") if groups is None else (len(set(groups)), "groups")
    if groups is not None and most < 2:
        raise SeqclfError(f"all clips belong to group {groups[0]!r}, but folds need at least two groups")
    if not 2 <= folds <= most:
        raise SeqclfError(f"folds={folds}: expected 2 or more, and at most the number of {units} ({most:,})")
    if groups is not None:
        named = [", ".join(sorted(group for group in where if where[group] == at)) for at in range(folds)]
        return [where[group] for group in groups], named
    classes = class_of_clips(clips, background)
    if count // folds < len(set(classes)):
        raise SeqclfError(
            f"folds={folds}: of {count:,} clips, a fold would have fewer clips than there are classes "
            f"({len(set(classes)):,}); use at most {count // len(set(classes))}"
        )
    assigned = [0] * count
    order = shuffled(count, mix(seed, _FOLDS))
    for position, i in enumerate(sorted(order, key=lambda i: classes[i])):  # a stable sort
        assigned[i] = position % folds
    return assigned, [f"fold {at}" for at in range(folds)]


def _balanced(groups: Sequence[str], folds: int, seed: int) -> dict[str, int]:
    """The fold of each group: the largest first, to the fold with the fewest clips."""
    sizes = Counter(groups)
    names = sorted(sizes)
    order = [names[at] for at in shuffled(len(names), mix(seed, _FOLDS))]
    loads, where = [0] * folds, {}
    for group in sorted(order, key=lambda group: -sizes[group]):
        where[group] = loads.index(min(loads))
        loads[where[group]] += sizes[group]
    return where


def _joined(data: Data) -> Clips | Videos:
    """All clips of the data, read as training clips.

    Raises:
        SeqclfError: some are in memory and some are not, or only some have groups.
    """
    parts, train = list(data.parts().values()), data.train
    if len({part.groups is None for part in parts}) > 1:
        raise SeqclfError(f"{data.name}: to pool its parts, all of them need groups, or none")
    groups = None if train.groups is None else [name for part in parts for name in part.groups or ()]
    if isinstance(train, Clips) and all(isinstance(part, Clips) for part in parts):
        return _joined_clips([part for part in parts if isinstance(part, Clips)], groups)
    if isinstance(train, Videos) and all(isinstance(part, Videos) for part in parts):
        videos = [video for part in parts if isinstance(part, Videos) for video in part.videos]
        return Videos(videos, **train.settings(), groups=groups)
    raise SeqclfError(f"{data.name}: to pool its parts, all of them must be Clips, or all Videos")


def _joined_clips(parts: Sequence[Clips], groups: list[str] | None) -> Clips:
    train = parts[0]
    T = max(part.num_frames for part in parts)
    lengths = torch.cat(
        [
            torch.full((len(part),), part.num_frames, device=part.device) if part.lengths is None else part.lengths
            for part in parts
        ]
    )
    return Clips(
        torch.cat([_padded(part.frames, T, 0) for part in parts]),
        torch.cat([_padded(part.labels, T, IGNORE) if train.per_frame else part.labels for part in parts]),
        lengths if int(lengths.min()) < T else None,
        train.labelling,
        train.readers,
        train.multi_label,
        groups,
    )


def _padded(x: Tensor, frames: int, value: int) -> Tensor:
    """A tensor ``(N, T, ...)``, padded at the end of its second axis."""
    padding = x.new_full((x.shape[0], frames - x.shape[1], *x.shape[2:]), value)
    return torch.cat([x, padding], 1)
