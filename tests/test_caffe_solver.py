"""A solver logs the lines and figures of the original programs, and accepts the same files."""

from __future__ import annotations

import re
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch

from seqclf import caffe
from seqclf.caffe.formats.schema import schema
from seqclf.caffe.nets.threads import suitable_threads
from seqclf.caffe.solvers.update_rules import from_solver

LOSSES = (1.79076, 1.63536, 1.48742, 1.32737, 1.25061, 1.41443, 1.39693)
"""The single losses of the run that ``AVERAGED`` is from."""
AVERAGED = (1.79076, 1.63536, 1.48742, 1.32737, 1.25061, 1.33252, 1.35399)
"""What Caffe displayed with average_loss: 10, after four calls of step(1) and one of step(3)."""

NET = """
input: "x" input_shape { dim: 1 }
layer { name: "loss" type: "Power" bottom: "x" top: "loss" loss_weight: 1 }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 1 axis: 0 } }
layer { name: "none" type: "Silence" bottom: "y" }
"""
SOLVER = 'net: "net.prototxt" base_lr: 0.1 lr_policy: "fixed" average_loss: %d display: 1 snapshot_prefix: "s" '


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    return tmp_path


def make_solver(settings="", flavour="bvlc", losses=LOSSES, average_loss=10):
    Path("solver.prototxt").write_text(SOLVER % average_loss + settings)
    lines = []
    solver = caffe.load_solver("solver.prototxt", flavour=flavour, log=lines.append)
    solver.feed = lambda number: {"x": np.array([losses[number]], np.float32)}
    return solver, lines


def displayed(lines):
    return [float(found[1]) for line in lines if (found := re.fullmatch(r"Iteration \d+, loss = (\S+)", line))]


@pytest.mark.parametrize("flavour", ["bvlc", "lisa"])
def test_each_call_of_step_averages_only_its_own_losses(folder, flavour):
    solver, lines = make_solver(flavour=flavour)
    for iterations in (1, 1, 1, 1, 3):
        solver.step(iterations)
    np.testing.assert_allclose(displayed(lines), AVERAGED, atol=1e-5)


def test_average_loss_is_a_moving_window(folder):
    solver, lines = make_solver(average_loss=2)
    solver.step(4)
    np.testing.assert_allclose(displayed(lines), [1.79076, 1.71306, 1.56139, 1.407395], atol=1e-5)


@pytest.mark.parametrize(("flavour", "last"), [("bvlc", np.mean(LOSSES[:4])), ("lisa", LOSSES[3])])
def test_the_last_loss_of_a_run_is_averaged_by_bvlc_caffe_only(folder, flavour, last):
    solver, lines = make_solver("max_iter: 3", flavour)
    solver.solve()
    means = [np.mean(LOSSES[: i + 1]) for i in range(3)]
    np.testing.assert_allclose(displayed(lines), [*means, last], atol=1e-5)


def test_each_fork_has_its_wording_of_snapshots(folder):
    solver, lines = make_solver()
    solver.snapshot()
    assert lines == [
        "Snapshotting to binary proto file s_iter_0.caffemodel",
        "Snapshotting solver state to binary proto file s_iter_0.solverstate",
    ]
    solver, lines = make_solver("snapshot_format: HDF5")
    solver.snapshot()
    assert lines == [
        "Snapshotting to HDF5 file s_iter_0.caffemodel.h5",
        "Snapshotting solver state to HDF5 file s_iter_0.solverstate.h5",
    ]
    solver, lines = make_solver(flavour="lisa")
    solver.snapshot()
    assert lines == ["Snapshotting to s_iter_0.caffemodel", "Snapshotting solver state to s_iter_0.solverstate"]


@pytest.mark.parametrize("ending", ["", ".h5"])
def test_weights_are_refused_as_a_snapshot_and_the_snapshot_is_named(folder, ending):
    solver, _ = make_solver("snapshot_format: HDF5" if ending else "")
    model, state = solver.snapshot()
    with pytest.raises(caffe.CaffeFormatError, match=re.escape(f"{model}: ") + ".*" + re.escape(str(state))):
        caffe.load_solver("solver.prototxt", snapshot=model)
    with pytest.raises(caffe.CaffeFormatError, match=r"absent\.caffemodel: .*\.solverstate"):
        caffe.load_solver("solver.prototxt", snapshot="absent.caffemodel")
    state.rename("renamed")  # both are recognised by content
    assert caffe.load_solver("solver.prototxt", snapshot="renamed").iter == 0
    model.rename("other")
    with pytest.raises(caffe.CaffeFormatError, match="other: "):
        caffe.load_solver("solver.prototxt", snapshot="other")


