"""Classification of one frame at a time, without the checks and computations that are the same at every frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

from seqclf.models.classifier import FrameSequenceClassifier
from seqclf.models.contract import State
from seqclf.models.preprocess import Normalize
from seqclf.models.recurrent import GRU, LSTM, RNN

Step: TypeAlias = Callable[[Tensor, State], tuple[Tensor, State]]
"""Takes frames ``(B, *frame_shape)`` and a state; returns logits ``(B, K)`` and the state after these frames."""


def frame_step(model: nn.Module, frames: Tensor) -> Step:
    """Returns a function that gives the same results as calls of the model with one frame per stream.

    For a small recurrent model on a CPU, the calls and checks take longer than the computation of a frame. For such
    models, the function leaves them out, and computes the scale and offset of ``Normalize`` once. Other models, and
    modules with forward hooks, are called as usual.

    Args:
        model: the model, in evaluation mode. Call ``frame_step`` again after changing it.
        frames: frames ``(B, *frame_shape)`` that the model has classified. The function takes frames of the same
            shape, dtype and device, and the state that the model returned.
    """

    def whole(frames: Tensor, state: State) -> tuple[Tensor, State]:
        logits, state = model(frames[:, None], state=state)
        return logits[:, 0], state

    if not _is_small(model, frames):
        return whole
    net: Any = model
    preprocess, encoder, temporal, head = net.preprocess, net.encoder, net.temporal, net.head
    prepared = preprocess.prepared(frames) if type(preprocess) is Normalize else preprocess
    hooks = [_global_forward_hooks, _global_forward_pre_hooks]
    for module in (model, preprocess, temporal):  # ``step`` does not call these modules, so their hooks would not run
        hooks += [module._forward_hooks, module._forward_pre_hooks]

    def step(frames: Tensor, state: State) -> tuple[Tensor, State]:
        if any(hooks):
            return whole(frames, state)
        hidden, state = temporal.step(encoder(prepared(frames)), state)
        return head(hidden), state

    return step


def _is_small(model: nn.Module, frames: Tensor) -> bool:
    """Whether calls and checks may take longer than the computation: for a recurrent model on a CPU.

    Subclasses are called as usual, because they may have their own ``forward``.
    """
    if type(model) is not FrameSequenceClassifier or len(model.refine) or model.channels_last:
        return False
    if frames.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    return type(model.temporal) in (LSTM, GRU, RNN) and not model.temporal.training
