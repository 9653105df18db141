"""Finds packets of H.264 whose frames no other frame refers to."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av import Packet
    from av.video.stream import VideoStream

UNIT = re.compile(b"\x00\x00\x01(.)", re.DOTALL)
"""The start code of a NAL unit, and the byte after it, which is the header of the unit."""
REFERENCE = 0x60
"""The bits ``nal_ref_idc`` of a header, which are not 0 if other frames refer to the unit."""


def length_bytes(extradata: bytes | None) -> int | None:
    """The number of bytes of a unit's size; None if start codes separate units."""
    return (extradata[4] & 3) + 1 if extradata and len(extradata) > 4 and extradata[0] == 1 else None


def is_disposable(width: int | None, packet: Packet[VideoStream]) -> bool:
    """Whether no other frame refers to the frame of a packet of H.264; False if this is not known.

    Args:
        width: what ``length_bytes`` returns.
        packet: the packet.
    """
    content = bytes(packet)
    if width is None:
        heads = [head[0] for head in UNIT.findall(content)]
    else:
        at, heads = 0, []
        while at + width < len(content):
            heads.append(content[at + width])
            at += width + int.from_bytes(content[at : at + width], "big")
        if at != len(content):
            return False
    return bool(heads) and not any(head & REFERENCE for head in heads)
