"""Predictions in the frame numbers and times of the file, whatever rate the run reads it at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seqclf.data.feature_file import FeatureFile
from seqclf.data.frame_folder import FrameFolder
from seqclf.data.frame_times import FrameTimes
from seqclf.data.source import Source
from seqclf.data.video_file import VideoFile
from seqclf.prediction.clips import SourcePrediction

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class FileFrames:
    """The N frames of a file, and which frame of its source stands for each.

    Attributes:
        numbers: ``(N,)``, of the frames.
        read: ``(N,)``, the place in the source of the frame that stands for each.
        fps: frames per second of the file; None where it is not known.
        starts: ``(N + 1,)`` seconds, when each frame begins, and the last one ends; None where it is not known.
        rate: how the source samples the file, as plain values; empty where it reads every frame.
    """

    numbers: Ints
    read: Ints
    fps: float | None
    starts: NDArray[np.float64] | None
    rate: dict[str, Any]

    def times(self) -> FrameTimes:
        """The same for annotations, which refer to the file."""
        end = int(self.numbers[-1]) + 1
        if self.starts is None:
            return FrameTimes(self.numbers, end)
        period = float(self.starts[-1] - self.starts[0]) / len(self.numbers)
        middles = (self.starts[:-1] + self.starts[1:]) / 2
        return FrameTimes(self.numbers, end, middles, float(self.starts[-1]), period)

    def place_of(self, place: int) -> int:
        """The first frame of the file that a frame of the source stands for."""
        return min(int(np.searchsorted(self.read, place)), len(self.numbers) - 1)

    def time_of(self, place: int) -> float | None:
        """When a frame of the source begins, in seconds; None where it is not known."""
        return None if self.starts is None else float(self.starts[self.place_of(place)])


def file_frames(source: Source, fps: float | None = None) -> FileFrames:
    """The frames of a source's file.

    Args:
        fps: the frame rate of a file that does not say it, such as a folder of pictures.
    """
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
    step = int(np.gcd.reduce(np.diff(numbers))) if len(numbers) > 1 else 1
    return FileFrames(numbers, read, fps, (np.append(numbers, numbers[-1] + step) - first) / fps, rate)


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
        prediction: at each frame of the file, with clips in places of the file's frames.
        frames: the file's frames.
    """

    prediction: SourcePrediction
    frames: FileFrames


def on_file(prediction: SourcePrediction, frames: FileFrames) -> FilePrediction:
    """The prediction of a source as that of its file."""
    read = torch.from_numpy(frames.read)
    assert prediction.seen is not None
    clips = [replace(clip, numbers=[frames.place_of(n) for n in clip.numbers]) for clip in prediction.clips]
    return FilePrediction(
        replace(
            prediction,
            probabilities=prediction.probabilities[read],
            seen=prediction.seen[read],
            clips=clips,
        ),
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
