"""Training, from top to bottom."""

from __future__ import annotations

import signal
import time
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqclf.batch import IGNORE, Batch, PeerFailed, SeqclfError
from seqclf.data import Clips, Data, Videos, batches, mix
from seqclf.evaluation.evaluator import autocast, evaluate
from seqclf.evaluation.metrics import FIGURES
from seqclf.experiment.config import Experiment, build, render
from seqclf.models import detached
from seqclf.runs.checkpoint import load_newest, load_weights, save_checkpoint, start_from
from seqclf.runs.environment import now
from seqclf.runs.folder import RunFolder
from seqclf.runs.metrics_file import MetricsWriter
from seqclf.runs.start import open_run, write_run
from seqclf.runtime.allocator import keep_freed_memory
from seqclf.runtime.determinism import deterministic
from seqclf.runtime.devices import pick_device
from seqclf.runtime.distributed import World, average_buffers, joined, summed_gradients
from seqclf.runtime.profiling import Profile
from seqclf.runtime.progress import Display
from seqclf.runtime.signals import noted_signals
from seqclf.training.capture import Captured

CHOOSE_BY = "clip_last"
"""The validation figure that chooses the best checkpoint (frame accuracy where clips have no one label)."""


class Stopped(Exception):
    """The run was told to stop by a signal, and has saved a checkpoint first."""

    def __init__(self, signum: int, step: int, path: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}; saved {path}")
        self.signum = signum


def default_generator(device: torch.device) -> torch.Generator:
    """PyTorch's own generator of a device, which ``torch.manual_seed`` seeds."""
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index if device.index is not None else torch.cuda.current_device()]
    return torch.default_generator


def build_model(experiment: Experiment, data: Data) -> nn.Module:
    """The experiment's model for this data, its initial weights drawn from the experiment's seed alone."""
    torch.manual_seed(experiment.seed)
    return build("model", experiment.model, frame_shape=data.train.frame_shape, num_classes=data.num_classes)


def train(
    experiment: Experiment,
    workdir: str | Path,
    device: str = "auto",
    resume: bool = False,
    init: str | Path | None = None,
    profile: bool = False,
) -> dict[str, Any]:
    """Runs an experiment in a folder, to its last step, and gives its results.

    Everything random in step k is a function of (seed, k), so a run resumed at a checkpoint goes on as if it had never
    stopped: on the CPU weights, optimizer state and metrics lines are the same bit for bit. Processes that torchrun
    started share each batch: its samples, its loss and its gradient are those of one process, but for rounding.

    Args:
        workdir: the run's folder; new, or with ``resume`` one that holds a run.
        device: as of ``pick_device``.
        resume: go on from the newest whole checkpoint in ``workdir``, or from the start if there is none.
        init: a run's folder or a checkpoint to take initial weights from, those of a name and shape in common.
        profile: trace a few early steps, into ``trace.json``, and tell where their time goes.

    Returns:
        what ``results.json`` holds: ``step``, ``parts`` (figures by part of the data), ``seconds``.

    Raises:
        SeqclfError: a mistake in the settings or files; a loss or gradient that is not finite; a process of the run
            that is gone.
        Stopped: SIGINT or SIGTERM came, to any of the processes; a checkpoint was saved.
    """
    with joined(device) as world, deterministic(experiment.deterministic):
        return _train(experiment, Path(workdir), device, resume, init, profile, world)


