"""A video as a folder of pictures, one per frame, in natural order."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from functools import cache, partial
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.source import Source

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
OTHER_PICTURES = (".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pnm", ".jp2", ".avif", ".heic", ".jxl", ".exr")
"""Pictures that are not read; among frames they are an error, since leaving them out would shift all that follow."""

_AS_ZEROS = str.maketrans("123456789", "0" * 9)
_JPEG, _EXIF = b"\xff\xd8\xff", b"Exif\0\0"
_KINDS = ", ".join(suffix[1:] for suffix in PICTURES)


class FrameFolder(Source):
    """The pictures of a folder as the frames of a video, in the natural order of their names (img_2 before img_10).

    Frames are the files that end in .jpg, .jpeg, .png, .bmp or .webp and are not hidden; files that are no pictures
    (Thumbs.db, a list, sound) and folders are passed over. A picture is read as its pixels are stored: the orientation
    that EXIF may tell is not applied, grey becomes RGB, transparency is dropped.

    Args:
        path: the folder.
        pattern: only names like it are frames, such as ``"img_*"`` where a folder holds ``img_00001.jpg``,
            ``flow_x_00001.jpg`` and ``flow_y_00001.jpg``. None: all pictures, numbered in one way.

    Raises:
        SeqclfError: (when first asked for something) there is no such folder, or no picture in it; two pictures have
            one name (a.jpg, a.png); names are of several kinds and no pattern chooses among them; a picture is
            damaged, has more than 8 bits, or another size than the first.
    """

    def __init__(self, path: str | Path, pattern: str | None = None) -> None:
        self._path, self._pattern = os.fspath(path), pattern
        self._names: str | None = None  # all in one text: a list of texts costs four times the memory, per video
        self._size: tuple[int, int] | None = None

    @property
    def path(self) -> str:
        """The folder."""
        return self._path

    kind = "folder"

    def reader(self) -> Callable[..., Source]:
        """Opens another folder in the same way."""
        return partial(FrameFolder, pattern=self._pattern)

    @property
    def names(self) -> list[str]:
        """The names of the frames' files, in order."""
        if self._names is None:
            self._names = "/".join(_list_frames(self._path, self._pattern))
        return self._names.split("/")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """``(3, H, W)``, by the first picture's head."""
        if self._size is None:
            self._size = _size(os.path.join(self._path, self.names[0]))
        return (3, *self._size)

    def read(self, numbers: Sequence[int]) -> Tensor:
        """The frames of these numbers: ``(n, 3, H, W)`` uint8 RGB, channels last in memory, as decoders give them."""
        names, (_, height, width) = self.names, self.frame_shape
        frames = np.empty((len(numbers), height, width, 3), np.uint8)  # NumPy copies bytes twice as fast as PyTorch
        rows: dict[int, int] = {}
        for row, number in enumerate(numbers):
            if number in rows:  # padding repeats a frame: it is decoded once
                frames[row] = frames[rows[number]]
                continue
            if not 0 <= number < len(names):
                raise SeqclfError(f"{self._path}: there is no frame {number}: it has {len(names)}, from 0")
            frames[row] = self._picture(names[number])  # held by no name, so that its memory serves the next at once
            rows[number] = row
        return torch.from_numpy(frames).permute(0, 3, 1, 2)

    def _picture(self, name: str) -> NDArray[np.uint8]:
        """The picture of this name ``(H, W, 3)``, of the size that all have."""
        picture = read_picture(os.path.join(self._path, name))
        height, width = self.frame_shape[1:]
        if picture.shape[:2] != (height, width):
            raise SeqclfError(
                f"{os.path.join(self._path, name)}: is {picture.shape[1]}x{picture.shape[0]}, "
                f"but the folder's first frame, {self.names[0]}, is {width}x{height}"
            )
        return picture


def natural_key(name: str) -> tuple[Any, ...]:
    """A key to sort names by in natural order, their digits as whole numbers: img_2, img_10, img_010, img_11."""
    parts: list[Any] = re.split("([0-9]+)", name)  # text at even places, digits at odd ones: like compares with like
    for i in range(1, len(parts), 2):
        digits = parts[i].lstrip("0")
        parts[i] = (len(digits), digits)  # orders as the number does, and knows no greatest one
    return tuple(parts), name


def read_picture(path: str | Path) -> NDArray[np.uint8]:
    """A picture file as ``(H, W, 3)`` uint8 RGB.

    Raises:
        SeqclfError: it can't be read: missing, damaged, more than 8 bits, several pictures in one file.
    """
    with _told(path), open(path, "rb", buffering=0) as file:
        content = bytearray(os.fstat(file.fileno()).st_size)
        file.readinto(content)
    return decode_picture(content, path)


