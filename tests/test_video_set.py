"""Data out of videos on the disk, from the files to a run: made digits, annotated frames, feature sequences."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import seqclf
from seqclf import SeqclfError, annotated_set, feature_set, video_set, window
from seqclf.config import load_experiment
from seqclf.data.moving_digits import make_moving_digits
from seqclf.train import train

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
    without = annotated_set(root, "train.txt", "test.txt", "segments.csv", "classes.txt")
    unlabelled = without.test.batch(torch.arange(4)).labels
    assert torch.equal(unlabelled == seqclf.IGNORE, (batch.labels == 10) | (batch.labels == seqclf.IGNORE))
    with pytest.raises(SeqclfError, match=r"nowhere\.txt: no such file"):
        annotated_set(root, "nowhere.txt", "test.txt", "segments.csv", "classes.txt")


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
