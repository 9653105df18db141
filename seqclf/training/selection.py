"""Model selection: which checkpoint is the best, and whether an evaluation stops the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqclf.batch import PeerFailed, SeqclfError
from seqclf.data.input_spec import DecisionRule
from seqclf.runtime.distributed import World
from seqclf.training.state import TrainState

OnEvaluation = Callable[[int, dict[str, Any]], bool | None]
"""``on_evaluation(step, metrics)`` is called after each evaluation; if it returns True, the run stops."""

LOWER_IS_BETTER = ("loss",)


def selection_metric(best_by: str | None, metrics: dict[str, Any], decision: DecisionRule) -> str:
    """The name of the metric that chooses the best checkpoint.

    Args:
        best_by: the setting; None for the accuracy of clips by the decision rule, or of frames if labels change within
            a clip; for multi-label data, the mean average precision.
        metrics: the metrics of an evaluation.
        decision: how a clip is classified.

    Raises:
        SeqclfError: an evaluation has no such metric, or it is not a number.
    """
    if best_by is None:
        over = f"clip_{decision}" if metrics["clips"] else "frame"
        if "frame_map" in metrics:
            return f"{over}_map"
        return over if metrics["clips"] else "frame_accuracy"
    if not isinstance(metrics.get(best_by, []), (float, type(None))):
        raise SeqclfError(
            f"setting best_by={best_by}: the validation part has no such metric; there are {_names(metrics)}"
        )
    return best_by


def selection_value(metric: str, metrics: dict[str, Any]) -> float:
    """The value of the metric.

    Raises:
        SeqclfError: it is None, because the validation part has no clips or frames that it counts.
    """
    if metrics[metric] is None:
        known = {name: value for name, value in metrics.items() if value is not None}
        raise SeqclfError(
            f"setting best_by={metric}: this metric has no value on the validation part; there are {_names(known)}"
        )
    return float(metrics[metric])


def is_better(metric: str, value: float, best: float) -> bool:
    """Whether a value is above the best one; for the loss, below."""
    return value < best if metric in LOWER_IS_BETTER else value > best


def _names(metrics: dict[str, Any]) -> str:
    return ", ".join(name for name, value in metrics.items() if isinstance(value, (float, type(None))))


def choose(state: TrainState, metric: str, metrics: dict[str, Any], patience: int | None) -> bool:
    """Compares an evaluation on the validation part with the best one so far, and stops a run that does not improve.

    Args:
        state: its ``best``, ``stale`` and ``stopped`` are set.
        metric: the name of the metric that chooses.
        metrics: the metrics of the evaluation.
        patience: the run stops after this number of evaluations without a better one; None for no limit.

    Returns:
        whether this is the best evaluation so far. Of equal ones, the first is the best. One without a value, such as
        that of a user's metric that is NaN, is no improvement.

    Raises:
        SeqclfError: the first evaluation has no value of the metric.
    """
    best, value = state.best, metrics[metric]
    improved = best is None or (value is not None and is_better(metric, value, best["value"]))
    if improved:
        state.best = {"step": state.step, "metric": metric, "value": selection_value(metric, metrics)}
    state.stale = 0 if improved else state.stale + 1
    if patience is not None and state.stale >= patience:
        reason = f"{metric} on validation has not improved for {state.stale} evaluations"
        state.stopped = {"step": state.step, "by": "patience", "reason": reason}
    return improved


def call_back(
    on_evaluation: OnEvaluation, state: TrainState, metrics: dict[str, Any], save: Callable[[], Path], world: World
) -> None:
    """Calls the user's function in the leading process, and stops the run if it returns True.

    Raises:
        Exception: what the function raises, in the leading process, after a checkpoint was saved.
        PeerFailed: in the other processes then.
    """
    error, stop = None, False
    if world.leads:
        try:
            stop = bool(on_evaluation(state.step, dict(metrics)))
        except Exception as raised:  # user code
            error = raised
    outcome = world.largest(2 if error is not None else int(stop))
    if outcome == 2:
        save()
        raise error or PeerFailed("on_evaluation raised an exception")
    if outcome == 1:
        state.stopped = {"step": state.step, "by": "on_evaluation", "reason": "on_evaluation returned True"}


def stays_stopped(state: TrainState, patience: int | None, on_evaluation: OnEvaluation | None) -> bool:
    """Whether what stopped a run would stop it again when it is resumed."""
    if state.stopped is None:
        return False
    if state.stopped["by"] == "patience":
        return patience is not None and state.stale >= patience
    return on_evaluation is not None
