"""The pixels of decoded frames as planes of red, green and blue."""

from __future__ import annotations

from functools import lru_cache
from threading import local
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av import VideoFrame

Plane: TypeAlias = NDArray[np.uint8]

_KEPT = local()
"""The reformatter of each thread. Setting up a new one takes about half as long as converting a frame."""


def upright_planes(frame: VideoFrame) -> tuple[Plane, Plane, Plane]:
    """Red, green and blue ``(H, W)`` of a frame, rotated by quarter turns as its file says.

    They are bit for bit those of FFmpeg's conversion to ``rgb24``.
    """
    shape = height, width = frame.height, frame.width
    if _planes_are_exact(frame.format.name, height, width, int(frame.colorspace), int(frame.color_range)):
        g, b, r = _convert(frame, "gbrp").planes
        red = np.ndarray(shape, np.uint8, r, 0, (r.line_size, 1))
        green = np.ndarray(shape, np.uint8, g, 0, (g.line_size, 1))
        blue = np.ndarray(shape, np.uint8, b, 0, (b.line_size, 1))
    else:
        rgb = _convert(frame, "rgb24").to_ndarray()
        red, green, blue = rgb[:, :, 0], rgb[:, :, 1], rgb[:, :, 2]
    if frame.rotation and frame.rotation % 90 == 0:
        turns = frame.rotation // 90
        return np.rot90(red, turns), np.rot90(green, turns), np.rot90(blue, turns)
    return red, green, blue


def _convert(frame: VideoFrame, pixels: str) -> Any:
    try:
        reformatter = _KEPT.reformatter
    except AttributeError:
        from av.video.reformatter import VideoReformatter

        reformatter = _KEPT.reformatter = VideoReformatter()
    return reformatter.reformat(frame, format=pixels, threads=1)


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
