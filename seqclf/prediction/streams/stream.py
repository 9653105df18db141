"""Prediction of a stream frame by frame: live video, or a file as from a camera."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from seqclf.batch import SeqclfError
from seqclf.data.live.input import live_input
from seqclf.data.live.reader import LiveReader
from seqclf.data.transforms import Size
from seqclf.evaluation.multi_label import Threshold
from seqclf.experiment.config import Experiment
from seqclf.prediction.files.output import FRAME_COLUMNS
from seqclf.prediction.reader import RunReader
from seqclf.prediction.streams.classified import StreamedFrames
from seqclf.prediction.streams.frames import (
    FileStream,
    LiveStream,
    Stopped,
    StreamSource,
    live_rate,
    open_file,
    sampling_step,
)
from seqclf.prediction.streams.output import Outputs
from seqclf.runtime.devices import pick_device
from seqclf.runtime.files import check_table_path


def stream(
    run: str | Path,
    source: str | int | Path,
    *,
    checkpoint: str = "auto",
    device: str = "auto",
    resize: Size | None = None,
    crop: bool = False,
    fps: float | None = None,
    threshold: Threshold | None = None,
    experiment: Experiment | None = None,
    follow: bool = False,
    video_stream: int | None = None,
    timeout: float | None = None,
    retries: int | None = 10,
    drop: bool | None = None,
    queue: int = 4,
    options: Mapping[str, str] | None = None,
    out: str | Path | None = None,
    record: str | Path | None = None,
    display: bool = False,
    stopped: Stopped = lambda: False,
    note: Callable[[str], None] = lambda text: None,
) -> StreamedFrames:
    """Classifies live video, or a file, frame by frame.

    Frames are read at the run's frame rate, by their timestamps, and transformed as in its evaluation. The state of the
    model is carried from frame to frame. It is reset after a gap: a new connection, or a jump in the timestamps.

    Args:
        run: the run folder.
        source: the number of a camera, a device such as ``/dev/video0``, an address such as ``rtsp://…``, ``udp://…``
            or ``http://…``, a named pipe, "-" for a video on standard input, or a file or folder.
        checkpoint, device: as in ``evaluate``.
        resize, crop, fps, threshold, experiment: see ``RunReader.load``.
        follow: whether the file is still being written. It ends when it has not grown for ``timeout`` seconds.
        video_stream: which video stream, from 0; None for that of the run's files, or FFmpeg's choice.
        timeout: the seconds to wait for video, 10 by default. A pipe is waited for without limit by default.
        retries: the number of attempts to reconnect that may fail in a row; None for any number.
        drop: whether to drop the oldest frames if the model is slower than the source; None for network streams and
            cameras only.
        queue: the largest number of frames that wait for the model.
        options: options of FFmpeg for a live source, such as ``{"video_size": "640x480"}``.
        out: a CSV to write at the end, with a row for each frame of a file.
        record: a video to write, with the label and its probability drawn on each frame.
        display: whether to show the same in a window, until q or Escape is pressed or it is closed.
        stopped: called between frames and while waiting for one. If it returns True, the stream ends.
        note: called with messages for the user, such as a lost connection; from another thread for live sources.

    Returns:
        an iterator over the classified frames, with ``summary``.

    Raises:
        SeqclfError: as in ``RunReader.load``; the model can't stream; an argument is not for this source. While
            iterating: the source can't be read, does not fit the model, or is lost and can't be reconnected.
    """
    live = live_input(source, follow, video_stream, timeout, options)
    if live is not None and out is not None:
        raise SeqclfError(f"{source}: out= (--out) is for files; for live video, save the printed lines")
    for name, path in (("out", out), ("record", record)):
        there = path is not None and all(os.path.exists(str(file)) for file in (path, source))
        if path is not None and there and os.path.samefile(path, str(source)):
            raise SeqclfError(f"{path}: {name}= (--{name}) is the source, and would replace it: set another path")
    if out is not None:
        check_table_path(out, FRAME_COLUMNS)
    how: dict[str, Any] = {"resize": resize, "crop": crop, "fps": fps, "threshold": threshold}
    loaded = RunReader.load(run, checkpoint, pick_device(device), experiment=experiment, **how)
    frames: StreamSource
    if live is None:
        frames = FileStream(loaded, open_file(loaded, str(source), video_stream, note))
    else:
        if video_stream is None:
            live = replace(live, stream=loaded.setting("video", "stream"))
        rate = _rate(loaded, note)
        frames = LiveStream(LiveReader(live, rate, sampling_step(loaded.input.sampling()), drop, queue, retries, note))
    return StreamedFrames(loaded, frames, Outputs(out, record, display), stopped)


def _rate(run: RunReader, note: Callable[[str], None]) -> float | None:
    """The frame rate at which a run reads live video, with a note if that was not the rate in training."""
    rate = live_rate(run)
    if "video" not in run.spec.readers:
        at = "the rate of the source" if rate is None else f"{rate:g} fps"
        note(f"{run.folder} was not trained on video files: frames are read at {at} (fps=, --fps)")
    return rate
