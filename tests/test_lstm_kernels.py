"""The kernels behind the recurrent models: packing, the LSTM layer for the CPU, the padded LSTM."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from temporal_models import (
    equal_with_gradients,
    gradients,
    make,
    quick,
    random_state,
)
from torch import Tensor, nn

from seqclf import GRU, LSTM, RNN, SeqclfError
from seqclf.benchmark.ragged import overhead
from seqclf.models.kernels.cpu_lstm import lstm_layer
from seqclf.models.kernels.padded_lstm import SpreadSteps, padded_lstm, steps_win_on_gpu
from seqclf.models.segments import find_segments, pack, unpack

pytestmark = pytest.mark.usefixtures("lstm_kernel")


@pytest.mark.parametrize("segmented", [False, True])
def test_wide_inputs_equal_torch_nn(segmented):
    """From D = 2048 at B * H of 1000 on, a whole batch runs through ``lstm_layer`` on a CPU."""
    B, T, D, H = 10, 4, 2048, 100
    ours, theirs = make("lstm", 2, D, H), nn.LSTM(D, H, 2, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    x = (torch.randn(B, T, D) / 10).requires_grad_()
    state = random_state("lstm", 2, B, H)
    leaves = [x, *(s.requires_grad_() for s in state)]
    is_first = torch.zeros(B, T, dtype=torch.bool)
    is_first[:, 2] = segmented
    y, final = ours(x, is_first, state)
    if segmented:
        first, _ = theirs(x[:, :2], state)
        second, expected_final = theirs(x[:, 2:])
        expected = torch.cat([first, second], 1)
    else:
        expected, expected_final = theirs(x, state)
    results = []
    for net, outputs in ((ours, (y, *final)), (theirs, (expected, *expected_final))):
        loss = sum((out * torch.linspace(-1, 2, out.numel()).view_as(out)).sum() for out in outputs)
        results.append([*outputs, *gradients(loss, net, *leaves)])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * max(1.0, float(b.detach().abs().max())))


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [[1], [2, 2, 2], [3, 2, 2, 1], [4, 1]], ids=str)
@pytest.mark.parametrize("memory", ["", "h0", "c0", "h0 c0"])
@pytest.mark.parametrize("used", ["h", "c", "h c"])
def test_lstm_layer_has_the_gradients_of_finite_differences(sizes, memory, used):
    """In float64, by ``gradcheck``: packed sizes that decrease, with and without state, h or c alone in the loss."""
    torch.manual_seed(0)
    N, D, H = sum(sizes), 3, 2

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    h0, c0 = (leaf(sizes[0], H) if name in memory else None for name in ("h0", "c0"))

    def layer(x, h0, c0, w_ih, w_hh, bias):
        h, c = lstm_layer(x, sizes, h0, c0, w_ih, w_hh, bias)
        return {"h": h, "c": c, "h c": (h, c)}[used]

    assert torch.autograd.gradcheck(layer, (leaf(N, D), h0, c0, leaf(4 * H, D), leaf(4 * H, H), leaf(4 * H)))


def plain_segments(is_first: list[list[bool]], lengths: list[int], T: int):
    """``find_segments`` in plain Python: runs of frames, in a stable order of decreasing length, side by side."""
    runs: list[list[tuple[int, int]]] = []
    for b, n in enumerate(lengths):
        for t in range(n):
            if t == 0 or is_first[b][t]:
                runs.append([])
            runs[-1].append((b, t))
    runs.sort(key=len, reverse=True)
    steps = [[run[t] for run in runs if len(run) > t] for t in range(len(runs[0]))]
    packed = [frame for step in steps for frame in step]
    return runs, steps, packed


@st.composite
def layouts(draw):
    B, T = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    row = st.lists(st.booleans(), min_size=T, max_size=T)
    is_first = draw(st.lists(row, min_size=B, max_size=B))
    lengths = draw(st.none() | st.lists(st.integers(1, T), min_size=B, max_size=B))
    return is_first, lengths


@quick(max_examples=80)
@given(layouts())
def test_segments_equal_a_plain_implementation(layout):
    is_first, lengths = layout
    B, T = len(is_first), len(is_first[0])
    segments = find_segments(lengths or [T] * B, T, np.array(is_first), torch.device("cpu"))
    runs, steps, packed = plain_segments(is_first, lengths or [T] * B, T)
    N = len(packed)
    at = {frame: i for i, frame in enumerate(packed)}
    assert segments.sizes == [len(step) for step in steps]
    assert segments.frames.tolist() == [b * T + t for b, t in packed]
    assert segments.positions.tolist() == [at.get((b, t), N) for b in range(B) for t in range(T)]
    assert segments.stream.tolist() == [run[0][0] for run in runs]
    assert segments.carried.tolist() == [run[0][1] == 0 for run in runs]
    ends = [(b, (lengths or [T] * B)[b] - 1) for b in range(B)]
    assert segments.last.tolist() == [at[end] for end in ends]
    assert segments.final.tolist() == [next(i for i, run in enumerate(runs) if run[-1] == end) for end in ends]


@quick(max_examples=60)
@given(layouts())
def test_unpacking_packed_features_gives_them_back_and_zero_at_padding(layout):
    is_first, lengths = layout
    B, T = len(is_first), len(is_first[0])
    segments = find_segments(lengths or [T] * B, T, np.array(is_first), torch.device("cpu"))
    _, _, packed = plain_segments(is_first, lengths or [T] * B, T)
    x = torch.randn(B, T, 3, dtype=torch.float64, requires_grad=True)
    flat = pack(x, segments)
    assert torch.equal(flat, torch.stack([x[b, t] for b, t in packed]))
    y = unpack(flat, segments, T)
    valid = torch.arange(T) < torch.tensor(lengths or [T] * B)[:, None]
    assert torch.equal(y, x.where(valid[..., None], 0.0))
    weight = torch.randn_like(y)
    (d_x,) = torch.autograd.grad((y * weight).sum(), x)
    assert torch.equal(d_x, weight.where(valid[..., None], 0.0))


def test_pack_and_unpack_have_the_gradients_of_finite_differences():
    is_first = np.array([[0, 0, 1, 0], [1, 0, 0, 1], [0, 0, 0, 0]], bool)
    segments = find_segments([4, 2, 3], 4, is_first, torch.device("cpu"))
    x = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    flat = torch.randn(9, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: pack(x, segments), x)
    assert torch.autograd.gradcheck(lambda p: unpack(p, segments, 4), flat)
    assert torch.autograd.gradgradcheck(lambda x: unpack(pack(x, segments).square(), segments, 4), x)


def test_a_whole_batch_is_packed_time_major():
    """Dropout is therefore the same for a batch with and without padding."""
    x = torch.randn(3, 4, 2)
    segments = find_segments([4, 4, 4], 4, None, torch.device("cpu"))
    assert torch.equal(pack(x, segments), x.transpose(0, 1).reshape(12, 2))


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("memory", [False, True])
def test_a_padded_batch_gives_the_same_padded_and_packed(layers, memory):
    """Outputs, state and gradients by operators and by the tested kernel. Padding holds NaN."""
    net, lengths = make("lstm", layers), torch.tensor([6, 1, 4, 6])
    padding = (torch.arange(8) >= lengths[:, None])[..., None]
    x = torch.randn(4, 8, 5).masked_fill(padding, float("nan")).requires_grad_()
    state = random_state("lstm", layers, 4) if memory else None
    leaves = [x, *(s.requires_grad_() for s in state or ())]
    seen = []
    for way in (overhead(float("inf")), overhead(-float("inf")), nullcontext()):
        with way:
            y, final = net(x, lengths=lengths, state=state)
        assert (y.masked_select(padding) == 0).all()
        seen.append((net, (y, *final)))
        (d_x,) = torch.autograd.grad(sum(out.sum() for out in (y, *final)), x, retain_graph=True)
        assert (d_x.masked_select(padding) == 0).all()
    equal_with_gradients(*seen, leaves=leaves)


@quick(max_examples=25)
@given(data=st.data(), B=st.integers(1, 4), T=st.integers(2, 7), layers=st.integers(1, 3))
def test_additional_steps_for_resets_equal_packing(data, B, T, layers):
    """Outputs, state and gradients. Padding holds NaN."""
    counts = [T, *data.draw(st.lists(st.integers(1, T), min_size=B - 1, max_size=B - 1))]
    lengths = torch.tensor(counts)
    padding = torch.arange(T) >= lengths[:, None]
    is_first = torch.tensor(data.draw(st.lists(st.booleans(), min_size=B * T, max_size=B * T))).view(B, T)
    net = make("lstm", layers)
    x = torch.randn(B, T, 5).masked_fill(padding[..., None], float("nan")).requires_grad_()
    state = tuple(s.requires_grad_() for s in random_state("lstm", layers, B))
    y, final = net(x, is_first, state, lengths)

    resets = (is_first & ~padding).numpy()
    resets[:, 0] = False
    spread = SpreadSteps(counts, resets, x.device)
    before = tuple(s.masked_fill(is_first[:, 0, None], 0) for s in state)
    steps, spread_final = padded_lstm(spread, spread.steps(x), list(net._flat_weights), before)
    outputs = spread.outputs(steps)
    assert (outputs[padding] == 0).all()
    equal_with_gradients((net, (y, *final)), (net, (outputs, *spread_final)), leaves=[x, *state])


def test_on_a_gpu_packing_wins_where_all_sequences_are_short_or_layers_are_wide():
    counts = [28] * 4
    often, seldom = np.ones((4, 28), bool), np.zeros((4, 28), bool)
    often[:, 0], seldom[:, 14] = False, True
    assert not steps_win_on_gpu(100, counts, often)
    assert steps_win_on_gpu(100, counts, seldom)
    assert steps_win_on_gpu(100, counts, None)
    assert not steps_win_on_gpu(512, counts, seldom)
    assert not steps_win_on_gpu(512, counts, None)


@pytest.mark.parametrize("model", [LSTM, GRU, RNN])
@pytest.mark.parametrize("lengths", [None, torch.tensor([20, 7])], ids=["whole", "padded"])
def test_features_weights_and_state_need_one_dtype_and_device(model, lengths):
    x, net = torch.randn(2, 20, 3), model(3, 4, layers=2)
    _, state = net(x, lengths=lengths)
    parts = state if isinstance(state, tuple) else (state,)
    for kind in ("float64", "bfloat16"):
        dtype = getattr(torch, kind)
        with pytest.raises(SeqclfError, match=f"features are torch.{kind} .*weights torch.float32"):
            net(x.to(dtype), lengths=lengths)
        with pytest.raises(SeqclfError, match=f"features are torch.float32 .*weights torch.{kind}"):
            model(3, 4, layers=2).to(dtype)(x, lengths=lengths)
        for wrong in (dtype, "meta"):
            other = tuple(part.to(wrong) for part in parts)
            with pytest.raises(SeqclfError, match=f"the state must be torch.float32 on the CPU, not .*{wrong}"):
                net(x, state=other if isinstance(state, tuple) else other[0], lengths=lengths)
