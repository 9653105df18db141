"""The LSTM kernel of the extra ``fast``: its accuracy, its threads, and when it runs."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

from seqclf.models import GRU, LSTM
from seqclf.models.kernels import cpu_lstm, fused_code, fused_lstm
from seqclf.models.segments import find_segments
from seqclf.runs.environment import lstm_kernel

pytest.importorskip("numba")


def fused(x: Tensor, sizes: list[int], state: tuple[Tensor, Tensor] | None, *weights: Tensor) -> list[Tensor]:
    """Outputs at every frame, and h and c after each row's last frame."""
    counts = [sum(size > row for size in sizes) for row in range(sizes[0])]
    segments = find_segments(counts, len(sizes), None, torch.device("cpu"))
    states = None if state is None else tuple(s[None] for s in state)
    outputs, (h, c) = fused_lstm.lstm_layers(x, segments, weights, states, packed=True)
    return [outputs, h[0], c[0]]


def operators(x: Tensor, sizes: list[int], state: tuple[Tensor, Tensor] | None, *weights: Tensor) -> list[Tensor]:
    w_ih, w_hh, b_ih, b_hh = weights
    h, c = cpu_lstm.lstm_layer(x, sizes, *(state or (None, None)), w_ih, w_hh, b_ih + b_hh)
    steps = [sum(size > row for size in sizes) - 1 for row in range(sizes[0])]
    last = [sum(sizes[:t]) + row for row, t in enumerate(steps)]
    return [h, h[last], c[last]]


def results(layer, sizes: list[int], tensors: list[Tensor], dtype: torch.dtype, used: list[int]) -> list[Tensor]:
    """Outputs and gradients of a layer, in float64."""
    x, *others = leaves = [t.to(dtype).requires_grad_() for t in tensors]
    outputs = layer(x, sizes, tuple(others[:-4]) or None, *others[-4:])
    generator = torch.Generator().manual_seed(1)
    loss = sum((outputs[k] * torch.randn(outputs[k].shape, generator=generator).to(dtype)).sum() for k in used)
    return [t.detach().double() for t in (*outputs, *torch.autograd.grad(loss, leaves))]


def random_layer(sizes: list[int], D: int, H: int, state: bool = False) -> list[Tensor]:
    torch.manual_seed(0)
    scale = (D + H) ** -0.5
    weights = [scale * torch.randn(4 * H, D), scale * torch.randn(4 * H, H), *torch.randn(2, 4 * H)]
    return [torch.randn(sum(sizes), D), *(torch.randn(sizes[0], H) for _ in range(2 * state)), *weights]


@pytest.mark.parametrize("sizes", [[1], [4, 4, 4], [11, 8, 7, 5, 5, 2, 1]], ids=str)
@pytest.mark.parametrize(("D", "H"), [(3, 2), (5, 16), (140, 37), (fused_lstm.WIDEST, 8)])
@pytest.mark.parametrize(("state", "used"), [(False, [0]), (True, [0, 1, 2]), (True, [2])])
def test_outputs_and_gradients_are_those_of_float64_to_1e_6(sizes, D, H, state, used, monkeypatch):
    monkeypatch.setattr(fused_lstm, "FRAMES", 9)  # so that several parts are added
    tensors = random_layer(sizes, D, H, state)
    found = results(fused, sizes, tensors, torch.float32, used)
    expected = results(operators, sizes, tensors, torch.float64, used)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 1e-6 * max(1.0, b.abs().max())


def test_activations_saturate_and_keep_nan():
    """One unit with weights 1 from its only input to each gate."""
    inputs = torch.tensor([0.0, 1e4, -1e4, 1e38, -1e38, torch.inf, -torch.inf, torch.nan])
    ones, zeros = torch.ones(4, 1), torch.zeros(4)
    h, _, c = fused(inputs[:, None], [8], None, ones, 0 * ones, zeros, zeros)
    expected = (inputs.sigmoid() * inputs.tanh())[:, None]
    torch.testing.assert_close(c, expected, equal_nan=True)
    torch.testing.assert_close(h, inputs.sigmoid()[:, None] * expected.tanh(), equal_nan=True)


