"""One video file as a source of frames: any of them, exactly as decoding the whole file would give them."""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.frame_times import FrameTimes, at_seconds
from seqclf.data.source import Source
from seqclf.data.video_index import (
    FrameIndex,
    Frames,
    Ints,
    Place,
    decode,
    index_frames,
    open_video,
    packets_of,
    until_fault,
)

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

MAX_OPEN = 16  # files that a process keeps open
ROUNDING = 0.001  # seconds: containers round times, Matroska to this
I_PICTURES = (0, 1)  # what PyAV calls a picture that is built on no other, or whose codec has only such


class VideoFile(Source):
    """The frames of a video file (``.mp4``, ``.avi``, ``.mkv``, ``.webm``, ``.mov``, and what else FFmpeg reads).

    Frames are decoded from the keyframe before them on, and are bit for bit those of a decoding from the beginning,
    whatever the frame rate, the order of frames in the file, its edit list or its first time. Pixels are as FFmpeg
    converts them to RGB, turned as the file says (by quarters; mirroring and pixels that are not square are ignored).

    What is asked first reads the file's packets once, without decoding them, and keeps where the frames are. Only where
    a container does not say in which order they are shown (transport streams; AVI, but for MPEG-4 and codecs that do
    not reorder) all is decoded once. The file must not change afterwards. The last 16 files that were read are kept
    open, so that reading on needs no seek. Objects may be pickled, used after a fork, and by several threads.

    Args:
        path: the file, or a place in one.
        fps: frames per second to resample to: frame ``k`` is then the one shown at ``k / fps`` seconds from the first
            frame's time, that is the last that is not later (by more than the millisecond to which containers round),
            for every such time up to that of the last frame. None for the frames as they are.
        stream: which of the file's video streams, from 0; None for the one that FFmpeg chooses by itself.
        on_error: "raise", or "skip_frames" to leave out the frames that can't be decoded, and those that are built on
            them; ``lost`` reports them. The whole file is then decoded once when it is first used.

    Raises:
        SeqclfError: fps is out of range. On first use: the file is missing, empty, an image, no video, cut off.
            On reading: a frame is damaged (those after it, too, up to the next keyframe), or of another size.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | Place,
        fps: float | None = None,
        stream: int | None = None,
        on_error: Literal["raise", "skip_frames"] = "raise",
    ) -> None:
        self._place = path if isinstance(path, Place) else Place(os.fspath(path), stream=stream)
        if on_error not in ("raise", "skip_frames"):
            raise SeqclfError(f'{self._place}: on_error={on_error!r}, expected "raise" or "skip_frames"')
        self.stream, self.on_error = stream, on_error
        if fps is not None and not 0 < fps <= 1 / ROUNDING:
            raise SeqclfError(f"{self._place}: fps is {fps}, and must be a number above 0, up to 1000, or None")
        self.fps = fps
        self._index: FrameIndex | None = None
        self._frames: Ints | None = None
        self._shape: tuple[int, ...] | None = None

    kind = "video"

    def reader(self) -> Callable[..., Source]:
        """Opens another file in the same way."""
        return partial(VideoFile, fps=self.fps, stream=self.stream, on_error=self.on_error)

    @property
    def path(self) -> str:
        """The file."""
        return str(self._place)

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """``(3, H, W)``, of frame 0."""
        if self._shape is None:
            self._shape = tuple(self.read([0]).shape[1:])
        return self._shape

    @property
    def seconds(self) -> Tensor:
        """``(T,)`` float64, when each frame is shown in player time: from the beginning of the file, sound included."""
        frames, seconds = self._numbers(), self._indexed().seconds
        if self.fps is None:
            return torch.from_numpy(seconds[frames])
        return torch.from_numpy(seconds[frames[0]] + np.arange(len(frames)) / self.fps)

    def frame_times(self) -> FrameTimes:
        """The number in the file of each frame, and its time there."""
        return at_seconds(self._numbers(), self._indexed().seconds)

    @property
    def file_seconds(self) -> Tensor:
        """``(N,)`` float64, when each of the N frames of the file is shown, whatever the rate it is read at."""
        return torch.from_numpy(self._indexed().seconds)

    @property
    def file_numbers(self) -> Tensor:
        """``(T,)`` int64, the number in the file of each frame that is read."""
        return torch.from_numpy(self._numbers())

    def __len__(self) -> int:
        return len(self._numbers())

    def read(self, numbers: Sequence[int]) -> Tensor:
        """The frames of these numbers, ``(n, 3, H, W)`` uint8 RGB, in any order and as often as they are named."""
        frames, wanted = self._numbers(), np.array([int(number) for number in numbers], np.int64)
        outside = wanted[(wanted < 0) | (wanted >= len(frames))]
        if len(outside):
            raise SeqclfError(f"{self.path}: there is no frame {outside[0]}, the frames are 0 to {len(frames) - 1}")
        if not len(wanted):
            return torch.empty(0, *self.frame_shape, dtype=torch.uint8)
        # taken out while in use: other threads neither use nor close it
        decoder = _OPEN.pop(self, None) or _Decoder(self._place, self._indexed())
        try:
            out = self._decoded(decoder, frames[wanted])
        except BaseException:
            decoder.close()
            raise
        _OPEN[self] = decoder
        _close_all_but(MAX_OPEN)
        return torch.from_numpy(out)

    def _decoded(self, decoder: _Decoder, numbers: Ints) -> NDArray[np.uint8]:
        rows = np.argsort(numbers, kind="stable").tolist()
        out = np.empty(0, np.uint8)
        for before, row in zip([None, *rows], rows, strict=False):
            if before is not None and numbers[before] == numbers[row]:
                out[row] = out[before]
                continue
            planes = decoder.planes(int(numbers[row]))
            if before is None:
                out = np.empty((len(rows), 3, *planes[0].shape), np.uint8)
            elif planes[0].shape != out.shape[2:]:
                sizes = "{1} x {0}, and another {3} x {2}".format(*planes[0].shape, *out.shape[2:])
                raise SeqclfError(f"{self.path}: frame {numbers[row]} is {sizes}: all frames must have the same size")
            for channel, plane in enumerate(planes):
                out[row, channel] = plane
        return out

    def _indexed(self) -> FrameIndex:
        if self._index is None:
            self._index = index_frames(self._place, self.on_error == "skip_frames")
        return self._index

    def _numbers(self) -> Ints:
        """Of each of our frames, its number in the file."""
        if self._frames is None:
            index = self._indexed()
            frames = np.arange(len(index.seconds)) if index.intact is None else index.intact
            if self.fps is not None:
                seconds = index.seconds[frames] - index.seconds[frames[0]]
                times = np.arange(math.floor((seconds[-1] + ROUNDING) * self.fps) + 1) / self.fps
                frames = frames[np.searchsorted(seconds, times + ROUNDING, side="right") - 1]
            self._frames = frames
        return self._frames

    def streams(self) -> int:
        """How many video streams the file has."""
        return self._indexed().streams

    def lost(self) -> str | None:
        """What ``on_error="skip_frames"`` left out, in words: how many frames, and which. None where all are intact."""
        index = self._indexed()
        if index.intact is None:
            return None
        gone = np.setdiff1d(np.arange(len(index.seconds)), index.intact)
        spans = np.split(gone, np.flatnonzero(np.diff(gone) > 1) + 1) if len(gone) else []
        named = [str(span[0]) if len(span) == 1 else f"{span[0]} to {span[-1]}" for span in spans]
        more = f" and {len(named) - 5} more spans" if len(named) > 5 else ""
        parts = (
            [f"{len(gone)} of {len(index.seconds)} frames can't be decoded: {', '.join(named[:5])}{more}"]
            if named
            else []
        )
        return "; ".join([*parts, *([index.fault] if index.fault else [])]) or None


class _Decoder:
    """An open file and its decoder, at some place."""

    def __init__(self, place: Place, index: FrameIndex) -> None:
        self.place, self.index = place, index
        self.number_of = np.full(len(index.seeks), -1)  # of each packet, the number of its frame
        self.number_of[index.packet] = np.arange(len(index.packet))
        self.frames: Frames = iter(())
        self.at = -1
        self._open()
        from av.video.reformatter import VideoReformatter

        self.reformatter = VideoReformatter()

    def close(self) -> None:
        self.frames = iter(())
        self.container.close()

    def planes(self, number: int) -> list[NDArray[np.uint8]]:
        """Red, green and blue ``(H, W)`` of a frame of the file."""
        packet, start = int(self.index.packet[number]), int(self.index.start[number])
        ahead = self.at < number and self.start <= start <= self.fed
        if not ahead:
            self._seek(start)
        frame = self._forward(number, packet, start)
        if frame is None and self.sought:  # no clean start there, or the container can't find it: from the beginning
            self.close()
            self._open()
            frame = self._forward(number, packet, start)
        if frame is None:
            raise SeqclfError(f"{self.place}: frame {number} can't be decoded, FFmpeg gives none")
        turns = frame.rotation // 90 if frame.rotation % 90 == 0 else 0
        planes = _to_planes(self.reformatter, frame)
        return [np.rot90(plane, turns) for plane in planes] if turns else planes

    def _forward(self, number: int, packet: int, start: int) -> VideoFrame | None:
        """Decodes up to a frame; None where frames do not come as the index says."""
        for came_from, frame in self.frames:
            if frame is None:
                self.damaged.append(came_from)
            for damaged in self.damaged:
                if start <= damaged <= packet:
                    other = self.number_of[damaged]
                    which = "it" if other == number else f"frame {other}" if other >= 0 else "what it is built on"
                    raise SeqclfError(f"{self.place}: frame {number} can't be decoded, {which} is damaged")
            if frame is None:  # the decoder reports it before frames that are shown earlier
                continue
            if self.sought and came_from == self.start and frame.pict_type not in I_PICTURES:
                return None
            now = -1 if came_from < 0 else int(self.number_of[came_from])
            if now > self.at:  # before the first, there may come remains of frames that are shown before the keyframe
                if now > self.at + 1 and not self.damaged and self.index.intact is None:
                    return None
                self.at = now
                if now >= number:
                    return frame if now == number else None
        return None

    def _open(self) -> None:
        """Goes to the beginning of the file."""
        self.container, self.stream = open_video(self.place)
        self._begin(0, sought=False)

    def _seek(self, start: int) -> None:
        """Goes to a packet, or to the beginning of the file."""
        from av import FFmpegError

        if self.index.names is not None:
            self.frames = iter(())  # the packets that were under way belong to the place before
            with suppress(FFmpegError):  # there are formats that can't
                self.container.seek(int(self.index.seeks[start]), stream=self.stream)
                self._begin(start, sought=True)
                self.at = int(np.argmax(self.index.start == start)) - 1
                return
        self.close()
        self._open()

    def _begin(self, start: int, sought: bool) -> None:
        self.sought = sought
        self.start = self.fed = start  # the packet that decoding begins with, and the next for the decoder
        self.at = -1  # the number of the frame that came last
        self.damaged: list[int] = []  # the packets since the start that could not be decoded
        self.frames = decode(self.stream.codec_context, self._packets(), self.index.trusted)

    def _packets(self) -> Iterator[tuple[int, Packet[VideoStream]]]:
        """The packets from the start on with their numbers; after a seek known by their names."""
        names = self.index.names if self.sought else None
        for packet in until_fault(packets_of(self.container, self.stream)):
            if names is not None:
                if self.fed == len(names):
                    return
                if names[self.fed] != (packet.dts if self.index.by_dts else packet.pts):
                    if self.fed > self.start:
                        return
                    continue  # a seek may end some packets before the place
            self.fed += 1
            yield self.fed - 1, packet


def _to_planes(reformatter: VideoReformatter, frame: VideoFrame) -> list[NDArray[np.uint8]]:
    """Red, green and blue, as FFmpeg's conversion to ``rgb24`` gives them."""
    if _planes_are_exact(frame.format.name, frame.width, frame.height, int(frame.colorspace), int(frame.color_range)):
        gbr: Any = reformatter.reformat(frame, format="gbrp", threads=1).planes
        planes = [np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, : frame.width] for plane in gbr]
        return [planes[2], planes[0], planes[1]]
    rgb: Any = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
    return [rgb[:, :, channel] for channel in range(3)]


