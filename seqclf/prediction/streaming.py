"""Prediction of a file frame by frame, as from a camera."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.source import Source
from seqclf.prediction.clips import SourcePrediction
from seqclf.prediction.file_frames import FileFrames, on_file
from seqclf.prediction.output import write_frames
from seqclf.prediction.reader import RunReader


@dataclass
class StreamedFrame:
    """One frame of a streamed file.

    Attributes:
        number: the number of the frame in the source.
        probabilities: ``(K,)`` after this frame.
        labels: the predicted class and its probability; of a multi-label run those of all predicted classes.
        changed: whether the classes differ from those of the frame before.
        rate: frames per second so far, without the first frame; None at the first.
    """

    number: int
    probabilities: Tensor
    labels: list[tuple[str, float]]
    changed: bool
    rate: float | None


def stream_source(run: RunReader, source: Source) -> Iterator[StreamedFrame]:
    """Classifies a source frame by frame, as the frames come.

    Raises:
        SeqclfError: the model can't stream; the file can't be read or does not fit the model.
    """
    if not run.fit.is_framewise:
        raise SeqclfError(f"{run.folder}: its transform needs whole clips, so it can't stream (see framewise)")
    stream = run.predictor.stream()
    before: set[str] | None = None
    began = time.perf_counter()
    for number in range(len(source)):
        p = stream(run.fit(source.read([number]), run.predictor.frame_shape, source.path)[0, 0])
        if number == 0:
            began = time.perf_counter()  # the first frame loads what all frames need
        labels = run.predictor.prediction(p[None]).label_set("last")
        names = {name for name, _ in labels}
        rate = number / max(time.perf_counter() - began, 1e-9) if number else None
        yield StreamedFrame(number, p, labels, names != before, rate)
        before = names


def write_stream(path: str | Path, frames: Sequence[StreamedFrame], run: RunReader, file: FileFrames) -> None:
    """Writes streamed frames as a CSV with a row for each frame of the file; errors as in ``write_frames``."""
    streamed = run.predictor.prediction(torch.stack([frame.probabilities for frame in frames]))
    prediction = SourcePrediction(**vars(streamed) | {"seen": torch.ones(len(frames), dtype=torch.int64)})
    write_frames(Path(path), on_file(prediction, file))
