"""The built-in digits: UCI's optdigits, 1,797 handwritten digits scaled to MNIST's size. See optdigits.md."""

from __future__ import annotations

from importlib.resources import files

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

TEST_EVERY = 5
"""Every fifth digit (numbers 4, 9, 14, ...) is a test sample: 359 test and 1,438 training samples."""


def read_digits() -> tuple[Tensor, Tensor]:
    """Reads the digits.

    The 8x8 images (values 0 to 16) are scaled to 20x20 with bilinear interpolation and padded by 4 black pixels, as in
    MNIST.

    Returns:
        images ``(1797, 28, 28)`` uint8, white on black, and labels ``(1797,)`` int64 from 0 to 9.
    """
    with files("seqclf.data.digits").joinpath("optdigits.npz").open("rb") as stream, np.load(stream) as arrays:
        small, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"])
    large = F.interpolate(small[:, None].float(), size=(20, 20), mode="bilinear", align_corners=False)
    images = F.pad(large, (4, 4, 4, 4))[:, 0] * (255 / 16)
    return images.round().to(torch.uint8), labels.long()
