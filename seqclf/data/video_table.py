"""Reads the packets of an MP4 file from the tables in its header, so that an index needs no pass over the file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from seqclf.data.video_container import Place
from seqclf.data.video_scan import SMALL

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

Ints: TypeAlias = NDArray[np.int64]
CODECS = {"h264", "hevc", "mpeg4"}
"""Codecs for which a packet of FFmpeg is a sample of the file, and holds one frame that is shown."""
KEY, DISCARD = 1, 2
"""FFmpeg's flags of a sample."""


class Table(NamedTuple):
    """The P samples of a track.

    Attributes:
        shown: ``(P,)``, when each is shown, in ticks.
        decoded: ``(P,)``, when each is decoded.
        keys: ``(P,)`` bool, which are keyframes.
    """

    shown: Ints
    decoded: Ints
    keys: NDArray[np.bool_]


def read_table(place: Place, container: InputContainer, stream: VideoStream) -> Table | None:
    """Reads the samples of an open file; None if the header may not describe all packets.

    None is returned for other containers, fragments, edit lists that remove frames, packed pictures, truncated files,
    and times that are not unique.
    """
    codec, entries = stream.codec_context, stream.index_entries
    if (
        "mov" not in container.format.name.split(",")
        or codec.name not in CODECS
        or not 0 < len(entries) == stream.frames
    ):
        return None
    samples = np.array([(entry.pos, entry.size, entry.timestamp, entry.flags) for entry in entries], np.int64)
    position, size, decoded, flags = samples.T
    with open(place.file, "rb") as file:
        end = Path(place.file).stat().st_size - place.start if place.size is None else place.size
        offsets = _offsets(file, place.start, place.start + end, stream.id)
        file.seek(place.start + int(position[0]))
        first = file.read(int(size[0])) if codec.name == "mpeg4" else b""
    packed = b"DivX" in first or b"DivX" in (codec.extradata or b"")
    smallest = SMALL if codec.name == "mpeg4" else 0
    if packed or offsets is None or size.min() <= smallest or (position + size).max() > end:
        return None
    if (flags & DISCARD).any() or not flags[0] & KEY or (np.diff(decoded) <= 0).any():
        return None
    if len(offsets) not in (0, len(entries)) or (offsets < 0).any():
        return None
    shown = decoded + offsets if len(offsets) else decoded
    in_order = np.sort(shown)
    if shown[0] != in_order[0] or (np.diff(in_order) == 0).any():
        return None
    return Table(shown, decoded, (flags & KEY).astype(bool))


def _offsets(file: IO[bytes], start: int, end: int, track: int) -> Ints | None:
    """The delay from decoding to display of each sample of a track; empty if there are none, None without the track."""
    tracks = [
        (at, after)
        for kind, *header in _boxes(file, start, end)
        if kind == b"moov"
        for kind, at, after in _boxes(file, *header)
        if kind == b"trak" and _track_number(file, at, after) == track
    ]
    return _delays(file, *tracks[0]) if len(tracks) == 1 else None


def _track_number(file: IO[bytes], start: int, end: int) -> int:
    content = _content(file, start, end, b"tkhd")
    at = 20 if content[:1] == b"\x01" else 12  # after two times of 8 or 4 bytes
    return int.from_bytes(content[at : at + 4], "big")


def _delays(file: IO[bytes], start: int, end: int) -> Ints:
    content = _content(file, start, end, b"mdia", b"minf", b"stbl", b"ctts")
    runs = np.frombuffer(content[8 : 8 + 8 * int.from_bytes(content[4:8], "big")], ">i4").reshape(-1, 2)
    return np.repeat(runs[:, 1], runs[:, 0]).astype(np.int64)


def _content(file: IO[bytes], start: int, end: int, *path: bytes) -> bytes:
    """The content of the box at a path; empty if there is none."""
    for kind, at, after in _boxes(file, start, end):
        if kind == path[0]:
            if path[1:]:
                return _content(file, at, after, *path[1:])
            file.seek(at)
            return file.read(after - at)
    return b""


def _boxes(file: IO[bytes], start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields the kind of each box between two offsets in a file, and where its content begins and ends."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        size, content = int.from_bytes(head[:4], "big"), start + 8
        if size == 1:
            size, content = int.from_bytes(head[8:], "big"), start + 16
        after = end if size == 0 else start + size
        if not content <= after <= end:
            return
        yield head[4:8], content, after
        start = after
