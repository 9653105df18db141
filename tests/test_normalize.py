"""Normalize(fit=...): mean and standard deviation of the training frames, kept with the weights."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler

import seqclf
from seqclf import Clips, Data, Experiment, FrameSequenceClassifier, Normalize, SeqclfError, Video, Videos
from seqclf.data.frames.array_file import ArrayFile
from seqclf.models.backbone import Pretrained
from seqclf.training.checks import check_normalize

LENGTHS = [4, 1, 3, 4, 2, 4]


def frames_of(D=3, seed=0):
    """Clips of several lengths, whose padding would change any mean; the last feature is constant, and large."""
    rng = np.random.default_rng(seed)
    frames = (rng.normal(0, 1, (6, 4, D)) * [1, 30, 1][:D] + [5, -100, 0][:D]).astype("float32")
    frames[..., -1] = 1e6 / 3
    for clip, length in zip(frames, LENGTHS, strict=True):
        clip[length:] = 1e9
    return frames


def valid(frames):
    return np.concatenate([clip[:length] for clip, length in zip(frames, LENGTHS, strict=True)])


def experiment(train, fit="channel", **settings):
    test = Clips(torch.full((2, 4, *train.frame_shape), 7e3), [0, 1])
    model = partial(
        FrameSequenceClassifier, preprocess=partial(Normalize, fit=fit), temporal=partial(seqclf.GRU, hidden=2)
    )
    return Experiment(
        Data(train, test, "ab", "toy"), model, torch.optim.SGD, **{"steps": 2, "batch_size": 3} | settings
    )


def trained(experiment, folder, **settings):
    seqclf.train(experiment, folder, "cpu", **settings)
    model = torch.load(folder / f"checkpoints/step_{experiment.steps}.pt", weights_only=True)["model"]
    return model["preprocess.mean"], model["preprocess.std"], json.loads((folder / "run.json").read_text())["fitted"]


@pytest.mark.parametrize("from_videos", [False, True])
def test_a_run_normalises_by_its_valid_training_frames(from_videos, tmp_path):
    frames = frames_of()
    clips = Clips(frames, [0, 1] * 3, LENGTHS)
    if from_videos:
        for i, length in enumerate(LENGTHS):
            np.save(tmp_path / f"{i}.npy", frames[i, :length])
        videos = [Video(f"{i}", ArrayFile(tmp_path / f"{i}.npy", (3,)), i % 2) for i in range(6)]
        clips = Videos(videos, training=True)
    scaler = StandardScaler().fit(valid(frames).astype("float64"))
    mean, std, fitted = trained(experiment(clips), tmp_path / "run")
    assert mean.shape == std.shape == (3, 1, 1)
    np.testing.assert_allclose(mean.flatten(), scaler.mean_, rtol=1e-6)
    np.testing.assert_allclose(std.flatten(), scaler.scale_, rtol=1e-6)  # 1 for the constant feature, too
    record = fitted["normalization"]
    assert (record["clips"], record["frames"], record["constant"]) == (6, sum(LENGTHS), [2])
    assert record["mean"] == mean.flatten().tolist() and record["std"] == std.flatten().tolist()
    outputs = Normalize(mean.flatten().tolist(), std.flatten().tolist())(torch.tensor(valid(frames)))
    torch.testing.assert_close(outputs.mean(0), torch.zeros(3), atol=1e-5, rtol=0)
    assert (outputs[:, 2] == 0).all()


def test_a_resumed_and_a_loaded_run_keep_the_statistics(tmp_path):
    frames = frames_of()
    own = experiment(Clips(frames, [0, 1] * 3, LENGTHS))
    whole = trained(experiment(Clips(frames, [0, 1] * 3, LENGTHS), steps=4), tmp_path / "whole")
    mean, std, fitted = trained(own, tmp_path / "run")
    longer = experiment(Clips(frames, [0, 1] * 3, LENGTHS), steps=4)
    resumed = trained(longer, tmp_path / "run", resume=True)
    for found in (resumed, whole):
        assert torch.equal(found[0], mean) and torch.equal(found[1], std) and found[2] == fitted
    predictor = seqclf.load(tmp_path / "run", experiment=longer)
    assert torch.equal(predictor.model.preprocess.mean, mean)
    other = experiment(Clips(frames + 50, [0, 1] * 3, LENGTHS))
    assert torch.equal(trained(other, tmp_path / "init", init=tmp_path / "run")[0], mean)


@pytest.mark.parametrize("fit", ["channel", "all"])
@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize("batch", [2, 7])
def test_pictures_are_normalised_by_channel_or_as_a_whole_however_they_are_divided(fit, bgr, batch):
    frames = torch.randint(0, 256, (7, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    normalize = Normalize(bgr=bgr, fit=fit)
    normalize.resize_to((3, 4, 5))
    record = normalize.fit_to(frames.split(batch))
    x = frames.double() / 255
    x = x.flip(1) if bgr else x
    dims = (0, 2, 3) if fit == "channel" else (0, 1, 2, 3)
    torch.testing.assert_close(normalize.mean.flatten().double(), x.mean(dims).view(-1), rtol=1e-6, atol=0)
    torch.testing.assert_close(normalize.std.flatten().double(), x.std(dims, correction=0).view(-1), rtol=1e-6, atol=0)
    found = normalize(frames).double()
    torch.testing.assert_close(found.mean(dims).view(-1), torch.zeros_like(x.mean(dims).view(-1)), atol=1e-5, rtol=0)
    assert record["frames"] == 7 and record["constant"] == []


def test_an_unfitted_model_answers_nan():
    model = FrameSequenceClassifier(partial(Normalize, fit="channel"), frame_shape=(3,), num_classes=2)
    assert model(torch.zeros(1, 2, 3))[0].isnan().all()


@pytest.mark.parametrize(
    ("settings", "words"), [({"fit": "pixel"}, "fit='pixel'"), ({"fit": "channel", "mean": 1.0}, "leave them out")]
)
def test_wrong_arguments_are_refused(settings, words):
    with pytest.raises(SeqclfError, match=words):
        Normalize(**settings)


@pytest.mark.parametrize(("batches", "words"), [([], "no training frame"), ([torch.tensor([[np.nan]])], "not finite")])
def test_frames_without_statistics_are_refused(batches, words):
    with pytest.raises(SeqclfError, match=words):
        Normalize(fit="all").fit_to(batches)


def test_only_the_preprocessing_of_the_model_is_fitted(tmp_path):
    class Wrapped(FrameSequenceClassifier):
        def __init__(self, **sizes):
            super().__init__(
                encoder=torch.nn.Sequential(Normalize(fit="all"), torch.nn.Flatten()),
                head=torch.nn.Linear(3, 2),
                **sizes,
            )

    own = replace(experiment(Clips(frames_of(), [0, 1] * 3, LENGTHS)), model=Wrapped)
    with pytest.raises(SeqclfError, match=r"encoder\.0"):
        seqclf.train(own, tmp_path, "cpu")
    assert not list(tmp_path.iterdir())


def test_a_mean_on_the_scale_of_bytes_is_refused_for_frames_of_bytes():
    frames = torch.zeros(2, 3, 3, 4, 4)
    model = partial(FrameSequenceClassifier, frame_shape=(3, 4, 4), num_classes=2)
    caffe = model(partial(Normalize, mean=(104.0, 117.0, 123.0)))
    check_normalize(caffe, Clips(frames, [0, 1]))
    with pytest.raises(SeqclfError, match=r"mean 123 .*255"):
        check_normalize(caffe, Clips(frames.byte(), [0, 1]))
    check_normalize(model(partial(Normalize, mean=0.9)), Clips(frames.byte(), [0, 1]))


def test_the_scale_of_normalize_is_checked_before_training(tmp_path):
    data = Data(*[Clips(torch.zeros(2, 3, 4, dtype=torch.uint8), [0, 1])] * 2, "ab", "toy", allow_shared=True)
    model = partial(
        FrameSequenceClassifier, preprocess=partial(Normalize, mean=123.0), temporal=partial(seqclf.GRU, hidden=2)
    )
    with pytest.raises(SeqclfError, match="mean 123"):
        seqclf.train(Experiment(data, model, torch.optim.SGD, steps=1, batch_size=2), tmp_path, "cpu")
    assert not list(tmp_path.iterdir())


def test_pretrained_weights_without_normalisation_are_warned_of(recwarn):
    clips = Clips(torch.zeros(2, 1, 3, 4, 4), [0, 1])
    for preprocess in (Normalize(), Normalize(mean=0.5), Normalize(fit="all")):
        for pretrained in (False, True):
            net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2))
            encoder = Pretrained(net, "small", "none", pretrained)
            model = FrameSequenceClassifier(preprocess, encoder, frame_shape=(3, 4, 4), num_classes=2)
            check_normalize(model, clips)
    assert [str(warning.message)[:11] for warning in recwarn] == ["the encoder"]
