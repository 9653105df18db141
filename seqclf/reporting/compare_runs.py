"""``seqclf.compare``: a table, a CSV file, a picture and an HTML page over several runs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from seqclf.batch import SeqclfError
from seqclf.reporting.comparison import Row, Run, column_title, comparison_rows, differing, read_run, seed_groups
from seqclf.reporting.metrics import metric_text, metric_title
from seqclf.reporting.page import html_figure, html_page, html_table
from seqclf.reporting.style import PALETTE, drawable, new_figure, picture_style, png_of
from seqclf.runtime.files import write_atomic, write_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_SETTINGS = 6
"""How many settings that differ the terminal shows."""


def compare(runs: Sequence[str | Path], out: str | Path | None = None) -> list[Row]:
    """Compares runs: the settings that differ, their metrics, and mean and standard deviation over seeds.

    Args:
        runs: run folders. An unfinished run counts with its last evaluation.
        out: a folder for ``comparison.csv``, ``curves.png`` and ``index.html``; None to write nothing.

    Returns:
        one dict for each run, and after the runs that differ only in their seed one with their mean. Keys: ``run``
        (name), ``runs`` (1, or how many a mean covers), ``step``, ``finished``, the settings that differ by dotted
        name (None where a run has the default), and metrics such as ``test.clip_last``. A mean has the sample standard
        deviation besides (``test.clip_last_sd``). Accuracies run from 0 to 1, segment metrics from 0 to 100.

    Raises:
        SeqclfError: there is no run, one is not a run or has no metrics yet, or ``out`` cannot be written.
    """
    if not runs:
        raise SeqclfError("there are no runs to compare")
    paths = [Path(run).resolve() for run in runs]
    read = [read_run(path, name) for path, name in zip(paths, _names(paths), strict=True)]
    rows = comparison_rows(read)
    if out is not None:
        _write(Path(out), read, rows)
    return rows


def table_of(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """The rows as text: names of the columns, and the cells of each row; a mean is shown as ``99.10 % ± 0.05``."""
    names = [name for name in rows[0] if name not in ("runs", "finished")]
    metrics = _metrics_of(rows)
    return names, [[_cell(row, name, name in metrics) for name in names] for row in rows]


def print_comparison(rows: Sequence[Row]) -> None:
    """Prints the table; means are bold. If many settings differ, only metrics are shown.

    The test metrics of a run are those of its best checkpoint, if it has one.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rows = [_result(row) for row in rows]
    names, cells = table_of(rows)
    settings = [name for name in names if name not in ("run", "step") and name not in _metrics_of(rows)]
    hidden = set(settings if len(settings) > MOST_SETTINGS else ())
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in names:
        if name not in hidden:
            justify: Literal["left", "right"] = "left" if name == "run" else "right"
            table.add_column(name.replace(".", ".\n").replace("_", "_\n"), justify=justify, overflow="fold")
    for row, texts in zip(rows, cells, strict=True):
        shown = [text for name, text in zip(names, texts, strict=True) if name not in hidden]
        table.add_row(*shown, style="bold" if row["runs"] > 1 else "")
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    console.print(table)
    if hidden:
        console.print(f"{len(hidden)} settings differ and are not shown here: {', '.join(settings)}")


def _result(row: Row) -> Row:
    """A row whose test metrics are the result of the run: those of the best checkpoint, if it has one."""
    best = {name.removeprefix("best_"): value for name, value in row.items() if name.startswith("best_test.")}
    known = best if any(value is not None for value in best.values()) else {}
    return {name: value for name, value in row.items() if not name.startswith("best_test.")} | known


def _metrics_of(rows: Sequence[Row]) -> set[str]:
    """The names of the metrics: numbers, whereas settings are texts."""
    return {name for row in rows for name, value in row.items() if isinstance(value, float)}


def _names(paths: Sequence[Path]) -> list[str]:
    """The names of the folders; with the folder above where two are the same."""
    count = Counter(path.name for path in paths)
    return [path.name if count[path.name] == 1 else f"{path.parent.name}/{path.name}" for path in paths]


