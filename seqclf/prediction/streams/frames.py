"""The frames that a run streams, in the order and at the rate at which it reads video."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.frames.source import Source
from seqclf.data.live.reader import LiveReader
from seqclf.data.sampling import Sampling
from seqclf.data.video.container import several_streams
from seqclf.data.video.file import VideoFile
from seqclf.data.video.pixels import upright_shape, write_upright
from seqclf.prediction.files.frames import file_frames
from seqclf.prediction.reader import RunReader

Stopped = Callable[[], bool]


@dataclass(frozen=True)
class RawFrame:
    """One frame of a stream, before the run's transform.

    Attributes:
        number: its number in the source, at the run's frame rate.
        seconds: its time in the source; None if unknown.
        sequence: a new number begins where the model starts a new sequence.
        arrived: when it was there to be read, by ``time.perf_counter()``.
        pixels: ``(3, H, W)`` uint8 RGB, or features ``(D,)``.
    """

    number: int
    seconds: float | None
    sequence: int
    arrived: float
    pixels: Tensor


class StreamSource(Protocol):
    """Frames to stream, and counts of what happened to them."""

    name: str

    @property
    def dropped(self) -> int: ...

    @property
    def reconnects(self) -> int: ...

    @property
    def damaged(self) -> int: ...

    def frames(self, stopped: Stopped) -> Iterator[RawFrame]: ...


class FileStream:
    """The frames of a file or folder, from its first to its last.

    Args:
        run: the run.
        source: the file.
    """

    dropped = reconnects = damaged = 0

    def __init__(self, run: RunReader, source: Source) -> None:
        self.source, self.name, self.step = source, source.path, sampling_step(run.sampling or run.input.sampling())
        self.file = file_frames(source, run.fps)

    def frames(self, stopped: Stopped) -> Iterator[RawFrame]:
        for number in range(0, len(self.source), self.step):
            if stopped():
                return
            arrived = time.perf_counter()
            yield RawFrame(number, self.file.time_of(number), 0, arrived, self.source.read([number])[0])


class LiveStream:
    """The frames of live video, as they come.

    Args:
        reader: reads them.
    """

    def __init__(self, reader: LiveReader) -> None:
        self.reader, self.name = reader, reader.source.name

    @property
    def dropped(self) -> int:
        return self.reader.dropped

    @property
    def reconnects(self) -> int:
        return self.reader.reconnects

    @property
    def damaged(self) -> int:
        return self.reader.damaged

    def frames(self, stopped: Stopped) -> Iterator[RawFrame]:
        for item in self.reader.frames(stopped):
            pixels = np.empty(upright_shape(item.frame.picture), np.uint8)
            write_upright(item.frame.picture, pixels)
            yield RawFrame(item.number, item.frame.seconds, item.sequence, item.frame.arrived, torch.from_numpy(pixels))


def live_rate(run: RunReader) -> float | None:
    """The frame rate at which a run reads video; None for that of the video.

    Raises:
        SeqclfError: the run does not take pictures, or reads videos by code of its own, which can't read live video.
    """
    shape = run.predictor.frame_shape or run.spec.frame_shape
    if len(shape) != 3:
        raise SeqclfError(f"{run.folder}: takes frames {tuple(shape)}, and live video has pictures (3, H, W)")
    reader = run.input.reader("video")
    if reader is not None and getattr(reader, "func", reader) is not VideoFile:
        name = getattr(getattr(reader, "func", reader), "__qualname__", reader)
        raise SeqclfError(f"{run.folder}: reads videos by {name}, which can't read live video")
    if run.fps is not None:
        return run.fps
    rate: float | None = run.setting("folder" if reader is None else "video", "fps")
    return rate


def open_file(run: RunReader, path: str | Path, stream: int | None, note: Callable[[str], None]) -> Source:
    """A file as the run reads it, except for the number of its video stream, if given."""
    source = run.open(path)
    if isinstance(source, VideoFile):
        if stream is not None:
            source = VideoFile(source.path, source.fps, stream, source.on_error)
        count, number = source.streams()
        if count > 1:
            note(several_streams(source.path, count, number))
    elif stream is not None:
        raise SeqclfError(f"{path}: video_stream={stream} (--video-stream) is for video files and live video")
    return source


def sampling_step(sampling: Sampling) -> int:
    """The distance between consecutive frames of a clip: the value of the function's argument ``step``, or else 1."""
    step = inspect.signature(sampling).parameters.get("step")
    return step.default if step is not None and isinstance(step.default, int) else 1
