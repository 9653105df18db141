"""Which checkpoint is the best: a metric of the validation part, compared from evaluation to evaluation."""

from __future__ import annotations

from typing import Any

from seqclf.batch import SeqclfError
from seqclf.data.input_spec import DecisionRule

LOWER_IS_BETTER = ("loss",)


def selection_metric(best_by: str | None, figures: dict[str, Any], decision: DecisionRule) -> str:
    """The name of the metric that chooses the best checkpoint.

    Args:
        best_by: the setting; None for the accuracy of clips by the decision rule, or of frames without labels of
            clips; of multi-label data for the mean average precision.
        figures: the metrics of an evaluation.
        decision: how a clip is classified.

    Raises:
        SeqclfError: an evaluation has no such metric, or it is no number.
    """
    if best_by is None:
        over = f"clip_{decision}" if figures["clips"] else "frame"
        if "frame_map" in figures:
            return f"{over}_map"
        return over if figures["clips"] else "frame_accuracy"
    if not isinstance(figures.get(best_by, []), (int, float, type(None))):
        raise SeqclfError(
            f"setting best_by={best_by}: the validation part has no such metric; there are {_names(figures)}"
        )
    return best_by


def selection_value(metric: str, figures: dict[str, Any]) -> float:
    """The value of the metric.

    Raises:
        SeqclfError: it is None, because the validation part has no clips or frames that it counts.
    """
    if figures[metric] is None:
        known = {name: value for name, value in figures.items() if value is not None}
        raise SeqclfError(
            f"setting best_by={metric}: nothing in the validation part has this metric; there are {_names(known)}"
        )
    return float(figures[metric])


def is_better(metric: str, value: float, best: float) -> bool:
    """Whether a value is above the best one; for the loss, below."""
    return value < best if metric in LOWER_IS_BETTER else value > best


def _names(figures: dict[str, Any]) -> str:
    counts = ("frames", "clips")
    return ", ".join(k for k, v in figures.items() if k not in counts and isinstance(v, (int, float, type(None))))
