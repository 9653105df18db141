"""The pixels of decoded frames as planes of red, green and blue."""

from __future__ import annotations

from functools import lru_cache
from threading import local
from typing import TYPE_CHECKING, Any

import numpy as np

from seqclf.data.video.conversion import Bytes, Kind, noise_of, write_directly

if TYPE_CHECKING:
    from av import VideoFrame

_KEPT = local()
"""The reformatter of each thread. Setting up a new one takes about half as long as converting a frame."""


def upright_shape(frame: VideoFrame) -> tuple[int, int, int]:
    """``(3, H, W)`` of a frame that is rotated by quarter turns as its file says."""
    turned = frame.rotation % 180 == 90
    return (3, frame.width, frame.height) if turned else (3, frame.height, frame.width)


def write_upright(frame: VideoFrame, out: Bytes) -> None:
    """Writes red, green and blue of a frame, rotated by quarter turns as its file says, to an array ``upright_shape``.

    They are bit for bit those of FFmpeg's conversion to ``rgb24``.
    """
    kind = Kind(frame.format.name, frame.height, frame.width, int(frame.colorspace), int(frame.color_range))
    turns = frame.rotation // 90 if frame.rotation % 90 == 0 else 0
    if turns or frame.interlaced_frame or not write_directly(kind, frame, out):  # PyAV converts fields one by one
        for row, plane in zip(out, _planes(kind, frame), strict=True):
            row[...] = np.rot90(plane, turns) if turns else plane


def _planes(kind: Kind, frame: VideoFrame) -> tuple[Bytes, Bytes, Bytes]:
    """Red, green and blue of a frame. Planes save a pass over the pixels where they are exact."""
    if not _planes_are_exact(kind):
        rgb = _convert(frame, "rgb24").to_ndarray()
        return rgb[:, :, 0], rgb[:, :, 1], rgb[:, :, 2]
    green, blue, red = (
        np.ndarray((kind.height, kind.width), np.uint8, plane, 0, (plane.line_size, 1))
        for plane in _convert(frame, "gbrp").planes
    )
    return red, green, blue


def _convert(frame: VideoFrame, pixels: str) -> Any:
    try:
        reformatter = _KEPT.reformatter
    except AttributeError:
        from av.video.reformatter import VideoReformatter

        reformatter = _KEPT.reformatter = VideoReformatter()
    return reformatter.reformat(frame, format=pixels, threads=1)


@lru_cache(maxsize=256)
def _planes_are_exact(kind: Kind) -> bool:
    """Whether FFmpeg converts frames of this kind to planes exactly as to ``rgb24``, tried on noise.

    For some widths, pixel formats, versions and processors they differ.
    """
    noise = noise_of(kind)
    return noise is not None and np.array_equal(
        _convert(noise, "rgb24").to_ndarray(), _convert(noise, "gbrp").to_ndarray()
    )
