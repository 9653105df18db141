"""Data out of videos on the disk, from the files to a run: made digits, annotated frames, feature sequences."""

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image

import seqclf
from seqclf import SeqclfError, annotated_set, feature_set, moving_digits, video_set
from seqclf.data.moving_digits import make_moving_digits
from seqclf.data.sampling import dense, uniform, whole, window
from seqclf.experiment.loading import load_experiment
from seqclf.training.loop import train

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FEW = ["data.videos=12", "data.test_videos=6", "steps=2", "batch_size=3", "eval_batch=3"]


@pytest.mark.parametrize(("config", "classes"), [("moving_digits", 10), ("moving_digits_frames", 11)])
def test_the_whole_path_from_video_files_to_a_prediction(config, classes, tmp_path):
    experiment = load_experiment(CONFIGS / f"{config}.py", [*FEW, f"data.root={tmp_path}/made"])
    results = train(experiment, tmp_path / "run", "cpu")
    figures = results["parts"]["test"]
    assert figures["frames"] > 6 * 24 and len(figures["confusion"]) == classes
    assert ("f1_50" in figures) == (config == "moving_digits_frames")
    predictor = seqclf.load(tmp_path / "run")
    video = seqclf.data.open_video(next((tmp_path / "made").rglob("*.mp4")))
    prediction = predictor(video.read(range(len(video))))
    assert prediction.probabilities.shape == (len(video), classes)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    return {task: make_moving_digits(root / task, 8, 4, task, "folders", seed=1) for task in ("clip", "frames")}


def test_lists_of_folders_become_clips(made):
    data = video_set(str(made["clip"]), "train.txt", "test.txt", form="plain", class_index="classes.txt")
    assert len(data.train) == 8 and len(data.test) == 4 and data.num_classes == 10 and data.background is None
    batch = data.train.batch(torch.arange(8), 5)
    assert batch.frames.shape == (8, 16, 3, 64, 64) and batch.frames.dtype == torch.uint8
    assert (batch.labels == batch.labels[:, :1]).all()
    assert data.identity()["train"]["frame_shape"] == [3, 64, 64]


def test_annotated_videos_have_the_labels_of_their_segments(made):
    root = str(made["frames"])
    data = annotated_set(root, "train.txt", "test.txt", "segments.csv", "classes.txt", background="background")
    assert data.background == [10] and len(data.test) == 4
    batch = data.test.batch(torch.arange(4))
    assert set(batch.labels.unique().tolist()) <= {seqclf.IGNORE, *range(11)} and (batch.labels == 10).any()
    in_windows = annotated_set(root, "train.txt", "test.txt", test_sampling=partial(dense, frames=8))
    assert in_windows.background is None, "segments are measured over whole videos alone"
    without = annotated_set(root, "train.txt", "test.txt", "segments.csv", "classes.txt")
    unlabelled = without.test.batch(torch.arange(4)).labels
    assert torch.equal(unlabelled == seqclf.IGNORE, (batch.labels == 10) | (batch.labels == seqclf.IGNORE))
    with pytest.raises(SeqclfError, match=r"nowhere\.txt: no such file"):
        annotated_set(root, "nowhere.txt", "test.txt", "segments.csv", "classes.txt")


@pytest.mark.parametrize(
    "data_set", [video_set, annotated_set, feature_set, moving_digits, window, dense, uniform, whole]
)
def test_settings_are_checked_by_their_types(data_set):
    assert get_type_hints(data_set)  # they resolve, or all would be taken untyped


def test_a_list_in_a_setting_is_taken(tmp_path):
    features(tmp_path / "set")
    overrides = [f"data.root={tmp_path}/set", "data.background=['nothing', 'pour']", "data.sample_rate=2"]
    data = load_experiment(CONFIGS / "features_lstm.py", overrides).data()
    assert data.background == [0, 1] and data.identity()["background"] == ["nothing", "pour"]
    with pytest.raises(SeqclfError, match=r"data\.sample_rate=two: expected an integer"):
        load_experiment(CONFIGS / "features_lstm.py", ["data.sample_rate=two"])


