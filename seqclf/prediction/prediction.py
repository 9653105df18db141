"""What a model says of one clip, and what several say together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.evaluation.segment_metrics import segments


@dataclass
class Prediction:
    """What a model says of one clip.

    Attributes:
        probabilities: ``(T, K)`` float32 on the CPU, at every frame.
        classes: the K names.
        seen: ``(T,)`` in how many windows each frame was, where they overlap; None for one each.
    """

    probabilities: Tensor
    classes: Sequence[str]
    seen: Tensor | None = None

    def label(self, rule: str = "last") -> tuple[str, float]:
        """The clip's class and its probability, by the "last" frame or by the "mean" over the frames of all windows, so
        that a frame counts as often as it was seen (LRCN's rule)."""
        return self.ranking(rule, 1)[0]

    def ranking(self, rule: str = "last", most: int = 5) -> list[tuple[str, float]]:
        """The clip's most probable classes and their probabilities, the best first; rules as of ``label``."""
        if rule not in ("last", "mean"):
            raise SeqclfError(f'a clip is labelled by "last" or "mean", not {rule!r}')
        counts = torch.ones(len(self.probabilities)) if self.seen is None else self.seen
        p = self.probabilities[-1] if rule == "last" else counts @ self.probabilities / counts.sum()
        order = p.argsort(descending=True, stable=True)[:most].tolist()
        return [(self.classes[k], float(p[k])) for k in order]

    def until(self, frames: int) -> Prediction:
        """Of the first so many frames alone."""
        return Prediction(self.probabilities[:frames], self.classes, None if self.seen is None else self.seen[:frames])

    def segments(self) -> list[tuple[str, int, int]]:
        """The runs of frames of one predicted class: (class, first frame, frame after the last)."""
        return [(self.classes[k], start, end) for k, start, end in segments(self.probabilities.argmax(1))]


def fuse(predictions: Sequence[Prediction], weights: Sequence[float] | None = None) -> Prediction:
    """Late fusion: the weighted mean of what several models say of the same frames, such as LRCN's RGB and flow.

    Args:
        predictions: of the same frames and classes.
        weights: one for each, of which only the proportions matter, such as (1, 2); None: all the same.

    Raises:
        SeqclfError: there is nothing to fuse; frames, classes or the number of weights differ; a weight is negative or
            not finite, or all are 0.
    """
    if not predictions:
        raise SeqclfError("there is no prediction to fuse")
    first = predictions[0]
    for other in predictions[1:]:
        if list(other.classes) != list(first.classes):
            raise SeqclfError("predictions to fuse must be of the same classes in the same order")
        if other.probabilities.shape != first.probabilities.shape:
            sizes = " and ".join(str(len(p.probabilities)) for p in (first, other))
            raise SeqclfError(f"predictions to fuse must be of the same frames, not of {sizes} frames")
    share = shares(len(predictions), weights)
    p = sum(w * prediction.probabilities.double() for w, prediction in zip(share, predictions, strict=True))
    assert isinstance(p, Tensor)
    return Prediction(p.float(), first.classes, first.seen)


def shares(count: int, weights: Sequence[float] | None) -> list[float]:
    """The weights of so many models as shares of 1; errors as of ``fuse``."""
    weights = [1.0] * count if weights is None else list(weights)
    if len(weights) != count:
        raise SeqclfError(f"there are {count} models to fuse, but {len(weights)} weights")
    if not all(math.isfinite(w) and w >= 0 for w in weights) or not sum(weights) > 0:
        raise SeqclfError(f"weights {', '.join(map(str, weights))}: expected numbers from 0, not all 0")
    return [w / sum(weights) for w in weights]
