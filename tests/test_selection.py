"""Model selection: clips held out for validation, the metric that chooses, early stopping, averaged weights."""

import json
import re
from collections import Counter
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from seqclf import (
    IGNORE,
    LSTM,
    Clips,
    Data,
    Experiment,
    FrameSequenceClassifier,
    SeqclfError,
    Video,
    Videos,
    compare,
    labelling,
    mnist,
)
from seqclf.data import whole, window
from seqclf.data.held_out import hold_out
from seqclf.experiment.config import build_data
from seqclf.prediction import evaluate, load_run
from seqclf.reporting.metrics import metric_title, print_results
from seqclf.runs.checkpoint import load_checkpoint
from seqclf.training.average import WeightAverage
from seqclf.training.loop import train
from seqclf.training.selection import choose


class Frames:
    """A source of frames in memory."""

    def __init__(self, path: str, frames: int) -> None:
        self.path, self.frames, self.frame_shape = path, frames, (2,)

    def __len__(self) -> int:
        return self.frames

    def read(self, numbers) -> Tensor:
        return torch.tensor([[float(n), 0.0] for n in numbers])


def in_memory(labels, groups=None, **more) -> Data:
    frames = torch.arange(len(labels) * 3.0).reshape(-1, 3)
    test = Clips(torch.zeros(2, 3), [0, 1], labelling=more.get("labelling", labelling.last_frame))
    return Data(Clips(frames, torch.tensor(labels), groups=groups, **more), test, "abc", "made")


def of_videos(labels, groups=None, paths=None) -> Data:
    paths = paths or [f"v{i}" for i in range(len(labels))]
    videos = [Video(f"{path}, {i}", Frames(path, 9), k) for i, (path, k) in enumerate(zip(paths, labels, strict=True))]
    train_part = Videos(videos, partial(window, frames=4), training=True, workers=0, groups=groups)
    return Data(train_part, Videos([Video("t", Frames("t", 9), labels[0])], workers=0), "abc", "made")


@pytest.mark.parametrize("make", [in_memory, of_videos])
def test_every_class_gives_the_same_share_of_its_clips(make):
    labels = [0] * 10 + [1] * 20 + [2] * 2
    data = hold_out(make(labels), 0.2, seed=3)
    kept, held = (Counter(labels_of(clips)) for clips in (data.train, data.validation))
    assert held == {0: 2, 1: 4, 2: 1} and kept == {0: 8, 1: 16, 2: 1}
    again, other = hold_out(make(labels), 0.2, seed=3), hold_out(make(labels), 0.2, seed=4)
    assert again.held_out == data.held_out != other.held_out
    assert again.train.fingerprint() == data.train.fingerprint()


def labels_of(clips) -> list:
    return clips.labels.tolist() if isinstance(clips, Clips) else [video.labels for video in clips.videos]


def test_no_clip_is_lost_and_none_is_in_both_parts():
    data = in_memory([0, 1, 2] * 7)
    parts = hold_out(data, 0.3, seed=0)
    rows = torch.cat([parts.train.frames, parts.validation.frames])
    assert sorted(map(tuple, rows[..., 0].tolist())) == sorted(map(tuple, data.train.frames[..., 0].tolist()))
    assert torch.equal(data.train.frames[parts.held_out["clips"]], parts.validation.frames)


@pytest.mark.parametrize("make", [in_memory, of_videos])
def test_groups_are_held_out_as_a_whole(make):
    groups = ["ann", "bob", "cid", "dan", "eve"] * 6
    data = hold_out(make([0, 1, 2] * 10, groups), 0.4, seed=1)
    assert not set(data.train.groups) & set(data.validation.groups)
    assert data.held_out["groups"] == sorted(set(data.validation.groups)) and len(data.held_out["groups"]) == 2


