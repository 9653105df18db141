"""The metrics that one line shows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from seqclf.evaluation import multi_label
from seqclf.evaluation.metrics import METRICS, clips_have_one_label

LOGGED = ("frame_balanced_accuracy", "frame_macro_f1", "clip_balanced_accuracy", "clip_macro_f1")
"""The metrics that ``metrics.jsonl`` holds besides those of a line of text, if they were measured."""
SEGMENTAL = ("edit", "f1_50")
"""The main segment metrics, from 0 to 100."""


def headline_metrics(metrics: dict[str, Any], own: Iterable[str] = ()) -> list[str]:
    """The names of the main metrics, of the main segment metrics if they were measured, and of the user's own.

    Metrics of clips are left out if the label of a clip changes.
    """
    main = multi_label.METRICS if "frame_map" in metrics else METRICS
    return [*_meaningful(main, metrics), *(name for name in SEGMENTAL if name in metrics), *own]


def logged_metrics(metrics: dict[str, Any], own: Iterable[str] = ()) -> list[str]:
    """The names of the metrics that a line of ``metrics.jsonl`` holds."""
    return list(dict.fromkeys([*headline_metrics(metrics, own), *_meaningful(LOGGED, metrics)]))


def _meaningful(names: Iterable[str], metrics: dict[str, Any]) -> list[str]:
    clips = clips_have_one_label(metrics)
    return [name for name in names if name in metrics and (clips or not name.startswith("clip_"))]


def describe(metrics: dict[str, Any], own: Iterable[str] = ()) -> str:
    """The main metrics and the user's own in one line."""
    shown = []
    for name in headline_metrics(metrics, own):
        if metrics[name] is None:
            shown.append(f"{name} –")
        elif name == "loss" or name in own:
            shown.append(f"{name} {metrics[name]:.4f}")
        else:
            shown.append(f"{name} {metrics[name] / 100 if name in SEGMENTAL else metrics[name]:.2%}")
    return "  ".join(shown)
