"""How often each class occurs in a part of the data, and the class of each sample."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import IGNORE, valid_frames
from seqclf.data.clips import Clips
from seqclf.data.videos import Videos


def class_counts(clips: Clips | Videos, num_classes: int) -> Tensor:
    """How many labels each class has: clips if the data has a label per clip, labelled frames if it has one per frame.

    Args:
        clips: the data set, not multi-label. Of videos the labels are counted, whichever frames are drawn.
        num_classes: K.

    Returns:
        ``(K,)`` int64 on the CPU.
    """
    return known_labels(clips)[1].bincount(minlength=num_classes)


def sample_classes(clips: Clips | Videos) -> Tensor:
    """The class of each sample: its label, or with labels per frame that of most of its frames, of equals the first.

    Returns:
        ``(N,)`` int64 on the CPU; ``IGNORE`` for a sample without a label.
    """
    samples, labels = (x.numpy() for x in known_labels(clips))
    K = int(labels.max(initial=0)) + 1
    pairs, counts = np.unique(samples * K + labels, return_counts=True)
    of_sample, of_class = pairs // K, pairs % K
    order = np.lexsort((of_class, -counts, of_sample))  # for each sample the most frequent first
    known, first = np.unique(of_sample[order], return_index=True)
    classes = np.full(len(clips), IGNORE)
    classes[known] = of_class[order[first]]
    return torch.from_numpy(classes)


def known_labels(clips: Clips | Videos) -> tuple[Tensor, Tensor]:
    """All labels of valid frames, or of clips with one label each: sample numbers ``(M,)`` and classes ``(M,)``."""
    if isinstance(clips, Clips):
        labels = clips.labels.cpu().view(len(clips), -1)
        if clips.labels.dim() == 2 and clips.lengths is not None:
            labels = labels.where(valid_frames(clips.lengths, labels.shape, labels.device), IGNORE)
        samples = torch.arange(len(clips))[:, None].expand_as(labels)
        return samples[labels != IGNORE], labels[labels != IGNORE]
    chosen = ((v, None) for v in range(len(clips.videos))) if clips.training else clips.clips
    rows = []
    for v, numbers in chosen:
        row = torch.as_tensor(clips.videos[v].labels).view(-1)
        rows.append(row[numbers] if numbers is not None and clips.per_frame else row)
    samples = torch.arange(len(rows)).repeat_interleave(torch.tensor([len(row) for row in rows]))
    labels = torch.cat(rows)
    return samples[labels != IGNORE], labels[labels != IGNORE]
