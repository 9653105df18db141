"""The metrics that one line shows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from seqclf.evaluation import multi_label
from seqclf.evaluation.metrics import FIGURES

LOGGED = ("frame_balanced_accuracy", "frame_macro_f1", "clip_balanced_accuracy", "clip_macro_f1")
"""The metrics that ``metrics.jsonl`` holds besides those of a line of text, if they were measured."""
SEGMENTAL = ("edit", "f1_50")
"""The main segment metrics, from 0 to 100."""


def headline_metrics(figures: dict[str, Any], own: Iterable[str] = ()) -> list[str]:
    """The names of the main metrics, of the main segment metrics if they were measured, and of the user's own."""
    main = multi_label.FIGURES if "frame_map" in figures else FIGURES
    return [*main, *(name for name in SEGMENTAL if name in figures), *own]


def describe(figures: dict[str, Any], own: Iterable[str] = ()) -> str:
    """The main metrics and the user's own in one line."""
    shown = []
    for name in headline_metrics(figures, own):
        if figures[name] is not None:
            value = figures[name] / 100 if name in SEGMENTAL else figures[name]
            as_number = name == "loss" or name in own
            shown.append(f"{name} {value:.4f}" if as_number else f"{name} {value:.2%}")
    return "  ".join(shown)
