"""A converted net as a run folder, which the tools for prediction, evaluation and training take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from seqclf.caffe.error import CaffeFormatError
from seqclf.caffe.net import Net
from seqclf.caffe.to_classifier import builder, describe, to_classifier
from seqclf.data import no_data
from seqclf.data.input_spec import DecisionRule, InputSpec
from seqclf.experiment.config import Experiment, build, resume_fingerprint
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
    """A run folder of the classifier that a net becomes, as training would have left it at step 0.

    Args:
        workdir: the folder, new or empty.
        experiment: whose data and training settings the run takes; None for a run without data.
        classes: the classes' names; None for the experiment's, or numbers.
        logits, mean, scale, bgr: as of ``to_classifier``.
        decision: how a clip is labelled in a run without data; "mean" is LRCN's rule. Other runs follow their data.

    Returns:
        the checkpoint.

    Raises:
        CaffeFormatError: the net is not LRCN-shaped, or does not fit the experiment's data.
        SeqclfError: the folder is not empty.
    """
    folder = RunFolder.create(workdir)
    found = describe(net, logits)
    model = to_classifier(net, logits, mean, scale, bgr)
    names = list(classes) if classes is not None else [str(k) for k in range(found.num_classes)]
    if len(names) != found.num_classes:
        raise CaffeFormatError(f"{net.file}: has {found.num_classes} classes, but there are {len(names)} names")
    identity: dict[str, Any] = {
        "source": f"converted from {net.file}",
        "warning": None,
        "classes": names,
        "train": {"frame_shape": list(found.frame_shape)},
    }
    spec = InputSpec(tuple(found.frame_shape), tuple(names), decision)
    make_model = builder(found, mean, scale, bgr)
    if experiment is None:
        reason = f"this run was converted from {net.file} and has no data: give some, such as data=seqclf.mnist"
        experiment = Experiment(
            data=partial(no_data, reason=reason),
            model=make_model,
            optimizer=partial(torch.optim.SGD, lr=0.01, momentum=0.9),
            steps=1,
            batch_size=1,
        )
    else:
        data = build("data", experiment.data)
        if data.train.frame_shape != found.frame_shape or data.num_classes != found.num_classes:
            raise CaffeFormatError(
                f"{net.file}: takes frames {found.frame_shape} and has {found.num_classes} classes, "
                f"but {data.source} has {data.train.frame_shape} and {data.num_classes}"
            )
        identity, spec = data.identity(), data.input_spec()
        experiment = replace(experiment, model=make_model)
    folder.write_config(experiment)
    content = {
        "model": model.state_dict(),
        "optimizer": {},
        "scaler": {},
        "window": {},
        "best": None,
        "skipped": {},
        "data": identity,
    }
    path = folder.save_checkpoint(content, step=0)
    folder.write_record(
        {
            "started": now(),
            "environment": environment(torch.device("cpu")),
            "parameters": sum(p.numel() for p in model.parameters()),
            "settings": resume_fingerprint(experiment),
            "data": identity,
            "input": spec.to_json(),
        },
    )
    return path
