"""Where live video comes from: a camera, a network address, a pipe, or a file that is still being written."""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from select import select
from typing import TYPE_CHECKING, Any, Literal

from seqclf.batch import SeqclfError
from seqclf.data.video.container import choose_stream, open_input
from seqclf.runtime.packages import optional_import

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

POLL = 0.05
"""Seconds between looks for new data, and for a request to stop."""
TIMEOUT = 10.0
"""The default time, in seconds, to wait for video. A pipe is waited for without limit."""


@dataclass(frozen=True)
class LiveInput:
    """A source of live video.

    Attributes:
        name: the source as given, for messages.
        kind: "camera", "network", "pipe" (standard input and named pipes) or "growing" (a file that is being written).
        place: the device, address or path; "-" for standard input.
        stream: which video stream, from 0; None for the one that FFmpeg chooses.
        timeout: the seconds to wait for video; None waits without limit.
        options: options of FFmpeg's input, such as ``{"video_size": "640x480"}``.
    """

    name: str
    kind: Literal["camera", "network", "pipe", "growing"]
    place: str
    stream: int | None = None
    timeout: float | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        """Whether frames arrive in real time, even if nothing reads them."""
        return self.kind in ("camera", "network")

    def open(self, stopped: Callable[[], bool]) -> tuple[InputContainer, VideoStream]:
        """Connects.

        Args:
            stopped: whether to stop waiting for data of a pipe or a file.

        Returns:
            the open input, and its chosen video stream.

        Raises:
            SeqclfError: PyAV is not installed; there is nothing to connect to, or no video within the time limit.
        """
        with optional_import("video", f"{self.name}: live video needs PyAV"):
            import av
        options, form, timeout = dict(self.options), None, self.timeout
        place: Any = self.place
        if self.kind == "camera":
            form = _camera_format(self.name)
        elif self.kind == "network":
            options = _for_network(self.place) | options
        else:
            timeout = None
        try:
            if self.kind in ("pipe", "growing"):
                place = _Bytes(self, stopped)
            container = open_input(place, form, options, timeout=timeout)
        except (av.FFmpegError, OSError) as error:
            if isinstance(place, _Bytes) and not place.started:
                raise SeqclfError(f"{self.name}: ended without any data") from None
            raise SeqclfError(self._why_not(error)) from None
        stream = choose_stream(self.name, container, self.stream)
        stream.codec_context.thread_count = 1  # several threads would delay each frame
        return container, stream

    def lost(self, error: Any) -> str:
        """Why video ended with an error of FFmpeg."""
        if self.kind in ("camera", "network"):
            return f"{self.name}: the connection was lost ({error.strerror})"
        return f"{self.name}: can't be read ({error.strerror}){self._hint(error)}"

    def _hint(self, error: Any) -> str:
        from av.error import InvalidDataError

        if not isinstance(error, InvalidDataError) or self.kind not in ("pipe", "growing"):
            return ""
        return "; MPEG-TS, Matroska and fragmented MP4 can be read before they are complete, other MP4 files can't"

    def _why_not(self, error: Any) -> str:
        from av.error import ExitError

        if isinstance(error, ExitError) and self.timeout is not None:
            return f"{self.name}: no video within {self.timeout:g} s (timeout=, --timeout)"
        name = self.name if self.place in ("-", self.name) else f"{self.name} ({self.place})"
        return f"{name}: can't be opened ({error.strerror}){self._hint(error)}"