def test_a_small_net_computes_with_one_thread_and_no_other_thread_changes(folder):
    Path("large.prototxt").write_text(
        'input: "x" input_shape { dim: 64 dim: 512 } layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" '
        "inner_product_param { num_output: 512 } }"
    )
    solver, lines = make_solver()
    before = torch.get_num_threads()
    seen = []
    try:
        torch.set_num_threads(2)
        solver.step(1, lambda: seen.append(torch.get_num_threads()))
        solver.step(1)
        assert seen == [1] and torch.get_num_threads() == 2
        assert len([line for line in lines if "1 thread" in line]) == 1
        with pytest.raises(IndexError):
            solver.step(10)
        assert torch.get_num_threads() == 2
        others = []
        thread = Thread(target=lambda: others.append(torch.get_num_threads()))
        with suitable_threads(solver.net):
            thread.start()
            thread.join()
        assert others == [2]
        with suitable_threads(caffe.load_net("large.prototxt")) as threads:
            assert threads == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


USES = ((1.0, 1.0), (2.0, 0.5), (0.5, 0.0))
"""The lr_mult and decay_mult of three layers that share a parameter."""


def lisa_update(kind, w, g, histories, rate, momentum, decay):
    """lisa-caffe's update of a shared parameter in float64: each use replaces the gradient by its own update."""
    for i, (lr_mult, decay_mult) in enumerate(USES):
        g = g + decay * decay_mult * w
        before = histories[i]
        if kind == "AdaGrad":
            histories[i] = before + g**2
            g = rate * lr_mult * g / (np.sqrt(histories[i]) + 1e-8)
        else:
            histories[i] = momentum * before + rate * lr_mult * g
            g = histories[i] if kind == "SGD" else (1 + momentum) * histories[i] - momentum * before
    return w - g


@pytest.mark.parametrize("clip", [-1, 0.5])
@pytest.mark.parametrize("kind", ["SGD", "Nesterov", "AdaGrad"])
def test_lisa_updates_a_shared_parameter_once_per_use(kind, clip):
    momentum, decay, rate = 0.0 if kind == "AdaGrad" else 0.5, 0.125, 0.0625
    param = schema("lisa").SolverParameter(
        type=kind, base_lr=rate, momentum=momentum, weight_decay=decay, clip_gradients=clip
    )
    rng = np.random.default_rng(0)
    w = rng.normal(size=(4, 3))
    p = torch.nn.Parameter(torch.from_numpy(w.copy()))
    groups = [{"params": [p], "lr_mult": lr, "decay_mult": decay_mult} for lr, decay_mult in USES]
    optimizer = from_solver(param, groups, "lisa")
    histories = [np.zeros_like(w) for _ in USES]
    for _ in range(4):
        g = rng.normal(size=w.shape)
        p.grad = torch.from_numpy(g.copy())
        optimizer.step()
        norm = np.sqrt((g**2).sum())  # the shared parameter counts once
        g = g * min(1, clip / norm) if clip > 0 else g
        w = lisa_update(kind, w, g, histories, rate, momentum, decay)
    np.testing.assert_allclose(p.detach(), w, rtol=1e-6)
    for history, expected in zip(optimizer.history(), histories, strict=True):
        np.testing.assert_allclose(history, expected, rtol=1e-6)


def test_test_nets_use_the_shared_statistics_of_the_train_net(folder):
    names = " ".join(f'param {{ name: "{name}" lr_mult: 0 }}' for name in "mvf")
    Path("net.prototxt").write_text(
        'layer { name: "in" type: "Input" top: "a" top: "b" input_param { shape { dim: 4 dim: 3 } } }'
        + "".join(
            f'layer {{ name: "bn_{x}" type: "BatchNorm" bottom: "{x}" top: "{x}_n" {names} }}'
            f'layer {{ name: "ip_{x}" type: "InnerProduct" bottom: "{x}_n" top: "{x}_y" param {{ name: "w" }} '
            'inner_product_param { num_output: 2 bias_term: false weight_filler { type: "xavier" } } }'
            for x in "ab"
        )
        + 'layer { name: "loss" type: "EuclideanLoss" bottom: "a_y" bottom: "b_y" top: "loss" }'
    )
    solver, _ = make_solver("test_iter: 1 test_interval: 9 test_initialization: false")
    a, b = torch.randn(4, 3) + 3, torch.randn(4, 3) - 1
    solver.feed = solver.test_feed = {"a": a, "b": b}
    solver.step(2)
    net, (test_net,) = solver.net, solver.test_nets
    mean, variance, weight = net.params["bn_a"]
    for part in (net, test_net):
        for name in ("bn_a", "bn_b"):
            assert all(x is y for x, y in zip(part.params[name], net.params["bn_a"], strict=True))
    decays = [0.999**i for i in (3, 2, 1, 0)]  # "bn_a" and "bn_b" update in turn, in both iterations
    torch.testing.assert_close(weight, torch.tensor([sum(decays)]))
    means = [a.mean(0), b.mean(0)] * 2
    torch.testing.assert_close(mean, sum(x * d for x, d in zip(means, decays, strict=True)))
    expected = (a - mean / weight) / (variance / weight + 1e-5).sqrt()
    torch.testing.assert_close(test_net(a=a, b=b)["a_n"], expected)
