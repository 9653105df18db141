"""Decoding and resizing of images as OpenCV does it, to the same bytes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from seqclf.caffe.error import CaffeFormatError

_GREY = {"PNG": (9797, 19234, 3737, 0, 15)}
"""Weights of red, green and blue, the rounding term, and the shift: libpng's for PNG, OpenCV's own for others."""
_OWN_GREY = (4899, 9617, 1868, 1 << 13, 14)


def decode(file: Path | BinaryIO, colour: bool | None) -> Tensor:
    """Decodes an image like OpenCV 4's ``imread``.

    If ``colour`` is not None, images are rotated by their EXIF orientation, and 16-bit values are cut to their upper 8
    bits. A 16-bit colour PNG that is read as grey may differ by 1, because Pillow decodes only the upper 8 bits.

    Args:
        file: a file of a kind that Pillow can read.
        colour: True for three channels (BGR), False for one (grey), None for the file's own channels.

    Returns:
        ``(C, H, W)`` uint8.

    Raises:
        CaffeFormatError: the file is damaged, of an unknown kind, or has more bits per value than can be converted.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # warnings about images that can be decoded
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                pixels, kind = _pixels(image, colour), image.format or ""
    except CaffeFormatError:
        raise
    except Exception as error:  # Pillow raises almost anything on a damaged file
        raise CaffeFormatError(f"can't be decoded as an image ({error})") from None
    if pixels.ndim == 2:
        return torch.from_numpy(pixels)[None]
    if colour is False:
        return torch.from_numpy(_grey(pixels, kind))[None]
    order = (2, 1, 0, 3)[: pixels.shape[2]]
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)[order, ...]))


def _pixels(image: Any, colour: bool | None) -> Any:
    """Returns the pixels of an opened image as uint8: grey ``(H, W)``, or RGB or RGBA ``(H, W, C)``."""
    from PIL import ImageOps

    sixteen = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    if image.mode[0] in "IF" and not (sixteen and colour is not None):
        raise CaffeFormatError(f"an image of Pillow's mode {image.mode}, expected 8 bits per value")
    grey_jpeg = colour is False and image.format == "JPEG"
    if grey_jpeg:
        image.draft("L", image.size)  # reads the JPEG's brightness without converting to RGB and back
    if colour is not None:
        image = ImageOps.exif_transpose(image)
    if sixteen:
        grey = (np.array(image).astype(np.uint16) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, 2) if colour else grey
    transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    if grey_jpeg or (image.mode in ("1", "L") and not colour):
        return np.array(image.convert("L"))
    return np.array(image.convert("RGBA" if colour is None and transparent else "RGB"))


def _grey(pixels: Any, kind: str) -> Any:
    """Converts RGB ``(H, W, 3)`` to grey ``(H, W)`` with the arithmetic of the library that decodes this format."""
    red, green, blue, half, bits = _GREY.get(kind, _OWN_GREY)
    weighted = pixels.astype(np.int32) @ np.array((red, green, blue), np.int32)
    # libpng leaves grey pixels as they are; its weights, rounded down, would make them darker by 1
    same = (pixels == pixels[..., :1]).all(-1)
    return np.where(same, pixels[..., 0], (weighted + half) >> bits).astype(np.uint8)


def resize(picture: Tensor, height: int, width: int) -> Tensor:
    """Resizes an image ``(C, H, W)`` uint8 to the same bytes as cv::resize with its defaults.

    Bilinear between pixel centres, without anti-aliasing, in integers: weights in units of 1/2048; sums of rows are
    shifted by 4 bits and products of columns by 16.
    """
    x = picture.numpy()
    left, right, share = _neighbours(x.shape[2], width, edge=True)
    rows = _weighted(x, left, share[0], 2)
    rows += _weighted(x, right, share[1], 2)
    rows >>= 4
    above, below, share = _neighbours(x.shape[1], height, edge=False)
    upper, lower = _weighted(rows, above, share[0, :, None], 1), _weighted(rows, below, share[1, :, None], 1)
    upper >>= 16
    lower >>= 16
    upper += lower
    upper += 2
    upper >>= 2
    return torch.from_numpy(upper.astype(np.uint8))


def _weighted(x: Any, which: Any, share: Any, axis: int) -> Any:
    taken = x.take(which, axis).astype(np.int32, copy=False)
    taken *= share
    return taken


def _neighbours(size: int, new: int, edge: bool) -> tuple[Any, Any, Any]:
    """Returns the two source pixels of each new pixel, and their weights ``(2, new)`` in units of 1/2048.

    ``edge``: beyond the outermost centres, the outermost pixel gets the whole weight at once; otherwise in two parts.
    """
    at = ((np.arange(new) + 0.5) * (size / new) - 0.5).astype(np.float32)
    first = np.floor(at).astype(np.int64)
    part = at - first.astype(np.float32)
    if edge:
        part[(first < 0) | (first >= size - 1)] = 0
    share = np.rint(np.stack((1 - part, part)) * 2048).astype(np.int32)
    return first.clip(0, size - 1), (first + 1).clip(0, size - 1), share
