"""How a page shows a video: embedded, as a small copy, or by a link to the file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
import torch
from numpy.typing import NDArray

from seqclf.data.frames.source import Source
from seqclf.data.video.container import Place, open_container
from seqclf.data.video.file import VideoFile
from seqclf.runtime.files import replacing
from seqclf.runtime.packages import optional_import

Way = Literal["embedded", "embedded copy", "copy", "link", "none"]
PLAYABLE = {"mp4": ("h264", "av1", "vp9"), "webm": ("vp8", "vp9", "av1")}
"""The codecs that browsers play, by container."""
PIXELS = ("yuv420p", "yuvj420p")
PIECE = 32
"""Frames to read at a time."""
SIDE = (120, 360)
"""The height in pixels of a copy: smaller frames are enlarged, larger ones are reduced."""
TICKS = 90_000
"""Ticks per second of the times in a copy."""
KEYFRAMES = 12
"""Frames from keyframe to keyframe of a copy, few so that seeking is quick."""


@dataclass(frozen=True)
class Media:
    """How a page shows a video.

    Attributes:
        way: "embedded" in the page, an "embedded copy" of fewer pixels, a "copy" beside the page, a "link" to the file,
            or "none" for sources without pictures.
        note: the same in words, for the page and the terminal.
        content: the file that is embedded.
        key: a name for the content, the same for videos that share it.
        mime: its type.
        url: the address of a copy or a link, relative to the page where possible.
        offset: the time in the recording, in seconds, that is time 0 of what is played.
    """

    way: Way
    note: str
    content: bytes | None = None
    key: str = ""
    mime: str = "video/mp4"
    url: str = ""
    offset: float = 0.0


def media_of(
    source: Source, numbers: NDArray[np.int64], name: str, starts: NDArray[np.float64], page: Path, limit: float
) -> Media:
    """Chooses how a page shows a video, and writes a copy where one is needed.

    A file that browsers play is embedded, or linked if it is larger than the limit. For others, such as MPEG-4 Part 2
    in AVI and folders of pictures, a small copy is made; it shows each frame at its recorded time.

    Args:
        source: the video.
        numbers: ``(N,)``, the position in the source of each frame to show.
        name: the name of its copy, without suffix.
        starts: ``(N + 1,)`` seconds, when each frame is shown, and the end of the last.
        page: the path of the page. Copies are written to the folder ``<page>_copies`` beside it.
        limit: megabytes of a file, or of a copy, that are embedded.

    Raises:
        SeqclfError: PyAV is missing, a frame can't be read, or the copy can't be written.
    """
    if len(source.frame_shape) != 3 or source.frame_shape[0] != 3:
        return Media("none", "no pictures")
    file = Path(source.path)
    if (mime := _playable(source)) is not None:
        size = file.stat().st_size
        if size <= limit * 1e6:
            key = str(file.resolve())
            return Media("embedded", f"embedded ({_megabytes(size)})", file.read_bytes(), key, mime)
        return Media("link", f"link to the file ({_megabytes(size)})", url=address(file, page))
    copy = copies_of(page) / f"{name}.mp4"
    write_copy(copy, source, numbers, starts)
    size, offset = copy.stat().st_size, float(starts[0])
    if size > limit * 1e6:
        return Media("copy", f"small copy ({_megabytes(size)})", url=address(copy, page), offset=offset)
    content = copy.read_bytes()
    copy.unlink()
    return Media("embedded copy", f"embedded small copy ({_megabytes(size)})", content, str(copy), offset=offset)


def copies_of(page: Path) -> Path:
    """The folder of the copies that a page shows."""
    return page.with_name(f"{page.stem}_copies")


def _playable(source: Source) -> str | None:
    """The MIME type of a file that browsers play; None for others."""
    file = getattr(source, "source", source)  # the file of a span
    suffix = Path(file.path).suffix.lower().lstrip(".").replace("m4v", "mp4")
    if not isinstance(file, VideoFile) or suffix not in PLAYABLE or not Path(file.path).is_file():
        return None
    if file.streams() != (1, 0) or not file.follows_times():
        return None
    container, stream = open_container(Place(file.path))
    with container:
        codec, pixels = stream.codec_context.name, stream.codec_context.pix_fmt
        is_named = suffix in container.format.name.split(",")  # a Matroska file may be named .mp4
        begins_at_0 = abs(container.start_time or 0) < 1000  # microseconds; browsers disagree with players about others
    known = any(codec.startswith(name) or codec.endswith(name) for name in PLAYABLE[suffix])  # libvpx-vp9
    return f"video/{suffix}" if known and is_named and pixels in PIXELS and begins_at_0 else None


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 50_000 else f"{size / 1e3:.0f} kB"


def address(file: Path, page: Path) -> str:
    """The address of a file: relative to the page, absolute on another drive."""
    try:
        return quote(Path(os.path.relpath(file.resolve(), page.parent.resolve())).as_posix())
    except ValueError:
        return file.resolve().as_uri()


def write_copy(path: Path, source: Source, numbers: NDArray[np.int64], starts: NDArray[np.float64]) -> None:
    """Writes an H.264 video of a source's frames that shows each from its start on; errors as in ``media_of``."""
    with optional_import("video", f"{path}: a copy for the page needs PyAV"):
        import av
    ticks = np.round((starts - starts[0]) * TICKS).astype(np.int64).tolist()
    durations = dict(zip(ticks, np.diff(ticks).tolist(), strict=False))
    with replacing(path) as part, av.open(str(part), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream: Any = None
        for n, picture in enumerate(_pictures(source, numbers)):
            if stream is None:
                options = {"preset": "veryfast", "crf": "27", "bf": "0"}
                stream = container.add_stream("libx264", options=options)
                stream.height, stream.width, stream.pix_fmt = *picture.shape[:2], "yuv420p"
                stream.codec_context.time_base = stream.time_base = Fraction(1, TICKS)
                stream.codec_context.gop_size, stream.codec_context.thread_count = KEYFRAMES, 1
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = ticks[n], Fraction(1, TICKS)
            _mux(container, stream.encode(frame), durations)
        _mux(container, stream.encode(), durations)


def _mux(container: Any, packets: Iterable[Any], durations: Mapping[int, int]) -> None:
    """Writes packets with the duration of their frame, by its start."""
    for packet in packets:
        packet.duration = durations[packet.pts]
        container.mux(packet)


def _pictures(source: Source, numbers: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    """The frames ``(H, W, 3)`` uint8 in the size of a copy, with even sides."""
    _, height, width = source.frame_shape
    low, high = SIDE
    scale = float(-(-low // height)) if height < low else min(1.0, high / height)
    size = [max(2, 2 * round(side * scale / 2)) for side in (height, width)]
    mode = "nearest" if scale > 1 else "area"
    for start in range(0, len(numbers), PIECE):
        frames = source.read(numbers[start : start + PIECE].tolist())
        scaled = torch.nn.functional.interpolate(frames.float(), size, mode=mode).round().byte()
        yield from scaled.permute(0, 2, 3, 1).contiguous().numpy()
