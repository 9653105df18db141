"""The pixels of decoded frames as planes of red, green and blue."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av import VideoFrame
    from av.video.reformatter import VideoReformatter


def upright_planes(reformatter: VideoReformatter, frame: VideoFrame) -> list[NDArray[np.uint8]]:
    """Red, green and blue ``(H, W)`` of a frame, rotated by quarter turns as its file says."""
    planes = to_planes(reformatter, frame)
    turns = frame.rotation // 90 if frame.rotation % 90 == 0 else 0
    return [np.rot90(plane, turns) for plane in planes] if turns else planes


def to_planes(reformatter: VideoReformatter, frame: VideoFrame) -> list[NDArray[np.uint8]]:
    """Converts a frame to red, green and blue ``(H, W)``, bit for bit as FFmpeg converts it to ``rgb24``."""
    if _planes_are_exact(frame.format.name, frame.width, frame.height, int(frame.colorspace), int(frame.color_range)):
        gbr: Any = reformatter.reformat(frame, format="gbrp", threads=1).planes
        planes = [np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : frame.width] for plane in gbr]
        return [planes[2], planes[0], planes[1]]
    rgb: Any = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    return [rgb[:, :, channel] for channel in range(3)]


@lru_cache(maxsize=256)
def _planes_are_exact(pixels: str, width: int, height: int, colorspace: int, color_range: int) -> bool:
    """Whether FFmpeg converts frames of this kind to planes exactly as to ``rgb24``, tried on noise.

    Planes save a pass over the pixels, but for some widths, pixel formats, versions and processors they differ.
    """
    from av import FFmpegError, VideoFrame
    from av.video.reformatter import VideoReformatter

    try:
        noise = VideoFrame(width, height, pixels)
        noise.colorspace, noise.color_range = colorspace, color_range
        for plane in noise.planes:
            plane.update(np.random.default_rng(0).bytes(plane.buffer_size))
        rgb = VideoReformatter().reformat(noise, format="rgb24", threads=1).to_ndarray()
        return np.array_equal(rgb, VideoReformatter().reformat(noise, format="gbrp", threads=1).to_ndarray())
    except (FFmpegError, OSError, ValueError):  # noise can't be made in some formats, such as palettes
        return False
