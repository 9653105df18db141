"""Checks before the first step."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedParameter

from seqclf.batch import SeqclfError
from seqclf.data import Clips, Data, Videos
from seqclf.experiment.config import Experiment
from seqclf.models import check_user_temporal, require_streaming
from seqclf.runtime.distributed import World
from seqclf.runtime.random import default_generator, seeded


def check_processes(fingerprints: list[list[str]], batch_size: int) -> None:
    """Checks that all processes have the same data, and at least one clip of each batch.

    Args:
        fingerprints: for each process, those of the parts of its data.
        batch_size: clips per step, of all processes together.

    Raises:
        SeqclfError: they do not.
    """
    for rank, prints in enumerate(fingerprints):
        if prints != fingerprints[0]:
            raise SeqclfError(
                f"process {rank} of {len(fingerprints)} has other data than process 0: all need the same files"
            )
    if batch_size < len(fingerprints):
        raise SeqclfError(f"setting batch_size={batch_size}: must be at least {len(fingerprints)}, the processes")


def check_graph(experiment: Experiment, clips: Clips | Videos, device: torch.device, world: World) -> None:
    """Checks that ``cuda_graph=True`` is possible: each step must run the same operations on the same shapes.

    Raises:
        SeqclfError: it is not.
    """
    for wrong, reason in (
        (device.type != "cuda", "the run uses no GPU"),
        (world.size > 1, "the run has several processes"),
        (not isinstance(clips, Clips) or clips.lengths is not None, "clips must be in memory and of one length"),
        (experiment.precision == "fp16", "fp16's loss scaling depends on the values of each step"),
    ):
        if wrong:
            raise SeqclfError(f"setting cuda_graph=True: {reason}")


def _takes(function: Callable[..., Any], arguments: int) -> bool:
    """Whether a function takes so many positional arguments; True if its signature is unknown."""
    try:
        signature = inspect.signature(function.forward if isinstance(function, nn.Module) else function)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*range(arguments))
    except TypeError:
        return False
    return True


def warn_if_random(model: nn.Module, clips: Clips | Videos, device: torch.device) -> None:
    """Warns where a model draws random numbers in evaluation, such as by ``F.dropout`` without ``training=``."""
    dtype = clips.frames.dtype if isinstance(clips, Clips) else clips.frame_dtype
    if any(isinstance(p, UninitializedParameter) for p in model.parameters()):
        return
    training = model.training
    frames = torch.zeros(1, 2, *clips.frame_shape, dtype=dtype, device=device)
    with seeded(0, device), torch.no_grad():
        generator = default_generator(device)
        before = generator.get_state()
        with suppress(Exception):  # a model that can't take two frames; the first step reports what is wrong
            model.eval()(frames)
        drawn = not torch.equal(generator.get_state(), before)
    model.train(training)
    if drawn:
        warnings.warn(
            f"{type(model).__name__} draws random numbers in evaluation, so its predictions differ from call to call "
            "(F.dropout needs training=self.training)",
            stacklevel=2,
        )


def check_experiment(experiment: Experiment, data: Data, model: nn.Module, device: torch.device, world: World) -> None:
    """Checks settings against the data and the model.

    Raises:
        SeqclfError: a setting is not possible with them.
    """
    if experiment.cuda_graph:
        check_graph(experiment, data.train, device, world)
    if not _takes(experiment.loss, 3):
        raise SeqclfError(
            "setting loss: must take (logits, labels, total), with logits (B, T, K), labels (B, T) and the number of "
            "labelled frames in the batch; see seqclf.losses.cross_entropy"
        )
    check_user_temporal(model)
    warn_if_random(model, data.test, device)
    if experiment.truncate is not None:
        require_streaming(model, f"setting truncate={experiment.truncate}")
