"""An exponential moving average of the weights, for evaluation and prediction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """An exponential moving average of a model's parameters.

    After step n the average is ``d * average + (1 - d) * parameter`` with ``d = min(decay, (1 + n) / (10 + n))``. The
    second term lets the average follow the first steps quickly (``num_updates`` of TensorFlow's
    ``ExponentialMovingAverage``). Buffers are not averaged: the model's newest ones are used. Those of batch norm are
    moving averages already.

    Args:
        decay: the decay, above 0 and below 1.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.weights: dict[str, Tensor] = {}
        """Name -> average; empty before the first step."""

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Adds the parameters after a step, counted from 1."""
        parameters = dict(model.named_parameters(remove_duplicate=False))
        if not self.weights:  # not before, as lazy modules have no parameters then
            self.weights = {name: p.detach().clone() for name, p in parameters.items()}
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, average in self.weights.items():
            average.lerp_(parameters[name], 1 - decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within the block, the model has the averages as its parameters."""
        own = {name: p.detach().clone() for name, p in model.named_parameters(remove_duplicate=False)}
        _copy(self.weights, model)
        try:
            yield
        finally:
            _copy(own, model)


@torch.no_grad()
def _copy(weights: dict[str, Tensor], model: nn.Module) -> None:
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, weight in weights.items():
        parameters[name].copy_(weight)
