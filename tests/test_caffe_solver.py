"""A solver logs the lines and figures of the original programs, and accepts the same files."""

from __future__ import annotations

import re
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch

from seqclf import caffe
from seqclf.caffe.threads import suitable_threads

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
