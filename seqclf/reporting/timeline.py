"""The timeline picture of one video: probabilities over time, and below them the predicted and the true segments."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError
from seqclf.evaluation.segment_metrics import Labels, segments
from seqclf.reporting.style import PALETTE, class_colour, class_line, drawable, point_size, text_width
from seqclf.reporting.timeline_axes import (
    BACKGROUND,
    COLUMNS,
    INK,
    WIDTH,
    Array,
    as_probabilities,
    columns,
    layout,
    save,
    scales,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OTHERS = ("#8f959c", "#b4b9bf")
"""Greys, in turn, for classes without a curve."""


def timeline(
    probabilities: Tensor | Array,
    classes: Sequence[str],
    path: str | Path,
    truth: Labels | None = None,
    fps: float | Fraction | None = None,
    top: int = 5,
    title: str = "",
    predicted: Labels | None = None,
    background: Iterable[int] = (),
) -> Path:
    """Draws the timeline of a video into a ``.png`` or ``.svg`` file.

    Args:
        path: the file. For all other arguments see ``draw_timeline``.

    Returns:
        the path.

    Raises:
        SeqclfError: as ``draw_timeline``; also if the suffix is another, or the file cannot be written.
    """
    return save(path, lambda: draw_timeline(probabilities, classes, truth, fps, top, title, predicted, background))


def draw_timeline(
    probabilities: Tensor | Array,
    classes: Sequence[str],
    truth: Labels | None = None,
    fps: float | Fraction | None = None,
    top: int = 5,
    title: str = "",
    predicted: Labels | None = None,
    background: Iterable[int] = (),
) -> Figure:
    """The timeline as a matplotlib figure.

    The classes with curves are those with the highest sum of mean probability, share of predicted frames and share of
    true frames. If there are more frames than columns, a curve is the mean over each column, inside a band from the
    minimum to the maximum. A class has the same colour in the pictures of all videos. Classes without a
    curve are grey.

    Args:
        probabilities: ``(T, K)`` float, from 0 to 1.
        classes: the K names.
        truth: ``(T,)`` int, the true classes; frames with ``IGNORE`` are blank. None: no such row.
        fps: frames per second, for a scale in seconds.
        top: the largest number of curves, at most 8.
        predicted: ``(T,)`` int, the predicted classes, such as smoothed ones. None: the most probable class.
        background: classes drawn in the lightest grey, without a curve.

    Raises:
        SeqclfError: shapes do not agree, there are no frames, or a probability, class, ``top`` or ``fps`` is out of
            range.
    """
    p = as_probabilities(probabilities, len(classes))
    if top < 1 or (fps is not None and not (fps > 0 and math.isfinite(fps))):
        raise SeqclfError(f"top={top} must be 1 or more, and fps={fps} a positive number or None")
    T, K = p.shape
    rows = {"predicted": _labels(p.argmax(1) if predicted is None else predicted, T, K, "predicted")}
    if truth is not None:
        rows["true"] = _labels(truth, T, K, "truth")
    plain = set(background)
    shown = _classes_with_curves(p, rows.values(), plain, top)
    colours = dict.fromkeys(plain, BACKGROUND) | {k: class_colour(k) for k in shown}
    names = drawable(classes, 24)

    figure, (above, *bars) = layout([2.5] + [0.3] * len(rows), title, fps is not None)
    for k in reversed(shown):
        _curve(above, 100 * p[:, k], colours[k], class_line(k))
    above.set(ylabel="probability (%)", ylim=(-2, 102), xlim=(-0.5, T - 0.5))
    above.tick_params(bottom=False)
    _name_curves(above, [(100 * p[-1, k], names[k], colours[k]) for k in shown])
    for axes, (label, row) in zip(bars, rows.items(), strict=True):
        _bar(axes, row, {k: colours.get(k, OTHERS[k % len(OTHERS)]) for k in range(K)}, names)
        axes.set_ylabel(label, rotation=0, ha="right", va="center", color=INK)
    present = {k for row in rows.values() for k in row.tolist()} - {IGNORE}
    greys = ["grey: other classes"] * bool(present - set(colours)) + ["lightest: background"] * bool(present & plain)
    bars[0].annotate("\n".join(greys), (1.02, 0.5), xycoords="axes fraction", va="center", size=7, color=INK)
    scales(above, bars[-1], T, fps)
    return figure


def _classes_with_curves(p: Array, rows: Iterable[Array], without: set[int], top: int) -> list[int]:
    weight = p.mean(0) + sum(np.bincount(row[row != IGNORE], minlength=p.shape[1]) / len(p) for row in rows)
    order: list[int] = np.argsort(-weight, kind="stable").tolist()
    return [k for k in order if k not in without][: min(top, len(PALETTE))]


def _labels(labels: Labels, T: int, K: int, name: str) -> Array:
    array = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if array.shape != (T,) or array.dtype.kind not in "iu":
        raise SeqclfError(f"{name} is {array.dtype} {array.shape}, expected integers ({T},), one for each frame")
    wrong = np.flatnonzero((array != IGNORE) & ((array < 0) | (array >= K)))
    if len(wrong):
        raise SeqclfError(f"{name}: frame {wrong[0]} has class {array[wrong[0]]}, expected 0 to {K - 1} or IGNORE")
    return array.astype(np.int64)


def _curve(axes: Axes, values: Array, colour: str, dashes: tuple[float, ...]) -> None:
    T = len(values)
    if T <= 2 * COLUMNS:
        axes.plot(np.arange(T), values, ".-" if T <= 80 else "-", ms=point_size(T), lw=1.4, color=colour, dashes=dashes)
        return
    edges = columns(T)
    middles, starts = (edges[:-1] + edges[1:] - 1) / 2, edges[:-1]
    low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    axes.fill_between(middles, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(middles, np.add.reduceat(values, starts) / np.diff(edges), lw=1.2, color=colour, dashes=dashes)


def _name_curves(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Names to the right of the ends of curves (value, name, colour), moved apart so that they do not overlap."""
    ends, gap = sorted(ends, key=lambda end: end[0]), 7.0  # in percent; a line of text takes 6
    places: list[float] = []
    for value, _, _ in ends:
        places.append(max(value, places[-1] + gap) if places else value)
    limit = 100.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], limit)
        limit = places[i] - gap
    where = ("axes fraction", "data")
    for (value, name, colour), place in zip(ends, places, strict=True):
        line = {"arrowstyle": "-", "color": colour, "lw": 1.4, "shrinkA": 1, "shrinkB": 0, "relpos": (0, 0.5)}
        axes.annotate(
            name,
            (1.0, value),
            (1.035, place),
            xycoords=where,
            textcoords=where,
            arrowprops=line,
            va="center",
            size=8.5,
            color=INK,
            annotation_clip=False,
            parse_math=False,
        )