def decode_picture(content: bytearray, name: str | Path) -> NDArray[np.uint8]:
    """As ``read_picture``, of a file's content; ``name`` is what errors call it."""
    decode = _jpeg_decoder()
    if decode is not None and content.startswith(_JPEG) and _EXIF not in content:  # which it would turn by
        with suppress(RuntimeError):  # what torchcodec can't read PIL gets to try, and tells why not
            return decode(torch.frombuffer(content, dtype=torch.uint8)).permute(1, 2, 0).numpy()
    with _opened(BytesIO(content), name) as image:
        if image.mode.startswith(("I", "F")) or ";16" in str(image.tile):
            raise SeqclfError(f"{name}: has more than 8 bits ({image.mode}); pictures of 8 bits are expected")
        if getattr(image, "n_frames", 1) > 1:
            raise SeqclfError(f"{name}: is {image.n_frames} pictures in one file; one per frame is expected")
        if image.mode == "P":  # a palette may hold transparency, which PIL turns into RGB only by RGBA
            image = image.convert("RGBA")
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))


@cache
def _jpeg_decoder() -> Callable[[Tensor], Tensor] | None:
    """torchcodec's, which gives the same pixels as PIL in two thirds of the time; None where there is none."""
    try:
        return import_module("torchcodec.decoders").decode_jpeg
    except (ImportError, AttributeError, OSError, RuntimeError):  # not there, before 0.16, or for another PyTorch
        return None


def _size(path: str) -> tuple[int, int]:
    """Height and width by the picture's head."""
    with _opened(path, path) as image:
        return image.height, image.width


@contextmanager
def _opened(file: str | BytesIO, name: str | Path) -> Iterator[Any]:
    """A PIL image; whatever goes wrong while it is open is a SeqclfError that names the file."""
    from PIL import Image

    with _told(name), Image.open(file) as image:
        yield image


@contextmanager
def _told(name: str | Path) -> Iterator[None]:
    """Whatever goes wrong with a picture's file is a SeqclfError that names it."""
    from PIL import UnidentifiedImageError

    try:
        yield
    except (SeqclfError, MemoryError):
        raise
    except FileNotFoundError:
        raise SeqclfError(f"{name}: no such file") from None
    except UnidentifiedImageError:
        raise SeqclfError(f"{name}: not a picture that can be read (it does not begin as one)") from None
    except Exception as error:  # a damaged file makes PIL's decoders raise nearly anything
        raise SeqclfError(f"{name}: not a picture that can be read ({' '.join(str(error).split())})") from None


def _list_frames(folder: str, pattern: str | None) -> list[str]:
    """The names of a folder's frames, in order."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name[0] != "." and is_picture(entry.name)]
    except FileNotFoundError:
        raise SeqclfError(f"{folder}: no such folder") from None
    except NotADirectoryError:
        raise SeqclfError(f"{folder}: is a file; a folder of pictures was expected") from None
    except OSError as error:
        raise SeqclfError(f"{folder}: can't be read ({error.strerror})") from None
    if pattern is not None:
        names = [name for name in names if fnmatchcase(name, pattern)]
    if not names:
        like = "" if pattern is None else f" like {pattern!r}"
        raise SeqclfError(f"{folder}: holds no picture{like} ({_KINDS})")
    stems: dict[str, str] = {}
    for name in sorted(names):
        stem, _, suffix = name.rpartition(".")
        if f".{suffix.lower()}" in OTHER_PICTURES:
            raise SeqclfError(f"{os.path.join(folder, name)}: a picture of a kind that is not read: {_KINDS} are")
        if stem in stems:
            raise SeqclfError(f"{folder}: {stems[stem]} and {name} are the same frame twice")
        stems[stem] = name
    if len({stem.translate(_AS_ZEROS) for stem in stems}) == 1:  # digits in the same places: the order they are in
        return list(stems.values())
    keys = sorted(map(natural_key, stems))
    numbered = sorted({"*".join(parts[::2]) for parts, _ in keys if len(parts) > 1})
    ways = [*numbered, *(stem for parts, stem in keys if len(parts) == 1)]
    if pattern is None and numbered and len(ways) > 1:
        shown = ", ".join(ways[:3]) + (", ..." if len(ways) > 3 else "")
        raise SeqclfError(
            f"{folder}: its pictures are named in {len(ways)} ways ({shown}): say by a pattern which of them are the "
            f"frames, such as pattern={numbered[-1]!r} ('*' for all)"
        )
    return [stems[stem] for _, stem in keys]


def is_picture(name: str) -> bool:
    """Whether a file of this name is a picture, be it of a kind that is read or not."""
    return name.lower().endswith(PICTURES + OTHER_PICTURES)
