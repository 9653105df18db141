"""The features of one video in an ``.npy`` file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.frames.source import Layout, Source
from seqclf.data.frames.times import FrameTimes


class FeatureFile(Source):
    """The feature vectors of one video in an ``.npy`` file; frames of ``(D,)`` float32.

    The file is memory-mapped, so that a clip reads only its own frames. Each ``read`` opens and closes it, so that
    thousands of videos keep no file open.

    Args:
        path: the file: numbers of any type in two axes, or ``(T,)`` for one feature per frame.
        sample_rate: take every ``sample_rate``-th frame of the file, starting with the first.
        layout: "time_first" for files of ``(T, D)``, "features_first" for ``(D, T)``.
        size: the expected D; a file with another is refused. None accepts any.
        length: use only the first ``length`` frames of the file; None for all.

    Raises:
        SeqclfError: an argument is out of range. On first use: see ``read``.
    """

    kind = "array"

    def __init__(
        self,
        path: str | Path,
        sample_rate: int = 1,
        layout: Layout = "time_first",
        size: int | None = None,
        length: int | None = None,
    ) -> None:
        if sample_rate < 1:
            raise SeqclfError(f"sample_rate={sample_rate}: expected at least 1")
        check_layout(layout)
        self._path = str(path)
        self.sample_rate, self.layout, self.size, self.length = sample_rate, layout, size, length

    @property
    def path(self) -> str:
        """The file."""
        return self._path

    def reader(self) -> Callable[..., Source]:
        """A function of a path that opens another file with the same layout and number of features."""
        return partial(FeatureFile, sample_rate=self.sample_rate, layout=self.layout, size=self._sizes[0])

    @property
    def file_length(self) -> int:
        """The number of frames in the file, before sampling."""
        return self._sizes[1]

    def __len__(self) -> int:
        return len(range(0, self._sizes[1], self.sample_rate))

    def frame_times(self) -> FrameTimes:
        """The number in the file of each frame."""
        return FrameTimes(np.arange(len(self)) * self.sample_rate, self.file_length)

    @property
    def frame_shape(self) -> tuple[int]:
        return (self._sizes[0],)

    def read(self, numbers: Sequence[int]) -> Tensor:
        """Reads the frames at these places, ``(n, D)`` float32.

        Raises:
            SeqclfError: the file is missing, damaged or of another shape; there is no such frame; a value is not
                finite.
        """
        chosen = np.asarray(numbers, dtype=np.int64).reshape(-1)
        outside = chosen[(chosen < 0) | (chosen >= len(self))]
        if len(outside):
            raise SeqclfError(f"{self.path}: there is no frame {outside[0]}, the frames are 0 to {len(self) - 1}")
        rows: Any = chosen * self.sample_rate
        steps = np.unique(np.diff(rows, append=rows[-1:] + self.sample_rate))
        if len(steps) == 1 and steps[0] > 0:
            rows = slice(rows[0], rows[-1] + 1, steps[0])  # a view: only the conversion copies
        frames = torch.empty(len(chosen), self._sizes[0])
        with np.errstate(over="ignore"):  # values too large for float32 become infinite, and are refused below
            frames.numpy()[:] = self._time_first()[rows]
        if not frames.sum().isfinite() and not (finite := frames.isfinite().all(1)).all():  # the sum is a quick test
            at = int(chosen[int((~finite).nonzero()[0])]) * self.sample_rate
            raise SeqclfError(f"{self.path}: frame {at} of the file has NaN or infinite values")
        return frames

    @cached_property
    def _sizes(self) -> tuple[int, int]:
        """D, and T before sampling."""
        T, D = self._time_first().shape
        if self.size is not None and self.size != D:
            other = "features_first" if self.layout == "time_first" else "time_first"
            hint = f"; layout={other} would give {T}" if self.size == T else ""
            raise SeqclfError(
                f"{self.path}: has {T} frames of {D} features (layout={self.layout}), expected D={self.size}{hint}"
            )
        return D, T if self.length is None else min(T, self.length)

    def _time_first(self) -> np.ndarray[Any, Any]:
        """The file's array, mapped, as ``(T, D)``."""
        array = open_array(self.path)
        return array.T if self.layout == "features_first" else array


def check_layout(layout: str, known: Sequence[str] = get_args(Layout)) -> None:
    """Raises a ``SeqclfError`` for a layout that is not known."""
    if layout not in known:
        hint = "; auto decides by the lengths of labels, as in feature_set" if layout == "auto" else ""
        raise SeqclfError(f"layout={layout!r}: expected one of {', '.join(known)}{hint}")


def open_array(path: str | Path) -> np.ndarray[Any, Any]:
    """Memory-map an ``.npy`` file as an array of two axes.

    Raises:
        SeqclfError: the file is missing or damaged, or does not hold numbers in one or two axes.
    """
    try:
        mapped = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise SeqclfError(f"{path}: no such file") from None
    except (OSError, ValueError, EOFError, SyntaxError, TypeError) as error:
        raise SeqclfError(f"{path}: not an .npy file of numbers, or damaged ({error})") from None
    array = mapped[:, None] if mapped.ndim == 1 else mapped
    if array.ndim != 2 or not array.size or array.dtype.kind not in "fiub":
        raise SeqclfError(f"{path}: holds {mapped.dtype} {mapped.shape}, expected numbers in two axes")
    return array
