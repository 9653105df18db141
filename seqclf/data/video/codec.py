"""Decoders without their files: opening a file takes longer than decoding a frame of MPEG-4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext

Settings: TypeAlias = dict[str, Any]
"""What a decoder is made from: the values of ``COPIED``."""
COPIED = (
    *("extradata", "codec_tag", "width", "height", "pix_fmt"),
    *("color_range", "colorspace", "color_primaries", "color_trc"),
)
"""What the decoder of MPEG-4 takes from a file apart from packets, except for the rotation, which PyAV can't set."""


def settings_of(codec: VideoCodecContext) -> Settings | None:
    """The settings of the decoder of an open file; None if it can't be made again without the file.

    Only MPEG-4 with 8 bits is supported: its decoder reads everything else from packets.
    """
    if codec.name != "mpeg4" or codec.pix_fmt != "yuv420p":
        return None
    try:
        return {name: getattr(codec, name) for name in COPIED}
    except UnicodeDecodeError:  # PyAV reads only tags in ASCII
        return None


def new_codec(settings: Settings) -> VideoCodecContext:
    """Returns a new decoder of MPEG-4 with these settings."""
    from av import CodecContext

    codec: VideoCodecContext = CodecContext.create("mpeg4", "r")
    for name, value in settings.items():
        setattr(codec, name, value)
    codec.thread_count = 1  # as in open_container
    return codec
