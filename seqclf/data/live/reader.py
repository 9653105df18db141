"""Reading live video in a thread that drops frames when they are not used in time, and reconnects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event, Thread
from typing import TYPE_CHECKING

from seqclf.batch import SeqclfError
from seqclf.data.live.frame_queue import FrameQueue
from seqclf.data.live.frames import FrameClock, LiveFrame, decode_live
from seqclf.data.live.input import POLL, TIMEOUT, LiveInput
from seqclf.data.video.container import several_streams, video_streams

if TYPE_CHECKING:
    from av.container import InputContainer

FIRST_DELAY, LONGEST_DELAY = 0.5, 30.0
"""Seconds before the first attempt to reconnect, and at most; each failure doubles the delay."""
SEGMENTED = ("hls", "dash")
"""Formats that come as files of several seconds each: dropping frames would leave little of each file."""


def is_recording(container: InputContainer) -> bool:
    """Whether a network source is a video of known length, such as a file on a server."""
    return container.duration is not None


@dataclass(frozen=True)
class NumberedFrame:
    """A frame with its place among those of the source.

    Attributes:
        number: the number of the frame at the rate that is read, from 0, counting dropped frames.
        sequence: the number of the sequence. A new one begins after a gap, such as a new connection.
        frame: the frame.
    """

    number: int
    sequence: int
    frame: LiveFrame


class LiveReader:
    """The frames of a live source.

    Cameras and network streams are live: by default, frames are dropped if they are not used in time, and a lost
    connection is opened again. A network source of known duration is a recording, and is read like a file. Of HLS and
    DASH, which come as files of several seconds, no frame is dropped by default.

    Args:
        source: where video comes from.
        fps, step: the rate; see ``FrameClock``.
        drop: whether to drop frames if ``size`` of them wait; None for live sources only.
        size: the largest number of frames that wait.
        retries: the number of attempts to reconnect that may fail in a row; None for any number.
        note: called with notes for the user, in the thread that reads.

    Attributes:
        reconnects: the number of new connections after the first.
        damaged: the number of frames that could not be decoded.
    """

    def __init__(
        self,
        source: LiveInput,
        fps: float | None = None,
        step: int = 1,
        drop: bool | None = None,
        size: int = 4,
        retries: int | None = 10,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        if size < 1:
            raise SeqclfError(f"queue={size}: expected at least 1 frame")
        if retries is not None and retries < 0:
            raise SeqclfError(f"retries={retries}: expected at least 0, or None for any number")
        self.source, self.fps, self.step, self.drop, self.retries, self.note = source, fps, step, drop, retries, note
        self.queue = FrameQueue[NumberedFrame](size)
        self.reconnects = self.damaged = 0
        self._decoded = 0
        self._first = 0  # the number of the first frame of the sequence
        self._sequence = 0
        self._clock = FrameClock(fps, step)
        self._stop = Event()

    @property
    def dropped(self) -> int:
        """The number of frames dropped so far."""
        return self.queue.dropped

    def frames(self, stopped: Callable[[], bool] = lambda: False) -> Iterator[NumberedFrame]:
        """The frames as they come, until the source ends or ``stopped`` is true.

        Raises:
            SeqclfError: the source can't be opened, or is lost and can't be reconnected.
        """
        thread = Thread(target=self._read, name="live video", daemon=True)
        thread.start()
        try:
            while not stopped() and (item := self.queue.get(stopped, POLL)) is not None:
                yield item
        finally:
            self._stop.set()
            self.queue.close()
            thread.join(1.0)  # a thread that waits for a network ends with the process

    def _read(self) -> None:
        try:
            self._connections()
            self.queue.end()
        except BaseException as error:  # raised in the thread that uses the frames
            self.queue.end(error)

    def _connections(self) -> None:
        """Reads one connection after another."""
        failures = 0
        while True:
            before = self._decoded
            try:
                if self._connection():
                    return
                lost = f"{self.source.name}: the stream ended"
            except SeqclfError as error:
                if not self.source.is_live or not self._decoded:
                    raise
                lost = str(error)
            failures = 0 if self._decoded > before else failures + 1
            if self.retries is not None and failures >= self.retries:
                raise SeqclfError(f"{lost}; attempts to connect again: {failures} (retries=, --retries)")
            delay = min(FIRST_DELAY * 2**failures, LONGEST_DELAY)
            self.note(f"{lost}; connecting again in {delay:g} s")
            if self._stop.wait(delay):
                return

    def _connection(self) -> bool:
        """Reads one connection until it ends. Returns whether the source has ended with it."""
        container, stream = self.source.open(self._stop.is_set)
        with container:
            if (count := len(video_streams(container))) > 1 and not self._decoded:
                self.note(several_streams(self.source.name, count, video_streams(container).index(stream)))
            live = self.source.is_live and not is_recording(container)
            waits = not live or container.format.name in SEGMENTED
            self.queue.drops = not waits if self.drop is None else self.drop
            last: float | None = None
            for frame in decode_live(self.source, container, stream, self._count_damaged):
                if last is None and self._decoded:
                    self.reconnects += 1
                    self._begin_sequence("connected again")
                elif last is not None and (frame.seconds < last or (live and frame.seconds > last + TIMEOUT)):
                    self._begin_sequence(f"time jumps from {last:.3f} to {frame.seconds:.3f} s")
                last, self._decoded = frame.seconds, self._decoded + 1
                if not self._put(self._clock.push(frame)):
                    return True
            return not self._put(self._clock.end()) or not live

    def _begin_sequence(self, why: str) -> None:
        self.note(f"{self.source.name}: {why}; the model starts a new sequence")
        self._first, self._sequence = self._first + self._clock.next, self._sequence + 1
        self._clock = FrameClock(self.fps, self.step)

    def _put(self, frames: Iterator[tuple[int, LiveFrame]]) -> bool:
        """Queues frames. Returns False if they are no longer wanted."""
        return all(self.queue.put(NumberedFrame(self._first + k, self._sequence, frame)) for k, frame in frames)

    def _count_damaged(self) -> None:
        self.damaged += 1