@lru_cache(maxsize=256)
def _planes_are_exact(pixels: str, width: int, height: int, colorspace: int, color_range: int) -> bool:
    """Whether FFmpeg converts frames of this kind to planes as it does to ``rgb24``, tried on noise.

    That saves a pass, but is not exact for some widths and pixel formats, versions and processors.
    """
    from av import FFmpegError, VideoFrame
    from av.video.reformatter import VideoReformatter

    try:
        noise = VideoFrame(width, height, pixels)
        noise.colorspace, noise.color_range = colorspace, color_range
        for plane in noise.planes:
            plane.update(np.random.default_rng(0).bytes(plane.buffer_size))
        rgb = VideoReformatter().reformat(noise, format="rgb24", threads=1).to_ndarray()
        return np.array_equal(rgb, VideoReformatter().reformat(noise, format="gbrp", threads=1).to_ndarray())
    except (FFmpegError, OSError, ValueError):  # such as a palette, which noise can't be made of
        return False


_OPEN: OrderedDict[VideoFile, _Decoder] = OrderedDict()  # the one last used is the last


def _close_all_but(kept: int) -> None:
    while len(_OPEN) > kept:
        _OPEN.popitem(last=False)[1].close()


if hasattr(os, "register_at_fork"):  # a child that read on would move its parent's place in the files
    os.register_at_fork(after_in_child=lambda: _close_all_but(0))
