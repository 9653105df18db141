"""The rows of a comparison as texts, and the table that the terminal shows."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from typing import Literal

from seqclf.reporting.comparison import BEST, PARTS, Row, column_title, main_metric
from seqclf.reporting.metrics import metric_text
from seqclf.runtime.text import counted

HEADING_WIDTH = 14
"""Letters in a line of a metric's heading, unless a word is longer."""


def table_of(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The texts of each column, by its name in a row; a mean is shown as ``99.10 % ± 0.05``.

    The metrics of a row are those of its best checkpoint, if it has one, and otherwise those of its last step.
    """
    rows = [_one_checkpoint(row) for row in rows]
    return {name: [_cell(row, name) for row in rows] for name in rows[0] if name not in ("runs", "finished")}


def is_metric(name: str) -> bool:
    """Whether a column is a metric, such as ``test.clip_last``; ``validation`` is a setting."""
    part, dot, _ = name.partition(".")
    return dot != "" and part in PARTS


def print_comparison(rows: Sequence[Row]) -> None:
    """Prints the columns that fit in the terminal, the main ones first, and counts the others; means are bold."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160, highlight=False, markup=False)
    columns = table_of(rows)
    headings = {name: _heading(name) for name in columns}
    shown = _fitting(columns, headings, main_metric(rows), console.width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in shown:
        justify: Literal["left", "right"] = "left" if name == "run" else "right"
        table.add_column(headings[name], justify=justify, overflow="fold", no_wrap=name != "run")
    for n, row in enumerate(rows):
        table.add_row(*(columns[name][n] for name in shown), style="bold" if row["runs"] > 1 else "")
    console.print(table)
    hidden = [name for name in columns if name not in shown]
    if hidden:
        metrics = sum(map(is_metric, hidden))
        counts = {"setting": len(hidden) - metrics, "metric": metrics}
        texts = [counted(count, noun) for noun, count in counts.items() if count]
        console.print(f"not shown: {' and '.join(texts)}; comparison.csv has all", soft_wrap=True)


def _fitting(columns: dict[str, list[str]], headings: dict[str, str], main: str, width: int) -> list[str]:
    """The columns that fit: run, step and main metrics, then settings, then other metrics, test first.

    The names of runs are broken where they would take more than a quarter of the width from other columns.
    """
    from rich.cells import cell_len

    most = ["run", "step", f"test.{main}", f"validation.{main}"]
    settings = [name for name in columns if not is_metric(name)]
    of_test = [name for name in columns if name.startswith("test.")]
    order = dict.fromkeys([*most, *settings, *of_test, *columns])
    left, shown = width + 1, set()
    for name in order:
        if name in columns:
            lines = [*headings[name].splitlines(), *columns[name]]
            needed = 3 + min(max(map(cell_len, lines)), width // 4 if name == "run" else width)  # 3: between columns
            if needed <= left or name in ("run", "step"):
                left -= needed
                shown.add(name)
    return [name for name in columns if name in shown]


def _heading(name: str) -> str:
    if not is_metric(name):
        return name.replace(".", ".\n").replace("_", "_\n")
    part, title = column_title(name).split(": ", 1)
    return "\n".join([part, *textwrap.wrap(title, HEADING_WIDTH, break_long_words=False)])


def _one_checkpoint(row: Row) -> Row:
    """The row with the step and the metrics of one checkpoint: the best, or the last if there is no best."""
    of_best = [f"{BEST}{name}" for name in ("step", *PARTS)]
    best = {name.removeprefix(BEST): value for name, value in row.items() if name.partition(".")[0] in of_best}
    last = {name: value for name, value in row.items() if name.partition(".")[0] not in of_best}
    if all(value is None for value in best.values()):
        return {**last, "step": _step(row["step"])}
    step = "best" if best["step"] is None else f"{_step(best['step'])} (best)"
    return {name: None if is_metric(name) else value for name, value in last.items()} | best | {"step": step}


def _step(step: int | None) -> str:
    return "–" if step is None else f"{step:,}"


def _cell(row: Row, name: str) -> str:
    value = row.get(name)
    if name == "run":
        return f"{value}{'' if row['finished'] else ' (unfinished)'}"
    if not is_metric(name):
        return "default" if value is None else str(value)
    metric = name.partition(".")[2]
    text = metric_text(metric, value)
    spread = row.get(f"{name}_sd")
    return text if spread is None else f"{text} ± {metric_text(metric, spread).removesuffix(' %')}"
