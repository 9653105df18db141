"""The look of all pictures: sizes, colours, and text that the font of the picture has."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ft2font import FT2Font

STYLE = {
    **{"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "font.size": 9},
    **{f"figure.constrained_layout.{side}_pad": 0.12 for side in "wh"},  # inches; the default cuts letters off
    "svg.hashsalt": "seqclf",  # the same picture is the same file
}
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#b35c90", "#e69f00", "#56b4e9", "#5a3e99", "#8c564b")
"""Okabe and Ito's colours, safe for colour-blind readers, without black and yellow (too close to ink and paper)."""
SHADES = {False: (0.0, -0.35, 0.45), True: (0.4, 0.1, 0.7)}
"""How far each repetition of the palette is moved to black (-1) or white (1), on white and on dark paper."""
DASHES: tuple[tuple[float, ...], ...] = ((), (5, 2), (2, 1.5), (6, 2, 1.5, 2))
"""The lines of curves; the first one is solid."""

_DRAWING = threading.Lock()
"""Matplotlib's style is global: one thread draws at a time."""


@contextmanager
def picture_style() -> Iterator[None]:
    """Draws with this style, whatever the user's matplotlibrc says."""
    import matplotlib.style

    with _DRAWING, matplotlib.style.context(["default", STYLE]):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; sizes in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=150)


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Adds axes at a place in inches. A layout computed by matplotlib would take half of the drawing time."""
    wide, high = figure.get_size_inches()
    return figure.add_axes((left / wide, bottom / high, width / wide, height / high))


def png_of(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def class_colour(k: int, dark: bool = False) -> str:
    """The colour of class ``k`` in all pictures: the palette, then its colours darker, then lighter, and so on."""
    number, shades = k // len(PALETTE), SHADES[dark]
    shade, colour = shades[number % len(shades)], PALETTE[k % len(PALETTE)]
    end = 255 if shade > 0 else 0
    return "#" + "".join(f"{round(value + abs(shade) * (end - value)):02x}" for value in bytes.fromhex(colour[1:]))


def class_line(k: int) -> tuple[float, ...]:
    """The dashes of the curve of class ``k``, in line widths: they tell classes of the same colour apart."""
    return DASHES[k // (len(PALETTE) * len(SHADES[False])) % len(DASHES)]


def point_size(points: int) -> float:
    """The size of the points of a curve; a single point has no line, and needs a larger one."""
    return 4 if points > 1 else 12


def text_width(texts: Iterable[str], size: float) -> float:
    """The width of the widest text, in inches."""
    font = _font()
    font.set_size(size, 72)

    def width(text: str) -> float:
        font.set_text(text)
        return float(font.get_width_height()[0]) / 64 / 72

    return max(map(width, texts), default=0.0)


def drawable(names: Iterable[str], limit: int) -> list[str]:
    """Class names for a picture: cut to ``limit`` letters; "class <k>" if the font lacks a letter."""
    letters = _font().get_charmap()
    cut = (name if len(name) <= limit else name[: limit - 1] + "…" for name in names)
    return [name if all(ord(c) in letters for c in name) else f"class {k}" for k, name in enumerate(cut)]


def drawable_text(text: str) -> str:
    """The text, with ? for letters that the font lacks."""
    letters = _font().get_charmap()
    return "".join(c if ord(c) in letters else "?" for c in text)


def _font() -> FT2Font:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return get_font(findfont(FontProperties()))
