"""The metrics of a run by name, as tables show them; and the table that the terminal shows."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from typing import Any

from seqclf.evaluation.metrics import clips_have_one_label
from seqclf.reporting.page import percent
from seqclf.runs.folder import RunFolder

TITLES = {
    "frame_accuracy": "frame accuracy",
    "clip_last": "clip accuracy, last frame",
    "clip_mean": "clip accuracy, mean of frames",
}
"""Accuracies, from 0 to 1."""
MULTI_LABEL = {
    "label_accuracy": "label accuracy",
    "frame_map": "mAP of frames",
    "clip_last_map": "mAP of clips by last frame",
    "clip_mean_map": "mAP of clips by mean of frames",
}
"""Metrics of multi-label data, from 0 to 1."""
OF_CLASSES = {
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "weighted_f1": "weighted F1",
    "kappa": "Cohen's kappa",
}
"""Metrics for classes of unequal size; their names in results begin with "clip_" or "frame_"."""
TOP_K = re.compile(r"top(\d+)_accuracy")
"""The name of a top-k accuracy."""
SEGMENTAL = {"edit": "edit score", "f1_10": "F1@10", "f1_25": "F1@25", "f1_50": "F1@50"}
"""Segment metrics, from 0 to 100. Only runs on whole annotated videos have them."""
RULES = {"last": "last frame", "mean": "mean over frames"}
"""The decision rules in words: what a clip is classified by."""


def metric_title(name: str) -> str:
    """The title of a metric, such as "macro F1 of clips" for ``clip_macro_f1``."""
    if _of_classes(name):
        unit, _, rest = name.partition("_")
        return f"{OF_CLASSES[rest]} of {unit}s"
    return (TITLES | MULTI_LABEL | SEGMENTAL).get(name, name)


def _of_classes(name: str) -> bool:
    """Whether this is one of ``OF_CLASSES``, over clips or frames, and no metric of the user such as "my_kappa"."""
    unit, _, rest = name.partition("_")
    return unit in ("clip", "frame") and rest in OF_CLASSES


def metric_text(name: str, value: float | None) -> str:
    """A metric of ``results.json`` as text: a percentage, or four digits of the loss, kappa and the user's metrics."""
    if value is None:
        return "–"
    if name in SEGMENTAL:
        return percent(value / 100)
    share = name in TITLES | MULTI_LABEL or TOP_K.fullmatch(name) or _of_classes(name)
    return percent(value) if share and not name.endswith("kappa") else f"{value:.4f}"


def test_metrics(results: dict[str, Any]) -> dict[str, Any]:
    """The test metrics of a run: those of its best checkpoint, or of its last step without a validation part."""
    metrics: dict[str, Any] = (results.get("best") or results)["parts"]["test"]
    return metrics


