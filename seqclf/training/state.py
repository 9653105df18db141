"""What changes while a model trains: weights, optimizer, step, and sums for the next metrics line."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from inspect import signature
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.data import Data
from seqclf.experiment.config import Experiment, build, build_model
from seqclf.runs.checkpoint import load_weights
from seqclf.training.average import WeightAverage

PENDING = 1000
"""The largest number of steps whose measurements are kept on the device."""


class Window:
    """Sums of what the steps since the last metrics line measured, as in ``seqclf.training.step``."""

    def __init__(self, loss: float = 0.0, norm: float = 0.0, right: int = 0, labelled: int = 0, steps: int = 0) -> None:
        self.sums: list[float] = [loss, norm, right, labelled]
        self.steps = steps
        self.pending: list[Tensor] = []  # on the device, because reading them waits for the device

    def add(self, measured: Tensor) -> None:
        """Adds a step."""
        self.pending.append(measured[:4])
        self.steps += 1
        if len(self.pending) == PENDING:
            self.state_dict()

    def state_dict(self) -> dict[str, Any]:
        """The sums as plain numbers: the arguments of ``Window``."""
        for row in torch.stack(self.pending).tolist() if self.pending else []:
            self.sums = [total + value for total, value in zip(self.sums, row, strict=True)]
        self.pending = []
        loss, norm, right, labelled = self.sums
        return {"loss": loss, "norm": norm, "right": int(right), "labelled": int(labelled), "steps": self.steps}

    def means(self, accuracy: str = "accuracy") -> dict[str, float]:
        """Mean loss and gradient norm per step, and under this name the accuracy over all labels."""
        sums = self.state_dict()
        return {
            "loss": sums["loss"] / sums["steps"],
            accuracy: sums["right"] / max(sums["labelled"], 1),
            "grad_norm": sums["norm"] / sums["steps"],
        }


@dataclass
class TrainState:
    """The state of a run between two steps; all that a checkpoint holds.

    Attributes:
        model: the module that is trained.
        optimizer: the optimizer, with its momentum and the like.
        scaler: the loss scaler, used with ``precision="fp16"``.
        rates: the learning rate of each parameter group before the schedule's factor.
        step: the number of steps done.
        best: step, metric and value of the best checkpoint, by the validation part; None without one.
        stale: the number of evaluations since the best one.
        stopped: why the run stopped before its last step: ``step``, ``by`` (the setting) and ``reason``; None if it has
            not.
        average: the moving average of the weights; None without ``ema=``.
        window: sums since the last metrics line.
        skipped: unreadable samples since the run's first step: name and reason.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    rates: list[float]
    step: int = 0
    best: dict[str, Any] | None = None
    stale: int = 0
    stopped: dict[str, Any] | None = None
    average: WeightAverage | None = None
    window: Window = field(default_factory=Window)
    skipped: dict[str, str] = field(default_factory=dict)

    @classmethod
    def create(cls, experiment: Experiment, data: Data, device: torch.device) -> TrainState:
        """The state before the first step: initial weights and a new optimizer.

        Raises:
            SeqclfError: the model, the parameter groups or the optimizer cannot be built.
        """
        model = build_model(experiment, data, device)
        trained = [p for p in model.parameters() if p.requires_grad]
        groups = trained if experiment.groups is None else build("groups", experiment.groups, model)
        optimizer = build("optimizer", experiment.optimizer, groups)
        _check_optimizer(optimizer)
        scaler = torch.amp.GradScaler(device.type, enabled=experiment.precision == "fp16")
        average = None if experiment.ema is None else WeightAverage(experiment.ema)
        return cls(model, optimizer, scaler, [group["lr"] for group in optimizer.param_groups], average=average)

    @property
    def left_out(self) -> list[str]:
        """The names of trainable parameters that are in no group of the optimizer."""
        grouped = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
        return [name for name, p in self.model.named_parameters() if p.requires_grad and id(p) not in grouped]

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters that are trained."""
        return [p for p in self.model.parameters() if p.requires_grad]

    @property
    def lr(self) -> float:
        """The learning rate of the first parameter group."""
        return float(self.optimizer.param_groups[0]["lr"])

    def set_rates(self, factor: float) -> None:
        """Sets the learning rate of each group to its own rate times the schedule's factor.

        Raises:
            SeqclfError: the factor is no finite number of at least 0.
        """
        try:
            usable = 0 <= float(factor) < inf
        except (TypeError, ValueError):
            usable = False
        if not usable:
            raise SeqclfError(
                f"setting schedule: it returned {factor} at step {self.step}, expected a finite number of at least 0"
            )
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor

    def apply_gradients(self) -> None:
        """Updates the weights."""
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def step_done(self, measured: Tensor) -> None:
        """Counts a step whose gradients were applied."""
        self.window.add(measured)
        self.step += 1
        if self.average is not None:
            self.average.update(self.model, self.step)

    def evaluated(self) -> AbstractContextManager[None]:
        """Within the block, the model has the weights for evaluation: the averages, if there are any."""
        return nullcontext() if self.average is None else self.average.applied(self.model)

    def state_dict(self) -> dict[str, Any]:
        """The state as tensors and plain values.

        ``model`` has the weights that predict. With an average, ``trained`` has those that training continues with.
        """
        model = self.model.state_dict()
        averages = {} if self.average is None else self.average.weights
        return {
            "step": self.step,
            "model": {**model, **averages},
            "trained": {name: model[name] for name in averages},
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "window": self.window.state_dict(),
            "best": self.best,
            "stale": self.stale,
            "stopped": self.stopped,
            "skipped": self.skipped,
        }

    def load_state_dict(self, content: dict[str, Any], path: Path, new_optimizer_settings: bool = False) -> None:
        """Restores a state.

        Args:
            content: of a checkpoint.
            path: the checkpoint's path, for errors.
            new_optimizer_settings: keep weight decay, momentum and the like of this state's optimizer, instead of the
                checkpoint's.

        Raises:
            SeqclfError: the checkpoint belongs to another model.
        """
        load_weights(self.model, {**content, "model": {**content["model"], **content["trained"]}}, path)
        if self.average is not None:
            own = self.model.state_dict()
            self.average.weights = {name: content["model"][name].to(own[name].device) for name in content["trained"]}
        settings = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(content["optimizer"])
        if new_optimizer_settings:
            for group, new in zip(self.optimizer.param_groups, settings, strict=True):
                group.update(new)
        self.scaler.load_state_dict(content["scaler"])
        self.step, self.best, self.skipped = content["step"], content["best"], content["skipped"]
        self.stale, self.stopped = content["stale"], content["stopped"]
        self.window = Window(**content["window"])


def _check_optimizer(optimizer: object) -> None:
    """Raises a ``SeqclfError`` unless this is an optimizer whose step needs no closure."""
    kind = type(optimizer).__name__
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise SeqclfError(f"setting optimizer: expected a function that returns an optimizer, but it returned {kind}")
    closure = signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise SeqclfError(f"setting optimizer: the step of {kind} needs a closure, which training does not pass")