def test_clips_of_one_video_are_a_group():
    data = hold_out(of_videos([0, 1, 2] * 4, paths=["a", "b", "c", "d"] * 3), 0.25, seed=0)
    kept, held = ({video.source.path for video in clips.videos} for clips in (data.train, data.validation))
    assert len(held) == 1 and not kept & held


def test_held_out_videos_are_read_as_test_videos_are():
    data = hold_out(of_videos([0, 1, 2] * 4), 0.25, seed=0)
    assert data.train.training and not data.validation.training
    assert data.train.num_frames == 4 and data.validation.num_frames == 9


def test_a_clip_with_labels_per_frame_counts_by_its_most_frequent_one():
    rows = [[k, k, IGNORE] for k in (0, 1, 2) for _ in range(4)]
    train_part = Clips(torch.zeros(12, 3), torch.tensor(rows), labelling=labelling.given)
    data = Data(train_part, train_part.subset([0]), "abc", "made")
    held = hold_out(data, 0.25, seed=0).validation.labels[:, 0]
    assert sorted(held.tolist()) == [0, 1, 2]
    with_background = replace(data, background=[0])
    with_background.train.labels[:, :1] = 0  # as frequent as the digit, but background
    assert sorted(hold_out(with_background, 0.25, seed=0).validation.labels[:, 1].tolist()) == [0, 1, 2]


def test_a_clip_with_several_classes_counts_by_the_rarest_one():
    rows = torch.tensor([[1, 0, 0]] * 8 + [[1, 1, 0]] * 4 + [[0, 0, 0]] * 4)
    train_part = Clips(torch.zeros(16, 3), rows, multi_label=True)
    held = hold_out(Data(train_part, train_part.subset([0]), "abc", "made"), 0.25, seed=0).validation.labels
    assert Counter(map(tuple, held.tolist())) == {(1, 0, 0): 2, (1, 1, 0): 1, (0, 0, 0): 1}


def test_the_only_clip_of_a_class_stays_in_training(capsys):
    data = hold_out(in_memory([0] * 4 + [1] * 4 + [2]), 0.25, seed=0)
    assert Counter(data.train.labels.tolist()) == {0: 3, 1: 3, 2: 1}
    assert "1 classes have only one clip" in data.held_out["description"]


@pytest.mark.parametrize("share", [0, 1, -0.5, 2, float("nan")])
def test_a_share_outside_0_and_1_is_refused(share):
    with pytest.raises(SeqclfError, match=f"setting validation={share}"):
        replace(TINY, validation=share)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (in_memory([0, 1, 2]), "no class has two training clips"),
        (in_memory([0, 1, 2] * 3, ["ann"] * 9), "'ann'"),
        (replace(in_memory([0, 1, 2] * 3), validation=Clips(torch.zeros(1, 3), [0])), "of its own"),
    ],
)
def test_data_that_cannot_be_split_are_refused(data, words):
    with pytest.raises(SeqclfError, match=rf"setting validation=0\.5.*{words}"):
        build_data(replace(TINY, data=data, validation=0.5))


def test_groups_in_two_parts_or_of_the_wrong_number_are_refused():
    clips = Clips(torch.zeros(3, 2, 1), [0, 1, 2], groups=["ann", "bob", "bob"])
    with pytest.raises(SeqclfError, match="'bob' is in the train part and in the test part"):
        Data(clips, clips.subset([2]), "abc", "made")
    with pytest.raises(SeqclfError, match="groups: 2 names, expected 3"):
        Clips(torch.zeros(3, 2, 1), [0, 1, 2], groups=["ann", "bob"])


def digits() -> Data:
    """120 of the built-in digits to train, 60 to test."""
    clips = mnist(source="digits").train
    return Data(clips.subset(range(120)), clips.subset(range(120, 180)), "0123456789", "digits")


TINY = Experiment(
    data=digits,
    model=partial(FrameSequenceClassifier, temporal=partial(LSTM, hidden=12)),
    optimizer=partial(torch.optim.Adam, lr=0.02),
    steps=12,
    batch_size=20,
    validation=0.25,
    eval_every=3,
    checkpoint_every=3,
    keep=1,
)


