"""The configs of docs/results.md: public time series from their packages, and the TCN that reads rows."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from seqclf import SeqclfError, check_temporal, load_experiment, train
from seqclf.experiment.config import build_data

SMALL = ("steps=2", "batch_size=4")


def series(name, split, load_equal_length):
    """Series of 1 channel and 5 to 7 frames, channels first and labelled with text as in aeon."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=(1, 5 + i % 3)) for i in range(8)], np.array(["b", "a"] * 4)


def test_time_series_train_from_the_package_that_holds_them(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "aeon.datasets", SimpleNamespace(load_classification=series))
    narrow = "model.temporal.parts.convolutions.channels=2"
    experiment = load_experiment("time_series", ["data.name=Any", narrow, *SMALL])
    data = build_data(experiment)
    assert list(data.classes) == ["a", "b"] and data.train.labels.tolist() == [1, 0] * 4
    assert data.train.lengths.tolist() == [5, 6, 7, 5, 6, 7, 5, 6] and data.train.frame_shape == (1,)
    assert train(experiment, tmp_path / "run")["parts"]["test"]["clips"] == 8


def random_convolutions():
    settings = [f"model.temporal.parts.convolutions.{setting}" for setting in ("channels=4", "dilations=[1,2]")]
    return load_experiment("time_series", settings).model.keywords["temporal"].keywords["parts"]["convolutions"](3)


def test_random_convolutions_keep_the_laws_of_temporal_models():
    assert check_temporal(random_convolutions(), 3).passed


def test_random_convolutions_are_not_trained_and_standardise_what_is_above_a_threshold():
    torch.manual_seed(0)
    model, lengths = random_convolutions(), torch.tensor([9, 5])
    assert not any(p.requires_grad for p in model.parameters())
    outputs, state = model(torch.randn(2, 9, 3), lengths=lengths)
    frames = torch.cat([outputs[0], outputs[1, :5]])
    positive, height, index, stretch = frames.chunk(4, -1)
    assert state is None and outputs.shape == (2, 9, model.out_features) and not outputs[1, 5:].any()
    torch.testing.assert_close(frames.mean(0), torch.zeros(model.out_features), atol=1e-5, rtol=0)
    assert all(len(column.unique()) == 2 for column in positive.T)  # above the threshold or not
    for part in (height, index, stretch):
        assert (part.where(positive < 0, 0) == part.amin(0).where(positive < 0, 0)).all()  # 0 below it


def test_random_convolutions_count_the_frames_of_each_sequence_and_of_each_stretch_above_a_threshold():
    model, is_first = random_convolutions(), torch.tensor([[False, False, False, True, False, False]])
    positive = torch.zeros(1, 6, 16)
    positive[0, [0, 1, 2, 3, 5], 0] = 1
    index, stretch = model._counts(positive, is_first, None)
    assert index[0, :, 0].tolist() == [0, 1, 2, 0, 1, 2]
    assert stretch[0, :, 0].tolist() == [1, 2, 3, 1, 0, 1] and not stretch[0, :, 1:].any()


def test_each_kernel_sums_to_0_and_the_head_starts_at_0():
    kernels = [p for p in random_convolutions().parameters() if p.dim() == 3]
    assert len(kernels) == 4 and all(kernel.sum(2).abs().max() < 1e-5 for kernel in kernels)
    head = load_experiment("time_series", []).model.keywords["head"](5, 2)
    assert head.weight.shape == (2, 5) and not any(p.any() for p in head.parameters())


@pytest.mark.parametrize(("name", "package"), [("GunPoint", "aeon.datasets"), ("Trace", "tslearn.datasets")])
def test_a_missing_package_names_the_extra(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SeqclfError, match=rf"data.name={name}.*{package}.*seqclf\[results\]"):
        build_data(load_experiment("time_series", [f"data.name={name}"]))


def test_the_tcn_of_rows_has_at_most_215_000_parameters_and_streams(tmp_path):
    model = load_experiment("mnist_tcn", []).model(frame_shape=(28,), num_classes=10)
    assert sum(p.numel() for p in model.parameters()) <= 215_000 and model.streams
    small = ["model.temporal.parts.tcn.channels=[4]", "model.temporal.parts.tcn.kernel=3"]
    experiment = load_experiment("mnist_tcn", [*SMALL, *small, "data.source=digits"])
    assert train(experiment, tmp_path / "run")["parts"]["test"]["clips"] == 359
