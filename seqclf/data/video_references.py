"""Which packets of H.264 hold frames that no other frame is built on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av import Packet
    from av.video.stream import VideoStream

UNIT = re.compile(b"\x00\x00\x01(.)", re.DOTALL)
"""A unit of a packet that is divided by start codes; the byte after the code is its header."""
REFERENCE = 0x60
"""The bits of a header that are set where other frames need the unit (``nal_ref_idc``)."""


def length_bytes(extradata: bytes | None) -> int | None:
    """How many bytes hold the size of each unit; None where start codes divide units."""
    return (extradata[4] & 3) + 1 if extradata and len(extradata) > 4 and extradata[0] == 1 else None


def is_disposable(codec: str, width: int | None, packet: Packet[VideoStream]) -> bool:
    """Whether no other frame is built on that of a packet; False where this is not known.

    Args:
        codec: the name of the codec; False for any other than H.264.
        width: see ``length_bytes``.
        packet: the packet.
    """
    if codec != "h264":
        return False
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