def lines_of(run, part) -> list[dict]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["part"] == part]


@pytest.mark.parametrize(("best_by", "choose"), [(None, max), ("top5_accuracy", max), ("loss", min)])
def test_the_metric_chooses_the_checkpoint(tmp_path, best_by, choose):
    results = train(replace(TINY, best_by=best_by), tmp_path / "run", "cpu")
    lines = lines_of(tmp_path / "run", "validation")
    metric = best_by or "clip_last"
    expected = choose(lines, key=lambda line: line[metric])
    assert [results["best"][name] for name in ("step", "metric", "value")] == [
        expected["step"],
        metric,
        expected[metric],
    ]


def test_the_best_checkpoint_is_measured_on_test_besides_the_last_step(tmp_path, capsys):
    falling = replace(TINY, schedule=rising_after_9)
    results = train(falling, tmp_path / "run", "cpu")
    best = results["best"]
    assert best["step"] < 12, "the learning rate ruins the later steps"
    for checkpoint, parts in (("best", best["parts"]), ("newest", results["parts"])):
        assert evaluate(tmp_path / "run", checkpoint=checkpoint, device="cpu")["parts"]["test"] == parts["test"]
    print_results(results)
    shown = capsys.readouterr().out
    assert f"step {best['step']}" in shown and f"{100 * best['parts']['test']['clip_last']:.2f} %" in shown
    row = compare([tmp_path / "run"])[0]
    assert row["test.clip_last"] == results["parts"]["test"]["clip_last"]
    assert row["best_test.clip_last"] == best["parts"]["test"]["clip_last"]


def rising_after_9(step: int, steps: int) -> float:
    return 1.0 if step < 9 else 100.0


def test_a_run_evaluates_on_the_clips_that_it_held_out(tmp_path):
    results = train(TINY, tmp_path / "run", "cpu")
    found = evaluate(tmp_path / "run", "validation", "newest", device="cpu")
    assert found["parts"]["validation"] == results["parts"]["validation"]


def test_a_metric_that_there_is_not_is_refused_with_those_that_there_are(tmp_path):
    with pytest.raises(SeqclfError, match=r"best_by=f1_50: .*frame_accuracy.*clip_last"):
        train(replace(TINY, best_by="f1_50"), tmp_path / "run", "cpu")
    with pytest.raises(SeqclfError, match="best_by=clip_last: the data has no validation part"):
        train(replace(TINY, best_by="clip_last", validation=None), tmp_path / "run", "cpu")


PER_FRAME = Clips(torch.zeros(2, 3, 2), [[0, 1, 1], [2, 1, 0]], labelling=labelling.given)
PER_CLIP = Clips(torch.zeros(2, 3, 2), [1, 1])
SEVERAL = Clips(torch.zeros(2, 3, 2), torch.tensor([[0, 1, 0], [1, 0, 0]]), multi_label=True)


