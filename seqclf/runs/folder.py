"""A run's folder: whether a run may be written there, or gone on with, and the record of what is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from seqclf.batch import SeqclfError
from seqclf.data.input_spec import InputSpec
from seqclf.experiment.config import Experiment, numbers, save_experiment
from seqclf.runs.checkpoint import load_newest
from seqclf.runs.record import environment, now, read_json, write_json
from seqclf.runtime.distributed import World, launch


def open_folder(
    workdir: Path, experiment: Experiment, identity: dict[str, Any], resume: bool, world: World
) -> tuple[Path, dict[str, Any], list[str]] | None:
    """Sees that a run may be written here, or gone on with; gives the checkpoint to go on from, if any.

    A run that torchrun has started anew, after one of its processes failed, is gone on with unasked.

    Args:
        identity: what the data is (``Data.identity``).
        resume: whether the user wants to go on.

    Returns:
        as ``load_newest``; None where there is no checkpoint.

    Raises:
        SeqclfError: the folder can't be made; holds a run, and is not to be resumed, or something else; its run was of
            other settings or data; all its checkpoints are damaged.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SeqclfError(f"run folder {workdir}: can't be made ({error})") from None
    record = workdir / "run.json"
    if world.restarts and record.exists():
        resume = resume or read_json(record).get("launch") == launch()
    unborn = {"config.py", "config.part", "sources", "run.part"}  # of a run that was killed before its first line
    if not {path.name for path in workdir.iterdir()} - (unborn if resume or world.restarts else set()):
        return None
    if not resume:
        raise SeqclfError(
            f"run folder {workdir} is not empty: give another --workdir, or --resume to go on with its run"
        )
    if not record.exists():
        raise SeqclfError(f"run folder {workdir} holds no run to resume (it has no run.json)")
    run = read_json(record)
    ours = numbers(experiment)
    for name, value in run["numbers"].items():
        if ours.get(name) != value:
            raise SeqclfError(f"can't resume {workdir}: its {name} was {value}, and is now {ours.get(name)}")
    for part in ("train", "test", "validation"):
        if run["data"].get(part) != identity.get(part):
            raise SeqclfError(f"can't resume {workdir}: its {part} data were other ones ({run['data']['source']})")
    return load_newest(workdir / "checkpoints")


def write_run(
    workdir: Path,
    experiment: Experiment,
    identity: dict[str, Any],
    spec: InputSpec,
    device: torch.device,
    parameters: int,
    start: int,
    world: World,
) -> None:
    """The record of what is run: ``config.py`` and ``run.json``; ``start`` is the step that it begins or goes on at."""
    before = read_json(workdir / "run.json") if (workdir / "run.json").exists() else {}
    save_experiment(experiment, workdir)
    write_json(
        workdir / "run.json",
        {
            "started": before.get("started", now()),
            "resumed": before.get("resumed", []) + ([{"step": start, "at": now()}] if before else []),
            "launch": launch(),
            "environment": environment(device, world.size),
            "parameters": parameters,
            "numbers": numbers(experiment),
            "data": identity,
            "input": spec.to_json(),
        },
    )
