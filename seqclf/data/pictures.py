"""Picture files: the one decoder for frames."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqclf.batch import SeqclfError

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
OTHER_PICTURES = (".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pnm", ".jp2", ".avif", ".heic", ".jxl", ".exr")
"""Pictures that are not read. Among frames they are an error: without them the frames after them would shift."""
KINDS = ", ".join(suffix[1:] for suffix in PICTURES)

_JPEG, _EXIF = b"\xff\xd8\xff", b"Exif\0\0"


def is_picture(name: str) -> bool:
    """Whether a file name is that of a picture, of a kind that is read or not."""
    return name.lower().endswith(PICTURES + OTHER_PICTURES)


def read_picture(path: str | Path) -> NDArray[np.uint8]:
    """Read a picture file as ``(H, W, 3)`` uint8 RGB.

    Pixels are as stored: the orientation in EXIF is not applied, grey becomes RGB, transparency is dropped.

    Raises:
        SeqclfError: The file is missing or damaged, has more than 8 bits per channel, or holds several pictures.
    """
    with _naming(path), open(path, "rb", buffering=0) as file:
        content = bytearray(os.fstat(file.fileno()).st_size)
        file.readinto(content)
    return decode_picture(content, path)


def decode_picture(content: bytearray, name: str | Path) -> NDArray[np.uint8]:
    """As ``read_picture``, from the content of a file that errors call ``name``."""
    decode = _jpeg_decoder()
    if decode is not None and content.startswith(_JPEG) and _EXIF not in content:  # it would apply the orientation
        with suppress(RuntimeError):  # what torchcodec can't decode, PIL tries, and says what is wrong
            return decode(torch.frombuffer(content, dtype=torch.uint8)).permute(1, 2, 0).numpy()
    with _opened(BytesIO(content), name) as image:
        if image.mode.startswith(("I", "F")) or ";16" in str(image.tile):
            raise SeqclfError(f"{name}: has more than 8 bits per channel ({image.mode}); 8 are expected")
        if getattr(image, "n_frames", 1) > 1:
            raise SeqclfError(f"{name}: has {image.n_frames} pictures in one file; a file per frame is expected")
        if image.mode == "P":  # a palette may hold transparency, which PIL turns into RGB only through RGBA
            image = image.convert("RGBA")
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def picture_size(path: str) -> tuple[int, int]:
    """Height and width of a picture, from its header; errors as in ``read_picture``."""
    with _opened(path, path) as image:
        return image.height, image.width


@cache
def _jpeg_decoder() -> Callable[[Tensor], Tensor] | None:
    """The decoder of torchcodec, which gives the pixels of PIL in two thirds of the time; None where it is missing."""
    try:
        return import_module("torchcodec.decoders").decode_jpeg
    except (ImportError, AttributeError, OSError, RuntimeError):  # missing, before 0.16, or for another PyTorch
        return None


@contextmanager
def _opened(file: str | BytesIO, name: str | Path) -> Iterator[Any]:
    """A PIL image; any error while it is open is a SeqclfError that names the file."""
    from PIL import Image

    with _naming(name), Image.open(file) as image:
        yield image


@contextmanager
def _naming(name: str | Path) -> Iterator[None]:
    """Turns any error of a picture file into a SeqclfError that names it."""
    from PIL import UnidentifiedImageError

    try:
        yield
    except (SeqclfError, MemoryError):
        raise
    except FileNotFoundError:
        raise SeqclfError(f"{name}: no such file") from None
    except UnidentifiedImageError:
        raise SeqclfError(f"{name}: not a picture that can be read (it does not begin like one)") from None
    except Exception as error:  # PIL's decoders raise nearly anything on a damaged file
        raise SeqclfError(f"{name}: not a picture that can be read ({' '.join(str(error).split())})") from None
