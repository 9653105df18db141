"""MNIST with the rows or the columns of each image as its frames; where it is not to be had, the built-in digits."""

from __future__ import annotations

import gzip
import socket
import struct
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from os import environ
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.clips import Clips
from seqclf.data.data import Data
from seqclf.data.digits import TEST_EVERY, read_digits
from seqclf.data.labelling import Labelling, last_frame
from seqclf.data.source import Source
from seqclf.runtime.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator

Axis = Literal["rows", "columns"]

CLASSES = tuple("0123456789")
SIZE = 28
_PARTS = {"train": ("train", 60_000), "test": ("t10k", 10_000)}
_MAGIC = {"images-idx3-ubyte": 2051, "labels-idx1-ubyte": 2049}
PROBE_SECONDS = 8.0
"""How long MNIST's mirrors may take to answer before the network counts as absent."""


def mnist(
    axis: Axis = "rows",
    labelling: Labelling = last_frame,
    root: str | None = None,
    source: Literal["auto", "mnist", "digits"] = "auto",
    validation: int = 0,
) -> Data:
    """MNIST (LeCun et al. 1998): clips of 28 frames of 28 pixels, uint8, ten classes.

    Args:
        axis: the frames are the image's "rows", top to bottom, or its "columns", left to right.
        labelling: ``last_frame`` or ``every_frame``.
        root: the folder that holds, or will hold, ``MNIST/raw``; None for ``~/.cache/seqclf``.
        source: "mnist" (downloaded where it is not there), "digits" (the built-in 1,797 digits), or "auto": MNIST, and
            where it is neither there nor downloadable the built-in digits, announced in ``Data.warning``.
        validation: how many of the training images, the last ones, are held out to choose by.

    Raises:
        SeqclfError: a file is damaged; MNIST is asked for and not to be had; validation takes all of the images.
    """
    if axis not in ("rows", "columns"):
        raise SeqclfError(f'data.axis is "rows" or "columns", not {axis!r}')
    if source not in ("auto", "mnist", "digits"):
        raise SeqclfError(f'data.source is "auto", "mnist" or "digits", not {source!r}')
    folder = Path(root).expanduser() if root is not None else _cache_folder()
    warning = None
    if source != "digits":
        absent = _fetch(folder)
        if absent is None:
            parts = {name: _read(folder, *_PARTS[name]) for name in _PARTS}
            return _assemble(parts, axis, labelling, validation, f"MNIST in {folder}", None)
        if source == "mnist":
            raise SeqclfError(f"data.source=mnist: {absent}; put its four files there, or give data.root=")
        warning = f"NOT MNIST: {absent}. Training on the 1,797 built-in digits (UCI optdigits) instead."
    images, labels = read_digits()
    is_test = torch.arange(len(labels)) % TEST_EVERY == TEST_EVERY - 1
    parts = {"train": (images[~is_test], labels[~is_test]), "test": (images[is_test], labels[is_test])}
    return _assemble(
        parts, axis, labelling, validation, "built-in digits (UCI optdigits, 8x8 scaled to 28x28)", warning
    )


def to_frames(images: Tensor, axis: Axis) -> Tensor:
    """Images ``(N, 28, 28)`` as clips ``(N, T, D)``, T being the axis."""
    pattern = "n rows columns -> n rows columns" if axis == "rows" else "n rows columns -> n columns rows"
    return rearrange(images, pattern).contiguous()


def read_image(path: str | Path, axis: Axis = "rows") -> tuple[Tensor, list[str]]:
    """An image file as one clip ``(28, 28)`` uint8 of frames, and what was done to it, in words.

    The image becomes grey and 28x28; where its border is lighter than its middle range it is taken to be dark ink on
    a light ground, and inverted, as MNIST's digits are white on black.

    Raises:
        SeqclfError: the file is missing, or no image.
    """
    from PIL import Image, UnidentifiedImageError

    done = []
    try:
        with Image.open(path) as image:
            grey = image.convert("RGBA").convert("RGB").convert("L") if image.mode == "P" else image.convert("L")
    except FileNotFoundError:
        raise SeqclfError(f"{path}: no such file") from None
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise SeqclfError(f"{path}: not an image that can be read ({error})") from None
    if grey.size != (SIZE, SIZE):
        done.append(f"scaled from {grey.size[0]}x{grey.size[1]}")
        grey = grey.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    pixels = np.array(grey)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if np.median(border) > 127:
        done.append("inverted (light ground)")
        pixels = 255 - pixels
    return to_frames(torch.from_numpy(pixels)[None], axis)[0], done


class ImageFile(Source):
    """One image file as a clip whose frames are its rows or columns; see ``read_image``."""

    kind = "image"

    def __init__(self, path: str | Path, axis: Axis = "rows") -> None:
        self._path, self.axis = str(path), axis

    @property
    def path(self) -> str:
        """The file."""
        return self._path

    @cached_property
    def _content(self) -> tuple[Tensor, list[str]]:
        return read_image(self._path, self.axis)

    @property
    def changes(self) -> list[str]:
        """What was done to the image, in words."""
        return self._content[1]

    @property
    def frame_shape(self) -> tuple[int, ...]:
        return (SIZE,)

    def __len__(self) -> int:
        return SIZE

    def read(self, numbers: Sequence[int]) -> Tensor:
        """The rows or columns of these numbers, ``(n, 28)`` uint8."""
        return self._content[0][list(numbers)]


