"""The frames of a sample in a shard, as a source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import IO

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.frames.folder import FrameFolder
from seqclf.data.frames.pictures import decode_picture
from seqclf.data.frames.source import Source


class PackedFrames(Source):
    """A sample whose frames are pictures in a shard. No file is kept open.

    Args:
        shard: the file.
        key: the sample's key, for errors.
        at, sizes: offset in the shard and size in bytes of each picture.

    Raises:
        SeqclfError: on reading: the shard is missing or truncated; a picture is damaged, or differs in size from the
            first.
    """

    def __init__(self, shard: str, key: str, at: Sequence[int], sizes: Sequence[int]) -> None:
        self.shard, self.key = shard, key
        self.places = np.array([at, sizes], np.int64)
        self._size: tuple[int, int] | None = None

    kind = "folder"

    def reader(self) -> Callable[..., Source]:
        """A function ``reader(path)`` that opens the same pictures as files in a folder."""
        return FrameFolder

    @property
    def path(self) -> str:
        """The shard and the sample's key."""
        return f"{self.shard}: sample {self.key}"

    def __len__(self) -> int:
        return self.places.shape[1]

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """``(3, H, W)``, of the first picture."""
        if self._size is None:
            with self._open() as file:
                height, width, _ = self._picture(file, 0).shape
            self._size = (height, width)
        return (3, *self._size)

    def read(self, numbers: Sequence[int]) -> Tensor:
        """Reads frames by number, as ``(n, 3, H, W)`` uint8 RGB, channels last in memory."""
        _, height, width = self.frame_shape
        frames = np.empty((len(numbers), height, width, 3), np.uint8)
        with self._open() as file:
            for row, number in enumerate(numbers):
                picture = self._picture(file, number)
                if picture.shape[:2] != (height, width):
                    size = f"{picture.shape[1]}x{picture.shape[0]}"
                    raise SeqclfError(f"{self.path}: frame {number} is {size}, but frame 0 is {width}x{height}")
                frames[row] = picture
        return torch.from_numpy(frames).permute(0, 3, 1, 2)

    def _open(self) -> IO[bytes]:
        try:
            return open(self.shard, "rb", buffering=0)
        except OSError as error:
            raise SeqclfError(f"{self.path}: the shard can't be read ({error.strerror})") from None

    def _picture(self, file: IO[bytes], number: int) -> NDArray[np.uint8]:
        """One picture ``(H, W, 3)``."""
        if not 0 <= number < len(self):
            raise SeqclfError(f"{self.path}: has no frame {number}, only 0 to {len(self) - 1}")
        at, size = self.places[:, number].tolist()
        file.seek(at)
        content = bytearray(file.read(size))
        if len(content) < size:
            raise SeqclfError(f"{self.path}: frame {number}: the shard is truncated")
        return decode_picture(content, f"{self.path}: frame {number}")
