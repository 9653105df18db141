"""The timeline picture of one video: probabilities over time, the predicted segments beneath, and the true ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from seqclf.batch import IGNORE, SeqclfError
from seqclf.evaluation.segment_metrics import Labels, segments
from seqclf.reporting.pictures import STYLE, drawable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#b35c90", "#e69f00", "#56b4e9", "#5a3e99", "#8c564b")
"""Told apart by the colour-blind too: Okabe and Ito's without black and yellow, which are too near ink and paper."""
OTHERS = ("#8f959c", "#b4b9bf")
"""Classes beyond the palette, by turns."""
BACKGROUND = "#e3e6e9"
INK = "#2b3036"
WIDTH = 10.0
"""Of a picture, in inches."""
COLUMNS = 1000
"""A picture has about so many columns; what is finer is drawn by its envelope (curves) or its mode (segments)."""


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
    """Draws a video's timeline into a ``.png`` or ``.svg`` file, and gives its path; arguments as of ``draw_timeline``.

    Raises:
        SeqclfError: as of ``draw_timeline``; the file's suffix is another, or it can't be written.
    """
    import matplotlib.style

    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".png", ".svg"):
        raise SeqclfError(f"{path}: a timeline is drawn as .png or .svg")
    style = {**STYLE, "svg.hashsalt": "seqclf"}  # the same picture is the same file
    with matplotlib.style.context(["default", style]):  # whatever the user's matplotlibrc
        figure = draw_timeline(probabilities, classes, truth, fps, top, title, predicted, background)
        try:
            figure.savefig(path, metadata={"Date": None} if kind == ".svg" else None)
        except OSError as error:
            raise SeqclfError(f"{path}: can't be written ({error.strerror or error})") from None
    return path


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
    """The timeline as a figure.

    Curves are drawn of the classes that matter most here: by mean probability, and by the share of frames that they are
    predicted at and are true at. Where there are more frames than columns, a curve is the mean over each column, in a
    band from the lowest to the highest. A class has one colour everywhere; classes without a curve are grey.

    Args:
        probabilities: ``(T, K)`` float, from 0 to 1.
        classes: the K names.
        truth: ``(T,)`` the true classes, a gap where they are ``IGNORE``; None: no row for them.
        fps: frames per second, for a second scale.
        top: how many curves at most, up to the 8 colours there are.
        predicted: ``(T,)`` the predicted classes, such as smoothed ones; None: the most probable.
        background: classes drawn in the lightest grey, without a curve.

    Raises:
        SeqclfError: shapes do not agree, there is no frame, or a probability or a class is out of range.
    """
    p = np.asarray(probabilities.detach().cpu() if isinstance(probabilities, Tensor) else probabilities, dtype=float)
    if p.ndim != 2 or not len(p) or p.shape[1] != len(classes):
        raise SeqclfError(f"probabilities {p.shape} must be (T, K), T from 1 on and K = {len(classes)} classes")
    wrong = np.argwhere(~((p >= -1e-3) & (p <= 1 + 1e-3)))  # NaN too
    if len(wrong):
        raise SeqclfError(f"frame {wrong[0, 0]} has the probability {p[tuple(wrong[0])]:g}, expected 0 to 1")
    if top < 1 or (fps is not None and not (fps > 0 and math.isfinite(fps))):
        raise SeqclfError(f"top={top} must be 1 or more, and fps={fps} a positive number or None")
    T, K = p.shape
    rows = {"predicted": _labels(p.argmax(1) if predicted is None else predicted, T, K, "predicted")}
    if truth is not None:
        rows["true"] = _labels(truth, T, K, "truth")
    plain = set(background)
    weight = p.mean(0) + sum(np.bincount(row[row != IGNORE], minlength=K) / T for row in rows.values())
    shown = [k for k in np.argsort(-weight, kind="stable").tolist() if k not in plain][: min(top, len(PALETTE))]
    colours = dict.fromkeys(plain, BACKGROUND) | dict(zip(shown, PALETTE, strict=False))
    names = drawable(classes, 24)

    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    heights = [2.5] + [0.3] * len(rows)  # inches
    figure = Figure(
        figsize=(WIDTH, sum(heights) + 0.9 + 0.3 * bool(title) + 0.4 * bool(fps)),
        dpi=150,
        layout=ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.12, rect=(0, 0.015, 1, 0.97)),
    )
    above, *bars = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    if title:
        figure.suptitle(_letters(title[:110]), x=0.015, ha="left", size=11, color=INK, parse_math=False)
    for k in reversed(shown):
        _curve(above, 100 * p[:, k], colours[k])
    above.set(ylabel="probability (%)", ylim=(-2, 102), xlim=(-0.5, T - 0.5))
    above.tick_params(bottom=False)
    _name_curves(above, [(100 * p[-1, k], names[k], colours[k]) for k in shown])
    for axes, (label, row) in zip(bars, rows.items(), strict=True):
        _bar(axes, row, {k: colours.get(k, OTHERS[k % len(OTHERS)]) for k in range(K)}, names)
        axes.set_ylabel(label, rotation=0, ha="right", va="center", color=INK)
    there = {k for row in rows.values() for k in row.tolist()} - {IGNORE}
    greys = ["grey: other classes"] * bool(there - set(colours)) + ["lightest: background"] * bool(there & plain)
    bars[0].annotate("\n".join(greys), (1.02, 0.5), xycoords="axes fraction", va="center", size=7, color=INK)
    _scales(above, bars[-1], T, fps)
    return figure


