"""The predictions of an evaluation, one row per clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from seqclf.batch import IGNORE, Batch, valid_frames
from seqclf.data import Clips, Videos
from seqclf.data.input_spec import DecisionRule
from seqclf.runtime.files import write_csv


@dataclass
class ClipRow:
    """One clip of an evaluation.

    Attributes:
        index: the index of the clip in its part.
        video: the name of the video; for clips in memory, the index.
        path: the path of the video; None for clips in memory.
        clip: the number of the clip in its video, from 0.
        truth: the class of all labelled frames; None if they differ or there are none.
        by_rule: the probabilities ``(K,)`` by each decision rule.
    """

    index: int
    video: str
    path: str | None
    clip: int
    truth: int | None
    by_rule: dict[str, Tensor]


class ClipRows:
    """Collects a row for each clip from the batches of an evaluation."""

    def __init__(self, clips: Clips | Videos) -> None:
        self.clips = clips
        self.rows: list[ClipRow] = []
        self._places = _places(clips)

    def update(self, logits: Tensor, batch: Batch) -> None:
        """Adds the clips of a batch: logits ``(B, T, K)``."""
        labels = batch.labels
        p = logits.float().softmax(-1)
        valid = valid_frames(batch.lengths, labels.shape, labels.device)
        counts = valid.sum(1)
        last = p.gather(1, (counts - 1)[:, None, None].expand(-1, 1, p.shape[-1]))[:, 0]
        mean = (p * valid[..., None]).sum(1) / counts[:, None]
        labelled = labels != IGNORE
        highest = labels.masked_fill(~labelled, -1).amax(1)
        lowest = labels.masked_fill(~labelled, p.shape[-1]).amin(1)
        truth = highest.where(lowest == highest, -1)
        assert batch.indices is not None
        columns = (batch.indices.tolist(), truth.tolist(), last.cpu(), mean.cpu())
        for index, label, at_last, over_all in zip(*columns, strict=True):
            video, path, clip = self._places(index)
            rules = {"last": at_last, "mean": over_all}
            self.rows.append(ClipRow(index, video, path, clip, None if label < 0 else label, rules))


def _places(clips: Clips | Videos) -> Any:
    """A function from a clip's index to its video's name and path, and its number in the video."""
    if isinstance(clips, Clips):
        return lambda index: (str(index), None, 0)
    if clips.training:
        return lambda index: (clips.videos[index].name, clips.videos[index].source.path, 0)
    numbers: list[int] = []
    for k, (v, _) in enumerate(clips.clips):
        numbers.append(numbers[-1] + 1 if k and clips.clips[k - 1][0] == v else 0)
    videos = [clips.videos[v] for v, _ in clips.clips]
    return lambda index: (videos[index].name, videos[index].source.path, numbers[index])


def write_rows(path: str | Path, rows: Sequence[ClipRow], classes: Sequence[str], decision: DecisionRule) -> None:
    """Write a CSV with a row for each clip: video, clip, truth, label, probability, and those of all classes.

    Raises:
        SeqclfError: the file can't be written.
    """
    lines = []
    for row in rows:
        p = row.by_rule[decision]
        best = int(p.argmax())
        truth = "" if row.truth is None else classes[row.truth]
        values = (f"{x:.7f}" for x in p.tolist())
        lines.append([row.video, row.clip, truth, classes[best], f"{float(p[best]):.7f}", *values])
    write_csv(path, ["video", "clip", "truth", "label", "probability", *classes], lines)
