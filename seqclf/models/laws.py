"""The laws of temporal models: each is a function that compares runs of a module on random batches."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError, valid_frames
from seqclf.models.contract import State, can_stream, check_result, declares

CLIPS = 3
"""B of the random batches."""


class Subject:
    """A copy of a module on the CPU in evaluation mode, with a random batch to run it on."""

    def __init__(self, module: nn.Module, input_size: int, frames: int) -> None:
        self.module = copy.deepcopy(module).cpu().eval().requires_grad_(True)
        self.name = type(module).__name__
        self.T = frames
        self.lengths = torch.tensor([frames, frames // 2, 1])
        self.features = torch.randn(CLIPS, frames, input_size)
        self.garbage = 10 * torch.randn(2, CLIPS, frames, input_size)
        self.is_first = torch.zeros(CLIPS, frames, dtype=torch.bool)
        self.is_first[0, frames // 3] = self.is_first[0, frames // 3 + 1] = self.is_first[2, frames - 3] = True
        self.weight: Tensor | None = None

    def declares(self, flag: str) -> bool:
        return declares(self.module, flag)

    def __call__(
        self, x: Tensor, is_first: Tensor | None = None, state: State = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, State]:
        outputs, after = check_result(self.module, self.module(x, is_first, state, lengths), x.shape)
        if outputs.dtype != x.dtype:
            raise SeqclfError(f"{self.name} must return {x.dtype} outputs for {x.dtype} features, not {outputs.dtype}")
        return outputs, after

    def gradients(self, outputs: Tensor, x: Tensor, start: int = 0, clip: slice = slice(None)) -> list[Tensor]:
        """Gradients of x and the parameters for outputs ``(b, t, H)``: those of frames from ``start`` of some clips."""
        if self.weight is None:
            self.weight = torch.randn(CLIPS, self.T, outputs.shape[-1])
        loss = (outputs * self.weight[clip, start : start + outputs.shape[1]]).sum()
        leaves = [x, *self.module.parameters()]
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(leaves, found, strict=True)]

    def clip(self, b: int, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """A clip ``(1, t, D)`` that needs gradients, and its outputs when it is run on its own."""
        x = self.features[b : b + 1, start:stop].clone().requires_grad_()
        return x, self(x)[0]

    def compare_with_single_clips(self, outputs: Tensor, x: Tensor, clips: Sequence[tuple[int, int, int]]) -> float:
        """Compares frames of a batch with clips (b, start, stop) run on their own: outputs and gradients."""
        together, alone = [], []
        total: list[Tensor] = []
        valid = torch.zeros(CLIPS, self.T, 1)
        for b, start, stop in clips:
            single, expected = self.clip(b, start, stop)
            together.append(outputs[b : b + 1, start:stop])
            alone.append(expected)
            valid[b, start:stop] = 1
            d_x, *d_parameters = self.gradients(expected, single, start, slice(b, b + 1))
            d_whole = torch.zeros_like(x)
            d_whole[b : b + 1, start:stop] = d_x
            new = [d_whole, *d_parameters]
            total = [a + b for a, b in zip(total, new, strict=True)] if total else new
        return max(_gap(together, alone), _gap(self.gradients(outputs * valid, x), total))


def _gap(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference, relative to the largest expected value; infinite where a value is not finite."""
    pairs = [(a.detach(), b.detach()) for a, b in zip(found, expected, strict=True) if a.numel()]
    difference = max((float((a - b).abs().max()) for a, b in pairs), default=0.0)
    scale = max((float(b.abs().max()) for _, b in pairs), default=0.0)
    gap = difference / scale if scale > 0 else difference
    return gap if gap == gap else float("inf")


def _shape(subject: Subject) -> float:
    for frames in (subject.T, 1):
        subject(subject.features[:, :frames])
    return 0.0


def _gradients(subject: Subject) -> float:
    x = subject.features.clone().requires_grad_()
    outputs, _ = subject(x)
    unused = torch.autograd.grad(outputs.sum(), [x, *subject.module.parameters()], allow_unused=True)
    return 0.0 if all(g is not None and g.isfinite().all() for g in unused) else float("inf")


def _padding(subject: Subject) -> float | None:
    if subject.declares("equal_lengths"):
        return None
    valid = valid_frames(subject.lengths, subject.features.shape, subject.lengths.device)
    x = subject.features.where(valid[..., None], subject.garbage[0]).requires_grad_()
    clips = [(b, 0, n) for b, n in enumerate(subject.lengths.tolist())]
    gap = subject.compare_with_single_clips(subject(x, lengths=subject.lengths)[0], x, clips)
    return max(gap, _padding_in_training(subject, valid))


