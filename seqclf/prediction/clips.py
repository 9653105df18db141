"""The prediction of a source of frames: its clips, as evaluation samples them, merged frame by frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.frames.source import Source
from seqclf.data.sampling import Sampling, sample_clips
from seqclf.models.contract import State, declares
from seqclf.prediction.batch import BatchPredictor
from seqclf.prediction.fit import Fit
from seqclf.prediction.prediction import Prediction

PIECE = 32
"""Frames to read at a time. A model that can stream processes longer clips in pieces of this length."""
BATCH = 256
"""The largest number of frames, over all clips and crops, in one call of the model with several clips."""


@dataclass
class Clip:
    """One clip of a source.

    Attributes:
        numbers: the numbers of its frames in the source.
        prediction: the prediction at these frames.
    """

    numbers: list[int]
    prediction: Prediction


@dataclass
class SourcePrediction(Prediction):
    """The prediction of a whole source: at each frame, the mean over the clips that contain it.

    Frames that a clip skips have the prediction of the clip's frame before them. The source's probabilities by a
    decision rule are the mean of those of its clips.
    """

    clips: list[Clip] = field(default_factory=list)


def predict_source(predictor: BatchPredictor, source: Source, sampling: Sampling, fit: Fit) -> SourcePrediction:
    """Classifies the clips of a source.

    Args:
        predictor: the model.
        source: the frames.
        sampling: which frames form the clips, ``sampling(len(source), None)``.
        fit: the transform of the frames.

    Raises:
        SeqclfError: a frame can't be read or does not fit the model, or there are none.
    """
    if len(source) < 1:
        raise SeqclfError(f"{source.path}: has no frames")
    try:
        numbers = sample_clips(sampling, len(source), None, source.path)
        clips = list(_predict_clips(predictor, source, numbers, fit))
    except MemoryError:
        size = "x".join(map(str, source.frame_shape))
        raise SeqclfError(
            f"{source.path}: {len(source):,} frames of {size} don't fit into memory: predict shorter clips (--frames), "
            "or train with a smaller transform"
        ) from None
    return merge(clips, len(source), predictor)


def merge(clips: list[Clip], length: int, predictor: BatchPredictor) -> SourcePrediction:
    """Merges the predictions of clips to the prediction of their source of ``length`` frames."""
    K = len(predictor.classes)
    total, seen = torch.zeros(length, K, dtype=torch.float64), torch.zeros(length, dtype=torch.int64)
    for clip in clips:
        ends = [min(end, length) for end in _ends(clip.numbers)]
        for start, end, p in zip(clip.numbers, ends, clip.prediction.probabilities, strict=True):
            total[start:end] += p
            seen[start:end] += 1
    rules = {
        rule: torch.stack([clip.prediction.by_rule[rule].double() for clip in clips]).mean(0).float()
        for rule in ("last", "mean")
    }
    probabilities = (total / seen.clamp(min=1)[:, None]).float()
    return SourcePrediction(
        probabilities,
        predictor.classes,
        predictor.decision,
        rules,
        seen,
        predictor.multi_label,
        predictor.threshold,
        clips,
    )


def _ends(numbers: Sequence[int]) -> list[int]:
    """The end of each frame's prediction in the source: the next frame of the clip; the last step is repeated."""
    ends = [max(after, before + 1) for before, after in pairwise(numbers)]
    gap = max(1, numbers[-1] - numbers[-2]) if len(numbers) > 1 else 1
    return [*ends, numbers[-1] + gap]


def _predict_clips(predictor: BatchPredictor, source: Source, clips: list[list[int]], fit: Fit) -> Iterator[Clip]:
    change = fit.bound(predictor.frame_shape, source.path)
    if fit.is_framewise and declares(predictor.model, "streams"):
        clips_in_pieces = [len(numbers) > PIECE for numbers in clips]
    else:
        clips_in_pieces = [False] * len(clips)
    frames = _Frames(source, change if fit.is_framewise else lambda raw: raw[None])
    waiting: list[list[int]] = []
    for numbers, in_pieces in zip(clips, clips_in_pieces, strict=True):
        size = sum(map(len, waiting)) + len(numbers)
        if waiting and (in_pieces or size * fit.crops > BATCH):
            yield from _predict_batch(predictor, frames, waiting, None if fit.is_framewise else change)
            waiting = []
        if in_pieces:
            yield _predict_in_pieces(predictor, frames, numbers)
        else:
            waiting.append(numbers)
    if waiting:
        yield from _predict_batch(predictor, frames, waiting, None if fit.is_framewise else change)


def _predict_batch(
    predictor: BatchPredictor, frames: _Frames, clips: list[list[int]], change: Callable[[Tensor], Tensor] | None
) -> Iterator[Clip]:
    """Classifies several clips in one call of the model; ``change`` is a transform of whole clips."""
    frames.forget(min(map(min, clips)))
    read = [frames.read(numbers) for numbers in clips]
    fitted = read if change is None else [change(clip[0]) for clip in read]
    found = iter(predictor.batch([crop for crops in fitted for crop in crops], [frames.source.path] * 10 * len(clips)))
    for numbers, crops in zip(clips, fitted, strict=True):
        p = torch.stack([next(found).probabilities for _ in crops]).mean(0)
        yield Clip(numbers, predictor.prediction(p))


def _predict_in_pieces(predictor: BatchPredictor, frames: _Frames, numbers: list[int]) -> Clip:
    """Classifies one clip in pieces with carried state, so that a clip of any length fits into memory."""
    pieces: list[Tensor] = []
    state: State = None
    for start in range(0, len(numbers), PIECE):
        piece = numbers[start : start + PIECE]
        frames.forget(min(piece))
        crops = torch.stack([predictor.check(crop, frames.source.path) for crop in frames.read(piece)])
        p, state = predictor.run(crops, state)
        pieces.append(p.mean(0))
    return Clip(numbers, predictor.prediction(torch.cat(pieces)))


class _Frames:
    """A cache of the transformed frames of a source, for clips that overlap.

    Args:
        source: the frames.
        change: maps raw frames ``(n, ...)`` to ``(crops, n, ...)``.
    """

    def __init__(self, source: Source, change: Callable[[Tensor], Tensor]) -> None:
        self.source, self.change = source, change
        self.held: dict[int, Tensor] = {}

    def read(self, numbers: Sequence[int]) -> Tensor:
        """``(crops, n, ...)``."""
        new = [n for n in dict.fromkeys(numbers) if n not in self.held]
        for start in range(0, len(new), PIECE):
            piece = new[start : start + PIECE]
            self.held.update(zip(piece, self.change(self.source.read(piece)).unbind(1), strict=True))
        return torch.stack([self.held[n] for n in numbers], 1)

    def forget(self, before: int) -> None:
        """Drops the frames before this one."""
        self.held = {n: frame for n, frame in self.held.items() if n >= before}
