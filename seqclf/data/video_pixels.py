"""The pixels of decoded frames as planes of red, green and blue."""

from __future__ import annotations

from functools import lru_cache
from threading import local
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av import VideoFrame

_KEPT = local()
"""The reformatter of each thread. Setting up a new one takes about half as long as converting a frame."""


def upright_planes(frame: VideoFrame) -> list[NDArray[np.uint8]]:
    """Red, green and blue ``(H, W)`` of a frame, rotated by quarter turns as its file says.

    They are bit for bit those of FFmpeg's conversion to ``rgb24``.
    """
    shape = frame.height, frame.width
    if _planes_are_exact(frame.format.name, *shape, int(frame.colorspace), int(frame.color_range)):
        gbr: Any = _convert(frame, "gbrp").planes
        green, blue, red = [np.ndarray(shape, np.uint8, plane, 0, (plane.line_size, 1)) for plane in gbr]
    else:
        rgb: Any = _convert(frame, "rgb24").to_ndarray()
        red, green, blue = rgb[:, :, 0], rgb[:, :, 1], rgb[:, :, 2]
    if frame.rotation and frame.rotation % 90 == 0:
        return [np.rot90(plane, frame.rotation // 90) for plane in (red, green, blue)]
    return [red, green, blue]


def _convert(frame: VideoFrame, pixels: str) -> VideoFrame:
    try:
        reformatter = _KEPT.reformatter
    except AttributeError:
        from av.video.reformatter import VideoReformatter

        reformatter = _KEPT.reformatter = VideoReformatter()
    converted: VideoFrame = reformatter.reformat(frame, format=pixels, threads=1)
    return converted


@lru_cache(maxsize=256)
def _planes_are_exact(pixels: str, height: int, width: int, colorspace: int, color_range: int) -> bool:
    """Whether FFmpeg converts frames of this kind to planes exactly as to ``rgb24``, tried on noise.

    Planes save a pass over the pixels, but for some widths, pixel formats, versions and processors they differ.
    """
    from av import FFmpegError, VideoFrame

    try:
        noise = VideoFrame(width, height, pixels)
        noise.colorspace, noise.color_range = colorspace, color_range
        for plane in noise.planes:
            plane.update(np.random.default_rng(0).bytes(plane.buffer_size))
        return np.array_equal(_convert(noise, "rgb24").to_ndarray(), _convert(noise, "gbrp").to_ndarray())
    except (FFmpegError, OSError, ValueError):  # noise can't be made in some formats, such as palettes
        return False
