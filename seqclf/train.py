"""Training, from top to bottom."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqclf.allocator import keep_freed_memory
from seqclf.batch import IGNORE, SeqclfError
from seqclf.checkpoint import load_newest, load_weights, save_checkpoint, start_from
from seqclf.config import Experiment, called, numbers, render, save_experiment
from seqclf.data import Data, batches, mix
from seqclf.evaluate import autocast, evaluate
from seqclf.metrics import FIGURES
from seqclf.models import detached
from seqclf.progress import Display
from seqclf.record import Record, environment, now, read_json, write_json

CHOOSE_BY = "clip_last"
"""The validation figure that chooses the best checkpoint (frame accuracy where clips have no one label)."""


class Stopped(Exception):
    """The run was told to stop by a signal, and has saved a checkpoint first."""

    def __init__(self, signum: int, step: int, path: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}; saved {path}")
        self.signum = signum


def pick_device(name: str) -> torch.device:
    """ "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:<n>" as a device.

    Raises:
        SeqclfError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SeqclfError(f"--device {name}: expected auto, cpu, cuda or cuda:<n>") from None
    if device.type not in ("cpu", "cuda"):
        raise SeqclfError(f"--device {name}: expected auto, cpu, cuda or cuda:<n>")
    if device.type == "cuda" and not (torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()):
        raise SeqclfError(f"--device {name}: PyTorch finds {torch.cuda.device_count()} CUDA devices on this machine")
    return device


def build_model(experiment: Experiment, data: Data) -> nn.Module:
    """The experiment's model for this data, its initial weights drawn from the experiment's seed alone."""
    torch.manual_seed(experiment.seed)
    return called("model", experiment.model, frame_shape=data.train.frame_shape, num_classes=data.num_classes)