def result_columns(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The metrics of a run by the headings of a table: of its last step, and of its best step if that is another."""
    best = results.get("best")
    if not best or best["step"] == results["step"]:
        return dict(results["parts"])
    ends = (results, best)
    return {f"{part}, step {end['step']:,}": metrics for end in ends for part, metrics in end["parts"].items()}


def describe_best(best: dict[str, Any]) -> str:
    """A sentence on the best checkpoint of ``results.json``."""
    return (
        f"Best checkpoint: step {best['step']:,}, {best['metric']} {metric_text(best['metric'], best['value'])} on "
        "validation. Its test metrics are the result of the run."
    )


def is_multi_label(metrics: dict[str, Any]) -> bool:
    """Whether the metrics of a part are those of multi-label data."""
    return "frame_map" in metrics


def chosen_metrics(results: dict[str, Any], record: dict[str, Any]) -> list[str]:
    """The metrics that a table of a run always shows: the user's, and the one that chose the best checkpoint."""
    best = results.get("best")
    return [*record.get("metrics", ()), *([best["metric"]] if best else [])]


def result_rows(parts: dict[str, Any], always: Sequence[str] = ()) -> list[tuple[str, list[str]]]:
    """The rows of the results table: a title, and a text for each part of the data.

    Metrics of clips are left out if the label of a clip changes.

    Args:
        parts: the metrics of each part.
        always: the names of metrics that are not left out.
    """
    main = parts.get("test") or next(iter(parts.values()))
    clips = clips_have_one_label(*parts.values())
    titles = {
        "clips": "clips",
        "frames": "frames (labelled)",
        "labels": "labels (known)",
        "frame_accuracy": TITLES["frame_accuracy"],
        **{name: f"top-{found[1]} accuracy" for name in main if (found := TOP_K.fullmatch(name))},
        "clip_last": TITLES["clip_last"],
        "clip_mean": TITLES["clip_mean"],
        **MULTI_LABEL,
        **{name: metric_title(name) for each in OF_CLASSES for name in [f"{'clip' if clips else 'frame'}_{each}"]},
        "loss": "loss",
        **SEGMENTAL,
        **{name: metric_title(name) for name in always},
    }
    titles = {name: title for name, title in titles.items() if name in main}
    if not clips:
        titles = {name: title for name, title in titles.items() if name in always or not name.startswith("clip")}

    def text(part: dict[str, Any], name: str) -> str:
        return f"{part[name]:,}" if name in ("clips", "frames", "labels") else metric_text(name, part.get(name))

    return [(title, [text(part, name) for part in parts.values()]) for name, title in titles.items()]


ClassRow = tuple[str, int, float | None, float | None, float | None, str]


def ranked_classes(classes: Sequence[str], metrics: dict[str, Any]) -> list[ClassRow]:
    """Name, labelled frames, accuracy, precision, F1 and most frequent confusion of each class, lowest accuracy first.

    The accuracy of a class is its recall.
    """
    rows = []
    for k, (counts, accuracy) in enumerate(zip(metrics["confusion"], metrics["class_accuracy"], strict=True)):
        others = [0 if j == k else count for j, count in enumerate(counts)]
        most = max(others)
        confused = f"{classes[others.index(most)]} ({percent(most / sum(counts), 1)})" if most else "–"
        precision, f1 = (metrics.get(f"frame_class_{name}", {k: None})[k] for name in ("precision", "f1"))
        rows.append((classes[k], sum(counts), accuracy, precision, f1, confused))
    return sorted(rows, key=lambda row: math.inf if row[2] is None else row[2])


def ranked_labels(classes: Sequence[str], metrics: dict[str, Any]) -> list[tuple[str, int, float | None, float | None]]:
    """Name, positive labels of frames, average precision and F1 of each class of multi-label data, lowest AP first."""
    columns = (metrics[name] for name in ("class_positives", "frame_class_ap", "frame_class_f1"))
    rows = list(zip(classes, *columns, strict=True))
    return sorted(rows, key=lambda row: math.inf if row[2] is None else row[2])


def print_results(results: dict[str, Any]) -> None:
    """Prints the content of ``results.json``: a column for each part, the best step, the classes with most errors."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    console.width = max(console.width, 80)  # a narrow terminal wraps lines, but no text is cut
    columns = result_columns(results)
    main = [name for name in columns if name.startswith("test")][-1:]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"after step {results['step']:,}", no_wrap=True)
    for name in columns:
        style = "bold" if name in main else ""
        table.add_column(name.replace(", ", "\n"), justify="right", style=style, no_wrap=True)
    run = RunFolder(results["run"])
    record = run.read_record() if run.record.exists() else {}
    for title, values in result_rows(columns, chosen_metrics(results, record)):
        table.add_row(title, *values)
    console.print(table)
    if results.get("best"):
        console.print(Text(describe_best(results["best"])), soft_wrap=True)
    if record:
        metrics = columns[main[0] if main else next(iter(columns))]
        several = is_multi_label(metrics)
        ranked = (ranked_labels if several else ranked_classes)(record["data"]["classes"], metrics)
        worst = ", ".join(f"{row[0]} {percent(row[2])}" for row in ranked[:5])
        what = "average precision of frames" if several else "frame accuracy"
        console.print(Text(f"lowest {what} of {len(ranked)} classes: {worst}"), soft_wrap=True)
