"""Checks that a temporal model keeps the laws on which training, padding and streaming rely."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError, valid_frames
from seqclf.models.classifier import FrameSequenceClassifier
from seqclf.models.contract import State, can_stream, check_result, declared_size, declares

CLIPS = 3
"""B of the random batches that the checks use."""


@dataclass(frozen=True)
class LawResult:
    """The result of one law.

    Attributes:
        law: its name.
        statement: what must hold.
        difference: the largest difference found, relative to the largest value; None where the law does not apply.
        passed: whether the difference is within the tolerance, or the law does not apply.
    """

    law: str
    statement: str
    difference: float | None
    passed: bool


@dataclass(frozen=True)
class TemporalReport:
    """What ``check_temporal`` found: one result per law. ``str()`` gives a table."""

    name: str
    results: tuple[LawResult, ...]

    @property
    def passed(self) -> bool:
        return all(result.passed for result in self.results)

    def __str__(self) -> str:
        def row(result: LawResult) -> str:
            if result.difference is None:
                return f"  {result.law:<10} does not apply"
            verdict = "holds" if result.passed else "BROKEN"
            return f"  {result.law:<10} {verdict:<7} largest difference {result.difference:.1e}"

        return "\n".join([self.name, *map(row, self.results)])


class _Subject:
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
        return check_result(self.module, self.module(x, is_first, state, lengths), x.shape)

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


def _shape(subject: _Subject) -> float:
    for frames in (subject.T, 1):
        subject(subject.features[:, :frames])
    return 0.0


def _gradients(subject: _Subject) -> float:
    x = subject.features.clone().requires_grad_()
    outputs, _ = subject(x)
    unused = torch.autograd.grad(outputs.sum(), [x, *subject.module.parameters()], allow_unused=True)
    return 0.0 if all(g is not None and g.isfinite().all() for g in unused) else float("inf")


def _padding(subject: _Subject) -> float | None:
    if subject.declares("equal_lengths"):
        return None
    valid = valid_frames(subject.lengths, subject.features.shape, subject.lengths.device)
    x = subject.features.where(valid[..., None], subject.garbage[0]).requires_grad_()
    clips = [(b, 0, n) for b, n in enumerate(subject.lengths.tolist())]
    gap = subject.compare_with_single_clips(subject(x, lengths=subject.lengths)[0], x, clips)
    return max(gap, _padding_in_training(subject, valid))


def _padding_in_training(subject: _Subject, valid: Tensor) -> float:
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


def _neighbours(subject: _Subject) -> float:
    x = subject.features.clone().requires_grad_()
    return subject.compare_with_single_clips(subject(x)[0], x, [(b, 0, subject.T) for b in range(CLIPS)])


def _resets(subject: _Subject) -> float:
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


def _causality(subject: _Subject) -> float | None:
    if not subject.declares("causal"):
        return None
    whole, _ = subject(subject.features)
    gaps = []
    for t in range(1, subject.T):
        changed = torch.cat([subject.features[:, :t], subject.garbage[0][:, t:]], 1)
        gaps.append(_gap([subject(changed)[0][:, :t]], [whole[:, :t]]))
    return max(gaps)


def _pieces(subject: _Subject, sizes: Sequence[int]) -> float:
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


def _streaming(subject: _Subject) -> float | None:
    return _pieces(subject, [1] * subject.T) if can_stream(subject.module) else None


def _state(subject: _Subject) -> float | None:
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


LAWS: dict[str, tuple[Callable[[_Subject], float | None], str]] = {
    "shape": (_shape, "it returns float outputs (B, T, out_features) and a state, for any T from 1"),
    "gradients": (_gradients, "the features and every parameter receive a finite gradient"),
    "padding": (_padding, "frames from lengths on have no influence: a padded clip gives what the clip alone gives"),
    "neighbours": (_neighbours, "the other clips of a batch have no influence"),
    "resets": (_resets, "a sequence that begins at is_first inside a clip gives what a clip of its own gives"),
    "causality": (_causality, "with causal = True, later frames have no influence"),
    "streaming": (_streaming, "frame by frame with the state carried gives what the whole sequence gives"),
    "state": (_state, "pieces of any size with the state carried give what the whole sequence gives"),
}
"""Each law: its check, which returns the largest difference or None where the law does not apply, and its statement."""


def check_temporal(
    module: nn.Module | Callable[[int], nn.Module],
    input_size: int,
    *,
    frames: int = 24,
    laws: Sequence[str] | None = None,
    tolerance: float = 1e-4,
    raise_error: bool = True,
) -> TemporalReport:
    """Checks a temporal model against the laws that training, prediction and streaming rely on.

    The check runs a copy of the module on small random batches, on the CPU and in evaluation mode (padding is checked
    in training mode, too). The module and the global random state stay as they are. The laws:

    - ``shape``: float outputs ``(B, T, out_features)`` and a state, for any T from 1.
    - ``gradients``: the features and every parameter receive a finite gradient.
    - ``padding``: frames from ``lengths`` on have no influence (skipped with ``equal_lengths = True``).
    - ``neighbours``: the other clips of a batch have no influence.
    - ``resets``: ``is_first`` inside a clip equals a clip that begins there.
    - ``causality``: later frames have no influence (if the module declares ``causal``).
    - ``streaming``: frame by frame equals the whole sequence (if it also declares ``carries_state`` or ``frame_wise``).
    - ``state``: pieces of any size equal the whole sequence (likewise).

    All but ``shape`` and ``causality`` compare outputs and gradients.

    Args:
        module: the temporal model, or a class or ``functools.partial`` that is called with ``input_size``.
        input_size: D, the features per frame.
        frames: T of the batches, at least 8; longer than the model's window or receptive field, if it has one.
        laws: names of the laws to check; None for all.
        tolerance: the largest difference allowed, relative to the largest value compared.
        raise_error: whether a broken law raises; if not, see ``passed`` of the report.

    Returns:
        a report with each law, whether it holds and the largest difference found; ``print`` shows it as a table.

    Raises:
        SeqclfError: the module breaks a law, cannot be copied, or fails when it is called; or a law is unknown.

    Example:
        >>> print(check_temporal(partial(LSTM, hidden=16), input_size=8))
    """
    names = list(LAWS) if laws is None else list(laws)
    for name in names:
        if name not in LAWS:
            raise SeqclfError(f"check_temporal: there is no law {name!r}; the laws are {', '.join(LAWS)}")
    if frames < 8:
        raise SeqclfError(f"check_temporal: frames must be at least 8, not {frames}")
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        subject = _subject(module if isinstance(module, nn.Module) else module(input_size), input_size, frames)
        results = tuple(_check(subject, name, tolerance) for name in names)
    report = TemporalReport(subject.name, results)
    if raise_error and not report.passed:
        raise SeqclfError(_broken(report))
    return report


def check_user_temporal(model: nn.Module) -> None:
    """Checks shape, padding and declared streaming of user-written temporal models, before training starts.

    Models of ``seqclf`` itself are skipped, and so is a model whose number of features is unknown before the first
    batch. Weights and the global random state stay as they are.

    Args:
        model: a ``FrameSequenceClassifier``; another model is not checked.

    Raises:
        SeqclfError: a temporal model breaks a law.
    """
    if not isinstance(model, FrameSequenceClassifier) or all(map(_made_of_our_parts, model.temporals)):
        return
    if declared_size(model.encoder) is None and model.frame_shape is None:
        return
    for temporal, input_size in zip(model.temporals, model.input_sizes(), strict=True):
        if not _made_of_our_parts(temporal):
            _check_user_temporal(temporal, input_size)


def _check_user_temporal(temporal: nn.Module, input_size: int) -> None:
    laws = ("shape", "padding", "streaming")
    report = check_temporal(temporal, input_size, laws=laws, raise_error=False)
    if not report.passed:
        hints = {
            "padding": "mask the padding by lengths, or declare equal_lengths = True if all clips have the same length",
            "streaming": "declare causal, carries_state and frame_wise only where they are true",
        }
        ways = "; ".join(hints[result.law] for result in report.results if not result.passed and result.law in hints)
        raise SeqclfError(f"{_broken(report)}: {ways} (seqclf.check_temporal repeats this check)")


def _made_of_our_parts(temporal: nn.Module) -> bool:
    """Whether all classes of a temporal model and its parts are those of seqclf and PyTorch, which the tests check."""
    return all(type(part).__module__.startswith(("seqclf.models.", "torch.nn.")) for part in temporal.modules())


def _broken(report: TemporalReport) -> str:
    """One sentence on the laws that a module breaks."""
    broken = [result for result in report.results if not result.passed]
    laws = "; ".join(f"{r.law} ({r.statement}), largest difference {r.difference:.2g}" for r in broken)
    return f"{report.name} breaks {'a law' if len(broken) == 1 else f'{len(broken)} laws'} of temporal models: {laws}"


def _subject(module: nn.Module, input_size: int, frames: int) -> _Subject:
    try:
        return _Subject(module, input_size, frames)
    except (RuntimeError, TypeError) as error:
        raise SeqclfError(f"{type(module).__name__} cannot be copied to be checked: {error}") from error


def _check(subject: _Subject, law: str, tolerance: float) -> LawResult:
    check, statement = LAWS[law]
    try:
        difference = check(subject)
    except SeqclfError:
        raise
    except Exception as error:  # user code
        raise SeqclfError(f"{subject.name} fails while the law {law!r} is checked: {error}") from error
    return LawResult(law, statement, difference, difference is None or difference <= tolerance)
