"""Clips in memory from tensors, NumPy arrays and lists: what is converted, padded or refused."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from seqclf import IGNORE, Clips, Data, Normalize, SeqclfError, labelling
from seqclf.data import every_frame, given, last_frame

X = torch.arange(4 * 5 * 3, dtype=torch.float32).view(4, 5, 3)
Y = torch.tensor([0, 1, 1, 0])


@pytest.mark.parametrize("frames", [X, X.numpy(), X.tolist(), list(X), list(X.numpy()), X.numpy()[::-1][::-1]])
@pytest.mark.parametrize(
    "labels", [Y, Y.numpy(), Y.tolist(), Y.int(), Y.to(torch.uint8), Y.numpy().astype(">i2"), Y.float()]
)
def test_tensors_arrays_and_lists_give_the_same_clips(frames, labels):
    clips = Clips(frames, labels, np.full(4, 5, np.int32))
    assert clips.fingerprint() == Clips(X, Y, torch.full((4,), 5)).fingerprint()
    assert clips.frames.dtype == torch.float32 and clips.labels.dtype == clips.lengths.dtype == torch.int64


@pytest.mark.parametrize(
    ("dtype", "becomes"),
    [
        *((name, torch.float32) for name in ("float16", "float32", "float64")),
        *((name, torch.uint8) for name in ("bool", "uint8", "int8", "int16", "uint16", "int64")),
    ],
)
def test_frames_of_other_types_are_converted_and_noted(dtype, becomes):
    values = np.arange(60).reshape(4, 5, 3) % (2 if dtype == "bool" else 60)
    clips = Clips(values.astype(dtype), Y)
    assert clips.frames.dtype == becomes and np.array_equal(clips.frames.numpy(), values)
    same = dtype == str(becomes).removeprefix("torch.")
    assert (clips.notes == []) == same and (same or dtype in clips.notes[0])
    data = Data(train=clips, test=clips, classes=["a", "b"], source="mine")
    assert data.source.startswith("mine") and (dtype in data.source) != same
    assert Data(train=clips, test=clips.to("cpu"), classes="ab", source="m").to("cpu").source.count("converted") <= 1


def test_clips_of_unequal_length_are_padded_and_their_lengths_known():
    ragged = [np.ones((3, 2)), np.ones((5, 2)), np.ones((1, 2))]
    clips = Clips(ragged, [0, 1, 0], labelling=last_frame)
    assert clips.frames.shape == (3, 5, 2) and clips.lengths.tolist() == [3, 5, 1]
    assert [int((clip != 0).all(1).sum()) for clip in clips.frames] == [3, 5, 1]
    batch = clips.batch(torch.arange(3))
    assert batch.labels.tolist() == [[_, _, 0, _, _], [_, _, _, _, 1], [0, _, _, _, _]]
    per_frame = Clips(ragged, [[0, 1, 0], [1] * 5, [0]], labelling=given)
    assert per_frame.batch(torch.arange(3)).labels.tolist() == [[0, 1, 0, _, _], [1] * 5, [0, _, _, _, _]]
    assert Clips([np.ones(3), np.ones(4)], [0, 1]).frames.shape == (2, 4, 1)
    assert Clips(np.array([np.ones(3), np.ones(4)], dtype=object), [0, 1]).lengths.tolist() == [3, 4]
    assert Clips([X[0], X[1]], [0, 1]).lengths is None
    mixed = Clips([np.ones((2, 3), np.uint8), np.full((2, 3), 0.5)], [0, 1])
    assert mixed.frames[:, 0, 0].tolist() == [1.0, 0.5]


_ = IGNORE


def test_frames_that_need_gradients_are_read_without_them():
    frames = X.clone().requires_grad_()
    assert Clips(frames, Y).fingerprint() == Clips(list(frames), Y).fingerprint() == Clips(X, Y).fingerprint()


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_bytes_in_one_part_and_floats_in_another_are_refused(part):
    """Sensor values that are whole numbers in one part only would be read as bytes there, and divided by 255."""
    parts = {name: Clips(X + i, Y) for i, name in enumerate(("train", "validation", "test"))}
    parts[part] = Clips(parts[part].frames.long(), Y)
    with pytest.raises(SeqclfError, match=f"mine.*{part} part.*float32"):
        Data(**parts, classes="ab", source="mine")


def test_one_feature_per_frame_needs_no_axis():
    assert torch.equal(Clips(X[..., 0], Y).frames, X[..., :1])


@pytest.mark.parametrize(
    ("frames", "labels", "keywords", "named"),
    [
        (torch.zeros(0, 5, 3), torch.zeros(0), {}, "empty"),
        ([], [], {}, "empty"),
        (torch.zeros(4, 0, 3), Y, {}, "empty"),
        ([1.0, 2.0], [0, 1], {}, "list of clips"),
        ([np.ones((3, 2)), np.ones((3, 4))], [0, 1], {}, r"clip 1 .*\(4,\).*\(2,\)"),
        ([np.ones((3, 2)), np.ones((0, 2))], [0, 1], {}, "clip 1 "),
        ([np.ones((3, 2)), np.ones((4, 2))], [0, 1], {"lengths": [3, 4]}, "lengths"),
        (X.long() - 1, Y, {}, "-1 to 58"),
        (X.long() + 200, Y, {}, "200 to 259"),
        (X.to(torch.complex64), Y, {}, "complex64"),
        (np.full((4, 5, 3), "a"), Y, {}, "numbers"),
        (X, ["cat", "dog", "cat", "dog"], {}, "labels.*numpy.unique"),
        (X, np.array(["cat", "dog", "cat", "dog"], dtype=object), {}, "labels.*numpy.unique"),
        (X, (label for label in Y), {}, "labels: .*generator"),
        (np.ma.masked_greater(X.numpy(), 5), Y, {}, "frames: .*masked"),
        (X, np.ma.masked_equal(Y.numpy(), 1), {}, "labels: .*masked"),
        (X[0, 0], Y, {}, r"frames \(3,\): expected \(N, T"),
        (X, Y, {"labelling": "every_frame"}, "labelling .*'every_frame'"),
        (X, Y, {"labelling": partial(labelling.last_frames, n="3")}, "n='3'"),
        (X, Y, {"groups": ["a", None, "b", "c"]}, "clip 1 has no group"),
        (X, Y, {"groups": np.array([1, 2, 3, np.nan])}, "clip 3 has no group"),
        (X, Y + 0.5, {}, "labels are not whole"),
        (X, Y[:3], {}, r"labels \(3,\)"),
        (X, torch.eye(4).long(), {}, r"labels \(4, 4\)"),
        ([X[0], X[1, :2]], [[0] * 5, [0] * 3], {"labelling": given}, r"clip 1 has 2 frames, but labels \(3,\)"),
        (X, Y, {"lengths": [5, 5, 0, 5]}, "clip 2 has length 0, expected 1 to 5"),
        (X, Y, {"lengths": [5, 6, 5, 5]}, "clip 1 has length 6"),
        (X, Y, {"lengths": [5.0] * 4}, "integers"),
        (X, Y, {"lengths": [5, 5]}, r"lengths \(2,\)"),
        (X, Y, {"labelling": given}, r"given.*\(4,\)"),
        (X, torch.zeros(4, 5).long(), {"labelling": last_frame}, r"last_frame.*\(4, 5\)"),
        (X, torch.zeros(4, 5).long(), {"labelling": every_frame}, r"every_frame.*\(4, 5\)"),
    ],
)
def test_clips_refuse_arrays_that_do_not_fit(frames, labels, keywords, named):
    with pytest.raises(SeqclfError, match=named):
        Clips(frames, labels, **keywords)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_named_by_clip_and_frame(value):
    frames = X.clone()
    frames[2, 3, 1] = value
    with pytest.raises(SeqclfError, match="clip 2, frame 3"):
        Clips(frames, Y)
    with pytest.raises(SeqclfError, match="clip 2, frame 3"):
        Clips(list(frames.double().numpy()), Y)
    Clips(torch.full_like(X, 3e38), Y)  # finite, though their sum is not


@pytest.mark.parametrize(
    ("labels", "classes", "named"),
    [
        (Y + 1, "ab", "train part: label 2 of sample 1.*subtract 1"),
        (Y - 1, "ab", "label -1 of sample 0"),
        (torch.full((4,), IGNORE), "ab", "IGNORE"),
        (Y, ["a", "a"], "'a' is named twice"),
        (Y, [], "classes= is empty"),
        (Y, 2, "classes=2"),
        (Y, {"a", "b"}, "classes={'.', '.'}"),
    ],
)
def test_labels_outside_the_classes_are_refused_before_training(labels, classes, named):
    clips = Clips(X, labels)
    with pytest.raises(SeqclfError, match=named):
        Data(train=clips, test=clips, classes=classes, source="mine")


@pytest.mark.parametrize("part", [None, (X, Y)])
def test_a_part_that_is_no_clips_is_refused(part):
    for name in ("train", "test"):
        with pytest.raises(SeqclfError, match=f"mine: {name}= is a {type(part).__name__}"):
            Data(**{"train": Clips(X, Y), "test": Clips(X, Y), name: part}, classes="ab", source=Path("mine"))


def test_a_labelling_that_labels_no_frame_is_refused():
    clips = Clips(X, torch.full((4, X.shape[1]), IGNORE).index_fill(1, torch.tensor([0]), 1), labelling=labelling.given)
    Data(clips, clips, "ab", "mine")
    clips.labelling = partial(labelling.last_frames, n=2)
    with pytest.raises(SeqclfError, match="train part: no frame has a label"):
        Data(clips, clips, "ab", "mine")


@pytest.mark.parametrize(
    ("settings", "background", "named"),
    [
        ({"labelling": labelling.given}, [2], "background=2: .*0 to 1"),
        ({"labelling": labelling.given}, [-1], "background=-1"),
        ({}, [0], "test part has one per clip"),
        ({"multi_label": True}, [0], "multi-label"),
    ],
)
def test_a_background_that_does_not_fit_the_labels_is_refused(settings, background, named):
    labels = torch.zeros(X.shape[:2], dtype=torch.int64) if "labelling" in settings else Y
    labels = torch.zeros(len(X), 2) if "multi_label" in settings else labels
    clips = Clips(X, labels, **settings)
    with pytest.raises(SeqclfError, match=named):
        Data(clips, clips, "ab", "mine", background=background)


@pytest.mark.parametrize("classes", [np.array(["1", "2"]), (1, 2), np.array([1, 2]), ["1", "2"], range(1, 3)])
def test_classes_may_be_any_sequence_and_become_strings(classes):
    clips = Clips(X, Y)
    assert Data(train=clips, test=clips, classes=classes, source="mine").classes == ["1", "2"]


def test_normalize_takes_a_mean_and_a_standard_deviation_per_feature():
    mean, std = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 1.0, 2.0])
    normalize = Normalize(mean.tolist(), std.tolist())
    assert torch.allclose(normalize(X), (X - mean) / std) and torch.allclose(normalize(X[0]), (X[0] - mean) / std)
    pictures = torch.rand(2, 3, 4, 3)
    assert torch.allclose(normalize(pictures), (pictures - mean.view(3, 1, 1)) / std.view(3, 1, 1))
    for wrong in (X[..., :2], pictures[:, :2]):
        with pytest.raises(SeqclfError, match="3 channels"):
            normalize(wrong)


def test_the_same_clips_in_training_and_in_test_are_warned_of():
    clips = Clips(torch.randn(4, 3, 2), torch.tensor([0, 1, 0, 1]))
    for same in (clips, Clips(clips.frames.clone(), clips.labels)):
        assert "train" in Data(clips, same, "ab", "toy").warning
    assert Data(clips.subset([0, 1]), clips.subset([2, 3]), "ab", "toy").warning is None