@pytest.fixture
def three_threads(monkeypatch):
    """Three threads, even for the smallest of batches. Returns the names of the kernels that ran in several threads."""
    before, names = torch.get_num_threads(), set()

    def run(name: str, *arguments: int, threads: int, run=fused_code.run) -> None:
        names.update([name] if threads > 1 else [])
        run(name, *arguments, threads=threads)

    monkeypatch.setattr(fused_lstm, "_ENOUGH", 1)
    monkeypatch.setattr(fused_code, "run", run)
    torch.set_num_threads(3)
    yield names
    torch.set_num_threads(before)


@pytest.mark.parametrize("openmp", [True, False])
@pytest.mark.parametrize(("sizes", "D", "H"), [([43, 43, 39, 4, 1], 6, 20), ([2] * 4, 33, 17), ([1, 1], 3, 40)])
def test_threads_change_no_bit(sizes, D, H, openmp, three_threads, monkeypatch):
    if not openmp:
        monkeypatch.setattr(fused_code, "openmp", lambda: None)
    tensors = random_layer(sizes, D, H)
    several = results(fused, sizes, tensors, torch.float32, [0, 2])
    assert {"panels", "panels_of_transpose", "weight_gradients"} <= three_threads
    assert ({"forward", "backward"} <= three_threads) == (sizes[0] > 1)
    torch.set_num_threads(1)
    one = results(fused, sizes, tensors, torch.float32, [0, 2])
    assert all(torch.equal(a, b) for a, b in zip(several, one, strict=True))


def test_a_batch_and_its_padding_are_copied_by_several_threads(three_threads, monkeypatch):
    monkeypatch.setenv("SEQCLF_FUSED", "1")
    net, x, lengths = LSTM(3, 2), torch.randn(5, 4, 3), torch.tensor([2, 4, 1, 3, 4])
    several = net(x, lengths=lengths)[0]
    assert "take" in three_threads
    torch.set_num_threads(1)
    assert torch.equal(net(x, lengths=lengths)[0], several)


@pytest.mark.parametrize("lengths", [None, torch.tensor([4, 4, 4]), torch.tensor([2, 4, 1])])
@pytest.mark.parametrize("resets", [False, True])
def test_wide_features_give_the_same_without_gradients(lengths, resets, calls):
    torch.manual_seed(0)
    net, x = LSTM(fused_lstm.WIDEST, 3, 2), torch.randn(3, 4, fused_lstm.WIDEST)
    is_first = torch.tensor([[False] * 4, [False, True, False, True], [False, False, True, False]]) if resets else None
    with torch.no_grad():
        outputs, state = net(x, is_first, lengths=lengths)
    expected = net(x, is_first, lengths=lengths)
    for found, right in zip((outputs, *state), (expected[0], *expected[1]), strict=True):
        torch.testing.assert_close(found, right, rtol=0, atol=1e-6)
    assert len(calls) == 2


@pytest.fixture
def calls(monkeypatch):
    """The calls of the kernels."""
    calls, lstm_layers = [], fused_lstm.lstm_layers
    monkeypatch.setattr(
        fused_lstm, "lstm_layers", lambda *args, **kwargs: calls.append(args) or lstm_layers(*args, **kwargs)
    )
    return calls


@pytest.mark.parametrize("value", ["0", "1"])
def test_the_environment_variable_turns_it_off(value, monkeypatch, calls):
    monkeypatch.setenv("SEQCLF_FUSED", value)
    LSTM(3, 4)(torch.randn(2, 5, 3), lengths=torch.tensor([5, 2]))
    assert bool(calls) == (value == "1")


@pytest.mark.parametrize(
    ("frames", "threads", "openmp", "used"),
    [((16, 4), 1, False, True), ((1, 2), 1, True, True), ((64, 4), 2, True, True), ((64, 4), 2, False, False)]
    + [((64, 1), threads, True, False) for threads in (1, 2)],
)
def test_batches_of_equal_length_use_the_kernel_if_it_has_all_threads(
    frames, threads, openmp, used, monkeypatch, calls
):
    monkeypatch.setenv("SEQCLF_FUSED", "1")
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    if not openmp:
        monkeypatch.setattr(fused_code, "openmp", lambda: None)
    LSTM(3, 4)(torch.randn(*frames, 3))
    assert bool(calls) == used