def _cell(row: Row, name: str, is_figure: bool) -> str:
    value = row[name]
    if name == "run":
        return f"{value}{'' if row['finished'] else ' (unfinished)'}"
    if name == "step":
        return "–" if value is None else f"{value:,}"
    if not is_figure:
        return "default" if value is None else str(value)
    metric = name.partition(".")[2]
    text = metric_text(metric, value)
    spread = row.get(f"{name}_sd")
    return text if spread is None else f"{text} ± {metric_text(metric, spread).removesuffix(' %')}"


def _write(out: Path, runs: Sequence[Run], rows: Sequence[Row]) -> None:
    with picture_style():
        png = png_of(curves_picture(runs))
    names, cells = table_of(rows)
    head = [column_title(name) if name in _metrics_of(rows) else name for name in names]
    means = [n for n, row in enumerate(rows) if row["runs"] > 1]
    body = "\n".join(
        [
            f"<p>{len(runs)} runs. Settings are shown where they differ. A mean is over runs that differ only in "
            "their seed, ± the sample standard deviation.</p>",
            f'<div class="scroll">{html_table(head, cells, means)}</div>',
            html_figure("Learning curves", "Runs that differ only in their seed have one colour.", png),
        ]
    )
    header = list(dict.fromkeys(name for row in rows for name in row))
    write_csv(out / "comparison.csv", header, [[row.get(name) for name in header] for row in rows])
    write_atomic(out / "curves.png", png)
    write_atomic(out / "index.html", html_page("Comparison", body, wide=True))


def curves_picture(runs: Sequence[Run]) -> Figure:
    """Training loss and accuracy of all runs by step; one colour for runs that differ only in their seed."""
    from matplotlib.ticker import StrMethodFormatter

    groups = seed_groups(runs)
    name = _main_accuracy(runs)
    figure = new_figure(10, 3.8 + 0.2 * len(groups))
    figure.set_layout_engine("constrained")
    left, right = figure.subplots(1, 2)
    labels = drawable((_label(group, runs) for group in groups), 90)
    for n, (group, label) in enumerate(zip(groups, labels, strict=True)):
        line = ("-", "--", ":", "-.")[n // len(PALETTE) % 4]
        style: dict[str, Any] = {"color": PALETTE[n % len(PALETTE)], "ls": line, "lw": 1.3}
        for run in group:
            steps, values = _curve(run, "train", "loss")
            left.plot(steps, values, marker="." if len(steps) <= 30 else None, ms=4, **style)
            steps, values = _curve(run, _measured_part(run), name)
            right.plot(steps, [100 * value for value in values], marker=".", ms=4, **style)
        right.plot([], [], label=label, **style)
    left.set(title="training loss (nats)", xlabel="step", yscale="log")
    left.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    left.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
    parts = " or ".join(sorted({_measured_part(run) for run in runs}, reverse=True))
    right.set(title=f"{metric_title(name)}, {parts} (%)", xlabel="step")
    figure.legend(loc="outside lower center", frameon=False, fontsize=8)
    return figure


def _curve(run: Run, part: str, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of a metric; lines without it are left out."""
    lines = [line for line in run.curves.get(part, []) if line.get(name) is not None]
    return [line["step"] for line in lines], [line[name] for line in lines]


def _measured_part(run: Run) -> str:
    return "validation" if "validation" in run.curves else "test"


def _main_accuracy(runs: Sequence[Run]) -> str:
    """Accuracy (or mAP) of clips by their last frame, unless more runs have only that of frames."""
    names = ("clip_last", "frame_accuracy", "clip_last_map", "frame_map")
    return max(names, key=lambda name: sum(bool(_curve(run, _measured_part(run), name)[0]) for run in runs))


def _label(group: Sequence[Run], runs: Sequence[Run]) -> str:
    """The runs' name, or what sets the group apart."""
    names = [name for name in differing(runs) if name != "seed"]
    settings = " ".join(f"{name}={group[0].settings.get(name, 'default')}" for name in names)
    name = group[0].name if len(group) == 1 else f"{len(group)} seeds"
    return f"{name}: {settings}" if settings else name
