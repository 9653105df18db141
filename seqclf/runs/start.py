"""How a run starts: in a new folder, or resumed from a checkpoint after its settings and data are compared."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seqclf.batch import SeqclfError
from seqclf.data import Data
from seqclf.experiment.config import Experiment
from seqclf.experiment.fingerprint import changed_settings, check_allowed, is_allowed, may_change, resume_fingerprint
from seqclf.experiment.rendering import not_recorded_settings
from seqclf.runs.environment import environment, lstm_kernel, now
from seqclf.runs.folder import RunFolder
from seqclf.runtime.distributed import World, launch


@dataclass
class Start:
    """How a run starts.

    Attributes:
        path, checkpoint: the checkpoint it resumes from, and its content; None at step 0.
        changed: the settings that change on resuming: name -> (old, new).
        messages: lines to print.
    """

    path: Path = Path()
    checkpoint: dict[str, Any] | None = None
    changed: dict[str, tuple[str, str]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    @property
    def step(self) -> int:
        """The number of steps done."""
        return 0 if self.checkpoint is None else int(self.checkpoint["step"])

    def changes_optimizer(self, experiment: Experiment) -> bool:
        """Whether the checkpoint was written with other settings of the optimizer or its groups."""
        if self.checkpoint is None:
            return False
        changed = changed_settings(self.checkpoint["settings"], resume_fingerprint(experiment))
        return any(name.split(".")[0] in ("optimizer", "groups") for name in changed)


def default_workdir(experiment: Experiment, resume: bool = False, name: str | None = None) -> Path:
    """A new run folder in ``runs``, named by the time and a name; None for that of the data function.

    Raises:
        SeqclfError: a run is to be resumed; torchrun may restart the processes, which could then not find the folder.
    """
    if resume:
        raise SeqclfError("resume=True needs workdir=, the folder of the run to resume")
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) > 0:
        raise SeqclfError(
            "torchrun --max-restarts needs workdir= (--workdir DIR), where a restarted process finds its run"
        )
    data = getattr(experiment.data, "func", experiment.data)
    path = Path("runs", f"{name or getattr(data, '__name__', 'run')}_{datetime.now():%Y%m%d-%H%M%S}")
    return next(free for n in itertools.count(1) if not (free := Path(f"{path}_{n}" if n > 1 else path)).exists())


def open_run(
    folder: RunFolder,
    experiment: Experiment,
    identity: dict[str, Any],
    resume: bool,
    allow: Sequence[str],
    world: World,
) -> Start:
    """Checks that a run may be written to a folder, or resumed there.

    A run whose processes torchrun has restarted after a failure is resumed in any case.

    Args:
        folder: the run's folder.
        experiment: what is run.
        identity: the data (``Data.identity``).
        resume: whether to resume the run in the folder.
        allow: settings that may differ from those of the run.
        world: the processes of the run.

    Raises:
        SeqclfError: the folder cannot be created; it holds a run and ``resume`` is False; it holds something else; its
            run has other settings or data, or more steps; all its checkpoints are damaged.
    """
    check_allowed(allow)
    folder.make()
    if world.restarts and folder.record.exists():
        resume = resume or folder.read_record().get("launch") == launch()
    if folder.is_empty(resuming=resume or world.restarts > 0):
        return Start()
    if not resume:
        unsaved = folder.record.exists() and not folder.list_checkpoints()
        way = "its run has saved no checkpoint, so delete it if the run has failed, or " if unsaved else ""
        raise SeqclfError(
            f"run folder {folder.path} is not empty: {way}use another workdir= (--workdir), or resume=True (--resume) "
            "to continue it"
        )
    if not folder.record.exists():
        raise SeqclfError(f"run folder {folder.path} holds no run to resume (it has no run.json)")
    run = folder.read_record("settings")
    if lost := not_recorded_settings(experiment):
        raise SeqclfError(
            f"cannot resume {folder.path}: its config.py does not hold {', '.join(lost)}, which cannot be written: "
            "pass the experiment itself, or the config file that made it (--config)"
        )
    changed = _allowed_changes(folder.path, run["settings"], resume_fingerprint(experiment), allow)
    for part in ("train", "test", "validation"):
        if run["data"].get(part) != identity.get(part):
            raise SeqclfError(f"cannot resume {folder.path}: its {part} data has changed ({run['data']['source']})")
    found = folder.load_newest()
    messages = [f"{name} changes from {old} to {new}" for name, (old, new) in changed.items()]
    if found is None:
        return Start(changed=changed, messages=messages)
    path, content, damaged = found
    if content["step"] > experiment.steps:
        raise SeqclfError(
            f"cannot resume {folder.path}: setting steps={experiment.steps}, but it has done {content['step']}"
        )
    messages = [*(f"skipped: {message}" for message in damaged), *messages]
    return Start(path, content, changed, [*messages, f"resuming from {path} at step {content['step']}"])


def _allowed_changes(
    path: Path, before: dict[str, str], now: dict[str, str], allow: Sequence[str]
) -> dict[str, tuple[str, str]]:
    """The settings that change.

    Raises:
        SeqclfError: one of them is not allowed to.
    """
    changed = changed_settings(before, now)
    refused = [name for name in changed if not (may_change(name) and is_allowed(name, allow))]
    if refused:
        what = "; ".join(f"{name} was {changed[name][0]} and is now {changed[name][1]}" for name in refused)
        possible = [name for name in refused if may_change(name)]
        options = " ".join(f"--allow {name}" for name in possible)
        ways = [f"to change it in this run, add allow={possible} ({options})"] if possible else []
        ways.append(f"to start a new run from its weights, use init= (--init {path}) with another workdir= (--workdir)")
        raise SeqclfError(f"cannot resume {path}: {what} ({', or '.join(ways)})")
    return changed


def write_run(
    folder: RunFolder,
    experiment: Experiment,
    data: Data,
    identity: dict[str, Any],
    fitted: dict[str, Any],
    device: torch.device,
    model: nn.Module,
    start: Start,
    world: World,
) -> None:
    """Writes ``config.py`` and ``run.json``, and adds to the start's messages what the config does not hold."""
    before = folder.read_record() if folder.record.exists() else {}
    missing = folder.write_config(experiment)
    start.messages += missing.values()
    kernels = before.get("environment", {}).get("lstm"), lstm_kernel(model, device)
    if None not in kernels and kernels[0] != kernels[1]:
        start.messages.append(
            f"the kernel of LSTM layers changes from {kernels[0]} to {kernels[1]}, which rounds differently"
        )
    resumed = [{"step": start.step, "at": now(), "changed": start.changed}] if before else []
    folder.write_record(
        {
            "started": before.get("started", now()),
            "resumed": before.get("resumed", []) + resumed,
            "launch": launch(),
            "environment": {**environment(device, world.size), "lstm": kernels[1]},
            "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
            "metrics": list(experiment.metrics or ()),
            "settings": resume_fingerprint(experiment),
            "not_recorded": missing,
            "data": identity,
            "held_out": data.held_out,
            "input": data.input_spec().to_json(),
            "fitted": fitted,
        }
    )
