"""Several runs that classify the same files together, or a single one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from seqclf.batch import SeqclfError
from seqclf.data.frames.source import Source
from seqclf.data.frames.span import Unit, VideoSpan
from seqclf.data.video.container import several_streams
from seqclf.data.video.file import VideoFile
from seqclf.experiment.config import Experiment
from seqclf.prediction.files.frames import FilePrediction, cut, file_frames, on_file
from seqclf.prediction.prediction import fuse, shares
from seqclf.prediction.reader import RunReader
from seqclf.runtime.devices import pick_device

Span: TypeAlias = tuple[float, float, Unit]
"""Start and end of a clip inside a video, and their unit; see ``VideoSpan``."""


@dataclass(frozen=True)
class FusedRuns:
    """Runs whose predictions are fused.

    Attributes:
        readers: the runs.
        weights: their weights, with sum 1.
        has_roots: whether the user gave the roots, so that each file must exist under every root.
    """

    readers: Sequence[RunReader]
    weights: Sequence[float]
    has_roots: bool

    @staticmethod
    def load(
        folders: Sequence[str | Path],
        weights: Sequence[float] | None = None,
        roots: Sequence[str] | None = None,
        checkpoint: str = "auto",
        device: str = "auto",
        experiment: Experiment | None = None,
        **changes: Any,
    ) -> FusedRuns:
        """Loads runs and checks that they fit each other.

        Args:
            folders: the run folders.
            weights: one number for each run; None for equal weights.
            roots: the folder of the videos of each run, such as frames and flow. Each run reads a file under the first
                root from the same path under its own root.
            checkpoint: "auto" (the best one, or the newest without validation), "best", "newest", or a step.
            device: "auto", "cpu", "cuda" or "cuda:<n>".
            experiment: the experiment of a single run, if its config could not be written completely.
            changes: further arguments of ``RunReader.load``.

        Raises:
            SeqclfError: as in ``RunReader.load``; classes, decision rules or numbers of arguments differ.
        """
        if not folders:
            raise SeqclfError("there is no run to predict with")
        if roots is not None and len(roots) != len(folders):
            raise SeqclfError(f"there are {len(folders)} runs, but {len(roots)} roots")
        if experiment is not None and len(folders) > 1:
            raise SeqclfError(f"experiment= is for one run, but there are {len(folders)}")
        where, share = pick_device(device), shares(len(folders), weights)
        places = [None] * len(folders) if roots is None else list(roots)
        readers = [
            RunReader.load(folder, checkpoint, where, root=root, experiment=experiment, **changes)
            for folder, root in zip(folders, places, strict=True)
        ]
        first = readers[0]
        for other in readers[1:]:
            if other.classes != first.classes:
                raise SeqclfError(f"{other.folder} and {first.folder} differ in their classes, or in the order of them")
            if other.predictor.multi_label != first.predictor.multi_label:
                raise SeqclfError(f"only one of {other.folder} and {first.folder} is a multi-label run")
            rules = other.predictor.decision, first.predictor.decision
            if rules[0] != rules[1]:
                raise SeqclfError(
                    f"{other.folder} labels clips by {rules[0]}, but {first.folder} by {rules[1]}: choose one "
                    "(decision=, --decision)"
                )
        return FusedRuns(readers, share, roots is not None)

    @property
    def classes(self) -> list[str]:
        return self.readers[0].classes

    @property
    def background(self) -> tuple[str, ...]:
        """The classes that have no segments."""
        return self.readers[0].spec.background

    def describe(self) -> dict[str, Any]:
        """The runs as plain values, for ``predictions.json``."""
        return {
            "runs": [reader.folder for reader in self.readers],
            "weights": list(self.weights),
            "classes": self.classes,
            "decision": self.readers[0].predictor.decision,
            **({"threshold": predictor.threshold} if (predictor := self.readers[0].predictor).multi_label else {}),
        }

    def find(self, path: str | Path) -> list[Path]:
        """The files that a path leads to; errors as in ``RunReader.find``."""
        return self.readers[0].find([path])

    def places(self, path: Path) -> list[Path]:
        """The path at which each run reads a file: under its own root if the file is under the first run's root."""
        root = self.readers[0].root
        first = None if root is None else Path(root).expanduser().resolve()
        if first is None or not path.resolve().is_relative_to(first):
            return [path] * len(self.readers)
        places = [path]
        for run in self.readers[1:]:
            place = path if run.root is None else Path(run.root).expanduser() / path.resolve().relative_to(first)
            places.append(place if place.exists() or self.has_roots else path)
        return places

    def predict(self, places: Sequence[Path], span: Span | None = None) -> tuple[FilePrediction, list[Source]]:
        """Classifies a file, or a span in it, with all runs.

        Returns the fused prediction and the source that each run read.

        Raises:
            SeqclfError: as in ``RunReader.open`` and ``predict``; the runs read different numbers of frames.
        """
        sources = [run.open(place) for run, place in zip(self.readers, places, strict=True)]
        if span is not None:
            sources = [VideoSpan(source, *span) for source in sources]
        each = [
            on_file(run.predict(source), file_frames(source, run.fps))
            for run, source in zip(self.readers, sources, strict=True)
        ]
        if len(each) == 1:
            return each[0], sources
        lengths = [len(one.frames.numbers) for one in each]
        if max(lengths) > min(lengths) + 1:  # optical flow has one frame less than its video
            raise SeqclfError(f"{places[0]}: the runs read it as {' and '.join(map(str, lengths))} frames")
        each = [cut(one, min(lengths)) for one in each]
        fused = fuse([one.prediction for one in each], self.weights)
        fused.clips = []  # those of several runs need not be the same
        return FilePrediction(fused, each[0].frames), sources

    def notes(self, places: Sequence[Path], sources: Sequence[Source]) -> list[str]:
        """Notes for the user on how a file is read."""
        notes = []
        if len({run.spec.flow for run in self.readers}) > len(set(places)):
            notes.append(f"runs on frames and on flow both read {places[0]}: --roots says where flow is")
        for run, place, source in zip(self.readers, places, sources, strict=True):
            file = source.source if isinstance(source, VideoSpan) else source
            if isinstance(file, VideoFile) and file.streams()[0] > 1:
                notes.append(several_streams(str(place), *file.streams()))
            if run.is_default(place):
                kind = getattr(source, "kind", "other")
                notes.append(
                    f"{run.folder} was not trained on files of this kind ({kind}): all frames are read unchanged"
                )
        return notes
