"""``seqclf.compare``: a table, a CSV file, a picture and an HTML page over several runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqclf.batch import SeqclfError
from seqclf.reporting.comparison import (
    Row,
    Run,
    column_title,
    comparison_rows,
    differing,
    main_metric,
    read_run,
    seed_groups,
)
from seqclf.reporting.comparison_table import is_metric, table_of
from seqclf.reporting.metrics import metric_title
from seqclf.reporting.page import html_figure, html_page, html_table
from seqclf.reporting.style import PALETTE, drawable, new_figure, picture_style, png_of, point_size
from seqclf.runtime.files import write_atomic, write_csv
from seqclf.runtime.paths import as_list

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def compare(runs: str | Path | Sequence[str | Path], out: str | Path | None = None) -> list[Row]:
    """Compares runs: the settings that differ, their metrics, and mean and standard deviation over seeds.

    Args:
        runs: run folders; one that is given twice counts once. An unfinished run counts with its last evaluation.
        out: a folder for ``comparison.csv``, ``curves.png`` and ``index.html``; None to write nothing.

    Returns:
        one dict for each run, and after the runs that differ only in their seed one with their mean. Keys: ``run``
        (name), ``runs`` (1, or how many a mean covers), ``step`` (the last), ``finished``, the settings that differ by
        dotted name (None where a run has the default), and metrics of the last step such as ``test.clip_last``. Runs
        with a best checkpoint have ``best_step`` and ``best_test.clip_last`` besides. A mean has the sample standard
        deviation (``test.clip_last_sd``), and None as step where the runs differ. Accuracies run from 0 to 1, segment
        metrics from 0 to 100.

    Raises:
        SeqclfError: there is no run, one is not a run or has no metrics yet, or ``out`` cannot be written.
    """
    if not runs:
        raise SeqclfError("there are no runs to compare")
    paths = list(dict.fromkeys(Path(run).resolve() for run in as_list(runs)))
    read = [read_run(path, name) for path, name in zip(paths, _names(paths), strict=True)]
    rows = comparison_rows(read)
    if out is not None:
        _write(Path(out), read, rows)
    return rows


def _names(paths: Sequence[Path]) -> list[str]:
    """The names of the folders; with the folder above where two are the same."""
    count = Counter(path.name for path in paths)
    return [path.name if count[path.name] == 1 else f"{path.parent.name}/{path.name}" for path in paths]


def _write(out: Path, runs: Sequence[Run], rows: Sequence[Row]) -> None:
    with picture_style():
        png = png_of(curves_picture(runs))
    columns = table_of(rows)
    head = [column_title(name) if is_metric(name) else name for name in columns]
    cells = zip(*columns.values(), strict=True)
    means = [n for n, row in enumerate(rows) if row["runs"] > 1]
    body = "\n".join(
        [
            f"<p>{len(runs)} runs. Settings are shown where they differ. A mean is over runs that differ only in "
            "their seed, ± the sample standard deviation. Metrics are those of the best checkpoint, if a run has one, "
            "and otherwise those of the last step.</p>",
            f'<div class="scroll">{html_table(head, cells, means)}</div>',
            html_figure("Learning curves", "Runs that differ only in their seed have one colour.", png),
        ]
    )
    header = list(dict.fromkeys(name for row in rows for name in row))
    write_csv(out / "comparison.csv", header, [[row.get(name) for name in header] for row in rows])
    write_atomic(out / "curves.png", png)
    write_atomic(out / "index.html", html_page("Comparison", body, wide=True))


def curves_picture(runs: Sequence[Run]) -> Figure:
    """Training loss and accuracy of all runs by step; one colour for runs that differ only in their seed.

    A ring marks the best step of a run.
    """
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

    groups = seed_groups(runs)
    name = main_metric([run.metrics for run in runs])
    figure = new_figure(10, 3.8 + 0.2 * len(groups))
    figure.set_layout_engine("constrained")
    left, right = figure.subplots(1, 2)
    labels = drawable((_label(group, runs) for group in groups), 90)
    for n, group in enumerate(groups):
        line = ("-", "--", ":", "-.")[n // len(PALETTE) % 4]
        style: dict[str, Any] = {"color": PALETTE[n % len(PALETTE)], "ls": line, "lw": 1.3}
        for run in group:
            steps, values = _curve(run, "train", "loss")
            left.plot(steps, values, marker="." if len(steps) <= 30 else None, ms=point_size(len(steps)), **style)
            steps, values = _curve(run, _measured_part(run), name)
            shares = [100 * value for value in values]
            right.plot(steps, shares, marker=".", ms=point_size(len(steps)), **style)
            best = [(step, share) for step, share in zip(steps, shares, strict=True) if step == run.best_step]
            right.plot(*zip(*best, strict=True), marker="o", ms=8, mfc="none", **style)
        right.plot([], [], label=str(n), **style)
    if any(run.best_step is not None for run in runs):
        right.plot([], [], "o", ms=8, mfc="none", color="gray", label="best step")
    left.set(title="training loss (nats)", xlabel="step", yscale="log")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    left.yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
    parts = " or ".join(sorted({_measured_part(run) for run in runs}, reverse=True))
    right.set(title=f"{metric_title(name)}, {parts} (%)", xlabel="step")
    legend = figure.legend(loc="outside lower center", frameon=False, fontsize=8)
    for text, label in zip(legend.get_texts(), labels, strict=False):  # "best step" has no run
        text.set(text=label, parse_math=False)  # not label=, which hides names that begin with "_"
    return figure


def _curve(run: Run, part: str, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of a metric; lines without it are left out."""
    lines = [line for line in run.curves.get(part, []) if line.get(name) is not None]
    return [line["step"] for line in lines], [line[name] for line in lines]


def _measured_part(run: Run) -> str:
    return "validation" if "validation" in run.curves else "test"


def _label(group: Sequence[Run], runs: Sequence[Run]) -> str:
    """The runs' name, or what sets the group apart."""
    names = [name for name in differing(runs) if name != "seed"]
    settings = " ".join(f"{name}={group[0].settings.get(name, 'default')}" for name in names)
    name = group[0].name if len(group) == 1 else f"{len(group)} seeds"
    return f"{name}: {settings}" if settings else name
