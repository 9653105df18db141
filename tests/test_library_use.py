"""Training as a library call: threads, notebooks, several configs in one process."""

import json
import random
import signal
import threading
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import seqclf
from seqclf import LSTM, Clips, Data, Experiment, FrameSequenceClassifier, SeqclfError
from seqclf.experiment.loading import load_experiment
from seqclf.runtime.random import seeded
from seqclf.training.checks import check_model
from seqclf.training.loop import train


def toy_data() -> Data:
    generator = torch.Generator().manual_seed(0)
    clips = Clips(torch.randn(20, 5, 3, generator=generator), torch.randint(0, 2, (20,), generator=generator))
    return Data(train=clips, test=clips, classes=["a", "b"], source="toy")


DROPOUT = partial(FrameSequenceClassifier, temporal=partial(LSTM, hidden=8, dropout_after=0.5))
TOY = Experiment(data=toy_data, model=DROPOUT, optimizer=partial(torch.optim.Adam, lr=1e-2), steps=20, batch_size=4)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(sorted((run / "checkpoints").iterdir())[-1], weights_only=True)["model"]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def test_runs_in_threads_equal_runs_alone(tmp_path):
    for seed in (0, 1):
        train(replace(TOY, seed=seed), tmp_path / f"alone_{seed}", "cpu")
    names = [(seed, n) for seed in (0, 1) for n in (0, 1)]
    threads = [
        threading.Thread(target=train, args=(replace(TOY, seed=seed), tmp_path / f"{seed}_{n}", "cpu"))
        for seed, n in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, n in names:
        assert same(weights(tmp_path / f"{seed}_{n}"), weights(tmp_path / f"alone_{seed}")), (seed, n)
    assert not same(weights(tmp_path / "alone_0"), weights(tmp_path / "alone_1"))


def test_training_and_loading_leave_global_state_unchanged(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    handlers = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    train(replace(TOY, deterministic=True), tmp_path / "run", "cpu")
    seqclf.load(tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1] and np.random.get_state()[1].tolist() == before[2]
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, deterministic)


def test_a_failed_run_restores_the_random_state(tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    with pytest.raises(SeqclfError, match="step 1: the loss is nan"):
        train(replace(TOY, loss=lambda logits, labels, total: logits.sum() * torch.nan), tmp_path / "run", "cpu")
    assert torch.equal(torch.get_rng_state(), before)
    with seeded(1):
        pass  # the lock is free again


def test_random_data_depends_on_the_seed_only(tmp_path):
    def noise() -> Data:
        clips = Clips(torch.randn(20, 5, 3), torch.randint(0, 2, (20,)))
        return Data(train=clips, test=clips, classes=["a", "b"], source="noise")

    for name in ("one", "two"):
        torch.rand(7)
        train(replace(TOY, data=noise), tmp_path / name, "cpu")
    assert same(weights(tmp_path / "one"), weights(tmp_path / "two"))


def closure():
    data = toy_data()
    return lambda: data


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "missing"),
    [
        ({"data": closure()}, ["data"]),
        ({"data": toy_data()}, ["data"]),
        ({"data": partial(Data, *[toy_data().train] * 2, ["a", "b"], "bound")}, ["data"]),
        ({"schedule": lambda step, steps: 1 - step / steps}, ["schedule"]),
        ({"model": lambda **sizes: DROPOUT(**sizes)}, ["model"]),
    ],
    ids=["closure", "Data", "bound clips", "schedule", "model"],
)
def test_objects_that_a_config_cannot_hold_train_and_are_named_in_the_record(tmp_path, settings, missing):
    experiment = replace(TOY, **settings)
    train(experiment, tmp_path / "run", "cpu")
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert list(record["not_recorded"]) == missing
    frames = toy_data().test.frames[0]
    expected = seqclf.load(tmp_path / "run", experiment=experiment)(frames).probabilities
    if missing == ["model"]:
        with pytest.raises(SeqclfError, match=r"does not hold model.*experiment="):
            seqclf.load(tmp_path / "run")
    else:
        assert torch.equal(seqclf.load(tmp_path / "run")(frames).probabilities, expected)
    if missing == ["data"]:
        with pytest.raises(SeqclfError, match=r"does not hold data.*experiment="):
            load_experiment(tmp_path / "run" / "config.py").data()
    if missing == ["schedule"]:
        with pytest.raises(SeqclfError, match=r"cannot resume .* does not hold schedule.*--config"):
            train(load_experiment(tmp_path / "run" / "config.py"), tmp_path / "run", "cpu", resume=True)
    assert train(experiment, tmp_path / "run", "cpu", resume=True)["step"] == TOY.steps


