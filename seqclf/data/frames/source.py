"""The interface of a video's frames: a folder of pictures, a video file or a file of features."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias
from unicodedata import normalize

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqclf.batch import SeqclfError

VIDEOS = (
    *(".avi", ".mp4", ".m4v", ".mkv", ".webm", ".mov", ".mpg", ".mpeg"),
    *(".wmv", ".asf", ".flv", ".ogv", ".3gp", ".ts", ".mts", ".m2ts", ".vob", ".mxf", ".dv", ".divx", ".y4m"),
    *(".h264", ".264", ".h265", ".265", ".hevc", ".gif"),
)
"""The suffixes of video files when a folder is searched. A file given by path may have any suffix."""
FEATURES = ".npy"
Layout = Literal["time_first", "features_first"]
"""The axes of an array of features: "time_first" is (T, D), "features_first" is (D, T)."""


NewArray: TypeAlias = Callable[[tuple[int, ...]], NDArray[np.uint8]]
"""A function of a shape that returns an array to fill."""


def new_array(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Returns a new array with arbitrary values."""
    return np.empty(shape, np.uint8)


class Source(Protocol):
    """The frames of one video, accessed by number.

    The file is opened, or the folder listed, on first use. If it is damaged, a ``SeqclfError`` names the file and the
    frame.

    A source may also have a method ``reader()`` that returns an importable function (or a ``functools.partial`` of one)
    which opens another path in the same way. It is recorded, so that prediction reads files as training did. A method
    ``read_into(numbers, new)`` reads pictures into the uint8 array that ``new(shape)`` returns: a part of a batch. The
    attribute ``kind`` is the kind of file that it opens: "folder", "video", "array" or "image".
    """

    @property
    def path(self) -> str:
        """The path of the video, for errors and reports."""

    def __len__(self) -> int:
        """The number of frames."""

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """``(C, H, W)`` for pictures, ``(D,)`` for features."""

    def read(self, numbers: Sequence[int]) -> Tensor:
        """Reads frames by number, from 0 to ``len - 1``, in any order and with repetitions.

        Returns:
            ``(n, 3, H, W)`` uint8 RGB, or ``(n, D)`` float32 features.
        """


@dataclass
class Video:
    """One video of a data set.

    Attributes:
        name: its name, as in the list.
        source: its frames.
        labels: the class of the whole video; or ``(T,)`` int64, the class of each frame, with ``IGNORE`` for frames
            without a label; of multi-label data ``(K,)`` or ``(T, K)`` int64, 0, 1 or ``IGNORE``; None if unknown, for
            prediction. NumPy arrays become tensors.

    Raises:
        SeqclfError: the labels are no integers.
    """

    name: str
    source: Source
    labels: int | Tensor | None = None

    def __post_init__(self) -> None:
        if isinstance(self.labels, np.ndarray | np.integer) and self.labels.dtype.kind in "iub":
            self.labels = torch.as_tensor(self.labels) if np.ndim(self.labels) else int(self.labels)
        floats = isinstance(self.labels, Tensor) and self.labels.is_floating_point()
        if floats or not isinstance(self.labels, int | Tensor | None):
            kind = "floats" if floats else f"a {type(self.labels).__name__}"
            raise SeqclfError(f"video {self.name}: labels are {kind}, expected a class index, or a tensor of them")


def one_shape(shape: Sequence[int], in_memory: bool = False) -> str:
    """How to give frames of different shapes one shape, for errors about clips in memory or videos."""
    if in_memory:
        return "all clips must have frames of one shape"
    if len(shape) == 1:
        return "all videos must have the same number of features; layout= names the axes of arrays"
    return "resize or crop them to one shape (transform=)"


def is_video(name: str) -> bool:
    """Whether a file name has the suffix of a video or of features."""
    return name.lower().endswith((*VIDEOS, FEATURES))


def without_suffix(name: str) -> str:
    """A name without the suffix of a video or of features; other dots are kept."""
    return os.path.splitext(name)[0] if is_video(name) else name


def unicode_forms(name: str) -> list[str]:
    """A name as written, composed, and decomposed: macOS may write "ü" as two characters."""
    return list(dict.fromkeys((name, normalize("NFC", name), normalize("NFD", name))))


def plain_path(name: str) -> str:
    """A path as written in a list or table, in normal form: also if it was written on Windows or macOS."""
    return posixpath.normpath(normalize("NFC", name if "/" in name else name.replace("\\", "/")))