@pytest.mark.parametrize(
    ("clips", "best_by", "words"),
    [
        (PER_FRAME, "clip_macro_f1", "no label that this metric counts.* frame_accuracy"),
        (PER_FRAME, "clips", "no such metric"),
        (PER_CLIP, "clip_kappa", "no label that this metric counts.* clip_last"),
        (PER_CLIP, "edit", "no such metric"),
        (SEVERAL, "clip_last_map", "no label that this metric counts.* label_accuracy"),
        (SEVERAL, None, "best_by=clip_last_map: .*no label that this metric counts"),
    ],
)
@pytest.mark.parametrize("in_files", [False, True])
def test_a_metric_without_labels_on_the_validation_part_is_refused_before_a_run_begins(
    clips, best_by, words, in_files, tmp_path
):
    validation = replace_positives(clips) if clips.multi_label else clips
    if in_files:
        labels = validation.labels if clips is not PER_CLIP else validation.labels.tolist()
        videos = [Video(f"v{i}", Frames(f"v{i}", 3), label) for i, label in enumerate(labels)]
        validation = Videos(videos, labelling=clips.labelling, multi_label=clips.multi_label, workers=0)
    data = Data(clips, clips, "abc", "made", validation)
    with pytest.raises(SeqclfError, match=words):
        train(replace(TINY, data=data, validation=None, best_by=best_by), tmp_path / "run", "cpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("best_by", [None, "frame_weighted_f1", "clip_last"])
def test_a_few_clips_of_one_label_give_no_metrics_of_clips_unless_chosen(best_by, tmp_path, capsys):
    rows = torch.tensor([[0, 0, 0], [0, 1, 2], [2, 1, 0]])
    clips = Clips(torch.zeros(3, 3, 2), rows, labelling=labelling.given)
    data = Data(clips, clips, "abc", "made", clips)
    results = train(replace(TINY, data=data, validation=None, best_by=best_by), tmp_path / "run", "cpu")
    chosen = best_by or "frame_accuracy"
    assert results["best"]["metric"] == chosen
    lines = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert all({name for name in line if name.startswith("clip_")} <= {chosen} for line in lines)
    capsys.readouterr()
    print_results(results)
    shown = capsys.readouterr().out
    assert "macro F1 of frames" in shown and "macro F1 of clips" not in shown
    assert metric_title(chosen) in shown and ("clip accuracy" in shown) == (best_by == "clip_last")
    found = evaluate(tmp_path / "run", data=data, device="cpu")
    assert found["accuracy"] is None and found["parts"]["test"]["clip_last"] is not None


def test_labels_are_read_without_frames_as_batches_have_them_and_on_the_device():
    several = [Video(f"v{i}", Frames(f"v{i}", 9 - i), torch.arange(9 - i) % 3) for i in range(2)]
    of_videos = [Videos(several, sampling, workers=0) for sampling in (whole, partial(window, frames=4))]
    for clips in (PER_FRAME, PER_CLIP, SEVERAL, *of_videos):
        ((labels, lengths),) = clips.label_batches()
        batch = clips.batch(torch.arange(len(clips)))
        assert torch.equal(labels, batch.labels)
        assert (lengths is None) == (batch.lengths is None) and (lengths is None or torch.equal(lengths, batch.lengths))
    devices = {labels.device.type for labels, _ in Videos(several, workers=0, device="meta").label_batches()}
    assert devices == {"meta"}


def replace_positives(clips) -> Clips:
    """The clips with no positive label."""
    return Clips(clips.frames, torch.zeros_like(clips.labels), multi_label=True)


def test_the_loss_chooses_among_evaluations_with_a_finite_one():
    state = SimpleNamespace(best=None, stale=0, stopped=None)
    for state.step, loss in enumerate([float("nan"), 2.0, float("inf"), 1.0, None]):
        choose(state, "loss", {"loss": loss}, 3)
    assert (state.best["step"], state.best["value"], state.stale) == (3, 1.0, 1)


def valued(truth, predicted, probabilities, evaluations: int) -> float:
    """A metric that is NaN on the 29 validation clips after this number of evaluations."""
    COUNT["evaluations"] = COUNT.get("evaluations", 0) + (len(truth) == 29)
    return 0.5 if len(truth) != 29 or COUNT["evaluations"] <= evaluations else float("nan")


@pytest.mark.filterwarnings("ignore:metric own")
@pytest.mark.parametrize(("evaluations", "best", "last"), [(1, 3, 9), (0, None, 6)])
def test_an_evaluation_without_a_value_is_no_improvement(evaluations, best, last, tmp_path, capsys):
    COUNT["evaluations"] = 0
    own = {"own": partial(valued, evaluations=evaluations)}
    results = train(replace(TINY, metrics=own, best_by="own", patience=2), tmp_path / "run", "cpu")
    assert (results["best"] and results["best"]["step"], results["step"]) == (best, last)
    assert results["stopped"]["by"] == "patience"
    shown = capsys.readouterr().out
    assert f"own has no value after step {last}" in shown and ("no best checkpoint" in shown) == (best is None)
    assert evaluate(tmp_path / "run", device="cpu")["step"] == (best or last)


def falling_after_6(step: int, steps: int) -> float:
    """The learning rate: nothing is learned after step 6."""
    return 1.0 if step < 6 else 0.0


PATIENT = replace(TINY, steps=30, patience=2, schedule=falling_after_6, best_by="loss")


def test_a_run_stops_when_it_has_lost_patience_and_resumes_exactly(tmp_path):
    whole = train(PATIENT, tmp_path / "whole", "cpu")
    assert whole["step"] == 12 and whole["best"]["step"] == 6, "evaluated after 3, 6, 9 and 12 steps"
    assert whole["stopped"]["step"] == 12 and whole["stopped"]["by"] == "patience"
    for stop in (7, 11):
        with pytest.raises(Ended):
            train(replace(PATIENT, augment=partial(ends, at=stop)), tmp_path / f"run_{stop}", "cpu")
        resumed = train(PATIENT, tmp_path / f"run_{stop}", "cpu", resume=True, allow=["augment"])
        assert_same(resumed, whole)
    again = train(PATIENT, tmp_path / "whole", "cpu", resume=True)
    assert_same(again, whole)
    longer = train(replace(PATIENT, patience=3), tmp_path / "whole", "cpu", resume=True)
    assert longer["step"] == 15 and longer["best"]["step"] == 6


class Ended(BaseException):
    """Ends a run as a signal that cannot be caught."""


def ends(frames: Tensor, generator: torch.Generator, at: int) -> Tensor:
    COUNT["calls"] = COUNT["calls"] % at + 1
    if COUNT["calls"] == at:
        raise Ended
    return frames


COUNT = {"calls": 0}


def assert_same(results: dict, others: dict) -> None:
    names = ("step", "best", "stopped", "parts")
    assert {name: results[name] for name in names} == {name: others[name] for name in names}


def test_the_callback_sees_each_evaluation_and_may_stop_the_run(tmp_path):
    seen = {}

    def at_6(step, metrics):
        seen[step] = metrics["clip_last"]
        return step == 6

    results = train(TINY, tmp_path / "run", "cpu", on_evaluation=at_6)
    assert seen == {line["step"]: line["clip_last"] for line in lines_of(tmp_path / "run", "validation")}
    assert list(seen) == [3, 6] and results["step"] == 6 and results["stopped"]["by"] == "on_evaluation"
    assert train(TINY, tmp_path / "run", "cpu", resume=True)["step"] == 12, "without the callback, to the end"


def test_an_exception_of_the_callback_leaves_a_checkpoint_that_resumes_exactly(tmp_path):
    def fails(step, metrics):
        if step == 6:
            raise KeyError("pruned")

    rarely = replace(TINY, checkpoint_every=100, best_by="loss")
    with pytest.raises(KeyError, match="pruned"):
        train(rarely, tmp_path / "run", "cpu", on_evaluation=fails)
    resumed = train(rarely, tmp_path / "run", "cpu", resume=True)
    assert_same(resumed, train(rarely, tmp_path / "whole", "cpu"))
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == (tmp_path / "whole/metrics.jsonl").read_bytes()


def test_patience_needs_a_validation_part(tmp_path):
    with pytest.raises(SeqclfError, match="patience=2: the data has no validation part"):
        train(replace(TINY, patience=2, validation=None), tmp_path / "run", "cpu")


AVERAGED = replace(TINY, ema=0.8)


def test_the_average_follows_its_formula_and_predicts(tmp_path):
    steps = {}
    for step in (1, 2, 3, 4):
        train(replace(TINY, steps=step, eval_every=1), tmp_path / f"{step}", "cpu")
        content = load_checkpoint(tmp_path / f"{step}/checkpoints/step_{step}.pt")
        steps[step] = content["model"]["head.weight"]
    expected = steps[1]
    for step in (2, 3, 4):
        decay = min(0.8, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * steps[step]
    train(replace(AVERAGED, steps=4, eval_every=1), tmp_path / "averaged", "cpu")
    content = load_checkpoint(tmp_path / "averaged/checkpoints/step_4.pt")
    torch.testing.assert_close(content["model"]["head.weight"], expected)
    assert torch.equal(content["trained"]["head.weight"], steps[4]), "training goes on as without an average"
    model = load_run(tmp_path / "averaged", "4")[1]
    assert torch.equal(model.head.weight, content["model"]["head.weight"])


def test_averaged_runs_evaluate_their_average_and_resume_bit_for_bit(tmp_path):
    whole = train(AVERAGED, tmp_path / "whole", "cpu")
    assert whole["ema"] == 0.8
    with pytest.raises(Ended):
        train(replace(AVERAGED, augment=partial(ends, at=8)), tmp_path / "run", "cpu")
    resumed = train(AVERAGED, tmp_path / "run", "cpu", resume=True, allow=["augment"])
    assert_same(resumed, whole)
    one, other = (load_checkpoint(tmp_path / run / "checkpoints/step_12.pt") for run in ("run", "whole"))
    for part in ("model", "trained"):
        assert all(torch.equal(one[part][name], other[part][name]) for name in other[part])
    found = evaluate(tmp_path / "whole", checkpoint="newest", device="cpu")["parts"]["test"]
    assert found == whole["parts"]["test"] != train(TINY, tmp_path / "plain", "cpu")["parts"]["test"]


def test_statistics_of_batch_norm_are_those_of_the_model():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    average = WeightAverage(0.9)
    for step in (1, 2):
        model(torch.randn(5, 2))
        average.update(model, step)
        with torch.no_grad():
            model[0].weight += 1
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with average.applied(model):
        assert torch.equal(model[1].running_mean, before["1.running_mean"])
        assert not torch.equal(model[0].weight, before["0.weight"])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("ema", 1),
        ("ema", "0.9"),
        ("validation", 1),
        ("patience", 0),
        ("patience", "2"),
        ("patience", 1.5),
        ("eval_every", None),
        ("seed", 0.5),
        ("loss", "focal_loss"),
        ("augment", "noise"),
        ("sampler", None),
    ],
)
def test_settings_of_a_wrong_type_or_out_of_range_are_refused(setting, value):
    with pytest.raises(SeqclfError, match=f"setting {setting}={re.escape(repr(value))}: expected"):
        replace(TINY, **{setting: value})


def test_a_run_without_a_folder_gets_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runs = [train(replace(TINY, steps=1), device="cpu")["run"] for _ in range(2)]
    assert len({*runs}) == 2 and all((tmp_path / run / "results.json").is_file() for run in runs)
    assert all(run.startswith("runs/digits_") for run in runs) and f"run {runs[1]}" in capsys.readouterr().out
    with pytest.raises(SeqclfError, match="workdir"):
        train(TINY, resume=True)


def test_the_best_checkpoint_predicts_and_a_missing_one_is_named(tmp_path, tool):
    results = train(replace(TINY, schedule=rising_after_9, keep=2), tmp_path / "run", "cpu")
    best = results["best"]["step"]
    assert best < 12 and evaluate(tmp_path / "run", device="cpu")["step"] == best
    assert load_run(tmp_path / "run")[3].stem == f"step_{best}"
    code, _, error = tool("evaluate", tmp_path / "run", "--checkpoint", "77")
    assert code == 2 and "77" in error and "12, 9" in error