def _assemble(
    parts: dict[str, tuple[Tensor, Tensor]],
    axis: Axis,
    labelling: Labelling,
    validation: int,
    source: str,
    warning: str | None,
) -> Data:
    images, labels = parts["train"]
    if not 0 <= validation < len(images):
        raise SeqclfError(f"data.validation={validation}: must be from 0 to {len(images) - 1} of {len(images)} images")
    kept = len(images) - validation
    cut = {"train": (images[:kept], labels[:kept]), "validation": (images[kept:], labels[kept:]), "test": parts["test"]}
    readers = {"image": partial(ImageFile, axis=axis)}
    clips = {
        name: Clips(to_frames(x, axis), y, labelling=labelling, readers=readers)
        for name, (x, y) in cut.items()
        if len(x) or name == "test"
    }
    return Data(
        clips["train"],
        clips["test"],
        CLASSES,
        f"{source}, {axis} as frames, labelling {labelling.__name__}",
        clips.get("validation"),
        warning,
    )


def _cache_folder() -> Path:
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "seqclf"


def _raw_files(folder: Path) -> list[Path]:
    return [folder / "MNIST" / "raw" / f"{stem}-{kind}" for stem, _ in _PARTS.values() for kind in _MAGIC]


def _fetch(folder: Path) -> str | None:
    """Sees to it that MNIST is in the folder; returns None, or the reason why it can't be."""
    missing = [path.name for path in _raw_files(folder) if not path.exists()]
    if not missing:
        return None
    where = f"MNIST is not in {folder / 'MNIST' / 'raw'} ({', '.join(missing)} missing)"
    for path in _raw_files(folder):  # a lone .gz, as the mirrors give them, needs no network
        packed = path.with_name(path.name + ".gz")
        if not path.exists() and packed.exists():
            _unpack(packed, path)
    if all(path.exists() for path in _raw_files(folder)):
        return None
    from torchvision import datasets

    mirrors = _answering(datasets.MNIST.mirrors, datasets.MNIST.resources[1][0])
    if not mirrors:
        return f"{where}, and no mirror of it answered within {PROBE_SECONDS:.0f} s"
    reader = type("MNIST", (datasets.MNIST,), {"mirrors": mirrors})  # its folder is named by the class
    try:
        with _read_timeout(PROBE_SECONDS):
            reader(str(folder), download=True)
    except (RuntimeError, OSError) as error:
        for path in _raw_files(folder):  # what came of it is no MNIST: the next try begins anew
            path.with_name(path.name + ".gz").unlink(missing_ok=True)
        return f"{where}, and the download failed ({error})"
    return None


def _unpack(packed: Path, path: Path) -> None:
    try:
        content = gzip.decompress(packed.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise SeqclfError(f"{packed}: damaged or half downloaded ({error}); delete it to download it anew") from None
    write_atomic(path, content)


def _answering(mirrors: list[str], name: str) -> list[str]:
    """The mirrors that answer in time. Asked in threads, since looking a name up knows no timeout."""
    answered: set[str] = set()

    def ask(mirror: str) -> None:
        request = urllib.request.Request(mirror + name, method="HEAD", headers={"User-Agent": "seqclf"})
        try:
            with urllib.request.urlopen(request, timeout=PROBE_SECONDS):
                answered.add(mirror)
        except (OSError, ValueError, urllib.error.URLError):
            return  # not answering is the finding

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
    """Images ``(count, 28, 28)`` uint8 and labels ``(count,)`` of one part, by torchvision's reader."""
    for kind, magic in _MAGIC.items():
        _check_file(
            folder / "MNIST" / "raw" / f"{stem}-{kind}", magic, (count, SIZE, SIZE)[: 3 if magic == 2051 else 1]
        )
    from torchvision import datasets

    part: Any = datasets.MNIST(str(folder), train=stem == "train")
    return part.data, part.targets


def _check_file(path: Path, magic: int, shape: tuple[int, ...]) -> None:
    """A wrong magic number or size is found here, before anything reads it: the file is damaged, or half downloaded."""
    want = 4 + 4 * len(shape) + int(np.prod(shape))
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(4 + 4 * len(shape))
    numbers = struct.unpack(f">{len(head) // 4}i", head[: len(head) // 4 * 4])
    if numbers[:1] != (magic,):
        raise SeqclfError(
            f"{path}: damaged: its magic number is {list(numbers[:1])}, expected {magic}; delete it to download it anew"
        )
    if numbers[1:] != shape or size != want:
        raise SeqclfError(
            f"{path}: damaged or half downloaded: {size:,} bytes for {'x'.join(map(str, numbers[1:]))} values, "
            f"expected {want:,} bytes for {'x'.join(map(str, shape))}; delete it to download it anew"
        )
