"""Training, from top to bottom."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seqclf.batch import Batch
from seqclf.data import Clips, Data, batches, mix
from seqclf.experiment.build_loss import Loss, build_loss, class_weights_of
from seqclf.experiment.config import Experiment, build, build_data, check_is_experiment
from seqclf.runs.checkpoint import start_from
from seqclf.runs.folder import RunFolder
from seqclf.runs.start import default_workdir, open_run, write_run
from seqclf.runtime.determinism import deterministic
from seqclf.runtime.devices import pick_device
from seqclf.runtime.distributed import World, joined
from seqclf.runtime.progress import Display
from seqclf.runtime.random import seeded
from seqclf.runtime.signals import stop_signals
from seqclf.runtime.text import counted, some
from seqclf.training.checks import check_experiment, check_processes, label_warnings
from seqclf.training.fitting import fit_normalization, normalization_text
from seqclf.training.selection import OnEvaluation, selection_metric, stays_stopped
from seqclf.training.session import Session
from seqclf.training.state import TrainState
from seqclf.training.step import CapturedStep, EagerStep


class Stopped(Exception):
    """A signal stopped the run, after it saved a checkpoint."""

    def __init__(self, signum: int, step: int, path: Path) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name} after step {step}; saved {path}")
        self.signum = signum


def train(
    experiment: Experiment,
    workdir: str | Path | None = None,
    device: str = "auto",
    resume: bool = False,
    init: str | Path | None = None,
    profile: bool = False,
    allow: Sequence[str] = (),
    on_evaluation: OnEvaluation | None = None,
    on_results: Callable[[dict[str, Any]], object] | None = None,
) -> dict[str, Any]:
    """Trains the model of an experiment and writes the run, its results and its report to a folder.

    All random numbers of a step depend on the seed and the step only. A resumed run therefore equals an uninterrupted
    one; on the CPU weights, optimizer state and metrics are the same bit for bit. Processes started by torchrun share
    each batch; losses and gradients equal those of one process up to rounding.

    The caller's random state, signal handlers and current CUDA device are unchanged afterwards. Calls may run in
    several threads at the same time.

    Args:
        experiment: what to train.
        workdir: the run folder: a new one, or with ``resume`` one that holds a run. None for a new one in ``runs``,
            named by the data and the time, which is printed.
        device: "auto", "cpu", "cuda" or "cuda:<n>", as in ``pick_device``.
        resume: continue from the newest undamaged checkpoint in ``workdir``; without one, start at step 0.
        init: a run folder or checkpoint to take initial weights from, where names and shapes match.
        profile: trace a few early steps to ``trace.json`` and print where their time goes.
        allow: settings that a resumed run may change, such as ``["optimizer.lr"]``.
        on_evaluation: ``on_evaluation(step, metrics)`` is called after each evaluation, in the leading process, with
            the metrics of the validation part, or of the test part without one. If it returns True, the run ends after
            this step as after its last one. If it raises an exception, a checkpoint is saved first.
        on_results: ``on_results(results)`` is called in the leading process, before the report is drawn.

    Returns:
        what ``results.json`` holds: ``step``, ``best``, ``stopped``, ``seconds``, ``run``, ``parts`` (metrics by part
        of the data) and more.

    Raises:
        SeqclfError: a setting or file is wrong; a loss or gradient is not finite; another process of the run failed.
        Stopped: SIGINT or SIGTERM arrived. A checkpoint was saved.
    """
    check_is_experiment(experiment)
    with joined(device) as world, deterministic(experiment.deterministic):
        where = pick_device(device, world)
        with torch.cuda.device(where) if where.type == "cuda" else nullcontext():
            folder = world.lead(lambda: RunFolder(workdir or default_workdir(experiment, resume)))
            session = _start(experiment, folder, where, resume, init, allow, world, on_evaluation)
            results = _run(session, profile)
            if on_results is not None and world.leads:
                on_results(results)
            session.report()
            return results


def _start(
    experiment: Experiment,
    folder: RunFolder,
    device: torch.device,
    resume: bool,
    init: str | Path | None,
    allow: Sequence[str],
    world: World,
    on_evaluation: OnEvaluation | None,
) -> Session:
    """Prepares data and state, and opens the run folder."""
    display = Display(experiment.steps, quiet=not world.leads)
    data, identity = _prepare_data(experiment, device, world, display)
    state, loss, metric = world.everywhere(lambda: _prepare_state(experiment, data, device, world))
    start = world.lead(lambda: open_run(folder, experiment, identity, resume, allow, world))
    normalization = None
    if start.checkpoint is not None:
        state.load_state_dict(start.checkpoint, start.path, start.changes_optimizer(experiment))
        if not stays_stopped(state, experiment.patience, on_evaluation):
            state.stopped = None
        normalization = folder.read_record().get("fitted", {}).get("normalization")
    else:
        normalization = fit_normalization(state.model, data.train, experiment.seed, world)
        if normalization is not None:
            display.say(normalization_text(normalization))
    if start.checkpoint is None and init is not None:
        taken, others = start_from(state.model, init)
        display.say(f"{len(taken)} weights taken from {init}; newly initialised: {', '.join(others) or 'none'}")
    fitted = {"class_weights": class_weights_of(loss), "normalization": normalization}
    world.lead(lambda: write_run(folder, experiment, data, identity, fitted, device, state.model, start, world))
    for message in start.messages:
        display.say(message)
    sizes = ", ".join(f"{len(clips):,} {name}" for name, clips in data.parts().items())
    display.say(f"{data.source}: {sizes} clips; run {folder.path}")
    if experiment.batch_size > len(data.train):
        clips = counted(len(data.train), "training clip")
        display.say(f"batch_size={experiment.batch_size} is larger than the data ({clips}): each batch repeats clips")
    for text in label_warnings(data):
        display.warn(text)
    if state.left_out:
        display.warn(f"these trainable parameters are in no group of the optimizer: {some(state.left_out)}")
    if world.size > 1:
        display.say(f"{world.size} processes, each with {experiment.batch_size / world.size:g} clips per step")
    if experiment.ema is not None:
        display.say(f"evaluation, checkpoints and prediction use averaged weights (ema={experiment.ema:g})")
    return Session(experiment, data, identity, state, folder, world, display, device, metric, on_evaluation)


def _prepare_data(
    experiment: Experiment, device: torch.device, world: World, display: Display
) -> tuple[Data, dict[str, Any]]:
    """The experiment's data on the device, and its identity, which all processes must share."""
    data = world.everywhere(lambda: build_data(experiment, device))
    if data.warning:
        display.warn(data.warning)
    if data.held_out is not None:
        display.say(data.held_out["description"])
    identity = data.identity()
    fingerprints = world.gather([identity[part]["sha256"] for part in data.parts()])
    world.lead(lambda: check_processes(fingerprints, experiment.batch_size))
    return data.to(device), identity


