"""Drawings of nets as Graphviz graphs.

A node is a layer, with the layers that work in place on its top as further rows. An edge is a blob, labelled with its
shape, and with its name if that differs from the layer's. A blob that several layers read ends in a point, from
which edges lead to its readers. A blob that no layer reads ends in its name.
"""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.formats.files import write_file
from seqclf.caffe.layers import LAYERS, Shape

COLOURS = {
    # fill and outline by Layer.category
    "data": ("#e4eaf0", "#5f7388"),
    "convolution": ("#d8e7f8", "#2f6fae"),
    "pooling": ("#d9f0e5", "#238a60"),
    "normalization": ("#fcf1cf", "#a67c00"),
    "product": ("#e9e1f6", "#7450b0"),
    "recurrent": ("#fde3d0", "#c25e12"),
    "activation": ("#f2f2f2", "#6e6e6e"),
    "shape": ("#ffffff", "#767676"),
    "combination": ("#d7eff1", "#217a86"),
    "loss": ("#fadde0", "#cb3c50"),
}
RANKDIRS = ("TB", "LR")
DOT_SUFFIXES = (".dot", ".gv")
IMAGE_SUFFIXES = (".svg", ".png", ".pdf")
LONGEST = 44
"""Longest name or setting that is shown in full."""


def draw(message: Any, path: str | Path, shapes: Mapping[str, Shape] | None = None, rankdir: str = "TB") -> Path:
    """Writes a drawing of a net, replacing an existing file.

    Args:
        message: an upgraded ``NetParameter`` with the layers of one phase.
        path: with the suffix ``.dot`` or ``.gv``, the graph as text; with ``.svg``, ``.png`` or ``.pdf``, an image, for
            which Graphviz's program ``dot`` must be installed.
        shapes: shapes of blobs by name, as far as they are known.
        rankdir: "TB" for top to bottom, "LR" for left to right.

    Returns:
        ``path``.

    Raises:
        CaffeFormatError: the net has no layers; the suffix or ``rankdir`` is unknown; the file cannot be written; or
            ``dot`` is not installed, in which case the graph is written beside ``path`` as ``.dot``.
    """
    path = Path(path)
    if path.suffix not in DOT_SUFFIXES + IMAGE_SUFFIXES:
        raise CaffeFormatError(f"{path}: expected the suffix {', '.join(DOT_SUFFIXES + IMAGE_SUFFIXES)}")
    graph = to_dot(message, shapes, rankdir).encode()
    if path.suffix in DOT_SUFFIXES:
        return write_file(path, [graph])
    program = shutil.which("dot")
    if program is None:
        instead = write_file(path.with_suffix(".dot"), [graph])
        raise CaffeFormatError(
            f"{path}: Graphviz's program dot is not installed; wrote {instead} instead: install Graphviz and run "
            f"dot -T{path.suffix[1:]} {instead} -o {path}"
        )
    command = [program, f"-T{path.suffix[1:]}", *(["-Gdpi=130"] if path.suffix == ".png" else [])]
    done = subprocess.run(command, input=graph, capture_output=True, check=False)
    if done.returncode:
        raise CaffeFormatError(f"{path}: dot failed ({done.stderr.decode(errors='replace').strip()})")
    return write_file(path, [done.stdout])


def to_dot(message: Any, shapes: Mapping[str, Shape] | None = None, rankdir: str = "TB") -> str:
    """Returns a net as a graph in Graphviz's DOT language. The arguments are those of ``draw``.

    Raises:
        CaffeFormatError: the net has no layers, or ``rankdir`` is unknown.
    """
    if rankdir not in RANKDIRS:
        raise CaffeFormatError(f'rankdir={rankdir!r}: expected "TB" or "LR"')
    if not len(message.layer):
        raise CaffeFormatError("the net has no layers to draw")
    title = f'label=<<b>{_text(message.name)}</b>> labelloc="t" ' if message.name else ""
    return "\n".join(
        [
            "digraph net {",
            f'  graph [{title}rankdir="{rankdir}" ranksep="0.3" nodesep="0.25" fontname="Helvetica" fontsize="14"]',
            '  node [shape="plain" fontname="Helvetica" fontsize="10"]',
            '  edge [color="#8794a1" fontcolor="#4a5560" fontname="Helvetica" fontsize="8" arrowsize="0.6"]',
            *(f"  {line}" for line in _Graph(message, shapes or {}).lines()),
            "}\n",
        ]
    )