def _labels(labels: Labels, T: int, K: int, what: str) -> Array:
    array = np.asarray(labels.detach().cpu() if isinstance(labels, Tensor) else labels)
    if array.shape != (T,) or array.dtype.kind not in "iu":
        raise SeqclfError(f"{what} {array.dtype} {array.shape} must be whole numbers ({T},), one for each frame")
    wrong = np.flatnonzero((array != IGNORE) & ((array < 0) | (array >= K)))
    if len(wrong):
        raise SeqclfError(
            f"{what}: class {array[wrong[0]]} of frame {wrong[0]} is out of range: 0 to {K - 1}, or IGNORE"
        )
    return array.astype(np.int64)


def _columns(T: int) -> Array:
    """The first frame of each column, and T at the end; None are narrower than a frame."""
    return np.linspace(0, T, min(T, COLUMNS) + 1).astype(np.int64)


def _curve(axes: Axes, values: Array, colour: str) -> None:
    T = len(values)
    if T <= 2 * COLUMNS:
        axes.plot(np.arange(T), values, ".-" if T <= 80 else "-", ms=4, lw=1.4, color=colour)
        return
    edges = _columns(T)
    middles, starts = (edges[:-1] + edges[1:] - 1) / 2, edges[:-1]
    low, high = np.minimum.reduceat(values, starts), np.maximum.reduceat(values, starts)
    axes.fill_between(middles, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.plot(middles, np.add.reduceat(values, starts) / np.diff(edges), lw=1.2, color=colour)


def _name_curves(axes: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Names to the right of the curves' ends (value, name, colour), moved apart so that none covers another."""
    ends, gap = sorted(ends, key=lambda end: end[0]), 7.0  # per cent; a line of text is 6
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
    """The segments as one bar, the names in those that are wide enough."""
    T, edges = len(row), _columns(len(row))
    if T > COLUMNS:  # of each column the class of most of its frames
        column, K = np.repeat(np.arange(len(edges) - 1), np.diff(edges)), len(names)
        held = np.bincount(column * (K + 1) + np.where(row == IGNORE, K, row), minlength=(len(edges) - 1) * (K + 1))
        row = held.reshape(-1, K + 1).argmax(1)
        row = np.where(row == K, IGNORE, row)
    found = [(k, float(edges[start]) - 0.5, float(edges[stop] - edges[start])) for k, start, stop in segments(row)]
    spans, fills = [(start, width) for _, start, width in found], [colours[k] for k, _, _ in found]
    axes.broken_barh(spans, (0, 1), facecolors=fills, linewidths=0, antialiased=False)
    alike = [spans[i][0] for i in range(1, len(found)) if fills[i] == fills[i - 1]]  # two classes, both grey
    axes.vlines(alike if len(found) <= 100 else [], 0, 1, color="white", linewidth=1)
    for k, start, width in found:
        room = width / T * WIDTH * 0.7 - 0.08  # inches; the bars take at least so much of the picture
        if name := _fitting(names[k], room):
            ink = "white" if _dark(colours[k]) else INK
            axes.text(start + width / 2, 0.48, name, ha="center", va="center", size=7.5, color=ink, parse_math=False)
    axes.set(ylim=(0, 1), yticks=[])
    axes.grid(False)
    axes.tick_params(bottom=False)
    axes.spines[:].set(visible=True, color="#d5d9dd", linewidth=0.6)


def _scales(above: Axes, below: Axes, T: int, fps: float | Fraction | None) -> None:
    """Frames beneath, seconds on top."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator, StrMethodFormatter

    below.tick_params(bottom=True)
    below.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    below.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    below.set_xlabel("frame, the first being 0")
    if fps is None:
        return
    rate = float(fps)

    def to_seconds(frames: Any) -> Any:
        return frames / rate

    def to_frames(seconds: Any) -> Any:
        return seconds * rate

    seconds = above.secondary_xaxis("top", functions=(to_seconds, to_frames))
    seconds.spines["top"].set_visible(False)
    if T / rate < 120:
        seconds.xaxis.set_major_locator(MaxNLocator(10))
        seconds.set_xlabel("seconds")
        return
    steps = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
    step = next((step for step in steps if T / rate <= 12 * step), 3600 * math.ceil(T / rate / 12 / 3600))
    hours = T / rate >= 3600
    seconds.xaxis.set_major_locator(MultipleLocator(step))
    seconds.xaxis.set_major_formatter(FuncFormatter(lambda s, _: _clock(round(s), hours)))
    seconds.set_xlabel("hours:minutes:seconds" if hours else "minutes:seconds")


def _clock(seconds: int, hours: bool) -> str:
    minutes, second = divmod(seconds, 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}" if hours else f"{minutes}:{second:02}"


def _fitting(name: str, room: float) -> str:
    """As much of a name as fits into so many inches, nothing where that is too little to know it by."""
    from matplotlib.textpath import TextPath

    letters = int(room / 0.07)
    if letters < min(len(name), 6):
        return ""
    whole = letters > 2 * len(name) or TextPath((0, 0), name, size=7.5).get_extents().width / 72 < room
    return name if whole else name[: letters - 1] + "…"


def _dark(colour: str) -> bool:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue < 140


def _letters(text: str) -> str:
    """The text, with ? for letters that the picture's font lacks."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    letters = get_font(findfont(FontProperties())).get_charmap()
    return "".join(c if ord(c) in letters else "?" for c in text)
