"""The true labels of the frames of files, for the timeline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from seqclf.data.annotations.frame_labels import annotate
from seqclf.data.annotations.numbering import Opened, expect_frames, first_of
from seqclf.data.annotations.segments import read_segments
from seqclf.data.frames.source import Source
from seqclf.data.frames.span import Unit
from seqclf.prediction.files.frames import FileFrames


class Truth:
    """The true labels of the frames of files.

    Args:
        path: a table of segments, or a folder or pattern of files, one per video; see
            ``seqclf.data.annotations.segments``.
        classes: the names of the classes.
        background: the class of frames outside all segments; None leaves them without a label.
        unit: the unit of start and end; None reads the table as ``recorded`` says, or detects it.
        multi_label: whether frames can have several classes, so that segments may overlap.
        recorded: how the run read its own table; see ``annotated_set``. Empty for a table with the usual columns.

    Raises:
        SeqclfError: the file is missing or invalid. The message names the file and line.
    """

    def __init__(
        self,
        path: str | Path,
        classes: Sequence[str],
        background: str | None = None,
        unit: Unit | None = None,
        multi_label: bool = False,
        recorded: Mapping[str, Any] | None = None,
    ) -> None:
        how: dict[str, Any] = {"unit": unit or "auto", "separator": "|" if multi_label else None}
        how |= (recorded or {}) if unit is None else {}
        self.rate, self.first_frame = how.pop("annotation_fps", None), how.pop("first_frame", 0)
        self.past_end = how.pop("past_end", None)
        self.read = partial(read_segments, path, classes=classes, background=background, **how)
        self.table = None if Path(path).is_dir() or "*" in str(path) else self.read()

    def of(self, video: Path, frames: FileFrames, source: Source) -> Tensor:
        """The labels ``(N,)`` of the frames of a file, or ``(N, K)`` with ``multi_label``; ``IGNORE`` if unknown.

        In the file of one video, rows after its last frame are left out.

        Raises:
            SeqclfError: as in ``read_segments`` and ``annotate``.
        """
        name, first = video.as_posix(), first_of(source, self.first_frame)
        table, past_end = (self.table, self.past_end) if self.table else (self.read(names=[name]), float("inf"))
        if self.rate is None:
            expect_frames(table, [Opened(name, source, frames.times())])
        return annotate(table, name, frames.times(), past_end, self.rate, first).labels
