"""Parts of an HTML page that needs no other file, in light and dark."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

CSS = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5f6872; --line: #dde1e6; --back: #fff; --bar: #cfe3f7 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --soft: #a2abb5; --line: #363c44; --back: #15181c; --bar: #24486d }
}
body { max-width: 62rem; margin: 2rem auto 4rem; padding: 0 1.25rem; background: var(--back); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif }
body.wide { max-width: 100rem }
body.wide img { max-width: 62rem; width: 100% }
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
tr.mean td { font-weight: 700 }
td.share { min-width: 9rem; background: linear-gradient(var(--bar) 0 0) 0 / calc(.94 * var(--share)) 100% no-repeat }
figure { margin: 0 0 2.5rem }
img { max-width: 100%; border-radius: 8px; background: #fff; border: 1px solid var(--line); box-sizing: border-box }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.5rem }
dd { margin: 0; overflow-wrap: anywhere }
pre { padding: 1rem; border: 1px solid var(--line); border-radius: 8px; white-space: pre-wrap; font-size: .85rem }
"""

Cell = str | int | float | None


def percent(share: float | None, digits: int = 2) -> str:
    """A share from 0 to 1 as a percentage; a dash for None."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def html_table(head: Sequence[str], rows: Iterable[Sequence[Cell]], bold: Iterable[int] = ()) -> str:
    """A table. Integers get thousands separators; floats are shares and get a bar; the rows ``bold`` are bold."""

    def cell(value: Cell) -> str:
        if isinstance(value, float):
            return f'<td class="share" style="--share: {100 * value:.2f}%">{percent(value)}</td>'
        return f"<td>{f'{value:,}' if isinstance(value, int) else escape(value or '–')}</td>"

    marked = set(bold)
    starts = ('<tr class="mean">' if n in marked else "<tr>" for n in range(10**9))
    body = "\n".join(f"{start}{''.join(map(cell, row))}</tr>" for row, start in zip(rows, starts, strict=False))
    return f"<table>\n<tr>{''.join(f'<th>{escape(name)}</th>' for name in head)}</tr>\n{body}\n</table>"


def html_list(facts: dict[str, Any]) -> str:
    """A list of names and plain values. A dict among the values gives an item for each of its own."""
    items = []
    for name, value in facts.items():
        inner = {f"{name}, {key}": x for key, x in value.items()} if isinstance(value, dict) else {name: value}
        for key, x in inner.items():
            text = ", ".join(map(str, x)) if isinstance(x, list) else "–" if x is None else str(x)
            items.append(f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>")
    return f"<dl>{''.join(items)}</dl>"


def html_figure(title: str, caption: str, png: bytes) -> str:
    """A heading, a caption and an embedded picture."""
    return (
        f"<h2>{escape(title)}</h2>\n<figure><figcaption>{escape(caption)}</figcaption>\n"
        f'<img alt="{escape(title)}" src="data:image/png;base64,{base64.b64encode(png).decode()}"></figure>'
    )


def html_page(title: str, body: str, wide: bool = False) -> str:
    """The whole page; ``wide`` for tables of many columns."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>
<style>{CSS}</style></head>
<body{' class="wide"' if wide else ""}>
<h1>{escape(title)}</h1>
{body}
</body>
</html>
"""
