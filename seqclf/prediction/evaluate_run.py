"""Evaluation of a run as a single call; the command ``seqclf evaluate`` wraps it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from warnings import warn

from seqclf.batch import SeqclfError
from seqclf.data import Clips, Data, Videos
from seqclf.data.input_spec import DecisionRule, InputSpec, check_decision
from seqclf.evaluation.evaluator import evaluate as evaluate_clips
from seqclf.evaluation.metrics import clips_have_one_label
from seqclf.evaluation.multi_label import Threshold
from seqclf.experiment.config import Experiment, build_data
from seqclf.prediction.part import ClipRow, ClipRows, write_rows
from seqclf.prediction.run import load_run
from seqclf.runs.checkpoint import step_of
from seqclf.runtime.devices import pick_device
from seqclf.runtime.distributed import ALONE, World
from seqclf.runtime.files import check_table_path


def evaluate(
    run: str | Path,
    part: str = "test",
    checkpoint: str = "auto",
    settings: Sequence[str] = (),
    *,
    device: str = "auto",
    decision: DecisionRule | None = None,
    data: Data | None = None,
    predictions: str | Path | None = None,
    say: Callable[[str], None] = lambda text: None,
    world: World = ALONE,
    experiment: Experiment | None = None,
    threshold: Threshold | None = None,
) -> dict[str, Any]:
    """Evaluates a run's checkpoint on a part of its data.

    Args:
        run: the run's folder.
        part: "test", "validation" or "train".
        checkpoint: "auto" (the best one, or the newest without validation), "best", "newest", or a step.
        settings: ``key=value`` changes of the run's config, such as ``data.root=DIR``.
        device: "auto", "cpu", "cuda" or "cuda:<n>".
        decision: how a clip is classified; None for the run's recorded rule.
        data: data to use instead of the config's.
        predictions: a CSV to write, with a row for each clip; see ``write_rows``.
        say: called with lines of progress.
        world: the processes that share the work.
        experiment: the run's experiment, if its config could not be written completely.
        threshold: of multi-label runs, the lowest probability of a class that is predicted: a number, or one for each
            class. None for 0.5.

    Returns:
        ``run``, ``checkpoint``, ``step``, ``decision``, ``accuracy`` (of clips, by that rule) or of multi-label
        runs ``map`` (None if the labels of a clip change), ``parts`` (the metrics; see ``Metrics.result`` and
        ``MultiLabelMetrics.result``), ``data`` and ``skipped``.

    Raises:
        SeqclfError: the run or its data can't be loaded, the data has no such part, or ``predictions`` cannot be
            written or is a file that is not such a table.
    """
    if predictions is not None:
        check_table_path(predictions, ("video", "clip"))
    rows: list[ClipRow] | None = None if predictions is None else []
    results = _evaluate(
        run, part, checkpoint, settings, device, data, experiment, rows, decision, say, world, threshold
    )
    if world.leads and predictions is not None and rows is not None:
        thresholds = results["parts"][part].get("threshold")
        write_rows(predictions, rows, results["data"]["classes"], thresholds)
    return results


def predict_part(
    run: str | Path,
    part: str = "test",
    checkpoint: str = "auto",
    settings: Sequence[str] = (),
    *,
    device: str = "auto",
    data: Data | None = None,
    experiment: Experiment | None = None,
) -> list[ClipRow]:
    """The predictions for each clip of a part of a run's data, computed in batches.

    Arguments and errors are those of ``evaluate``, and so are the labels: their accuracy is exactly its accuracy.

    Returns:
        a ``ClipRow`` for each clip, in the order of the part: ``video`` (its name, or the index of a clip in memory),
        ``truth``, ``label``, ``probabilities`` and more.
    """
    rows: list[ClipRow] = []
    _evaluate(run, part, checkpoint, settings, device, data, experiment, rows)
    return rows


def _evaluate(
    run: str | Path,
    part: str,
    checkpoint: str,
    settings: Sequence[str],
    device: str,
    data: Data | None,
    experiment: Experiment | None,
    rows: list[ClipRow] | None,
    decision: DecisionRule | None = None,
    say: Callable[[str], None] = lambda text: None,
    world: World = ALONE,
    threshold: Threshold | None = None,
) -> dict[str, Any]:
    """The results of ``evaluate``; adds a row for each clip to ``rows``, in order."""
    check_decision(decision)
    where = pick_device(device, world)
    experiment, model, record, path = world.everywhere(lambda: load_run(run, checkpoint, settings, experiment))
    spec = InputSpec.from_record(record, run)
    changed = data is not None or bool(settings)
    data = data or world.everywhere(lambda: build_data(experiment))
    if data.warning:
        say(f"warning: {data.warning}")
    clips, rule = part_of(data, part, spec, run), decision or spec.decision
    if threshold is not None and not spec.multi_label:
        raise SeqclfError(f"threshold={threshold}: is for multi-label runs, but {run} has one class per clip")
    identity, trained = data.identity(), record["data"].get(part)
    if not changed and trained is not None and trained["sha256"] != identity[part]["sha256"]:
        warn(f"{run}: its {part} data has changed since training ({data.source})", stacklevel=3)
    average = "" if experiment.ema is None else f" (averaged weights, ema={experiment.ema:g})"
    say(f"{path}{average} on {part}: {data.source}")
    mine = ClipRows(clips, rule)
    metrics = evaluate_clips(
        model.to(where),
        clips.to(where),
        data.num_classes,
        experiment.eval_batch,
        experiment.precision,
        data.background,
        world,
        on_batch=None if rows is None else mine.update,
        decision=rule,
        metrics=experiment.metrics,
        threshold=0.5 if threshold is None else threshold,
    )
    skipped = {name: why for each in world.gather(data.skipped()) for name, why in each.items()}
    for name, why in skipped.items():
        say(f"skipped: {name} ({why})")
    if rows is not None:
        rows += sorted((row for each in world.gather(mine.rows) for row in each), key=lambda row: row.index)
    return {
        "run": str(run),
        "checkpoint": str(path),
        "step": step_of(path),
        "decision": rule,
        **_main_metric(metrics, rule, spec.multi_label),
        "parts": {part: metrics},
        "data": identity,
        "skipped": skipped,
    }


def _main_metric(metrics: dict[str, Any], rule: DecisionRule, multi_label: bool) -> dict[str, float | None]:
    """The accuracy of clips, or the mean average precision of multi-label data; None if the labels of a clip change."""
    name, suffix = ("map", "_map") if multi_label else ("accuracy", "")
    return {name: metrics[f"clip_{rule}{suffix}"] if clips_have_one_label(metrics) else None}


def part_of(data: Data, part: str, spec: InputSpec, run: str | Path) -> Clips | Videos:
    """A part of the data.

    Raises:
        SeqclfError: there is none, or the classes or the dtype of the frames are not the run's.
    """
    clips = data.parts().get(part)
    if clips is None:
        raise SeqclfError(f"the data of this run has no {part} part, only {' and '.join(data.parts())}")
    if tuple(data.classes) != spec.classes:
        raise SeqclfError(f"{data.source}: has the classes {_few(data.classes)}, but {run} has {_few(spec.classes)}")
    if data.multi_label != spec.multi_label:
        raise SeqclfError(f"{data.source}: has multi_label={data.multi_label}, but {run} has {spec.multi_label}")
    dtype = str(clips.frame_dtype).removeprefix("torch.")
    if spec.dtype not in (None, dtype):
        raise SeqclfError(f"{data.source}: has frames of {dtype}, but {run} was trained on {spec.dtype}")
    return clips


def _few(names: Sequence[str]) -> str:
    return ", ".join([*names[:5], *(["..."] if len(names) > 5 else [])])
