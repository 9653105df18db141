"""The files of MNIST: find, download, check and read them."""

from __future__ import annotations

import gzip
import socket
import struct
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.runtime.files import write_atomic

SIZE = 28
PROBE_SECONDS = 8.0
"""The time in which a mirror of MNIST must answer."""
_PARTS = {"train": ("train", 60_000), "test": ("t10k", 10_000)}
_MAGIC = {"images-idx3-ubyte": 2051, "labels-idx1-ubyte": 2049}


def raw_files(folder: Path) -> list[Path]:
    """The paths of the four files of MNIST under ``folder``."""
    return [folder / "MNIST" / "raw" / f"{stem}-{kind}" for stem, _ in _PARTS.values() for kind in _MAGIC]


def read_parts(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Reads MNIST.

    Returns:
        for "train" and "test", images ``(N, 28, 28)`` uint8 and labels ``(N,)`` int64.

    Raises:
        SeqclfError: a file is damaged.
    """
    return {name: _read(folder, *_PARTS[name]) for name in _PARTS}


def fetch(folder: Path) -> str | None:
    """Unpacks or downloads the files of MNIST that are missing.

    Returns:
        None when all files are there; otherwise the reason why they are not.

    Raises:
        SeqclfError: a packed file is damaged.
    """
    missing = [path.name for path in raw_files(folder) if not path.exists()]
    if not missing:
        return None
    where = f"MNIST is not in {folder / 'MNIST' / 'raw'} ({', '.join(missing)} missing)"
    for path in raw_files(folder):  # a .gz file, as mirrors offer it, needs no network
        packed = path.with_name(path.name + ".gz")
        if not path.exists() and packed.exists():
            _unpack(packed, path)
    if all(path.exists() for path in raw_files(folder)):
        return None
    from torchvision import datasets

    mirrors = _answering(datasets.MNIST.mirrors, datasets.MNIST.resources[1][0])
    if not mirrors:
        return f"{where}, and no mirror of it answered within {PROBE_SECONDS:.0f} s"
    reader = type("MNIST", (datasets.MNIST,), {"mirrors": mirrors})  # torchvision names the folder after the class
    try:
        with _read_timeout(PROBE_SECONDS):
            reader(str(folder), download=True)
    except (RuntimeError, OSError) as error:
        for path in raw_files(folder):  # so that the next attempt downloads again
            path.with_name(path.name + ".gz").unlink(missing_ok=True)
        return f"{where}, and the download failed ({error})"
    return None


def _unpack(packed: Path, path: Path) -> None:
    try:
        content = gzip.decompress(packed.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise SeqclfError(f"{packed}: damaged or incomplete ({error}); delete it to download it again") from None
    write_atomic(path, content)


def _answering(mirrors: list[str], name: str) -> list[str]:
    """The mirrors that answer in time. They are asked in threads, because looking up a name has no timeout."""
    answered: set[str] = set()

    def ask(mirror: str) -> None:
        request = urllib.request.Request(mirror + name, method="HEAD", headers={"User-Agent": "seqclf"})
        try:
            with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
                answered.add(mirror)
        except (OSError, ValueError, urllib.error.URLError):
            return

    threads = [threading.Thread(target=ask, args=(mirror,), daemon=True) for mirror in mirrors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PROBE_SECONDS / len(threads))
    return [mirror for mirror in mirrors if mirror in answered]


@contextmanager
def _read_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _read(folder: Path, stem: str, count: int) -> tuple[Tensor, Tensor]:
    """Images ``(count, 28, 28)`` uint8 and labels ``(count,)`` of one part."""
    arrays = []
    for kind, magic in _MAGIC.items():
        path, shape = folder / "MNIST" / "raw" / f"{stem}-{kind}", (count, SIZE, SIZE)[: 3 if magic == 2051 else 1]
        _check_file(path, magic, shape)
        arrays.append(torch.from_numpy(np.fromfile(path, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)))
    images, labels = arrays
    return images, labels.long()


def _check_file(path: Path, magic: int, shape: tuple[int, ...]) -> None:
    """Raises an error for a file with a wrong magic number or size: it is damaged or incomplete."""
    want = 4 + 4 * len(shape) + int(np.prod(shape))
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(4 + 4 * len(shape))
    numbers = struct.unpack(f">{len(head) // 4}i", head[: len(head) // 4 * 4])
    if numbers[:1] != (magic,):
        raise SeqclfError(
            f"{path}: damaged: magic number {list(numbers[:1])}, expected {magic}; delete it to download it again"
        )
    if numbers[1:] != shape or size != want:
        raise SeqclfError(
            f"{path}: damaged or incomplete: {size:,} bytes for {'x'.join(map(str, numbers[1:]))} values, "
            f"expected {want:,} bytes for {'x'.join(map(str, shape))}; delete it to download it again"
        )
