"""The laws of every temporal model of ``MODELS``, on random batches with resets and padding.

``check_temporal`` has checks of its own; these are written independently of them.
"""

from __future__ import annotations

import json
import shutil
from functools import partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from temporal_models import MODELS, bools, close, quick
from torch import Tensor, nn

from seqclf import Clips, Data, Experiment, FrameSequenceClassifier
from seqclf.models.contract import State, can_stream, parts_of
from seqclf.runs.checkpoint import list_checkpoints
from seqclf.training.loop import train

D = 5
STREAMING = [name for name, build in MODELS.items() if can_stream(build(D))]
every_model = pytest.mark.parametrize("name", MODELS)
every_streaming_model = pytest.mark.parametrize("name", STREAMING)
seeds = st.integers(0, 1000)


def build(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return MODELS[name](D).eval()


def select(state: State, streams: list[int]) -> State:
    """The state of some streams: the batch is at dimension 1."""
    parts = tuple(part[:, streams] for part in parts_of(state)) if state is not None else None
    return parts if parts is None or isinstance(state, tuple) else parts[0]


def assert_equal_outputs_and_gradients(net: nn.Module, x: Tensor, found: list[Tensor], expected: list[Tensor]) -> None:
    """Frames ``(n, H)`` computed in two ways from x, and their gradients in x and the parameters."""
    a, b = torch.cat(found), torch.cat(expected)
    close(a, b)
    weight = torch.randn(a.shape)
    leaves = [x, *net.parameters()]
    grad = partial(torch.autograd.grad, inputs=leaves, allow_unused=True, materialize_grads=True)
    for g, h in zip(grad((a * weight).sum()), grad((b * weight).sum()), strict=True):
        torch.testing.assert_close(g, h, rtol=1e-4, atol=1e-4)


@every_model
@quick(max_examples=5)
@given(seed=seeds, B=st.integers(1, 3), T=st.integers(1, 12))
def test_resets_padding_and_neighbours_change_nothing(name, seed, B, T):
    """Each sequence of a batch equals the same sequence as a separate clip."""
    net = build(name, seed)
    x, is_first, lengths = torch.randn(B, T, D, requires_grad=True), bools(B, T), torch.randint(1, T + 1, (B,))
    padding = torch.arange(T) >= lengths[:, None]
    y, _ = net(x.masked_fill(padding[..., None], 1e3), is_first, lengths=lengths)
    assert y.shape == (B, T, net.out_features) and y.isfinite().all()
    found, expected = [], []
    for b, n in enumerate(lengths.tolist()):
        starts = is_first[b, 1:n].nonzero()[:, 0] + 1
        for start, stop in pairwise([0, *starts.tolist(), n]):
            found.append(y[b, start:stop])
            expected.append(net(x[b : b + 1, start:stop])[0][0])
    assert_equal_outputs_and_gradients(net, x, found, expected)


@every_streaming_model
@quick(max_examples=5)
@given(seed=seeds, B=st.integers(1, 3), most=st.integers(1, 6))
def test_pieces_with_the_state_carried_equal_the_whole(name, seed, B, most):
    """Each stream arrives in pieces of its own lengths; the streams of later pieces are in another order."""
    net = build(name, seed)
    x, is_first, done = torch.randn(B, 3 * most, D, requires_grad=True), bools(B, 3 * most), [0] * B
    found, state = [], None
    order = list(range(B))
    for _ in range(3):
        moved = torch.randperm(B).tolist()
        order, state = [order[i] for i in moved], select(state, moved)
        lengths = torch.randint(1, most + 1, (B,))
        piece = torch.stack([x[b, done[b] : done[b] + most] for b in order])
        piece = piece.masked_fill((torch.arange(most) >= lengths[:, None])[..., None], 1e3)
        first = torch.stack([is_first[b, done[b] : done[b] + most] for b in order])
        y, state = net(piece, first, state, lengths)
        for row, (b, n) in enumerate(zip(order, lengths.tolist(), strict=True)):
            found.append((b, done[b], y[row, :n]))
            done[b] += n
    found.sort(key=lambda part: part[:2])
    whole, _ = net(x, is_first)
    expected = [whole[b, :n] for b, n in enumerate(done)]
    assert_equal_outputs_and_gradients(net, x, [y for *_, y in found], expected)


@every_streaming_model
def test_a_stream_of_single_frames_equals_the_whole(name):
    """Without gradients, as a stream runs."""
    net, x, is_first = build(name), torch.randn(2, 30, D), torch.zeros(2, 30, dtype=torch.bool)
    is_first[1, 17] = True
    with torch.no_grad():
        whole, _ = net(x, is_first)
        outputs, state = [], None
        for t in range(30):
            y, state = net(x[:, t : t + 1], is_first[:, t : t + 1], state)
            outputs.append(y)
    close(torch.cat(outputs, 1), whole)


@every_streaming_model
def test_a_state_of_zeros_is_that_of_a_new_sequence(name):
    """A graph without flags can reset a stream by zeros."""
    net, x = build(name), torch.randn(2, 5, D)
    y, state = net(x)
    if state is not None:
        zeros = tuple(torch.zeros_like(part) for part in parts_of(state))
        close(net(x, state=zeros if isinstance(state, tuple) else zeros[0])[0], y)


@every_model
def test_exactly_the_causal_models_ignore_later_frames(name):
    net, x = build(name), torch.randn(1, 12, D)
    changed = torch.cat([x[:, :8], torch.randn(1, 4, D)], 1)
    equal = torch.allclose(net(x)[0][:, :8], net(changed)[0][:, :8], rtol=1e-5, atol=1e-6)
    assert equal == net.causal


@every_model
def test_bf16_autocast_is_close_to_fp32(name):
    net, x, is_first = build(name), torch.randn(2, 9, D), bools(2, 9)
    lengths = torch.tensor([9, 5])
    y, _ = net(x, is_first, lengths=lengths)
    with torch.autocast("cpu", torch.bfloat16):
        z, _ = net(x, is_first, lengths=lengths)
    torch.testing.assert_close(z.float(), y, rtol=0.05, atol=0.05)


def noise_data() -> Data:
    g = torch.Generator().manual_seed(0)
    clips = Clips(torch.randn(8, 9, D, generator=g), torch.arange(8) % 2, torch.arange(8) % 5 + 5)
    return Data(clips, clips, ["a", "b"], "noise")


@every_model
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(name, tmp_path):
    experiment = Experiment(
        data=noise_data,
        model=partial(FrameSequenceClassifier, temporal=MODELS[name]),
        optimizer=partial(torch.optim.Adam, lr=0.01),
        steps=4,
        batch_size=4,
        checkpoint_every=2,
        log_every=1,
    )
    whole, run = tmp_path / "whole", tmp_path / "run"
    train(experiment, whole, "cpu")
    shutil.copytree(whole, run)
    list_checkpoints(run / "checkpoints")[0].unlink()
    train(experiment, run, "cpu", resume=True)
    assert len(json.loads((run / "run.json").read_text())["resumed"]) == 1
    newest = [torch.load(list_checkpoints(r / "checkpoints")[0], weights_only=True) for r in (run, whole)]
    assert newest[0]["step"] == newest[1]["step"] == 4
    for key, value in newest[0]["model"].items():
        assert torch.equal(value, newest[1]["model"][key]), key
    results = [json.loads((r / "results.json").read_text())["parts"] for r in (run, whole)]
    assert results[0] == results[1]
