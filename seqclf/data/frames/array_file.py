"""One clip in an ``.npy`` file, read as ``Clips`` would read the array."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.frames.arrays import as_frames
from seqclf.data.frames.source import Source


class ArrayFile(Source):
    """A clip in an ``.npy`` file, read as ``Clips`` would read the array.

    Args:
        path: the file: an array ``(T, *frame_shape)``, or ``(T,)`` for frames of one value.
        frame_shape: the shape of one frame.
        dtype: the dtype that the run was trained on, "float32" or "uint8"; None for that of
            ``Clips``. Integers are refused where floats are expected and vice versa, because values are not scaled.

    Raises:
        SeqclfError: on first use: the file is missing or damaged, or its array has another shape.
    """

    kind = "array"

    def __init__(self, path: str | Path, frame_shape: Sequence[int], dtype: str | None = None) -> None:
        self._path, self._shape, self.dtype = str(path), tuple(frame_shape), dtype

    def reader(self) -> Callable[..., Source]:
        """A function of a path that opens another file in the same way."""
        return partial(ArrayFile, frame_shape=self._shape, dtype=self.dtype)

    @property
    def path(self) -> str:
        """The file."""
        return self._path

    def __len__(self) -> int:
        return len(self._array)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        return self._shape

    def read(self, numbers: Sequence[int]) -> Tensor:
        """Reads the frames at these places, ``(n, *frame_shape)``."""
        frames, _, _ = as_frames([self._array[list(numbers)]])
        wanted = frames.dtype if self.dtype is None else getattr(torch, self.dtype)
        if torch.uint8 in (wanted, frames.dtype) and wanted != frames.dtype:
            raise SeqclfError(f"{self.path}: holds {self._array.dtype}, but the run was trained on {self.dtype}")
        return frames[0].to(wanted)

    @cached_property
    def _array(self) -> np.ndarray[Any, Any]:
        try:
            array = np.load(self._path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise SeqclfError(f"{self._path}: no such file") from None
        except (OSError, ValueError, EOFError) as error:
            raise SeqclfError(f"{self._path}: not an .npy file of numbers ({error})") from None
        if array.dtype.kind not in "fiub":
            raise SeqclfError(f"{self._path}: holds {array.dtype}, expected numbers")
        if array.ndim == 1 and self._shape == (1,):
            array = array[:, None]
        if array.shape[1:] != self._shape or not len(array):
            shape = ", ".join(map(str, self._shape))
            raise SeqclfError(f"{self._path}: has the shape {array.shape}, but the run reads clips (T, {shape})")
        return array
