"""How a run starts: in a new folder, or resumed from a checkpoint after its settings and data are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from seqclf.batch import SeqclfError
from seqclf.data.input_spec import InputSpec
from seqclf.experiment.config import Experiment, resume_fingerprint
from seqclf.runs.environment import environment, now
from seqclf.runs.folder import RunFolder
from seqclf.runtime.distributed import World, launch


def open_run(
    folder: RunFolder, experiment: Experiment, identity: dict[str, Any], resume: bool, world: World
) -> tuple[Path, dict[str, Any], list[str]] | None:
    """Checks that a run may be written to a folder, or resumed there.

    A run whose processes torchrun has restarted after a failure is resumed in any case.

    Args:
        identity: the data (``Data.identity``).
        resume: whether to resume the run in the folder.

    Returns:
        the checkpoint to resume from, as in ``RunFolder.load_newest``; None to start at step 0.

    Raises:
        SeqclfError: the folder cannot be created; it holds a run and ``resume`` is False; it holds something else; its
            run has other settings or data; all its checkpoints are damaged.
    """
    folder.make()
    if world.restarts and folder.record.exists():
        resume = resume or folder.read_record().get("launch") == launch()
    if folder.is_empty(resuming=resume or world.restarts > 0):
        return None
    if not resume:
        raise SeqclfError(f"run folder {folder.path} is not empty: use another --workdir, or --resume to continue it")
    if not folder.record.exists():
        raise SeqclfError(f"run folder {folder.path} holds no run to resume (it has no run.json)")
    run = folder.read_record()
    ours = resume_fingerprint(experiment)
    for name, value in run["settings"].items():
        if ours.get(name) != value:
            raise SeqclfError(f"cannot resume {folder.path}: {name} was {value} and is now {ours.get(name)}")
    for part in ("train", "test", "validation"):
        if run["data"].get(part) != identity.get(part):
            raise SeqclfError(f"cannot resume {folder.path}: its {part} data has changed ({run['data']['source']})")
    return folder.load_newest()


def write_run(
    folder: RunFolder,
    experiment: Experiment,
    identity: dict[str, Any],
    spec: InputSpec,
    device: torch.device,
    parameters: int,
    start: int,
    world: World,
) -> None:
    """Writes ``config.py`` and ``run.json``; ``start`` is the step at which the run starts or continues."""
    before = folder.read_record() if folder.record.exists() else {}
    folder.write_config(experiment)
    folder.write_record(
        {
            "started": before.get("started", now()),
            "resumed": before.get("resumed", []) + ([{"step": start, "at": now()}] if before else []),
            "launch": launch(),
            "environment": environment(device, world.size),
            "parameters": parameters,
            "settings": resume_fingerprint(experiment),
            "data": identity,
            "input": spec.to_json(),
        }
    )
