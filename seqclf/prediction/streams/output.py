"""What is written and shown while a stream is classified: a table, a video with labels, and a window."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.prediction.clips import SourcePrediction
from seqclf.prediction.files.frames import cut, on_file
from seqclf.prediction.files.output import write_frames
from seqclf.prediction.reader import RunReader
from seqclf.prediction.streams.frames import FileStream, RawFrame, StreamSource
from seqclf.reporting.overlay import Picture, draw_label, recording, window

Labels: TypeAlias = list[tuple[str, float]]
Write: TypeAlias = Callable[[RawFrame, Tensor, Labels], bool]
"""Takes a frame, its probabilities ``(K,)`` and its labels; returns whether more frames are wanted."""
RATE = 25.0
"""The frame rate of a recording where frames have no times, and between sequences."""


@dataclass(frozen=True)
class Outputs:
    """What to write of a stream; see ``stream`` for the meaning.

    Attributes:
        out: the path of a CSV.
        record: the path of a video.
        display: whether to show a window.
    """

    out: str | Path | None = None
    record: str | Path | None = None
    display: bool = False

    @contextmanager
    def opened(self, run: RunReader, source: StreamSource) -> Iterator[Write]:
        """A function that writes all outputs; files are complete when the block ends."""
        found: list[Tensor] = []
        seconds = _Seconds()
        with ExitStack() as stack:
            write = stack.enter_context(recording(self.record)) if self.record is not None else None
            show = stack.enter_context(window(source.name)) if self.display else None

            def take(raw: RawFrame, p: Tensor, labels: Labels) -> bool:
                if self.out is not None:
                    found.append(p)
                if write is None and show is None:
                    return True
                picture = draw_label(_picture(raw, source.name), describe(labels))
                if write is not None:
                    write(picture, seconds.of(raw))
                return show is None or show(picture)

            yield take
        if self.out is not None and found:
            assert isinstance(source, FileStream)
            _write_table(self.out, found, run, source)


def describe(labels: Labels) -> str:
    """The labels of a frame as text: "walk 93.1%", or "none"."""
    return ", ".join(f"{name} {p:.1%}" for name, p in labels) or "none"


def _picture(raw: RawFrame, name: str) -> Picture:
    if raw.pixels.dim() != 3 or raw.pixels.shape[0] != 3 or raw.pixels.dtype != torch.uint8:
        raise SeqclfError(
            f"{name}: has frames {tuple(raw.pixels.shape)}; only RGB pictures (3, H, W) can be recorded or displayed"
        )
    return np.ascontiguousarray(raw.pixels.permute(1, 2, 0).numpy())


def _write_table(path: str | Path, found: Sequence[Tensor], run: RunReader, source: FileStream) -> None:
    """A row for each frame of the file, up to the last one that was classified."""
    length = min(len(found) * source.step, len(source.source))
    p = torch.stack(list(found)).repeat_interleave(source.step, 0)[:length]
    whole = torch.cat([p, p[-1:].expand(len(source.source) - length, -1)])
    streamed = run.predictor.prediction(whole)
    prediction = SourcePrediction(**vars(streamed) | {"seen": torch.ones(len(whole), dtype=torch.int64)})
    rows = int(np.searchsorted(source.file.read, length))
    write_frames(Path(path), cut(on_file(prediction, source.file), rows))


class _Seconds:
    """The time of frames in a recording: it starts at 0, and continues where the time of the source starts again."""

    def __init__(self) -> None:
        self.sequence, self.last = 0, -1 / RATE
        self.offset: float | None = None

    def of(self, raw: RawFrame) -> float:
        own = raw.number / RATE if raw.seconds is None else raw.seconds
        if self.offset is None or raw.sequence != self.sequence:
            self.offset, self.sequence = self.last + 1 / RATE - own, raw.sequence
        self.last = own + self.offset
        return self.last