def train(
    experiment: Experiment,
    workdir: str | Path,
    device: str = "auto",
    resume: bool = False,
    init: str | Path | None = None,
) -> dict[str, Any]:
    """Runs an experiment in a folder, to its last step, and gives its results.

    Everything random in step k is a function of (seed, k), so a run resumed at a checkpoint goes on as if it had never
    stopped: on the CPU weights, optimizer state and metrics lines are the same bit for bit.

    Args:
        workdir: the run's folder; new, or with ``resume`` one that holds a run.
        device: as of ``pick_device``.
        resume: go on from the newest whole checkpoint in ``workdir``, or from the start if there is none.
        init: a run's folder or a checkpoint to take initial weights from, those of a name and shape in common.

    Returns:
        what ``results.json`` holds: ``step``, ``parts`` (figures by part of the data), ``seconds``.

    Raises:
        SeqclfError: a mistake in the settings or files; a loss or gradient that is not finite.
        Stopped: SIGINT or SIGTERM came; a checkpoint was saved.
    """
    keep_freed_memory()
    workdir = Path(workdir)
    where = pick_device(device)
    display = Display(experiment.steps)
    data = called("data", experiment.data)
    if data.loud:
        display.say(f"*** {data.loud} ***")
    identity = data.identity()
    data = data.to(where)
    model = build_model(experiment, data).to(where)
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = parameters if experiment.groups is None else called("groups", experiment.groups, model)
    optimizer = called("optimizer", experiment.optimizer, groups)
    rates = [group["lr"] for group in optimizer.param_groups]
    scaler = torch.amp.GradScaler(where.type, enabled=experiment.precision == "fp16")

    start, best, window = 0, None, _Window()
    found = _open_folder(workdir, experiment, identity, resume)
    if found is not None:
        path, content, damaged = found
        for sentence in damaged:
            display.say(f"passed over: {sentence}")
        load_weights(model, content, path)
        optimizer.load_state_dict(content["optimizer"])
        scaler.load_state_dict(content["scaler"])
        start, best = content["step"], content["best"]
        if start > experiment.steps:
            raise SeqclfError(f"can't resume {workdir}: it is at step {start}, beyond steps={experiment.steps}")
        window = _Window(**content["window"])
        display.say(f"resuming from {path} at step {start}")
    elif init is not None:
        taken, others = start_from(model, init)
        display.say(f"{len(taken)} weights start from {init}; drawn anew: {', '.join(others) or 'none'}")
    _write_run(workdir, experiment, identity, where, parameters, start)
    record = Record(workdir, start)
    display.say(f"{data.source}: {', '.join(f'{len(c):,} {n}' for n, c in data.parts().items())} clips; run {workdir}")

    def measure(part: str) -> dict[str, Any]:
        return evaluate(
            model, data.parts()[part], data.num_classes, experiment.eval_batch, experiment.precision, data.background
        )

    began = time.perf_counter()
    parts: dict[str, Any] = {}  # the newest figures, of the last step in the end
    pending: list[tuple[int, Tensor, Tensor]] = []  # losses and norms not looked at yet, to spare the GPU the wait
    plan = (
        (data.train.order(experiment.batch_size, experiment.seed, step), mix(experiment.seed, step))
        for step in range(start, experiment.steps)
    )
    with closing(record), closing(display), closing(batches(data.train, plan)) as coming, _signals() as stop:
        display.begin(start)
        for step, batch in zip(range(start, experiment.steps), coming, strict=False):
            torch.manual_seed(mix(experiment.seed, step))  # augmentation and dropout
            factor = experiment.schedule(step, experiment.steps)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            if experiment.augment is not None:
                batch.frames = experiment.augment(batch.frames)

            labelled = (batch.labels != IGNORE).sum()
            loss = torch.zeros((), device=where)
            right = torch.zeros((), dtype=torch.int64, device=where)
            for part in batch.split(experiment.accumulate):
                state = None
                for piece in part.windows(experiment.truncate):
                    with autocast(where, experiment.precision):
                        logits, state = model(piece.frames, piece.is_first, detached(state), lengths=piece.lengths)
                        piece_loss = experiment.loss(logits, piece.labels, labelled)
                    scaler.scale(piece_loss).backward()
                    loss += piece_loss.detach()
                    right += (logits.detach().argmax(-1) == piece.labels).sum()
            scaler.unscale_(optimizer)
            norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            if experiment.clip_norm is not None:
                nn.utils.clip_grads_with_norm_(parameters, experiment.clip_norm, norm)
            pending.append((step, loss, norm))
            done = step + 1
            last = done == experiment.steps
            log, look = (done % n == 0 or last for n in (experiment.log_every, experiment.eval_every))
            save = done % experiment.checkpoint_every == 0 or last
            if where.type == "cpu" or log or look:
                _check_finite(pending, experiment, data, rates, workdir)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
            window.add(loss, norm, right, labelled)
            display.step(done)

            if log:
                values = window.take()
                record.add(
                    done, "train", {**values, "lr": optimizer.param_groups[0]["lr"]}, steps_per_second=display.rate()
                )
                display.figures(f"loss {values['loss']:.4f}  accuracy {values['accuracy']:.2%}")
            if look:
                paused = time.perf_counter()
                part_name = "test" if data.validation is None else "validation"
                figures = measure(part_name)
                parts = {part_name: figures}
                record.add(done, part_name, {name: figures[name] for name in told(figures)})
                display.pause(time.perf_counter() - paused)
                display.say(f"step {done}  {part_name}  {describe(figures)}")
                if data.validation is not None:  # test clips choose nothing
                    value = figures[CHOOSE_BY] if figures["clips"] else figures["frame_accuracy"]
                    if best is None or value > best["value"]:
                        best, save = {"step": done, "value": value}, True
            if save or stop:
                _check_finite(pending, experiment, data, rates, workdir)
                path = save_checkpoint(
                    {
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "scaler": scaler.state_dict(),
                        "window": window.state(),
                        "best": best,
                        "experiment": render(experiment),
                        "data": identity,
                    },
                    workdir / "checkpoints",
                    done,
                    experiment.keep,
                    None if best is None else best["step"],
                )
                if stop and not last:
                    raise Stopped(stop[0], done, path)
    seconds = time.perf_counter() - began

    for part_name in data.parts():
        if part_name not in ("train", *parts):
            parts[part_name] = measure(part_name)
    results = {"step": experiment.steps, "best": best, "seconds": seconds, "parts": parts, "run": str(workdir)}
    write_json(workdir / "results.json", results)
    worst = torch.tensor([row[0] for row in parts["test"]["most_wrong"]], dtype=torch.int64)
    _save_most_wrong(workdir / "most_wrong.npz", data, worst)
    ended = {"finished": now(), "seconds": seconds, "skipped": data.skipped()}
    for name, sentence in ended["skipped"].items():
        display.say(f"left out: {name} ({sentence})")
    write_json(workdir / "run.json", {**read_json(workdir / "run.json"), **ended})
    return results


def _save_most_wrong(path: Path, data: Data, worst: Tensor) -> None:
    """The frames of the most wrong test clips, for the report; of pictures 16 of each clip at most."""
    frames = torch.zeros(0, 1, *data.test.frame_shape, dtype=torch.uint8)
    if len(worst):
        frames = data.test.batch(worst).frames.cpu()
        if frames.dim() == 5 and frames.shape[1] > 16:
            frames = frames[:, torch.linspace(0, frames.shape[1] - 1, 16).long()]
    np.savez_compressed(path, frames=frames.numpy(), sample=worst.numpy())


def describe(figures: dict[str, Any]) -> str:
    """The main figures in one line."""
    shown = []
    for name in told(figures):
        if figures[name] is not None:
            value = figures[name] if name in FIGURES else figures[name] / 100
            shown.append(f"{name} {value:.4f}" if name == "loss" else f"{name} {value:.2%}")
    return "  ".join(shown)


def told(figures: dict[str, Any]) -> list[str]:
    """The figures that a line shows: the main ones, and of segments where they were measured."""
    return [*FIGURES, *(name for name in ("edit", "f1_50") if name in figures)]


