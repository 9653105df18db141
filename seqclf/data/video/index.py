"""Which frames a video file holds, in display order, and from which packet each of them is decoded."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from seqclf.batch import SeqclfError
from seqclf.data.video.container import Opened, Place, begin_of, decode_all, format_and_stream, number_of_stream
from seqclf.data.video.scan import Scan, scan_packets
from seqclf.data.video.table import read_table

Ints: TypeAlias = NDArray[np.int64]
TIMED = {"mov", "matroska", "webm", "flv", "gif"}
"""Containers that say when each frame is shown."""
B_PICTURE = 2
PROBED = 50
"""The number of frames that are decoded to find out whether ascending times are those of showing."""


@dataclass(frozen=True)
class FrameIndex:
    """The N frames of a video in display order, and their P packets in the order of the file.

    Attributes:
        packet: ``(N,)``, the packet that holds each frame.
        start: ``(N,)``, the packet from which each frame is decoded exactly: the last keyframe before it in both
            orders, since a frame shown before a keyframe may be built on frames before that.
        seconds: ``(N,)`` float64, when each frame is shown in player time: seconds from the beginning of the file,
            where another stream may start before the first frame.
        names: ``(P,)``, the timestamps that identify packets after a seek; None if no packet can be found: timestamps
            are not unique, or packets carry a palette that all later ones need.
        by_dts: whether ``names`` are times of decoding; they are times of showing otherwise.
        seeks: ``(P,)``, the timestamps to seek to.
        trusted: packets that are flagged as corrupt only because files were joined there.
        doubtful: ``(N,)`` bool, frames near damage whose order is not known; None where the order of all is known.
        intact: the numbers of the frames that can be decoded; None where that was not tried.
        fault: why packets are missing at the end; None where none are.
        streams: the number of video streams in the file.
        stream: the number of the one that is read.
        places: ``(2, P)``, the first byte of each packet in the file, and its bytes; None if packets must be searched.
        known: the format of the file, and which stream is read, see ``format_and_stream``.
    """

    packet: Ints
    start: Ints
    seconds: NDArray[np.float64]
    names: Ints | None
    by_dts: bool
    seeks: Ints
    trusted: frozenset[int] = frozenset()
    doubtful: NDArray[np.bool_] | None = None
    intact: Ints | None = None
    fault: str | None = None
    streams: int = 1
    stream: int = 0
    places: Ints | None = None
    known: tuple[str, int] | None = None

    @cached_property
    def number_of(self) -> Ints:
        """``(P,)``, the number of the frame in each packet; -1 for a packet without a frame that is shown."""
        numbers = np.full(len(self.seeks), -1)
        numbers[self.packet] = np.arange(len(self.packet))
        return numbers


def index_of_table(place: Place, opened: Opened) -> FrameIndex | None:
    """Builds the index from the header of an MP4 file; None if the packets must be read."""
    container, stream = opened
    table = read_table(place, container, stream)
    if table is None or _are_of_decoding(place, table.shown, stream.codec_context.has_b_frames):
        return None
    order = np.argsort(table.shown)
    seconds = np.multiply(table.shown[order], float(stream.time_base or 0))
    streams, number = number_of_stream(container, stream)
    return FrameIndex(
        order,
        _starts(order, order, table.keys),
        _player_time(seconds, begin_of(container)),
        table.shown,
        False,
        table.decoded,
        streams=streams,
        stream=number,
        places=np.array([table.place, table.size]),
        known=format_and_stream(opened),
    )


def index_frames(place: Place, skip_damaged: bool = False, opened: Opened | None = None) -> FrameIndex:
    """Reads the packets of a file. None is decoded, unless the file does not say in which order frames are shown.

    Args:
        place: the file.
        skip_damaged: decode the whole file to find out which frames are intact.
        opened: the open file, which is closed afterwards; None to open it.

    Raises:
        SeqclfError: as in ``open_container``; the file has no frame; frames differ in size; packets are missing at
            unknown places; the file is cut off or damaged, and ``skip_damaged`` is False.
    """
    scan = scan_packets(place, opened)
    if scan.lost is not None:
        raise SeqclfError(
            f"{place}: {scan.lost}, so that the numbers of its frames are unreliable; convert the original again"
        )
    if scan.fault is not None and not skip_damaged:
        raise SeqclfError(f'{place}: {scan.fault}; on_error="skip_frames" reads the intact frames')
    jumps = scan.jumps()
    trusted = frozenset(k for jump in jumps for k in range(jump - 3, jump + 1) if k >= 0 and scan.corrupt[k])
    pts, dts = (None, None) if jumps else (_distinct(column) for column in zip(*scan.times, strict=True))
    timed = scan.forms & TIMED and pts is not None and not _are_of_decoding(place, pts, scan.delays)
    order, faults = _order(place, scan, pts if timed else None, trusted)
    packet_of = order[np.array(scan.shown)[order]]
    if not len(packet_of):
        raise SeqclfError(f"{place}: the video has no frame")
    by_dts = "avi" in scan.forms or pts is None  # in AVI, FFmpeg guesses the times of showing
    names = dts if by_dts else pts
    starts = _starts(packet_of, order, np.array(scan.keys))
    index = FrameIndex(
        packet_of,
        starts,
        _seconds(scan, packet_of, names, by_dts),
        None if scan.carries else names,
        by_dts,
        np.array([p or 0 if d is None else d for p, d in scan.times], np.int64),
        trusted,
        _doubtful(starts, faults),
        streams=scan.streams,
        stream=scan.stream,
        known=scan.known,
    )
    return replace(index, intact=_intact(place, index), fault=scan.fault) if skip_damaged else index


def _order(place: Place, scan: Scan, pts: Ints | None, trusted: Container[int]) -> tuple[Ints, list[int]]:
    """The packets in display order, and the damaged ones among them if the order comes from decoding.

    ``pts`` are the times of showing, if they are known to give the order.
    """
    order = None
    plain = all(not small and len(kinds) == 1 for small, kinds in scan.pictures)
    if plain and pts is not None and scan.keys[0] and pts[0] == np.min(pts):
        order = np.argsort(pts)
    elif "avi" in scan.forms and scan.codec == "mpeg4":
        order = _order_of_pictures(scan.pictures)
    elif "avi" in scan.forms and not scan.reorders:
        order = np.arange(len(scan.times))
    return _order_of_decoding(place, trusted) if order is None else (order, [])


def _are_of_decoding(place: Place, times: Ints, delays: bool) -> bool:
    """Whether packets have times of decoding in place of times of showing, as in MP4 files that were copied from AVI.

    The first frames then have times that ascend from packet to packet, and yet are shown in another order.

    Args:
        place: the file.
        times: the times of showing of its packets.
        delays: whether the decoder delays frames, because others may be shown before them.
    """
    if not delays or (times[1:] < times[:-1]).any():
        return False
    numbers = [number for number, frame in islice(decode_all(place), PROBED) if frame is not None]
    return numbers != sorted(numbers)


def _seconds(scan: Scan, packet_of: Ints, names: Ints | None, by_dts: bool) -> NDArray[np.float64]:
    """When each frame is shown, in player time. After a timestamp that jumps back, time goes on at the frame rate."""
    if names is not None:
        seconds = np.sort((names * scan.tick)[packet_of])
        return _player_time(seconds, seconds[0] if by_dts else scan.begin)
    shown = [scan.times[k][0] for k in packet_of]
    if any(time is None for time in shown):
        return np.arange(len(packet_of)) / scan.rate
    steps = np.diff(np.array(shown, np.float64) * scan.tick)
    return np.concatenate([[0.0], np.cumsum(np.where(steps > 0, steps, 1 / scan.rate))])


def _player_time(seconds: NDArray[np.float64], begin: float) -> NDArray[np.float64]:
    """Times in ascending order, counted from the beginning of the file, where another stream may start earlier."""
    return seconds - seconds[0] + max(0.0, float(seconds[0]) - begin)


def _doubtful(starts: Ints, faults: list[int]) -> NDArray[np.bool_] | None:
    """Which frames are decoded from the same keyframe as a damaged one: a decoder shows them in another order."""
    if not faults:
        return None
    known = np.unique(starts)
    return np.isin(starts, known[np.maximum(np.searchsorted(known, faults, side="right") - 1, 0)])


def _intact(place: Place, index: FrameIndex) -> Ints:
    """The numbers of the frames that can be decoded, and are built only on such frames."""
    decoded = np.zeros(len(index.packet), bool)
    faults, newest = set(), -1
    for packet, frame in decode_all(place, index.trusted):
        number = -1 if packet < 0 else int(index.number_of[packet])
        if frame is None:
            faults.add(packet)
        elif number > newest:  # a frame that comes out of order is not found when reading
            newest = number
            decoded[number] = True
    faults.update(index.packet[~decoded].tolist())
    at = np.array(sorted(faults), np.int64)
    clean = np.searchsorted(at, index.start) == np.searchsorted(at, index.packet, side="right")
    if index.doubtful is not None:
        clean &= ~index.doubtful
    intact: Ints = np.flatnonzero(decoded & clean)
    if not len(intact):
        raise SeqclfError(f"{place}: no frame can be decoded")
    return intact


def _distinct(times: tuple[int | None, ...]) -> Ints | None:
    """The timestamps as an array; None where one is missing or there twice."""
    known = np.array([time for time in times if time is not None], np.int64)
    return known if len(np.unique(known)) == len(times) else None


def _starts(packet_of: Ints, order: Ints, keys: NDArray[np.bool_]) -> Ints:
    """The packet from which each frame is decoded; all frames can be decoded from packet 0."""
    rank = np.full(len(keys), len(keys))
    rank[order] = np.arange(len(order))
    rank[0] = -1
    keys = keys.copy()
    keys[0] = True
    key = keys.nonzero()[0]
    which = key.searchsorted(packet_of, side="right") - 1
    while (late := rank[key[which]] > rank[packet_of]).any():
        which -= late
    return key[which]


def _order_of_pictures(pictures: list[tuple[bool, list[int]]]) -> Ints | None:
    """The packets of MPEG-4 in AVI, which has no times of showing, in display order; None where it is not certain.

    A B-picture is shown at once, any other picture when the next such picture comes. Where several pictures are packed
    into one packet, the decoder shows one of them and keeps the others for the packets after it; the last of these is
    small and holds no picture of its own.
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


def _order_of_decoding(place: Place, trusted: Container[int]) -> tuple[Ints, list[int]]:
    """The packets in the order in which a decoder gives their frames, and the damaged ones among them."""
    order: list[int] = []
    faults: list[int] = []
    for number, frame in decode_all(place, trusted):
        if order or frame is not None:  # a stream may begin with frames whose keyframe is missing
            order.append(number)
            faults += [number] if frame is None else []
    if len(set(order)) < len(order) or -1 in order:
        raise SeqclfError(
            f"{place}: its frames can't be distinguished; convert it to another format, such as H.264 in MP4"
        )
    return np.array(order, np.int64), faults
