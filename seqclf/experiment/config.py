"""The experiment: all settings of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from traceback import walk_tb
from typing import Any, Literal

import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.data import Data, Transform
from seqclf.data.held_out import hold_out
from seqclf.data.samplers import Sampler, shuffled
from seqclf.experiment.losses import cross_entropy
from seqclf.experiment.schedules import Schedule, constant
from seqclf.experiment.settings import settings_of
from seqclf.experiment.sources import Sources
from seqclf.experiment.values import accepts, int_is_accepted, is_callable_type, none_is_accepted, without_numpy
from seqclf.runtime.random import seeded
from seqclf.runtime.text import unknown_argument


@dataclass(frozen=True)
class Experiment:
    """All settings of a run.

    Settings that are functions or classes may carry arguments with ``functools.partial``.

    Attributes:
        data: a function without arguments that returns a ``Data``, or a ``Data``.
        model: a function that takes ``frame_shape=`` and ``num_classes=`` and returns the module.
        optimizer: a function that takes the parameters, or the groups of ``groups``, and returns the optimizer.
        steps: the number of updates.
        batch_size: clips per update, of all processes together.
        seed: the seed of initial weights, sample order, augmentation and dropout, from 0 to 2 ** 63 - 1.
        schedule: ``schedule(step, steps)`` returns the factor on the optimizer's learning rate; see
            ``seqclf.schedules``.
        loss: ``loss(logits, labels, total)`` returns the loss to minimise; see ``seqclf.losses``. Multi-label data
            needs ``binary_cross_entropy``.
        metrics: your own metrics by name. ``metric(truth, predicted, probabilities)`` returns a number from NumPy
            arrays ``(N,)``, ``(N,)`` and ``(N, K)``, over all clips of a part, or over all labelled frames if the data
            has labels per frame. For multi-label data all arrays are ``(N, K)``. None for no further metrics.
        validation: the share of the training clips, above 0 and below 1, that is held out to choose the best
            checkpoint. The same share of each class is held out, or whole groups if clips have groups. None for no
            validation part, or for data that has one.
        best_by: the metric of the validation part that chooses the best checkpoint, by its name in ``results.json``,
            such as "f1_50". The highest value is the best one; of "loss" the lowest. None for the accuracy of clips, or
            of frames if labels change within a clip; for multi-label data, the mean average precision.
        patience: the number of evaluations without a better ``best_by``, after which the run stops. None trains all
            steps.
        ema: the decay of an exponential moving average of the weights, above 0 and below 1, such as 0.999. Evaluation,
            the best checkpoint and prediction then use the average. None for the weights themselves.
        sampler: ``sampler(clips, batch_size, seed, step)`` returns the numbers of the training clips of a step; see
            ``seqclf.samplers``.
        augment: ``augment(frames, generator)`` transforms the raw frames ``(B, T, ...)`` of each training batch; see
            ``seqclf.transforms``. It draws from ``generator``, which is seeded by the step. None for no augmentation.
        groups: a function that takes the model and returns the optimizer's parameter groups, such as
            ``partial(param_groups, rules=...)``. None for one group.
        clip_norm: the largest L2 norm of the gradient; above it the gradient is scaled down. None for no limit.
        accumulate: the number of parts into which a batch is split to save memory. The gradient is that of the whole
            batch.
        truncate: the number of frames over which the gradient is propagated back. Longer clips are run in windows of
            this length, with the state carried from window to window. None for no limit.
        precision: the precision of the model's operations: "fp32", or with autocast "bf16" or "fp16". "fp16" scales the
            loss.
        compile: whether to compile the encoder with ``torch.compile``.
        cuda_graph: whether to capture a step as a CUDA graph and replay it. The graph includes the update of the
            weights if the optimizer is SGD, Adam or AdamW of PyTorch. The clips must be in memory and of one length,
            and the run must have one process.
        deterministic: whether the same seed gives the same weights bit for bit on a GPU. Some operations are slower
            then, or not available.
        eval_every: the number of steps between evaluations. The last step is always evaluated.
        eval_batch: clips per batch in evaluation. None for 1,000 in memory, or 16 from files.
        log_every: the number of steps between lines of training metrics. The last step is always logged.
        checkpoint_every: the number of steps between checkpoints. The last step is always saved.
        keep: the number of newest checkpoints to keep, besides the best one.
        sources: the modules of the config file; set by ``load_experiment``.

    Raises:
        SeqclfError: a setting has a wrong type or an impossible value.
    """

    data: Callable[[], Data] | Data
    model: Callable[..., nn.Module]
    optimizer: Callable[..., torch.optim.Optimizer]
    steps: int
    batch_size: int
    seed: int = 0
    schedule: Schedule = constant
    loss: Callable[..., Tensor] = cross_entropy
    metrics: Mapping[str, Callable[..., float]] | None = None
    validation: float | None = None
    best_by: str | None = None
    patience: int | None = None
    ema: float | None = None
    sampler: Sampler = shuffled
    augment: Transform | None = None
    groups: Callable[[nn.Module], list[dict[str, Any]]] | None = None
    clip_norm: float | None = None
    accumulate: int = 1
    truncate: int | None = None
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    compile: bool = False
    cuda_graph: bool = False
    deterministic: bool = False
    eval_every: int = 500
    eval_batch: int | None = None
    log_every: int = 100
    checkpoint_every: int = 500
    keep: int = 3
    sources: Sources = field(default_factory=Sources, repr=False, compare=False, metadata={"setting": False})

    def __post_init__(self) -> None:
        for name, (kind, value) in settings_of(self).items():
            value = without_numpy(value)
            object.__setattr__(self, name, value)
            if value is None and none_is_accepted(kind):
                continue
            if int_is_accepted(kind) and name != "seed" and not (accepts(value, int) and value >= 1):
                optional = ", or None" if none_is_accepted(kind) else ""
                raise SeqclfError(f"setting {name}={value!r}: expected an integer of at least 1{optional}")
            if kind is bool and not isinstance(value, bool):
                raise SeqclfError(f"setting {name}={value!r}: expected True or False")
            if is_callable_type(kind) and not (callable(value) or accepts(value, kind)):
                shown = repr(value).partition("\n")[0]
                raise SeqclfError(f"setting {name}={shown}: expected a function or class")
        if self.clip_norm is not None and not (isinstance(self.clip_norm, int | float) and self.clip_norm > 0):
            raise SeqclfError(f"setting clip_norm={self.clip_norm!r}: expected a number above 0, or None")
        for name in ("validation", "ema"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and 0 < value < 1):
                raise SeqclfError(f"setting {name}={value!r}: expected a number above 0 and below 1, or None")
        if self.precision not in ("fp32", "bf16", "fp16"):
            raise SeqclfError(f"setting precision={self.precision}: one of fp32, bf16, fp16")
        if not (isinstance(self.seed, int) and 0 <= self.seed < 2**63):
            raise SeqclfError(f"setting seed={self.seed!r}: expected an integer of at least 0 and below 2**63")
        if isinstance(self.model, nn.Module):
            raise SeqclfError(
                f"setting model: expected a function that builds the model, such as partial(FrameSequenceClassifier, "
                f"...); this {type(self.model).__name__} is already built"
            )


def check_is_experiment(experiment: object) -> None:
    """Raises SeqclfError unless the value is an Experiment."""
    if not isinstance(experiment, Experiment):
        raise SeqclfError(
            f"expected an Experiment, not {type(experiment).__name__} (seqclf.load_experiment reads a config file)"
        )


def build(name: str, part: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    """Calls a setting that is a function or class.

    Args:
        name: the setting, for errors.
        part: its value.
        args, keywords: passed on.

    Raises:
        SeqclfError: it does not take these arguments, or fails; the cause is the original error.
    """
    try:
        return part(*args, **keywords)
    except SeqclfError as error:
        line = _line(part, error)
        if not line or type(error) is not SeqclfError:
            raise
        raise SeqclfError(f"{error}{line}") from error
    except Exception as error:  # user code
        reason = unknown_argument(part) or f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise SeqclfError(f"setting {name}: {reason}{_line(part, error)}") from error


def _line(part: Callable[..., Any], error: Exception) -> str:
    """The line of the user's module that failed, such as " (sensors.py, line 12)"; "" outside it."""
    module = getattr(getattr(part, "func", part), "__module__", None) or ""
    if module.partition(".")[0] in ("seqclf", "torch"):
        return ""
    frames = [(f, line) for f, line in walk_tb(error.__traceback__) if f.f_globals.get("__name__") == module]
    return f" ({Path(frames[-1][0].f_code.co_filename).name}, line {frames[-1][1]})" if frames else ""