class _Window:
    """Sums since the last line of metrics, on the device; saved with a checkpoint, for the same line on resuming."""

    def __init__(self, loss: float = 0.0, norm: float = 0.0, right: int = 0, labelled: int = 0, steps: int = 0) -> None:
        self.sums: list[Any] = [loss, norm, right, labelled]
        self.steps = steps

    def add(self, loss: Tensor, norm: Tensor, right: Tensor, labelled: Tensor) -> None:
        news = (loss.double(), norm.double(), right, labelled)
        self.sums = [total + new for total, new in zip(self.sums, news, strict=True)]
        self.steps += 1

    def state(self) -> dict[str, Any]:
        loss, norm, right, labelled = (x.item() if isinstance(x, Tensor) else x for x in self.sums)
        return {"loss": loss, "norm": norm, "right": right, "labelled": labelled, "steps": self.steps}

    def take(self) -> dict[str, float]:
        """The means, and a new start."""
        state = self.state()
        self.__init__()  # type: ignore[misc]
        return {
            "loss": state["loss"] / state["steps"],
            "accuracy": state["right"] / max(state["labelled"], 1),
            "grad_norm": state["norm"] / state["steps"],
        }


def _open_folder(
    workdir: Path, experiment: Experiment, identity: dict[str, Any], resume: bool
) -> tuple[Path, dict[str, Any], list[str]] | None:
    """Sees that a run may be written here; gives the checkpoint to go on from, if any."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SeqclfError(f"run folder {workdir}: can't be made ({error})") from None
    unborn = {"config.py", "config.part", "sources", "run.part"}  # of a run that was killed before its first line
    if not {path.name for path in workdir.iterdir()} - (unborn if resume else set()):
        return None
    if not resume:
        raise SeqclfError(
            f"run folder {workdir} is not empty: give another --workdir, or --resume to go on with its run"
        )
    if not (workdir / "run.json").exists():
        raise SeqclfError(f"run folder {workdir} holds no run to resume (it has no run.json)")
    run = read_json(workdir / "run.json")
    ours = numbers(experiment)
    for name, value in run["numbers"].items():
        if ours.get(name) != value:
            raise SeqclfError(f"can't resume {workdir}: its {name} was {value}, and is now {ours.get(name)}")
    for part in ("train", "test", "validation"):
        if run["data"].get(part) != identity.get(part):
            raise SeqclfError(f"can't resume {workdir}: its {part} data were other ones ({run['data']['source']})")
    return load_newest(workdir / "checkpoints")


def _write_run(
    workdir: Path,
    experiment: Experiment,
    identity: dict[str, Any],
    device: torch.device,
    parameters: list[Any],
    start: int,
) -> None:
    """The record of what is run: ``config.py`` and ``run.json``."""
    before = read_json(workdir / "run.json") if (workdir / "run.json").exists() else {}
    save_experiment(experiment, workdir)
    write_json(
        workdir / "run.json",
        {
            "started": before.get("started", now()),
            "resumed": before.get("resumed", []) + ([{"step": start, "at": now()}] if before else []),
            "environment": environment(device),
            "parameters": sum(p.numel() for p in parameters),
            "numbers": numbers(experiment),
            "data": identity,
        },
    )


def _check_finite(
    pending: list[tuple[int, Tensor, Tensor]], experiment: Experiment, data: Data, rates: list[float], workdir: Path
) -> None:
    """Empties ``pending``; a loss or gradient in it that is not finite ends the run, before anything of it is saved."""
    if not pending:
        return
    values = torch.stack([torch.stack([loss.float(), norm.float()]) for _, loss, norm in pending]).cpu()
    finite = values.isfinite()
    if experiment.precision == "fp16":
        finite[:, 1] = True  # loss scaling overflows now and then, and skips such a step by itself
    for (step, _, _), (loss_ok, norm_ok), (loss, norm) in zip(pending, finite.tolist(), values.tolist(), strict=True):
        if not (loss_ok and norm_ok):
            what = f"loss is {loss}" if not loss_ok else f"gradient's norm is {norm}"
            rows = data.train.order(experiment.batch_size, experiment.seed, step).tolist()
            shown = ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
            rate = rates[0] * experiment.schedule(step, experiment.steps)
            newest = load_newest(workdir / "checkpoints")
            kept = f"the last good checkpoint is {newest[0]}" if newest else "no checkpoint had been saved yet"
            raise SeqclfError(
                f"step {step + 1}: the {what}, at learning rate {rate:.3g}, "
                f"in the batch of samples {shown} (seed {experiment.seed}, step {step}); {kept}"
            )
    pending.clear()


@contextmanager
def _signals() -> Iterator[list[int]]:
    """While inside, SIGINT and SIGTERM are noted in the list, for the loop to see; a second one acts as usual."""
    seen: list[int] = []
    before: dict[int, Any] = {}

    def note(signum: int, frame: FrameType | None) -> None:
        seen.append(signum)
        signal.signal(signum, before[signum])

    try:
        for signum in (int(signal.SIGINT), int(signal.SIGTERM)):
            before[signum] = signal.signal(signum, note)
    except ValueError:  # not in the main thread, where signals can't be taken
        before.clear()
    try:
        yield seen
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
