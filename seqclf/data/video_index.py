"""Which frames a video file holds, in the order they are shown, and from which of its packets each is decoded."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from seqclf.batch import SeqclfError

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

Frames: TypeAlias = "Iterator[tuple[int, VideoFrame | None]]"
Ints: TypeAlias = NDArray[np.int64]
TIMED = {"mov", "matroska", "webm", "flv", "gif"}  # containers that say when each frame is shown
PICTURE = re.compile(b"\x00\x00\x01\xb6(.)", re.DOTALL)  # an MPEG-4 picture; the byte after begins with its kind
B_PICTURE = 2
SMALL = 19  # bytes: an MPEG-4 packet of no more holds a picture that is not coded, or a place for one that came before


@dataclass(frozen=True)
class Place:
    """Where a video's bytes are: a file, or ``size`` bytes of it from ``start`` on; ``name`` is what errors call it."""

    file: str
    start: int = 0
    size: int | None = None
    name: str = ""

    def __str__(self) -> str:
        return self.name or self.file


@dataclass(frozen=True)
class FrameIndex:
    """The N frames of a video, in the order shown, made from P packets, numbered in the file's order.

    Attributes:
        packet: ``(N,)``, of each frame, the packet that holds it.
        start: ``(N,)``, of each frame, the packet from which to decode so that it comes out exact: the last keyframe
            before it in both orders, for what is shown before a keyframe may be built on frames before that.
        seconds: ``(N,)`` float64, when each is shown in player time: from the beginning of the file, where another
            stream may start before the first frame.
        names: ``(P,)``, the timestamps that tell packets apart after a seek; None where they don't.
        by_dts: whether names are times of decoding, not of showing.
        seeks: ``(P,)``, the timestamps to seek to for them.
    """

    packet: Ints
    start: Ints
    seconds: NDArray[np.float64]
    names: Ints | None
    by_dts: bool
    seeks: Ints


