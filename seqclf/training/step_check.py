"""Stops a run whose loss, gradient or augmented frames are out of range, before it saves anything."""

from __future__ import annotations

import torch
from torch import Tensor

from seqclf.batch import PeerFailed, SeqclfError
from seqclf.data import Data
from seqclf.data.input_spec import LARGEST
from seqclf.experiment.config import Experiment
from seqclf.runs.folder import RunFolder
from seqclf.runtime.distributed import World
from seqclf.runtime.text import some


class StepCheck:
    """Collects what steps measured and checks it together, so that a GPU is not waited for in each step.

    Args:
        experiment, data: name the samples of a failed step.
        rate: the learning rate before the schedule's factor.
        folder: the run, whose last checkpoint the message names.
        world: the processes of the run; the leading one reports.
    """

    def __init__(self, experiment: Experiment, data: Data, rate: float, folder: RunFolder, world: World) -> None:
        self.experiment, self.data, self.rate, self.folder, self.world = experiment, data, rate, folder, world
        self.pending: list[tuple[int, Tensor]] = []

    def add(self, step: int, measured: Tensor) -> None:
        """Adds the measurements of a step, counted from 0."""
        self.pending.append((step, measured))

    def check(self) -> None:
        """Checks the steps added since the last check.

        Raises:
            SeqclfError: ``augment`` made floats that are not from 0 to 1, so that training and evaluation differ in
                their scale; a loss or norm is not finite.
        """
        if not self.pending:
            return
        measured = torch.stack([measured for _, measured in self.pending]).cpu()
        values, brightest = measured[:, :2], float(measured[:, 4].max())  # loss and norm
        if brightest > LARGEST:
            raise SeqclfError(
                f"setting augment: it turns uint8 frames into floats up to {brightest:.0f}, expected 0 to 1: "
                "divide them by 255, or convert them back to uint8"
            )
        finite = values.isfinite()
        if self.experiment.precision == "fp16":
            finite[:, 1] = True  # the loss scaler skips a step whose gradient overflows
        if not finite.all():
            if not self.world.leads:
                raise PeerFailed("a loss or gradient is not finite")
            at = int((~finite.all(1)).nonzero()[0])
            raise self._error(self.pending[at][0], *values[at].tolist())
        self.pending.clear()

    def _error(self, step: int, loss: float, norm: float) -> SeqclfError:
        experiment = self.experiment
        finite = torch.tensor(loss).isfinite()
        what = f"gradient norm is {norm}" if finite else f"loss is {loss}"
        rows = experiment.sampler(self.data.train, experiment.batch_size, experiment.seed, step).tolist()
        rate = self.rate * experiment.schedule(step, experiment.steps)
        newest = self.folder.load_newest()
        kept = f"the last checkpoint is {newest[0]}" if newest else "no checkpoint was saved yet"
        return SeqclfError(
            f"step {step + 1}: the {what}, at learning rate {rate:.3g}, "
            f"in the batch of samples {some(rows)} (seed {experiment.seed}, step {step}); {kept}"
        )
