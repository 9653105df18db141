"""Model selection: which checkpoint is the best, and whether an evaluation stops the run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqclf.batch import PeerFailed, SeqclfError
from seqclf.data import Data
from seqclf.evaluation.evaluator import possible_metrics
from seqclf.evaluation.metrics import clips_have_one_label
from seqclf.experiment.config import Experiment
from seqclf.runtime.distributed import World
from seqclf.training.state import TrainState

OnEvaluation = Callable[[int, dict[str, Any]], bool | None]
"""``on_evaluation(step, metrics)`` is called after each evaluation; if it returns True, the run stops."""

LOWER_IS_BETTER = ("loss",)


def selection_metric(experiment: Experiment, data: Data) -> str | None:
    """The name of the metric that chooses the best checkpoint; None without a validation part.

    It is ``best_by``, or by default the accuracy of clips by the decision rule, or of frames if labels change within a
    clip; for multi-label data, the mean average precision.

    Raises:
        SeqclfError: ``best_by`` or ``patience`` is set without a validation part, or for the labels of this part there
            is no such metric.
    """
    if data.validation is None:
        for name in ("best_by", "patience"):
            if getattr(experiment, name) is not None:
                raise SeqclfError(
                    f"setting {name}={getattr(experiment, name)}: the data has no validation part; hold one out with "
                    "validation=0.1"
                )
        return None
    decision = data.decision_rule()
    possible = possible_metrics(data.validation, data.num_classes, data.background, decision)
    of_clips = clips_have_one_label(possible)
    over = f"clip_{decision}" if of_clips else "frame"
    default = f"{over}_map" if data.multi_label else over if of_clips else "frame_accuracy"
    metric = default if experiment.best_by is None else experiment.best_by
    own = experiment.metrics or {}
    names = [name for name, value in possible.items() if isinstance(value, float)]
    if metric in (*names, *own):
        return metric
    missing = "no such metric"
    if metric in possible and possible[metric] is None:
        missing = "no label that this metric counts"
    raise SeqclfError(
        f"setting best_by={metric}: the validation part has {missing}; choose one of {', '.join([*own, *names])}"
    )


def has_value(value: float | None) -> bool:
    """Whether a metric is a finite number, so that evaluations can be compared by it."""
    return value is not None and math.isfinite(value)


def is_better(metric: str, value: float, best: float) -> bool:
    """Whether a value is above the best one; for the loss, below."""
    return value < best if metric in LOWER_IS_BETTER else value > best


def choose(state: TrainState, metric: str, metrics: dict[str, Any], patience: int | None) -> bool:
    """Compares an evaluation on the validation part with the best one so far, and stops a run that does not improve.

    Args:
        state: its ``best``, ``stale`` and ``stopped`` are set.
        metric: the name of the metric that chooses.
        metrics: the metrics of the evaluation.
        patience: the run stops after this number of evaluations without a better one; None for no limit.

    Returns:
        whether this is the best evaluation so far. Of equal ones, the first is the best. One without a finite value,
        such as that of a user's metric that is NaN, is no improvement.
    """
    best, value = state.best, metrics[metric]
    improved = has_value(value) and (best is None or is_better(metric, value, best["value"]))
    if improved:
        state.best = {"step": state.step, "metric": metric, "value": value}
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
