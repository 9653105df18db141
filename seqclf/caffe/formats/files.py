"""Reading and writing of files, and Caffe's size limits."""

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
"""The largest number of values in a blob, and of bytes in a file: Caffe counts in a C int."""


def countable(shape: Sequence[int]) -> bool:
    """Whether Caffe allows a blob of this shape, which includes at most 32 axes (kMaxBlobAxes)."""
    return len(shape) <= 32 and all(n >= 0 for n in shape) and prod(max(n, 1) for n in shape) <= LARGEST_BLOB


def read_bytes(path: str | Path) -> Any:
    """Returns a file's bytes: a view of the mapped file, or ``bytes`` if it cannot be mapped.

    Raises:
        CaffeFormatError: the file is missing or cannot be read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a device may be endless, and a pipe may never deliver data
            raise CaffeFormatError(f"{path}: not an ordinary file")
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size:
                with suppress(ValueError, OSError):
                    populate = getattr(mmap, "MAP_POPULATE", 0)  # loads all pages at once, without a fault for each
                    return memoryview(mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE | populate, mmap.PROT_READ))
            return file.read()
    except FileNotFoundError:
        raise CaffeFormatError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a name with a zero character
        raise CaffeFormatError(f"{path}: can't be read ({getattr(error, 'strerror', None) or error})") from None


def is_text(data: Any, name: str) -> bool:
    """Whether a file is text, by its suffix, or else because it begins without control characters."""
    ending = Path(name).suffix
    if ending in (".prototxt", ".pt", ".txt"):
        return True
    if ending in (".caffemodel", ".solverstate", ".binaryproto"):
        return False
    return not any(c < 32 and c not in b"\t\n\r" for c in bytes(data[:4096]))


def is_hdf5(path: str | Path) -> bool:
    """Whether a file is HDF5, by its content, or by its suffix if it cannot be read."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe could wait forever
            return False
        with open(path, "rb") as file:
            return file.read(8) == b"\x89HDF\r\n\x1a\n"
    except (OSError, ValueError):
        return Path(path).suffix == ".h5"


def write_file(path: str | Path, parts: Iterable[Any]) -> Path:
    """Writes a file atomically: to a temporary file, which then replaces it.

    Raises:
        CaffeFormatError: the file cannot be written; an existing file is unchanged.
    """
    path = Path(path)
    try:
        with replacing(path, durable=True) as beside, beside.open("wb") as file:
            for part in parts:
                file.write(part)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero character
        raise CaffeFormatError(f"{path}: can't be written ({getattr(error, 'strerror', None) or error})") from None
    return path
