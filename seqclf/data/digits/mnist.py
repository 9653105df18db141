"""MNIST with the rows or columns of each image as frames; the built-in digits where MNIST is not available."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.clips import Clips
from seqclf.data.data import Data
from seqclf.data.digits.mnist_files import SIZE, fetch, read_parts
from seqclf.data.digits.optdigits import TEST_EVERY, read_digits
from seqclf.data.frames.pictures import read_picture
from seqclf.data.frames.source import Source
from seqclf.data.labelling import Labelling, labelling_text, last_frame
from seqclf.runtime.files import cache_folder

Axis = Literal["rows", "columns"]

CLASSES = tuple("0123456789")


def mnist(
    axis: Axis = "rows",
    labelling: Labelling = last_frame,
    root: str | None = None,
    source: Literal["auto", "mnist", "digits"] = "auto",
) -> Data:
    """MNIST (LeCun et al. 1998): clips of 28 frames with 28 pixels each, uint8, ten classes.

    Args:
        axis: the frames are the "rows" of an image, top to bottom, or its "columns", left to right.
        labelling: ``last_frame`` or ``every_frame``.
        root: the folder that holds ``MNIST/raw``, or will hold it; None for ``~/.cache/seqclf``.
        source: "mnist" (downloaded if it is missing), "digits" (the 1,797 built-in digits), or "auto": MNIST if it is
            there or can be downloaded, else the built-in digits, with a warning in ``Data.warning``.

    Raises:
        SeqclfError: an argument is out of range; a file is damaged; MNIST is asked for and not available.
    """
    if axis not in ("rows", "columns"):
        raise SeqclfError(f'data.axis={axis!r}: expected "rows" or "columns"')
    if source not in ("auto", "mnist", "digits"):
        raise SeqclfError(f'data.source={source!r}: expected "auto", "mnist" or "digits"')
    folder = Path(root).expanduser() if root is not None else cache_folder()
    warning = None
    if source != "digits":
        absent = fetch(folder)
        if absent is None:
            return _assemble(read_parts(folder), axis, labelling, f"MNIST in {folder}", None)
        if source == "mnist":
            raise SeqclfError(f"data.source=mnist: {absent}; copy its four files there, or set data.root=")
        warning = f"the data are not MNIST but the 1,797 built-in digits (UCI optdigits): {absent}"
    images, labels = read_digits()
    is_test = torch.arange(len(labels)) % TEST_EVERY == TEST_EVERY - 1
    parts = {"train": (images[~is_test], labels[~is_test]), "test": (images[is_test], labels[is_test])}
    name = "built-in digits (UCI optdigits, 8x8 scaled to 28x28)"
    return _assemble(parts, axis, labelling, name, warning)


def to_frames(images: Tensor, axis: Axis) -> Tensor:
    """Turns images ``(N, 28, 28)`` into clips ``(N, T, D)`` whose frames are rows or columns."""
    pattern = "n rows columns -> n rows columns" if axis == "rows" else "n rows columns -> n columns rows"
    return rearrange(images, pattern).contiguous()


def read_image(path: str | Path, axis: Axis = "rows") -> tuple[Tensor, list[str]]:
    """Reads an image file as one clip.

    The image is converted to grey and scaled to 28x28. An image with a light border is taken as dark ink on light
    ground, and inverted, because MNIST's digits are white on black.

    Args:
        path: a picture of any kind that ``read_picture`` reads.
        axis: the frames are its "rows" or "columns".

    Returns:
        the frames ``(28, 28)`` uint8, and a description of each change, such as "scaled from 64x64".

    Raises:
        SeqclfError: the file is missing or damaged, or has more than 8 bits per channel.
    """
    from PIL import Image

    changes = []
    grey = Image.fromarray(read_picture(path)).convert("L")
    if grey.size != (SIZE, SIZE):
        changes.append(f"scaled from {grey.size[0]}x{grey.size[1]}")
        grey = grey.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    pixels = np.array(grey)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    if np.median(border) > 127:
        changes.append("inverted (light ground)")
        pixels = 255 - pixels
    return to_frames(torch.from_numpy(pixels)[None], axis)[0], changes


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
        """How the image was changed, one description per change."""
        return self._content[1]

    @property
    def frame_shape(self) -> tuple[int, ...]:
        return (SIZE,)

    def __len__(self) -> int:
        return SIZE

    def read(self, numbers: Sequence[int]) -> Tensor:
        """The rows or columns at these places, ``(n, 28)`` uint8."""
        return self._content[0][list(numbers)]


def _assemble(
    parts: dict[str, tuple[Tensor, Tensor]], axis: Axis, labelling: Labelling, source: str, warning: str | None
) -> Data:
    readers = {"image": partial(ImageFile, axis=axis)}
    clips = {name: Clips(to_frames(x, axis), y, labelling=labelling, readers=readers) for name, (x, y) in parts.items()}
    return Data(
        clips["train"],
        clips["test"],
        CLASSES,
        f"{source}, {axis} as frames, labelling {labelling_text(labelling)}",
        warning=warning,
    )
