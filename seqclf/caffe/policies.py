"""Caffe's learning-rate policies (sgd_solver.cpp): as ``seqclf`` schedules, and as the rate of a solver.

A policy is a schedule, ``partial(step, gamma=0.1, stepsize=1000)``: it returns the factor of the optimizer's rate.
Keywords have the names of the fields of ``SolverParameter``. Values are rounded to float32 where Caffe uses float.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from ctypes import c_float
from dataclasses import dataclass
from functools import partial
from typing import Any

from seqclf.caffe.error import CaffeFormatError
from seqclf.experiment.schedules import Schedule


def single(x: float) -> float:
    """The float32 nearest to a number."""
    return c_float(x).value


def fixed(step: int, steps: int) -> float:
    """A constant 1."""
    return 1.0


def step(step: int, steps: int, gamma: float, stepsize: int) -> float:
    """``gamma ** (step // stepsize)``."""
    _at_least_1("stepsize", stepsize)
    return _power(_gamma(gamma), step // stepsize)


def exp(step: int, steps: int, gamma: float) -> float:
    """``gamma ** step``."""
    return _power(_gamma(gamma), step)


def inv(step: int, steps: int, gamma: float, power: float) -> float:
    """``(1 + gamma * step) ** -power``."""
    return single(_power(single(1 + single(_gamma(gamma) * step)), -single(power)))


def multistep(step: int, steps: int, gamma: float, stepvalue: Sequence[int]) -> float:
    """``gamma ** n``, where ``n`` counts the step values reached. As in Caffe, it grows by at most 1 per step."""
    count, moment = 0, -1
    for value in stepvalue:
        moment = max(value, moment + 1)
        count += moment <= step
    return _power(_gamma(gamma), count)


def poly(step: int, steps: int, power: float, max_iter: int | None = None) -> float:
    """``(1 - step / max_iter) ** power``. ``max_iter`` defaults to the length of the run."""
    last = steps if max_iter is None else max_iter
    _at_least_1("max_iter", last)
    if step > last:
        raise CaffeFormatError(f"poly: iteration {step}, but max_iter is {last}, where the rate has come to 0")
    return single(_power(single(1 - single(single(step) / single(last))), single(power)))


def sigmoid(step: int, steps: int, gamma: float, stepsize: int) -> float:
    """``1 / (1 + exp(-gamma * (step - stepsize)))``: it rises, and is 1/2 at ``stepsize``."""
    _at_least_1("stepsize", stepsize)
    exponent = single(-_gamma(gamma) * single(single(step) - single(stepsize)))
    return single(1 / single(1 + single(math.exp(min(exponent, 100)))))  # exp overflows float32 from 89 on


POLICIES: dict[str, tuple[Callable[..., float], tuple[str, ...]]] = {
    "fixed": (fixed, ()),
    "step": (step, ("gamma", "stepsize")),
    "exp": (exp, ("gamma",)),
    "inv": (inv, ("gamma", "power")),
    "multistep": (multistep, ("gamma", "stepvalue")),
    "poly": (poly, ("power", "max_iter")),
    "sigmoid": (sigmoid, ("gamma", "stepsize")),
}
"""Maps ``lr_policy`` to the schedule and the fields of the solver that it needs."""


@dataclass
class Policy:
    """The learning rate of a solver. Call it once per update, in order, because "multistep" counts the calls.

    Attributes:
        param: the ``SolverParameter``.
        schedule: the policy, as a schedule that returns the factor of ``base_lr``.
        current_step: the counter that a snapshot saves and a restored solver sets.
    """

    param: Any
    schedule: Schedule
    current_step: int = 0

    def __call__(self, iteration: int) -> float:
        """Returns the rate, a float32, of the update that follows this many."""
        param = self.param
        if param.lr_policy == "multistep":
            values = param.stepvalue
            self.current_step += self.current_step < len(values) and iteration >= values[self.current_step]
            factor = _power(_gamma(param.gamma), self.current_step)
        else:
            factor = self.schedule(iteration, param.max_iter)
            if param.lr_policy == "step":
                self.current_step = iteration // param.stepsize
        return single(param.base_lr * factor)


def policy(param: Any) -> Policy:
    """Builds the learning rate of a ``SolverParameter``.

    Raises:
        CaffeFormatError: the policy is unknown, lacks a field, or has an invalid value.
    """
    if param.lr_policy not in POLICIES:
        raise CaffeFormatError(f'lr_policy "{param.lr_policy}": expected one of {", ".join(POLICIES)}')
    schedule, needed = POLICIES[param.lr_policy]
    given = {field.name for field, _ in param.ListFields()}
    missing = [name for name in ("base_lr", *needed) if name not in given]
    if missing:
        raise CaffeFormatError(f'lr_policy "{param.lr_policy}" needs {" and ".join(missing)}')
    keywords = {name: getattr(param, name) for name in needed}
    schedule(0, 0, **keywords)  # reports invalid values now
    return Policy(param, partial(schedule, **keywords))


def _power(base: float, exponent: float) -> float:
    """C's ``pow`` for a base of at least 0: it returns infinity where Python raises an error."""
    try:
        return math.pow(base, exponent)
    except (OverflowError, ValueError):
        return math.inf


def _gamma(gamma: float) -> float:
    if not gamma >= 0:
        raise CaffeFormatError(f"gamma {gamma}: expected 0 or more")
    return single(gamma)


def _at_least_1(name: str, value: int) -> None:
    if value < 1:
        raise CaffeFormatError(f"{name} {value}: expected 1 or more")
