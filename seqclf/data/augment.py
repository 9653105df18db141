"""Random changes of raw training frames, one draw per clip, from PyTorch's generator (which training seeds by step)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def shift(frames: Tensor, pixels: int = 1) -> Tensor:
    """Each clip's picture moved by up to ``pixels`` in both directions, zeros coming in at the border.

    The picture is the last two axes: of frames ``(B, T, D)`` that are the rows of an image, the image ``(T, D)``; of
    ``(B, T, C, H, W)`` each frame ``(H, W)``, all frames of a clip alike.

    Args:
        frames: any dtype.
        pixels: each offset is drawn evenly from -pixels to pixels.
    """
    B, H, W = frames.shape[0], frames.shape[-2], frames.shape[-1]
    device = frames.device
    planes = F.pad(frames.reshape(B, -1, H, W), (pixels,) * 4)
    down, right = torch.randint(0, 2 * pixels + 1, (2, B, 1, 1, 1), device=device)
    clip = torch.arange(B, device=device).view(B, 1, 1, 1)
    plane = torch.arange(planes.shape[1], device=device).view(1, -1, 1, 1)
    rows = torch.arange(H, device=device).view(1, 1, H, 1) + down
    columns = torch.arange(W, device=device) + right
    return planes[clip, plane, rows, columns].view_as(frames)
