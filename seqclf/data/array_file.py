"""One clip in an ``.npy`` file, as arrays in memory hold it: ``(T, *frame_shape)``, its dtype kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.source import Source


class ArrayFile(Source):
    """A clip in an ``.npy`` file, read as it was in memory.

    Args:
        path: the file, an array ``(T, *frame_shape)``; of frames of one value ``(T,)`` is taken, too.
        frame_shape: the shape of one frame.
        dtype: what the frames are converted to, such as "float32"; None keeps the file's. Values are not scaled, and
            whole numbers that "uint8" can't hold are refused.

    Raises:
        SeqclfError: on first use: the file is missing or damaged, or its array has another shape.
    """

    kind = "array"

    def __init__(self, path: str | Path, frame_shape: Sequence[int], dtype: str | None = None) -> None:
        self._path, self._shape, self.dtype = str(path), tuple(frame_shape), dtype

    def reader(self) -> Callable[..., Source]:
        """Opens another file in the same way."""
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
        """The frames of these numbers, ``(n, *frame_shape)``."""
        array = self._array[list(numbers)]
        if self.dtype is not None and str(array.dtype) != self.dtype:
            if self.dtype == "uint8" or array.dtype == np.uint8:
                raise SeqclfError(f"{self.path}: holds {array.dtype}, but the run was trained on {self.dtype}")
            array = array.astype(self.dtype)
        return torch.from_numpy(np.ascontiguousarray(array))

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
