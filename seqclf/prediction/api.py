"""Prediction and evaluation as single calls; the commands ``seqclf predict`` and ``seqclf evaluate`` wrap them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from seqclf.batch import SeqclfError
from seqclf.data import Data
from seqclf.data.input_spec import DecisionRule, InputSpec, check_decision
from seqclf.data.sampling import Sampling
from seqclf.data.transforms import Size, Transform
from seqclf.evaluation.evaluator import evaluate as evaluate_clips
from seqclf.experiment.config import build_data
from seqclf.prediction.file_frames import FilePrediction, cut, file_frames, on_file
from seqclf.prediction.output import as_plain, write_frames, write_timeline
from seqclf.prediction.part import ClipRow, ClipRows, write_rows
from seqclf.prediction.prediction import fuse, shares
from seqclf.prediction.reader import RunReader, file_names
from seqclf.prediction.run import load_run
from seqclf.prediction.truth import Truth
from seqclf.runs.checkpoint import step_of
from seqclf.runtime.devices import pick_device
from seqclf.runtime.distributed import ALONE, World
from seqclf.runtime.files import write_json

Runs = str | Path | Sequence[str | Path]
"""A run folder, or several whose predictions are fused."""


@dataclass
class Progress:
    """Callbacks of `predict`; the default does nothing.

    Attributes:
        begin: with the number of files.
        done: with the prediction of a file and its plain values.
        failed: with a path and what is wrong with it.
        note: with what the user should know.
    """

    begin: Callable[[int], None] = lambda count: None
    done: Callable[[FilePrediction, dict[str, Any]], None] = lambda found, plain: None
    failed: Callable[[str, str], None] = lambda path, error: None
    note: Callable[[str], None] = lambda text: None


def predict(
    run: Runs,
    paths: str | Path | Sequence[str | Path],
    *,
    weights: Sequence[float] | None = None,
    roots: Sequence[str] | None = None,
    checkpoint: str = "newest",
    device: str = "auto",
    decision: DecisionRule | None = None,
    sampling: Sampling | None = None,
    transform: Transform | None = None,
    resize: Size | None = None,
    crop: bool = False,
    crops: int = 1,
    fps: float | None = None,
    segments: str | Path | None = None,
    unit: Literal["frames", "seconds"] = "frames",
    out: str | Path | None = None,
    timelines: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Classifies files with a run, exactly as its evaluation does, or with several runs together.

    Args:
        run: a run folder; several are fused (see ``fuse``).
        paths: videos, folders of frames, ``.npy`` files, folders of such; images for a run that reads images.
        weights: of several runs, one number each; None: all the same.
        roots: of several runs, the folder of the videos of each. A file under the first run's root is read by each run
            under its own root, such as frames and flow.
        checkpoint: "newest", "best" or the number of a step.
        device: "auto", "cpu", "cuda" or "cuda:<n>".
        decision, sampling, transform, resize, crop, crops, fps: in place of what the run recorded; see
            ``RunReader.load``.
        segments, unit: the true segments, for the timelines; see ``Truth``.
        out: a folder for ``predictions.json``, and for each file a CSV and a timeline; None: nothing is written.
        timelines: whether timelines are drawn.
        progress: called for each file.

    Returns:
        What ``predictions.json`` holds: ``runs``, ``weights``, ``classes``, ``decision``, ``videos`` (one entry per
        file) and ``failed`` (of files that can't be read, the error).

    Raises:
        SeqclfError: a run can't be loaded or does not say how it reads input; runs don't fit each other; an argument is
            out of range. An error with one file is not raised, but listed in ``failed``.
    """
    progress = progress or Progress()
    folders = [run] if isinstance(run, str | Path) else list(run)
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    if roots is not None and len(roots) != len(folders):
        raise SeqclfError(f"there are {len(folders)} runs, but {len(roots)} roots")
    where = pick_device(device)
    runs = [
        RunReader.load(
            folder,
            checkpoint,
            where,
            decision=decision,
            sampling=sampling,
            transform=transform,
            resize=resize,
            crop=crop,
            crops=crops,
            fps=fps,
            root=None if roots is None else roots[k],
        )
        for k, folder in enumerate(folders)
    ]
    for other in runs[1:]:
        if other.classes != runs[0].classes:
            raise SeqclfError(f"{other.folder} has other classes than {runs[0].folder}, or in another order")
        if other.predictor.decision != runs[0].predictor.decision:
            raise SeqclfError(
                f"{other.folder} labels clips by {other.predictor.decision}, but {runs[0].folder} by "
                f"{runs[0].predictor.decision}: choose one (decision=, --decision)"
            )
    share, background = shares(len(runs), weights), runs[0].spec.background
    truth = None
    if segments is not None:
        truth = Truth(segments, runs[0].classes, background[0] if background else None, unit)

    failed: dict[str, str] = {}

    def fail(path: str | Path, error: SeqclfError) -> None:
        failed[str(path)] = str(error) if str(path) in str(error) else f"{path}: {error}"
        progress.failed(str(path), failed[str(path)])

    found: dict[Path, None] = {}
    for path in given:
        try:
            found.update(dict.fromkeys(runs[0].find([path])))
        except SeqclfError as error:
            fail(path, error)
    progress.begin(len(found))
    videos: list[dict[str, Any]] = []
    noted: set[str] = set()
    for file, name in zip(found, file_names(list(found)), strict=True):
        try:
            places = _places(runs, file, roots is not None)
            prediction, sources = _predict_file(runs, share, places)
        except SeqclfError as error:
            fail(file, error)
            continue
        for note in _notes(runs, places, sources):
            if note not in noted:
                progress.note(note)
                noted.add(note)
        changes = getattr(sources[0], "changes", None)
        plain = {
            "name": name,
            "path": str(file),
            "read": [source.path for source in sources],
            **as_plain(prediction),
            **({} if changes is None else {"changes": changes}),
        }
        videos.append(plain)
        known = None
        if truth is not None:
            try:
                known = truth.of(file, prediction.frames)
                known = known[: len(prediction.prediction.probabilities)]
            except SeqclfError as error:  # the prediction is good all the same
                fail(file, error)
        if out is not None:
            write_frames(Path(out, f"{name}.csv"), prediction)
            if timelines and getattr(sources[0], "kind", None) != "image":
                write_timeline(Path(out, f"{name}.png"), prediction, file.name, known, background)
        progress.done(prediction, plain)
    result = {
        "runs": [reader.folder for reader in runs],
        "weights": share,
        "classes": runs[0].classes,
        "decision": runs[0].predictor.decision,
        "videos": videos,
        "failed": failed,
    }
    if out is not None and videos:
        write_json(Path(out, "predictions.json"), result)
    return result