def live_input(
    source: str | int | Path,
    follow: bool = False,
    stream: int | None = None,
    timeout: float | None = None,
    options: Mapping[str, str] | None = None,
) -> LiveInput | None:
    """The live input that a source names; None for an ordinary file or folder.

    Args:
        source: the number of a camera, a device, an address with ``://``, a named pipe, "-" for standard input, or a
            path.
        follow: whether a file is still being written.
        stream, timeout, options: see ``LiveInput``. The default timeout is 10 s, and none for a pipe.

    Raises:
        SeqclfError: the source is both a camera's number and a file; ``follow`` is not for this source; the timeout is
            not positive.
    """
    name = str(source)
    if timeout is not None and not timeout > 0:
        raise SeqclfError(f"timeout={timeout:g}: expected a number of seconds above 0")
    kind, place = _kind_of(name, follow)
    if follow and not os.path.exists(place) and kind == "file":
        raise SeqclfError(f"{name}: does not exist; follow=True (--follow) is for a file that is already there")
    if follow and kind != "growing":
        kind = "folder" if os.path.isdir(place) else kind
        raise SeqclfError(f"{name}: follow=True (--follow) is for a file that is still being written, not for a {kind}")
    if kind == "file":
        if options:
            raise SeqclfError(f"{name}: options= (--option) is for live video, not for a file")
        return None
    wait = timeout if timeout is not None or kind == "pipe" else TIMEOUT
    return LiveInput(name, kind, place, stream, wait, options or {})


def _kind_of(name: str, follow: bool) -> tuple[Any, str]:
    """The kind of a source, "file" for an ordinary file or folder, and its place."""
    if name == "-":
        return "pipe", name
    if name.isdecimal():
        if os.path.exists(name):
            raise SeqclfError(f"{name}: is the number of a camera and also a file here: write ./{name} for the file")
        return "camera", f"/dev/video{name}" if sys.platform.startswith("linux") else name
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", name):
        return "network", name
    place = os.path.expanduser(name)
    try:
        mode = os.stat(place).st_mode
    except OSError:
        return "file", place  # opening it gives the error
    if stat.S_ISFIFO(mode):
        return "pipe", place
    if stat.S_ISCHR(mode):
        return "camera", place
    return "growing" if follow and stat.S_ISREG(mode) else "file", place


def _camera_format(name: str) -> str:
    """FFmpeg's format for cameras; a ``SeqclfError`` where there is none."""
    from av.format import ContainerFormat

    form = "avfoundation" if sys.platform == "darwin" else "v4l2"
    try:
        ContainerFormat(form, "r")
    except ValueError:
        raise SeqclfError(
            f"{name}: this PyAV can't read cameras ({form}): let the program ffmpeg read it and pipe the video to "
            "standard input (source -)"
        ) from None
    return form


def _for_network(address: str) -> dict[str, str]:
    """Options of FFmpeg for an address: RTSP over TCP where the server can, which loses no packets."""
    return {"rtsp_flags": "prefer_tcp"} if address.startswith(("rtsp:", "rtsps:")) else {}


class _Bytes:
    """The bytes of a pipe or a growing file as they arrive. FFmpeg's own reader could not be stopped while it waits.

    Attributes:
        started: whether there was any data.
    """

    def __init__(self, source: LiveInput, stopped: Callable[[], bool]) -> None:
        self.source, self.stopped, self.name, self.started = source, stopped, source.name, False
        if source.place == "-":
            if sys.stdin is None:
                raise SeqclfError(f"{self.name}: standard input is closed")
            self.file = os.dup(sys.stdin.fileno())
        else:  # opening a named pipe would otherwise wait for its writer
            self.file = os.open(source.place, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; none at the end.

        Raises:
            SeqclfError: a pipe has no data within the time limit.
        """
        data = self._wait(size)
        self.started = self.started or len(data) > 0
        return data

    def _wait(self, size: int) -> bytes:
        source, began = self.source, time.monotonic()
        while not self.stopped():
            if source.kind == "growing":
                if data := os.read(self.file, size):
                    return data
                time.sleep(POLL)
            elif os.name == "nt" or select([self.file], [], [], POLL)[0]:
                return os.read(self.file, size)
            if source.timeout is not None and time.monotonic() - began > source.timeout:
                if source.kind == "growing":
                    return b""
                raise SeqclfError(f"{self.name}: no data for {source.timeout:g} s (timeout=, --timeout)")
        return b""

    def __del__(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)