def _prepare_state(
    experiment: Experiment, data: Data, device: torch.device, world: World
) -> tuple[TrainState, Loss, str | None]:
    """Builds and checks the initial state, the loss, and the metric that chooses the best checkpoint."""
    metric = selection_metric(experiment, data)
    state = TrainState.create(experiment, data, device)
    loss = build_loss(experiment, data, device)
    check_experiment(experiment, data, state.model, loss, device, world)
    return state, loss, metric


def _run(session: Session, profile: bool) -> dict[str, Any]:
    """Trains to the last step: run, log, evaluate, save."""
    experiment, state, device, world = session.experiment, session.state, session.device, session.world
    loss = build_loss(experiment, session.data, device)
    eager = EagerStep(experiment, state.model, loss, state.optimizer, state.scaler, session.data.train, device, world)
    step = CapturedStep(eager) if experiment.cuda_graph else eager
    items = _items(session)
    with session.opened(profile), closing(items), stop_signals(repeated=world.size > 1) as signals:
        for item in session.display.waiting(items):
            with seeded(mix(experiment.seed, state.step), device):  # augmentation and dropout
                state.set_rates(build("schedule", experiment.schedule, state.step, experiment.steps))
                measured = step(item)
                session.step_check.add(state.step, measured)
                if device.type == "cpu":
                    session.step_check.check()
                if not step.updates:
                    state.apply_gradients()
                state.step_done(measured)
            session.step_done()
            if session.is_due(experiment.log_every):
                session.step_check.check()
                session.log()
            improved = False
            if session.is_due(experiment.eval_every):
                session.step_check.check()
                improved = session.evaluate()
            stop = world.largest(signals[0] if signals else 0)
            if improved or stop or session.is_due(experiment.checkpoint_every):
                path = session.save()
                if stop and not session.ended:
                    raise Stopped(stop, state.step, path)
            if session.ended:
                break
    return session.finish()


def _items(session: Session) -> Generator[Batch | Tensor, None, None]:
    """What each step takes: a batch read ahead, or the sample numbers of clips in memory.

    Clips in memory are shared among processes by the step if it augments them, as it then does so before.
    """
    experiment, clips, world = session.experiment, session.data.train, session.world
    whole = experiment.augment is not None and isinstance(clips, Clips)
    numbers = range(session.state.step, session.state.step if session.ended else experiment.steps)
    order = partial(experiment.sampler, clips, experiment.batch_size, experiment.seed)
    orders = ((order(n), mix(experiment.seed, n)) for n in numbers)
    plan = ((rows if whole else rows[world.share(len(rows))], key) for rows, key in orders)
    if isinstance(clips, Clips):
        yield from (rows for rows, _ in plan)
    else:
        with closing(batches(clips, plan)) as coming:
            yield from coming
