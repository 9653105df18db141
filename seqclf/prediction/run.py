"""A trained run from its folder: its experiment, its model with trained weights, its record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from warnings import warn

import torch
from torch import nn

from seqclf.data.input_spec import InputSpec
from seqclf.evaluation.multi_label import Threshold
from seqclf.experiment.config import Experiment, build, check_is_experiment
from seqclf.experiment.settings import change
from seqclf.models.backbone import Backbone
from seqclf.models.timm_encoder import TimmEncoder
from seqclf.prediction.predictor import Predictor
from seqclf.runs.checkpoint import load_weights
from seqclf.runs.folder import RunFolder
from seqclf.runtime.devices import pick_device
from seqclf.runtime.random import seeded


def load_run(
    run: str | Path, checkpoint: str = "auto", overrides: Sequence[str] = (), experiment: Experiment | None = None
) -> tuple[Experiment, nn.Module, dict[str, Any], Path]:
    """A run's experiment, its model with the weights of a checkpoint, its ``run.json``, and the checkpoint's path.

    Args:
        run: the run's folder.
        checkpoint: "auto" (the best one, or the newest without validation), "best", "newest", or a step.
        overrides: ``key=value`` changes of the experiment, such as ``data.root=DIR``.
        experiment: in place of the run's config, for a run whose config could not be written in full.

    Raises:
        SeqclfError: the folder is no run, or the checkpoint is not there, damaged, or another model's.
    """
    folder = RunFolder.open(run)
    record = folder.read_record()
    if experiment is None:
        experiment = folder.load_experiment(overrides)
    else:
        check_is_experiment(experiment)
        for override in overrides:
            experiment = change(experiment, override)
    path, content, damaged = folder.load_checkpoint(checkpoint)
    for message in damaged:
        warn(f"skipped: {message}", stacklevel=2)
    data = record["data"]
    shape, classes = tuple(data["train"]["frame_shape"]), len(data["classes"])
    with experiment.sources.active(), seeded(experiment.seed):
        model = build("model", _drawn(experiment.model), frame_shape=shape, num_classes=classes)
    load_weights(model, content, path)
    return experiment, model.eval(), record, path


def _drawn(model: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """The model without pretrained weights, which the checkpoint replaces and which may not be on this machine."""
    encoder = model.keywords.get("encoder") if isinstance(model, partial) else None
    if isinstance(encoder, partial) and encoder.func in (Backbone, TimmEncoder):
        drawn = {"weights": None} | ({"pretrained": False} if encoder.func is TimmEncoder else {})
        return partial(model, encoder=partial(encoder, **drawn))
    return model


def load(
    run: str | Path,
    checkpoint: str = "auto",
    device: torch.device | str = "cpu",
    experiment: Experiment | None = None,
    threshold: Threshold | None = None,
) -> Predictor:
    """A run as a ``Predictor``: ``seqclf.load("runs/<run>")(frames)``.

    ``threshold`` is that of ``BatchPredictor``. Other arguments and errors as in ``load_run``.
    """
    experiment, model, record, _ = load_run(run, checkpoint, experiment=experiment)
    spec = InputSpec.from_record(record, run)
    return Predictor(
        model,
        spec.classes,
        pick_device(str(device)),
        spec.decision,
        spec,
        RunFolder(run).sources,
        experiment.precision,
        threshold=threshold,
    )