class _Graph:
    """Nodes and edges of a net.

    Attributes:
        rows: the layers of each node: one layer, and those that work in place on its top.
        blobs: of each node, its tops.
        source: for each blob added so far, by name, the node and top that contain it.
        reads: triples (node, top, reading node).
    """

    def __init__(self, message: Any, shapes: Mapping[str, Shape]) -> None:
        self.shapes = shapes
        self.rows: list[list[Any]] = []
        self.blobs: list[list[str]] = []
        self.source: dict[str, tuple[int, int]] = {}
        self.reads: list[tuple[int, int, int]] = []
        for layer in message.layer:
            self._add(layer)

    def _add(self, layer: Any) -> None:
        bottoms, tops = list(layer.bottom), list(layer.top)
        for name in bottoms:
            if name not in self.source:  # an input without a layer, as in a .caffemodel of lisa-caffe
                self._add_node([], [name])
        if layer.type == "Split":  # only gives a blob more names
            self.source.update((top, self.source[bottoms[0]]) for top in tops if bottoms)
        elif len(tops) == 1 and tops == bottoms and self.rows[self.source[tops[0]][0]]:
            self.rows[self.source[tops[0]][0]].append(layer)
        else:
            sources = dict.fromkeys(self.source[name] for name in bottoms)
            node = self._add_node([layer], tops)
            self.reads += [(*source, node) for source in sources]

    def _add_node(self, rows: list[Any], tops: list[str]) -> int:
        self.rows.append(rows)
        self.blobs.append(tops)
        self.source.update((top, (len(self.rows) - 1, i)) for i, top in enumerate(tops))
        return len(self.rows) - 1

    def lines(self) -> Iterator[str]:
        readers = Counter((node, top) for node, top, _ in self.reads)
        for node, (rows, tops) in enumerate(zip(self.rows, self.blobs, strict=True)):
            yield f"n{node} [label=<{_table(rows) if rows else _text(tops[0])}>]"
            for i, top in enumerate(tops):
                label = f'[label="{self._label(node, top)}"'
                if readers[node, i] == 0:
                    yield f"n{node}t{i} [label=<{_text(top)}>]"
                    yield f"n{node} -> n{node}t{i} {label}]"
                elif readers[node, i] > 1:
                    yield f'n{node}t{i} [shape="point" width="0.05" color="#8794a1"]'
                    yield f'n{node} -> n{node}t{i} {label} arrowhead="none"]'
        for node, i, reader in self.reads:
            if readers[node, i] > 1:
                yield f"n{node}t{i} -> n{reader}"
            else:
                yield f'n{node} -> n{reader} [label="{self._label(node, self.blobs[node][i])}"]'

    def _label(self, node: int, top: str) -> str:
        """The shape of a top, after its name where the node does not show it."""
        rows = self.rows[node]
        shown = not rows or (top == rows[0].name and len(self.blobs[node]) == 1)
        shape = "×".join(map(str, self.shapes[top])) or "scalar" if top in self.shapes else ""
        return " ".join(filter(None, (" ", "" if shown else _text(top), shape)))  # the space keeps it off the edge


def _table(rows: list[Any]) -> str:
    """The HTML-like label of a node: for each layer its name, and below it the type and the most important settings."""
    fill, outline = _colours(rows[0].type)
    cells = []
    for layer in rows:
        known = LAYERS.get(layer.type)
        details = f"{_text(layer.type)} {_text(known.summary(layer)) if known else ''}".strip()
        row_fill, row_outline = _colours(layer.type)
        cells.append(
            f'<tr><td bgcolor="{row_fill}"><b>{_text(layer.name)}</b><br/>'
            f'<font point-size="8.5" color="{row_outline}">{details}</font></td></tr>'
        )
    return (
        f'<table border="1" cellborder="0" cellspacing="0" cellpadding="3" color="{outline}" bgcolor="{fill}">'
        f"{''.join(cells)}</table>"
    )


def _colours(kind: str) -> tuple[str, str]:
    return COLOURS[LAYERS[kind].category if kind in LAYERS else "shape"]


def _text(text: str) -> str:
    """Text for a label: shortened, escaped, and with a box in place of characters that cannot be printed."""
    short = text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
    return escape("".join(c if c.isprintable() else "□" for c in short)).replace("\\", "&#92;")
