"""One training step, up to the gradients."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seqclf.batch import IGNORE, Batch
from seqclf.data import Clips, Videos, mix
from seqclf.evaluation.evaluator import autocast
from seqclf.experiment.build_loss import Loss
from seqclf.experiment.config import Experiment
from seqclf.models import FrameSequenceClassifier, State, detached
from seqclf.runtime.distributed import World, summed_gradients
from seqclf.runtime.random import default_generator
from seqclf.training.capture import Captured


class StepResult(NamedTuple):
    """Scalars on the device, over the whole batch of all processes.

    Attributes:
        loss: the mean over labelled frames, or known labels of multi-label data; summed over the stages of the model.
        right: labelled frames that were classified correctly; known labels that the logit's sign predicts.
        labelled: labelled frames, or known labels.
        norm: the L2 norm of the gradient, before clipping.
    """

    loss: Tensor
    right: Tensor
    labelled: Tensor
    norm: Tensor


Step = Callable[["Batch | Tensor"], StepResult]
"""Computes the gradients of a batch. Takes a batch, or the sample numbers ``(B,)`` of clips in memory."""


def _right(logits: Tensor, labels: Tensor) -> Tensor:
    """How many labels are predicted: by the highest logit, or of multi-label data by a probability of at least 0.5."""
    predicted = logits.argmax(-1) if labels.dim() == 2 else (logits >= 0).long()
    return (predicted == labels).sum()


class _Stages(nn.Module):
    """A model that returns the logits of all its stages, as one module whose gradients are summed over processes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, frames: Tensor, is_first: Tensor | None, state: State, lengths: Tensor | None
    ) -> tuple[list[Tensor], State]:
        if isinstance(self.model, FrameSequenceClassifier) and self.model.refine:
            return self.model.forward_stages(frames, is_first, state, lengths)
        logits, state = self.model(frames, is_first, state, lengths=lengths)
        return [logits], state


class EagerStep:
    """The step of an experiment."""

    def __init__(
        self,
        experiment: Experiment,
        model: nn.Module,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        clips: Clips | Videos,
        device: torch.device,
        world: World,
    ) -> None:
        if experiment.compile:
            model.encoder.compile()  # type: ignore[operator, union-attr]
        self.experiment, self.loss, self.optimizer, self.scaler = experiment, loss, optimizer, scaler
        self.clips, self.device, self.world = clips, device, world
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        stages = _Stages(model)
        self.model: nn.Module = stages if world.size == 1 else summed_gradients(stages)

    def __call__(self, item: Batch | Tensor) -> StepResult:
        self.optimizer.zero_grad(set_to_none=True)
        batch = self._augmented(self.clips.batch(item) if isinstance(item, Tensor) else item)
        labelled = self.world.sum((batch.labels != IGNORE).sum())
        loss = torch.zeros((), device=self.device)
        right = torch.zeros((), dtype=torch.int64, device=self.device)
        parts = [part.windows(self.experiment.truncate) for part in batch.split(self.experiment.accumulate)]
        for part in parts:
            state = None
            for window in part:
                last = window is parts[-1][-1]
                # processes sum their gradients during the last backward pass only
                with nullcontext() if last or self.world.size == 1 else self.model.no_sync():  # type: ignore[operator]
                    with autocast(self.device, self.experiment.precision):
                        stages, state = self.model(
                            window.frames, window.is_first, detached(state), lengths=window.lengths
                        )
                        losses = [self.loss(logits, window.labels, labelled) for logits in stages]
                        window_loss = sum(losses[1:], losses[0])
                    self.scaler.scale(window_loss).backward()
                loss += window_loss.detach()
                right += _right(stages[-1].detach(), window.labels)
        return StepResult(self.world.sum(loss), self.world.sum(right), labelled, self._clip_gradients())

    def _augmented(self, batch: Batch) -> Batch:
        """This process's share of a batch, augmented.

        Clips in memory are augmented before they are shared, so that several processes see what one alone would.
        """
        augment, world = self.experiment.augment, self.world
        shared_after = augment is not None and isinstance(self.clips, Clips)
        generator = default_generator(self.device)
        if augment is not None and shared_after:
            batch.frames = augment(batch.frames, generator)
            batch = batch[world.share(len(batch))]
        if world.rank > 0:  # the leading process continues with the numbers that one process alone would draw
            torch.manual_seed(mix(torch.initial_seed(), world.rank))
        if augment is not None and not shared_after:
            batch.frames = augment(batch.frames, generator)
        return batch

    def _clip_gradients(self) -> Tensor:
        """Clips the gradients if the experiment says so; returns their norm before that."""
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if self.experiment.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.experiment.clip_norm, norm)
        return norm


def captured_step(eager: EagerStep) -> Step:
    """The step, captured as a CUDA graph and replayed."""
    captured = Captured(eager, eager.device)
    return lambda rows: StepResult(*captured(rows))  # type: ignore[arg-type]
