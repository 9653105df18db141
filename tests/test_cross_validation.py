"""Cross-validation: every clip is tested once, groups stay whole, and finished folds are not repeated."""

import csv
import json
import statistics
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

import seqclf
from seqclf import (
    GRU,
    Clips,
    Data,
    Experiment,
    FrameSequenceClassifier,
    SeqclfError,
    Video,
    Videos,
    cross_validate,
    labelling,
)
from seqclf.data.folds import fold
from seqclf.data.held_out import groups_of
from seqclf.prediction import evaluate, predict_part
from seqclf.reporting.cross_validation import print_summary
from seqclf.training import cross_validation

PEOPLE = [f"p{i % 5}" for i in range(30)]
LABELS = [i // 5 % 3 for i in range(30)]


class Frames:
    """A source of five frames in memory."""

    frame_shape = (2,)

    def __init__(self, path: str, value: float) -> None:
        self.path, self.value = path, value

    def __len__(self) -> int:
        return 5

    def read(self, numbers) -> Tensor:
        return torch.full((len(numbers), 2), self.value)


def clips(groups=None) -> Data:
    """30 clips of three classes, each with its number as the first feature."""
    frames = torch.arange(30.0)[:, None, None].expand(-1, 4, 2).clone()
    frames[..., 1] = torch.tensor(LABELS)[:, None]
    part = Clips(frames, LABELS, groups=groups)
    other = Clips(torch.full((2, 3, 2), 99.0), [0, 1], groups=None if groups is None else ["q", "q"])
    return Data(part, other, "abc", "made")


def videos(groups=None) -> Data:
    """The same as videos."""
    made = [Video(f"v{i}", Frames(f"v{i}", float(i)), label) for i, label in enumerate(LABELS)]
    part = Videos(made, training=True, workers=0, groups=groups)
    other = [Video("w", Frames("w", 99.0), 0)]
    return Data(part, Videos(other, workers=0, groups=None if groups is None else ["q"]), "abc", "made")


def numbers(part) -> list[int]:
    """The numbers of the clips of a part."""
    if isinstance(part, Clips):
        return [int(x) for x in part.frames[:, 0, 0]]
    return [int(video.source.value) for video in part.videos]


@pytest.mark.parametrize("make", [clips, videos])
@pytest.mark.parametrize(("groups", "folds"), [(None, 4), (PEOPLE, 2), (PEOPLE, None)])
def test_every_clip_is_tested_once_and_groups_stay_whole(make, groups, folds):
    parts = [fold(make(groups), n, folds, seed=1) for n in range(folds or 5)]
    assert sorted(n for data in parts for n in numbers(data.test)) == list(range(30))
    for data in parts:
        assert sorted(numbers(data.train) + numbers(data.test)) == list(range(30))
        if groups is None:
            assert set(map(LABELS.__getitem__, numbers(data.test))) == {0, 1, 2}
        else:
            assert not set(groups_of(data.train)) & set(groups_of(data.test))
        assert not getattr(data.test, "training", False)
    if folds is None:
        assert [set(groups_of(data.test)) for data in parts] == [{f"p{i}"} for i in range(5)]


@pytest.mark.parametrize("make", [clips, videos])
@pytest.mark.parametrize("groups", [None, PEOPLE])
def test_pooled_folds_are_cut_from_all_parts(make, groups):
    data = make(groups)
    parts = [fold(data, n, 3, pool=True) for n in range(3)]
    tested = sorted(n for data in parts for n in numbers(data.test))
    assert tested == [*range(30), *[99] * len(data.test)]
    lengths = [part.test.lengths for part in parts if isinstance(part.test, Clips) and part.test.lengths is not None]
    assert make is videos or sorted(n for each in lengths for n in each.tolist())[:2] == [3, 3]


@pytest.mark.parametrize(
    ("groups", "folds", "words"),
    [
        (None, 31, "folds=31: .*clips .30"),
        (None, 1, "folds=1: "),
        (None, 12, "use at most 10"),
        (PEOPLE, 6, "folds=6: .*groups .5"),
        (None, None, "needs a group"),
        (["p"] * 30, None, "group 'p'"),
    ],
)
def test_folds_that_cannot_be_made_are_refused(groups, folds, words):
    with pytest.raises(SeqclfError, match=words):
        fold(clips(groups), 0, folds)


TINY = Experiment(
    data=partial(clips, groups=PEOPLE),
    model=partial(FrameSequenceClassifier, temporal=partial(GRU, hidden=4)),
    optimizer=partial(torch.optim.Adam, lr=0.05),
    steps=4,
    batch_size=10,
    eval_every=2,
    validation=0.3,
)


def test_the_summary_is_that_of_the_folds_and_finished_folds_are_kept(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(
        cross_validation, "train", lambda e, path, *a, **k: trained.append(path) or real(e, path, *a, **k)
    )
    real = seqclf.train
    with pytest.raises(Interrupted):
        cross_validate(replace(TINY, model=fails_in_fold_2), tmp_path, 3, device="cpu")
    MADE.clear()
    summary = cross_validate(replace(TINY, model=fails_in_fold_2), tmp_path, 3, device="cpu")
    assert [path.name for path in trained] == ["fold_0", "fold_1", "fold_2", "fold_2"]
    values = []
    for row in summary["folds"]:
        results = json.loads((tmp_path / f"fold_{row['fold']}" / "results.json").read_text())
        assert row["clip_last"] == results["best"]["parts"]["test"]["clip_last"]
        held_out = json.loads((tmp_path / f"fold_{row['fold']}" / "run.json").read_text())["held_out"]
        assert not set(held_out["groups"]) & set(row["test"].split(", ")), "nothing of the test fold chooses"
        values.append(row["clip_last"])
    assert summary["mean"]["clip_last"] == statistics.mean(values)
    assert summary["sd"]["clip_last"] == statistics.stdev(values)
    assert json.loads((tmp_path / "cross_validation.json").read_text()) == summary
    rows = list(csv.DictReader((tmp_path / "cross_validation.csv").read_text().splitlines()))
    assert [row["fold"] for row in rows] == ["0", "1", "2", "mean", "sd"]
    with pytest.raises(SeqclfError, match=r"fold_0: .*lr"):
        cross_validate(replace(TINY, model=fails_in_fold_2, optimizer=partial(torch.optim.Adam, lr=1.0)), tmp_path, 3)


def share(truth, predicted, probabilities) -> float:
    return float((truth == predicted).mean())


@pytest.mark.parametrize("per_frame", [False, True])
def test_the_table_shows_the_main_metrics_and_counts_all_clips(per_frame, tmp_path, capsys):
    labels = torch.tensor(LABELS)[:, None].expand(-1, 4).clone()
    labels[:28, 0] = (labels[:28, 0] + 1) % 3
    part = Clips(torch.zeros(30, 4, 2), labels, labelling=labelling.given) if per_frame else clips().train
    data = Data(part, part.subset([0]), "abc", "made", background=[0] if per_frame else None)
    changed = replace(TINY, data=data, validation=None, steps=1, metrics={"share": share})
    summary = cross_validate(changed, tmp_path, 2, device="cpu")
    assert [row["clips"] for row in summary["folds"]] == [15, 15]
    frames = ["frame_accuracy", "frame_macro_f1", "edit", "f1_50", "loss", "share"]
    assert summary["main"] == (frames if per_frame else ["clip_last", "clip_macro_f1", "loss", "share"])
    capsys.readouterr()
    print_summary(summary)
    shown = capsys.readouterr().out
    assert "share" in shown and ("clip accuracy, last frame" in shown) == (not per_frame) == ("edit score" not in shown)
    cross_validate(changed, tmp_path, 2, device="cpu")
    assert capsys.readouterr().out.count("has finished") == 2


class Interrupted(BaseException):
    """Ends the process, as a signal that is not handled."""


MADE: list = []


def fails_in_fold_2(**shape) -> FrameSequenceClassifier:
    """A model that ends the process when the third one is built."""
    MADE.append(shape)
    if len(MADE) == 3:
        raise Interrupted
    return FrameSequenceClassifier(temporal=partial(GRU, hidden=4), **shape)


CONFIG = """
from test_cross_validation import TINY, partial, replace, videos, PEOPLE
def get_config():
    return replace(TINY, data=partial(videos, groups=PEOPLE))
"""


def test_the_command_leaves_each_group_out_and_its_folds_are_runs(tmp_path, tool):
    (tmp_path / "config.py").write_text(CONFIG)
    words = ("--config", tmp_path / "config.py", "--leave-one-group-out", "--workdir", tmp_path / "runs", "steps=2")
    code, shown, error = tool("crossval", *words, "--device", "cpu")
    assert code == 0, error
    assert "mean" in shown and "±" in shown and "p4" in shown
    results = json.loads((tmp_path / "runs/fold_3/results.json").read_text())
    assert evaluate(tmp_path / "runs/fold_3", device="cpu")["parts"]["test"] == results["best"]["parts"]["test"]
    code, _, error = tool("crossval", *words[:2], "--folds", "40", *words[3:])
    assert code == 2 and "folds=40" in error


@pytest.mark.parametrize("decision", ["last", "mean"])
def test_predictions_of_a_part_have_the_accuracy_of_the_evaluation(tmp_path, decision):
    data = replace(clips(), decision=decision)
    seqclf.train(replace(TINY, data=data), tmp_path / "run", "cpu")
    experiment = replace(TINY, data=data)
    rows = predict_part(tmp_path / "run", "train", device="cpu", experiment=experiment)
    found = evaluate(tmp_path / "run", "train", device="cpu", experiment=experiment, predictions=tmp_path / "p.csv")
    right = sum(row.label == row.truth for row in rows)
    assert right / len(rows) == found["accuracy"] == found["parts"]["train"][f"clip_{decision}"]
    assert [row.index for row in rows] == list(range(len(rows)))
    assert all(row.probabilities.shape == (3,) for row in rows)
    written = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert [(row["truth"], row["label"]) for row in written] == [("abc"[row.truth], "abc"[row.label]) for row in rows]
