"""Reading and writing whole files, and the limits of what Caffe can hold."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from seqclf.caffe.error import CaffeFormatError
from seqclf.runtime.files import replacing

Array = np.ndarray[Any, Any]

LARGEST_BLOB = 2**31 - 1
"""How many values a blob, and how many bytes a file of Caffe's, may hold: it counts in a C int."""


def countable(shape: Sequence[int]) -> bool:
    """Whether a blob may have this shape: Caffe's have at most 32 axes (kMaxBlobAxes)."""
    return len(shape) <= 32 and all(n >= 0 for n in shape) and prod(max(n, 1) for n in shape) <= LARGEST_BLOB


def read_bytes(path: str | Path) -> Any:
    """A file's bytes, mapped rather than read (``bytes`` where a file can't be mapped).

    Raises:
        CaffeFormatError: there is no such file, or it can't be read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a device may never end, a pipe never begin
            raise CaffeFormatError(f"{path}: not an ordinary file")
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size:
                with suppress(ValueError, OSError):
                    populate = getattr(mmap, "MAP_POPULATE", 0)  # all pages at once, not one fault each
                    return memoryview(mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE | populate, mmap.PROT_READ))
            return file.read()
    except FileNotFoundError:
        raise CaffeFormatError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero character
        raise CaffeFormatError(f"{path}: can't be read ({getattr(error, 'strerror', None) or error})") from None


def is_text(data: Any, name: str) -> bool:
    """Whether a file is text: by its ending, or by having no control characters at its beginning."""
    ending = Path(name).suffix
    if ending in (".prototxt", ".pt", ".txt"):
        return True
    if ending in (".caffemodel", ".solverstate", ".binaryproto"):
        return False
    return not any(c < 32 and c not in b"\t\n\r" for c in bytes(data[:4096]))


def is_hdf5(path: str | Path) -> bool:
    """Whether a file is HDF5, by its content; or by its ending if it can't be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe could wait forever
            return False
        with open(path, "rb") as file:
            return file.read(8) == b"\x89HDF\r\n\x1a\n"
    except (OSError, ValueError):
        return Path(path).suffix == ".h5"


def write_file(path: str | Path, parts: Iterable[Any]) -> Path:
    """Writes a file whole or not at all: beside it first, then in its place.

    Raises:
        CaffeFormatError: it can't be written; what was there before is untouched.
    """
    path = Path(path)
    try:
        with replacing(path, durable=True) as beside, beside.open("wb") as file:
            for part in parts:
                file.write(part)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero character
        raise CaffeFormatError(f"{path}: can't be written ({getattr(error, 'strerror', None) or error})") from None
    return path
