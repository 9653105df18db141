"""The frames of live video: decoded as they come, and resampled by their timestamps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from seqclf.batch import SeqclfError
from seqclf.data.live.input import LiveInput
from seqclf.data.video.container import packets_of
from seqclf.data.video.file import ROUNDING

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

LONGEST_DELAY = 32
"""More packets than a decoder reads before it returns the frame of the first one."""


@dataclass(frozen=True)
class LiveFrame:
    """One frame of live video.

    Attributes:
        seconds: the time that the source gives it, in seconds.
        arrived: when it was decoded, by ``time.perf_counter()``.
        picture: the decoded frame.
    """

    seconds: float
    arrived: float
    picture: VideoFrame


def decode_live(
    source: LiveInput, container: InputContainer, stream: VideoStream, damaged: Callable[[], None]
) -> Iterator[LiveFrame]:
    """Decodes an open input until it ends.

    A frame without a timestamp is one frame period after the previous frame. A live stream begins with its first
    keyframe, because earlier frames depend on frames that were not received.

    Args:
        source: what was opened.
        container, stream: the open input.
        damaged: called for each frame that can't be decoded. Such frames are left out.

    Raises:
        SeqclfError: the connection is lost, or no frame comes within the time limit.
    """
    from av import FFmpegError

    times, newest, started = _Times(container, stream), time.monotonic(), not source.is_live
    for packet in _packets(source, container, stream):
        started = started or packet is None or packet.is_keyframe
        try:
            if packet is not None and started:
                times.of_packet(packet)
            frames = stream.codec_context.decode(packet) if started else []
        except FFmpegError:
            damaged()
            continue
        for frame in frames:
            if frame.is_corrupt:
                damaged()
                continue
            newest = time.monotonic()
            yield LiveFrame(times.of_frame(frame), time.perf_counter(), frame)
        if source.is_live and source.timeout is not None and time.monotonic() - newest > source.timeout:
            raise SeqclfError(f"{source.name}: data arrives, but no frame for {source.timeout:g} s")


class _Times:
    """The times of decoded frames, in seconds.

    A frame has the time of its packet. In AVI, and where the times of frames turn out to be those of decoding, frames
    have the times of their packets in ascending order.

    Args:
        container, stream: the open input.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.period, self.tick = 1 / float(stream.guessed_rate or 25), float(stream.time_base or 0)
        self.ordered = self.by_dts = "avi" in container.format.name.split(",")  # FFmpeg guesses the times of showing
        self.waiting: list[float] = []  # the times of packets whose frames have not come yet
        self.decoded: int | None = None  # the time of decoding of the last packet
        self.jumped = False
        self.last: float | None = None

    def of_packet(self, packet: Packet[VideoStream]) -> None:
        """Notes a packet before it is decoded."""
        if self.decoded is not None and packet.dts is not None and packet.dts < self.decoded:
            self.waiting, self.jumped = [], True
        self.decoded = packet.dts
        ticks = packet.dts if self.by_dts else packet.pts
        if ticks is not None:
            heappush(self.waiting, ticks * self.tick)
            if len(self.waiting) > LONGEST_DELAY:
                heappop(self.waiting)

    def of_frame(self, frame: VideoFrame) -> float:
        """The time of a frame, in the order of decoding."""
        ticks, last = frame.dts if frame.pts is None else frame.pts, self.last
        if ticks is None or not frame.time_base:  # PyAV 19 has 0 for None
            own = 0.0 if last is None else last + self.period
        else:
            own = float(ticks * frame.time_base)
        earliest = heappop(self.waiting) if self.waiting else own
        back = last is not None and own < last
        self.ordered = self.ordered or (back and not self.jumped)
        if self.ordered:
            own = earliest if last is None or self.jumped else max(last, earliest)
        self.jumped, self.last = self.jumped and not back, own
        return own


def _packets(source: LiveInput, container: InputContainer, stream: VideoStream) -> Iterator:  # type: ignore[type-arg]
    """The packets of a stream, and at its end None, which makes the decoder return the frames that it holds."""
    from av import FFmpegError
    from av.error import ExitError

    try:
        yield from packets_of(container, stream)
    except ExitError:
        raise SeqclfError(f"{source.name}: no data for {source.timeout:g} s") from None
    except FFmpegError as error:
        raise SeqclfError(source.lost(error)) from None
    except IndexError:  # PyAV's error where a new stream begins in the middle
        raise SeqclfError(f"{source.name}: a new stream begins in its middle") from None
    yield None


class FrameClock:
    """Resamples one sequence of frames to a rate, as ``VideoFile`` does for a file.

    Frame ``k`` is the last frame that is shown no later than ``k / fps`` seconds after the first frame, within the
    millisecond to which containers round.

    Args:
        fps: the frame rate; None keeps all frames.
        step: take every ``step``-th frame of these.
    """

    def __init__(self, fps: float | None, step: int = 1) -> None:
        self.fps, self.step, self.next = fps, step, 0
        self.first: float | None = None
        self.held: LiveFrame | None = None

    def push(self, frame: LiveFrame) -> Iterator[tuple[int, LiveFrame]]:
        """The frames that are known now that this one has come, with their numbers."""
        if self.fps is None:
            yield from self._take(frame)
            return
        if self.first is None:
            self.first = frame.seconds
        now = frame.seconds - self.first
        while self.held is not None and self.next / self.fps + ROUNDING < now:
            yield from self._take(self.held)
        self.held = frame
        if self.next / self.fps <= now:  # no other frame comes within the rounding
            yield from self._take(frame)

    def end(self) -> Iterator[tuple[int, LiveFrame]]:
        """The frames that are known now that the sequence has ended."""
        if self.fps is not None and self.held is not None and self.first is not None:
            last = math.floor((self.held.seconds - self.first + ROUNDING) * self.fps)
            while self.next <= last:
                yield from self._take(self.held)

    def _take(self, frame: LiveFrame) -> Iterator[tuple[int, LiveFrame]]:
        number, self.next = self.next, self.next + 1
        if number % self.step == 0:
            yield number, frame
