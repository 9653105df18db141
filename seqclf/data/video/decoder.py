"""An open video file that decodes frames by their numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from io import BufferedReader, FileIO
from typing import TYPE_CHECKING, Any
from weakref import finalize

import numpy as np

from seqclf.batch import SeqclfError
from seqclf.data.video.codec import Settings, new_codec, settings_of
from seqclf.data.video.container import (
    Opened,
    Place,
    decode,
    expect_size,
    open_container,
    until_fault,
)
from seqclf.data.video.index import FrameIndex, Ints
from seqclf.data.video.references import is_disposable, length_bytes

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

READ_AHEAD = 2**16
"""Bytes that are read at once from a file whose packets have known places."""
I_PICTURES = (0, 1)
"""PyAV's kinds of pictures that are built on no other, and of codecs that have no other."""


class Decoder:
    """An open file with its decoder, at some position.

    Args:
        place: the file.
        index: the index of its frames.
        opened: the open file, at its beginning; None to open it.
        settings: those of an earlier decoder of the file, which save opening its container.

    Attributes:
        settings: how to make another decoder of the file; None if its container must be opened.
    """

    def __init__(
        self, place: Place, index: FrameIndex, opened: Opened | None = None, settings: Settings | None = None
    ) -> None:
        self.place, self.index = place, index
        self.number_of = index.number_of.item  # of a packet, the number of its frame, or -1
        self.frames: Iterator[VideoFrame] = iter(())
        self.newest = self.wanted = -1  # the last decoded frame, and the requested one
        self.settings: Settings | None = None
        if settings is not None and os.path.isfile(place.file):
            self._begin_with(new_codec(settings))
        else:
            self._open(opened)
        self.size = self.codec.width, self.codec.height

    def close(self) -> None:
        """Closes the file."""
        self.frames = iter(())
        if self.index.places is None:
            self.container.close()
        else:
            self.file.close()

    def frame(self, number: int) -> VideoFrame:
        """Decodes a frame of the file.

        Raises:
            SeqclfError: the frame can't be decoded, is built on one that can't be, or differs in size from frame 0.
        """
        frame = self._frame(number)
        if self.size != (size := (frame.width, frame.height)):
            self._check_size(number, size)
        if frame.rotation:  # a new decoder would not know it
            self.settings = None
        return frame

    def _check_size(self, number: int, size: tuple[int, int]) -> None:
        """Refuses a frame that differs from the first one. The header's size is no proof: it may be wrong."""
        first = int(self.index.intact[0]) if self.index.intact is not None else 0
        if number != first:
            other = Decoder(self.place, self.index)
            try:
                frame = other._frame(first)
                expect_size(self.place, number, size, (frame.width, frame.height))
            finally:
                other.close()
        self.size = size

    def _frame(self, number: int) -> VideoFrame:
        start = self.index.start.item(number)
        if self.index.doubtful is not None and self.index.doubtful[number]:
            raise SeqclfError(
                f"{self.place}: frame {number} can't be decoded: the file is damaged near it, and does not say in "
                "which order the frames there are shown"
            )
        self.wanted = number
        ahead = self.newest < number and self.start <= start <= self.fed
        if not ahead:
            self._seek(start)
        frame = next(self.frames, None)
        if frame is None and self.sought:  # no clean start there, or the container can't find it: from the beginning
            self.close()
            self._open()
            frame = next(self.frames, None)
        if frame is None:
            raise SeqclfError(
                f"{self.place}: frame {number} can't be decoded, FFmpeg does not give it where its time says; convert "
                "the file, such as to H.264 in MP4"
            )
        return frame

    def _wanted_frames(self) -> Iterator[VideoFrame]:
        """Decodes up to the wanted frame, each time; ends where frames do not come in the order of the index."""
        damaged: list[int] = []  # packets since the start that could not be decoded
        packets = decode(self.codec, self._packets(), self.index.trusted)
        for came_from, frame in packets:
            if frame is None:
                damaged.append(came_from)
            if damaged:
                self._expect_intact(damaged)
            if frame is None:  # damage is reported before frames that are shown earlier
                continue
            if came_from == self.start and self.sought and frame.pict_type not in I_PICTURES:
                return
            now = -1 if came_from < 0 else self.number_of(came_from)
            if now > self.newest:  # the first frames after a seek may be shown before the keyframe
                explained = now == self.newest + 1 or damaged or self.index.intact is not None
                if not explained and not self.skipped.issuperset(range(self.newest + 1, now)):
                    return
                self.newest = now
                if now > self.wanted:
                    return
                if now == self.wanted:
                    yield frame

    def _expect_intact(self, damaged: list[int]) -> None:
        """Raises an error where a packet that the wanted frame needs is damaged."""
        wanted = self.wanted
        packet, start = self.index.packet.item(wanted), self.index.start.item(wanted)
        for fault in damaged:
            if fault == packet or (start <= fault < packet and fault not in self.disposable):
                other = self.number_of(fault)
                which = "it" if other == wanted else f"frame {other}" if other >= 0 else "a frame it is built on"
                raise SeqclfError(f"{self.place}: frame {wanted} can't be decoded, {which} is damaged")

    def _open(self, opened: Opened | None = None) -> None:
        """Goes to the beginning of the file."""
        self.container, self.stream = opened or open_container(self.place, self.index.known)
        if self.index.places is not None:
            self.container.close()
        self._begin_with(self.stream.codec_context)

    def _begin_with(self, codec: VideoCodecContext) -> None:
        """Goes to the beginning of the file with a new decoder."""
        self.codec = codec
        self.settings = None if self.index.places is None else settings_of(codec)
        self.may_skip, self.width = codec.name == "h264", length_bytes(codec.extradata)
        if self.index.places is not None:
            self.file = BufferedReader(FileIO(self.place.file), READ_AHEAD)
            finalize(self, self.file.close)  # as PyAV closes a container that nobody uses any more
        self._begin(0, sought=False)

    def _seek(self, start: int) -> None:
        """Goes to a packet, or to the beginning of the file."""
        from av import FFmpegError

        self.frames = iter(())  # packets that were read before the seek are not decoded
        if self.index.places is not None or self.index.names is not None:
            with suppress(FFmpegError):  # some formats can't seek
                if self.index.places is not None:
                    self.codec.flush_buffers()
                else:
                    self.container.seek(int(self.index.seeks[start]), stream=self.stream)
                self._begin(start, sought=True)
                self.newest = int(np.argmax(self.index.start == start)) - 1
                return
        self.close()
        self._open()

    def _begin(self, start: int, sought: bool) -> None:
        self.sought = sought
        self.start = self.fed = start  # the packet that decoding begins with, and the next one to decode
        self.newest = -1  # the number of the frame that came last
        self.disposable: set[int] = set()  # the packets since the start whose frames no other frame needs
        self.skipped: set[int] = set()  # the frames that were not decoded, because no other frame needs them
        self.frames = self._wanted_frames()

    def _packets(self) -> Iterator[tuple[int, Packet[VideoStream]]]:
        """The packets from the start on with their numbers, without those that no wanted frame needs."""
        for packet in self._searched() if self.index.places is None else self._stored(self.index.places):
            at, self.fed = self.fed, self.fed + 1
            if self.may_skip and is_disposable(self.width, packet):
                self.disposable.add(at)
                if (number := self.number_of(at)) < self.wanted:
                    self.skipped.add(number)
                    continue
            yield at, packet

    def _stored(self, places: Ints) -> Iterator[Packet[Any]]:
        """The packets from the start on, from their places in the file."""
        from av import Packet

        for at in range(self.start, places.shape[1]):
            self.file.seek(self.place.start + places.item(0, at))
            packet = Packet(places.item(1, at))  # with zeros after its end, beyond which decoders read
            if self.file.readinto(packet) < packet.size:
                return
            yield packet

    def _searched(self) -> Iterator[Packet[VideoStream]]:
        """The packets from the start on, as FFmpeg finds them. Their timestamps identify them after a seek."""
        names = self.index.names if self.sought else None
        for packet in until_fault(self.container, self.stream):
            if names is not None:
                if self.fed == len(names):
                    return
                if names.item(self.fed) != (packet.dts if self.index.by_dts else packet.pts):
                    if self.fed > self.start:
                        return
                    continue  # a seek may end some packets early
            yield packet
