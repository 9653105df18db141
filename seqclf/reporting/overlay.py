"""A picture with its label and probability drawn over it, in a window and in a video file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seqclf.batch import SeqclfError
from seqclf.runtime.files import replacing
from seqclf.runtime.packages import optional_import

if TYPE_CHECKING:
    from av.container import OutputContainer

Picture = NDArray[np.uint8]
"""``(H, W, 3)`` RGB."""
FORMATS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
TICKS, RATE = 1000, 25
"""Ticks per second of a recorded video, and its nominal frame rate."""
QUALITY = {"crf": "20", "preset": "veryfast"}
"""Settings of the encoder."""


def draw_label(picture: Picture, text: str) -> Picture:
    """Draws a line of text over the top left corner of a picture ``(H, W, 3)``, white on black; returns a new one."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    try:
        font: Any = ImageFont.load_default(max(10, image.height // 16))
    except TypeError:  # Pillow 10.0 has one size
        font = ImageFont.load_default()
    right, bottom = draw.textbbox((4, 2), text, font=font)[2:]
    draw.rectangle((0, 0, right + 4, bottom + 3), fill=(0, 0, 0))
    draw.text((4, 2), text, fill=(255, 255, 255), font=font)
    return np.asarray(image)


@contextmanager
def recording(path: str | Path) -> Iterator[Callable[[Picture, float], None]]:
    """Writes pictures to a video file (H.264) as they come; the file appears under its name when the block ends.

    Pictures of another size than the first are scaled to it. A picture that is not later than the one before is shown
    one tick after it. The file is also written if the block ends with a ``SeqclfError``.

    Args:
        path: a file ``.mp4``, ``.mov`` or ``.mkv``.

    Yields:
        A function of a picture and the seconds since the start.

    Raises:
        SeqclfError: the suffix is another one; PyAV is not installed; the file can't be written.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise SeqclfError(f"{path}: a video is recorded as one of {', '.join(FORMATS)}")
    with optional_import("video", f"{path}: recording needs PyAV"):
        import av
    failure: BaseException | None = None
    try:
        with replacing(path) as part, av.open(str(part), "w", format=FORMATS[path.suffix.lower()]) as container:
            video = _Video(container)
            try:
                yield video.add
            except (SeqclfError, GeneratorExit) as error:
                if not video.frames:
                    raise
                failure = error
            video.end(path)
    except (OSError, av.FFmpegError) as error:
        raise SeqclfError(f"{path}: cannot be written ({error.strerror})") from None
    if failure is not None:
        raise failure


class _Video:
    """The frames of a video file that is being written."""

    def __init__(self, container: OutputContainer) -> None:
        from av import codecs_available

        has_x264 = "libx264" in codecs_available
        self.container, self.frames, self.last = container, 0, -1
        self.stream: Any = container.add_stream("libx264" if has_x264 else "mpeg4", rate=RATE, options=QUALITY)
        self.stream.pix_fmt, self.stream.bit_rate = "yuv420p", 0 if has_x264 else 8_000_000
        self.stream.codec_context.time_base = Fraction(1, TICKS)

    def add(self, picture: Picture, seconds: float) -> None:
        from av import VideoFrame

        if not self.frames:  # H.264 takes even sizes only
            self.stream.height, self.stream.width = (max(2, n // 2 * 2) for n in picture.shape[:2])
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
        frame = frame.reformat(self.stream.width, self.stream.height, "yuv420p")
        self.last = max(self.last + 1, round(seconds * TICKS))
        frame.pts, frame.time_base = self.last, Fraction(1, TICKS)
        self.frames += 1
        self.container.mux(self.stream.encode(frame))

    def end(self, path: Path) -> None:
        if not self.frames:
            raise SeqclfError(f"{path}: not written, because there was no frame")
        self.container.mux(self.stream.encode())


@contextmanager
def window(title: str) -> Iterator[Callable[[Picture], bool]]:
    """Shows pictures in a window.

    Yields:
        A function of a picture, which returns False once the user has pressed q or Escape, or closed the window.

    Raises:
        SeqclfError: OpenCV is not installed, or without windows; there is no screen.
    """
    with optional_import("display", "display=True (--display) needs OpenCV"):
        import cv2
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise SeqclfError("display=True (--display): there is no screen (DISPLAY is not set); record= writes a video")
    try:
        cv2.namedWindow(title, cv2.WINDOW_NORMAL)
    except cv2.error:
        raise SeqclfError(
            "display=True (--display): this OpenCV is built without windows: pip install opencv-python"
        ) from None

    def is_visible() -> bool:
        try:
            return bool(cv2.getWindowProperty(title, cv2.WND_PROP_VISIBLE) >= 1)  # always False with some toolkits
        except cv2.error:  # raised by Qt if the window is closed
            return False

    opened = False

    def show(picture: Picture) -> bool:
        nonlocal opened
        cv2.imshow(title, np.ascontiguousarray(picture[:, :, ::-1]))
        key = cv2.waitKey(1) & 0xFF
        was_opened, opened = opened, is_visible()
        closed = was_opened and not opened  # imshow would open the window again
        return not closed and key not in (ord("q"), 27)

    try:
        yield show
    finally:
        cv2.destroyAllWindows()
