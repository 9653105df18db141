"""A trained run from its folder: its experiment, its model with trained weights, its record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from warnings import warn

import torch
from torch import nn

from seqclf.batch import SeqclfError
from seqclf.experiment.config import Experiment, called, load_experiment
from seqclf.models.backbone import Backbone
from seqclf.prediction.predictor import Predictor
from seqclf.runs.checkpoint import load_checkpoint, load_newest, load_weights
from seqclf.runs.record import read_json


def is_run(folder: str | Path) -> bool:
    """Whether a path is meant as a run: a folder with ``config.py`` or ``run.json``."""
    return any(Path(folder, name).is_file() for name in ("config.py", "run.json"))


def load_run(
    run: str | Path, checkpoint: str = "newest", overrides: Sequence[str] = ()
) -> tuple[Experiment, nn.Module, dict[str, Any], Path]:
    """A run's experiment, its model with the weights of a checkpoint, its ``run.json``, and the checkpoint's path.

    Args:
        run: the run's folder.
        checkpoint: "newest", "best" (by the validation part), or the number of a step.
        overrides: ``key=value`` changes of the experiment, such as ``data.root=DIR``.

    Raises:
        SeqclfError: the folder is no run, or the checkpoint is not there, damaged, or another model's.
    """
    run = Path(run)
    for name in ("config.py", "run.json"):
        if not (run / name).is_file():
            raise SeqclfError(f"{run} is not a run folder (it has no {name if run.is_dir() else 'files'})")
    experiment = load_experiment(run / "config.py", overrides)
    record = read_json(run / "run.json")
    found = load_newest(run / "checkpoints")
    if found is None:
        raise SeqclfError(f"{run} has no checkpoint yet")
    path, content, damaged = found
    for sentence in damaged:
        warn(f"passed over: {sentence}", stacklevel=2)
    if checkpoint == "best":
        if content["best"] is None:
            raise SeqclfError(f"{run} has no best checkpoint: it was run without validation (data.validation=)")
        checkpoint = str(content["best"]["step"])
    if checkpoint != "newest":
        path = run / "checkpoints" / f"step_{checkpoint}.pt"
        content = load_checkpoint(path)
    data = record["data"]
    shape, classes = tuple(data["train"]["frame_shape"]), len(data["classes"])
    model = called("model", _drawn(experiment.model), frame_shape=shape, num_classes=classes)
    load_weights(model, content, path)
    return experiment, model.eval(), record, path


def _drawn(model: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """The model without weights of others, which need not be on this machine: the checkpoint has all."""
    encoder = model.keywords.get("encoder") if isinstance(model, partial) else None
    if isinstance(encoder, partial) and encoder.func is Backbone:
        return partial(model, encoder=partial(encoder, weights=None))
    return model


def load(run: str | Path, checkpoint: str = "newest", device: torch.device | str = "cpu") -> Predictor:
    """A run as a ``Predictor``: ``seqclf.load("runs/<run>")(frames)``. Arguments and errors as of ``load_run``."""
    _, model, record, _ = load_run(run, checkpoint)
    return Predictor(model, record["data"]["classes"], device)