def _train(
    experiment: Experiment,
    workdir: Path,
    device: str,
    resume: bool,
    init: str | Path | None,
    profile: bool,
    world: World,
) -> dict[str, Any]:
    keep_freed_memory()
    where = pick_device(device, world)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    display = Display(experiment.steps, quiet=not world.leads)
    data = world.everywhere(lambda: build("data", experiment.data))
    if data.warning:
        display.say(f"*** {data.warning} ***")
    identity = data.identity()
    seen = world.gather([identity[part]["sha256"] for part in data.parts()])
    world.lead(lambda: _expect_the_same(seen, experiment.batch_size))
    data = data.to(where)
    if experiment.cuda_graph:
        _expect_recordable(experiment, data.train, where, world)
    model = build_model(experiment, data).to(where)
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = parameters if experiment.groups is None else build("groups", experiment.groups, model)
    optimizer = build("optimizer", experiment.optimizer, groups)
    rates = [group["lr"] for group in optimizer.param_groups]
    scaler = torch.amp.GradScaler(where.type, enabled=experiment.precision == "fp16")

    start, best, window = 0, None, _Window()
    before: dict[str, str] = {}  # what was left out before the checkpoint
    found = world.lead(lambda: open_run(RunFolder(workdir), experiment, identity, resume, world))
    if found is not None:
        path, content, damaged = found
        for sentence in damaged:
            display.say(f"passed over: {sentence}")
        load_weights(model, content, path)
        optimizer.load_state_dict(content["optimizer"])
        scaler.load_state_dict(content["scaler"])
        start, best, before = content["step"], content["best"], content["skipped"]
        if start > experiment.steps:
            raise SeqclfError(f"can't resume {workdir}: it is at step {start}, beyond steps={experiment.steps}")
        window = _Window(**content["window"])
        display.say(f"resuming from {path} at step {start}")
    elif init is not None:
        taken, others = start_from(model, init)
        display.say(f"{len(taken)} weights start from {init}; drawn anew: {', '.join(others) or 'none'}")
    count = sum(p.numel() for p in parameters)
    world.lead(
        lambda: write_run(RunFolder(workdir), experiment, identity, data.input_spec(), where, count, start, world)
    )
    record = MetricsWriter(RunFolder(workdir).metrics if world.leads else None, start)
    display.say(f"{data.source}: {', '.join(f'{len(c):,} {n}' for n, c in data.parts().items())} clips; run {workdir}")
    if world.size > 1:
        display.say(f"{world.size} processes, each with {experiment.batch_size / world.size:g} of the batch's clips")

    if experiment.compile:
        model.encoder.compile()  # type: ignore[operator, union-attr]
    parallel = model if world.size == 1 else summed_gradients(model)
    # clips in memory are changed before they are shared out, so that the changes are those of one process
    together = experiment.augment is not None and isinstance(data.train, Clips)

    def gradients(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Leaves a batch's gradients; gives its loss, how many frames are right and labelled, the gradients' norm."""
        optimizer.zero_grad(set_to_none=True)
        if together and experiment.augment is not None:
            batch.frames = experiment.augment(batch.frames, default_generator(where))
            batch = batch[world.share(len(batch))]
        if world.rank > 0:  # the first goes on with the seed of the step: what one process alone would draw
            torch.manual_seed(mix(torch.initial_seed(), world.rank))
        if experiment.augment is not None and not together:
            batch.frames = experiment.augment(batch.frames, default_generator(where))
        labelled = world.sum((batch.labels != IGNORE).sum())
        loss = torch.zeros((), device=where)
        right = torch.zeros((), dtype=torch.int64, device=where)
        parts = [part.windows(experiment.truncate) for part in batch.split(experiment.accumulate)]
        for part in parts:
            state = None
            for piece in part:
                last = piece is parts[-1][-1]  # with which the processes add up their gradients
                with nullcontext() if last or world.size == 1 else parallel.no_sync():  # type: ignore[operator]
                    with autocast(where, experiment.precision):
                        logits, state = parallel(piece.frames, piece.is_first, detached(state), lengths=piece.lengths)
                        piece_loss = experiment.loss(logits, piece.labels, labelled)
                    scaler.scale(piece_loss).backward()
                loss += piece_loss.detach()
                right += (logits.detach().argmax(-1) == piece.labels).sum()
        scaler.unscale_(optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if experiment.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(parameters, experiment.clip_norm, norm)
        return world.sum(loss), world.sum(right), labelled, norm

    def left_out() -> dict[str, str]:
        """What any process could not read, since the run's first step."""
        return {name: why for each in world.gather({**before, **data.skipped()}) for name, why in each.items()}

    def measure(part: str) -> dict[str, Any]:
        average_buffers(model, world)
        clips, most, precision = data.parts()[part], experiment.eval_batch, experiment.precision
        return evaluate(model, clips, data.num_classes, most, precision, data.background, world)

    captured = None
    if experiment.cuda_graph:  # a step, from the numbers of its samples to its gradients, as one launch
        captured = Captured(lambda rows: gradients(data.train.batch(rows)), where)
    began = time.perf_counter()
    parts: dict[str, Any] = {}  # the newest figures, of the last step in the end
    pending: list[tuple[int, Tensor, Tensor]] = []  # losses and norms not looked at yet, to spare the GPU the wait
    order = (
        (data.train.order(experiment.batch_size, experiment.seed, step), mix(experiment.seed, step))
        for step in range(start, experiment.steps)
    )
    plan = ((rows if together else rows[world.share(len(rows))], key) for rows, key in order)
    coming: Any = batches(data.train, plan) if captured is None else (rows for rows, _ in plan)
    profiler = Profile(workdir / "trace.json", where, display.say) if profile and world.leads else None
    with (
        closing(record),
        closing(display),
        closing(profiler) if profiler is not None else nullcontext(),
        closing(coming),
        noted_signals(patient=world.size > 1) as stop,
    ):
        display.begin(start)
        for step, batch in zip(range(start, experiment.steps), display.waiting(coming), strict=False):
            torch.manual_seed(mix(experiment.seed, step))  # augmentation and dropout
            factor = experiment.schedule(step, experiment.steps)
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
            loss, right, labelled, norm = gradients(batch) if captured is None else captured(batch)
            pending.append((step, loss, norm))
            done = step + 1
            last = done == experiment.steps
            log, look = (done % n == 0 or last for n in (experiment.log_every, experiment.eval_every))
            save = done % experiment.checkpoint_every == 0 or last
            if where.type == "cpu" or log or look:
                _check_finite(pending, experiment, data, rates, workdir, world)
            scaler.step(optimizer)
            scaler.update()
            window.add(loss, norm, right, labelled)
            display.step(done)
            if profiler is not None:
                profiler.step()

            if log:
                values = window.take()
                learning = {**values, "lr": optimizer.param_groups[0]["lr"]}
                record.add(done, "train", learning, steps_per_second=display.rate(), waits_for_data=display.waits())
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
            told_to_stop = world.largest(stop[0] if stop else 0)
            if save or told_to_stop:
                _check_finite(pending, experiment, data, rates, workdir, world)
                average_buffers(model, world)
                content = {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "scaler": scaler.state_dict(),
                    "window": window.state(),
                    "best": best,
                    "skipped": left_out(),
                    "experiment": render(experiment),
                    "data": identity,
                }
                kept = None if best is None else best["step"]
                folder = workdir / "checkpoints"
                path = world.lead(partial(save_checkpoint, content, folder, done, experiment.keep, kept))
                if told_to_stop and not last:
                    raise Stopped(told_to_stop, done, path)
    seconds = time.perf_counter() - began

    for part_name in data.parts():
        if part_name not in ("train", *parts):
            parts[part_name] = measure(part_name)
    results = {"step": experiment.steps, "best": best, "seconds": seconds, "parts": parts, "run": str(workdir)}
    skipped = left_out()
    for name, sentence in skipped.items():
        display.say(f"left out: {name} ({sentence})")

    def finish() -> None:
        RunFolder(workdir).write_results(results)
        _save_most_wrong(workdir / "most_wrong.npz", data, [row[0] for row in parts["test"]["most_wrong"]])
        ended = {"finished": now(), "seconds": seconds, "skipped": skipped}
        RunFolder(workdir).update_record(**ended)

    world.lead(finish)
    return results


def _expect_the_same(seen: list[list[str]], batch_size: int) -> None:
    """Sees that all processes have the same data, by their fingerprints, and each a clip of a batch."""
    if any(prints != seen[0] for prints in seen):
        other = next(rank for rank, prints in enumerate(seen) if prints != seen[0])
        raise SeqclfError(f"process {other} of {len(seen)} has other data than the first: all need the same files")
    if batch_size < len(seen):
        raise SeqclfError(f"setting batch_size={batch_size}: must be at least {len(seen)}, a clip for each process")


def _expect_recordable(experiment: Experiment, clips: Clips | Videos, where: torch.device, world: World) -> None:
    """Sees that a step is the same operations on tensors of the same shapes each time."""
    for wrong, why in (
        (where.type != "cuda", "there is no GPU here"),
        (world.size > 1, "the run has several processes"),
        (not isinstance(clips, Clips) or clips.lengths is not None, "clips are not all in memory and of one length"),
        (experiment.precision == "fp16", "fp16's loss scaling looks at each step's result"),
    ):
        if wrong:
            raise SeqclfError(f"setting cuda_graph=True: {why}")


def _save_most_wrong(path: Path, data: Data, worst: list[int]) -> None:
    """The frames of the most wrong test clips, for the report: of pictures 16 of each clip at most, of others 128."""
    most = 16 if len(data.test.frame_shape) == 3 else 128
    shown = []
    for i in worst:  # one by one: clips may be whole videos
        frames = data.test.batch(torch.tensor([i])).frames[0]
        kept = torch.linspace(0, len(frames) - 1, min(most, len(frames))).long()
        shown.append(frames[kept.to(frames.device)].cpu())
    blank = torch.zeros(0, *data.test.frame_shape, dtype=torch.uint8)
    frames = nn.utils.rnn.pad_sequence(shown, batch_first=True) if shown else blank[None]
    np.savez_compressed(path, frames=frames.numpy(), sample=np.array(worst, np.int64))


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


def _check_finite(
    pending: list[tuple[int, Tensor, Tensor]],
    experiment: Experiment,
    data: Data,
    rates: list[float],
    workdir: Path,
    world: World,
) -> None:
    """Empties ``pending``; a loss or gradient in it that is not finite ends the run, before anything of it is saved."""
    if not pending:
        return
    values = torch.stack([torch.stack([loss.float(), norm.float()]) for _, loss, norm in pending]).cpu()
    finite = values.isfinite()
    if experiment.precision == "fp16":
        finite[:, 1] = True  # loss scaling overflows now and then, and skips such a step by itself
    if not (finite.all() or world.leads):
        raise PeerFailed("a loss or gradient is not finite")
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
