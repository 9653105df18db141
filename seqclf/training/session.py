"""A run in progress: what happens between two steps, and at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from seqclf.data import Data
from seqclf.evaluation.evaluator import evaluate
from seqclf.experiment.config import Experiment
from seqclf.experiment.fingerprint import resume_fingerprint
from seqclf.experiment.rendering import render_record
from seqclf.reporting.html import report
from seqclf.reporting.metrics import test_metrics
from seqclf.runs.checkpoint import load_weights
from seqclf.runs.environment import now
from seqclf.runs.folder import RunFolder
from seqclf.runs.metrics_file import MetricsWriter
from seqclf.runtime.distributed import World, average_buffers
from seqclf.runtime.profiling import Profile
from seqclf.runtime.progress import Display
from seqclf.training.metrics import describe, headline_metrics, logged_metrics
from seqclf.training.most_wrong import most_wrong_frames
from seqclf.training.selection import OnEvaluation, call_back, choose, has_value
from seqclf.training.state import TrainState, Window
from seqclf.training.step_check import StepCheck


class Session:
    """The parts of a run while it trains.

    Args:
        experiment: what is run.
        data: its data, on the device.
        identity: of the data, for checkpoints.
        state: what is trained.
        folder: where the run is written.
        world: the processes of the run.
        display: where progress is printed.
        device: where the model is.
        metric: the metric of the validation part that chooses the best checkpoint; None without this part.
        on_evaluation: the user's function, called after each evaluation.
    """

    def __init__(
        self,
        experiment: Experiment,
        data: Data,
        identity: dict[str, Any],
        state: TrainState,
        folder: RunFolder,
        world: World,
        display: Display,
        device: torch.device,
        metric: str | None,
        on_evaluation: OnEvaluation | None = None,
    ) -> None:
        self.experiment, self.data, self.identity, self.state = experiment, data, identity, state
        self.folder, self.world, self.display, self.device = folder, world, display, device
        self.metric, self.part = metric, "test" if metric is None else "validation"
        self.step_check = StepCheck(experiment, data, state.rates[0], folder, world)
        self.on_evaluation, self.skipped_before = on_evaluation, state.skipped
        self.metrics: dict[str, Any] = {}  # newest metrics by part
        self.decision = data.decision_rule()

    @contextmanager
    def opened(self, profile: bool) -> Iterator[None]:
        """Opens the metrics file, the progress line and, if asked for, the profiler."""
        leads, trace = self.world.leads, self.folder.trace
        self.writer = MetricsWriter(self.folder.metrics if leads else None, self.state.step)
        self.profiler = Profile(trace, self.device, self.display.say) if profile and leads else None
        self.started = time.perf_counter()
        self.display.begin(self.state.step)
        try:
            yield
        finally:
            if self.profiler is not None:
                self.profiler.close()
            self.display.close()
            self.writer.close()

    def is_due(self, every: int) -> bool:
        """Whether something that is done every ``every`` steps, and after the last step, is due now."""
        return self.state.step % every == 0 or self.ended

    @property
    def ended(self) -> bool:
        """Whether this was the last step."""
        return self.state.step == self.experiment.steps or self.state.stopped is not None

    def step_done(self) -> None:
        """After each step: progress and profiler."""
        self.display.step(self.state.step)
        if self.profiler is not None:
            self.profiler.step()

    def log(self) -> None:
        """Writes a line of training metrics, over the steps since the last one."""
        state, display = self.state, self.display
        accuracy = "label_accuracy" if self.data.multi_label else "accuracy"
        means, state.window = state.window.means(accuracy), Window()
        values: dict[str, float | None] = {**means, "lr": state.lr}
        timings = {"steps_per_second": display.rate(), "waits_for_data": display.waits()}
        self.writer.add(state.step, "train", values, **timings)
        display.figures(f"loss {means['loss']:.4f}  {accuracy} {means[accuracy]:.2%}")

    def evaluate(self) -> bool:
        """Measures the validation part, or the test part without one; returns whether this is the best step yet.

        Test metrics choose no checkpoint.
        """
        began, state, part, metric = time.perf_counter(), self.state, self.part, self.metric
        metrics = self._measure(part)
        self.metrics = {part: metrics}
        own = list(self.experiment.metrics or {})
        own += [metric] if metric is not None and metric not in headline_metrics(metrics, own) else []
        self.writer.add(state.step, part, {name: metrics[name] for name in logged_metrics(metrics, own)})
        self.display.pause(time.perf_counter() - began)
        self.display.say(f"step {state.step}  {part}  {describe(metrics, own)}")
        improved = metric is not None and choose(state, metric, metrics, self.experiment.patience)
        if metric is not None and not has_value(metrics[metric]):
            self.display.warn(f"{metric} has no value after step {state.step}, which counts as no improvement")
        if self.on_evaluation is not None:
            call_back(self.on_evaluation, state, metrics, self.save, self.world)
        if state.step == self.experiment.steps:
            state.stopped = None
        if state.stopped is not None:
            self.display.say(f"stopped after step {state.step}: {state.stopped['reason']}")
        return improved

    def save(self) -> Path:
        """Writes a checkpoint; returns its path."""
        self.step_check.check()
        average_buffers(self.state.model, self.world)
        self.state.skipped = self._skipped()
        content = {
            **self.state.state_dict(),
            "experiment": render_record(self.experiment)[0],
            "settings": resume_fingerprint(self.experiment),
            "data": self.identity,
        }
        best = None if self.state.best is None else self.state.best["step"]
        write = partial(self.folder.save_checkpoint, content, self.state.step, self.experiment.keep, best)
        return self.world.lead(write)

    def finish(self) -> dict[str, Any]:
        """Measures the other parts and writes the results; returns what ``results.json`` holds."""
        seconds = time.perf_counter() - self.started
        self.metrics = self._measure_all(self.metrics)
        state = self.state
        best = None if state.best is None else {**state.best, "parts": self._measure_best()}
        if self.metric is not None and best is None:
            self.display.warn(f"{self.metric} never had a value, so the run has no best checkpoint: use the newest one")
        skipped = self._skipped()
        results = {
            "step": state.step,
            "best": best,
            "stopped": state.stopped,
            "ema": self.experiment.ema,
            "decision": self.decision,
            "seconds": seconds,
            "parts": self.metrics,
            "run": str(self.folder.path),
        }
        for name, reason in skipped.items():
            self.display.say(f"skipped: {name} ({reason})")

        def write() -> None:
            samples = [row[0] for row in test_metrics(results)["most_wrong"]]
            self.folder.write_results(results)
            self.folder.write_most_wrong(*most_wrong_frames(self.data, samples), samples)
            self.folder.update_record(finished=now(), seconds=seconds, skipped=skipped)

        self.world.lead(write)
        return results

    def report(self) -> None:
        """Writes the report, from the results."""
        self.world.lead(lambda: report(self.folder.path))

    def _measure_all(self, known: dict[str, Any]) -> dict[str, Any]:
        """The metrics of all parts but the training part; those that are known are not measured again."""
        parts = [part for part in self.data.parts() if part != "train"]
        return {part: known[part] if part in known else self._measure(part) for part in parts}

    def _measure_best(self) -> dict[str, Any]:
        """The metrics of the best checkpoint by part. The model has its weights afterwards."""
        best = self.state.best
        assert best is not None
        if best["step"] == self.state.step:
            return self.metrics
        path, content, _ = self.world.lead(lambda: self.folder.load_checkpoint(str(best["step"])))
        load_weights(self.state.model, content, path)
        self.state.average = None  # the checkpoint has the averages as its weights
        return self._measure_all({})

    def _measure(self, part: str) -> dict[str, Any]:
        average_buffers(self.state.model, self.world)
        data, experiment = self.data, self.experiment
        with self.state.evaluated():
            return evaluate(
                self.state.model,
                data.parts()[part],
                data.num_classes,
                experiment.eval_batch,
                experiment.precision,
                data.background,
                self.world,
                decision=self.decision,
                metrics=experiment.metrics,
            )

    def _skipped(self) -> dict[str, str]:
        """Samples that any process could not read, since the run's first step: name and reason."""
        everywhere = self.world.gather({**self.skipped_before, **self.data.skipped()})
        return {name: reason for skipped in everywhere for name, reason in skipped.items()}
