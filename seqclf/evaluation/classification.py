"""Precision, recall, F1, balanced accuracy and Cohen's kappa of a confusion matrix, as scikit-learn defines them."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def classification_metrics(confusion: Tensor, prefix: str) -> dict[str, Any]:
    """Metrics for imbalanced classes.

    Where a definition divides by zero, the value is 0, as with scikit-learn's ``zero_division=0``: the precision of a
    class that is never predicted, and the recall of one that never occurs. Only Cohen's kappa is then None: where all
    labels and predictions are of one class, scikit-learn's is NaN. Macro averages are over the classes that
    occur or are predicted, the balanced accuracy over those that occur.

    Args:
        confusion: ``(K, K)`` counts; a row for each true class, a column for each predicted class.
        prefix: what is counted, "frame" or "clip"; the names begin with it.

    Returns:
        ``<prefix>_balanced_accuracy``, ``_kappa``, and ``_<mean>_precision``, ``_recall`` and ``_f1`` for the means
        "macro" and "weighted", all None if nothing was counted; ``_absent_classes``, the number of classes that never
        occur; and ``_class_precision``, ``_class_recall`` and ``_class_f1``, K numbers each, None for a class that
        neither occurs nor is predicted. All metrics are at most 1.
    """
    counts = confusion.double().cpu()
    true, predicted, right, total = counts.sum(1), counts.sum(0), counts.diagonal(), counts.sum()
    occurs, known = true > 0, true + predicted > 0
    by_class = {
        "precision": right / predicted.clamp(min=1),
        "recall": right / true.clamp(min=1),
        "f1": 2 * right / (true + predicted).clamp(min=1),
    }
    means: dict[str, Tensor] = {"balanced_accuracy": by_class["recall"][occurs].mean()}
    by_chance = (true @ predicted) / total**2
    means["kappa"] = (right.sum() / total - by_chance) / (1 - by_chance)
    means |= {f"macro_{name}": values[known].mean() for name, values in by_class.items()}
    means |= {f"weighted_{name}": (values @ true) / total for name, values in by_class.items()}
    found: dict[str, Any] = {name: None if value.isnan() else value.item() for name, value in means.items()}
    found["absent_classes"] = int((~occurs).sum())
    for name, values in by_class.items():
        found[f"class_{name}"] = [v if k else None for v, k in zip(values.tolist(), known.tolist(), strict=True)]
    return {f"{prefix}_{name}": value for name, value in found.items()}
