"""The true labels of the frames of files, for the timeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError
from seqclf.data.annotate import annotate
from seqclf.data.segmentation import read_labels
from seqclf.data.segments import read_segments
from seqclf.data.source import without_suffix
from seqclf.prediction.file_frames import FileFrames


class Truth:
    """The true labels of the frames of files.

    Args:
        path: a CSV of segments (see ``seqclf.data.segments``), or a folder of ``<video>.txt`` with the class of one
            frame per line.
        classes: the names of the classes.
        background: the class of frames that no segment of a CSV covers; None leaves them without a label.
        unit: the unit of start and end in a CSV.
        multi_label: whether frames can have several classes, so that segments may overlap.

    Raises:
        SeqclfError: the file is missing or invalid. The message names the file and line.
    """

    def __init__(
        self,
        path: str | Path,
        classes: Sequence[str],
        background: str | None = None,
        unit: Literal["frames", "seconds"] = "frames",
        multi_label: bool = False,
    ) -> None:
        self.path, self.classes, separator = Path(path), list(classes), "|" if multi_label else None
        if self.path.is_dir() and multi_label:
            raise SeqclfError(f"{path}: the true segments of a multi-label run are a CSV, not a folder")
        self.table = None
        if not self.path.is_dir():
            self.table = read_segments(path, unit, classes, background, separator=separator)

    def of(self, video: Path, frames: FileFrames) -> Tensor:
        """The labels ``(N,)`` of the frames of a file, or ``(N, K)`` with ``multi_label``; ``IGNORE`` if unknown.

        Raises:
            SeqclfError: as in ``annotate`` and ``read_labels``.
        """
        if self.table is not None:
            return annotate(self.table, video.as_posix(), frames.times()).labels
        index = {name: k for k, name in enumerate(self.classes)}
        known = read_labels(self.path / f"{without_suffix(video.name)}.txt", index, "the run's classes")
        labels = torch.full((len(frames.numbers),), IGNORE)
        labels[: len(known)] = known[: len(labels)]
        return labels
