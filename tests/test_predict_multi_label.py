"""Prediction of multi-label runs: classes over a threshold, in Python, in files, in streams and in the report."""

import csv
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from made_videos import noise, write_video
from sklearn.metrics import average_precision_score

from seqclf import (
    LSTM,
    Clips,
    Data,
    Experiment,
    FrameSequenceClassifier,
    Identity,
    SeqclfError,
    export,
    load,
    report,
    train,
)
from seqclf.data.video.file import VideoFile
from seqclf.labelling import given, last_frame
from seqclf.losses import binary_cross_entropy, cross_entropy
from seqclf.prediction import Prediction, Predictor, evaluate, fuse, predict, predict_part
from seqclf.reporting.label_timeline import label_timeline
from seqclf.training.checks import label_warnings

CLASSES = ["walk", "talk", "cook"]
P = torch.tensor([[0.9, 0.2, 0.4], [0.6, 0.7, 0.1], [0.1, 0.7, 0.6]])


def sensors(per_frame: bool = False) -> Data:
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 2, (12, 6, 3) if per_frame else (12, 3), generator=g)
    y[0, ..., 2] = -100
    x = torch.randn(12, 6, 4, generator=g)
    x[..., :3] += y if per_frame else y[:, None]
    clips = Clips(x, y, labelling=given if per_frame else last_frame, multi_label=True)
    return Data(clips, clips, CLASSES, "sensors")


def one_class() -> Data:
    clips = Clips(torch.randn(12, 6, 4), torch.arange(12) % 3)
    return Data(clips, clips, CLASSES, "sensors")


