"""Which frames a video file holds, in the order they are shown, and from which of its packets each is decoded."""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, pairwise
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
    """Where a video is: a file, or ``size`` bytes of it from ``start`` on.

    Attributes:
        name: what errors call it; "" for the file.
        stream: which of the file's video streams, counted from 0 (FFmpeg's ``v:<n>``); None for the one that FFmpeg
            chooses by itself.
    """

    file: str
    start: int = 0
    size: int | None = None
    name: str = ""
    stream: int | None = None

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
        trusted: packets that are flagged as corrupt only because files were joined there.
        intact: numbers of the frames that decode; None where that was not tried.
        fault: why packets end early, or None.
        streams: how many video streams the file has.
    """

    packet: Ints
    start: Ints
    seconds: NDArray[np.float64]
    names: Ints | None
    by_dts: bool
    seeks: Ints
    trusted: frozenset[int] = frozenset()
    intact: Ints | None = None
    fault: str | None = None
    streams: int = 1


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
    streams = video_streams(container)
    if not streams:
        raise SeqclfError(f"{place}: the file has no video ({form})")
    stream = max(streams, key=_preference)
    if place.stream is not None:
        if not 0 <= place.stream < len(streams):
            raise SeqclfError(f"{place}: stream={place.stream}: the file has {len(streams)} video streams, from 0")
        stream = streams[place.stream]
    if stream.codec_context is None:
        raise SeqclfError(f"{place}: FFmpeg has no decoder for this video")
    stream.codec_context.thread_count = 1  # the workers are the threads, and a fork is safe without any
    return container, stream


def video_streams(container: InputContainer) -> list[VideoStream]:
    """The video streams of a file, without the cover pictures of albums."""
    from av.stream import Disposition

    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


def _preference(stream: VideoStream) -> int:
    """By which the program ffmpeg chooses among video streams: the largest picture, or one marked as the default."""
    from av.stream import Disposition

    default = bool(stream.disposition & Disposition.default)
    return 5_000_000 * default + int(stream.width or 0) * int(stream.height or 0)


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """The packets of a stream from where it is, but for empty ones, which some files have where nothing changes."""
    return (packet for packet in container.demux(stream) if packet.size)


def decode(
    codec: VideoCodecContext, packets: Iterable[tuple[int, Packet[VideoStream]]], trusted: Container[int] = ()
) -> Frames:
    """The frames in display order, each with the number of the packet it came from; None where one is damaged.

    A decoder hands a packet's timestamp on to its frame, through all reordering and whatever the container says. So the
    packet's number is put in the timestamp's place. A frame that belongs to no packet has the number -1.

    Args:
        trusted: numbers of packets that are decoded although they are flagged as corrupt.
    """
    from av import FFmpegError

    for number, packet in chain(packets, [(-1, None)]):
        frames: list[VideoFrame] = []
        damaged = packet is not None and packet.is_corrupt and number not in trusted
        if not damaged:
            if packet is not None:
                packet.pts = number
            try:
                frames = codec.decode(packet)
            except MemoryError:
                raise
            except FFmpegError:
                damaged = True
        if damaged:
            yield number, None
        for frame in frames:
            yield -1 if frame.pts is None else frame.pts, None if frame.is_corrupt else frame


@dataclass
class _Scan:
    """What a file's P packets say without being decoded.

    Attributes:
        times: of each packet, when it is shown and when it is decoded, in ticks; None where unknown.
        keys, shown, corrupt: of each packet, whether it is a keyframe, shown, and flagged as corrupt.
        pictures: of each MPEG-4 packet, whether it is small, and the kinds of its pictures.
        forms, codec, reorders: the container's formats, the codec, and whether it reorders frames.
        tick, rate: seconds per tick, frames per second.
        begin: when the earliest stream of the file starts, in seconds.
        fault: why the packets end early, or None.
        streams: how many video streams the file has.
    """

    forms: set[str]
    codec: str
    reorders: bool
    times: list[tuple[int | None, int | None]] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    corrupt: list[bool] = field(default_factory=list)
    pictures: list[tuple[bool, list[int]]] = field(default_factory=list)
    tick: float = 0.0
    rate: float = 0.0
    begin: float = 0.0
    fault: str | None = None
    streams: int = 1

    def jumps(self) -> list[int]:
        """The packets at which timestamps jump back, as where files were joined end to end."""
        known = [(k, dts) for k, (_, dts) in enumerate(self.times) if dts is not None]
        return [k for (_, before), (k, dts) in pairwise(known) if dts < before]


def _scan(place: Place) -> _Scan:
    """Reads all packets of a file; errors as of ``open_video``."""
    fault = "the file is cut off" if _matroska_is_cut(place) else None
    container, stream = open_video(place)
    from av import FFmpegError

    with container:
        codec = stream.codec_context.codec
        scan = _Scan(set(container.format.name.split(",")), codec.name, bool(codec.reorder))
        try:
            for packet in packets_of(container, stream):
                scan.times.append((packet.pts, packet.dts))
                scan.keys.append(packet.is_keyframe)
                hidden = codec.name == "vp8" and not bytes(packet)[0] & 0x10
                scan.shown.append(not hidden and not packet.is_discard)  # an edit list discards
                scan.corrupt.append(packet.is_corrupt)
                if codec.name == "mpeg4":
                    kinds = [kind[0] >> 6 for kind in PICTURE.findall(bytes(packet))]
                    scan.pictures.append((packet.size <= SMALL, kinds))
                    scan.keys[-1] &= len(kinds) == 1  # what is packed with a keyframe would come out in a wrong place
        except (FFmpegError, IndexError) as error:  # PyAV's IndexError: after damage a new stream begins
            why = getattr(error, "strerror", "a stream in it begins late")
            fault = f"the file is damaged ({why})"
        if not scan.times:
            raise SeqclfError(f"{place}: the video has no frame" + (f": {fault}" if fault else ""))
        if "mov" in scan.forms and len(scan.times) < sum(entry.size > 0 for entry in stream.index_entries):
            fault = fault or "the file is cut off"
        if scan.corrupt[-1]:
            fault = fault or "the file is cut off"
        scan.tick, scan.rate = float(stream.time_base or 0), float(stream.guessed_rate or 25)
        scan.streams = len(video_streams(container))
        scan.begin = max(0.0, (container.start_time or 0) / 1_000_000)
    if fault is not None:
        scan.fault = f"{fault} after {len(scan.times) - scan.corrupt[-1]} frames"
    return scan


def index_frames(place: Place, skip_damaged: bool = False) -> FrameIndex:
    """Reads a file's packets. Decodes none of them, unless the file does not say in which order frames are shown.

    Args:
        skip_damaged: decode the whole file, to know which frames are intact.

    Raises:
        SeqclfError: as of ``open_video``; the file has no frame; it is cut off, or damaged so that packets are missing,
            and ``skip_damaged`` is False.
    """
    scan = _scan(place)
    if scan.fault is not None and not skip_damaged:
        raise SeqclfError(f'{place}: {scan.fault}; on_error="skip_frames" reads what is intact')
    jumps = scan.jumps()
    trusted = frozenset(k for jump in jumps for k in range(jump - 3, jump + 1) if k >= 0 and scan.corrupt[k])
    pts, dts = (None, None) if jumps else (_distinct(column) for column in zip(*scan.times, strict=True))
    order = _order(place, scan, pts, trusted)
    packet_of = order[np.array(scan.shown)[order]]
    if not len(packet_of):
        raise SeqclfError(f"{place}: the video has no frame")
    by_dts = "avi" in scan.forms or pts is None  # AVI's times of showing are FFmpeg's guesses
    names = dts if by_dts else pts
    starts = _starts(packet_of, order, scan.keys)
    seeks = np.array([p or 0 if d is None else d for p, d in scan.times], np.int64)
    seconds = _seconds(scan, packet_of, names, by_dts)
    index = FrameIndex(packet_of, starts, seconds, names, by_dts, seeks, trusted, streams=scan.streams)
    return replace(index, intact=_intact(place, index), fault=scan.fault) if skip_damaged else index


def _order(place: Place, scan: _Scan, pts: Ints | None, trusted: Container[int]) -> Ints:
    """The packets in the order in which their frames are shown."""
    order = None
    plain = all(not small and len(kinds) == 1 for small, kinds in scan.pictures)
    if scan.forms & TIMED and plain and pts is not None and scan.keys[0] and pts[0] == pts.min():
        order = np.argsort(pts)
    elif "avi" in scan.forms and scan.codec == "mpeg4":
        order = _order_of_pictures(scan.pictures)
    elif "avi" in scan.forms and not scan.reorders:
        order = np.arange(len(scan.times))
    return _order_of_decoding(place, trusted) if order is None else order


def _seconds(scan: _Scan, packet_of: Ints, names: Ints | None, by_dts: bool) -> NDArray[np.float64]:
    """When each frame is shown, in player time; where timestamps jump back, one frame's time after the one before."""
    if names is not None:
        seconds = np.sort((names * scan.tick)[packet_of])
        late = 0.0 if by_dts else max(0.0, float(seconds[0]) - scan.begin)
        return seconds - seconds[0] + late
    shown = [scan.times[k][0] for k in packet_of]
    if any(time is None for time in shown):
        return np.arange(len(packet_of)) / scan.rate
    steps = np.diff(np.array(shown, np.float64) * scan.tick)
    return np.concatenate([[0.0], np.cumsum(np.where(steps > 0, steps, 1 / scan.rate))])