def test_functions_of_a_script_are_not_recorded_as_importable(tmp_path, monkeypatch):
    def own_data() -> Data:
        return toy_data()

    own_data.__module__, own_data.__qualname__ = "__main__", "own_data"  # as in a script or notebook
    train(replace(TOY, data=own_data), tmp_path / "run", "cpu")
    assert "__main__" not in (tmp_path / "run" / "config.py").read_text()
    assert list(json.loads((tmp_path / "run" / "run.json").read_text())["not_recorded"]) == ["data"]


class Stateless(nn.Module):
    """A temporal model without state."""

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.out_features = input_size

    def forward(self, x, is_first=None, state=None, lengths=None):
        return x, None


class LogitsOnly(torch.nn.Linear):
    def forward(self, frames, is_first=None, state=None, lengths=None):
        return super().forward(frames)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"loss": lambda logits: logits}, "setting loss"),
        ({"data": lambda: 3}, "setting data"),
        ({"model": lambda **sizes: 3}, "setting model"),
        ({"model": lambda frame_shape, num_classes: torch.nn.Linear(3, 2)}, "Linear.*lengths=None.*logits"),
        ({"model": lambda frame_shape, num_classes: LogitsOnly(3, 2)}, "LogitsOnly.*must return a tuple"),
        ({"model": partial(FrameSequenceClassifier, temporal=Stateless), "truncate": 2}, "truncate=2"),
    ],
)
def test_a_part_that_cannot_train_is_refused_before_the_first_step(tmp_path, settings, named):
    with pytest.raises(SeqclfError, match=named):
        train(replace(TOY, **settings), tmp_path / "run", "cpu")
    assert not (tmp_path / "run").exists()


def test_a_module_that_is_already_built_is_refused_as_a_model():
    with pytest.raises(SeqclfError, match="setting model"):
        replace(TOY, model=DROPOUT(frame_shape=(3,), num_classes=2))


CONFIG = """
import torch
from functools import partial
from seqclf import *

def data():
    from neighbour import CLIPS  # on first use, when another config may have been loaded
    generator = torch.Generator().manual_seed(0)
    clips = Clips(torch.randn(CLIPS, 5, 3, generator=generator), torch.arange(CLIPS) % 2)
    return Data(train=clips, test=clips, classes=["x", "y"], source=f"{CLIPS} clips")

def get_config():
    import neighbour
    return Experiment(data=data, model=partial(FrameSequenceClassifier, temporal=partial(LSTM, hidden=neighbour.CLIPS)),
                      optimizer=partial(torch.optim.SGD, lr=0.1), steps=2, batch_size=4)
"""


