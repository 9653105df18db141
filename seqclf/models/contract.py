"""What every temporal model declares and returns, and the errors for a module that does not keep to it.

A temporal model is called as ``outputs, state = temporal(features, is_first, state, lengths)`` with features
``(B, T, D)`` and outputs ``(B, T, H)``. It declares, as attributes of the class or the instance:

- ``causal: bool``: the output at frame t depends on frames up to t only.
- ``carries_state: bool``: the returned state, passed to the next call, continues the sequence.
- ``frame_wise: bool``: each frame is processed on its own, so that there is no state to carry.
- ``equal_lengths: bool``: it ignores ``lengths``, so that batches with padding are refused.
- ``out_features: int``: H; if undeclared, a trial run finds it.

An undeclared flag counts as False: such a module always gets whole sequences, and may get padding.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.runtime.text import unknown_argument

State: TypeAlias = "Tensor | tuple[Tensor, ...] | None"
"""What a temporal model remembers: a tensor or several, each ``(N, B, ...)`` with any N, such as h and c of
``torch.nn.LSTM``, ``(layers, B, H)``. Zeros must mean the same as None: a new sequence begins."""


def parts_of(state: State) -> tuple[Tensor, ...]:
    """The tensors of a state; none for None."""
    return state if isinstance(state, tuple) else () if state is None else (state,)


def detached(state: State) -> State:
    """The state without its gradient, as truncated back-propagation carries it from window to window."""
    if isinstance(state, tuple):
        return tuple(part.detach() for part in state)
    return None if state is None else state.detach()


def declares(module: nn.Module, flag: str) -> bool:
    """Whether the module declares a flag, such as ``causal`` or ``streams``, as True.

    Raises:
        SeqclfError: the attribute is not a bool.
    """
    value = getattr(module, flag, False)
    if not isinstance(value, bool):
        raise SeqclfError(f"{type(module).__name__}.{flag} must be True or False, not {value!r}")
    return value


def declared_size(module: nn.Module) -> int | None:
    """The module's ``out_features``; None where it declares none."""
    size = getattr(module, "out_features", None)
    return size if isinstance(size, int) else None


def build_part(owner: str, part: nn.Module | Callable[..., nn.Module], size: int | Sequence[int]) -> nn.Module:
    """A part of a model, built with the size of its input if it is a class or a function.

    Args:
        owner: what the part is given to; the first word of errors.
        part: a module, or a class, function or ``functools.partial`` that returns one.
        size: the argument of the call.

    Raises:
        SeqclfError: the call fails, or returns no module.
    """
    if isinstance(part, nn.Module):
        return part
    if not callable(part):
        raise SeqclfError(f"{owner} must be a module, or a class or function that returns one, not {part!r}")
    name = getattr(getattr(part, "func", part), "__name__", type(part).__name__)
    try:
        module = part(size)
    except SeqclfError:
        raise
    except Exception as error:  # user code
        reason = unknown_argument(part) or f"{name}({size}) fails: {type(error).__name__}: {error}"
        raise SeqclfError(f"{owner}: {reason}") from error
    if not isinstance(module, nn.Module):
        raise SeqclfError(f"{owner}: {name}({size}) must return a module, not {_describe(module)}")
    return module


def check_counts(owner: str, **counts: object) -> None:
    """Raises SeqclfError unless these arguments of ``owner`` are integers of at least 1."""
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise SeqclfError(f"{owner}: {name} must be an integer of at least 1, not {count!r}")


def check_dropout(owner: str, **probabilities: object) -> None:
    """Raises SeqclfError unless these arguments of ``owner`` are probabilities below 1."""
    for name, p in probabilities.items():
        if not isinstance(p, int | float) or not 0 <= p < 1:
            raise SeqclfError(f"{owner}: {name} must be a number of at least 0 and below 1, not {p!r}")


def check_arguments(model: nn.Module) -> None:
    """Raises SeqclfError unless a model of clips takes the arguments with which training and evaluation call it."""
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):  # not a Python function
        return
    try:
        signature.bind(None, None, None, lengths=None)
    except TypeError as error:
        raise SeqclfError(
            f"setting model: {type(model).__name__}.forward {error}: a model takes (frames, is_first=None, state=None, "
            "lengths=None) and returns (logits (B, T, K), state); FrameSequenceClassifier makes one from an encoder "
            "and a temporal model"
        ) from None


def can_stream(temporal: nn.Module) -> bool:
    """Whether a temporal model may be fed frame by frame: frame-wise, or causal with a state that is carried."""
    return declares(temporal, "causal") and (declares(temporal, "carries_state") or declares(temporal, "frame_wise"))


