"""The structure of Matroska files, by which damage is found that FFmpeg skips without an error.

A file is a tree of elements: an id, a size and a content (RFC 8794; ids of RFC 9559). Damage in an id or a size loses
what follows, and FFmpeg goes on at the next cluster of frames.
"""

from __future__ import annotations

import mmap
import os
from typing import NamedTuple

from seqclf.data.video.container import Place

HEADER, SEGMENT, TRACKS, TRACK, NUMBER = 0x1A45DFA3, 0x18538067, 0x1654AE6B, 0xAE, 0xD7
CLUSTER, SIMPLE_BLOCK, GROUP, BLOCK = 0x1F43B675, 0xA3, 0xA0, 0xA1
ANYWHERE = {0xEC, 0xBF}  # padding and checksums
WITHIN = {
    # seek head, info, cues, tags, chapters, attachments
    SEGMENT: ANYWHERE | {CLUSTER, TRACKS, 0x114D9B74, 0x1549A966, 0x1C53BB6B, 0x1254C367, 0x1043A770, 0x1941A469},
    # time, silent tracks, position, previous size, encrypted block
    CLUSTER: ANYWHERE | {0xE7, 0x5854, 0xA7, 0xAB, GROUP, SIMPLE_BLOCK, 0xAF},
    # duration, references, codec state, padding, additions, slices, virtual block, frame of the original track
    GROUP: ANYWHERE | {BLOCK, 0x9B, 0xFA, 0xFB, 0xFD, 0xA4, 0x75A2, 0x75A1, 0x8E, 0xA2, 0xC8},
}
"""The elements in each kind of element. Damage inside others loses no frame without an error."""


class Structure(NamedTuple):
    """What a file consists of.

    Attributes:
        pieces: the number of Matroska files that are joined end to end; 0 for another format, or a size that is not
            stated.
        cut: whether the file is shorter than it says.
        damaged: whether elements do not fit into each other.
    """

    pieces: int = 0
    cut: bool = False
    damaged: bool = False


def matroska_structure(place: Place) -> Structure:
    """Reads the ids and sizes of a file's elements."""
    try:
        with open(place.file, "rb") as file:
            size = os.fstat(file.fileno()).st_size if place.size is None else place.size
            if file.read(4) and size:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    return _structure(data, place.start, place.start + size)
    except OSError:
        pass
    return Structure()


def _structure(data: mmap.mmap, at: int, end: int) -> Structure:
    pieces, damaged = 0, False
    while at < end:
        head = _element(data, at)
        segment = None if head is None or head[0] != HEADER or head[2] is None else _element(data, head[2])
        if segment is None or segment[0] != SEGMENT or segment[2] is None:
            break
        begin, at, pieces = segment[1], segment[2], pieces + 1
        damaged = damaged or (at <= end and not _fits(data, SEGMENT, begin, at, set()))
    return Structure(pieces, at > end, damaged)


def _fits(data: mmap.mmap, kind: int, at: int, end: int, tracks: set[int]) -> bool:
    """Whether an element's content is a sequence of the elements that it may have, with blocks of known tracks.

    True where a size is not stated. The numbers of tracks are added to ``tracks`` where they are found.
    """
    while at < end:
        element = _element(data, at)
        if element is None or element[0] not in WITHIN[kind]:
            return False
        name, begin, after = element
        if after is None:
            return True
        if after > end or (name in WITHIN and not _fits(data, name, begin, after, tracks)):
            return False
        if name == TRACKS:
            tracks |= _numbers(data, begin, after)
        if name in (SIMPLE_BLOCK, BLOCK) and tracks and _size(data[begin : begin + 8])[0] not in tracks:
            return False
        at = after
    return at == end


def _numbers(data: mmap.mmap, at: int, end: int) -> set[int]:
    """The numbers of the tracks that are described in a part of the file."""
    found = set()
    while at < end and (element := _element(data, at)) is not None and element[2] is not None:
        name, begin, after = element
        if name == NUMBER:
            found.add(int.from_bytes(data[begin:after], "big"))
        at = begin if name == TRACK else element[2]
    return found


def _element(data: mmap.mmap, at: int) -> tuple[int, int, int | None] | None:
    """The id of the element at a place, and where its content begins and ends; None for no element.

    The end is None where the size is not stated, as in live recordings.
    """
    head = data[at : at + 12]
    if len(head) < 2 or head[0] < 0x10:
        return None
    width = 9 - head[0].bit_length()
    if len(head) <= width or not head[width]:
        return None
    size, length = _size(head[width:])
    begin = at + width + length
    return int.from_bytes(head[:width], "big"), begin, None if size is None else begin + size


def _size(content: bytes) -> tuple[int | None, int]:
    """The number that begins a content, and its length in bytes; None for the number that means unknown."""
    length = 9 - content[0].bit_length()
    most = (1 << 7 * length) - 1
    number = int.from_bytes(content[:length], "big") & most
    return None if number == most else number, length
