"""The LSTM kernel of the extra ``fast``: its accuracy, its threads, and when it runs."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from torch import Tensor, nn

from seqclf.batch import SeqclfError
from seqclf.models import LSTM, cpu_lstm, fused_lstm

pytest.importorskip("numba")

from seqclf.models import fused_kernels


def results(layer, sizes: list[int], tensors: list[Tensor | None], dtype: torch.dtype, used: str) -> list[Tensor]:
    """Outputs and gradients of a layer, in float64."""
    x, h0, c0, *weights = leaves = [None if t is None else t.to(dtype).requires_grad_() for t in tensors]
    outputs = layer(x, sizes, h0, c0, *weights)
    generator = torch.Generator().manual_seed(1)
    seen = [out for name, out in zip("hc", outputs, strict=True) if name in used]
    loss = sum((out * torch.randn(out.shape, generator=generator).to(dtype)).sum() for out in seen)
    return [t.detach().double() for t in (*outputs, *torch.autograd.grad(loss, [t for t in leaves if t is not None]))]


def random_layer(sizes: list[int], D: int, H: int, memory: str = "") -> list[Tensor | None]:
    torch.manual_seed(0)
    state = [torch.randn(sizes[0], H) if name in memory else None for name in ("h0", "c0")]
    scale = (D + H) ** -0.5
    return [
        torch.randn(sum(sizes), D),
        *state,
        scale * torch.randn(4 * H, D),
        scale * torch.randn(4 * H, H),
        torch.randn(4 * H),
    ]


@pytest.mark.parametrize("sizes", [[1], [4, 4, 4], [11, 8, 7, 5, 5, 2, 1]], ids=str)
@pytest.mark.parametrize(("D", "H"), [(3, 2), (5, 16), (140, 37), (fused_lstm.WIDEST, 8)])
@pytest.mark.parametrize(("memory", "used"), [("", "h"), ("h0 c0", "hc"), ("c0", "c"), ("h0", "h")])
def test_outputs_and_gradients_are_those_of_float64_to_1e_6(sizes, D, H, memory, used):
    tensors = random_layer(sizes, D, H, memory)
    found = results(fused_lstm.lstm_layer, sizes, tensors, torch.float32, used)
    expected = results(cpu_lstm.lstm_layer, sizes, tensors, torch.float64, used)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 1e-6 * max(1.0, b.abs().max())


def test_activations_saturate_and_keep_nan():
    """One unit with weights 1 from its only input to each gate."""
    inputs = torch.tensor([0.0, 1e4, -1e4, 1e38, -1e38, torch.inf, -torch.inf, torch.nan])
    zeros, ones = torch.zeros(1, 1), torch.ones(4, 1)
    h, c = fused_lstm.lstm_layer(
        inputs[:, None], [8], zeros.expand(8, 1), zeros.expand(8, 1), ones, 0 * ones, 0 * ones[:, 0]
    )
    expected = (inputs.sigmoid() * inputs.tanh())[:, None]
    torch.testing.assert_close(c, expected, equal_nan=True)
    torch.testing.assert_close(h, inputs.sigmoid()[:, None] * expected.tanh(), equal_nan=True)


def test_threads_change_no_bit(monkeypatch):
    monkeypatch.setattr(fused_lstm, "_ENOUGH", 1)
    sizes, before = [13, 13, 9, 4, 1], torch.get_num_threads()
    seen = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        try:
            tensors = random_layer(sizes, 6, 20, "h0 c0")
            h, c, d_x, _, d_c0, d_w_ih, *_ = results(fused_lstm.lstm_layer, sizes, tensors, torch.float32, "hc")
            seen.append((h, c, d_x, d_c0, d_w_ih))  # the others are products of PyTorch
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*seen, strict=True))


def test_without_a_writable_folder_the_code_is_compiled_and_not_kept(monkeypatch):
    compile_function = fused_kernels.njit

    def njit(cache: bool = False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return compile_function(**options)

    monkeypatch.setattr(fused_kernels, "njit", njit)
    assert fused_kernels._cached(lambda x: x + 1)(2) == 3


def test_a_numba_that_cannot_be_imported_is_an_error_that_names_the_way_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "seqclf.models.fused_kernels", None)
    monkeypatch.delattr("seqclf.models.fused_kernels")
    with pytest.raises(SeqclfError, match="SEQCLF_FUSED=0"):
        fused_lstm._kernels.__wrapped__()


@pytest.mark.parametrize("value", ["0", "1"])
def test_the_environment_variable_turns_it_off(value, monkeypatch):
    monkeypatch.setenv("SEQCLF_FUSED", value)
    calls = []
    monkeypatch.setattr(fused_lstm, "lstm_layer", lambda *args: calls.append(args) or cpu_lstm.lstm_layer(*args))
    LSTM(3, 4)(torch.randn(2, 5, 3), lengths=torch.tensor([5, 2]))
    assert bool(calls) == (value == "1")


@pytest.mark.parametrize(
    ("frames", "threads", "used"), [((16, 4), 1, True), ((16, 3), 1, False), ((64, 1), 1, False), ((64, 4), 2, False)]
)
def test_large_batches_of_equal_length_use_the_kernel(frames, threads, used, monkeypatch):
    monkeypatch.setenv("SEQCLF_FUSED", "1")
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    calls = []
    monkeypatch.setattr(fused_lstm, "lstm_layer", lambda *args: calls.append(args) or cpu_lstm.lstm_layer(*args))
    LSTM(3, 4)(torch.randn(*frames, 3))
    assert bool(calls) == used


def test_without_gradients_the_gates_are_not_kept(monkeypatch):
    kept = []
    forward = fused_lstm._forward
    monkeypatch.setattr(fused_lstm, "_forward", lambda *args, keep: kept.append(keep) or forward(*args, keep=keep))
    tensors, sizes = random_layer([4, 3], 3, 2), [4, 3]
    with_gradients = results(fused_lstm.lstm_layer, sizes, tensors, torch.float32, "h")[:2]
    with torch.no_grad():
        without = fused_lstm.lstm_layer(tensors[0], sizes, *tensors[1:])
    assert kept == [True, False]
    assert all(torch.equal(a, b.double()) for a, b in zip(with_gradients, without, strict=True))


def test_other_dtypes_and_traced_graphs_use_operators(monkeypatch):
    monkeypatch.setenv("SEQCLF_FUSED", "1")
    assert fused_lstm.runs(torch.zeros(1))
    assert not fused_lstm.runs(torch.zeros(1, dtype=torch.float64))
    assert not fused_lstm.runs(torch.zeros(1, device="meta"))

    class Runs(nn.Module):
        def forward(self, x):
            return x + fused_lstm.runs(x)

    program = torch.export.export(Runs(), (torch.zeros(1),), strict=False)
    assert program.module()(torch.zeros(1)) == 0


def test_a_run_records_the_kernel_and_a_resume_states_a_change(tool, tmp_path, monkeypatch):
    words = ["--config", "mnist_perframe", "--workdir", tmp_path / "run", "--device", "cpu", "data.source=digits"]
    for value, name, steps in (("0", "torch", 1), ("1", "fused", 2)):
        monkeypatch.setenv("SEQCLF_FUSED", value)
        more = ["--resume"] if steps > 1 else []
        code, out, err = tool("train", *words, *more, f"steps={steps}")
        assert code == 0, err
        assert json.loads((tmp_path / "run" / "run.json").read_text())["environment"]["lstm"] == name
        assert ("from torch to fused" in out + err) == (steps > 1)
