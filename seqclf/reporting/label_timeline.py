"""The timeline picture of a multi-label prediction: for each class its probability, predicted and true frames."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError
from seqclf.evaluation.multi_label import Threshold, as_thresholds
from seqclf.reporting.style import class_colour, drawable
from seqclf.reporting.timeline_axes import BACKGROUND, INK, Array, as_probabilities, columns, layout, save, scales

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LANES = {"probability": (0.34, 0.62), "predicted": (0.19, 0.1), "true": (0.05, 0.1)}
"""Lower edge and height of what is drawn for a class, in rows."""
MOST = 12
"""The largest number of classes. Those with the highest mean probability or share of true frames are shown."""


def label_timeline(
    probabilities: Tensor | Array,
    classes: Sequence[str],
    path: str | Path,
    truth: Tensor | Array | None = None,
    fps: float | Fraction | None = None,
    title: str = "",
    threshold: Threshold = 0.5,
) -> Path:
    """Draws the timeline of a multi-label prediction: a row for each class, in the order of the classes.

    A row shows the probability as an area with a line at the threshold, and below it bars where the class is predicted
    and where it is true. If there are more frames than columns, a column shows the mean probability, and a bar where a
    class is predicted or true in half of its frames.

    Args:
        probabilities: ``(T, K)`` float, from 0 to 1.
        classes: the K names.
        path: a ``.png`` or ``.svg`` file.
        truth: ``(T, K)`` int, 0, 1 or ``IGNORE``, which is grey. None: no such bars.
        fps: frames per second, for a scale in seconds.
        title: the title.
        threshold: the lowest probability of a class that is predicted; one number, or one for each class.

    Returns:
        the path.

    Raises:
        SeqclfError: shapes do not agree, there are no frames, or a value is out of range; as ``save``.
    """
    p = as_probabilities(probabilities, len(classes))
    least = as_thresholds(threshold, len(classes)).numpy()
    known = None if truth is None else np.asarray(truth.cpu() if isinstance(truth, Tensor) else truth)
    if known is not None and known.shape != p.shape:
        raise SeqclfError(f"truth has the shape {known.shape}, but probabilities {p.shape}")
    return save(path, lambda: _draw(p, classes, known, fps, title, least))


def _draw(
    p: Array, classes: Sequence[str], known: Array | None, fps: float | Fraction | None, title: str, least: Array
) -> Figure:
    weight = np.maximum(p.mean(0), 0 if known is None else (known == 1).mean(0))
    shown = sorted(np.argsort(-weight, kind="stable")[:MOST].tolist())
    figure, (axes,) = layout([0.42 * len(shown) + 0.3], title, fps is not None)
    names = drawable(classes, 24)
    for row, k in enumerate(reversed(shown)):
        _row(axes, row, p[:, k], least[k], None if known is None else known[:, k], class_colour(k))
    axes.set_yticks([row + 0.5 for row in range(len(shown))], [names[k] for k in reversed(shown)], parse_math=False)
    axes.set(ylim=(0, len(shown)), xlim=(-0.5, len(p) - 0.5))
    axes.grid(False)
    axes.tick_params(axis="y", length=0, colors=INK)
    lanes = "area: probability; bars: predicted" + ("" if known is None else ", true (black; grey: unknown)")
    hidden = len(classes) - len(shown)
    lanes += f"; {hidden} more classes" if hidden else ""
    below = {"xytext": (0, -22), "textcoords": "offset points", "ha": "right", "va": "top"}
    axes.annotate(lanes, (1, 0), xycoords="axes fraction", size=7, color=INK, **below)
    scales(axes, axes, len(p), fps)
    return figure


def _row(axes: Axes, row: int, p: Array, least: float, truth: Array | None, colour: str) -> None:
    """One class: its area, its threshold and its bars."""
    edges = columns(len(p))
    starts, widths = edges[:-1], np.diff(edges)

    def mean(values: Array) -> Array:
        share: Array = np.add.reduceat(values.astype(float), starts) / widths
        return share

    base, height = LANES["probability"]
    heights = row + base + height * np.append(mean(p), 0)
    axes.fill_between(edges - 0.5, row + base, heights, step="post", color=colour, alpha=0.45, linewidth=0)
    axes.axhline(row + base + height * least, color="#b4b9bf", linewidth=0.6, linestyle=":")
    axes.axhline(row, color="#d5d9dd", linewidth=0.6)
    bars = [("predicted", mean(p >= least) >= 0.5, colour)]
    if truth is not None:
        bars += [("true", mean(truth == IGNORE) >= 0.5, BACKGROUND), ("true", mean(truth == 1) >= 0.5, INK)]
    for lane, present, fill in bars:
        turns = np.flatnonzero(np.diff(np.concatenate([[0], present.astype(int), [0]])))
        spans = [(edges[a] - 0.5, float(edges[b] - edges[a])) for a, b in turns.reshape(-1, 2)]
        low, tall = LANES[lane]
        axes.broken_barh(spans, (row + low, tall), facecolors=fill, linewidths=0, antialiased=False)
