"""Frames of the misclassified test clips with the highest loss, for the report."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from seqclf.data import Data

PICTURES, FEATURES = 16, 128
"""Frames kept of each clip, spread evenly: of pictures, and of other frames."""


def most_wrong_frames(data: Data, samples: list[int]) -> tuple[NDArray[Any], list[int]]:
    """The frames ``(N, T, *frame_shape)`` of some test clips, padded with zeros at the end, and the clips' lengths."""
    limit = PICTURES if len(data.test.frame_shape) == 3 else FEATURES
    clips = []
    for sample in samples:  # one at a time: a clip may be a whole video
        batch = data.test.batch(torch.tensor([sample]))
        frames = batch.frames[0] if batch.lengths is None else batch.frames[0, : int(batch.lengths[0])]
        kept = torch.linspace(0, len(frames) - 1, min(limit, len(frames))).long()
        clips.append(frames[kept.to(frames.device)].cpu())
    if not clips:
        return torch.zeros(1, 0, *data.test.frame_shape, dtype=torch.uint8).numpy(), []
    return nn.utils.rnn.pad_sequence(clips, batch_first=True).numpy(), [len(clip) for clip in clips]
