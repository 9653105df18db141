"""Learning-rate schedules: functions of the step that return a factor on the optimizer's learning rate."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi

Schedule = Callable[[int, int], float]
"""``schedule(step, steps)``: the factor for a step, counted from 0, in a run of ``steps`` steps."""


def constant(step: int, steps: int) -> float:
    """A factor of 1."""
    return 1.0


def warmup_cosine(step: int, steps: int, warmup: float = 0.1, floor: float = 0.0) -> float:
    """A linear rise over the first ``warmup`` share of the steps, then a half cosine down to ``floor``."""
    rise = warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    progress = (step - rise) / max(steps - rise, 1)
    return floor + (1 - floor) * (1 + cos(pi * progress)) / 2


def one_cycle(step: int, steps: int, warmup: float = 0.3, start: float = 0.04, end: float = 4e-6) -> float:
    """The one-cycle policy (Smith and Topin 2019), shaped as ``torch.optim.lr_scheduler.OneCycleLR`` by default.

    A half cosine rises from ``start`` to 1 at the ``warmup`` share of the steps, another falls to ``end`` at the last.
    """
    peak = warmup * steps - 1
    if step <= peak:
        low, high, progress = start, 1.0, step / max(peak, 1e-9)
    else:
        low, high, progress = 1.0, end, (step - peak) / max(steps - 1 - peak, 1e-9)
    return high + (low - high) * (1 + cos(pi * min(progress, 1.0))) / 2


def warmup_linear(step: int, steps: int, warmup: float = 0.1, floor: float = 0.0) -> float:
    """A linear rise over the first ``warmup`` share of the steps, then a linear fall to ``floor``."""
    rise = warmup * steps
    if step < rise:
        return (step + 1) / (rise + 1)
    return floor + (1 - floor) * (1 - (step - rise) / max(steps - rise, 1))
