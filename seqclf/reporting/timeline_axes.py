"""What the pictures of timelines share: their file, their layout and their scales."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from seqclf.batch import SeqclfError
from seqclf.reporting.style import drawable_text, picture_style
from seqclf.runtime.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray[Any, Any]

BACKGROUND = "#e3e6e9"
INK = "#2b3036"
WIDTH = 10.0
"""Width of a picture in inches."""
COLUMNS = 1000
"""Columns of a picture. In longer videos a column shows the range of a curve and the most frequent class."""


def save(path: str | Path, draw: Callable[[], Figure]) -> Path:
    """Writes the figure that ``draw`` returns to a ``.png`` or ``.svg`` file; returns the path.

    Raises:
        SeqclfError: as ``draw``; also if the suffix is another, or the file cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower()
    if kind not in (".png", ".svg"):
        raise SeqclfError(f"{path}: a timeline is a .png or .svg file")
    with picture_style():
        figure = draw()
        try:
            with replacing(path) as part:
                figure.savefig(part, format=kind[1:], metadata={"Date": None} if kind == ".svg" else None)
        except OSError as error:
            raise SeqclfError(f"{path}: cannot be written ({error.strerror or error})") from None
    return path


def as_probabilities(probabilities: Tensor | Array, K: int) -> Array:
    """The probabilities as an array ``(T, K)``, checked."""
    p = np.asarray(probabilities.detach().cpu() if isinstance(probabilities, Tensor) else probabilities, dtype=float)
    if p.ndim != 2 or not len(p) or p.shape[1] != K:
        raise SeqclfError(f"probabilities have the shape {p.shape}, expected (T, K) with T >= 1 and K = {K} classes")
    wrong = np.argwhere(~((p >= -1e-3) & (p <= 1 + 1e-3)))  # NaN too
    if len(wrong):
        raise SeqclfError(f"frame {wrong[0, 0]} has the probability {p[tuple(wrong[0])]:g}, expected 0 to 1")
    return p


def layout(heights: Sequence[float], title: str, seconds: bool) -> tuple[Figure, Any]:
    """The figure with axes of these heights in inches, one below the other."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(
        figsize=(WIDTH, sum(heights) + 0.9 + 0.3 * bool(title) + 0.4 * seconds),
        dpi=150,
        layout=ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.12, rect=(0, 0.015, 1, 0.97)),
    )
    if title:
        figure.suptitle(drawable_text(title[:110]), x=0.015, ha="left", size=11, color=INK, parse_math=False)
    return figure, figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]


def columns(T: int) -> Array:
    """The first frame of each column, and T. No column is narrower than a frame."""
    return np.linspace(0, T, min(T, COLUMNS) + 1).astype(np.int64)


def scales(above: Axes, below: Axes, T: int, fps: float | Fraction | None) -> None:
    """Frames below, seconds above."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator, StrMethodFormatter

    below.tick_params(bottom=True)
    below.xaxis.set_major_locator(MaxNLocator(10, integer=True, min_n_ticks=1))
    below.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    below.set_xlabel("frame (the first is 0)")
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