def test_what_was_read_is_told_and_another_list_is_measured_by_split(made):
    root, keywords = str(made["clip"]), {"form": "plain", "class_index": "classes.txt"}
    data = video_set(root, "train.txt", "test.txt", **keywords)
    frames = [sum(len(video.source) for video in part.videos) for part in (data.train, data.test)]
    assert (
        f"train.txt: form plain, 8 videos, 10 classes by classes.txt, labels from 0, {frames[0]} frames" in data.source
    )
    assert f"test.txt: form plain, 4 videos, 10 classes as given, labels from 0, {frames[1]} frames" in data.source
    other = video_set(root, "train.txt", "test.txt", split="train.txt", **keywords)
    assert len(other.test) == 8 and not other.test.training
    root = str(made["frames"])
    data = annotated_set(
        root, "train.txt", "test.txt", "segments.csv", "classes.txt", validation="test.txt", split="train.txt"
    )
    assert len(data.test) == 8 and len(data.validation) == 4
    assert "train.txt: 8 videos, " in data.source and " of them in segments; 11 classes" in data.source


def test_a_folder_that_begins_with_a_tilde_is_the_users(made, monkeypatch):
    monkeypatch.setenv("HOME", str(made["clip"].parent))
    assert len(video_set("~/clip", "train.txt", "test.txt").train) == 8
    assert len(annotated_set("~/frames", "train.txt", "test.txt", "segments.csv", "classes.txt").train) == 8


def odd_set(root):
    """Videos whose paths have spaces; one is damaged, one missing."""
    for k, name in enumerate(("a b/v 1", "a b/v 2", "c/v 1")):
        (root / name).mkdir(parents=True)
        for n in range(6):
            Image.fromarray(np.full((8, 8, 3), 40 * k + n, np.uint8)).save(root / name / f"{n}.png")
    (root / "damaged.mp4").write_bytes(b"no video")
    (root / "good.txt").write_text("a b/v 1\na b/v 2\n")
    (root / "bad.txt").write_text("a b/v 1 0\na b/v 2,1\ndamaged.mp4 0\nmissing.mp4 1\n")
    (root / "s.csv").write_text("video,start,end,label\na b/v 1,1,3,x\nv 2.mp4,0,6,y\ndamaged,0,1,x\n")
    return str(root)


def test_annotated_videos_may_have_spaces_in_their_paths_and_be_left_out(tmp_path):
    root = odd_set(tmp_path)
    read = partial(annotated_set, root, test="good.txt", segments="s.csv", classes=["x", "y"])
    data = read("bad.txt", on_error="skip")
    assert [video.name for video in data.train.videos] == ["a b/v 1", "a b/v 2"]
    assert [video.labels.tolist() for video in data.train.videos] == [[-100, 0, 0, -100, -100, -100], [1] * 6]
    assert data.skipped().keys() == {"damaged.mp4", "missing.mp4 1"}
    assert data.skipped()["missing.mp4 1"] == "bad.txt, line 4: there is no such video"
    with pytest.raises(SeqclfError, match=r"bad\.txt, line 4: video 'missing.mp4 1' is not in"):
        read("bad.txt")
    (tmp_path / "bad.txt").write_text("damaged.mp4\n")
    for on_error in ("raise", "skip"):
        with pytest.raises(SeqclfError, match=r"damaged\.mp4: this can't be read as a video"):
            read("bad.txt", on_error=on_error)
    assert "1 videos of s.csv are in no list" in read("good.txt").source
    with pytest.raises(SeqclfError, match="in seconds: fps must be"):
        read("good.txt", unit="seconds")
    in_seconds = read("good.txt", unit="seconds", fps=1)
    assert in_seconds.test.videos[0].labels.tolist() == [-100, 0, 0, -100, -100, -100]


def test_one_name_in_a_csv_of_two_videos_is_refused(tmp_path):
    root = odd_set(tmp_path)
    (tmp_path / "good.txt").write_text("a b/v 1\nc/v 1\n")
    (tmp_path / "s.csv").write_text("video,start,end,label\nv 1,1,3,x\n")
    with pytest.raises(SeqclfError, match=r"s\.csv: video v 1 may be a b/v 1 or c/v 1: write the path there"):
        annotated_set(root, "good.txt", "good.txt", "s.csv", ["x"])


