"""Trial runs of modules on blank input, to learn the sizes that they do not declare."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.models.contract import State, check_encoded, check_result, declared_size


def feature_size(encoder: nn.Module, preprocess: nn.Module, frame_shape: Sequence[int] | None) -> int:
    """D of an encoder: as it declares it, or found by encoding one blank frame.

    Raises:
        SeqclfError: it declares no ``out_features`` and ``frame_shape`` is unknown, or it fails.
    """
    size = declared_size(encoder)
    if size is not None:
        return size
    name = type(encoder).__name__
    if frame_shape is None:
        raise SeqclfError(f"FrameSequenceClassifier needs frame_shape= to find out_features of the encoder {name}")
    blank = torch.zeros(1, *frame_shape, device=_device(encoder))
    return check_encoded(encoder, _run(encoder, lambda: encoder(preprocess(blank))), 1).shape[1]


def hidden_size(temporal: nn.Module, input_size: Callable[[], int]) -> int:
    """H of a temporal model that reads ``input_size()`` features: as it declares it, or found by running it."""
    size = declared_size(temporal)
    return _run_temporal(temporal, 2, 8, input_size())[0].shape[2] if size is None else size


def state_example(temporal: nn.Module, input_size: int) -> State:
    """A state of a temporal model that reads ``input_size`` features, for one stream."""
    return _run_temporal(temporal, 1, 1, input_size)[1]


def _run_temporal(temporal: nn.Module, B: int, T: int, input_size: int) -> tuple[Tensor, State]:
    blank = torch.zeros(B, T, input_size, device=_device(temporal))
    return check_result(temporal, _run(temporal, lambda: temporal(blank)), blank.shape)


def _device(module: nn.Module) -> torch.device | None:
    """Where the module's parameters are; None if it has none."""
    return next((p.device for p in module.parameters()), None)


def _run(module: nn.Module, call: Callable[[], object]) -> object:
    """Makes a call of the module in evaluation mode, without gradients."""
    modes = [(part, part.training) for part in module.modules()]  # some may be frozen
    module.eval()
    try:
        with torch.no_grad():
            return call()
    except Exception as error:
        name = type(module).__name__
        raise SeqclfError(f"{name} failed in the trial run that finds its out_features or state: {error}") from error
    finally:
        for part, training in modes:
            part.training = training
