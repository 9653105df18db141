"""The metrics that one line shows."""

from __future__ import annotations

from typing import Any

from seqclf.evaluation.metrics import FIGURES


def headline_metrics(figures: dict[str, Any]) -> list[str]:
    """The names of the main metrics, and of the main segment metrics if they were measured."""
    return [*FIGURES, *(name for name in ("edit", "f1_50") if name in figures)]


def describe(figures: dict[str, Any]) -> str:
    """The main metrics in one line."""
    shown = []
    for name in headline_metrics(figures):
        if figures[name] is not None:
            value = figures[name] if name in FIGURES else figures[name] / 100
            shown.append(f"{name} {value:.4f}" if name == "loss" else f"{name} {value:.2%}")
    return "  ".join(shown)
