"""Caffe's solvers (sgd_solver.cpp and its siblings) as PyTorch optimizers, in its arithmetic and order of operations.

A step modifies the gradients, which ``iter_size`` backward passes have summed, for all parameters together:

    g = g * clip_gradients / |g|                       where the norm of all gradients is greater than clip_gradients
    g = g / iter_size
    g = g + weight_decay * decay_mult * w              or sign(w) in the place of w, for L1

and then updates history and weights by ``rate = lr * lr_mult``, each solver by its own equations. ``p.grad`` is
unchanged. As in Caffe, a missing gradient counts as zero, so decay and momentum still move the parameter. Parameters
that do not require gradients are unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.formats.schema import FLAVOURS, Flavour
from seqclf.caffe.policies import single

Tensors: TypeAlias = list[Tensor] | tuple[Tensor, ...]
Settings: TypeAlias = dict[str, Any]


class CaffeOptimizer(Optimizer):
    """Base class of the solvers, which add their ``update``.

    A parameter group may have ``lr_mult`` and ``decay_mult`` (default 1). Groups with equal settings are updated
    together. So one group per parameter, which keeps the history in the net's order, is not slower.

    Args:
        params: parameters or parameter groups, as for any PyTorch optimizer.
        lr: the global learning rate.
        weight_decay: the global weight decay.
        clip_gradients: the largest L2 norm of all gradients together; None for no limit.
        iter_size: the number of backward passes whose gradients are summed for one step.
        regularization_type: "L2" or "L1".
        flavour: "lisa" divides the weight decay by ``iter_size``, too, and updates shared parameters in its own way.

    Raises:
        CaffeFormatError: an unknown setting, or a value that Caffe does not accept.
    """

    histories: ClassVar[tuple[str, ...]] = ("history",)
    """The tensors kept for each parameter; a ``.solverstate`` holds them one after the other."""
    own: ClassVar[tuple[str, ...]] = ()
    """The fields of ``SolverParameter`` that only some solvers have."""
    lisa_iter_size: ClassVar[bool] = False
    """Whether lisa-caffe's treatment of ``iter_size`` is known for this solver."""
    averages: ClassVar[tuple[str, ...]] = ()
    """The decays of running averages among ``own``, which must be less than 1."""

    order: Sequence[tuple[Tensor, int]] = ()
    """The parameters in the order of a ``.solverstate``, each with the index of its use (0 for the owner).

    Empty for the order of the groups.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        weight_decay: float,
        regularization_type: str,
        clip_gradients: float | None,
        iter_size: int,
        flavour: Flavour,
        **own: float,
    ) -> None:
        common: Settings = {"lr": lr, "lr_mult": 1.0, "weight_decay": weight_decay, "decay_mult": 1.0, "iteration": 0}
        common |= {"regularization_type": regularization_type, "clip_gradients": clip_gradients, "sharers": ()}
        super().__init__(params, {**common, "iter_size": iter_size, "flavour": flavour, **own})

    @property
    def iteration(self) -> int:
        """The number of steps so far."""
        return self.param_groups[0]["iteration"]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a parameter group, with settings of its own.

        Raises:
            CaffeFormatError: see the class; or ``clip_gradients``, which limits all gradients together, differs from
                the other groups'.
        """
        unknown = sorted(param_group.keys() - self.defaults.keys() - {"params"})
        if unknown:
            raise CaffeFormatError(f"a parameter group's {unknown[0]}: expected one of {', '.join(self.defaults)}")
        group = {**self.defaults, **param_group}
        if self.param_groups:
            first = self.param_groups[0]
            group["iteration"] = first["iteration"]
            if group["clip_gradients"] != first["clip_gradients"]:
                raise CaffeFormatError("clip_gradients of one parameter group: it limits the norm of all gradients")
        self._check(group)
        # The decorator imports torch._dynamo, which takes most of the time of starting, so it is bypassed.
        add = Optimizer.add_param_group
        getattr(add, "__wrapped__", add)(self, group)

    def _check(self, group: Settings) -> None:
        for name in ("lr", "weight_decay", "clip_gradients", *self.own):
            if group[name] is not None and not group[name] >= 0:
                raise CaffeFormatError(f"{name} {group[name]}: expected 0 or more")
        for name in self.averages:
            if not group[name] < 1:
                raise CaffeFormatError(f"{name} {group[name]}: {type(self).__name__} expected less than 1")
        if group["iter_size"] < 1:
            raise CaffeFormatError(f"iter_size {group['iter_size']}: expected 1 or more")
        if group["regularization_type"] not in ("L2", "L1"):
            raise CaffeFormatError(f'regularization_type "{group["regularization_type"]}": expected "L2" or "L1"')
        if group["flavour"] not in FLAVOURS:
            raise CaffeFormatError(f'flavour={group["flavour"]!r}: expected "bvlc" or "lisa"')
        if group["flavour"] == "lisa" and group["iter_size"] > 1 and not self.lisa_iter_size:
            raise CaffeFormatError(
                f'iter_size {group["iter_size"]} with flavour "lisa": supported for SGD only, '
                f"not for {type(self).__name__}"
            )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Makes one update, without waiting for the GPU.

        Raises:
            CaffeFormatError: a gradient is sparse.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        batches: dict[tuple[Any, ...], list[Tensor]] = {}  # groups that can be updated together
        for group in self.param_groups:
            settings = [(name, value) for name, value in group.items() if name not in ("params", "param_names")]
            for p in group["params"]:
                if p.requires_grad:
                    batches.setdefault((p.device, p.dtype, *settings), []).append(p)
        gradients: list[Tensors] = [[_gradient(p) for p in w] for w in batches.values()]
        clip = self._clip([g for batch in gradients for g in batch])
        for (key, w), g in zip(batches.items(), gradients, strict=True):
            device, dtype, *settings = key
            exact = exact_scalar(dtype)  # Caffe computes with scalars of the parameters' type
            s = {name: exact(value) if isinstance(value, float) else value for name, value in settings}
            if clip is not None:
                g = torch._foreach_mul(g, clip.to(device, dtype))
            if s["iter_size"] > 1 and s["flavour"] == "bvlc":
                g = torch._foreach_mul(g, exact(1 / s["iter_size"]))
            if s["sharers"]:
                self._update_shared(w, g, s, exact)
            else:
                self._update_one(w, w, g, s, (s["lr_mult"], s["decay_mult"]), 0, exact)
        for group in self.param_groups:
            group["iteration"] += 1
        return loss

    def _update_one(
        self,
        w: Tensors,
        target: Tensors,
        g: Tensors,
        s: Settings,
        multipliers: tuple[float, float],
        use: int,
        exact: Callable[[float], float],
    ) -> None:
        """Adds weight decay to the gradients ``g`` of ``w`` and updates ``target`` and the history of this use."""
        rate, decay = (exact(s[name] * m) for name, m in zip(("lr", "weight_decay"), multipliers, strict=True))
        if s["iter_size"] > 1 and s["flavour"] == "lisa":
            rate = exact(rate / s["iter_size"])
        if decay:
            toward_0 = w if s["regularization_type"] == "L2" else torch._foreach_sign(w)
            g = torch._foreach_add(g, toward_0, alpha=decay)
        self.update(target, g, [[self._history(p, name, use) for p in w] for name in self.histories], rate, s)

    def _update_shared(self, w: Tensors, g: Tensors, s: Settings, exact: Callable[[float], float]) -> None:
        """lisa-caffe's update of a shared parameter.

        Its layers share one gradient buffer, and each use replaces the gradient by its own update. So the update of
        the first use is the gradient of the second, and only the last update is subtracted from the weights.
        """
        uses = ((s["lr_mult"], s["decay_mult"]), *s["sharers"])
        change: Tensors = []
        for use, multipliers in enumerate(uses):
            change = [torch.zeros_like(p) for p in w]
            self._update_one(w, change, g, s, multipliers, use, exact)
            g = torch._foreach_neg(change)
        torch._foreach_add_(w, change)

    def update(self, w: Tensors, g: Tensors, history: Sequence[Tensors], rate: float, s: Settings) -> None:
        """Updates weights and history in place, without changing the gradients. ``rate`` includes the multiplier."""
        raise NotImplementedError

    def history(self) -> list[Tensor]:
        """Returns the history as in a ``.solverstate``: one tensor per parameter, in the order of the groups.

        lisa-caffe has one per use of a shared parameter, in the order of the layers. AdaDelta and Adam keep two
        histories, one after the other. The tensors are the optimizer's own, not copies.
        """
        order = self.order or [(p, 0) for group in self.param_groups for p in group["params"]]
        return [self._history(p, name, use) for name in self.histories for p, use in order]

    @torch.no_grad()
    def load_history(self, history: list[Tensor], iteration: int) -> None:
        """Resumes from a ``.solverstate``: its history, in the order of ``history()``, and its iteration.

        Raises:
            CaffeFormatError: the number of tensors or a shape differs; then nothing is changed.
        """
        ours = self.history()
        if len(history) != len(ours):
            raise CaffeFormatError(f"history of {len(history)} blobs: {type(self).__name__} expected {len(ours)}")
        for i, (mine, saved) in enumerate(zip(ours, history, strict=True)):
            if mine.shape != saved.shape:
                raise CaffeFormatError(f"history blob {i} of shape {tuple(saved.shape)}: expected {tuple(mine.shape)}")
        for mine, saved in zip(ours, history, strict=True):
            mine.copy_(saved)
        for group in self.param_groups:
            group["iteration"] = iteration

    def _history(self, p: Tensor, name: str, use: int = 0) -> Tensor:
        state = self.state[p]
        name = f"{name}.{use}" if use else name
        if name not in state:
            state[name] = torch.zeros_like(p)
        return state[name]

    def _clip(self, gradients: list[Tensor]) -> Tensor | None:
        """Returns the factor of all gradients. It is a tensor, so that the GPU does not have to synchronize."""
        limit = self.param_groups[0]["clip_gradients"]
        if limit is None:
            return None
        norm = nn.utils.get_total_norm(gradients)
        return torch.where(norm > limit, limit / norm, 1.0)


def exact_scalar(dtype: torch.dtype) -> Callable[[float], float]:
    return float if dtype == torch.float64 else single


def _gradient(p: Tensor) -> Tensor:
    if p.grad is None:
        return torch.zeros_like(p)
    if p.grad.layout != torch.strided:
        raise CaffeFormatError(f"a sparse gradient, of a parameter of shape {tuple(p.shape)}: expected a dense one")
    return p.grad