def _predict_file(
    runs: Sequence[RunReader], weights: Sequence[float], places: Sequence[Path]
) -> tuple[FilePrediction, list[Any]]:
    """The prediction of a file by all runs together, and what each has read."""
    sources = [run.open(place) for run, place in zip(runs, places, strict=True)]
    each = [
        on_file(run.predict(source), file_frames(source, run.fps)) for run, source in zip(runs, sources, strict=True)
    ]
    if len(each) == 1:
        return each[0], sources
    lengths = [len(one.frames.numbers) for one in each]
    if max(lengths) > min(lengths) + 1:  # flow, which is between two frames, has one less than its video
        raise SeqclfError(f"{places[0]}: the runs read it as {' and '.join(map(str, lengths))} frames")
    each = [cut(one, min(lengths)) for one in each]
    fused = fuse([one.prediction for one in each], weights)
    fused.clips = []  # those of several runs need not be the same
    return FilePrediction(fused, each[0].frames), sources


def _places(runs: Sequence[RunReader], path: Path, named: bool) -> list[Path]:
    """Where each run finds a file: under its own root, if the file is under the first run's, or else where it is.

    Args:
        named: whether the user named the roots, so that a file must be there.
    """
    first = None if runs[0].root is None else Path(runs[0].root).expanduser().resolve()
    if first is None or not path.resolve().is_relative_to(first):
        return [path] * len(runs)
    places = [path]
    for run in runs[1:]:
        place = path if run.root is None else Path(run.root).expanduser() / path.resolve().relative_to(first)
        places.append(place if place.exists() or named else path)
    return places


