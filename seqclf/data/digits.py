"""The built-in digits: UCI's optdigits, 1,797 handwritten digits of 8x8, at MNIST's size. See optdigits.md beside."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

TEST_EVERY = 5
"""Every fifth digit (numbers 4, 9, 14, ...) is a test sample: 359 of them; the other 1,438 are for training."""


def read_digits() -> tuple[Tensor, Tensor]:
    """Images ``(1797, 28, 28)`` uint8, white on black, and labels ``(1797,)`` int64 from 0 to 9.

    The 8x8 images (values 0 to 16) are scaled bilinearly to 20x20 and framed by 4 pixels of black, as MNIST's are.
    """
    with files("seqclf.data").joinpath("optdigits.npz").open("rb") as stream, np.load(stream) as arrays:
        small, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
    large = F.interpolate(small[:, None].float(), size=(20, 20), mode="bilinear", align_corners=False)
    images = F.pad(large, (4, 4, 4, 4))[:, 0] * (255 / 16)
    return images.round().to(torch.uint8), labels.long()
