"""FFmpeg's conversion of pixels to RGB, straight into an array.

PyAV converts into a new frame, so that a batch needs a copy of it. The functions called here are public ones of
FFmpeg's library libswscale, which PyAV brings along: ``sws_getContext`` and ``sws_scale`` of ``libswscale/swscale.h``.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache, lru_cache
from threading import local
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from av import VideoFrame

Bytes: TypeAlias = NDArray[np.uint8]
ALIGNED = 16
"""The alignment of rows in bytes that FFmpeg's conversions need: they write so many pixels at once."""
BILINEAR = 2
"""FFmpeg's number of PyAV's default way to enlarge colours, which have fewer pixels than brightness."""
FULL = 2
"""FFmpeg's number of the range of colours from 0 to 255, which the formats ``yuvj`` also have."""
Pointers, Strides = ctypes.c_void_p * 4, ctypes.c_int * 4
NONE, UNIT = 0, 1 << 16
"""The brightness, and the contrast and saturation, that change nothing."""

_KEPT = local()
"""The converter of each thread. Setting up a new one takes about as long as converting a frame."""


class Kind(NamedTuple):
    """What FFmpeg's conversion of a frame depends on."""

    pixels: str
    height: int
    width: int
    colorspace: int
    color_range: int


class Converter:
    """Converts frames of one kind; not for several threads at a time.

    Raises:
        ValueError: FFmpeg can't convert such frames.
    """

    def __init__(self, kind: Kind) -> None:
        library = functions()
        assert library is not None
        self.kind, self._convert, self._free = kind, library.sws_scale, library.sws_freeContext
        size = kind.width, kind.height
        before, after = (library.av_get_pix_fmt(name.encode()) for name in (kind.pixels, "gbrp"))
        self._context = library.sws_getContext(*size, before, *size, after, BILINEAR, None, None, None)
        if not self._context:
            raise ValueError(f"FFmpeg can't convert {kind.pixels}")
        full = kind.color_range == FULL or kind.pixels.startswith("yuvj")
        colors = library.sws_getCoefficients(kind.colorspace)
        library.sws_setColorspaceDetails(self._context, colors, full, colors, True, NONE, UNIT, UNIT)
        self._strides = Strides(*[kind.width] * 3)

    def __del__(self) -> None:
        if getattr(self, "_context", None):
            self._free(self._context)

    def write(self, frame: VideoFrame, address: int) -> None:
        """Writes a frame to the address of an array ``(3, H, W)`` without gaps."""
        planes, size = frame.planes, self.kind.height * self.kind.width
        pixels = Pointers(*[plane.buffer_ptr for plane in planes])
        strides = Strides(*[plane.line_size for plane in planes])
        green_blue_red = Pointers(address + size, address + 2 * size, address)
        self._convert(self._context, pixels, strides, 0, self.kind.height, green_blue_red, self._strides)


def write_directly(kind: Kind, frame: VideoFrame, out: Bytes) -> bool:
    """Converts a frame into an array ``(3, H, W)``; returns False, and writes nothing, if that would not be exact."""
    address: int = out.__array_interface__["data"][0]
    fits = out.shape == (3, kind.height, kind.width) and out.flags.c_contiguous and address % ALIGNED == 0
    if not fits or not is_exact(kind):
        return False
    converter: Converter | None = getattr(_KEPT, "converter", None)
    if converter is None or converter.kind != kind:
        converter = _KEPT.converter = Converter(kind)
    converter.write(frame, address)
    return True


@lru_cache(maxsize=256)
def is_exact(kind: Kind) -> bool:
    """Whether direct conversion of frames of this kind equals PyAV's to ``rgb24``, and writes nothing else.

    It is tried on noise, because it depends on the versions of the libraries and on the processor.
    """
    if functions() is None or kind.width % ALIGNED or (noise := noise_of(kind)) is None:
        return False
    size = 3 * kind.height * kind.width
    around = np.zeros(size + 512, np.uint8)
    start = 256 + (ALIGNED - around.ctypes.data) % 64  # the least alignment that is accepted
    out = around[start : start + size].reshape(3, kind.height, kind.width)
    try:
        Converter(kind).write(noise, out.ctypes.data)
    except ValueError:
        return False
    written = np.array_equal(out, noise.to_ndarray(format="rgb24", threads=1).transpose(2, 0, 1))
    return written and not around[:start].any() and not around[start + size :].any()


def noise_of(kind: Kind) -> VideoFrame | None:
    """A frame of noise; None if it can't be made, as for palettes."""
    from av import FFmpegError, VideoFrame

    try:
        noise = VideoFrame(kind.width, kind.height, kind.pixels)
        noise.colorspace, noise.color_range = kind.colorspace, kind.color_range
        for plane in noise.planes:
            plane.update(np.random.default_rng(0).bytes(plane.buffer_size))
    except (FFmpegError, OSError, ValueError):
        return None
    return noise


@cache
def functions() -> Any:
    """FFmpeg's functions in the library that PyAV uses; None where they can't be found."""
    from av.video import reformatter

    with suppress(AttributeError, OSError):
        library = ctypes.CDLL(reformatter.__file__)
        pointer, number = ctypes.c_void_p, ctypes.c_int
        for name, result, arguments in (
            ("av_get_pix_fmt", number, [ctypes.c_char_p]),
            ("sws_getContext", pointer, [number] * 7 + [pointer] * 3),
            ("sws_getCoefficients", pointer, [number]),
            ("sws_setColorspaceDetails", number, [pointer, pointer, number, pointer] + [number] * 4),
            ("sws_scale", number, [pointer, pointer, pointer, number, number, pointer, pointer]),
            ("sws_freeContext", None, [pointer]),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        return library
    return None
