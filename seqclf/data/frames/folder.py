"""A video as a folder of pictures, one per frame."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.frames.numbers import Numbering, natural_key, numbers_in, summary
from seqclf.data.frames.pictures import KINDS, OTHER_PICTURES, is_picture, picture_size, read_picture
from seqclf.data.frames.source import NewArray, Source, new_array
from seqclf.data.frames.times import FrameTimes, Ints, at_rate
from seqclf.runtime.text import some

_AS_ZEROS = str.maketrans("123456789", "0" * 9)


class FrameFolder(Source):
    """A folder of pictures, one per frame, in the natural order of their names (img_2 before img_10).

    Frames are files that end in .jpg, .jpeg, .png, .bmp or .webp. Hidden files, folders and files that are not pictures
    (Thumbs.db, a list, sound) are ignored. Pixels are as stored: EXIF orientation is not applied, grey becomes RGB,
    and transparency is dropped.

    Args:
        path: the folder.
        pattern: which names are frames, such as ``"img_*"`` in a folder with ``img_00001.jpg``, ``flow_x_00001.jpg``
            and ``flow_y_00001.jpg``. None takes all pictures, whose names must then follow one scheme.
        frame_numbers: how annotations number the frames: "names", by the number in the name, if the names differ in one
            number; or "order", by position from 0.
        fps: frames per second; None if unknown.

    Raises:
        SeqclfError: an argument is out of range. On first use: the folder is missing or has no pictures; two pictures
            have the same stem (a.jpg, a.png); names follow several schemes and there is no pattern; a picture is
            damaged, has more than 8 bits per channel, or differs in size from the first.
    """

    kind = "folder"

    def __init__(
        self, path: str | Path, pattern: str | None = None, frame_numbers: str = "names", fps: float | None = None
    ) -> None:
        if frame_numbers not in ("names", "order"):
            raise SeqclfError(f'frame_numbers={frame_numbers!r}: expected "names" or "order"')
        if fps is not None and not 0 < fps < float("inf"):
            raise SeqclfError(f"{path}: fps={fps}, expected a number above 0")
        self._path, self._pattern, self.frame_numbers, self.fps = os.fspath(path), pattern, frame_numbers, fps
        self._names: str | None = None  # one string: a list takes four times the memory per video
        self._size: tuple[int, int] | None = None

    def reader(self) -> Callable[..., Source]:
        """A function ``reader(path)`` that opens another folder in the same way."""
        return partial(FrameFolder, pattern=self._pattern, frame_numbers=self.frame_numbers, fps=self.fps)

    def describe(self) -> dict[str, Any]:
        """The settings of this reader and the frame numbers, as plain values."""
        return {
            "kind": self.kind,
            "pattern": self._pattern,
            "frame_numbers": self.frame_numbers,
            "fps": self.fps,
            **asdict(self.numbering()),
        }

    @property
    def path(self) -> str:
        """The folder."""
        return self._path

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
        """``(3, H, W)``, from the header of the first picture."""
        if self._size is None:
            self._size = picture_size(os.path.join(self._path, self.names[0]))
        return (3, *self._size)

    def numbering(self) -> Numbering:
        """A summary of the frame numbers."""
        return summary(self._numbers())

    def frame_times(self) -> FrameTimes:
        """The number of each frame, and its time if ``fps`` is known."""
        numbers = self._numbers()
        # extracted at a lower rate, the last frame stands for those that follow it in the video
        step = int(np.ceil(np.median(np.diff(numbers)))) if len(numbers) > 1 else 1
        end = int(numbers[-1]) + step
        return FrameTimes(numbers, end) if self.fps is None else at_rate(numbers, end, self.fps)

    @property
    def seconds(self) -> Tensor | None:
        """``(T,)`` float64, the time of each frame; None if ``fps`` is unknown."""
        if self.fps is None:
            return None
        numbers = self._numbers()
        return torch.from_numpy((numbers - min(int(numbers[0]), 1)) / self.fps)

    def _numbers(self) -> Ints:
        found = numbers_in(self.names) if self.frame_numbers == "names" else None
        return np.arange(len(self)) if found is None else found

    def read(self, numbers: Sequence[int]) -> Tensor:
        """Reads frames by position from 0, as ``(n, 3, H, W)`` uint8 RGB, channels last in memory."""
        return self.read_into(numbers, new_array)

    def read_into(self, numbers: Sequence[int], new: NewArray) -> Tensor:
        """Reads frames as ``read`` does, into the array that ``new(shape)`` returns."""
        names, (_, height, width) = self.names, self.frame_shape
        frames = new((len(numbers), height, width, 3))  # NumPy copies bytes twice as fast as PyTorch
        rows: dict[int, int] = {}
        for row, number in enumerate(numbers):
            if number in rows:  # repeated frames are decoded once
                frames[row] = frames[rows[number]]
                continue
            if not 0 <= number < len(names):
                raise SeqclfError(f"{self._path}: has no frame {number}, only 0 to {len(names) - 1}")
            frames[row] = self._picture(names[number])  # not kept in a variable, so the next picture reuses its memory
            rows[number] = row
        return torch.from_numpy(frames).permute(0, 3, 1, 2)

    def _picture(self, name: str) -> NDArray[np.uint8]:
        """Reads a picture ``(H, W, 3)``, which must have the size of the first one."""
        picture = read_picture(os.path.join(self._path, name))
        height, width = self.frame_shape[1:]
        if picture.shape[:2] != (height, width):
            raise SeqclfError(
                f"{os.path.join(self._path, name)}: is {picture.shape[1]}x{picture.shape[0]}, "
                f"but the folder's first frame, {self.names[0]}, is {width}x{height}"
            )
        return picture


def _list_frames(folder: str, pattern: str | None) -> list[str]:
    """The file names of a folder's frames, in order."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name[0] != "." and is_picture(entry.name)]
    except FileNotFoundError:
        raise SeqclfError(f"{folder}: no such folder") from None
    except NotADirectoryError:
        raise SeqclfError(f"{folder}: is a file, expected a folder of pictures") from None
    except OSError as error:
        raise SeqclfError(f"{folder}: can't be read ({error.strerror})") from None
    if pattern is not None:
        names = [name for name in names if fnmatchcase(name, pattern)]
    if not names:
        like = "" if pattern is None else f" that matches {pattern!r}"
        raise SeqclfError(f"{folder}: holds no picture{like} ({KINDS})")
    stems: dict[str, str] = {}
    for name in sorted(names):
        stem, _, suffix = name.rpartition(".")
        if f".{suffix.lower()}" in OTHER_PICTURES:
            raise SeqclfError(f"{os.path.join(folder, name)}: unsupported picture format, expected {KINDS}")
        if stem in stems:
            raise SeqclfError(f"{folder}: {stems[stem]} and {name} are both pictures of frame {stem!r}")
        stems[stem] = name
    return _in_order(folder, stems, pattern)


def _in_order(folder: str, stems: dict[str, str], pattern: str | None) -> list[str]:
    """Sorts file names, given by stem, in natural order; names of several schemes need a pattern."""
    if len({stem.translate(_AS_ZEROS) for stem in stems}) == 1:  # zero-padded numbers: already sorted
        return list(stems.values())
    keys = sorted(map(natural_key, stems))
    numbered = sorted({"*".join(parts[::2]) for parts, _ in keys if len(parts) > 1})
    kinds = [*numbered, *(stem for parts, stem in keys if len(parts) == 1)]
    if pattern is None and numbered and len(kinds) > 1:
        raise SeqclfError(
            f"{folder}: pictures have {len(kinds)} kinds of names ({some(kinds, 3)}): choose the frames with "
            f"pattern=, such as pattern={numbered[-1].replace('*', '[0-9]*', 1)!r} ('*' for all)"
        )
    return [stems[stem] for _, stem in keys]
