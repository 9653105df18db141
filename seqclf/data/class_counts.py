"""How often each class occurs in a part of the data."""

from __future__ import annotations

import torch
from torch import Tensor

from seqclf.batch import IGNORE, valid_frames
from seqclf.data.clips import Clips
from seqclf.data.videos import Videos


def class_counts(clips: Clips | Videos, num_classes: int) -> Tensor:
    """How many labels each class has: clips if the data has a label per clip, labelled frames if it has one per frame.

    Args:
        clips: the data set, not multi-label. The labels of whole videos are counted, whichever frames are drawn.
        num_classes: K.

    Returns:
        ``(K,)`` int64 on the CPU.
    """
    if isinstance(clips, Videos):
        labels = torch.cat([torch.as_tensor(video.labels).view(-1) for video in clips.videos])
    else:
        labels = clips.labels.cpu()
        if labels.dim() == 2 and clips.lengths is not None:
            labels = labels[valid_frames(clips.lengths, labels.shape, labels.device)]
    return labels[labels != IGNORE].bincount(minlength=num_classes)
