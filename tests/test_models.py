"""The laws of the models: parity with torch.nn and with plain NumPy, resets, streaming, padding, dropout, refusals."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy_lstm import run as numpy_run
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqclf.batch import IGNORE, Batch, SeqclfError
from seqclf.evaluation.metrics import Metrics
from seqclf.experiment.losses import cross_entropy
from seqclf.models import (
    GRU,
    LSTM,
    RNN,
    Chain,
    Flatten,
    FrameSequenceClassifier,
    Identity,
    Normalize,
    orthogonal,
    param_groups,
)
from seqclf.models.cpu_lstm import lstm_layer
from seqclf.models.segments import find_segments, pack, unpack

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
every_kind = pytest.mark.parametrize("kind", KINDS)
every_depth = pytest.mark.parametrize("layers", [1, 2, 3])

quick = partial(settings, derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)


def make(kind: str, layers: int = 2, D: int = 5, H: int = 4, seed: int = 0, **kwargs) -> nn.Module:
    torch.manual_seed(seed)
    return OURS[kind](D, H, layers, **kwargs)


def parts_of(state) -> tuple[Tensor, ...]:
    return state if isinstance(state, tuple) else (state,)


def random_state(kind: str, layers: int, B: int, H: int = 4):
    h = [torch.randn(layers, B, H) for _ in range(2 if kind == "lstm" else 1)]
    return tuple(h) if kind == "lstm" else h[0]


def gradients(loss: Tensor, net: nn.Module, *more: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [*net.parameters(), *more]))


def equal_with_gradients(*cases, leaves):
    """Each case is a net and its outputs: outputs and gradients, of the net and of the leaves, are the same in all."""
    results = []
    for net, outputs in cases:
        loss = sum((out * torch.linspace(-1, 2, out.numel()).view_as(out)).sum() for out in outputs)
        results.append([*outputs, *gradients(loss, net, *leaves)])
    for a, b in zip(*results, strict=True):
        close(a, b)


def bools(*shape: int) -> Tensor:
    return torch.rand(shape) < 0.3


# ---------------------------------------------------------------------------------------------------- torch.nn, NumPy


@every_kind
@every_depth
@pytest.mark.parametrize("with_state", [False, True])
def test_a_whole_batch_equals_torch_nn(kind, layers, with_state):
    """Outputs, final state, and the gradients of parameters, features and state."""
    ours, theirs = make(kind, layers), TORCH[kind](5, 4, layers, batch_first=True)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 6, 5, requires_grad=True)
    state = random_state(kind, layers, 3) if with_state else None
    leaves = [x] if state is None else [x, *(s.requires_grad_() for s in parts_of(state))]
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


@st.composite
def cases(draw, with_lengths=True):
    """A kind of net, a depth, and a batch with any of resets, state and lengths."""
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


@quick(max_examples=120)
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


# ------------------------------------------------------------------------------------------------------------- resets


@every_kind
@pytest.mark.parametrize("t", [1, 3, 5])
def test_a_reset_equals_a_fresh_clip(kind, t):
    """A clip with ``is_first`` at t is the two halves run apart: outputs, state, and gradients."""
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
    """Exactly none, into earlier frames or into the state; other streams keep theirs."""
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


# --------------------------------------------------------------------------------------------------- streams and clips


@quick(max_examples=60)
@given(cases(with_lengths=False), st.data())
def test_chunks_of_any_size_with_the_state_carried_equal_the_whole(case, data):
    """Outputs, final state and parameter gradients; chunks of one frame among them."""
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


def test_a_stream_goes_on_after_a_ragged_batch_from_each_clips_last_valid_frame():
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


# ------------------------------------------------------------------------------------------------------------- padding


def classifier(kind: str = "lstm", frame_shape=(3,), num_classes: int = 4, **kwargs) -> FrameSequenceClassifier:
    torch.manual_seed(3)
    temporal = Identity if kind == "identity" else partial(OURS[kind], hidden=4, layers=2, **kwargs)
    return FrameSequenceClassifier(temporal=temporal, frame_shape=frame_shape, num_classes=num_classes)


def padded(batch: Batch, by: int) -> Batch:
    """The batch with that many frames of garbage after its clips."""
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
    """Not a logit at a valid frame, no loss, no figure, no parameter gradient; with the same draw of dropout."""
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
def test_outputs_at_padding_are_zero_and_what_lies_there_has_no_influence(case):
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


def test_lengths_that_are_all_T_are_as_no_lengths():
    net, x = make("lstm"), torch.randn(3, 4, 5)
    assert torch.equal(net(x, lengths=torch.tensor([4, 4, 4]))[0], net(x)[0])


# ------------------------------------------------------------------------------------------------------------ segments


def plain_segments(is_first: list[list[bool]], lengths: list[int], T: int):
    """``find_segments`` by its definition: runs of frames, sorted by length (equal ones as they come), side by side."""
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


@quick(max_examples=150)
@given(layouts())
def test_segments_are_those_of_their_definition(layout):
    is_first, lengths = layout
    B, T = len(is_first), len(is_first[0])
    segments = find_segments(torch.tensor(is_first), None if lengths is None else torch.tensor(lengths))
    runs, steps, packed = plain_segments(is_first, lengths or [T] * B, T)
    N = len(packed)
    at = {frame: i for i, frame in enumerate(packed)}
    assert segments.sizes == [len(step) for step in steps]
    assert segments.frames.tolist() == [b * T + t for b, t in packed]
    assert segments.positions.tolist() == [at.get((b, t), N) for b in range(B) for t in range(T)]
    assert segments.stream.tolist() == [run[0][0] for run in runs]
    assert segments.carried.tolist() == [run[0][1] == 0 and not is_first[run[0][0]][0] for run in runs]
    ends = [(b, (lengths or [T] * B)[b] - 1) for b in range(B)]
    assert segments.last.tolist() == [at[end] for end in ends]
    assert segments.final.tolist() == [next(i for i, run in enumerate(runs) if run[-1] == end) for end in ends]


@quick(max_examples=60)
@given(layouts())
def test_pack_then_unpack_gives_the_features_back_and_zero_at_padding(layout):
    is_first, lengths = layout
    B, T = len(is_first), len(is_first[0])
    segments = find_segments(torch.tensor(is_first), None if lengths is None else torch.tensor(lengths))
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
    segments = find_segments(torch.tensor([[0, 0, 1, 0], [1, 0, 0, 1], [0, 0, 0, 0]]).bool(), torch.tensor([4, 2, 3]))
    x = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    flat = torch.randn(9, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: pack(x, segments), x)
    assert torch.autograd.gradcheck(lambda p: unpack(p, segments, 4), flat)
    assert torch.autograd.gradgradcheck(lambda x: unpack(pack(x, segments).square(), segments, 4), x)


def test_a_whole_batch_is_packed_time_major():
    """So that dropout draws the same for a batch with and without padding."""
    x = torch.randn(3, 4, 2)
    segments = find_segments(torch.zeros(3, 4, dtype=torch.bool))
    assert torch.equal(pack(x, segments), x.transpose(0, 1).reshape(12, 2))


# ------------------------------------------------------------------------------------------- dropout, init, precision


@every_kind
@pytest.mark.parametrize("form", ["whole", "ragged"])
def test_dropout_is_drawn_from_torch_manual_seed_and_inactive_in_eval(kind, form):
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


def test_one_layer_has_no_dropout_between_layers():
    net, x = make("lstm", 1, dropout=0.9), torch.randn(2, 3, 5)
    assert torch.equal(net(x)[0], net.eval()(x)[0])


@pytest.mark.parametrize("name", ["dropout", "dropout_after"])
@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_a_dropout_that_is_no_probability_is_refused(name, p):
    with pytest.raises(SeqclfError, match=rf"{name} .* not {p}"):
        LSTM(3, 4, **{name: p})


@pytest.mark.parametrize(("hidden", "layers"), [(0, 1), (4, 0)])
def test_a_net_without_units_or_layers_is_refused(hidden, layers):
    with pytest.raises(SeqclfError, match=f"not {hidden} and {layers}"):
        GRU(3, hidden, layers)


def test_an_unknown_nonlinearity_is_refused():
    with pytest.raises(SeqclfError, match="'sigmoid'"):
        RNN(3, 4, nonlinearity="sigmoid")


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
    net = make(kind, 2, H=H, init=orthogonal)
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
    """Forward, backward, and a second call that goes on from the state of the first."""
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


# ------------------------------------------------------------------------------------------ FrameSequenceClassifier


class Conv(nn.Module):
    """A small frame encoder that does not say how many features it gives."""

    def __init__(self, frame_shape, batch_norm: bool = False) -> None:
        super().__init__()
        norm = nn.BatchNorm2d(2) if batch_norm else nn.Identity()
        self.net = nn.Sequential(nn.Conv2d(frame_shape[0], 2, 3), norm, nn.Tanh(), nn.Flatten())

    def forward(self, frames: Tensor) -> Tensor:
        return self.net(frames)


def conv_classifier(**kwargs) -> FrameSequenceClassifier:
    torch.manual_seed(3)
    return FrameSequenceClassifier(
        partial(Normalize, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]),
        partial(Conv, **kwargs),
        partial(LSTM, hidden=4, layers=2),
        frame_shape=(3, 5, 4),
        num_classes=6,
    )


def test_parts_are_modules_or_what_builds_them():
    built = conv_classifier()
    assert built.temporal.input_size == 2 * 3 * 2
    assert (built.head.in_features, built.head.out_features) == (4, 6)
    given_modules = FrameSequenceClassifier(
        Normalize([0.1, 0.2, 0.3], [0.5, 0.6, 0.7]), Conv((3, 5, 4)), LSTM(12, 4, 2), nn.Linear(4, 6)
    )
    given_modules.load_state_dict(built.state_dict(), strict=True)
    frames = torch.rand(2, 3, 3, 5, 4)
    assert torch.equal(built(frames)[0], given_modules(frames)[0])


@pytest.mark.parametrize("frame_shape", [(7,), (3, 5, 4)], ids=str)
def test_frames_are_vectors_or_images_and_logits_come_at_every_frame(frame_shape):
    """By hand: normalised, encoded one by one, run through torch.nn.LSTM, and through the head."""
    torch.manual_seed(0)
    encoder = Flatten if len(frame_shape) == 1 else Conv
    model = FrameSequenceClassifier(
        partial(Normalize, 0.4, 0.2), encoder, partial(LSTM, hidden=4), frame_shape=frame_shape, num_classes=5
    )
    frames = torch.rand(2, 3, *frame_shape)
    logits, (h, c) = model(frames)
    assert logits.shape == (2, 3, 5)
    assert h.shape == c.shape == (1, 2, 4)
    lstm = nn.LSTM(model.temporal.input_size, 4, batch_first=True)
    lstm.load_state_dict(model.temporal.state_dict())
    features = torch.stack([model.encoder((frames[:, t] - 0.4) / 0.2) for t in range(3)], 1)
    hidden, (expected_h, expected_c) = lstm(features)
    close(logits, model.head(hidden))
    close(h, expected_h)
    close(c, expected_c)


def test_uint8_frames_equal_float_frames_divided_by_255():
    model = conv_classifier()
    frames = torch.randint(0, 256, (2, 3, 3, 5, 4), dtype=torch.uint8)
    close(model(frames)[0], model(frames.float() / 255)[0])
    assert (model(frames)[0] - model(frames.float())[0]).abs().max() > 1e-3


def test_normalize_subtracts_the_mean_and_divides_by_std_per_channel():
    frames = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    y = Normalize(mean, std)(frames)
    for c in range(3):
        close(y[:, c], (frames[:, c].float() / 255 - mean[c]) / std[c])
    close(Normalize()(frames), frames.float() / 255)


def test_an_encoder_with_batch_norm_does_not_see_padding():
    """Garbage after the clips changes neither the logits in training nor the running statistics."""
    frames, lengths = torch.randn(3, 4, 3, 5, 4), torch.tensor([2, 4, 1])
    frames[torch.arange(4) >= lengths[:, None]] = 1e6
    model = conv_classifier(batch_norm=True)
    assert model.training
    logits, _ = model(frames, lengths=lengths)
    norm = model.encoder.net[1]
    valid = torch.cat([frames[b, :n] for b, n in enumerate(lengths.tolist())])
    seen = model.encoder.net[0](model.preprocess(valid))
    close(norm.running_mean, 0.1 * seen.mean((0, 2, 3)))
    close(norm.running_var, 0.9 + 0.1 * seen.transpose(0, 1).flatten(1).var(1))
    assert norm.num_batches_tracked == 1  # sizing the temporal model is no training either

    again = conv_classifier(batch_norm=True)
    further = torch.cat([frames, torch.full((3, 2, 3, 5, 4), 1e6)], 1)
    more, _ = again(further, lengths=lengths)
    close(more[:, :4], logits)
    close(again.encoder.net[1].running_var, norm.running_var)


def test_one_frame_at_a_time_equals_one_call():
    model, frames, is_first = conv_classifier(), torch.rand(3, 6, 3, 5, 4), bools(3, 6)
    assert is_first[:, 1:].any()
    whole, final = model(frames, is_first)
    state, logits = None, []
    for t in range(6):
        y, state = model(frames[:, t : t + 1], is_first[:, t : t + 1], state)
        logits.append(y)
    close(torch.cat(logits, 1), whole)
    for a, b in zip(state, final, strict=True):
        close(a, b)


def test_the_single_frame_model_answers_each_frame_by_itself():
    model = classifier("identity")
    frames = torch.randn(3, 4, 3)
    logits, state = model(frames)
    assert state is None
    close(logits, torch.stack([model(frames[:, t : t + 1])[0][:, 0] for t in range(4)], 1))
    changed = frames.clone()
    changed[:, 0] += 1
    assert torch.equal(model(changed)[0][:, 1:], logits[:, 1:])
    assert not torch.equal(model(changed)[0][:, 0], logits[:, 0])


def test_the_state_dict_holds_the_preprocessing():
    trained, frames = conv_classifier(), torch.rand(2, 3, 3, 5, 4)
    saved = trained.state_dict()
    assert saved["preprocess.mean"].flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert saved["preprocess.std"].flatten().tolist() == pytest.approx([0.5, 0.6, 0.7])
    other = conv_classifier()
    other.preprocess = Normalize([0.0] * 3, [1.0] * 3)
    assert not torch.allclose(other(frames)[0], trained(frames)[0])
    other.load_state_dict(saved)
    assert torch.equal(other(frames)[0], trained(frames)[0])


WRONG = {
    "frame shape": (dict(frames=torch.zeros(2, 3, 8)), r"\(B, T, 7\).*\(2, 3, 8\)"),
    "one frame, no clip": (dict(frames=torch.zeros(2, 7)), r"\(B, T, 7\).*\(2, 7\)"),
    "images for vectors": (dict(frames=torch.zeros(2, 3, 7, 1, 1)), r"\(B, T, 7\).*\(2, 3, 7, 1, 1\)"),
    "no clips": (dict(frames=torch.zeros(0, 3, 7)), r"at least one.*\(0, 3, 7\)"),
    "no frames": (dict(frames=torch.zeros(2, 0, 7)), r"at least one.*\(2, 0, 7\)"),
    "is_first shape": (dict(is_first=torch.zeros(3, 2).bool()), r"bool \(2, 3\).*\(3, 2\)"),
    "is_first dtype": (dict(is_first=torch.zeros(2, 3)), r"bool \(2, 3\).*float32"),
    "state shape": (dict(state=(torch.zeros(1, 3, 4),) * 2), r"\(1, 2, 4\).*\(1, 3, 4\)"),
    "state of one part": (dict(state=torch.zeros(1, 2, 4)), r"pair.*\(1, 2, 4\)"),
    "state of three parts": (dict(state=(torch.zeros(1, 2, 4),) * 3), r"pair.*\(1, 2, 4\)"),
    "length 0": (dict(lengths=torch.tensor([0, 3])), r"from 1 to 3, not \[0, 3\]"),
    "length above T": (dict(lengths=torch.tensor([3, 4])), r"from 1 to 3, not \[3, 4\]"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_refused_in_words_of_what_is_expected_and_what_was_given(case):
    model = FrameSequenceClassifier(temporal=partial(LSTM, hidden=4), frame_shape=(7,), num_classes=3)
    arguments, words = WRONG[case]
    with pytest.raises(SeqclfError, match=words):
        model(**{"frames": torch.zeros(2, 3, 7), **arguments})


@pytest.mark.parametrize("kind", ["gru", "rnn_tanh"])
def test_a_pair_of_states_is_refused_where_the_state_is_one_tensor(kind):
    with pytest.raises(SeqclfError, match=r"one tensor \(2, 3, 4\)"):
        make(kind)(torch.zeros(3, 2, 5), state=(torch.zeros(2, 3, 4),) * 2)


def test_features_of_the_wrong_size_are_refused():
    with pytest.raises(SeqclfError, match=r"LSTM expects features \(B, T, 5\), not \(2, 3, 6\)"):
        make("lstm")(torch.zeros(2, 3, 6))


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        (dict(num_classes=3), "frame_shape= to build its encoder"),
        (
            dict(encoder=nn.Flatten(), temporal=partial(LSTM, hidden=4), num_classes=3),
            "frame_shape= to find .* Flatten",
        ),
        (dict(temporal=partial(LSTM, hidden=4), frame_shape=(7,)), "num_classes="),
    ],
)
def test_a_part_that_lacks_a_size_is_refused_by_name(kwargs, words):
    with pytest.raises(SeqclfError, match=words):
        FrameSequenceClassifier(**kwargs)


# ---------------------------------------------------------------------------------------- once faults, now laws


@every_kind
@pytest.mark.parametrize("t", [0, 2])
def test_not_even_nan_crosses_a_reset(kind, t):
    """A stream whose memory went bad is well again from its next reset on."""
    net, x, state = make(kind), torch.randn(2, 5, 5), random_state(kind, 2, 2)
    for s in parts_of(state):
        s[:, 0] = float("nan")
    is_first = torch.zeros(2, 5, dtype=torch.bool)
    is_first[0, t] = True
    y, _ = net(x, is_first, state)
    close(y[0, t:], net(x[:1, t:])[0][0])


WRONG_LENGTHS = {
    "too many": torch.tensor([1, 2, 3]),
    "too few": torch.tensor([2]),
    "none": torch.zeros(0, dtype=torch.int64),
    "not whole": torch.tensor([2.5, 3.0]),
}


@pytest.mark.parametrize("case", WRONG_LENGTHS)
def test_lengths_of_the_wrong_form_are_refused_in_words(case):
    model = FrameSequenceClassifier(temporal=partial(LSTM, hidden=4), frame_shape=(7,), num_classes=3)
    with pytest.raises(SeqclfError, match=r"lengths must be 2 .* from 1 to 3, not "):
        model(torch.zeros(2, 3, 7), lengths=WRONG_LENGTHS[case])


@pytest.mark.parametrize("case", ["is_first shape", "is_first dtype", "length 0", "length above T"])
def test_the_single_frame_model_refuses_what_a_recurrent_one_refuses(case):
    arguments, words = WRONG[case]
    with pytest.raises(SeqclfError, match=words):
        classifier("identity", (7,))(**{"frames": torch.zeros(2, 3, 7), **arguments})


@pytest.mark.parametrize(
    "parts",
    [dict(encoder=Flatten(), temporal=partial(LSTM, hidden=4)), dict(temporal=Identity())],
    ids=["Flatten()", "Identity()"],
)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_part_without_weights_given_as_a_module_does_not_mislead_the_next_one(parts):
    model = FrameSequenceClassifier(**parts, frame_shape=(7,), num_classes=3)
    assert model(torch.zeros(2, 3, 7))[0].shape == (2, 3, 3)


def test_building_the_classifier_leaves_each_part_of_the_encoder_in_its_mode():
    """Such as a pretrained encoder whose batch norm is frozen."""
    encoder = Conv((3, 5, 4), batch_norm=True)
    encoder.net[1].eval()
    modes = [module.training for module in encoder.modules()]
    FrameSequenceClassifier(encoder=encoder, temporal=partial(LSTM, hidden=4), frame_shape=(3, 5, 4), num_classes=2)
    assert [module.training for module in encoder.modules()] == modes


# ---- frames in chunks, parameters in groups


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("ragged", [False, True])
def test_an_encoder_that_works_in_chunks_computes_the_same(frozen, ragged):
    torch.manual_seed(0)
    parts = {"conv": partial(nn.Conv2d, 3, 4, 3), "relu": nn.ReLU, "drop": partial(nn.Dropout, 0.5), "flat": nn.Flatten}
    model = FrameSequenceClassifier(
        encoder=partial(Chain, parts=parts), temporal=partial(LSTM, hidden=5), frame_shape=(3, 6, 6), num_classes=3
    ).eval()
    model.encoder.requires_grad_(not frozen)
    frames, lengths = torch.randn(2, 7, 3, 6, 6), torch.tensor([7, 4]) if ragged else None
    found = []
    for chunk in (None, 3, 1):
        model.chunk = chunk
        model.zero_grad()
        logits, _ = model(frames, lengths=lengths)
        logits.square().sum().backward()
        found.append([logits.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(found[0]) == (7 if frozen else 9)
    for other in found[1:]:
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found[0], other, strict=True))
    with pytest.raises(SeqclfError, match=r"chunk .* not 0"):
        FrameSequenceClassifier(frame_shape=(3,), num_classes=2, chunk=0)


def test_parameters_are_grouped_by_the_first_pattern_they_fit():
    model = FrameSequenceClassifier(temporal=partial(LSTM, hidden=5), frame_shape=(3,), num_classes=2)
    model.temporal.bias_hh_l0.requires_grad_(False)
    rules = {"head.bias": {"lr_mult": 20.0}, "*bias*": {"lr_mult": 2.0}}
    groups = param_groups(model, rules)
    assert [group.get("lr_mult") for group in groups] == [20.0, 2.0, None]
    assert [p is model.head.bias for p in groups[0]["params"]] == [True]
    assert [p is model.temporal.bias_ih_l0 for p in groups[1]["params"]] == [True]
    assert len(groups[2]["params"]) == 3
    with pytest.raises(SeqclfError, match=r"'tail\.\*'.* temporal.weight"):
        param_groups(model, {"tail.*": {}})


@pytest.mark.parametrize("kind", [LSTM, GRU, RNN, partial(RNN, nonlinearity="relu"), Identity])
def test_one_frame_at_a_time_without_gradients_is_the_whole_with_them(kind):
    """The way of a stream, which has kernels of its own."""
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
