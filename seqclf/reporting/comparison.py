"""Comparison of runs: the settings that differ, their metrics, and means over runs that differ only in their seed."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqclf.batch import SeqclfError
from seqclf.evaluation.metrics import clips_have_one_label
from seqclf.reporting.metrics import TITLES, metric_title
from seqclf.reporting.pictures import curves_by_part
from seqclf.runs.folder import RunFolder

METRICS = (
    *TITLES,
    "frame_map",
    "clip_last_map",
    "clip_mean_map",
    "frame_macro_f1",
    "clip_macro_f1",
    "edit",
    "f1_50",
    "loss",
)
"""The metrics of a comparison, by their names in ``results.json``."""

PARTS = ("validation", "test")
BEST = "best_"
"""Names that begin with it are of the best checkpoint: ``best_step``, ``best_test.clip_last``."""
Row = dict[str, Any]


@dataclass
class Run:
    """One run as a comparison reads it.

    Attributes:
        name: the name of its folder, made unique.
        settings: dotted name -> value as Python text, such as ``{"model.temporal.hidden": "100"}``.
        step: the last step with metrics.
        best_step: the step of the best checkpoint, if there is one.
        finished: whether the run has reached its last step.
        metrics: ``{"test.clip_last": 0.98, ...}`` of the last step; ``{"best_test.clip_last": 0.99, ...}`` of the best.
        curves: the lines of ``metrics.jsonl`` by part of the data.
    """

    name: str
    settings: dict[str, str]
    step: int
    best_step: int | None
    finished: bool
    metrics: dict[str, float]
    curves: dict[str, list[dict[str, Any]]]


def has_figures(path: str | Path) -> bool:
    """Whether a folder is a run that has been evaluated at least once."""
    folder = RunFolder(path)
    if not (folder.config.is_file() and folder.record.is_file()):
        return False
    return folder.has_results() or any(line["part"] != "train" for line in folder.read_metrics())


def read_run(path: str | Path, name: str) -> Run:
    """Reads a run. An unfinished run has the metrics of its last evaluation.

    Raises:
        SeqclfError: it is no run, or has no metrics yet.
    """
    folder = RunFolder.open(path)
    curves = curves_by_part(folder.read_metrics())
    best = None
    if folder.has_results():
        results = folder.read_results()
        step, parts, best = results["step"], dict(results["parts"]), results.get("best")
        if best:
            parts |= {f"{BEST}{part}": metrics for part, metrics in best["parts"].items()}
    else:
        last = {part: lines[-1] for part, lines in curves.items() if part != "train"}
        step = max((line["step"] for line in last.values()), default=0)
        parts = {part: line for part, line in last.items() if line["step"] == step}
    own = folder.read_record().get("metrics", ())
    metrics = {f"{part}.{name}": values[name] for part, values in parts.items() for name in _compared(values, own)}
    if not metrics:
        raise SeqclfError(f"{path} has no metrics yet: it stopped before its first evaluation")
    settings = settings_of_config(folder.read_config(), folder.config)
    return Run(name, settings, step, best["step"] if best else None, folder.has_results(), metrics, curves)


def _compared(values: dict[str, Any], own: Sequence[str]) -> list[str]:
    """The names of a part's metrics that are compared: those of clips only if each clip has one label."""
    names = [name for name in (*METRICS, *own) if values.get(name) is not None]
    if "clips" in values and not clips_have_one_label(values):  # a line of metrics.jsonl has only what is meaningful
        return [name for name in names if name in own or not name.startswith("clip_")]
    return [name for name in names if name != "frame_macro_f1" or "clip_macro_f1" not in names]


def settings_of_config(text: str, name: str | Path = "config.py") -> dict[str, str]:
    """The settings of a resolved config by dotted name, without running it.

    Args:
        text: the content of a run's ``config.py``.
        name: the file, for errors.

    Raises:
        SeqclfError: the text is not a resolved config.
    """
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise SeqclfError(f"{name}, line {error.lineno}: {error.msg}") from None
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Experiment"]
    if len(calls) != 1:
        raise SeqclfError(f"{name}: expected one Experiment(...), found {len(calls)}")
    settings: dict[str, str] = {}
    for keyword in calls[0].keywords:
        _flatten(keyword.arg or "", keyword.value, settings)
    return settings