def build_data(experiment: Experiment, device: torch.device | None = None) -> Data:
    """The experiment's data, with the validation part that ``validation=`` holds out.

    What the data function draws from PyTorch's global generators depends on the seed only.

    Raises:
        SeqclfError: the data cannot be read, the setting is no data, or no validation part can be held out.
    """
    data = experiment.data
    if not isinstance(data, Data):
        with experiment.sources.active(), seeded(experiment.seed, device):
            data = build("data", data)
    if not isinstance(data, Data):
        raise SeqclfError(
            f"setting data: expected a function that returns seqclf.Data, but it returned {type(data).__name__}"
        )
    return data if experiment.validation is None else hold_out(data, experiment.validation, experiment.seed)


def build_model(experiment: Experiment, data: Data, device: torch.device | None = None) -> nn.Module:
    """The experiment's model for this data, on a device. Its initial weights depend on the seed only.

    Raises:
        SeqclfError: the model cannot be built.
    """
    with experiment.sources.active(), seeded(experiment.seed, device):
        model = build("model", experiment.model, frame_shape=data.train.frame_shape, num_classes=data.num_classes)
    if not isinstance(model, nn.Module):
        raise SeqclfError(
            f"setting model: expected a function that returns a module, but it returned {type(model).__name__}"
        )
    return model if device is None else model.to(device)
