"""``Attention``: its formula, its window, and streams of any length. The laws are in test_temporal_models.py."""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from temporal_models import bools, close
from torch import Tensor

from seqclf import Attention, SeqclfError

D = 5
small = partial(Attention, D, hidden=8, heads=2)


def formula(net: Attention, x: Tensor, is_first: Tensor) -> Tensor:
    """The blocks with a mask of all pairs of frames, and rotations by the position in the clip as complex numbers."""
    T = x.shape[1]
    sequence, t = is_first.long().cumsum(1), torch.arange(T)
    mask = sequence[:, :, None] == sequence[:, None]
    if net.window is not None:
        ahead = t - t[:, None]
        mask &= (ahead <= 0) & (ahead > -net.window) if net.causal else ahead.abs() <= net.window // 2
    x = net.project(x)
    for block in net.blocks:
        q, k, v = (
            part.unflatten(-1, (block.heads, -1)) for part in block.qkv(block.norm_attention(x)).chunk(3, dim=-1)
        )
        half = q.shape[-1] // 2
        turn = torch.polar(torch.ones(()), t[:, None, None] * 10000.0 ** (-torch.arange(half) / half))
        q, k = (torch.complex(part[..., :half], part[..., half:]) * turn for part in (q, k))
        scores = torch.einsum("bihd,bjhd->bhij", q, k.conj()).real / (2 * half) ** 0.5
        weights = scores.masked_fill(~mask[:, None], -torch.inf).softmax(-1)
        x = x + block.out(torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2))
        x = x + block.mlp(block.norm_mlp(x))
    return net.norm(x)


@pytest.mark.parametrize(
    "settings",
    [{"window": 2}, {"window": 5, "layers": 3}, {"window": 30}, {"window": 7, "causal": False},
     {"window": None, "causal": False}],
)  # fmt: skip
@pytest.mark.parametrize("T", [1, 5, 23])
def test_it_computes_its_formula(settings, T):
    torch.manual_seed(0)
    net, x, is_first = small(**settings), torch.randn(3, T, D), bools(3, T) & torch.tensor([[True], [True], [False]])
    close(net(x, is_first)[0], formula(net, x, is_first))
    close(net(x)[0], formula(net, x, torch.zeros_like(is_first)))


def test_each_layer_extends_the_reach_by_the_window():
    torch.manual_seed(0)
    net, x = small(layers=3, window=4), torch.randn(1, 20, D, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x)[0][0, -1].square().sum(), x)
    reached = gradient[0].abs().sum(1) > 0
    assert reached.sum() == 3 * (4 - 1) + 1 and reached[-10:].all()


@torch.no_grad()
def test_a_long_stream_equals_a_fresh_window_and_its_state_does_not_grow():
    torch.manual_seed(0)
    net, x = small(window=6), torch.randn(100_000, D)
    state = None
    for piece in x.split(20_000):
        y, state = net(piece[None], state=state)
        assert [part.shape for part in state] == [(2, 1, 5, 8), (2, 1, 5, 8), (1, 1)]
    last = x[-11:]  # all that the last frame depends on
    torch.testing.assert_close(y[0, -1], net(last[None])[0][0, -1], rtol=0, atol=2e-6)


@pytest.mark.parametrize("settings", [{"window": 8}, {"window": 9, "causal": False}])
def test_memory_grows_linearly_with_the_frames(settings, monkeypatch):
    def attend(q, k, v, mask):
        sizes.append(max(q.numel(), k.numel(), v.numel(), mask.numel()))
        return q

    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    sizes: list[int] = []
    for T in (720, 1440):
        small(layers=1, **settings)(torch.randn(1, T, D))
    assert sizes[1] == 2 * sizes[0] < 1440 * 1440 / 8


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"hidden": 10}, "hidden.*4.*10"),
        ({"layers": 0}, "layers.*0"),
        ({"heads": 0}, "heads.*0"),
        ({"window": None}, "window.*None"),
        ({"window": 1}, "window.*1"),
        ({"window": 4, "causal": False}, "window.*odd.*4"),
        ({"dropout": 1.0}, r"dropout.*1\.0"),
    ],
)
def test_a_wrong_setting_is_named(settings, named):
    with pytest.raises(SeqclfError, match=named):
        small(**settings)


@pytest.mark.parametrize("causal", [False, True])
def test_outputs_at_padding_are_zero(causal):
    outputs, _ = small(window=3, causal=causal)(torch.randn(2, 4, D), lengths=torch.tensor([4, 1]))
    assert outputs[1, 1:].eq(0).all() and outputs[1, 0].ne(0).any() and outputs[0].ne(0).any(1).all()


def test_a_wrong_input_is_named():
    net, x = small(), torch.randn(2, 3, D)
    with pytest.raises(SeqclfError, match=r"\(B, T, 5\).*\(2, 3, 4\)"):
        net(x[..., :4])
    with pytest.raises(SeqclfError, match=r"state.*\(2, 2, 63, 8\).*\(2, 1, 63, 8\)"):
        net(x, state=net(x[:1])[1])
    with pytest.raises(SeqclfError, match="causal=False"):
        small(window=None, causal=False)(x, state=net(x)[1])
