"""Small temporal models and random batches for the tests of ``seqclf.models``."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from unittest.mock import patch

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from seqclf.models import (
    GRU,
    LSTM,
    RNN,
    TCN,
    Attention,
    FrameSequenceClassifier,
    Identity,
    Pool,
    TemporalChain,
    orthogonal,
)


def in_stages(D: int, temporal: Callable[[int], nn.Module], *refine: Callable[[int], nn.Module]) -> nn.Module:
    """A classifier with refinement stages, which as a whole keeps the laws of temporal models."""
    net = FrameSequenceClassifier(temporal=temporal, refine=refine, frame_shape=(D,), num_classes=3)
    net.out_features = 3
    return net


class OperatorLSTM(LSTM):
    """An LSTM without the kernel of the extra ``fast``."""

    def forward(self, *args, **kwargs):
        with patch.dict(os.environ, SEQCLF_FUSED="0"):
            return super().forward(*args, **kwargs)


STAGE = partial(TCN, channels=(6,) * 3, block="dilated_residual")
MODELS: dict[str, Callable[[int], nn.Module]] = {
    "identity": Identity,
    "lstm": partial(LSTM, hidden=6),
    "lstm, 3 layers, dropout": partial(LSTM, hidden=6, layers=3, dropout=0.5, dropout_after=0.5, init=orthogonal),
    "lstm, 3 layers, dropout, by operators": partial(OperatorLSTM, hidden=6, layers=3, dropout=0.5, dropout_after=0.5),
    "gru, 2 layers": partial(GRU, hidden=6, layers=2),
    "rnn, 2 layers": partial(RNN, hidden=6, layers=2),
    "rnn, relu": partial(RNN, hidden=6, nonlinearity="relu"),
    "lstm, residual": partial(LSTM, hidden=6, layers=3, residual=True, dropout=0.3),
    "gru, all options": partial(GRU, hidden=6, layers=2, residual=True, layer_norm=True, projection=True),
    "lstm, bidirectional": partial(LSTM, hidden=4, layers=2, bidirectional=True, dropout=0.3),
    "gru, bidirectional": partial(GRU, hidden=4, bidirectional=True),
    "rnn, bidirectional, all options": partial(
        RNN, hidden=3, layers=2, bidirectional=True, residual=True, layer_norm=True, projection=True
    ),
    "pool, mean": Pool,
    "pool, max": partial(Pool, kind="max"),
    "pool, attention": partial(Pool, kind="attention"),
    "attention": partial(Attention, hidden=8, heads=2, window=4),
    "attention, window around": partial(Attention, hidden=8, heads=2, window=5, causal=False, dropout=0.5),
    "attention, all frames": partial(Attention, hidden=4, layers=1, heads=1, window=None, causal=False),
    "tcn": partial(TCN, channels=(6, 6, 4), kernel=(2, 3, 1), norm="layer", dropout=0.5),
    "tcn, whole": partial(TCN, channels=(6, 6), kernel=(3, 4), causal=False, norm="batch"),
    "stage of MS-TCN": partial(STAGE, causal=False, dropout=0.5),
    "stage of MS-TCN, causal": partial(STAGE, norm="batch"),
    "fcn": partial(TCN, channels=(6, 8, 6), kernel=(8, 5, 3), block="conv", causal=False, norm="batch"),
    "MS-TCN": lambda D: in_stages(D, partial(STAGE, causal=False), partial(STAGE, causal=False)),
    "stages that stream": lambda D: in_stages(D, partial(GRU, hidden=4), STAGE, Identity, partial(LSTM, hidden=4)),
    "lstm, then attention pool": partial(
        TemporalChain, parts={"lstm": partial(LSTM, hidden=6), "pool": partial(Pool, kind="attention")}
    ),
    "single frames, then tcn, then gru": partial(
        TemporalChain,
        parts={"frame": Identity, "tcn": partial(TCN, channels=(6, 4)), "gru": partial(GRU, hidden=5, layers=2)},
    ),
    "fcn, then mean pool": partial(
        TemporalChain,
        parts={"fcn": partial(TCN, channels=(6, 6), block="conv", causal=False, norm="batch"), "pool": Pool},
    ),
    "tcn, whole, then pools": partial(
        TemporalChain,
        parts={
            "tcn": partial(TCN, channels=(6,), causal=False),
            "max": partial(Pool, kind="max"),
            "attention": partial(Pool, kind="attention"),
        },
    ),
    "single frames in a chain": partial(TemporalChain, parts={"one": Identity, "two": Identity}),
}
"""Every temporal model, built from D. The laws are tested on each: in test_temporal_models.py and by check_temporal."""

OURS = {
    "lstm": LSTM,
    "gru": GRU,
    "rnn_tanh": partial(RNN, nonlinearity="tanh"),
    "rnn_relu": partial(RNN, nonlinearity="relu"),
}
TORCH = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn_tanh": partial(nn.RNN, nonlinearity="tanh"),
    "rnn_relu": partial(nn.RNN, nonlinearity="relu"),
}
KINDS = list(OURS)
every_depth = pytest.mark.parametrize("layers", [1, 2, 3])
quick = partial(settings, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)


def make(kind: str, layers: int = 2, D: int = 5, H: int = 4, seed: int = 0, **kwargs) -> nn.Module:
    torch.manual_seed(seed)
    return OURS[kind](D, H, layers, **kwargs)


def random_state(kind: str, layers: int, B: int, H: int = 4):
    h = [torch.randn(layers, B, H) for _ in range(2 if kind == "lstm" else 1)]
    return tuple(h) if kind == "lstm" else h[0]


def gradients(loss: Tensor, net: nn.Module, *more: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [*net.parameters(), *more]))


def equal_with_gradients(*cases, leaves):
    """Asserts that all cases (module, outputs) have the same outputs and gradients, of the module and the leaves."""
    results = []
    for net, outputs in cases:
        loss = sum((out * torch.linspace(-1, 2, out.numel()).view_as(out)).sum() for out in outputs)
        results.append([*outputs, *gradients(loss, net, *leaves)])
    for *found, expected in zip(*results, strict=True):
        for out in found:
            close(out, expected)


def bools(*shape: int) -> Tensor:
    return torch.rand(shape) < 0.3


@st.composite
def cases(draw, with_lengths=True):
    """A recurrent model and a batch with or without resets, state and lengths."""
    kind, layers = draw(st.sampled_from(KINDS)), draw(st.integers(1, 3))
    B, T = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    is_first = state = lengths = None
    if draw(st.booleans()):
        row = st.lists(st.booleans(), min_size=T, max_size=T)
        is_first = torch.tensor(draw(st.lists(row, min_size=B, max_size=B)))
    if with_lengths and draw(st.booleans()):
        lengths = torch.tensor(draw(st.lists(st.integers(1, T), min_size=B, max_size=B)))
    net = make(kind, layers, seed=draw(st.integers(0, 1000)))
    if draw(st.booleans()):
        state = random_state(kind, layers, B)
    return kind, net, torch.randn(B, T, 5), is_first, state, lengths


def classifier(kind: str = "lstm", frame_shape=(3,), num_classes: int = 4, **kwargs) -> FrameSequenceClassifier:
    torch.manual_seed(3)
    temporal = Identity if kind == "identity" else partial(OURS[kind], hidden=4, layers=2, **kwargs)
    return FrameSequenceClassifier(temporal=temporal, frame_shape=frame_shape, num_classes=num_classes)
