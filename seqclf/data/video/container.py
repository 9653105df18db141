"""Opens a video file, and demuxes and decodes one of its video streams."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from stat import S_ISREG
from typing import TYPE_CHECKING, Any, TypeAlias

from seqclf.batch import SeqclfError
from seqclf.runtime.packages import optional_import
from seqclf.runtime.text import counted

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

Frames: TypeAlias = "Iterator[tuple[int, VideoFrame | None]]"
Opened: TypeAlias = "tuple[InputContainer, VideoStream]"


@dataclass(frozen=True)
class Place:
    """Where a video is stored: in a file, or in ``size`` bytes of it that begin at ``start``.

    Attributes:
        file: the path of the file.
        start: the first byte.
        size: the number of bytes; None for the whole file.
        name: the name in error messages; "" for the path.
        stream: which video stream of the file, from 0 (FFmpeg's ``v:<n>``); None for the one that FFmpeg chooses.
    """

    file: str
    start: int = 0
    size: int | None = None
    name: str = ""
    stream: int | None = None

    def __str__(self) -> str:
        return self.name or self.file


def open_container(place: Place, known: tuple[str, int] | None = None) -> Opened:
    """Opens a file.

    Args:
        place: the file.
        known: what ``format_and_stream`` returned, which saves finding the format and choosing the stream again.

    Returns:
        the open file, and its chosen video stream.

    Raises:
        SeqclfError: PyAV is not installed; the file is missing, empty, or not a video; there is no such stream, or no
            decoder for it.
    """
    with optional_import("video", f"{place}: reading video files needs PyAV"):
        import av
    try:
        found = os.stat(place.file)
    except (OSError, ValueError):
        raise SeqclfError(f"{place}: no such file") from None
    if not S_ISREG(found.st_mode):
        raise SeqclfError(f"{place}: not a file; a video file was expected")
    if (found.st_size if place.size is None else place.size) == 0:
        raise SeqclfError(f"{place}: the file is empty; a video was expected")
    url = f"file:{place.file}"  # without the prefix, a colon in a name would end the name of a protocol
    if place.size is not None:
        url = f"subfile,,start,{place.start},end,{place.start + place.size},,:{url}"
    try:
        container = open_input(url, known and known[0])
    except (av.FFmpegError, OSError) as error:
        with open(place.file, "rb") as file:
            file.seek(place.start)
            head = file.read(12)
        is_video = head[4:8] == b"ftyp" or head.startswith((b"\x1aE\xdf\xa3", b"RIFF"))
        hint = "; it begins like a video, and is cut off or damaged" if is_video else ""
        if place.file.lower().endswith((".csv", ".json", ".tsv", ".txt")):
            hint = "; a list of videos is given as list_file= (--list)"
        raise SeqclfError(f"{place}: can't be read as a video ({error.strerror}){hint}") from None
    stream = container.streams.video[known[1]] if known else choose_stream(str(place), container, place.stream)
    stream.codec_context.thread_count = 1  # readers are threads themselves, and a fork is safe without others
    return container, stream


def format_and_stream(opened: Opened) -> tuple[str, int]:
    """The name of the format of an open file, and the number of the chosen stream among all video streams."""
    container, stream = opened
    return container.format.name.split(",")[0], container.streams.video.index(stream)


def open_input(place: Any, *args: Any, **kwargs: Any) -> InputContainer:
    """``av.open`` for reading, which also accepts files whose metadata is not UTF-8."""
    import av
    from av.container import InputContainer

    if hasattr(InputContainer, "metadata_errors"):  # PyAV before 19, which refuses such files by default
        kwargs["metadata_errors"] = "replace"
    container: InputContainer = av.open(place, "r", *args, **kwargs)
    return container


def choose_stream(place: str, container: InputContainer, number: int | None) -> VideoStream:
    """The video stream of this number, from 0, or FFmpeg's choice for None; errors as in ``open_container``."""
    form = container.format.name
    if form.endswith("_pipe") or form in ("image2", "tty"):  # FFmpeg opens pictures and text, too
        what = "text" if form == "tty" else f"a picture ({form.removesuffix('_pipe')})"
        raise SeqclfError(f"{place}: is {what}; a video file was expected")
    streams = video_streams(container)
    if not streams:
        raise SeqclfError(f"{place}: has no video stream ({form})")
    if number is not None and not 0 <= number < len(streams):
        raise SeqclfError(f"{place}: stream={number}: the file has {counted(len(streams), 'video stream')}, from 0")
    choice = streams if number is None else streams[number : number + 1]
    stream = max(choice, key=_preference) if len(choice) > 1 else choice[0]
    if stream.codec_context is None:
        raise SeqclfError(f"{place}: FFmpeg has no decoder for this video")
    return stream


def video_streams(container: InputContainer) -> list[VideoStream]:
    """The video streams of a file, without cover pictures."""
    from av.stream import Disposition

    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


def number_of_stream(container: InputContainer, stream: VideoStream) -> tuple[int, int]:
    """The number of video streams of a file, and which of them this is, from 0."""
    if len(container.streams.video) == 1:
        return 1, 0
    streams = video_streams(container)
    return len(streams), [other.index for other in streams].index(stream.index)


def begin_of(container: InputContainer) -> float:
    """When the earliest stream of a file starts, in seconds."""
    return max(0.0, (container.start_time or 0) / 1_000_000)


def several_streams(place: str, count: int, number: int) -> str:
    """A note on which of the video streams of a file is read."""
    return f"{place}: has {count} video streams; stream {number} is read"


def _preference(stream: VideoStream) -> int:
    """The score by which the program ffmpeg chooses a video stream: the default one, then the largest."""
    from av.stream import Disposition

    default = bool(stream.disposition & Disposition.default)
    width, height = (getattr(stream, name, None) or 0 for name in ("width", "height"))  # PyAV: none without a decoder
    return 5_000_000 * default + int(width) * int(height)


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """The packets of a stream from the current position on, without empty ones."""
    return (packet for packet in container.demux(stream) if packet.size)


def until_fault(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """The packets that ``packets_of`` gives before the first one that can't be read."""
    from av import FFmpegError

    try:
        yield from packets_of(container, stream)
    except (FFmpegError, IndexError):  # PyAV raises an IndexError where a new stream begins after damage
        return


def decode(
    codec: VideoCodecContext, packets: Iterable[tuple[int, Packet[VideoStream]]], trusted: Container[int] = ()
) -> Frames:
    """Decodes packets.

    A decoder passes the timestamp of a packet on to its frame, however it reorders them. So the number of the packet
    replaces its timestamp.

    Args:
        codec: the decoder.
        packets: the packets with their numbers.
        trusted: numbers of packets that are decoded although they are flagged as corrupt.

    Yields:
        the frames in display order, each with the number of its packet, or -1 for a frame without one. A damaged frame
        is None; it comes when its packet is decoded, not in display order.
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


def decode_all(place: Place, trusted: Container[int] = ()) -> Frames:
    """Decodes a whole file; see ``decode``.

    Raises:
        SeqclfError: frames differ in size.
    """
    container, stream = open_container(place)
    first: tuple[int, int] | None = None
    with container:
        packets = enumerate(until_fault(container, stream))
        for place_in_order, (number, frame) in enumerate(decode(stream.codec_context, packets, trusted)):
            if frame is not None:
                first = first or (frame.width, frame.height)
                expect_size(place, place_in_order, (frame.width, frame.height), first)
            yield number, frame


def expect_size(place: Place, number: int, size: tuple[int, int], first: tuple[int, int]) -> None:
    """Raises a ``SeqclfError`` for a frame whose size, width and height, is not that of the first frame."""
    if size != first:
        raise SeqclfError(
            f"{place}: frame {number} is {size[0]}x{size[1]}, but the first frame is {first[0]}x{first[1]}; "
            "all frames of a video must have the same size"
        )
