"""Checks that a temporal model keeps the laws on which training, padding and streaming rely."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from seqclf.batch import SeqclfError
from seqclf.models.classifier import FrameSequenceClassifier
from seqclf.models.contract import build_part, declared_size
from seqclf.models.laws import LAWS, Subject


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
    in training mode, too). The module and the global random state are not changed. The laws:

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
        SeqclfError: the module breaks a law, cannot be built or copied, or fails when it is called; or a law is
            unknown.

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
        subject = _subject(build_part("check_temporal", module, input_size), input_size, frames)
        results = tuple(_check(subject, name, tolerance) for name in names)
    report = TemporalReport(subject.name, results)
    if raise_error and not report.passed:
        raise SeqclfError(_broken(report))
    return report


def check_user_temporal(model: nn.Module) -> None:
    """Checks shape, padding and declared streaming of user-written temporal models, before training starts.

    Models of ``seqclf`` itself are skipped, and so is a model whose number of features is unknown before the first
    batch. Weights and the global random state are not changed.

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
    """Whether a temporal model is of seqclf, and its parts of seqclf or PyTorch, so that the tests check it."""
    ours = type(temporal).__module__.startswith("seqclf.models.")
    return ours and all(
        type(part).__module__.startswith(("seqclf.models.", "torch.nn.")) for part in temporal.modules()
    )


def _broken(report: TemporalReport) -> str:
    """One sentence on the laws that a module breaks."""
    broken = [result for result in report.results if not result.passed]
    laws = "; ".join(f"{r.law} ({r.statement}), largest difference {r.difference:.2g}" for r in broken)
    return f"{report.name} breaks {'a law' if len(broken) == 1 else f'{len(broken)} laws'} of temporal models: {laws}"


def _subject(module: nn.Module, input_size: int, frames: int) -> Subject:
    try:
        return Subject(module, input_size, frames)
    except (RuntimeError, TypeError) as error:
        raise SeqclfError(f"{type(module).__name__} cannot be copied to be checked: {error}") from error


def _check(subject: Subject, law: str, tolerance: float) -> LawResult:
    check, statement = LAWS[law]
    try:
        difference = check(subject)
    except SeqclfError:
        raise
    except Exception as error:  # user code
        called = "; a temporal model is called as temporal(features, is_first, state, lengths)"
        hint = called if isinstance(error, TypeError) else ""
        raise SeqclfError(f"{subject.name} fails while the law {law!r} is checked: {error}{hint}") from error
    return LawResult(law, statement, difference, difference is None or difference <= tolerance)
