"""Reads the packets of an MP4 file from the tables in its header, so that an index needs no pass over the file."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from io import FileIO
from itertools import pairwise
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from seqclf.data.video.container import Place
from seqclf.data.video.scan import SMALL

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

Ints: TypeAlias = NDArray[np.int64]
Boxes: TypeAlias = defaultdict[bytes, bytes]
"""The contents of boxes by kind, which is four letters."""
CODECS = {"h264", "hevc", "mpeg4"}
"""Codecs for which a packet of FFmpeg is a sample of the file, and holds one frame that is shown."""
KEY = 1
"""FFmpeg's flag of a keyframe."""
HEAD = Struct(">I4s")
"""The beginning of a box: its size and kind."""
PICTURE = b"\0\0\1\xb6"
"""What a picture of MPEG-4 begins with, after the text of the program that wrote it."""
SPECIAL = {b"stps", b"sbgp"}
"""Tables of samples from which decoding can begin beside the keyframes."""


class Table(NamedTuple):
    """The P samples of a track.

    Attributes:
        shown: ``(P,)``, when each is shown, in ticks.
        decoded: ``(P,)``, when each is decoded.
        keys: ``(P,)`` bool, which are keyframes.
        size: ``(P,)``, the bytes of each.
        place: ``(P,)``, the first byte of each in the file.
    """

    shown: Ints
    decoded: Ints
    keys: NDArray[np.bool_]
    size: Ints
    place: Ints


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
    first = entries[0]
    with FileIO(place.file) as file:

        def read(at: int, size: int) -> bytes:
            file.seek(place.start + at)
            return file.read(size)

        end = os.fstat(file.fileno()).st_size - place.start if place.size is None else place.size
        boxes = {kind: span for kind, *span in _boxes(read, 0, end)}
        if max(after for _, after in boxes.values()) < end or b"moov" not in boxes:  # the last box is cut off
            return None
        at, after = boxes[b"moov"]
        table = _samples(_track(read(at, after - at), stream.id), len(entries))
        start = read(first.pos, first.size) if codec.name == "mpeg4" else b""
    if table is None or start.find(b"DivX", 0, start.find(PICTURE)) >= 0 or b"DivX" in (codec.extradata or b""):
        return None
    shown, decoded = (times + first.timestamp for times in (table.shown, table.decoded))  # an edit list shifts all
    for k in (0, len(entries) // 2, int(shown.argmax()), -1):  # frames that an edit list removes are flagged
        entry = entries[k]
        found = entry.pos, entry.size, entry.timestamp, entry.flags
        if found != (table.place.item(k), table.size.item(k), decoded.item(k), KEY * table.keys.item(k)):
            return None
    if table.size.min() <= (SMALL if codec.name == "mpeg4" else 0) or not table.keys.item(0):
        return None
    return table._replace(shown=shown, decoded=decoded)


def _track(movie: bytes, number: int) -> Boxes:
    """The boxes of a track; none if there is not one with this number, or it has several edits."""
    tracks = [_inside(track) for kind, track in _contents(movie) if kind == b"trak"]
    tracks = [track for track in tracks if _track_number(track[b"tkhd"]) == number]
    return tracks[0] if len(tracks) == 1 and _edits(_inside(tracks[0][b"edts"])[b"elst"]) <= 1 else _inside(b"")


def _track_number(header: bytes) -> int:
    at = 20 if header[:1] == b"\x01" else 12  # after two times of 8 or 4 bytes
    return int.from_bytes(header[at : at + 4], "big")


def _edits(content: bytes) -> int:
    """The number of edits that show frames; of a single edit, it does not matter whether it does."""
    if (count := int.from_bytes(content[4:8], "big")) <= 1:
        return count
    columns = 5 if content[:1] == b"\x01" else 3  # a time of 8 or 4 bytes is in the middle, and below 0 if empty
    return int((_rows(content, columns, ">i4")[:, columns // 2] >= 0).sum())


def _samples(track: Boxes, count: int) -> Table | None:
    """The samples of a track, with times from the first.

    None if the tables do not describe this number of samples, or the times that they are shown at are not unique.
    """
    tables = _inside(_inside(_inside(track[b"mdia"])[b"minf"])[b"stbl"])
    equal = int.from_bytes(tables[b"stsz"][4:8], "big")
    size = np.full(count, equal) if equal else _rows(tables[b"stsz"][4:])[:, 0]
    each = _each(_rows(tables[b"stts"], 2), count)
    starts = _rows(tables[b"stss"])[:, 0]
    if len(size) != count or each is None or starts.max(initial=0) > count or SPECIAL & tables.keys():
        return None
    keys = np.full(count + 1, not tables[b"stss"])
    keys[starts] = True
    shown = decoded = each.cumsum() - each
    if each[:-1].min(initial=1) < 1:
        return None
    if tables[b"ctts"]:
        delays = _each(_rows(tables[b"ctts"], 2, ">i4"), count)
        if delays is None or delays.min() < 0:
            return None
        shown = decoded + delays
        in_order = np.sort(shown)
        if (in_order[1:] == in_order[:-1]).any() or shown[0] != in_order[0]:
            return None
    place = _places(tables, size)
    return None if place is None else Table(shown, decoded, keys[1:], size, place)


def _each(runs: Ints, count: int) -> Ints | None:
    """The value of each sample, from rows of a number of samples and their value; None for other numbers."""
    times, values = runs.T
    return values.repeat(times) if times.sum() == count and times.min() >= 0 else None


def _places(tables: Boxes, size: Ints) -> Ints | None:
    """The first byte of each sample, which lie in a row in chunks."""
    chunks = _rows(tables[b"stco"] or tables[b"co64"], 1, ">u4" if tables[b"stco"] else ">i8")[:, 0]
    rows = _rows(tables[b"stsc"], 3).tolist()  # the first of some chunks, their samples, the number of a description
    runs = [after[0] - row[0] for row, after in pairwise([*rows, [len(chunks) + 1]])]
    if not rows or rows[0][0] != 1 or min(runs) < 1 or any(samples < 1 or number > 1 for _, samples, number in rows):
        return None
    in_chunk = np.repeat([samples for _, samples, _ in rows], runs)
    ends = in_chunk.cumsum()
    if ends[-1] != len(size):
        return None
    before = size.cumsum() - size  # the bytes of all samples before each
    return before + (chunks - before[ends - in_chunk]).repeat(in_chunk)


def _rows(content: bytes, columns: int = 1, kind: str = ">u4") -> Ints:
    """The rows of a table, after its version, its flags and their number."""
    rows = max(0, len(content) - 8) // (columns * int(kind[-1]))
    count = min(int.from_bytes(content[4:8], "big"), rows)
    return np.frombuffer(content, kind, count * columns, 8 if content else 0).astype(np.int64).reshape(-1, columns)


def _inside(content: bytes) -> Boxes:
    """The content of each box in the content of another; empty for a kind that is not there."""
    return defaultdict(bytes, _contents(content))


def _contents(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the kind and the content of each box in the content of another."""
    for kind, at, after in _boxes(lambda at, size: content[at : at + size], 0, len(content)):
        yield kind, content[at:after]


def _boxes(read: Callable[[int, int], bytes], start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields the kind of each box between two places, and where its content begins and ends.

    Args:
        read: a function of a place and a size that returns the bytes there.
        start: the first place.
        end: the last place.
    """
    while (content := start + HEAD.size) <= end:
        size, kind = HEAD.unpack(read(start, HEAD.size))
        if size == 1:
            size, content = int.from_bytes(read(content, 8), "big"), content + 8
        after = start + size if size else end
        if not content <= after <= end:
            return
        yield kind, content, after
        start = after
