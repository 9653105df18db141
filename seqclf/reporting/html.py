"""The HTML report of a finished run."""

from __future__ import annotations

import shlex
from html import escape
from pathlib import Path
from typing import Any

from seqclf.reporting.metrics import (
    MULTI_LABEL,
    TITLES,
    chosen_metrics,
    describe_best,
    is_multi_label,
    ranked_classes,
    ranked_labels,
    result_columns,
    result_rows,
    test_metrics,
)
from seqclf.reporting.page import html_figure, html_list, html_page, html_table
from seqclf.reporting.pictures import (
    Picture,
    average_precision_picture,
    confusion_picture,
    curves_by_part,
    known_picture,
    learning_picture,
    most_wrong_picture,
)
from seqclf.reporting.style import picture_style, png_of
from seqclf.runs.folder import RunFolder
from seqclf.runtime.files import write_atomic

HEADLINE = (*TITLES.values(), *(title for name, title in MULTI_LABEL.items() if name.endswith("map")))
"""The titles of the figures in large type."""


def report(run: str | Path) -> Path:
    """Writes the report of a finished run: ``report/index.html``, a page that needs no other file, and its pictures.

    The page depends on the files of the run alone: the same run gives the same page.

    Args:
        run: the run folder.

    Returns:
        the path of the page.

    Raises:
        SeqclfError: a file of the run is missing or damaged, or the page cannot be written.
    """
    folder = RunFolder.open(Path(run).resolve())
    results, config = folder.read_results(), folder.read_config()
    record = folder.read_record("environment", "parameters", "started", "resumed")
    figures = []
    with picture_style():
        for name, (title, caption, figure) in _pictures(folder, results, record["data"]["classes"]).items():
            png = png_of(figure)
            write_atomic(folder.report / f"{name}.png", png)
            figures.append(html_figure(title, caption, png))
    page = html_page(folder.path.name, _body(results, record, config, figures))
    return write_atomic(folder.report / "index.html", page)


def _pictures(folder: RunFolder, results: dict[str, Any], classes: list[str]) -> dict[str, Picture]:
    """The pictures by file name; those with nothing to draw are left out."""
    test = test_metrics(results)
    drawn = {
        "learning": learning_picture(curves_by_part(folder.read_metrics()), results["best"]),
        **(
            {"average_precision": average_precision_picture(test, classes)}
            if is_multi_label(test)
            else {"known": known_picture(test), "confusion": confusion_picture(test["confusion"], classes)}
        ),
        "most_wrong": most_wrong_picture(folder, test, results["decision"], classes),
    }
    return {name: picture for name, picture in drawn.items() if picture is not None}


def _classes(classes: list[str], metrics: dict[str, Any]) -> tuple[str, str]:
    """The table of the classes, and what comes first in it."""
    if is_multi_label(metrics):
        head = ["class", "frames with it", "average precision", "F1"]
        return html_table(head, ranked_labels(classes, metrics)), "lowest average precision"
    head = ["class", "frames", "accuracy", "precision", "F1", "most frequent error"]
    return html_table(head, ranked_classes(classes, metrics)), "lowest accuracy"


def _body(results: dict[str, Any], record: dict[str, Any], config: str, figures: list[str]) -> str:
    """The page below its title."""
    data, best, columns = record["data"], results["best"], result_columns(results)
    rows = result_rows(columns, chosen_metrics(results, record))
    test = max(n for n, name in enumerate(columns) if name.startswith("test"))
    headline = "".join(
        f"<div><b>{escape(values[test])}</b><span>{escape(title)}</span></div>"
        for title, values in rows
        if title in HEADLINE and values[test] != "–"
    )
    classes, order = _classes(data["classes"], test_metrics(results))
    warning = f'<p class="warning">{escape(data["warning"])}</p>' if data["warning"] else ""
    step = best["step"] if best else results["step"]
    chosen = f" {describe_best(best)}" if best else ""
    environment = {**record["environment"], "command": shlex.join(record["environment"]["command"])}
    resumed = [f"at step {at['step']:,} on {at['at']}" for at in record["resumed"]] or None
    times = {"started": record["started"], "resumed": resumed, "finished": record.get("finished")}
    return f"""<p>{escape(data["source"])}</p>
{warning}
<div class="headline">{headline}</div>
<p>Test data, after step {step:,}; {record["parameters"]:,} parameters.{chosen}</p>
<h2>Results</h2>
{html_table(["", *columns], ([title, *values] for title, values in rows))}
<h2>Classes</h2>
<p>Labelled test frames, {order} first.</p>
<div class="scroll">{classes}</div>
{chr(10).join(figures)}
<h2>Config</h2>
<pre>{escape(config)}</pre>
<h2>Data</h2>
{html_list(data)}
<h2>Environment</h2>
{html_list(environment)}
<h2>Times</h2>
{html_list({**times, "seconds": f"{results['seconds']:.1f}"})}"""
