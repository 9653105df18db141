"""Decoding of picture files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqclf.batch import SeqclfError

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
OTHER_PICTURES = (".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pnm", ".jp2", ".avif", ".heic", ".jxl", ".exr")
"""Unsupported formats. Among frames they are an error, because ignoring them would shift all later frames."""
KINDS = ", ".join(suffix[1:] for suffix in PICTURES)

_JPEG, _EXIF = b"\xff\xd8\xff", b"Exif\0\0"


def is_picture(name: str) -> bool:
    """Whether a file name has the suffix of a picture, supported or not. A GIF file may also be a video."""
    return name.lower().endswith(PICTURES + OTHER_PICTURES)


def read_picture(path: str | Path) -> NDArray[np.uint8]:
    """Reads a picture file as ``(H, W, 3)`` uint8 RGB; the array may be read-only.

    Pixels are as stored: EXIF orientation is not applied, grey becomes RGB, and transparency is dropped.

    Raises:
        SeqclfError: the file is missing or damaged, has more than 8 bits per channel, or holds several pictures.
    """
    with _naming(path), open(path, "rb") as file:
        if _jpeg_decoder() is None:
            return _decode_by_pil(file, path)
        content = bytearray(os.fstat(file.fileno()).st_size)
        file.readinto(content)
    return decode_picture(content, path)


def decode_picture(content: bytearray, name: str | Path) -> NDArray[np.uint8]:
    """Decodes the content of a picture file; ``name`` is used in errors. See ``read_picture``."""
    decode = _jpeg_decoder()
    if decode is not None and content.startswith(_JPEG) and _EXIF not in content:  # torchcodec applies the orientation
        with suppress(RuntimeError):  # PIL tries then, and reports what is wrong
            return decode(torch.frombuffer(content, dtype=torch.uint8)).permute(1, 2, 0).numpy()
    return _decode_by_pil(BytesIO(content), name)


def _decode_by_pil(file: IO[bytes], name: str | Path) -> NDArray[np.uint8]:
    """Decodes an open file. Errors are those of ``read_picture``."""
    with _opened(file, name) as image:
        if image.format != "JPEG":  # a JPEG is one picture of 8 bits
            _expect_plain(image, name)
        if image.mode == "P":  # PIL drops the transparency of a palette only through RGBA
            image = image.convert("RGBA")
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _expect_plain(image: Any, name: str | Path) -> None:
    if image.mode.startswith(("I", "F")) or ";16" in str(image.tile):
        raise SeqclfError(f"{name}: has more than 8 bits per channel ({image.mode}), expected 8")
    if getattr(image, "n_frames", 1) > 1:
        raise SeqclfError(f"{name}: has {image.n_frames} pictures in one file, expected one file per frame")


def picture_size(path: str) -> tuple[int, int]:
    """Height and width of a picture, from its header. Errors as in ``read_picture``."""
    with _opened(path, path) as image:
        return image.height, image.width


@cache
def _jpeg_decoder() -> Callable[[Tensor], Tensor] | None:
    """The JPEG decoder of torchcodec: the same pixels as PIL in two thirds of the time. None if not installed."""
    try:
        return import_module("torchcodec.decoders").decode_jpeg
    except (ImportError, AttributeError, OSError, RuntimeError):  # missing, before 0.16, or for another PyTorch
        return None


@contextmanager
def _opened(file: str | IO[bytes], name: str | Path) -> Iterator[Any]:
    """Opens a PIL image; any error in the block becomes a SeqclfError that names the file."""
    from PIL import Image

    with _naming(name), Image.open(file) as image:
        yield image


@contextmanager
def _naming(name: str | Path) -> Iterator[None]:
    """Turns any error in the block into a SeqclfError that names the file."""
    from PIL import UnidentifiedImageError

    try:
        yield
    except (SeqclfError, MemoryError):
        raise
    except FileNotFoundError:
        raise SeqclfError(f"{name}: no such file") from None
    except UnidentifiedImageError:
        raise SeqclfError(f"{name}: not a picture in a known format") from None
    except Exception as error:  # PIL's decoders raise many types on damaged files
        raise SeqclfError(f"{name}: picture cannot be decoded ({' '.join(str(error).split())})") from None
