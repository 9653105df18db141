"""Caffe's learning-rate policies (sgd_solver.cpp): as ``seqclf`` schedules, and as the rate that a solver asks for.

A policy is a schedule, ``partial(step, gamma=0.1, stepsize=1000)``: the factor on the optimizer's own rate. Keywords
are named as the fields of ``SolverParameter``, and numbers are float or double just where Caffe's are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from ctypes import c_float
from dataclasses import dataclass
from functools import partial
from typing import Any

from seqclf.caffe.error import CaffeFormatError
from seqclf.schedules import Schedule


def single(x: float) -> float:
    """The float32 nearest to a number."""
    return c_float(x).value


def fixed(step: int, steps: int) -> float:
    """1 throughout."""
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


def multistep(
    step: int, steps: int, gamma: float, stepvalue: Sequence[int], start: int = 0, current_step: int = 0
) -> float:
    """``gamma ** n``, where ``n`` counts the step values reached; it grows by no more than one in a step.

    Args:
        start, current_step: the step from which, and the count with which, counting goes on after a restart.
    """
    return _power(_gamma(gamma), _reached(step, stepvalue, start, current_step))


def poly(step: int, steps: int, power: float, max_iter: int | None = None) -> float:
    """``(1 - step / max_iter) ** power``; the run's own length where ``max_iter`` is not given."""
    last = steps if max_iter is None else max_iter
    _at_least_1("max_iter", last)
    if step > last:
        raise CaffeFormatError(f"poly: iteration {step}, but max_iter is {last}, where the rate has come to 0")
    return single(_power(single(1 - single(single(step) / single(last))), single(power)))


def sigmoid(step: int, steps: int, gamma: float, stepsize: int) -> float:
    """``1 / (1 + exp(-gamma * (step - stepsize)))``: it rises, to a half at ``stepsize``."""
    _at_least_1("stepsize", stepsize)
    exponent = single(-_gamma(gamma) * single(single(step) - single(stepsize)))
    return single(1 / single(1 + single(math.exp(min(exponent, 100)))))  # float's exp is infinite from 89 on


POLICIES: dict[str, tuple[Callable[..., float], tuple[str, ...]]] = {
    "fixed": (fixed, ()),
    "step": (step, ("gamma", "stepsize")),
    "exp": (exp, ("gamma",)),
    "inv": (inv, ("gamma", "power")),
    "multistep": (multistep, ("gamma", "stepvalue")),
    "poly": (poly, ("power", "max_iter")),
    "sigmoid": (sigmoid, ("gamma", "stepsize")),
}
"""By ``lr_policy``: the schedule, and the solver's fields that it needs."""


@dataclass(frozen=True)
class Policy:
    """The learning rate of a solver: ``policy(iteration)``.

    Attributes:
        param: the ``SolverParameter``.
        schedule: its policy as a schedule, the factor on its ``base_lr``.
        iteration, restored: where it was restored at, and the ``current_step`` that it was restored with.
    """

    param: Any
    schedule: Schedule
    iteration: int
    restored: int

    def __call__(self, iteration: int) -> float:
        """The rate, a float32, of the update that follows after so many."""
        return single(self.param.base_lr * self.schedule(iteration, self.param.max_iter))

    def current_step(self, iteration: int) -> int:
        """What a snapshot after so many updates saves under this name: the count that its last update's rate used."""
        last = iteration - 1
        if last >= self.iteration and self.param.lr_policy == "step":
            return last // self.param.stepsize
        if last >= self.iteration and self.param.lr_policy == "multistep":
            return _reached(last, self.param.stepvalue, self.iteration, self.restored)
        return self.restored


def policy(param: Any, iteration: int = 0, current_step: int = 0) -> Policy:
    """The learning rate that a ``SolverParameter`` asks for.

    Args:
        iteration, current_step: as a restored ``SolverState`` has them; "multistep" counts on from there.

    Raises:
        CaffeFormatError: the policy is not known, lacks a field that it needs, or can't work with a field's value.
    """
    if param.lr_policy not in POLICIES:
        raise CaffeFormatError(f'lr_policy "{param.lr_policy}": expected one of {", ".join(POLICIES)}')
    schedule, needed = POLICIES[param.lr_policy]
    given = {field.name for field, _ in param.ListFields()}
    missing = [name for name in ("base_lr", *needed) if name not in given]
    if missing:
        raise CaffeFormatError(f'lr_policy "{param.lr_policy}" needs {" and ".join(missing)}')
    keywords = {name: getattr(param, name) for name in needed}
    if param.lr_policy == "multistep":
        keywords |= {"start": iteration, "current_step": current_step}
    made = Policy(param, partial(schedule, **keywords), iteration, current_step)
    made(iteration)  # so that a value that won't do is told now
    return made


def _reached(step: int, stepvalue: Sequence[int], start: int, current_step: int) -> int:
    """How many step values are reached, when every step from ``start`` on has counted at most one more."""
    count, moment = current_step, start - 1
    for value in stepvalue[current_step:]:
        moment = max(value, moment + 1)
        count += moment <= step
    return count


def _power(base: float, exponent: float) -> float:
    """C's ``pow`` for a base that is not negative: infinite where Python raises."""
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
