"""Caffe's solvers as PyTorch optimizers: SGD, Nesterov, AdaGrad, RMSProp, AdaDelta and Adam."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.formats.schema import Flavour
from seqclf.caffe.solvers.optimizer import CaffeOptimizer, Settings, Tensors, exact_scalar


class SGD(CaffeOptimizer):
    """``v = momentum * v + rate * g``, ``w = w - v`` (sgd_solver.cpp): the rate is inside the momentum."""

    own = ("momentum",)
    lisa_iter_size = True

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        regularization_type: str = "L2",
        clip_gradients: float | None = None,
        iter_size: int = 1,
        flavour: Flavour = "bvlc",
    ) -> None:
        super().__init__(
            params, lr, weight_decay, regularization_type, clip_gradients, iter_size, flavour, momentum=momentum
        )

    def update(self, w: Tensors, g: Tensors, history: Sequence[Tensors], rate: float, s: Settings) -> None:
        (v,) = history
        torch._foreach_mul_(v, s["momentum"])
        torch._foreach_add_(v, g, alpha=rate)
        torch._foreach_sub_(w, v)


class Nesterov(SGD):
    """``u, v = v, momentum * v + rate * g``, ``w = w - (1 + momentum) * v + momentum * u`` (nesterov_solver.cpp)."""

    lisa_iter_size = False

    def update(self, w: Tensors, g: Tensors, history: Sequence[Tensors], rate: float, s: Settings) -> None:
        (v,) = history
        momentum = s["momentum"]
        step = torch._foreach_mul(v, -momentum)
        torch._foreach_mul_(v, momentum)
        torch._foreach_add_(v, g, alpha=rate)
        torch._foreach_add_(step, v, alpha=1 + momentum)
        torch._foreach_sub_(w, step)


class AdaGrad(CaffeOptimizer):
    """``h = h + g²``, ``w = w - rate * g / (sqrt(h) + delta)`` (adagrad_solver.cpp)."""

    own = ("delta",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        weight_decay: float = 0.0,
        delta: float = 1e-8,
        regularization_type: str = "L2",
        clip_gradients: float | None = None,
        iter_size: int = 1,
        flavour: Flavour = "bvlc",
    ) -> None:
        super().__init__(params, lr, weight_decay, regularization_type, clip_gradients, iter_size, flavour, delta=delta)

    def update(self, w: Tensors, g: Tensors, history: Sequence[Tensors], rate: float, s: Settings) -> None:
        (h,) = history
        torch._foreach_addcmul_(h, g, g)
        _divided(w, g, h, rate, s["delta"])


class RMSProp(CaffeOptimizer):
    """``h = rms_decay * h + (1 - rms_decay) * g²``, ``w = w - rate * g / (sqrt(h) + delta)`` (rmsprop_solver.cpp)."""

    own = ("rms_decay", "delta")
    averages = ("rms_decay",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        weight_decay: float = 0.0,
        rms_decay: float = 0.99,
        delta: float = 1e-8,
        regularization_type: str = "L2",
        clip_gradients: float | None = None,
        iter_size: int = 1,
        flavour: Flavour = "bvlc",
    ) -> None:
        own = {"rms_decay": rms_decay, "delta": delta}
        super().__init__(params, lr, weight_decay, regularization_type, clip_gradients, iter_size, flavour, **own)

    def update(self, w: Tensors, g: Tensors, history: Sequence[Tensors], rate: float, s: Settings) -> None:
        (h,) = history
        torch._foreach_mul_(h, s["rms_decay"])
        torch._foreach_addcmul_(h, g, g, 1 - s["rms_decay"])
        _divided(w, g, h, rate, s["delta"])


class AdaDelta(CaffeOptimizer):
    """AdaDelta (adadelta_solver.cpp); the history is ``h``, then ``k``.

    ``h = momentum * h + (1 - momentum) * g²``, ``u = g * sqrt((k + delta) / (h + delta))``,
    ``k = momentum * k + (1 - momentum) * u²``, ``w = w - rate * u``.
    """

    histories = ("history", "history2")
    own = ("momentum", "delta")
    averages = ("momentum",)

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float,
        weight_decay: float = 0.0,
        delta: float = 1e-8,
        regularization_type: str = "L2",
        clip_gradients: float | None = None,
        iter_size: int = 1,
        flavour: Flavour = "bvlc",
    ) -> None:
        own = {"momentum": momentum, "delta": delta}
        super().__init__(params, lr, weight_decay, regularization_type, clip_gradients, iter_size, flavour, **own)

    def update(self, w: Tensors, g: Tensors, history: Sequence[Tensors], rate: float, s: Settings) -> None:
        h, k = history
        momentum, delta = s["momentum"], s["delta"]
        torch._foreach_mul_(h, momentum)
        torch._foreach_addcmul_(h, g, g, 1 - momentum)
        u = torch._foreach_add(k, delta)
        torch._foreach_div_(u, torch._foreach_add(h, delta))
        torch._foreach_sqrt_(u)
        torch._foreach_mul_(u, g)
        torch._foreach_mul_(k, momentum)
        torch._foreach_addcmul_(k, u, u, 1 - momentum)
        torch._foreach_add_(w, u, alpha=-rate)


class Adam(CaffeOptimizer):
    """Adam (adam_solver.cpp), where ``t`` counts updates from 1; the history is ``m``, then ``v``.

    ``m = momentum * m + (1 - momentum) * g``, ``v = momentum2 * v + (1 - momentum2) * g²``,
    ``w = w - rate * sqrt(1 - momentum2^t) / (1 - momentum^t) * m / (sqrt(v) + delta)``.
    """

    histories = ("history", "history2")
    own = ("momentum", "momentum2", "delta")
    averages = ("momentum", "momentum2")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float,
        momentum2: float = 0.999,
        weight_decay: float = 0.0,
        delta: float = 1e-8,
        regularization_type: str = "L2",
        clip_gradients: float | None = None,
        iter_size: int = 1,
        flavour: Flavour = "bvlc",
    ) -> None:
        own = {"momentum": momentum, "momentum2": momentum2, "delta": delta}
        super().__init__(params, lr, weight_decay, regularization_type, clip_gradients, iter_size, flavour, **own)

    def update(self, w: Tensors, g: Tensors, history: Sequence[Tensors], rate: float, s: Settings) -> None:
        m, v = history
        beta1, beta2, t = s["momentum"], s["momentum2"], s["iteration"] + 1
        correction = exact_scalar(w[0].dtype)(sqrt(1 - beta2**t) / (1 - beta1**t))
        torch._foreach_mul_(m, beta1)
        torch._foreach_add_(m, g, alpha=1 - beta1)
        torch._foreach_mul_(v, beta2)
        torch._foreach_addcmul_(v, g, g, 1 - beta2)
        _divided(w, m, v, rate * correction, s["delta"])


OPTIMIZERS: dict[str, type[CaffeOptimizer]] = {c.__name__: c for c in (SGD, Nesterov, AdaGrad, RMSProp, AdaDelta, Adam)}


def class_for(type: str) -> type[CaffeOptimizer]:
    """The optimizer class for the ``type`` of a ``SolverParameter``.

    Raises:
        CaffeFormatError: an unknown type.
    """
    if type not in OPTIMIZERS:
        raise CaffeFormatError(f'solver type "{type}": expected one of {", ".join(OPTIMIZERS)}')
    return OPTIMIZERS[type]


def from_solver(param: Any, groups: Iterable[dict[str, Any]], flavour: Flavour = "bvlc") -> CaffeOptimizer:
    """Builds the optimizer of a ``SolverParameter``, at its ``base_lr``.

    Args:
        param: the ``SolverParameter``.
        groups: dicts of ``params``, ``lr_mult`` and ``decay_mult``, in the net's order, so that ``history()`` has
            Caffe's order. A parameter that appears again is shared.
        flavour: the fork whose treatment of shared parameters and ``iter_size`` applies.

    Raises:
        CaffeFormatError: a setting is missing, or Caffe would refuse it.
    """
    build = class_for(param.type)
    if not param.HasField("base_lr"):
        raise CaffeFormatError("the solver has no base_lr")
    if param.momentum and "momentum" not in build.own:
        raise CaffeFormatError(f"momentum {param.momentum}: {param.type} works with momentum 0 only")
    once, order = _one_group_each(groups, flavour)
    optimizer = build(
        once,
        lr=param.base_lr,
        weight_decay=param.weight_decay,
        regularization_type=param.regularization_type,
        clip_gradients=param.clip_gradients if param.clip_gradients >= 0 else None,
        iter_size=param.iter_size,
        flavour=flavour,
        **{name: getattr(param, name) for name in build.own},
    )
    optimizer.order = order
    return optimizer


def _one_group_each(
    groups: Iterable[dict[str, Any]], flavour: Flavour
) -> tuple[list[dict[str, Any]], list[tuple[Tensor, int]]]:
    """One group per parameter, and the order of the ``.solverstate``.

    A parameter that appears again is shared: BVLC Caffe ignores the second use, lisa-caffe adds it to the first
    group's ``sharers``.
    """
    once: list[dict[str, Any]] = []
    owner: dict[Tensor, dict[str, Any]] = {}
    order: list[tuple[Tensor, int]] = []
    for group in groups:
        settings = {name: value for name, value in group.items() if name != "params"}
        for p in group["params"]:
            if p not in owner:
                owner[p] = {**settings, "params": [p]}
                once.append(owner[p])
                order.append((p, 0))
            elif flavour == "lisa":
                multipliers = (settings.get("lr_mult", 1.0), settings.get("decay_mult", 1.0))
                owner[p]["sharers"] = (*owner[p].get("sharers", ()), multipliers)
                order.append((p, len(owner[p]["sharers"])))
    return once, order


def _divided(w: Tensors, g: Tensors, h: Tensors, rate: float, delta: float) -> None:
    """``w = w - rate * g / (sqrt(h) + delta)``, in the order of Caffe's GPU kernels."""
    root = torch._foreach_sqrt(h)
    torch._foreach_add_(root, delta)
    torch._foreach_addcdiv_(w, g, root, -rate)
