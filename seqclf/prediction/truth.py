"""The true labels of the frames of files, for the timeline."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from seqclf.data.annotate import annotate
from seqclf.data.segments import read_segments
from seqclf.data.spans import Unit
from seqclf.prediction.file_frames import FileFrames


class Truth:
    """The true labels of the frames of files.

    Args:
        path: a table of segments, or a folder or pattern of files, one per video; see
            ``seqclf.data.segments``.
        classes: the names of the classes.
        background: the class of frames outside all segments; None leaves them without a label.
        unit: the unit of start and end.
        multi_label: whether frames can have several classes, so that segments may overlap.

    Raises:
        SeqclfError: the file is missing or invalid. The message names the file and line.
    """

    def __init__(
        self,
        path: str | Path,
        classes: Sequence[str],
        background: str | None = None,
        unit: Unit = "frames",
        multi_label: bool = False,
    ) -> None:
        self.read = partial(read_segments, path, unit, classes, background, separator="|" if multi_label else None)
        self.table = None if Path(path).is_dir() or "*" in str(path) else self.read()

    def of(self, video: Path, frames: FileFrames) -> Tensor:
        """The labels ``(N,)`` of the frames of a file, or ``(N, K)`` with ``multi_label``; ``IGNORE`` if unknown.

        In the file of one video, rows after its last frame are left out.

        Raises:
            SeqclfError: as in ``read_segments`` and ``annotate``.
        """
        name = video.as_posix()
        if self.table is not None:
            return annotate(self.table, name, frames.times()).labels
        return annotate(self.read(names=[name]), name, frames.times(), past_end=float("inf")).labels