def test_a_run_lists_what_was_left_out_of_it(tmp_path):
    root = odd_set(tmp_path / "set")
    data = partial(video_set, root, "bad.txt", "test.txt", on_error="skip")
    (tmp_path / "set" / "bad.txt").write_text("damaged.mp4,x\na b/v 1,x\nmissing.mp4,y\nc/v 1,y\n")
    (tmp_path / "set" / "test.txt").write_text("a b/v 2,x\ndamaged.mp4,y\n")
    experiment = seqclf.Experiment(
        data=data,
        model=partial(seqclf.FrameSequenceClassifier, temporal=partial(seqclf.LSTM, hidden=4)),
        optimizer=partial(torch.optim.Adam, lr=0.02),
        steps=2,
        batch_size=3,
        eval_batch=1,
    )
    results = train(experiment, tmp_path / "run", "cpu")
    assert results["parts"]["test"]["clips"] == 1
    skipped = json.loads((tmp_path / "run/run.json").read_text())["skipped"]
    assert skipped.keys() == {"damaged.mp4", "missing.mp4"}
    checkpoint = tmp_path / "run/checkpoints/step_2.pt"
    content = torch.load(checkpoint)
    assert content["skipped"] == skipped
    torch.save({**content, "skipped": {"mended.mp4": "was damaged"}}, checkpoint)
    train(dataclasses.replace(experiment, steps=3), tmp_path / "run", "cpu", resume=True)
    again = json.loads((tmp_path / "run/run.json").read_text())["skipped"]
    assert again == {**skipped, "mended.mp4": "was damaged"}, "kept over a resume"
    with pytest.raises(SeqclfError, match=r"bad\.txt, line 3: video 'missing\.mp4' is not in"):
        video_set(root, "bad.txt", "test.txt")


def test_the_pictures_of_a_folder_that_holds_flow_too_are_chosen_by_a_pattern(tmp_path):
    for n in range(4):
        for kind, shade in (("img", 200), ("flow_x", 10)):
            (tmp_path / "v").mkdir(exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), shade, np.uint8)).save(tmp_path / "v" / f"{kind}_{n:05}.png")
    (tmp_path / "l.txt").write_text("v 0\n")
    with pytest.raises(SeqclfError, match=r"named in 2 ways \(flow_x_\*, img_\*\).* pattern='img_\*'"):
        video_set(str(tmp_path), "l.txt", "l.txt")
    data = video_set(str(tmp_path), "l.txt", "l.txt", pattern="img_*")
    assert data.test.batch(torch.arange(1)).frames.unique().tolist() == [200]


def features(root, lengths=(30, 21, 17), cut=0):
    rng = np.random.default_rng(0)
    for folder in ("features", "groundTruth", "splits"):
        (root / folder).mkdir(parents=True)
    (root / "mapping.txt").write_text("0 nothing\n1 pour\n2 stir\n")
    names = []
    for i, length in enumerate(lengths):
        labels = rng.integers(0, 3, length)
        np.save(root / f"features/v{i}.npy", (np.eye(3)[labels].T + rng.normal(0, 0.1, (3, length))).astype(np.float32))
        words = [["nothing", "pour", "stir"][k] for k in labels]
        (root / f"groundTruth/v{i}.txt").write_text("\n".join(words[: length - cut]) + "\n")
        names.append(f"v{i}.txt\n")
    (root / "splits/train.split1.bundle").write_text("".join(names[:-1]))
    (root / "splits/test.split1.bundle").write_text(names[-1])


def test_feature_sequences_are_learned_in_windows_of_time(tmp_path):
    features(tmp_path / "set")
    experiment = seqclf.Experiment(
        data=partial(feature_set, str(tmp_path / "set"), background=["nothing"]),
        model=partial(seqclf.FrameSequenceClassifier, temporal=partial(seqclf.LSTM, hidden=16)),
        optimizer=partial(torch.optim.Adam, lr=0.02),
        steps=60,
        batch_size=2,
        truncate=8,
    )
    results = train(experiment, tmp_path / "run", "cpu")
    figures = results["parts"]["test"]
    assert figures["frames"] == 17 and figures["frame_accuracy"] == 1 and figures["f1_50"] == figures["edit"] == 100
    with pytest.raises(SeqclfError, match="background='stirr'"):
        feature_set(str(tmp_path / "set"), background=["stirr"])


def test_features_and_labels_of_two_lengths_are_cut_and_told_or_refused(tmp_path):
    features(tmp_path / "set", cut=2)
    data = feature_set(str(tmp_path / "set"), sampling=partial(window, frames=4))
    assert "cut" in data.source and len(data.test.videos[0].labels) == 15
    with pytest.raises(SeqclfError, match=r"v0"):
        feature_set(str(tmp_path / "set"), on_length="refuse")
