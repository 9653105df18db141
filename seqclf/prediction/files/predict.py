"""Prediction of files as a single call; the command ``seqclf predict`` wraps it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.data.frames.source import Source
from seqclf.data.frames.span import Unit, span_text
from seqclf.data.input_spec import DecisionRule
from seqclf.data.lists.splits import Selection
from seqclf.data.lists.video_list import read_paths
from seqclf.data.sampling import Sampling
from seqclf.data.tables.table import header_of
from seqclf.data.transforms import Size, Transform
from seqclf.evaluation.multi_label import Threshold
from seqclf.experiment.config import Experiment
from seqclf.prediction.files.frames import FilePrediction
from seqclf.prediction.files.fused_runs import FusedRuns, Span
from seqclf.prediction.files.output import as_plain, write_frames, write_timeline
from seqclf.prediction.files.page import EMBED, PredictionPage
from seqclf.prediction.files.truth import Truth
from seqclf.prediction.reader import file_names
from seqclf.runtime.files import make_folder, read_json_object, write_json
from seqclf.runtime.paths import as_list
from seqclf.runtime.text import counted


@dataclass
class Progress:
    """Callbacks of `predict`; the default does nothing.

    Attributes:
        begin: called with the number of files.
        done: called with the prediction of a file and its entry in ``predictions.json``.
        failed: called with the path of a file and the error.
        note: called with a note for the user.
        wrote: called with the path of each file that is written.
    """

    begin: Callable[[int], None] = lambda count: None
    done: Callable[[FilePrediction, dict[str, Any]], None] = lambda found, plain: None
    failed: Callable[[str, str], None] = lambda path, error: None
    note: Callable[[str], None] = lambda text: None
    wrote: Callable[[Path], None] = lambda path: None


def predict(
    run: str | Path | Sequence[str | Path],
    paths: str | Path | Sequence[str | Path],
    *,
    weights: Sequence[float] | None = None,
    roots: Sequence[str] | None = None,
    checkpoint: str = "auto",
    device: str = "auto",
    decision: DecisionRule | None = None,
    sampling: Sampling | None = None,
    transform: Transform | None = None,
    resize: Size | None = None,
    crop: bool = False,
    crops: int = 1,
    fps: float | None = None,
    video_stream: int | None = None,
    segments: str | Path | None = None,
    unit: Unit | None = None,
    out: str | Path | None = None,
    timelines: bool = True,
    progress: Progress | None = None,
    experiment: Experiment | None = None,
    list_file: str | Path | None = None,
    list_unit: Unit | Literal["auto"] = "auto",
    threshold: Threshold | None = None,
    html: str | Path | None = None,
    embed: float = EMBED,
) -> dict[str, Any]:
    """Classifies files with a run, exactly as in its evaluation, or with several runs whose predictions are fused.

    Args:
        run: a run folder, or several (see ``fuse``).
        paths: videos, folders of frames, ``.npy`` files, or folders of them; images for a run that reads images.
        weights, roots: one for each run, if there are several; see ``FusedRuns.load``.
        checkpoint, device: as in ``evaluate``.
        decision, sampling, transform, resize, crop, crops, fps, video_stream, threshold, experiment: in place of what
            the run recorded; see ``RunReader.load``.
        segments, unit: the true segments for timelines, read as the run's own unless ``unit`` is given; see ``Truth``.
        out: the folder to write ``predictions.json`` to, and a CSV and a timeline for each file; None to write nothing.
        timelines, progress: whether to draw timelines; callbacks.
        list_file, list_unit: a list of videos under the root of the run (or the first of ``roots``), classified after
            ``paths``; labels are ignored. "auto" reads it as the run's own lists. A split column gives test rows.
        html, embed: a page to write that plays the videos above their timelines; None for none. See ``report_videos``.

    Returns:
        ``runs``, ``weights``, ``classes``, ``decision``, ``videos`` (one entry per file), ``failed`` (path -> error).

    Raises:
        SeqclfError: a run can't be loaded; runs do not fit; an argument is wrong; ``out`` can't be made; there are no
            files, or none could be predicted and no ``progress`` reports why. Errors of single files are in ``failed``.
    """
    how: dict[str, Any] = {"decision": decision, "sampling": sampling, "transform": transform, "resize": resize}
    how |= {"crop": crop, "crops": crops, "fps": fps, "video_stream": video_stream, "threshold": threshold}
    runs = FusedRuns.load(as_list(run), weights, roots, checkpoint, device, experiment, **how)
    truth, page = _truth(segments, unit, runs), None if html is None else _page(html, runs, embed)
    files = _Files(runs, truth, None if out is None else Path(out), timelines, progress or Progress(), page)
    result = files.predict(as_list(paths), [] if list_file is None else _read_list(list_file, list_unit, files))
    if progress is None and not result["videos"]:
        raise SeqclfError(_none_predicted(result["failed"]))
    return result


def _none_predicted(failed: dict[str, str]) -> str:
    """Why no file could be predicted: the first error."""
    if not failed:
        return "no file to classify: paths= and list_file= name none"
    first = next(iter(failed.values()))
    return first if len(failed) == 1 else f"none of {len(failed)} files could be predicted; the first error: {first}"


def _page(path: str | Path, runs: FusedRuns, embed: float) -> PredictionPage:
    """The empty page of predictions of runs."""
    first = runs.readers[0]
    if "image" in first.spec.readers:
        raise SeqclfError(f"{path}: a page plays videos, but {first.folder} reads images (leave out html=, --html)")
    title = "Predictions of " + ", ".join(Path(reader.folder).name for reader in runs.readers)
    return PredictionPage(path, title, runs.classes, first.predictor.multi_label, runs.background, embed)


def _truth(segments: str | Path | None, unit: Unit | None, runs: FusedRuns) -> Truth | None:
    """The true segments of the files that runs predict, if they are known."""
    if segments is None:
        return None
    first, background = runs.readers[0], next(iter(runs.background), None)
    return Truth(segments, runs.classes, background, unit, first.predictor.multi_label, first.annotation)


def _read_list(path: str | Path, unit: Unit | Literal["auto"], files: _Files) -> list[tuple[Path, Span | None]]:
    """The videos of a list, each with its span if it is a clip inside a video. A note says which rows they are."""
    run = files.runs.readers[0]
    if run.root is None:
        raise SeqclfError(f"{path}: the run recorded no folder of videos; roots= (--roots) names it")
    how = {**run.listing, **({} if unit == "auto" else {"unit": unit})}
    columns = {use: name for use, name in how.get("columns", {}).items() if use in ("path", "start", "end")}
    header = header_of(path).header if columns else []
    if any(isinstance(name, str) and name not in header for name in columns.values()):
        columns = {}  # a list of another form
    found = read_paths(
        path,
        Path(run.root).expanduser(),
        columns=columns,
        select=Selection("test"),
        clips=how.get("unit", "auto"),
        inclusive=how.get("inclusive") if how.get("unit") != "seconds" else None,
    )
    files.progress.note(found.description)
    spans = [None if e.span is None or found.unit is None else (*e.span, found.unit) for e in found.videos]
    return [(entry.path, span) for entry, span in zip(found.videos, spans, strict=True)]


@dataclass
class _Files:
    """The state of one call of ``predict``."""

    runs: FusedRuns
    truth: Truth | None
    out: Path | None
    timelines: bool
    progress: Progress
    page: PredictionPage | None = None
    videos: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    notes: set[str] = field(default_factory=set)
    written: set[Path] = field(default_factory=set)

    def predict(self, paths: Sequence[str | Path], in_list: Sequence[tuple[Path, Span | None]]) -> dict[str, Any]:
        """Finds and classifies files, then those of a list; returns the result of ``predict``."""
        if self.out is not None:
            make_folder(self.out)
        found: dict[Path, None] = {}
        for path in paths:
            try:
                found.update(dict.fromkeys(self.runs.find(path)))
            except SeqclfError as error:
                self._fail(path, error)
        clips = [*((file, None) for file in found), *in_list]
        self.progress.begin(len(clips))
        for (file, span), name in zip(clips, file_names([file for file, _ in clips]), strict=True):
            try:
                self._predict_file(file, name, span)
            except SeqclfError as error:
                self._fail(file, error)
        result = {**self.runs.describe(), "videos": self.videos, "failed": self.failed}
        if self.page is not None and len(self.page):
            self._wrote(
                self.page.write(f"{counted(len(self.page), 'video')}, predicted by {', '.join(result['runs'])}")
            )
        if self.out is not None and self.videos:
            self._note_earlier(self.out)
            self._wrote(write_json(self.out / "predictions.json", result))
        return result

    def _predict_file(self, file: Path, name: str, span: Span | None) -> None:
        places = self.runs.places(file)
        prediction, sources = self.runs.predict(places, span)
        for note in self.runs.notes(places, sources):
            if note not in self.notes:
                self.progress.note(note)
                self.notes.add(note)
        changes = getattr(sources[0], "changes", None)
        plain = {
            "name": name,
            "path": str(file),
            "read": [source.path for source in sources],
            **({} if span is None else {"span": {"start": span[0], "end": span[1], "unit": span[2]}}),
            **as_plain(prediction),
            **({} if changes is None else {"changes": changes}),
        }
        self.videos.append(plain)
        truth = self._truth(file, prediction, sources[0])
        is_video = getattr(sources[0], "kind", None) != "image"
        if self.out is not None:
            self._wrote(write_frames(self.out / f"{name}.csv", prediction))
            if self.timelines and is_video:
                timeline = self.out / f"{name}.png"
                self._wrote(write_timeline(timeline, prediction, file.name, truth, self.runs.background))
        if self.page is not None and is_video:
            self._show(file, span, prediction, sources[0], truth, plain)
        self.progress.done(prediction, plain)

    def _show(
        self,
        file: Path,
        span: Span | None,
        prediction: FilePrediction,
        source: Source,
        truth: Tensor | None,
        plain: dict[str, Any],
    ) -> None:
        """Adds a file to the page and records how it is shown. Errors do not affect the prediction."""
        assert self.page is not None
        title = file.name if span is None else f"{file.name} ({span_text(*span)})"
        try:
            plain["page"] = self.page.add(plain["name"], title, prediction, source, truth)
        except SeqclfError as error:
            self._fail(file, error)

    def _wrote(self, path: Path) -> None:
        self.written.add(path)
        self.progress.wrote(path)

    def _note_earlier(self, out: Path) -> None:
        """Notes the files of an earlier prediction, which the new ``predictions.json`` does not list."""
        try:
            names = [video["name"] for video in read_json_object(out / "predictions.json", ["videos"])["videos"]]
        except (SeqclfError, TypeError, KeyError):
            return
        places = (out / f"{name}{suffix}" for name in names for suffix in (".csv", ".png"))
        stale = [path for path in places if path not in self.written and path.exists()]
        if stale:
            files = f"{counted(len(stale), 'file')} of an earlier prediction, such as {stale[0].name}"
            self.progress.note(f"{out}: has {files}: predictions.json no longer lists them")

    def _truth(self, file: Path, prediction: FilePrediction, source: Source) -> Tensor | None:
        """The true labels of a file's frames; None if unknown. Errors do not affect the prediction."""
        if self.truth is None:
            return None
        try:
            return self.truth.of(file, prediction.frames, source)[: len(prediction.prediction.probabilities)]
        except SeqclfError as error:
            self._fail(file, error)
            return None

    def _fail(self, path: str | Path, error: SeqclfError) -> None:
        self.failed[str(path)] = str(error) if str(path) in str(error) else f"{path}: {error}"
        self.progress.failed(str(path), self.failed[str(path)])