def test_without_gradients_the_gates_are_not_kept(monkeypatch):
    kept = []
    forward = fused_lstm._forward_layer
    monkeypatch.setattr(fused_lstm, "_forward_layer", lambda *args: kept.append(forward(*args)) or kept[-1])
    tensors, sizes = random_layer([4, 3], 3, 2), [4, 3]
    with_gradients = results(fused, sizes, tensors, torch.float32, [0])[:3]
    with torch.no_grad():
        without = fused(tensors[0], sizes, None, *tensors[1:])
    assert [len(layer.gates) for layer in kept] == [7, 0]
    assert all(torch.equal(a, b.double()) for a, b in zip(with_gradients, without, strict=True))


def test_frozen_layers_get_no_gradients_and_leave_those_of_the_others(monkeypatch):
    monkeypatch.setenv("SEQCLF_FUSED", "1")
    x, lengths, found = torch.randn(3, 4, 5), torch.tensor([4, 1, 3]), []
    for frozen in ([], ["l0"], ["l1"]):
        torch.manual_seed(0)
        net = LSTM(5, 6, layers=3)
        for name, p in net.named_parameters():
            p.requires_grad_(name[-2:] not in frozen)
        net(x, lengths=lengths)[0].square().sum().backward()
        found.append({name: p.grad for name, p in net.named_parameters()})
    for grads in found[1:]:
        for name, grad in grads.items():
            assert grad is None or torch.equal(grad, found[0][name])
    assert [sum(grad is None for grad in grads.values()) for grads in found] == [0, 4, 4]


def test_other_dtypes_and_traced_graphs_use_operators(monkeypatch):
    monkeypatch.setenv("SEQCLF_FUSED", "1")
    assert fused_lstm.runs(torch.zeros(1), [torch.zeros(1)])
    for other in (torch.zeros(1, dtype=torch.float64), torch.zeros(1, device="meta")):
        assert not fused_lstm.runs(other, [torch.zeros(1)]) and not fused_lstm.runs(torch.zeros(1), [other])

    with FakeTensorMode():
        fake = torch.zeros(1)
    assert not fused_lstm.runs(fake, [torch.zeros(1)]) and not fused_lstm.runs(torch.zeros(1), [fake])

    class Runs(nn.Module):
        def forward(self, x):
            return x + fused_lstm.runs(x, [])

    program = torch.export.export(Runs(), (torch.zeros(1),), strict=False)
    assert program.module()(torch.zeros(1)) == 0


def test_only_models_with_an_lstm_of_ours_have_a_kernel_to_record(monkeypatch):
    monkeypatch.setenv("SEQCLF_FUSED", "1")
    net, cpu = nn.Sequential(nn.LSTM(2, 3), GRU(2, 3)), torch.device("cpu")
    assert lstm_kernel(net, cpu) is None
    net.append(LSTM(2, 3))
    assert lstm_kernel(net, cpu) == "fused"
    assert lstm_kernel(net, torch.device("cuda")) == "torch"


def test_a_run_records_the_kernel_and_a_resume_states_a_change(tool, tmp_path, monkeypatch):
    words = ["--config", "mnist_perframe", "--workdir", tmp_path / "run", "--device", "cpu", "data.source=digits"]
    for value, name, steps in (("0", "torch", 1), ("1", "fused", 2)):
        monkeypatch.setenv("SEQCLF_FUSED", value)
        more = ["--resume"] if steps > 1 else []
        code, out, err = tool("train", *words, *more, f"steps={steps}")
        assert code == 0, err
        assert json.loads((tmp_path / "run" / "run.json").read_text())["environment"]["lstm"] == name
        assert ("from torch to fused" in out + err) == (steps > 1)
