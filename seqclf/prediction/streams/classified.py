"""The classified frames of a stream."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.transforms import LRCN_FRAME
from seqclf.prediction.reader import RunReader
from seqclf.prediction.streams.frames import RawFrame, Stopped, StreamSource
from seqclf.prediction.streams.output import Outputs
from seqclf.prediction.streams.summary import StreamSummary


@dataclass
class StreamedFrame:
    """One classified frame of a stream.

    Attributes:
        number: the number of the frame in the source, at the run's frame rate; dropped frames count.
        seconds: its time in the source, as the source gives it; None if unknown.
        probabilities: ``(K,)`` after this frame.
        labels: the predicted class and its probability; of a multi-label run those of all predicted classes.
        changed: whether the classes differ from those of the frame before, or the model starts a new sequence.
        dropped: the number of frames dropped so far, because the model was slower than the source.
        reconnects: the number of new connections so far.
    """

    number: int
    seconds: float | None
    probabilities: Tensor
    labels: list[tuple[str, float]]
    changed: bool
    dropped: int
    reconnects: int


class StreamedFrames(Iterator[StreamedFrame]):
    """The classified frames of a stream, as they come. To stop before the end, close it, or use ``with``.

    Attributes:
        name: the source.
        multi_label: whether a frame can have several labels.
        summary: counts and latencies so far. The latency of a frame ends when the next one is asked for.
    """

    def __init__(self, run: RunReader, source: StreamSource, outputs: Outputs, stopped: Stopped) -> None:
        if not run.fit.is_framewise:
            raise SeqclfError(f"{run.folder}: its transform needs whole clips, so it can't stream (see framewise)")
        self.name, self.summary = source.name, StreamSummary()
        self.multi_label = run.predictor.multi_label
        self._run, self._source, self._stopped, self._stream = run, source, stopped, run.predictor.stream()
        self._frames = self._classified(outputs)

    def __next__(self) -> StreamedFrame:
        return next(self._frames)

    def close(self) -> None:
        """Stops reading, and finishes the files that are written."""
        self._frames.close()

    def __enter__(self) -> StreamedFrames:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _classified(self, outputs: Outputs) -> Generator[StreamedFrame, None, None]:
        source, summary = self._source, self.summary
        before: set[str] | None = None
        sequence = 0
        self._warm_up()
        with outputs.opened(self._run, source) as write:
            for raw in source.frames(self._stopped):
                if raw.sequence != sequence:
                    self._stream.reset()
                    before, sequence = None, raw.sequence
                p, labels = self._classify(raw)
                names = {name for name, _ in labels}
                wanted = write(raw, p, labels)
                counts = source.dropped, source.reconnects
                yield StreamedFrame(raw.number, raw.seconds, p, labels, names != before, *counts)
                before = names
                summary.add(raw.arrived)
                summary.count(source)
                if not wanted:
                    return
            summary.count(source)
            if not summary.frames and not self._stopped():
                damaged = f", {source.damaged:,} could not be decoded" if source.damaged else ""
                raise SeqclfError(f"{self.name}: ended without a frame{damaged}")

    def _warm_up(self) -> None:
        """Loads what the first frame needs, so that a live source does not wait for it."""
        shape = self._run.predictor.frame_shape
        if shape is None:
            return
        with suppress(Exception):  # a transform that fails does so again, and is reported, at the first frame
            self._run.fit(torch.zeros(1, 3, *LRCN_FRAME, dtype=torch.uint8), shape, self.name)
        self._stream(torch.zeros(shape))
        self._stream.reset()

    def _classify(self, raw: RawFrame) -> tuple[Tensor, list[tuple[str, float]]]:
        predictor = self._run.predictor
        p = self._stream(self._run.fit(raw.pixels[None], predictor.frame_shape, self.name)[0, 0])
        return p, predictor.prediction(p[None]).label_set("last")
