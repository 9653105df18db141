"""One training step.

A step returns what it measured: ``(5,)`` float64 on the device, over the whole batch of all processes.

* The loss: the mean over labelled frames, or over known labels of multi-label data, summed over the model's stages.
* The L2 norm of the gradient, before clipping.
* The number of labelled frames that were classified correctly, or of known labels that the logit's sign predicts.
* The number of labelled frames, or of known labels.
* The largest value of floats that ``augment`` made of uint8 frames, in this process; 0 if it made none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from seqclf.batch import IGNORE, Batch, SeqclfError
from seqclf.data import Clips, Videos, mix
from seqclf.evaluation.evaluator import autocast
from seqclf.experiment.build_loss import Loss
from seqclf.experiment.config import Experiment, build
from seqclf.models import FrameSequenceClassifier, State, detached
from seqclf.runtime.distributed import World, summed_gradients
from seqclf.runtime.random import default_generator
from seqclf.training.capture import Captured

Item = Batch | Tensor
"""What a step takes: a batch, or the sample numbers ``(B,)`` of clips in memory."""


def _augment(augment: Callable[..., Tensor], frames: Tensor, generator: torch.Generator) -> Tensor:
    """The augmented frames of a batch.

    Raises:
        SeqclfError: the function fails, or does not return frames of the same number of clips and frames.
    """
    found = build("augment", augment, frames, generator)
    if not isinstance(found, Tensor) or found.shape[:2] != frames.shape[:2]:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise SeqclfError(f"setting augment: it must return frames {tuple(frames.shape)}, not {shape}")
    return found


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
    """The step of an experiment, up to the gradients."""

    updates = False
    """Whether a call also updates the weights."""

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

    def __call__(self, item: Item) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        batch, largest = self._augmented(self.clips.batch(item) if isinstance(item, Tensor) else item)
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
        measured = (self.world.sum(loss), self._clip_gradients(), self.world.sum(right), labelled, largest)
        return torch.stack([value.double() for value in measured])

    def _augmented(self, batch: Batch) -> tuple[Batch, Tensor]:
        """This process's share of a batch, augmented, and the largest float; see the module's docstring.

        Clips in memory are augmented before they are shared, so that several processes see what one alone would.
        """
        was_uint8 = batch.frames.dtype == torch.uint8
        augment, world = self.experiment.augment, self.world
        shared_after = augment is not None and isinstance(self.clips, Clips)
        generator = default_generator(self.device)
        if augment is not None and shared_after:
            batch.frames = _augment(augment, batch.frames, generator)
            batch = batch[world.share(len(batch))]
        if world.rank > 0:  # the leading process continues with the numbers that one process alone would draw
            torch.manual_seed(mix(torch.initial_seed(), world.rank))
        if augment is not None and not shared_after:
            batch.frames = _augment(augment, batch.frames, generator)
        scaled = was_uint8 and batch.frames.is_floating_point()
        return batch, batch.frames.amax() if scaled else torch.zeros((), device=self.device)

    def _clip_gradients(self) -> Tensor:
        """Clips the gradients if the experiment says so; returns their norm before that."""
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if self.experiment.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(self.parameters, self.experiment.clip_norm, norm)
        return norm


class CapturedStep:
    """A step that is captured as a CUDA graph and replayed, with the update of the weights if it can be captured."""

    def __init__(self, eager: EagerStep) -> None:
        self.eager, self.optimizer = eager, eager.optimizer
        self.updates = type(self.optimizer) in CAPTURED_BY
        self.captured = Captured(self._run, eager.device)

    def __call__(self, item: Item) -> Tensor:
        rates = torch.tensor([float(group["lr"]) for group in self.optimizer.param_groups])
        return self.captured(item, rates)[0]  # type: ignore[arg-type]

    def _run(self, rows: Tensor, rates: Tensor) -> tuple[Tensor]:
        measured = self.eager(rows)
        if self.updates:
            with capturable(self.optimizer, rates):
                self.optimizer.step()
        return (measured,)


CAPTURED_BY: dict[type[torch.optim.Optimizer], dict[str, bool]] = {
    torch.optim.SGD: {"fused": True, "foreach": False},
    torch.optim.Adam: {"capturable": True},
    torch.optim.AdamW: {"capturable": True},
}
"""The optimizers whose step can be captured, and the settings that capturing needs."""


@contextmanager
def capturable(optimizer: torch.optim.Optimizer, rates: Tensor) -> Iterator[None]:
    """Makes the optimizer's step capturable within the block, with learning rates ``(groups,)`` that may change."""
    before = [dict(group) for group in optimizer.param_groups]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group.update({**CAPTURED_BY[type(optimizer)], "lr": rate})
    for state in optimizer.state.values():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].to(rates.device, torch.float32)
    try:
        yield
    finally:
        for group, kept in zip(optimizer.param_groups, before, strict=True):
            group.update(kept)
