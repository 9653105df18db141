"""What the packets of a video file tell without being decoded."""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from seqclf.batch import SeqclfError
from seqclf.data.video.container import (
    Opened,
    Place,
    begin_of,
    format_and_stream,
    number_of_stream,
    open_container,
    packets_of,
)
from seqclf.data.video.matroska import matroska_structure

if TYPE_CHECKING:
    from av import Packet
    from av.container import InputContainer
    from av.video.stream import VideoStream

PICTURE = re.compile(b"\x00\x00\x01\xb6(.)", re.DOTALL)
"""An MPEG-4 picture; the byte after its start code begins with its kind."""
SMALL = 19
"""An MPEG-4 packet of at most so many bytes holds no coded picture: it repeats one, or stands for an earlier one."""


@dataclass
class Scan:
    """The P packets of a video stream.

    Attributes:
        forms: the names of the container's format.
        codec: the name of the codec.
        reorders: whether the codec reorders frames.
        times: for each packet, when it is shown and when it is decoded, in ticks; None where unknown.
        keys: for each packet, whether it is a keyframe.
        shown: for each packet, whether it is shown.
        corrupt: for each packet, whether it is flagged as corrupt.
        pictures: for each MPEG-4 packet, whether it is small, and the kinds of its pictures.
        delays: whether the decoder of this video delays frames, because others may be shown before them.
        carries: whether packets carry a palette or a header, which all later ones need.
        tick: seconds per tick.
        rate: frames per second.
        begin: when the earliest stream of the file starts, in seconds.
        fault: why packets are missing at the end; None where none are.
        lost: why packets are missing at unknown places; None where none are.
        streams: the number of video streams in the file.
        stream: the number of this one among them.
        known: the format of the file, and which stream is read, see ``format_and_stream``.
    """

    forms: set[str]
    codec: str
    reorders: bool
    times: list[tuple[int | None, int | None]] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    corrupt: list[bool] = field(default_factory=list)
    pictures: list[tuple[bool, list[int]]] = field(default_factory=list)
    delays: bool = False
    carries: bool = False
    tick: float = 0.0
    rate: float = 0.0
    begin: float = 0.0
    fault: str | None = None
    lost: str | None = None
    streams: int = 1
    stream: int = 0
    known: tuple[str, int] | None = None

    def add(self, packet: Packet[VideoStream]) -> None:
        """Notes a packet."""
        self.times.append((packet.pts, packet.dts))
        self.keys.append(packet.is_keyframe)
        hidden = self.codec == "vp8" and not bytes(packet)[0] & 0x10
        self.shown.append(not hidden and not packet.is_discard)  # an edit list discards
        self.corrupt.append(packet.is_corrupt)
        self.carries |= packet.has_sidedata("palette") or packet.has_sidedata("new_extradata")
        if self.codec == "mpeg4":
            kinds = [kind[0] >> 6 for kind in PICTURE.findall(bytes(packet))]
            self.pictures.append((packet.size <= SMALL, kinds))
            self.keys[-1] &= len(kinds) == 1  # a picture packed with a keyframe would be shown in a wrong place

    def jumps(self) -> list[int]:
        """The packets where timestamps jump back, as they do where files were joined."""
        known = [(k, dts) for k, (_, dts) in enumerate(self.times) if dts is not None]
        return [k for (_, before), (k, dts) in pairwise(known) if dts < before]


def scan_packets(place: Place, opened: Opened | None = None) -> Scan:
    """Reads all packets of a file.

    Args:
        place: the file.
        opened: the open file, at its beginning, which is closed afterwards; None to open it.

    Raises:
        SeqclfError: as in ``open_container``; the video has no frame.
    """
    fault, lost = _fault_of_matroska(place)
    container, stream = opened or open_container(place)
    from av import FFmpegError

    with container:
        codec = stream.codec_context.codec
        scan = Scan(set(container.format.name.split(",")), codec.name, bool(codec.reorder))
        try:
            for packet in packets_of(container, stream):
                scan.add(packet)
        except (FFmpegError, IndexError) as error:  # PyAV raises an IndexError where a new stream begins after damage
            why = getattr(error, "strerror", "a stream begins in its middle")
            fault = f"the file is damaged ({why})"
        if not scan.times:
            raise SeqclfError(f"{place}: the video has no frame" + (f": {fault}" if fault else ""))
        if "mov" in scan.forms and len(scan.times) < sum(entry.size > 0 for entry in stream.index_entries):
            fault = fault or "the file is cut off"
        if scan.corrupt[-1]:
            fault = fault or "the file is cut off"
        if fault is None and "avi" in scan.forms:
            fault, lost = _missing_in_avi(place, scan, stream)
        scan.lost = lost
        _describe(scan, container, stream)
    if fault is not None:
        scan.fault = f"{fault} after {len(scan.times) - scan.corrupt[-1]} frames"
    return scan


def _describe(scan: Scan, container: InputContainer, stream: VideoStream) -> None:
    scan.tick, scan.rate = float(stream.time_base or 0), float(stream.guessed_rate or 25)
    scan.streams, scan.stream = number_of_stream(container, stream)
    scan.known = format_and_stream((container, stream))
    scan.begin, scan.delays = begin_of(container), bool(stream.codec_context.has_b_frames)


def _missing_in_avi(place: Place, scan: Scan, stream: VideoStream) -> tuple[str | None, str | None]:
    """Why packets of an AVI file are missing at its end, and why at unknown places.

    FFmpeg skips damaged parts of an AVI file without an error, and counts the packets that are left. The index at the
    end of the file holds the right number, or else the header.
    """
    with open(place.file, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        end = len(data) if place.size is None else place.start + place.size
        at = data.rfind(b"idx1", place.start, end)
        entries = at + 8, at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        if at >= 0 and entries[1] <= end:
            ids = tuple(b"%02d%s" % (stream.index, kind) for kind in (b"dc", b"db"))
            index = data[entries[0] : entries[1]]
            count = sum(index[k : k + 4] in ids and any(index[k + 12 : k + 16]) for k in range(0, len(index) - 15, 16))
            if count > len(scan.times):
                return None, f"{count - len(scan.times)} of {count} frames are missing"
            return None, None
        cut = place.start + 8 + int.from_bytes(data[place.start + 4 : place.start + 8], "little") > end
    newest = max((dts for _, dts in scan.times if dts is not None), default=len(scan.times) - 1)
    if stream.frames <= newest + 1:
        return None, None
    if cut:
        return "the file is cut off", None
    return None, f"{stream.frames - newest - 1} of {stream.frames} frames are missing, and so is the index"


def _fault_of_matroska(place: Place) -> tuple[str | None, str | None]:
    """Why frames are missing at the end of a Matroska file, and why at unknown places.

    FFmpeg reads a file that is shorter than its header says without an error, skips damaged blocks, and of files joined
    end to end reads the first two.
    """
    found = matroska_structure(place)
    if found.pieces > 2:
        return None, f"{found.pieces} Matroska files are joined, and FFmpeg reads two of them"
    if found.damaged:
        return None, "the file is damaged, and frames may be missing"
    return ("the file is cut off" if found.cut else None), None
