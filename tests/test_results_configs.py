"""The configs of docs/results.md: public time series from their packages, and the TCN that reads rows."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from seqclf import SeqclfError, load_experiment, train
from seqclf.experiment.config import build_data

SMALL = ("steps=2", "batch_size=4", "model.temporal.parts.{}.channels=[4]", "model.temporal.parts.{}.kernel=3")


def settings(part, *more):
    return [*(setting.format(part) for setting in SMALL), *more]


def series(name, split, load_equal_length):
    """Series of 1 channel and 5 to 7 frames, channels first and labelled with text as in aeon."""
    rng = np.random.default_rng(0)
    return [rng.normal(size=(1, 5 + i % 3)) for i in range(8)], np.array(["b", "a"] * 4)


def test_time_series_train_from_the_package_that_holds_them(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "aeon.datasets", SimpleNamespace(load_classification=series))
    experiment = load_experiment("time_series", ["data.name=Any", *settings("fcn")])
    data = build_data(experiment)
    assert list(data.classes) == ["a", "b"] and data.train.labels.tolist() == [1, 0] * 4
    assert data.train.lengths.tolist() == [5, 6, 7, 5, 6, 7, 5, 6] and data.train.frame_shape == (1,)
    assert train(experiment, tmp_path / "run")["parts"]["test"]["clips"] == 8


@pytest.mark.parametrize(("name", "package"), [("GunPoint", "aeon.datasets"), ("Trace", "tslearn.datasets")])
def test_a_missing_package_names_the_extra(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SeqclfError, match=rf"data.name={name}.*{package}.*seqclf\[results\]"):
        build_data(load_experiment("time_series", [f"data.name={name}"]))


def test_the_tcn_of_rows_has_at_most_215_000_parameters_and_streams(tmp_path):
    model = load_experiment("mnist_tcn", []).model(frame_shape=(28,), num_classes=10)
    assert sum(p.numel() for p in model.parameters()) <= 215_000 and model.streams
    experiment = load_experiment("mnist_tcn", settings("tcn", "data.source=digits"))
    assert train(experiment, tmp_path / "run")["parts"]["test"]["clips"] == 359
