"""How often each class occurs in a part of the data."""

from __future__ import annotations

import torch
from torch import Tensor

from seqclf.batch import IGNORE
from seqclf.data.clips import Clips
from seqclf.data.videos import Videos


def class_counts(clips: Clips | Videos, num_classes: int) -> Tensor:
    """How many labels each class has: clips if the data has a label per clip, labelled frames if it has one per frame.

    Of multi-label data, how many of its labels are 1.

    Args:
        clips: the data set. The labels of whole videos are counted, not only those of sampled frames.
        num_classes: K.

    Returns:
        ``(K,)`` int64 on the CPU.
    """
    if isinstance(clips, Videos):
        each = (torch.as_tensor(video.labels) for video in clips.videos)
        labels = torch.cat([x.view(-1, num_classes) if clips.multi_label else x.view(-1) for x in each])
    else:
        labels = (clips.frame_labels() if clips.per_frame else clips.labels).cpu()
    if clips.multi_label:
        return (labels == 1).view(-1, num_classes).sum(0)
    return labels[labels != IGNORE].bincount(minlength=num_classes)