def _padding_in_training(subject: Subject, valid: Tensor) -> float:
    """Two batches that differ in their padding only, with the same random numbers for dropout."""
    runs = []
    for garbage in subject.garbage:
        trained = copy.copy(subject)
        trained.module = copy.deepcopy(subject.module).train()
        x = subject.features.where(valid[..., None], garbage).requires_grad_()
        torch.manual_seed(0)
        outputs, _ = trained(x, lengths=subject.lengths)
        buffers = [buffer for buffer in trained.module.buffers() if buffer.is_floating_point()]
        runs.append([outputs[valid], *trained.gradients(outputs * valid[..., None], x), *buffers])
    return _gap(*runs)


def _neighbours(subject: Subject) -> float:
    x = subject.features.clone().requires_grad_()
    return subject.compare_with_single_clips(subject(x)[0], x, [(b, 0, subject.T) for b in range(CLIPS)])


def _resets(subject: Subject) -> float:
    x = subject.features.clone().requires_grad_()
    clips = []
    for b in range(CLIPS):
        starts = [0, *(subject.is_first[b].nonzero()[:, 0].tolist()), subject.T]
        clips += [(b, start, stop) for start, stop in pairwise(starts)]
    state: State = None
    if subject.declares("carries_state"):
        _, state = subject(subject.features)
    is_first = subject.is_first.clone()
    is_first[:, 0] = True
    return subject.compare_with_single_clips(subject(x, is_first, state)[0], x, clips)


def _causality(subject: Subject) -> float | None:
    if not subject.declares("causal"):
        return None
    whole, _ = subject(subject.features)
    gaps = []
    for t in range(1, subject.T):
        changed = torch.cat([subject.features[:, :t], subject.garbage[0][:, t:]], 1)
        gaps.append(_gap([subject(changed)[0][:, :t]], [whole[:, :t]]))
    return max(gaps)


def _pieces(subject: Subject, sizes: Sequence[int]) -> float:
    """Pieces of the batch with the state carried, against the whole: outputs and gradients, with and without resets."""
    gaps = []
    for is_first in (None, subject.is_first):
        x = subject.features.clone().requires_grad_()
        outputs, state = [], None
        for start, piece in zip(torch.tensor([0, *sizes]).cumsum(0).tolist(), sizes, strict=False):
            window = slice(start, start + piece)
            y, state = subject(x[:, window], None if is_first is None else is_first[:, window], state)
            outputs.append(y)
            state = state if subject.declares("carries_state") else None
        pieces = torch.cat(outputs, 1)
        whole, _ = subject(x, is_first)
        gaps += [_gap([pieces], [whole]), _gap(subject.gradients(pieces, x), subject.gradients(whole, x))]
    return max(gaps)


def _streaming(subject: Subject) -> float | None:
    return _pieces(subject, [1] * subject.T) if can_stream(subject.module) else None


def _state(subject: Subject) -> float | None:
    if not can_stream(subject.module):
        return None
    gap = _pieces(subject, [3, 1, subject.T - 4])
    if subject.declares("equal_lengths") or not subject.declares("carries_state"):
        return gap
    lengths = torch.tensor([5, 2, 4])
    _, state = subject(subject.features[:, :5], lengths=lengths)
    following = torch.stack([subject.features[b, n : n + 3] for b, n in enumerate(lengths.tolist())])
    continued, _ = subject(following, state=state)
    whole, _ = subject(subject.features)
    expected = torch.stack([whole[b, n : n + 3] for b, n in enumerate(lengths.tolist())])
    return max(gap, _gap([continued], [expected]))


LAWS: dict[str, tuple[Callable[[Subject], float | None], str]] = {
    "shape": (_shape, "it returns float outputs (B, T, out_features) and a state, for any T from 1"),
    "gradients": (_gradients, "the features and every parameter receive a finite gradient"),
    "padding": (_padding, "padding has no influence: a padded clip equals the same clip without padding"),
    "neighbours": (_neighbours, "the other clips of a batch have no influence"),
    "resets": (_resets, "a sequence that begins at is_first inside a clip equals the same sequence as a separate clip"),
    "causality": (_causality, "with causal = True, later frames have no influence"),
    "streaming": (_streaming, "frame by frame, with the state carried, equals the whole sequence"),
    "state": (_state, "pieces of any size, with the state carried, equal the whole sequence"),
}
"""Each law: its check, which returns the largest difference or None where the law does not apply, and its statement."""
