"""Laws of LSTM, GRU, RNN and Identity: parity with torch.nn and NumPy, resets, streaming, padding, dropout."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from numpy_lstm import run as numpy_run
from temporal_models import (
    KINDS,
    OURS,
    TORCH,
    bools,
    cases,
    classifier,
    close,
    equal_with_gradients,
    every_depth,
    gradients,
    make,
    quick,
    random_state,
)
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqclf.batch import IGNORE, Batch
from seqclf.evaluation.metrics import Metrics
from seqclf.experiment.losses import cross_entropy
from seqclf.models import GRU, LSTM, RNN, Identity, orthogonal
from seqclf.models.contract import parts_of

pytestmark = pytest.mark.usefixtures("lstm_kernel")
every_kind = pytest.mark.parametrize(  # the LSTM with both kernels, the others once
    ("kind", "lstm_kernel"),
    [("lstm", "fused"), *((kind, "torch") for kind in KINDS)],
    indirect=["lstm_kernel"],
    scope="module",
)


@every_kind
@every_depth
@pytest.mark.parametrize("with_state", [False, True])
def test_a_whole_batch_equals_torch_nn(kind, layers, with_state):
    """Outputs, final state, and gradients of parameters, features and state."""
    ours, theirs = make(kind, layers), TORCH[kind](5, 4, layers, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 6, 5, requires_grad=True)
    state = random_state(kind, layers, 3) if with_state else None
    leaves = [x, *(s.requires_grad_() for s in parts_of(state))]
    results = []
    for net, given_state in ((ours, {"state": state}), (theirs, {"hx": state})):
        y, final = net(x, **given_state)
        loss = sum((out * torch.linspace(-1, 2, out.numel()).view_as(out)).sum() for out in (y, *parts_of(final)))
        results.append([y, *parts_of(final), *gradients(loss, net, *leaves)])
    assert isinstance(final, tuple) == (kind == "lstm")
    for a, b in zip(*results, strict=True):
        close(a, b)


@every_kind
@every_depth
def test_a_ragged_batch_equals_torch_nn_on_a_packed_sequence(kind, layers):
    ours, theirs = make(kind, layers), TORCH[kind](5, 4, layers, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(4, 6, 5, requires_grad=True)
    lengths = torch.tensor([3, 6, 1, 4])
    state = random_state(kind, layers, 4)
    leaves = [x, *(s.requires_grad_() for s in parts_of(state))]

    y, final = ours(x, state=state, lengths=lengths)
    packed, theirs_final = theirs(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False), state)
    theirs_y, _ = pad_packed_sequence(packed, batch_first=True)
    cases = (ours, (y, *parts_of(final))), (theirs, (theirs_y, *parts_of(theirs_final)))
    equal_with_gradients(*cases, leaves=leaves)


@every_kind
@every_depth
@pytest.mark.parametrize("form", ["whole", "ragged", "packed"])
def test_a_bidirectional_batch_equals_torch_nn_on_a_packed_sequence(kind, layers, form, monkeypatch):
    """With whole clips, and for the LSTM with each of the ways to leave padding out."""
    monkeypatch.setattr("seqclf.models.kernels.padded_lstm.OVERHEAD", 0 if form == "packed" else 1e9)
    ours = make(kind, layers, bidirectional=True)
    theirs = TORCH[kind](5, 4, layers, batch_first=True, bidirectional=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 6, 5, requires_grad=True)
    lengths = torch.tensor([6, 6, 6, 6] if form == "whole" else [3, 6, 1, 4])
    y, state = ours(x, lengths=lengths)
    packed, _ = theirs(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
    theirs_y, _ = pad_packed_sequence(packed, batch_first=True)
    assert state is None and y.shape == (4, 6, ours.out_features)
    equal_with_gradients((ours, (y,)), (theirs, (theirs_y,)), leaves=[x])


@every_kind
@pytest.mark.parametrize("bidirectional", [False, True])
def test_options_equal_their_formulas_layer_by_layer(kind, bidirectional):
    """``x = W x`` before the first layer, then ``x = x + norm(layer(x))``; only projection lets the first add."""
    x, lengths = torch.randn(3, 6, 5), torch.tensor([6, 2, 4])
    for projection in (False, True):
        options = {"residual": True, "layer_norm": True, "projection": projection, "bidirectional": bidirectional}
        net = make(kind, 2, **options)
        for norm in net.norms:
            nn.init.normal_(norm.weight)
        y, _ = net(x, lengths=lengths)
        expected = net.projection(x) if projection else x
        for i in range(2):
            layer = OURS[kind](expected.shape[-1], 4, bidirectional=bidirectional)
            names = {name: name.replace("l0", f"l{i}") for name in layer.state_dict()}
            layer.load_state_dict({name: net.state_dict()[other] for name, other in names.items()})
            after = net.norms[i](layer(expected, lengths=lengths)[0])
            expected = expected + after if i or projection else after
        valid = torch.arange(6) < lengths[:, None]
        close(y[valid], expected[valid])
        assert (y[~valid] == 0).all()


@every_kind
def test_state_dicts_are_those_of_torch_nn_both_ways(kind):
    ours, theirs = make(kind, 3), TORCH[kind](5, 4, 3)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    x = torch.randn(2, 3, 5)
    before = ours(x)[0]
    theirs.load_state_dict(ours.state_dict(), strict=True)
    torch.manual_seed(99)
    again = OURS[kind](5, 4, 3)
    assert not torch.equal(again(x)[0], before)
    again.load_state_dict(theirs.state_dict(), strict=True)
    assert torch.equal(again(x)[0], before)


@quick(max_examples=50)
@given(cases())
def test_equals_the_numpy_reference_with_any_resets_state_and_lengths(case):
    kind, net, x, is_first, state, lengths = case
    with torch.no_grad():
        y, final = net(x, is_first, state, lengths)
    arrays = [None if v is None else v.numpy() for v in (is_first, lengths)]
    expected, expected_final = numpy_run(
        kind,
        {name: w.numpy() for name, w in net.state_dict().items()},
        x.numpy(),
        arrays[0],
        None if state is None else tuple(s.numpy() for s in parts_of(state)),
        arrays[1],
    )
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(parts_of(final), expected_final, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-5, atol=1e-5)


@every_kind
@pytest.mark.parametrize("t", [1, 3, 5])
def test_a_reset_equals_a_fresh_clip(kind, t):
    """A clip with ``is_first`` at t equals its two parts on their own: outputs, state and gradients."""
    net = make(kind)
    x = torch.randn(3, 6, 5, requires_grad=True)
    state = random_state(kind, 2, 3)
    leaves = [x, *(s.requires_grad_() for s in parts_of(state))]
    is_first = torch.zeros(3, 6, dtype=torch.bool)
    is_first[:, t] = True
    y, final = net(x, is_first, state)
    first, _ = net(x[:, :t], state=state)
    second, second_final = net(x[:, t:])
    apart = torch.cat([first, second], 1)
    equal_with_gradients((net, (y, *parts_of(final))), (net, (apart, *parts_of(second_final))), leaves=leaves)


@every_kind
def test_is_first_at_frame_0_forgets_the_state_of_that_stream_alone(kind):
    net, x, state = make(kind), torch.randn(3, 4, 5), random_state(kind, 2, 3)
    is_first = torch.zeros(3, 4, dtype=torch.bool)
    is_first[1, 0] = True
    y, _ = net(x, is_first, state)
    with_state, without = net(x, state=state)[0], net(x)[0]
    close(y[[0, 2]], with_state[[0, 2]])
    close(y[1], without[1])
    assert (with_state[1] - without[1]).abs().max() > 1e-3


@every_kind
def test_no_gradient_crosses_a_reset(kind):
    """The gradients of earlier frames and of the state are exactly zero; other streams keep theirs."""
    net = make(kind)
    x = torch.randn(2, 6, 5, requires_grad=True)
    state = random_state(kind, 2, 2)
    memory = [s.requires_grad_() for s in parts_of(state)]
    is_first = torch.zeros(2, 6, dtype=torch.bool)
    is_first[0, 3] = True
    y, _ = net(x, is_first, state)
    d_x, *d_memory = torch.autograd.grad(y[:, 3:].sum(), [x, *memory])
    assert (d_x[0, :3] == 0).all()
    assert all((d[:, 0] == 0).all() for d in d_memory)
    assert (d_x[0, 3:] != 0).any(-1).all()
    assert (d_x[1] != 0).any(-1).all()
    assert all((d[:, 1] != 0).any() for d in d_memory)


@quick(max_examples=30)
@given(cases(with_lengths=False), st.data())
def test_chunks_of_any_size_with_the_state_carried_equal_the_whole(case, data):
    """Outputs, final state and parameter gradients, also with chunks of one frame."""
    _, net, x, is_first, state, _ = case
    T = x.shape[1]
    cuts = data.draw(st.sets(st.integers(1, T - 1)) if T > 1 else st.just(set()))
    bounds = [0, *sorted(cuts), T]
    whole, final = net(x, is_first, state)
    outputs, carried = [], state
    for start, stop in pairwise(bounds):
        y, carried = net(x[:, start:stop], None if is_first is None else is_first[:, start:stop], carried)
        outputs.append(y)
    chunks = torch.cat(outputs, 1)
    close(chunks, whole)
    for a, b in zip(parts_of(carried), parts_of(final), strict=True):
        close(a, b)
    for a, b in zip(gradients(chunks.sum(), net), gradients(whole.sum(), net), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@every_kind
def test_a_stream_fed_frame_by_frame_equals_the_whole(kind):
    net, x, is_first = make(kind, 3), torch.randn(4, 9, 5), bools(4, 9)
    assert is_first[:, 1:].any()
    whole, final = net(x, is_first)
    state, frames = None, []
    for t in range(9):
        y, state = net(x[:, t : t + 1], is_first[:, t : t + 1], state)
        frames.append(y)
    close(torch.cat(frames, 1), whole)
    for a, b in zip(parts_of(state), parts_of(final), strict=True):
        close(a, b)


def test_the_state_after_a_ragged_batch_is_that_of_the_last_valid_frames():
    net, x = make("lstm"), torch.randn(3, 8, 5)
    lengths = torch.tensor([2, 5, 3])
    _, state = net(x[:, :5], lengths=lengths)
    rest, _ = net(torch.stack([x[b, n : n + 3] for b, n in enumerate(lengths.tolist())]), state=state)
    for b, n in enumerate(lengths.tolist()):
        close(rest[b], net(x[b : b + 1, : n + 3])[0][0, n:])


@pytest.mark.parametrize("kind", [*KINDS, "identity"])
def test_permuted_clips_permute_logits(kind):
    model = classifier(kind)
    frames, is_first, lengths = torch.randn(5, 6, 3), bools(5, 6), torch.tensor([6, 2, 5, 1, 4])
    state = None if kind == "identity" else random_state(kind, 2, 5)
    order = torch.tensor([3, 0, 4, 2, 1])
    logits, final = model(frames, is_first, state, lengths)
    moved = state if state is None else tuple(s[:, order] for s in parts_of(state))
    moved = moved if kind in ("lstm", "identity") else moved[0]
    permuted, permuted_final = model(frames[order], is_first[order], moved, lengths[order])
    close(permuted, logits[order])
    if kind != "identity":
        for a, b in zip(parts_of(permuted_final), parts_of(final), strict=True):
            close(a, b[:, order])


def padded(batch: Batch, by: int) -> Batch:
    """The batch with so many frames of NaN after its clips."""
    B, T = batch.labels.shape
    garbage = torch.full((B, by, *batch.frames.shape[2:]), float("nan"))
    lengths = torch.full((B,), T) if batch.lengths is None else batch.lengths
    labels = F.pad(batch.labels, (0, by), value=IGNORE)
    is_first = None if batch.is_first is None else torch.cat([batch.is_first, torch.ones(B, by, dtype=torch.bool)], 1)
    return Batch(torch.cat([batch.frames, garbage], 1), labels, lengths, is_first, batch.indices)


@pytest.mark.parametrize("kind", [*KINDS, "identity"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("form", ["whole", "ragged", "reset"])
@pytest.mark.parametrize("by", [1, 4])
def test_padding_a_batch_further_changes_nothing(kind, dropout, form, by):
    """Logits at valid frames, loss, metrics and gradients stay, with the same random dropout."""
    drop = {} if kind == "identity" else {"dropout": dropout, "dropout_after": dropout}
    model = classifier(kind, **drop)
    lengths = torch.tensor([4, 2, 5, 3, 1]) if form == "ragged" else None
    is_first = bools(5, 5) if form == "reset" else None
    labels = torch.tensor([[IGNORE, 1, IGNORE, 1, 1], [0, 0, 0, 0, 0], [3] * 5, [2] * 5, [1] * 5])
    if lengths is not None:
        labels = labels.where(torch.arange(5) < lengths[:, None], IGNORE)
    labels[0, 0] = IGNORE
    batch = Batch(torch.randn(5, 5, 3), labels, lengths, is_first, torch.arange(5))
    valid = torch.ones(5, 5, dtype=torch.bool) if lengths is None else torch.arange(5) < lengths[:, None]

    seen = []
    for b in (batch, padded(batch, by)):
        torch.manual_seed(7)
        logits, state = model(b.frames, b.is_first, lengths=b.lengths)
        loss = cross_entropy(logits, b.labels)
        metrics = Metrics(4)
        metrics.update(logits, b)
        final = () if state is None else parts_of(state)
        seen.append((logits[:, :5][valid], loss, metrics.result(), gradients(loss, model), final))
    close(seen[0][0], seen[1][0])
    close(seen[0][1], seen[1][1])
    for name, figure in seen[0][2].items():
        if name == "most_wrong":
            for a, b in zip(figure, seen[1][2][name], strict=True):
                assert b == pytest.approx(a, rel=1e-5)
        else:
            assert seen[1][2][name] == (pytest.approx(figure, rel=1e-5) if name == "loss" else figure), name
    for a, b in zip((*seen[0][3], *seen[0][4]), (*seen[1][3], *seen[1][4]), strict=True):
        close(a, b)


@quick(max_examples=40)
@given(cases())
def test_outputs_at_padding_are_zero_and_values_there_have_no_influence(case):
    _, net, x, is_first, state, _ = case
    B, T, _ = x.shape
    lengths = torch.randint(1, T + 1, (B,))
    padding = torch.arange(T) >= lengths[:, None]
    y, final = net(x, is_first, state, lengths)
    assert (y[padding] == 0).all()
    assert y[~padding].isfinite().all()
    other = x.masked_fill(padding[..., None], float("nan"))
    flipped = None if is_first is None else is_first ^ padding
    z, other_final = net(other, flipped, state, lengths)
    assert torch.equal(y, z)
    assert all(torch.equal(a, b) for a, b in zip(parts_of(final), parts_of(other_final), strict=True))


def test_lengths_that_all_equal_T_equal_no_lengths():
    net, x = make("lstm"), torch.randn(3, 4, 5)
    assert torch.equal(net(x, lengths=torch.tensor([4, 4, 4]))[0], net(x)[0])


@every_kind
@pytest.mark.parametrize("form", ["whole", "ragged"])
def test_dropout_depends_on_the_seed_and_is_inactive_in_evaluation(kind, form):
    net, x = make(kind, dropout=0.5, dropout_after=0.5), torch.randn(3, 6, 5)
    plain = make(kind)
    plain.load_state_dict(net.state_dict())
    lengths = torch.tensor([6, 3, 2]) if form == "ragged" else None

    def draw(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return net(x, lengths=lengths)[0]

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))
    net.eval()
    assert torch.equal(draw(1), draw(2))
    assert torch.equal(draw(1), plain(x, lengths=lengths)[0])


@every_kind
def test_dropout_acts_between_layers_and_dropout_after_on_the_last(kind):
    net, x = make(kind, 2, dropout=0.3, dropout_after=0.6), torch.randn(4, 7, 5)
    layers = [OURS[kind](5, 4), OURS[kind](4, 4)]
    for i, layer in enumerate(layers):
        layer.load_state_dict({k[:-1] + "0": v for k, v in net.state_dict().items() if k.endswith(f"l{i}")})
    torch.manual_seed(5)
    y, final = net(x)
    torch.manual_seed(5)
    hidden, first = layers[0](x)
    hidden = F.dropout(hidden.transpose(0, 1).contiguous(), 0.3).transpose(0, 1)
    hidden, second = layers[1](hidden)
    expected = F.dropout(hidden.transpose(0, 1).contiguous(), 0.6).transpose(0, 1)
    close(y, expected)
    assert (y == 0).float().mean() > 0.3
    for a, b, c in zip(parts_of(final), parts_of(first), parts_of(second), strict=True):
        close(a, torch.cat([b, c]))


def test_a_single_layer_has_no_dropout_between_layers():
    net, x = make("lstm", 1, dropout=0.9), torch.randn(2, 3, 5)
    assert torch.equal(net(x)[0], net.eval()(x)[0])


@pytest.mark.parametrize("init", [None, orthogonal])
def test_forget_bias_is_the_forget_gates_bias_of_every_layer_and_nothing_else(init):
    torch.manual_seed(0)
    plain = LSTM(5, 4, 3, init=init)
    torch.manual_seed(0)
    biased = LSTM(5, 4, 3, forget_bias=1.5, init=init)
    for layer in range(3):
        total = getattr(biased, f"bias_ih_l{layer}") + getattr(biased, f"bias_hh_l{layer}")
        close(total[4:8], torch.full((4,), 1.5))
    with torch.no_grad():
        for net in (plain, biased):
            for layer in range(3):
                for name in ("bias_ih", "bias_hh"):
                    getattr(net, f"{name}_l{layer}")[4:8] = 0
    for (name, a), b in zip(plain.state_dict().items(), biased.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


@every_kind
def test_orthogonal_init_is_orthogonal_gate_by_gate(kind):
    H = 6
    net = make(kind, 2, H=H, layer_norm=True, projection=True)
    others = {name: p.clone() for name, p in net.state_dict().items() if name.startswith(("norms", "projection"))}
    orthogonal(net)
    assert len(others) == 6 and all(torch.equal(net.state_dict()[name], p) for name, p in others.items())
    gates = {"lstm": 4, "gru": 3}.get(kind, 1)
    for layer in range(2):
        recurrent = getattr(net, f"weight_hh_l{layer}").detach().split(H)
        assert len(recurrent) == gates
        for gate in recurrent:
            close(gate @ gate.T, torch.eye(H))
        assert len({gate.sum().item() for gate in recurrent}) == gates
        for gate in getattr(net, f"weight_ih_l{layer}").detach().split(H):
            bound = (6 / (gate.shape[0] + gate.shape[1])) ** 0.5
            assert 0.7 * bound < gate.abs().max() <= bound
        assert (getattr(net, f"bias_ih_l{layer}") == 0).all()
        assert (getattr(net, f"bias_hh_l{layer}") == 0).all()


@every_kind
@pytest.mark.parametrize("form", ["whole", "ragged", "reset"])
def test_bf16_autocast_on_the_cpu_is_close_to_fp32(kind, form):
    """Forward, backward, and a second call that continues from the state of the first."""
    model = classifier(kind, dropout=0.1).eval()
    frames, state = torch.randn(4, 6, 3), None
    lengths = torch.tensor([6, 3, 1, 5]) if form == "ragged" else None
    is_first = bools(4, 6) if form == "reset" else None
    seen = []
    for enabled in (False, True):
        state, logits = None, []
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            for _ in range(2):
                y, state = model(frames, is_first, state, lengths)
                logits.append(y.float())
        seen.append((torch.cat(logits), gradients(torch.cat(logits).square().mean(), model)))
    assert not torch.equal(seen[0][0], seen[1][0])
    torch.testing.assert_close(seen[1][0], seen[0][0], rtol=0.02, atol=0.02)
    for a, b in zip(seen[1][1], seen[0][1], strict=True):
        torch.testing.assert_close(a, b, rtol=0.1, atol=0.02)


@every_kind
@pytest.mark.parametrize("t", [0, 2])
def test_nan_in_the_state_does_not_cross_a_reset(kind, t):
    """A stream whose state is NaN recovers at its next reset."""
    net, x, state = make(kind), torch.randn(2, 5, 5), random_state(kind, 2, 2)
    for s in parts_of(state):
        s[:, 0] = float("nan")
    is_first = torch.zeros(2, 5, dtype=torch.bool)
    is_first[0, t] = True
    y, _ = net(x, is_first, state)
    close(y[0, t:], net(x[:1, t:])[0][0])


@pytest.mark.parametrize("kind", [LSTM, GRU, RNN, partial(RNN, nonlinearity="relu"), Identity])
def test_single_frames_without_gradients_equal_the_whole_with_gradients(kind):
    """Single frames without gradients, as in a stream, have kernels of their own."""
    torch.manual_seed(0)
    net, x = (kind(5) if kind is Identity else kind(5, 7, 3)), torch.randn(2, 9, 5)
    is_first = torch.zeros(2, 9, dtype=torch.bool)
    is_first[1, 4] = True
    whole, final = net(x, is_first)
    state, outputs = None, []
    with torch.no_grad():
        for t in range(9):
            y, state = net(x[:, t : t + 1], is_first[:, t : t + 1], state)
            outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state, final, rtol=1e-5, atol=1e-5)