def require_streaming(model: nn.Module, what: str) -> None:
    """Raises SeqclfError unless the model may be fed a sequence piece by piece.

    Args:
        model: a ``FrameSequenceClassifier``, or another model that declares ``streams``.
        what: what needs it; the first words of the message, such as ``"truncate=16"``.
    """
    if declares(model, "streams"):
        return
    temporals: list[nn.Module] = getattr(model, "temporals", None) or [getattr(model, "temporal", model)]
    temporal = next((t for t in temporals if not can_stream(t)), temporals[0])
    flags = [f"{flag} = False" for flag in ("causal", "carries_state") if not declares(temporal, flag)]
    raise SeqclfError(
        f"{what} needs a model that continues a sequence from its state, but this {type(temporal).__name__} has "
        f"{' and '.join(flags) or 'streams = False'}: give it whole sequences, or declare the flags if your module can "
        "continue a sequence (seqclf.check_temporal verifies them)"
    )


def check_features(
    module: nn.Module, features: Tensor, size: int, is_first: Tensor | None, lengths: Tensor | None
) -> None:
    """Raises SeqclfError unless a temporal model gets features ``(B, T, size)``, and is_first and lengths that fit."""
    name = type(module).__name__
    if features.dim() != 3 or features.shape[-1] != size:
        raise SeqclfError(f"{name} expects features (B, T, {size}), not {tuple(features.shape)}")
    if features.shape[0] == 0 or features.shape[1] == 0:
        raise SeqclfError(f"{name} needs at least one clip of one frame, not features {tuple(features.shape)}")
    check_sequences(features.shape[:2], is_first, lengths)


def check_sequences(shape: Sequence[int], is_first: Tensor | None, lengths: Tensor | None) -> None:
    """Raises SeqclfError unless is_first and lengths fit a batch of ``shape`` (B, T)."""
    B, T = shape
    if is_first is not None and (is_first.shape != (B, T) or is_first.dtype != torch.bool):
        raise SeqclfError(f"is_first must be bool ({B}, {T}), not {is_first.dtype} {tuple(is_first.shape)}")
    if lengths is None:
        return
    whole = not lengths.is_floating_point() and lengths.shape == (B,)
    counts = lengths.tolist()
    if not whole or (B > 0 and not 1 <= min(counts) <= max(counts) <= T):
        raise SeqclfError(f"lengths must be {B} whole numbers from 1 to {T}, not {counts}")


def check_result(module: nn.Module, result: object, shape: Sequence[int]) -> tuple[Tensor, State]:
    """Checks what a temporal model returned for features of ``shape`` (B, T, D); returns outputs and state.

    Raises:
        SeqclfError: the result is not a pair of float outputs ``(B, T, H)`` and a state.
    """
    name, (B, T) = type(module).__name__, shape[:2]
    if not isinstance(result, tuple) or len(result) != 2:
        raise SeqclfError(f"{name} must return a tuple (outputs, state), not {_describe(result)}")
    outputs, state = result
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
        raise SeqclfError(f"{name} must return float outputs ({B}, {T}, H), not {_describe(outputs)}")
    size = declared_size(module)
    if outputs.dim() != 3 or outputs.shape[:2] != (B, T) or (size is not None and outputs.shape[2] != size):
        expected = f"({B}, {T}, {'H' if size is None else size})"
        reason = "" if size is None else f", as out_features = {size} declares"
        raise SeqclfError(
            f"{name} must return outputs {expected}{reason}, not {tuple(outputs.shape)}, for features {tuple(shape)}"
        )
    parts = state if type(state) is tuple else () if state is None else (state,)  # a named tuple would lose its names
    if not all(isinstance(part, Tensor) for part in parts):
        raise SeqclfError(
            f"{name} must return a state that is a tensor, a plain tuple of tensors or None, not {_describe(state)}"
        )
    if not parts and declares(module, "carries_state"):
        raise SeqclfError(f"{name} declares carries_state = True, but returns no state")
    return outputs, state


def check_encoded(module: nn.Module, encoded: object, frames: int) -> Tensor:
    """Checks what an encoder returned for this number of frames; returns features ``(frames, D)``.

    Raises:
        SeqclfError: the result is not float features ``(frames, D)``.
    """
    name, size = type(module).__name__, declared_size(module)
    if not isinstance(encoded, Tensor) or not encoded.is_floating_point():
        raise SeqclfError(f"the encoder {name} must return float features ({frames}, D), not {_describe(encoded)}")
    if encoded.dim() != 2 or encoded.shape[0] != frames or (size is not None and encoded.shape[1] != size):
        expected = f"({frames}, {'D' if size is None else size})"
        raise SeqclfError(f"the encoder {name} must return features {expected}, not {tuple(encoded.shape)}")
    return encoded


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, tuple):
        kinds = ", ".join(dict.fromkeys(type(part).__name__ for part in value))
        return f"{'a tuple' if type(value) is tuple else type(value).__name__} of {len(value)} ({kinds})"
    return f"{type(value).__name__}"
