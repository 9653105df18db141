"""Predictions in frame numbers and times of the file, before sampling."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seqclf.data.frames.feature_file import FeatureFile
from seqclf.data.frames.folder import FrameFolder
from seqclf.data.frames.source import Source
from seqclf.data.frames.span import VideoSpan
from seqclf.data.frames.times import FrameTimes
from seqclf.data.video.file import VideoFile
from seqclf.prediction.clips import SourcePrediction

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class FileFrames:
    """The N frames of a file, and the frame of the source that represents each.

    Attributes:
        numbers: ``(N,)``, the frame numbers.
        read: ``(N,)``, the position in the source of the frame that represents each.
        fps: frames per second of the file; None if unknown.
        starts: ``(N + 1,)`` seconds, the start of each frame, and the end of the last; None if unknown.
        rate: how the source samples the file, as plain values; empty if it reads every frame.
    """

    numbers: Ints
    read: Ints
    fps: float | None
    starts: NDArray[np.float64] | None
    rate: dict[str, Any]

    def times(self) -> FrameTimes:
        """The frame times, to look up annotations, which refer to the file."""
        end = int(self.numbers[-1]) + 1
        if self.starts is None:
            return FrameTimes(self.numbers, end)
        period = float(self.starts[-1] - self.starts[0]) / len(self.numbers)
        middles = (self.starts[:-1] + self.starts[1:]) / 2
        return FrameTimes(self.numbers, end, middles, float(self.starts[-1]), period)

    def place_of(self, place: int) -> int:
        """The first frame of the file that a frame of the source represents."""
        return min(int(np.searchsorted(self.read, place)), len(self.numbers) - 1)

    def time_of(self, place: int) -> float | None:
        """The start of a frame of the source, in seconds; None if unknown."""
        return None if self.starts is None else float(self.starts[self.place_of(place)])


def file_frames(source: Source, fps: float | None = None) -> FileFrames:
    """The frames of a source's file.

    Args:
        source: the source.
        fps: the frame rate of a source that does not know it, such as a folder of pictures.
    """
    if isinstance(source, VideoSpan):
        return _of_span(source, fps)
    if isinstance(source, VideoFile):
        return _of_video(source)
    rate: dict[str, Any] = {}
    numbers, read = np.arange(len(source)), np.arange(len(source))
    if isinstance(source, FeatureFile) and source.sample_rate > 1:
        numbers = np.arange(source.file_length)
        read, rate = numbers // source.sample_rate, {"sample_rate": source.sample_rate}
    elif isinstance(source, FrameFolder):
        numbers = source.frame_times().numbers
    fps = fps or getattr(source, "fps", None)
    if fps is None:
        return FileFrames(numbers, read, None, None, rate)
    first = min(int(numbers[0]), 1)
    step = gcd(*np.diff(numbers).tolist()) or 1
    return FileFrames(numbers, read, fps, (np.append(numbers, numbers[-1] + step) - first) / fps, rate)


def _of_span(span: VideoSpan, fps: float | None) -> FileFrames:
    """The frames of the file for which a frame of the span stands."""
    whole, inside = file_frames(span.source, fps), span.places()
    first, stop = np.searchsorted(whole.read, [inside.start, inside.stop]).tolist()
    starts = None if whole.starts is None else whole.starts[first : stop + 1]
    return FileFrames(whole.numbers[first:stop], whole.read[first:stop] - inside.start, whole.fps, starts, whole.rate)


def _of_video(source: VideoFile) -> FileFrames:
    seconds = source.file_seconds.numpy()
    shown = source.file_numbers.numpy()  # of each frame of the source, its number in the file
    numbers = np.arange(len(seconds))
    read = np.maximum(np.searchsorted(shown, numbers, side="right") - 1, 0)
    rate: dict[str, Any] = {} if source.fps is None else {"resampled_fps": source.fps}
    if lost := source.lost():
        rate["left_out"] = lost
    if not seconds[-1] > seconds[0]:
        return FileFrames(numbers, read, None, None, rate)
    fps = (len(seconds) - 1) / float(seconds[-1] - seconds[0])
    return FileFrames(numbers, read, round(fps, 3), np.append(seconds, seconds[-1] + 1 / fps), rate)


@dataclass
class FilePrediction:
    """The prediction of a file.

    Attributes:
        prediction: the prediction at each frame of the file; clips have positions in the file.
        frames: the frames of the file.
    """

    prediction: SourcePrediction
    frames: FileFrames


def on_file(prediction: SourcePrediction, frames: FileFrames) -> FilePrediction:
    """Converts the prediction of a source to that of its file."""
    read = torch.from_numpy(frames.read)
    assert prediction.seen is not None
    clips = [replace(clip, numbers=[frames.place_of(n) for n in clip.numbers]) for clip in prediction.clips]
    return FilePrediction(
        replace(prediction, probabilities=prediction.probabilities[read], seen=prediction.seen[read], clips=clips),
        frames,
    )


def cut(prediction: FilePrediction, length: int) -> FilePrediction:
    """The prediction of the first frames only."""
    p, f = prediction.prediction, prediction.frames
    assert p.seen is not None
    starts = None if f.starts is None else f.starts[: length + 1]
    return FilePrediction(
        replace(p, probabilities=p.probabilities[:length], seen=p.seen[:length]),
        replace(f, numbers=f.numbers[:length], read=f.read[:length], starts=starts),
    )
