"""Small pictures of frames."""

from __future__ import annotations

import io

from PIL import Image
from torch import Tensor

SIZE = (176, 132)
"""The largest width and height of a thumbnail."""


def thumbnail(frame: Tensor) -> bytes:
    """A frame ``(C, H, W)`` uint8 as a small JPEG file; b"" for features."""
    if frame.dim() != 3 or frame.shape[0] not in (1, 3) or frame.is_floating_point():
        return b""
    picture = Image.fromarray(frame.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy())
    picture.thumbnail(SIZE)
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=80)
    return stream.getvalue()
