"""The summary of a cross-validation: a row per fold, mean and standard deviation."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from seqclf.evaluation.metrics import clips_have_one_label
from seqclf.reporting.metrics import metric_text, metric_title, test_metrics
from seqclf.runs.folder import RunFolder
from seqclf.runtime.files import write_csv, write_json
from seqclf.runtime.text import UNBROKEN


def summarise(rows: Sequence[tuple[str, dict[str, Any]]], own: Iterable[str] = ()) -> dict[str, Any]:
    """The summary of the folds' results: test metrics of each, mean and sample standard deviation.

    Args:
        rows: for each fold what it is tested on, and its ``results.json``.
        own: the names of the user's metrics.

    Returns:
        ``folds``, ``mean`` and ``sd``, in which a metric that a fold lacks has no mean; and ``main``, the names of the
        metrics that a table shows.

    Raises:
        SeqclfError: the record of a run cannot be read.
    """
    folds = []
    for number, (name, results) in enumerate(rows):
        clips = RunFolder(results["run"]).read_record()["data"]["test"]["clips"]
        step = (results["best"] or results)["step"]
        numbers = {key: value for key, value in test_metrics(results).items() if isinstance(value, float)}
        folds.append({"fold": number, "run": results["run"], "test": name, "clips": clips, "step": step, **numbers})
    shared = [key for key, value in folds[0].items() if isinstance(value, float) and all(key in row for row in folds)]
    values = {key: [row[key] for row in folds] for key in shared}
    decision = rows[0][1]["decision"]
    main = ["frame_accuracy", "frame_map", "frame_macro_f1"]
    if clips_have_one_label(*(test_metrics(results) for _, results in rows)):
        main = [f"clip_{decision}", f"clip_{decision}_map", "clip_macro_f1"]
    main += ["edit", "f1_50", "loss", *own]
    return {
        "folds": folds,
        "main": [name for name in main if name in shared],
        "mean": {key: statistics.mean(found) for key, found in values.items()},
        "sd": {key: statistics.stdev(found) for key, found in values.items()},
    }


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    """Writes ``cross_validation.json`` and ``cross_validation.csv``.

    Raises:
        SeqclfError: a file cannot be written.
    """
    write_json(folder / "cross_validation.json", summary)
    header = list(dict.fromkeys(name for row in summary["folds"] for name in row))
    rows = [*summary["folds"], {"fold": "mean", **summary["mean"]}, {"fold": "sd", **summary["sd"]}]
    write_csv(folder / "cross_validation.csv", header, [[row.get(name) for name in header] for row in rows])


def print_summary(summary: dict[str, Any]) -> None:
    """Prints a table of the main test metrics."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    names = summary["main"]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("fold", "test", "clips", "step", *map(metric_title, names)):
        table.add_column(title, justify="left" if title == "test" else "right", overflow="fold")
    for row in summary["folds"]:
        texts = [metric_text(name, row.get(name)) for name in names]
        table.add_row(str(row["fold"]), row["test"], f"{row['clips']:,}", f"{row['step']:,}", *texts)
    spread = [
        f"{metric_text(name, summary['mean'][name])} ± {metric_text(name, summary['sd'][name]).removesuffix(' %')}"
        for name in names
    ]
    table.add_row("mean", "", "", "", *spread, style="bold")
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else UNBROKEN, highlight=False, markup=False)
    console.print(table)