def _bar(axes: Axes, row: Array, colours: dict[int, str], names: Sequence[str]) -> None:
    """The segments as one bar; those that are wide enough carry their names."""
    T, edges = len(row), columns(len(row))
    if T > COLUMNS:  # a column shows its most frequent class
        column, K = np.repeat(np.arange(len(edges) - 1), np.diff(edges)), len(names)
        held = np.bincount(column * (K + 1) + np.where(row == IGNORE, K, row), minlength=(len(edges) - 1) * (K + 1))
        row = held.reshape(-1, K + 1).argmax(1)
        row = np.where(row == K, IGNORE, row)
    found = [(k, float(edges[start]) - 0.5, float(edges[stop] - edges[start])) for k, start, stop in segments(row)]
    spans, fills = [(start, width) for _, start, width in found], [colours[k] for k, _, _ in found]
    axes.broken_barh(spans, (0, 1), facecolors=fills, linewidths=0, antialiased=False)
    alike = [spans[i][0] for i in range(1, len(found)) if fills[i] == fills[i - 1]]  # neighbours that are both grey
    axes.vlines(alike if len(found) <= 100 else [], 0, 1, color="white", linewidth=1)
    for k, start, width in found:
        room = width / T * WIDTH * 0.7 - 0.08  # inches; the bars take at least 0.7 of the width
        if name := _fitting(names[k], room):
            ink = "white" if _dark(colours[k]) else INK
            axes.text(start + width / 2, 0.48, name, ha="center", va="center", size=7.5, color=ink, parse_math=False)
    axes.set(ylim=(0, 1), yticks=[])
    axes.grid(False)
    axes.tick_params(bottom=False)
    axes.spines[:].set(visible=True, color="#d5d9dd", linewidth=0.6)


def _fitting(name: str, room: float) -> str:
    """As much of a name as fits into ``room`` inches; empty if that is too little to recognise it."""
    letters = int(room / 0.07)
    if letters < min(len(name), 6):
        return ""
    whole = letters > 2 * len(name) or text_width([name], 7.5) < room
    return name if whole else name[: letters - 1] + "…"


def _dark(colour: str) -> bool:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140
