"""One video, wherever its frames lie: a folder of pictures, a video file, a file of features."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

VIDEOS = (
    *(".avi", ".mp4", ".m4v", ".mkv", ".webm", ".mov", ".mpg", ".mpeg"),
    *(".wmv", ".asf", ".flv", ".ogv", ".3gp", ".ts", ".mts", ".m2ts", ".vob", ".mxf", ".dv", ".divx", ".y4m"),
    *(".h264", ".264", ".h265", ".265", ".hevc"),
)
"""The suffixes that a search of a folder takes for videos; a file that is named may have any."""
FEATURES = ".npy"
Layout = Literal["time_first", "features_first"]
"""The axes of an array of features: "time_first" is (T, D), "features_first" is (D, T)."""


class Source(Protocol):
    """The frames of one video, by their numbers.

    Making one opens nothing; what is asked of it first opens the file or lists the folder, and a damaged one is a
    ``SeqclfError`` that names the file (and the frame).

    A source may also have ``reader()``, which gives an importable function (or a ``functools.partial`` of one) that
    opens another path in the same way. A run records it, so that prediction reads files as training did. ``kind`` says
    of which files: "folder", "video", "array" or "image".
    """

    @property
    def path(self) -> str:
        """Where the frames are, for errors and reports."""

    def __len__(self) -> int:
        """How many frames there are."""

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """``(C, H, W)`` of pictures, ``(D,)`` of features."""

    def read(self, numbers: Sequence[int]) -> Tensor:
        """The frames of these numbers, from 0 to ``len - 1``, in any order and as often as they are named:
        ``(n, 3, H, W)`` uint8 RGB, or ``(n, D)`` float32 features."""


@dataclass
class Video:
    """One video of a data set.

    Attributes:
        name: what its list calls it.
        source: its frames.
        labels: the class of the whole video, or ``(T,)`` int64 classes of its frames, ``IGNORE`` where there is none;
            None where nothing is known of it (to predict).
    """

    name: str
    source: Source
    labels: int | Tensor | None = None


def is_video(name: str) -> bool:
    """Whether a file of this name holds a video, or features of one."""
    return name.lower().endswith((*VIDEOS, FEATURES))


def without_suffix(name: str) -> str:
    """A name without the suffix of a video; other dots belong to it."""
    return os.path.splitext(name)[0] if is_video(name) else name