BASE = Experiment(
    data=sensors,
    model=partial(FrameSequenceClassifier, temporal=partial(LSTM, hidden=4)),
    optimizer=partial(torch.optim.Adam, lr=0.1),
    loss=binary_cross_entropy,
    steps=10,
    batch_size=12,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Runs "clip", "frame" and "single", and a file of the test clip 0."""
    folder = tmp_path_factory.mktemp("several")
    train(BASE, folder / "clip", "cpu")
    train(replace(BASE, data=partial(sensors, per_frame=True)), folder / "frame", "cpu")
    train(replace(BASE, data=one_class, loss=cross_entropy), folder / "single", "cpu")
    np.save(folder / "new.npy", sensors().test.frames[0].numpy())
    return folder


def known_map(truth, predicted, probabilities):
    """The mAP over known labels."""
    known = [truth[:, k] != -100 for k in range(3)]
    aps = [average_precision_score(truth[known[k], k], probabilities[known[k], k]) for k in range(3)]
    assert set(np.unique(predicted)) <= {0, 1} and predicted.shape == truth.shape == probabilities.shape
    return np.mean(aps)


def rows(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_a_prediction_names_the_classes_over_the_threshold():
    found = Prediction(P, CLASSES, "mean", multi_label=True)
    assert found.label_set("last") == [("talk", pytest.approx(0.7)), ("cook", pytest.approx(0.6))]
    assert [name for name, _ in found.label_set()] == ["walk", "talk"]  # means 0.53, 0.53, 0.37
    assert found.labels().tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]
    assert found.segments() == [("walk", 0, 2), ("talk", 1, 3), ("cook", 2, 3)]
    strict = Prediction(P, CLASSES, multi_label=True, threshold=[0.95, 0.7, 0.65])
    assert [name for name, _ in strict.label_set()] == ["talk"]
    assert Prediction(P[:1], CLASSES, multi_label=True, threshold=0.95).label_set() == []
    unseen = Prediction(P, CLASSES, seen=torch.tensor([1, 0, 1]), multi_label=True)
    assert unseen.labels()[1].tolist() == [-100] * 3 and ("walk", 0, 1) in unseen.segments()
    single = Prediction(P, CLASSES)
    assert single.label_set() == [single.label()]
    with pytest.raises(SeqclfError, match="label_set"):
        found.label()


def test_fusion_is_of_one_kind_of_labels():
    several = [Prediction(p, CLASSES, multi_label=True, threshold=0.3) for p in (P, P.flip(0))]
    fused = fuse(several)
    assert fused.multi_label and fused.threshold == 0.3
    assert torch.allclose(fused.probabilities, (P + P.flip(0)) / 2)
    with pytest.raises(SeqclfError, match="multi-label"):
        fuse([several[0], Prediction(P, CLASSES)])


def test_a_predictor_gives_the_sigmoid(folder):
    predictor = load(folder / "clip", threshold=0.2)
    frames = sensors().test.frames
    found = predictor(frames[0])
    with torch.no_grad():
        logits, _ = predictor.model(frames[:1])
    assert torch.allclose(found.probabilities, logits[0].sigmoid()) and found.threshold == 0.2
    alone = Predictor(predictor.model, CLASSES, multi_label=True)(frames[0])
    assert torch.equal(alone.probabilities, found.probabilities)
    stream = predictor.stream()
    assert torch.allclose(torch.stack([stream(frame) for frame in frames[0]]), found.probabilities, atol=1e-6)


def test_files_of_predictions_name_sets_of_classes(folder):
    found = predict(folder / "clip", folder / "new.npy", device="cpu", out=folder / "out", threshold=0.4)
    (video,) = found["videos"]
    assert found["threshold"] == 0.4 and "label" not in video
    prediction = load(folder / "clip", threshold=0.4)(sensors().test.frames[0])
    for entries, rule in ((video["labels"], None), (video["mean_of_frames"]["labels"], "mean")):
        assert [entry["class"] for entry in entries] == [name for name, _ in prediction.label_set(rule)]
    spans = [(s["class"], s["start"], s["end"]) for s in video["segments"]]
    assert spans == prediction.segments()
    for row, labels, p in zip(rows(folder / "out/new.csv"), prediction.labels(), prediction.probabilities, strict=True):
        assert row["classes"] == "|".join(CLASSES[k] for k in labels.nonzero()[:, 0].tolist())
        assert float(row["talk"]) == pytest.approx(float(p[1]), abs=1e-6)
    assert (folder / "out/new.png").stat().st_size > 5000


def test_overlapping_segments_are_the_truth_of_a_timeline(folder, monkeypatch):
    (folder / "true.csv").write_text("video,start,end,label\nnew,0,3,walk\nnew,2,6,talk\n")
    drawn = []
    monkeypatch.setattr("seqclf.prediction.files.output.label_timeline", lambda *args, **_: drawn.append(args[3]))
    found = predict(folder / "clip", folder / "new.npy", device="cpu", out=folder / "o", segments=folder / "true.csv")
    assert found["failed"] == {}
    assert drawn[0].tolist() == [[1, 0, 0]] * 2 + [[1, 1, 0]] + [[0, 1, 0]] * 3


def test_an_evaluation_lists_truth_and_unknown_classes(folder):
    results = evaluate(folder / "clip", device="cpu", threshold=[0.3, 0.5, 0.6], predictions=folder / "rows.csv")
    figures, clips = results["parts"]["test"], sensors().test
    assert results["map"] == figures["clip_last_map"] and np.allclose(figures["threshold"], [0.3, 0.5, 0.6])
    expected = predict_part(folder / "clip", device="cpu")
    for row, known, line in zip(expected, clips.labels.tolist(), rows(folder / "rows.csv"), strict=True):
        assert row.truth == known
        assert line["truth"] == "|".join(n for n, y in zip(CLASSES, known, strict=True) if y == 1)
        assert line["unknown"] == ("cook" if -100 in known else "")
        over = [p >= t for p, t in zip(row.by_rule["last"].tolist(), figures["threshold"], strict=True)]
        assert line["classes"] == "|".join(n for n, y in zip(CLASSES, over, strict=True) if y)
    per_frame = evaluate(folder / "frame", device="cpu")
    assert per_frame["map"] is None or per_frame["parts"]["test"]["clips"] > 0
    trained = json.loads((folder / "frame/results.json").read_text())["parts"]["test"]
    assert per_frame["parts"]["test"]["frame_map"] == trained["frame_map"]


@pytest.mark.parametrize("per_frame", [False, True])
def test_own_metrics_get_rows_of_classes(tmp_path, per_frame):
    own = replace(BASE, data=partial(sensors, per_frame=per_frame), metrics={"own": known_map}, steps=1)
    figures = train(own, tmp_path / "run", "cpu")["parts"]["test"]
    assert figures["own"] == pytest.approx(figures["frame_map" if per_frame else "clip_last_map"], abs=1e-12)


def test_classes_without_a_positive_are_named():
    for per_frame in (False, True):
        data = sensors(per_frame)
        assert label_warnings(data) == []
        data.train.labels[..., 1] = 0
        assert label_warnings(data) == ["no positive training label for 1 of 3 classes: talk"]


def test_commands_take_a_threshold(folder, tool):
    code, out, _ = tool("evaluate", folder / "clip", "--threshold", "0.3,0.5,0.6", "--device", "cpu")
    assert code == 0 and "mean average precision of clips by their last frame" in out
    code, out, _ = tool("stream", folder / "clip", folder / "new.npy", "--threshold", "0", "--out", folder / "s.csv")
    assert code == 0 and all(name in out.splitlines()[0] for name in CLASSES)
    assert {row["classes"] for row in rows(folder / "s.csv")} == {"walk|talk|cook"}
    code, out, _ = tool("stream", folder / "clip", folder / "new.npy", "--threshold", "1")
    assert code == 0 and json.loads(out.splitlines()[0])["labels"] == []
    code, out, _ = tool("predict", folder / "clip", folder / "new.npy", "--threshold", "0", "--no-timelines")
    assert code == 0 and all(name in out for name in CLASSES)


def pictures() -> Data:
    clips = Clips(noise(4, 3, 3, 8, 10), torch.eye(4, 3), labelling=last_frame, multi_label=True)
    return Data(clips, clips, CLASSES, "pictures")


def test_live_video_gives_the_classes_over_their_thresholds(tool, tmp_path, monkeypatch):
    pytest.importorskip("av")
    run, video = tmp_path / "run", write_video(tmp_path / "camera.mkv", noise(20, 3, 8, 10))
    train(replace(BASE, data=pictures, optimizer=partial(torch.optim.SGD, lr=0), batch_size=4, steps=1), run, "cpu")
    p = load(run)(VideoFile(video).read(range(20))).probabilities
    least = p.median(0).values + 1e-5  # each class is above it in some frames only
    sets = [{name for name, x, low in zip(CLASSES, row, least, strict=True) if x >= low} for row in p]
    assert len(set(map(frozenset, sets))) > 2
    words = (run, "-", "--threshold", ",".join(map(str, least.tolist())), "--device", "cpu")
    for more in (["--every-frame", "--record", tmp_path / "seen.mkv"], []):
        with video.open("rb") as file:
            monkeypatch.setattr("sys.stdin", file)
            code, printed, errors = tool("stream", *words, *more)
        lines = list(map(json.loads, printed.splitlines()))
        expected = [k for k in range(20) if more or k == 0 or sets[k] != sets[k - 1]]
        assert code == 0 and "20 frames, 0 dropped" in errors and [line["frame"] for line in lines] == expected
        for line in lines:
            found = {entry["class"]: entry["probability"] for entry in line["labels"]}
            assert set(found) == sets[line["frame"]] and list(found.values()) == sorted(found.values(), reverse=True)
            assert "label" not in line
            for name, x in found.items():
                assert x == pytest.approx(p[line["frame"], CLASSES.index(name)].item(), abs=1e-5)
    assert len(VideoFile(tmp_path / "seen.mkv")) == 20


@pytest.mark.slow
def test_an_export_gives_the_sigmoid(tmp_path, monkeypatch, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr("seqclf.exporting.check.SECONDS", 0.0)
    run = tmp_path / "run"
    train(replace(BASE, model=partial(FrameSequenceClassifier, temporal=Identity)), run, "cpu")
    about = export(run, int8=True, clips=4)
    assert about["not_written"] == {} and about["input"]["multi_label"]
    assert all(file["difference"] < 1e-4 for name, file in about["files"].items() if "int8" not in name)
    assert {"clip_last_map", "loss"} <= set(about["int8"]["float"])
    frames = sensors().test.frames[:1]
    session = onnxruntime.InferenceSession(run / "export/model.onnx")
    (found,) = session.run(["probabilities"], {"frames": frames.numpy()})
    assert np.allclose(found[0], load(run)(frames[0]).probabilities, atol=1e-5)
    card = (run / "export/README.md").read_text()
    assert "sigmoid" in card and "frame_map" in card
    monkeypatch.chdir(run / "export")
    exec(card.split("```python\n")[1].split("```")[0], {})
    assert capsys.readouterr().out.splitlines()[-1].startswith("[")


@pytest.mark.report
def test_the_report_has_the_average_precision_of_each_class(folder):
    for run in ("clip", "frame"):
        page = report(folder / run)
        text = page.read_text()
        assert "Average precision" in text and "Confusion" not in text and "mAP of frames" in text
        assert (page.parent / "average_precision.png").exists()


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda f: load(f / "single", threshold=0.3), "threshold=0.3"),
        (lambda f: load(f / "clip", threshold=[0.1, 0.2]), "threshold=.* 3 classes"),
        (lambda f: evaluate(f / "single", device="cpu", threshold=0.3), "threshold=0.3.*single"),
        (lambda f: evaluate(f / "clip", device="cpu", threshold=2.0), "threshold=2.0"),
        (lambda f: evaluate(f / "clip", device="cpu", data=one_class()), "multi_label=False.*clip"),
        (lambda f: predict([f / "clip", f / "single"], f / "new.npy", device="cpu"), "single.*clip.*multi-label"),
        (lambda f: train(replace(BASE, metrics={"own": len}), f / "no", "cpu"), r"metrics: own.*\(N, K\)"),
        (lambda f: train(replace(BASE, metrics={"frame_map": known_map}), f / "no", "cpu"), "metrics.*frame_map"),
        (lambda f: label_timeline(P, CLASSES, f / "t.png", P[0]), r"\(3,\).*\(3, 3\)"),
        (lambda f: label_timeline(P, CLASSES, f / "t.gif"), "t.gif"),
    ],
)
def test_settings_that_do_not_fit_are_refused(folder, call, match):
    with pytest.raises(SeqclfError, match=match):
        call(folder)
