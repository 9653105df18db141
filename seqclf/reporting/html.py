"""What a finished run came to: a table on the terminal, and a page with pictures that needs no other file."""

from __future__ import annotations

import base64
import io
import math
import shlex
import sys
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqclf.batch import SeqclfError
from seqclf.reporting.pictures import (
    NAMES,
    STYLE,
    confusion_picture,
    known_picture,
    learning_picture,
    most_wrong_picture,
)
from seqclf.runs.folder import RunFolder
from seqclf.runtime.files import write_atomic

if TYPE_CHECKING:
    pass

CSS = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5f6872; --line: #dde1e6; --back: #fff; --bar: #cfe3f7 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #a2abb5; --line: #363c44; --back: #15181c; --bar: #24486d }
}
body { max-width: 62rem; margin: 2rem auto 4rem; padding: 0 1.25rem; background: var(--back); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }
h1 { margin: 0; overflow-wrap: anywhere }
h2 { margin: 2.5rem 0 .75rem; border-bottom: 1px solid var(--line); font-size: 1.25rem }
p, figcaption, th, dt { color: var(--soft) }
.warning { padding: 1rem 1.25rem; border-radius: 8px; background: #b3261e; color: #fff; font-size: 1.25rem;
  font-weight: 700 }
.headline { display: flex; flex-wrap: wrap; gap: 1rem 3rem; margin: 1.5rem 0 }
.headline b { display: block; font-size: 2.6rem; line-height: 1.15; white-space: nowrap }
.headline span { color: var(--soft) }
.scroll { max-height: 32rem; overflow: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem 1rem .25rem .5rem; border-bottom: 1px solid var(--line); text-align: right }
th:first-child, td:first-child { text-align: left }
td.share { min-width: 9rem; background: linear-gradient(var(--bar) 0 0) 0 / var(--share) 100% no-repeat }
figure { margin: 0 0 2.5rem }
img { max-width: 100%; border-radius: 8px; background: #fff; border: 1px solid var(--line); box-sizing: border-box }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.5rem }
dd { margin: 0; overflow-wrap: anywhere }
pre { padding: 1rem; border: 1px solid var(--line); border-radius: 8px; white-space: pre-wrap; font-size: .85rem }
"""


SEGMENTAL = {"edit": "edit score", "f1_10": "F1@10", "f1_25": "F1@25", "f1_50": "F1@50"}
"""The segment metrics, from 0 to 100, where they were measured."""


def print_results(results: dict[str, Any]) -> None:
    """Prints a run's figures, as ``results.json`` holds them: a column for each part, then the worst classes."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    console.width = max(console.width, 80)  # rather wrapped by a narrow terminal than cut here
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(f"after step {results['step']:,}", no_wrap=True)
    for part in results["parts"]:
        table.add_column(part, justify="right", style="bold" if part == "test" else "", no_wrap=True)
    for name, values in _rows(results["parts"]):
        table.add_row(name, *values)
    console.print(table)
    folder = RunFolder(results["run"])
    if folder.record.exists():
        ranked = _ranked(folder.read_record()["data"]["classes"], _main(results["parts"]))
        worst = ", ".join(f"{name} {_percent(accuracy)}" for name, _, accuracy, _ in ranked[:5])
        console.print(Text(f"worst of {len(ranked)} classes, by frame: {worst}"), soft_wrap=True)


def report(workdir: str | Path) -> Path:
    """Draws a finished run's pictures and writes its page, ``report/index.html``; a function of its files alone.

    Raises:
        SeqclfError: a file of the run is missing or damaged, or the page can't be written.
    """
    import matplotlib.style

    workdir = Path(workdir).resolve()
    files = RunFolder(workdir)
    results, run = files.read_results(), files.read_record()
    folder, test, classes = files.report, results["parts"]["test"], run["data"]["classes"]
    pictures: list[tuple[str, str, str]] = []  # title, caption, base64 of PNG
    try:
        config = files.read_config()
        folder.mkdir(exist_ok=True)
        with matplotlib.style.context(["default", STYLE]):  # whatever the user's matplotlibrc
            drawn = {
                "learning": learning_picture(files.metrics, results["best"]),
                "known": known_picture(test),
                "confusion": confusion_picture(test["confusion"], classes),
                "most_wrong": most_wrong_picture(files, test["most_wrong"], classes),
            }
            for name, picture in drawn.items():
                if picture is not None:
                    title, caption, figure = picture
                    png = io.BytesIO()
                    figure.savefig(png, format="png")
                    write_atomic(folder / f"{name}.png", png.getvalue())
                    pictures.append((title, caption, base64.b64encode(png.getvalue()).decode()))
        page = folder / "index.html"
        write_atomic(page, _page(workdir.name, results, run, config, pictures))
    except OSError as error:
        raise SeqclfError(f"report of {workdir}: {error}") from None
    return page


def _percent(share: float | None, digits: int = 2) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def _main(parts: dict[str, Any]) -> dict[str, Any]:
    """The figures that count: of the test part, or of the one that there is."""
    return parts.get("test") or next(iter(parts.values()))


def _rows(parts: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """The rows of the table of results: name, and a text for each part."""
    top = next(name for name in _main(parts) if name.startswith("top"))
    shares = {"frame_accuracy": "", top: f"top-{top[3:].split('_')[0]} accuracy", "clip_last": "", "clip_mean": ""}
    rows = [
        ("clips", [f"{part['clips']:,}" for part in parts.values()]),
        ("frames (labelled)", [f"{part['frames']:,}" for part in parts.values()]),
        *((title or NAMES[name], [_percent(part[name]) for part in parts.values()]) for name, title in shares.items()),
        ("loss", ["–" if part["loss"] is None else f"{part['loss']:.4f}" for part in parts.values()]),
        *(
            (title, [_percent(None if (v := part.get(name)) is None else v / 100) for part in parts.values()])
            for name, title in SEGMENTAL.items()
            if name in _main(parts)
        ),
    ]
    per_clip = ("clips", NAMES["clip_last"], NAMES["clip_mean"])
    none = not any(part["clips"] for part in parts.values())  # of labels per frame, there is nothing to say of clips
    return [row for row in rows if not (none and row[0] in per_clip)]


def _ranked(classes: Sequence[str], figures: dict[str, Any]) -> list[tuple[str, int, float | None, str]]:
    """Name, labelled frames, accuracy and what it is most taken for, of each class; the worst first."""
    rows = []
    for k, (counts, accuracy) in enumerate(zip(figures["confusion"], figures["class_accuracy"], strict=True)):
        others = [0 if j == k else count for j, count in enumerate(counts)]
        most = max(others)
        taken = f"{classes[others.index(most)]} ({_percent(most / sum(counts), 1)})" if most else "–"
        rows.append((classes[k], sum(counts), accuracy, taken))
    return sorted(rows, key=lambda row: math.inf if row[2] is None else row[2])


def _table(head: Sequence[str], rows: Iterable[Sequence[str | int | float | None]]) -> str:
    """A table in HTML; whole numbers get thousands' commas, and numbers with a point are shares, shown with a bar."""

    def cell(value: str | int | float | None) -> str:
        if isinstance(value, float):
            return f'<td class="share" style="--share: {100 * value:.2f}%">{_percent(value)}</td>'
        return f"<td>{f'{value:,}' if isinstance(value, int) else escape(value or '–')}</td>"

    body = "\n".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<table>\n<tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>\n{body}\n</table>"


def _facts(facts: dict[str, Any]) -> str:
    """Names and plain values as a list in HTML; a dict among them gives a row for each of its items."""
    rows = []
    for name, value in facts.items():
        inner = {f"{name}, {key}": x for key, x in value.items()} if isinstance(value, dict) else {name: value}
        for key, x in inner.items():
            text = ", ".join(map(str, x)) if isinstance(x, list) else "–" if x is None else str(x)
            rows.append(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>")
    return f"<dl>{''.join(rows)}</dl>"


def _page(
    name: str, results: dict[str, Any], run: dict[str, Any], config: str, pictures: list[tuple[str, str, str]]
) -> str:
    """The page, whole."""
    data, parts = run["data"], results["parts"]
    table, ranked = _rows(parts), _ranked(data["classes"], parts["test"])
    test = list(parts).index("test")
    banner = f'<p class="warning">{escape(data["warning"])}</p>' if data["warning"] else ""
    big = [(title, values[test]) for title, values in table if title in NAMES.values() and values[test] != "–"]
    headline = "".join(f"<div><b>{escape(value)}</b><span>{escape(title)}</span></div>" for title, value in big)
    best = results["best"]
    chosen = f" The best on validation was {_percent(best['value'])}, at step {best['step']:,}." if best else ""
    figures = "\n".join(
        f"<h2>{escape(title)}</h2>\n<figure><figcaption>{escape(caption)}</figcaption>\n"
        f'<img alt="{escape(title)}" src="data:image/png;base64,{png}"></figure>'
        for title, caption, png in pictures
    )
    environment = {**run["environment"], "command": shlex.join(run["environment"]["command"])}
    resumed = [f"at step {at['step']:,} on {at['at']}" for at in run["resumed"]] or None
    times = {"started": run["started"], "resumed": resumed, "finished": run.get("finished")}
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(name)}</title>
<style>{CSS}</style></head>
<body>
<h1>{escape(name)}</h1>
<p>{escape(data["source"])}</p>
{banner}
<div class="headline">{headline}</div>
<p>Of the test part, after step {results["step"]:,}, with {run["parameters"]:,} parameters.{chosen}</p>
<h2>Results</h2>
{_table(["", *parts], ([title, *values] for title, values in table))}
<h2>Classes</h2>
<p>Labelled test frames, the worst class first.</p>
<div class="scroll">{_table(["class", "frames", "accuracy", "most taken for"], ranked)}</div>
{figures}
<h2>Config</h2>
<pre>{escape(config)}</pre>
<h2>Data</h2>
{_facts(data)}
<h2>Environment</h2>
{_facts(environment)}
<h2>Times</h2>
{_facts({**times, "seconds": f"{results['seconds']:.1f}"})}
</body>
</html>
"""