@pytest.mark.slow
def test_configs_with_neighbours_of_one_name_train_save_and_load_apart(tmp_path):
    for name, clips in (("a", 8), ("b", 12)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config_of_a_sweep.py").write_text(CONFIG)
        (tmp_path / name / "neighbour.py").write_text(f"CLIPS = {clips}\n")
    experiments = {name: load_experiment(tmp_path / name / "config_of_a_sweep.py") for name in "ab"}
    for name, experiment in experiments.items():
        train(seqclf.experiment.settings.change(experiment, "seed=1"), tmp_path / f"run_{name}", "cpu")
    for name, clips in (("a", 8), ("b", 12)):
        record = json.loads((tmp_path / f"run_{name}" / "run.json").read_text())
        assert record["data"]["train"]["clips"] == clips
        assert (tmp_path / f"run_{name}" / "sources" / "neighbour.py").read_text() == f"CLIPS = {clips}\n"
        assert seqclf.load(tmp_path / f"run_{name}").model.temporal.hidden_size == clips


def test_results_are_known_before_the_report_is_drawn(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("seqclf.training.session.report", lambda path: seen.append(path))
    results = train(replace(TOY, steps=1), tmp_path / "run", "cpu", on_results=seen.append)
    assert seen == [results, tmp_path / "run"]
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results


@pytest.mark.slow
@pytest.mark.report
def test_a_finished_run_has_its_report(tmp_path):
    train(TOY, tmp_path / "run", "cpu")
    assert (tmp_path / "run" / "report" / "index.html").is_file()


class ForgetsTraining(nn.Module):
    """A temporal model with dropout that stays on in evaluation."""

    def __init__(self, input_size):
        super().__init__()
        self.out_features = input_size

    def forward(self, x, is_first=None, state=None, lengths=None):
        return nn.functional.dropout(x, 0.5), None


@pytest.mark.parametrize(("temporal", "warned"), [(ForgetsTraining, True), (partial(LSTM, hidden=4), False)])
def test_a_model_that_is_random_in_evaluation_gives_a_warning(tmp_path, temporal, warned):
    clips = Clips(torch.randn(8, 1, 3), torch.arange(8) % 2)
    data = Data(clips, clips, ["a", "b"], "made")
    model = FrameSequenceClassifier(temporal=temporal, frame_shape=(3,), num_classes=2)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        check_model(model, data.test, data.num_classes, torch.device("cpu"))
    assert any("FrameSequenceClassifier" in str(w.message) for w in found) == warned
    assert model.training


@pytest.mark.parametrize("wrong", [None, "mnist_lastframe.py", toy_data])
def test_an_object_that_is_not_an_experiment_is_refused(tmp_path, wrong):
    with pytest.raises(SeqclfError, match=r"Experiment.*load_experiment"):
        train(wrong, tmp_path / "run", "cpu")


def summed(logits, labels, total):
    return nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")


@pytest.mark.parametrize("loss", [nn.functional.cross_entropy, summed])
def test_a_loss_of_another_signature_is_refused_before_training(tmp_path, loss):
    with pytest.raises(SeqclfError, match=r"setting loss: .*\(logits, labels, total\)"):
        train(replace(TOY, loss=loss), tmp_path / "run", "cpu")
    assert not (tmp_path / "run").exists()


class WholeClips(nn.Module):
    """A bidirectional model that declares that it ignores lengths."""

    equal_lengths = True

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.rnn, self.out_features = nn.GRU(input_size, 2, batch_first=True, bidirectional=True), 4

    def forward(self, features, is_first=None, state=None, lengths=None):
        return self.rnn(features)[0], None


@pytest.mark.parametrize("part", ["train", "test"])
def test_clips_of_several_lengths_are_refused_before_the_first_step_by_a_model_that_ignores_lengths(part, tmp_path):
    whole, labels = torch.randn(4, 5, 3), torch.tensor([0, 1, 0, 1])
    parts = {"train": Clips(whole, labels), "test": Clips(whole, labels)}
    parts[part] = Clips(whole, labels, torch.tensor([5, 5, 3, 5]))
    data = Data(**parts, classes=["a", "b"], source="toy")
    model = partial(FrameSequenceClassifier, temporal=WholeClips)
    with pytest.raises(SeqclfError, match=f"WholeClips .* {part} clips"):
        train(replace(TOY, data=data, model=model), tmp_path / "run", "cpu")
    assert not (tmp_path / "run").exists()
    parts[part] = Clips(whole, labels, torch.tensor([5, 5, 5, 5]))
    equal = Data(**parts, classes=["a", "b"], source="toy")
    assert train(replace(TOY, data=equal, model=model), tmp_path / "equal", "cpu")["step"] == TOY.steps
