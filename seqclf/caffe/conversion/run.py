"""Conversion of a net to a run folder, which the commands for prediction, evaluation and training take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seqclf.caffe.conversion.lrcn import Description, describe
from seqclf.caffe.conversion.net_to_classifier import build_classifier, classifier_factory
from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.nets.net import Net
from seqclf.data import no_data
from seqclf.data.input_spec import DecisionRule, InputSpec
from seqclf.experiment.config import Experiment, build_data
from seqclf.experiment.fingerprint import resume_fingerprint
from seqclf.runs.environment import environment, now
from seqclf.runs.folder import RunFolder


def write_run(
    net: Net,
    workdir: str | Path,
    experiment: Experiment | None = None,
    classes: Sequence[str] | None = None,
    logits: str | None = None,
    mean: Sequence[float] | None = None,
    scale: float | None = None,
    bgr: bool | None = None,
    decision: DecisionRule = "mean",
) -> Path:
    """Writes a run folder with the classifier that a net converts to, as if it had been trained for 0 steps.

    Args:
        net: an LRCN-shaped net.
        workdir: the folder, new or empty.
        experiment: an experiment whose data and training settings the run gets. It determines how the run reads input.
            None: the run has no data, and only predicts.
        classes: the class names of a run without data. None: the class indices.
        logits, mean, scale, bgr: see ``to_classifier``.
        decision: how a run without data labels a clip: by its "last" frame, or by the "mean" over its frames, as LRCN
            does.

    Returns:
        The path of the checkpoint.

    Raises:
        CaffeFormatError: the net cannot be converted, or does not fit the experiment's data or the class names.
        SeqclfError: the folder is not empty.
    """
    folder = RunFolder.create(workdir)
    description = describe(net, logits)
    model = build_classifier(description, mean, scale, bgr)
    factory = classifier_factory(description, mean, scale, bgr)
    names = list(classes) if classes is not None else [str(k) for k in range(description.num_classes)]
    if len(names) != description.num_classes:
        raise CaffeFormatError(f"{net.file}: has {description.num_classes} classes, but {len(names)} names are given")
    if experiment is None:
        experiment = _experiment_without_data(net, factory)
        spec = InputSpec(tuple(description.frame_shape), tuple(names), decision)
        identity = _identity_without_data(net, description, names)
    else:
        data = build_data(experiment)
        _check_data(net, description, data)
        spec, identity = data.input_spec(), data.identity()
        experiment = replace(experiment, model=factory)
    folder.write_config(experiment)
    content = {"model": model.state_dict(), "data": identity, "best": None}
    path = folder.save_checkpoint({**content, "optimizer": {}, "scaler": {}, "window": {}, "skipped": {}}, step=0)
    folder.write_record(
        {
            "started": now(),
            "environment": environment(torch.device("cpu")),
            "parameters": sum(p.numel() for p in model.parameters()),
            "settings": resume_fingerprint(experiment),
            "data": identity,
            "input": spec.to_json(),
        }
    )
    return path


def _experiment_without_data(net: Net, model: Callable[..., nn.Module]) -> Experiment:
    reason = f"this run was converted from {net.file} and has no data: give some, such as data=seqclf.mnist"
    optimizer = partial(torch.optim.SGD, lr=0.01, momentum=0.9)
    return Experiment(partial(no_data, reason=reason), model, optimizer=optimizer, steps=1, batch_size=1)


def _identity_without_data(net: Net, description: Description, classes: list[str]) -> dict[str, Any]:
    return {
        "source": f"converted from {net.file}",
        "warning": None,
        "classes": classes,
        "train": {"frame_shape": list(description.frame_shape)},
    }


def _check_data(net: Net, description: Description, data: Any) -> None:
    if data.train.frame_shape != description.frame_shape or data.num_classes != description.num_classes:
        raise CaffeFormatError(
            f"{net.file}: takes frames {description.frame_shape} and has {description.num_classes} classes, "
            f"but {data.source} has {data.train.frame_shape} and {data.num_classes}"
        )