def _intact(place: Place, index: FrameIndex) -> Ints:
    """The numbers of the frames that decode, and are built on such frames alone."""
    container, stream = open_video(place)
    number_of = np.full(len(index.seeks), -1)  # of each packet, the number of its frame
    number_of[index.packet] = np.arange(len(index.packet))
    came = np.zeros(len(index.packet), bool)
    faults, newest = set(), -1
    with container:
        packets = until_fault(packets_of(container, stream))
        for packet, frame in decode(stream.codec_context, enumerate(packets), index.trusted):
            number = -1 if packet < 0 else int(number_of[packet])
            if frame is None:
                faults.add(packet)
            elif number > newest:  # out of order, it would not be found when reading on
                newest = number
                came[number] = True
    faults.update(index.packet[~came].tolist())
    at = np.array(sorted(faults), np.int64)
    clean = np.searchsorted(at, index.start) == np.searchsorted(at, index.packet, side="right")
    intact: Ints = np.flatnonzero(came & clean)
    if not len(intact):
        raise SeqclfError(f"{place}: no frame can be decoded")
    return intact


def until_fault(packets: Iterator[Packet[VideoStream]]) -> Iterator[Packet[VideoStream]]:
    """Packets up to the one that can't be read."""
    from av import FFmpegError

    try:
        yield from packets
    except (FFmpegError, IndexError):
        return


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


def _order_of_decoding(place: Place, trusted: Container[int]) -> Ints:
    """The packets in the order in which a decoder gives their frames, the whole file through."""
    container, stream = open_video(place)
    with container:
        order: list[int] = []
        for number, frame in decode(
            stream.codec_context, enumerate(until_fault(packets_of(container, stream))), trusted
        ):
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
