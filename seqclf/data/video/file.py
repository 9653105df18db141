"""One video file as a source of frames."""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.frames.source import NewArray, Source, new_array
from seqclf.data.frames.times import FrameTimes, at_seconds
from seqclf.data.video.codec import Settings
from seqclf.data.video.container import Place, open_container
from seqclf.data.video.decoder import Decoder
from seqclf.data.video.index import FrameIndex, Ints, index_frames, index_of_table
from seqclf.data.video.pixels import upright_shape, write_upright

MAX_OPEN = 16
"""The number of files that a process keeps open."""
ROUNDING = 0.001
"""Seconds. Containers round times; Matroska to this."""


class VideoFile(Source):
    """The frames of a video file (``.mp4``, ``.avi``, ``.mkv``, ``.webm``, ``.mov`` and all others that FFmpeg reads).

    Any frame can be read. It is decoded from the keyframe before it, and is bit for bit the one that decoding the whole
    file gives, for any frame rate, order of frames, edit list or first time. Pixels are converted to RGB by FFmpeg, and
    rotated by quarter turns as the file says. Mirroring and pixels that are not square are ignored. All frames must
    have the same size.

    The first use indexes the frames, from the header of most MP4 files and from all packets of other files. Nothing is
    decoded for the index, unless the container does not say in which order frames are shown. This is so for transport
    streams, and for AVI files except MPEG-4 and codecs that do not reorder frames.

    The file must not change afterwards. Each process keeps the 16 most recently used files open, so that sequential
    reads need no seek. Objects can be pickled, used after a fork, and shared by threads.

    Args:
        path: the file, or a place in one.
        fps: the frame rate to resample to. Frame ``k`` is then the last frame that is shown no later than ``k / fps``
            seconds after the first frame, within the millisecond to which containers round. None keeps all frames.
        stream: which video stream of the file, from 0; None for the one that FFmpeg chooses.
        on_error: "raise", or "skip_frames" to leave out frames that can't be decoded or are built on such frames.
            ``lost`` reports them. The whole file is then decoded once on first use.

    Raises:
        SeqclfError: an argument is out of range. On first use: the file is missing, empty, cut off, or not a video;
            frames of an AVI file are missing at unknown places. When reading: a frame is damaged, or built on a damaged
            one, or has another size than the first.
    """

    kind = "video"

    def __init__(
        self,
        path: str | os.PathLike[str] | Place,
        fps: float | None = None,
        stream: int | None = None,
        on_error: Literal["raise", "skip_frames"] = "raise",
    ) -> None:
        self._place = path if isinstance(path, Place) else Place(os.fspath(path), stream=stream)
        if on_error not in ("raise", "skip_frames"):
            raise SeqclfError(f'{self._place}: on_error={on_error!r}: expected "raise" or "skip_frames"')
        if fps is not None and not 0 < fps <= 1 / ROUNDING:
            raise SeqclfError(f"{self._place}: fps={fps}: expected a number above 0, up to 1000")
        self.fps, self.stream, self.on_error = fps, stream, on_error
        self._index: FrameIndex | None = None
        self._settings: Settings | None = None  # of a decoder that has read a frame
        self._frames: Ints | None = None
        self._shape: tuple[int, ...] | None = None

    def reader(self) -> Callable[..., Source]:
        """A function of a path that opens another file in the same way."""
        return partial(VideoFile, fps=self.fps, stream=self.stream, on_error=self.on_error)

    @property
    def path(self) -> str:
        """The file."""
        return str(self._place)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """``(3, H, W)``, the shape of frame 0."""
        if self._shape is None:
            self._shape = tuple(self.read([0]).shape[1:])
        return self._shape

    @property
    def seconds(self) -> Tensor:
        """``(T,)`` float64, when each frame is shown in player time: seconds from the beginning of the file, where
        sound may start before the first frame."""
        frames, seconds = self._numbers(), self._indexed().seconds
        if self.fps is None:
            return torch.from_numpy(seconds[frames])
        return torch.from_numpy(seconds[frames[0]] + np.arange(len(frames)) / self.fps)

    def frame_times(self) -> FrameTimes:
        """The number of each frame in the file, and its time there."""
        return at_seconds(self._numbers(), self._indexed().seconds)

    @property
    def file_seconds(self) -> Tensor:
        """``(N,)`` float64, when each of the N frames of the file is shown, whatever rate it is read at."""
        return torch.from_numpy(self._indexed().seconds)

    @property
    def file_numbers(self) -> Tensor:
        """``(T,)`` int64, the number in the file of each frame that is read."""
        return torch.from_numpy(self._numbers())

    def follows_times(self) -> bool:
        """Whether frames have the order of the times in the file, by which browsers show them."""
        index = self._indexed()
        return index.names is not None and bool((np.diff(index.names[index.packet]) > 0).all())

    def streams(self) -> tuple[int, int]:
        """The number of video streams in the file, and which of them is read, from 0."""
        index = self._indexed()
        return index.streams, index.stream

    def __len__(self) -> int:
        return len(self._numbers())

    def read(self, numbers: Sequence[int]) -> Tensor:
        """Reads frames by their numbers, in any order and with repeats: ``(n, 3, H, W)`` uint8 RGB."""
        return self.read_into(numbers, new_array)

    def read_into(self, numbers: Sequence[int], new: NewArray) -> Tensor:
        """Reads frames as ``read`` does, into the array that ``new(shape)`` returns."""
        frames = self._numbers()
        if not len(numbers):
            return torch.empty(0, *self.frame_shape, dtype=torch.uint8)
        if min(numbers) < 0 or max(numbers) >= len(frames):
            outside = next(number for number in numbers if not 0 <= number < len(frames))
            raise SeqclfError(f"{self.path}: there is no frame {outside}, the frames are 0 to {len(frames) - 1}")
        # out of the pool while in use, so that other threads neither use nor close it
        decoder = _OPEN.pop(self, None) or Decoder(self._place, self._indexed(), settings=self._settings)
        try:
            out = _decode_in_order(decoder, [frames.item(number) for number in numbers], new)
        except BaseException as error:
            decoder.close()
            if isinstance(error, SeqclfError) and decoder.index.places is not None:
                self._index, self._frames = index_frames(self._place), None  # its packets may differ from its header
                self._settings = None
                return self.read_into(numbers, new)
            raise
        self._settings = decoder.settings
        _keep_open(self, decoder)
        return torch.from_numpy(out)

    def lost(self) -> str | None:
        """A description of the frames that ``on_error="skip_frames"`` left out; None where all frames are intact."""
        index = self._indexed()
        if index.intact is None:
            return None
        gone = np.setdiff1d(np.arange(len(index.seconds)), index.intact)
        spans = np.split(gone, np.flatnonzero(np.diff(gone) > 1) + 1) if len(gone) else []
        named = [str(span[0]) if len(span) == 1 else f"{span[0]} to {span[-1]}" for span in spans]
        more = f" and {len(named) - 5} more spans" if len(named) > 5 else ""
        parts = [index.fault] if index.fault else []
        if named:
            listed = ", ".join(named[:5]) + more
            parts.insert(0, f"{len(gone)} of {len(index.seconds)} frames can't be decoded: {listed}")
        return "; ".join(parts) or None

    def _indexed(self) -> FrameIndex:
        if self._index is None:
            opened = open_container(self._place)
            skip_damaged = self.on_error == "skip_frames"
            self._index = None if skip_damaged else index_of_table(self._place, opened)
            if self._index is None:
                self._index = index_frames(self._place, skip_damaged, opened)
            else:
                _keep_open(self, Decoder(self._place, self._index, opened))
        return self._index

    def _numbers(self) -> Ints:
        """The number in the file of each frame."""
        if self._frames is None:
            index = self._indexed()
            frames = np.arange(len(index.seconds)) if index.intact is None else index.intact
            if self.fps is not None:
                seconds = index.seconds[frames] - index.seconds[frames[0]]
                times = np.arange(math.floor((seconds[-1] + ROUNDING) * self.fps) + 1) / self.fps
                frames = frames[np.searchsorted(seconds, times + ROUNDING, side="right") - 1]
            self._frames = frames
        return self._frames


def _decode_in_order(decoder: Decoder, numbers: list[int], new: NewArray) -> NDArray[np.uint8]:
    """Decodes frames of a file in ascending order, each once: ``(n, 3, H, W)``."""
    out, decoded = np.empty(0, np.uint8), -1
    for row in sorted(range(len(numbers)), key=numbers.__getitem__):
        if decoded >= 0 and numbers[row] == numbers[decoded]:
            out[row] = out[decoded]
            continue
        frame = decoder.frame(numbers[row])
        if decoded < 0:
            out = new((len(numbers), *upright_shape(frame)))
        write_upright(frame, out[row])
        decoded = row
    return out


_OPEN: OrderedDict[VideoFile, Decoder] = OrderedDict()
"""The open files, the one used last at the end."""


def _keep_open(source: VideoFile, decoder: Decoder) -> None:
    _OPEN[source] = decoder
    _close_all_but(MAX_OPEN)


def _close_all_but(kept: int) -> None:
    while len(_OPEN) > kept:
        _OPEN.popitem(last=False)[1].close()


if hasattr(os, "register_at_fork"):  # parent and child share positions in open files
    os.register_at_fork(after_in_child=lambda: _close_all_but(0))