def _flatten(name: str, node: ast.expr, settings: dict[str, str]) -> None:
    """Adds a value, and for a ``partial`` each of its arguments, to ``settings``."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "partial" and node.args:
        settings[name] = ast.unparse(node.args[0])
        for n, argument in enumerate(node.args[1:]):
            _flatten(f"{name}.{n}", argument, settings)
        for keyword in node.keywords:
            _flatten(f"{name}.{keyword.arg}", keyword.value, settings)
    elif isinstance(node, (ast.List, ast.Tuple)) and any(isinstance(item, ast.Call) for item in node.elts):
        for n, item in enumerate(node.elts):
            _flatten(f"{name}.{n}", item, settings)
    else:
        settings[name] = ast.unparse(node)


def differing(runs: Sequence[Run]) -> list[str]:
    """The settings that are not the same in all runs, in the order of the configs."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    return [name for name in names if len({run.settings.get(name) for run in runs}) > 1]


def seed_groups(runs: Sequence[Run]) -> list[list[Run]]:
    """The runs in groups whose settings are the same except for the seed, in the order of their first runs."""
    groups: dict[tuple[tuple[str, str], ...], list[Run]] = {}
    for run in runs:
        key = tuple(sorted((name, value) for name, value in run.settings.items() if name != "seed"))
        groups.setdefault((*key, ("finished", str(run.finished))), []).append(run)
    return list(groups.values())


def comparison_rows(runs: Sequence[Run]) -> list[Row]:
    """One row for each run, and one for each group of several seeds: mean and sample standard deviation."""
    settings = differing(runs)
    found = dict.fromkeys(name for run in runs for name in run.metrics)
    parts = (*PARTS, *(f"{BEST}{part}" for part in PARTS))
    names = sorted(found, key=lambda name: parts.index(name.partition(".")[0]))
    with_best = any(run.best_step is not None for run in runs)
    rows = []
    for group in seed_groups(runs):
        for run in group:
            row = {"run": run.name, "runs": 1, **_steps([run], with_best), "finished": run.finished}
            row |= {name: run.settings.get(name) for name in settings}
            rows.append(row | {name: run.metrics.get(name) for name in names})
        if len(group) > 1:
            rows.append(_mean_row(group, settings, names, with_best))
    return rows


def _mean_row(group: Sequence[Run], settings: Sequence[str], names: Sequence[str], with_best: bool) -> Row:
    same = {name: group[0].settings.get(name) for name in settings}
    if "seed" in same:
        same["seed"] = ", ".join(run.settings.get("seed", "0") for run in group)
    row: Row = {"run": f"mean of {len(group)}", "runs": len(group), **_steps(group, with_best)}
    row |= {"finished": group[0].finished, **same}
    for name in names:
        values = [run.metrics[name] for run in group if name in run.metrics]
        row[name] = statistics.mean(values) if len(values) == len(group) else None
        row[f"{name}_sd"] = statistics.stdev(values) if len(values) == len(group) else None
    return row


def _steps(group: Sequence[Run], with_best: bool) -> Row:
    """The last and the best step; None where the runs differ."""
    last, best = {run.step for run in group}, {run.best_step for run in group}
    row: Row = {"step": last.pop() if len(last) == 1 else None}
    return row | ({f"{BEST}step": best.pop() if len(best) == 1 else None} if with_best else {})


def main_metric(metrics: Sequence[Mapping[str, Any]]) -> str:
    """Accuracy (or mAP) of clips by their last frame, unless more runs have only that of frames."""

    def count(name: str) -> int:
        return sum(any(each.get(f"{part}.{name}") is not None for part in PARTS) for each in metrics)

    return max(("clip_last", "frame_accuracy", "clip_last_map", "frame_map"), key=count)


def column_title(name: str) -> str:
    """The heading of a metric's column: "test: clip accuracy, last frame" for ``test.clip_last``."""
    part, metric = name.split(".", 1)
    return f"{part}: {metric_title(metric)}"