def open_video(place: Place) -> tuple[InputContainer, VideoStream]:
    """Opens a file; gives it with its first video stream.

    Raises:
        SeqclfError: PyAV is not installed; the file is missing, empty, an image, no video, or of an unknown codec.
    """
    try:
        import av
    except ImportError:
        raise SeqclfError(f"{place}: video files are read by PyAV: pip install 'seqclf[video]'") from None
    path = Path(place.file)
    if not path.exists():
        raise SeqclfError(f"{place}: there is no such file")
    if not path.is_file():
        raise SeqclfError(f"{place}: a video file was expected, and this is no file")
    if (path.stat().st_size if place.size is None else place.size) == 0:
        raise SeqclfError(f"{place}: the file is empty, a video was expected")
    url = f"file:{path}"  # the prefix, as a name may hold a colon
    if place.size is not None:
        url = f"subfile,,start,{place.start},end,{place.start + place.size},,:{url}"
    try:
        container = av.open(url, metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        with open(path, "rb") as file:
            file.seek(place.start)
            head = file.read(12)
        begins = head[4:8] == b"ftyp" or head.startswith((b"\x1aE\xdf\xa3", b"RIFF"))
        cut = ": it begins as one, and is cut off or damaged" if begins else ""
        raise SeqclfError(f"{place}: this can't be read as a video ({error.strerror}){cut}") from None
    form = container.format.name
    if form.endswith("_pipe") or form in ("image2", "tty"):  # FFmpeg takes images, and text, for videos too
        what = "text" if form == "tty" else f"an image ({form.removesuffix('_pipe')})"
        raise SeqclfError(f"{place}: a video file was expected, and this is {what}")
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:  # the cover of an album
            if stream.codec_context is None:
                raise SeqclfError(f"{place}: FFmpeg has no decoder for this video")
            stream.codec_context.thread_count = 1  # the workers are the threads; and a fork is safe without any
            return container, stream
    raise SeqclfError(f"{place}: the file holds no video ({form})")


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """The packets of a stream from where it is, but for empty ones, which some files have where nothing changes."""
    return (packet for packet in container.demux(stream) if packet.size)


def decode(codec: VideoCodecContext, packets: Iterable[tuple[int, Packet[VideoStream]]]) -> Frames:
    """The frames in the order shown, each with the number of the packet it came from; None where one is damaged.

    A decoder hands a packet's timestamp on to its frame, through all reordering and whatever the container said; so the
    packet's number is put in the timestamp's place. A frame that belongs to no packet has the number -1.
    """
    from av import FFmpegError

    for number, packet in chain(packets, [(-1, None)]):
        frames: list[VideoFrame] = []
        damaged = packet is not None and packet.is_corrupt
        if not damaged:
            if packet is not None:
                packet.pts = number
            try:
                frames = codec.decode(packet)
            except FFmpegError:
                damaged = True
        if damaged:
            yield number, None
        for frame in frames:
            yield -1 if frame.pts is None else frame.pts, None if frame.is_corrupt else frame


def index_frames(place: Place) -> FrameIndex:
    """Reads a file's packets; decodes none of them, unless the file does not say in which order frames are shown.

    Raises:
        SeqclfError: as of ``open_video``; the file holds no frame, or is cut off.
    """
    times: list[tuple[int | None, int | None]] = []
    keys, shown, pictures = [], [], []
    cut = _matroska_is_cut(place)
    container, stream = open_video(place)
    from av import FFmpegError

    with container:
        forms, codec = set(container.format.name.split(",")), stream.codec_context.codec
        try:
            for packet in packets_of(container, stream):
                times.append((packet.pts, packet.dts))
                keys.append(packet.is_keyframe)
                hidden = codec.name == "vp8" and not bytes(packet)[0] & 0x10
                shown.append(not hidden and not packet.is_discard)  # an edit list discards
                if codec.name == "mpeg4":
                    kinds = [kind[0] >> 6 for kind in PICTURE.findall(bytes(packet))]
                    pictures.append((packet.size <= SMALL, kinds))
                    keys[-1] &= len(kinds) == 1  # what is packed with a keyframe would come out in a wrong place
                cut_here = packet.is_corrupt
        except (FFmpegError, IndexError) as error:  # the latter is PyAV's, where damage lets a stream begin in between
            why = getattr(error, "strerror", "a stream in it begins late")
            raise SeqclfError(f"{place}: the file is damaged after {len(times)} frames ({why})") from None
        if not times:
            raise SeqclfError(f"{place}: the video holds no frame")
        if "mov" in forms:
            cut |= len(times) < sum(entry.size > 0 for entry in stream.index_entries)
        if cut or cut_here:
            raise SeqclfError(f"{place}: the file is cut off, after {len(times) - cut_here} frames")
        tick, rate = float(stream.time_base or 0), float(stream.guessed_rate or 25)
        begin = max(0.0, (container.start_time or 0) / 1_000_000)  # the earliest stream's

    pts, dts = (_distinct(column) for column in zip(*times, strict=True))
    order = None
    plain = all(not small and len(kinds) == 1 for small, kinds in pictures)
    if forms & TIMED and plain and pts is not None and keys[0] and pts[0] == pts.min():
        order = np.argsort(pts)
    elif "avi" in forms and codec.name == "mpeg4":
        order = _order_of_pictures(pictures)
    elif "avi" in forms and not codec.reorder:
        order = np.arange(len(times))
    if order is None:
        order = _order_of_decoding(place)
    packet_of = order[np.array(shown)[order]]
    if not len(packet_of):
        raise SeqclfError(f"{place}: the video holds no frame")

    by_dts = "avi" in forms or pts is None  # AVI's times of showing are FFmpeg's guesses
    names = dts if by_dts else pts
    clock = np.arange(len(times)) / rate if names is None else names * tick
    seconds = np.sort(clock[packet_of])
    timed = pts is not None and not by_dts
    seconds += (max(0.0, float(seconds[0]) - begin) if timed else 0.0) - seconds[0]
    seeks = [p or 0 if d is None else d for p, d in times]
    return FrameIndex(packet_of, _starts(packet_of, order, keys), seconds, names, by_dts, np.array(seeks, np.int64))


def _distinct(times: tuple[int | None, ...]) -> Ints | None:
    """The timestamps as an array, if all are known and no two equal."""
    known = np.array([time for time in times if time is not None], np.int64)
    return known if len(np.unique(known)) == len(times) else None


def _starts(packet_of: Ints, order: Ints, keys: list[bool]) -> Ints:
    """From which packet to decode each frame; from packet 0 on everything comes out."""
    rank = np.full(len(keys), len(keys))
    rank[order] = np.arange(len(order))
    rank[0] = -1
    key = np.flatnonzero([True, *keys[1:]])
    which = np.searchsorted(key, packet_of, side="right") - 1
    while (late := rank[key[which]] > rank[packet_of]).any():
        which -= late
    return key[which]


def _order_of_pictures(pictures: list[tuple[bool, list[int]]]) -> Ints | None:
    """The packets of MPEG-4 in AVI, which has no times of showing, in the order shown; None where it can't be told.

    A B-picture is shown at once, another when the next such comes. Where several are packed into one packet, the
    decoder shows one and keeps the others for the packets after, the last of which is small and holds nothing itself.
    """
    order: list[int] = []
    held: list[int] = []
    waiting: list[int] = []
    for number, (small, kinds) in enumerate(pictures):
        if not (small and waiting):
            waiting += [] if small else kinds
        kind = waiting.pop(0) if waiting else None
        if kind is None or len(waiting) > 1 or (kind == B_PICTURE and not order):
            return None
        if kind == B_PICTURE:
            order.append(number)
        else:
            order += held
            held = [number]
    return None if waiting else np.array(order + held)


def _order_of_decoding(place: Place) -> Ints:
    """The packets in the order in which a decoder gives their frames, the whole file through."""
    container, stream = open_video(place)
    with container:
        order: list[int] = []
        for number, frame in decode(stream.codec_context, enumerate(packets_of(container, stream))):
            if order or frame is not None:  # before its first frame a stream may begin in the middle of things
                order.append(number)
    if len(set(order)) < len(order) or -1 in order:
        raise SeqclfError(
            f"{place}: its frames can't be told apart: convert it to another format (such as H.264 in MP4)"
        )
    return np.array(order, np.int64)


def _matroska_is_cut(place: Place) -> bool:
    """Whether a Matroska file is shorter than it says; FFmpeg reads what there is, and is silent."""
    try:
        with open(place.file, "rb") as file:
            there = os.fstat(file.fileno()).st_size if place.size is None else place.size
            file.seek(place.start)
            head = file.read(128)
    except OSError:
        return False
    at = head.find(b"\x18\x53\x80\x67") + 4  # the segment, which holds all but the head
    if not head.startswith(b"\x1a\x45\xdf\xa3") or at < 4 or at >= len(head) or not head[at]:
        return False
    width = 9 - head[at].bit_length()
    size = int.from_bytes(head[at : at + width], "big") & (1 << 7 * width) - 1
    return size != (1 << 7 * width) - 1 and at + width + size > there