def _notes(runs: Sequence[RunReader], places: Sequence[Path], sources: Sequence[Any]) -> list[str]:
    """What the user should know of how files are read."""
    notes = []
    if len({run.spec.flow for run in runs}) > len(set(places)):
        notes.append(f"runs on frames and on flow both read {places[0]}: --roots says where flow is")
    for run, place, source in zip(runs, places, sources, strict=True):
        if run.is_default(place):
            kind = getattr(source, "kind", "other")
            notes.append(f"{run.folder} was not trained on files of this kind ({kind}): every frame is read as it is")
    return notes


def evaluate(
    run: str | Path,
    part: str = "test",
    checkpoint: str = "newest",
    settings: Sequence[str] = (),
    *,
    device: str = "auto",
    decision: DecisionRule | None = None,
    data: Data | None = None,
    predictions: str | Path | None = None,
    out: str | Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    world: World = ALONE,
) -> dict[str, Any]:
    """Evaluates a run's checkpoint on a part of its data.

    Args:
        run: the run's folder.
        part: "test", "validation" or "train".
        checkpoint: "newest", "best" or the number of a step.
        settings: ``key=value`` changes of the run's config, such as ``data.root=DIR``.
        device: "auto", "cpu", "cuda" or "cuda:<n>".
        decision: how a clip is labelled, in place of what the run recorded.
        data: in place of the config's.
        predictions: a CSV to write, with a row for each clip; see ``write_rows``.
        out: a JSON file to write; None for none.
        say: called with lines of progress.
        world: the processes that share the work.

    Returns:
        ``run``, ``checkpoint``, ``step``, ``decision``, ``accuracy`` (of clips, by that rule; None where clips have
        several labels), ``parts`` (the figures; see ``Metrics.result``), ``data`` and ``skipped``.

    Raises:
        SeqclfError: the run or its data can't be loaded, or the data has no such part.
    """
    results, rows, spec = _evaluate(
        run, part, checkpoint, settings, device, decision, data, predictions is not None, say, world
    )
    if world.leads:
        if predictions is not None:
            write_rows(predictions, rows, spec.classes, results["decision"])
        if out is not None:
            write_json(out, results)
    return results


def predict_part(
    run: str | Path,
    part: str = "test",
    checkpoint: str = "newest",
    settings: Sequence[str] = (),
    *,
    device: str = "auto",
    data: Data | None = None,
) -> list[ClipRow]:
    """The clips of a part of a run's data one by one, as ``evaluate`` counts them, in order; arguments as there."""
    return _evaluate(run, part, checkpoint, settings, device, None, data, True, lambda text: None, ALONE)[1]


def _evaluate(
    run: str | Path,
    part: str,
    checkpoint: str,
    settings: Sequence[str],
    device: str,
    decision: DecisionRule | None,
    data: Data | None,
    with_rows: bool,
    say: Callable[[str], None],
    world: World,
) -> tuple[dict[str, Any], list[ClipRow], InputSpec]:
    check_decision(decision)
    where = pick_device(device, world)
    experiment, model, record, path = world.everywhere(lambda: load_run(run, checkpoint, settings))
    spec = InputSpec.from_record(record, run)
    data = data or world.everywhere(lambda: build_data(experiment))
    if data.warning:
        say(f"*** {data.warning} ***")
    clips = data.parts().get(part)
    if clips is None:
        raise SeqclfError(f"the data of this run has no {part} part (data.validation= makes one)")
    rule = decision or spec.decision
    say(f"{path} on {part}: {data.source}; clips are labelled by their {_IN_WORDS[rule]}")
    rows = ClipRows(clips)
    figures = evaluate_clips(
        model.to(where),
        clips.to(where),
        data.num_classes,
        experiment.eval_batch,
        experiment.precision,
        data.background,
        world,
        rows.update if with_rows else None,
    )
    skipped = {name: why for each in world.gather(data.skipped()) for name, why in each.items()}
    for name, why in skipped.items():
        say(f"left out: {name} ({why})")
    results = {
        "run": str(run),
        "checkpoint": str(path),
        "step": step_of(path),
        "decision": rule,
        "accuracy": figures[f"clip_{rule}"],
        "parts": {part: figures},
        "data": data.identity(),
        "skipped": skipped,
    }
    every = [row for each in world.gather(rows.rows) for row in each] if with_rows else []
    return results, sorted(every, key=lambda row: row.index), spec


_IN_WORDS = {"last": "last frame", "mean": "mean over frames"}
