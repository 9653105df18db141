"""Training clips that are held out for validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError
from seqclf.data.clips import Clips
from seqclf.data.data import Data
from seqclf.data.order import mix
from seqclf.data.videos import Videos

_VALIDATION = 1
"""A key that gives the choice another order than other uses of the seed."""


def hold_out(data: Data, share: float, seed: int) -> Data:
    """Makes the validation part of a data set from a share of its training clips.

    The same share of each class is held out: at least one clip, and not all. A class with a single clip stays in the
    training part. A clip with labels per frame counts as its most frequent class without the background; a multi-label
    clip counts as its rarest class. If clips have groups, or come from the same video, whole groups are held out
    instead. The choice depends on the seed only. Validation clips are read like test clips: same sampling, transform
    and labelling.

    Args:
        data: data without a validation part.
        share: the share of the training clips, above 0 and below 1.
        seed: the seed of the choice.

    Returns:
        the data with a validation part. ``held_out`` describes the choice.

    Raises:
        SeqclfError: the data has a validation part; there are too few clips or groups.
    """
    setting = f"setting validation={share:g}"
    if data.validation is not None:
        raise SeqclfError(f"{setting}: {data.source} has a validation part of its own: leave the setting out")
    clips, groups = data.train, groups_of(data.train)
    if groups is not None:
        chosen = _whole_groups(groups, share, seed, setting)
        rows = [i for i, group in enumerate(groups) if group in chosen]
        how = f"by group ({len(chosen):,} of {len(set(groups)):,})"
    else:
        rows, note = _share_of_classes(clips, share, seed, data.background or (), setting)
        how = f"by class{note}"
    count = count_of(clips)
    rest = sorted(set(range(count)) - set(rows))
    names = rows if isinstance(clips, Clips) else [clips.videos[i].name for i in rows]
    record = {
        "share": share,
        "by": "class" if groups is None else "group",
        "description": f"validation: {len(rows):,} of {count:,} training clips, held out {how}",
        "groups": None if groups is None else sorted(chosen),
        "clips": names,
    }
    return replace(data, train=clips.subset(rest), validation=clips.subset(rows, data.test), held_out=record)


def groups_of(clips: Clips | Videos) -> list[str] | None:
    """The group of each clip: the given one, or its video if several clips share it; None if there are no groups."""
    if clips.groups is not None or isinstance(clips, Clips):
        return clips.groups
    paths = [video.source.path for video in clips.videos]
    return paths if len(set(paths)) < len(paths) else None


def count_of(clips: Clips | Videos) -> int:
    """The number of clips in memory, or of videos. Each is held out as a whole."""
    return len(clips) if isinstance(clips, Clips) else len(clips.videos)


def class_of_clips(clips: Clips | Videos, background: Sequence[int]) -> list[int]:
    """The class of each clip: its label, or the most frequent label of its frames; ``IGNORE`` if it has none.

    A clip with several classes at once counts as one of the rarest of them.
    """
    if isinstance(clips, Videos):
        labels = [torch.as_tensor(video.labels) for video in clips.videos]
    elif clips.per_frame:
        labels = list(clips.frame_labels().cpu())
    elif clips.multi_label:
        labels = list(clips.labels.cpu())
    else:
        return [int(label) for label in clips.labels.tolist()]
    if clips.multi_label:
        return _rarest(labels)
    return [_most_frequent(of_clip.view(-1), background) for of_clip in labels]


def _rarest(labels: Sequence[Tensor]) -> list[int]:
    """For each clip, the class with the fewest clips among those that it has; labels are ``(K,)`` or ``(T, K)``."""
    present = torch.stack([(of_clip.view(-1, of_clip.shape[-1]) == 1).any(0) for of_clip in labels])
    counts = torch.where(present, present.sum(0), len(labels) + 1)
    return [IGNORE if int(least) > len(labels) else int(k) for least, k in zip(*counts.min(1), strict=True)]


def _most_frequent(labels: Tensor, background: Sequence[int]) -> int:
    known = labels[labels != IGNORE]
    shown = known[~torch.isin(known, torch.tensor(list(background), dtype=known.dtype))]
    counted = shown if len(shown) else known
    return int(counted.bincount().argmax()) if len(counted) else IGNORE


def _share_of_classes(
    clips: Clips | Videos, share: float, seed: int, background: Sequence[int], setting: str
) -> tuple[list[int], str]:
    """The sample numbers of a share of each class, and a note on classes that gave none."""
    classes = class_of_clips(clips, background)
    if clips.per_frame or clips.multi_label:
        # The only clip of a class has other labels, too. All such clips count as one class here.
        counts = Counter(classes)
        classes = [IGNORE if counts[k] == 1 else k for k in classes]
    alone = {k for k, count in Counter(classes).items() if count == 1}
    members_of: dict[int, list[int]] = {}
    for i, k in enumerate(classes):
        members_of.setdefault(k, []).append(i)
    rows = []
    for k in sorted(members_of.keys() - alone):
        members = members_of[k]
        taken = min(max(1, round(share * len(members))), len(members) - 1)
        rows += [members[at] for at in shuffled(len(members), mix(seed, _VALIDATION, k))[:taken]]
    if not rows:
        raise SeqclfError(
            f"{setting}: no class has two training clips ({len(classes):,} clips), so that none can be held out; give "
            "Data a validation part"
        )
    note = f"; {len(alone):,} classes have only one clip, which stays in training" if alone else ""
    return sorted(rows), note


def _whole_groups(groups: Sequence[str], share: float, seed: int, setting: str) -> set[str]:
    """Groups in random order, as many as come nearest to the share of the clips: at least one, and not all."""
    sizes = Counter(groups)
    names = sorted(sizes)
    if len(names) < 2:
        raise SeqclfError(f"{setting}: all training clips belong to group {names[0]!r}, so none can be held out")
    chosen: set[str] = set()
    taken, wanted = 0, share * len(groups)
    for at in shuffled(len(names), mix(seed, _VALIDATION)):
        size = sizes[names[at]]
        nearer = abs(taken + size - wanted) < abs(taken - wanted)
        if len(chosen) < len(names) - 1 and (nearer or not chosen):
            chosen.add(names[at])
            taken += size
    return chosen


def shuffled(count: int, seed: int) -> list[int]:
    """The numbers from 0 to count - 1 in an order that depends on the seed only."""
    order: list[int] = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return order
