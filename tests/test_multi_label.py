"""Multi-label data: labels, loss, training, evaluation, prediction."""

import numpy as np
import pytest
import torch

from seqclf import IGNORE, Clips, Data, SeqclfError, Video, Videos
from seqclf.labelling import every_frame, given, last_frame
from seqclf.prediction.frames import FramesInMemory

N, T, K = 6, 7, 3
FRAMES = torch.randn(N, T, 2, generator=torch.Generator().manual_seed(0))
BY_CLIP = torch.randint(0, 2, (N, K), generator=torch.Generator().manual_seed(1))
BY_FRAME = torch.randint(0, 2, (N, T, K), generator=torch.Generator().manual_seed(2))


def clips(labels, labelling=last_frame, frames=FRAMES, **keywords):
    return Clips(frames, labels, labelling=labelling, multi_label=True, **keywords)


def data(part, classes="abc"):
    return Data(part, part, list(classes), "made")


def test_labels_of_clips_are_those_of_each_class_on_its_own():
    lengths = torch.tensor([7, 1, 3, 7, 2, 5])
    rows = torch.tensor([4, 0, 2])
    for labelling, labels in ((last_frame, BY_CLIP), (every_frame, BY_CLIP), (given, BY_FRAME)):
        batch = clips(labels, labelling, lengths=lengths).batch(rows)
        assert batch.labels.shape == (3, T, K) and batch.labels.dtype == torch.int64
        for k in range(K):
            alone = Clips(FRAMES, labels[..., k], lengths, labelling).batch(rows)
            assert torch.equal(batch.labels[..., k], alone.labels)


@pytest.mark.parametrize("kind", [float, bool, np.float32, list, "nan"])
def test_labels_of_all_kinds_become_0_1_and_ignore(kind):
    expected, labels = BY_CLIP, BY_CLIP
    if kind == "nan":
        expected = BY_CLIP.index_fill(1, torch.tensor(1), IGNORE)
        labels = expected.double().where(expected != IGNORE, torch.nan)
    elif kind is list:
        labels = BY_CLIP.tolist()
    else:
        labels = BY_CLIP.numpy().astype(kind)
    assert torch.equal(clips(labels).labels, expected)


def test_a_list_of_clips_takes_labels_of_each_length():
    frames, labels = [torch.randn(t, 2) for t in (3, 5)], [np.full((t, K), np.nan) for t in (3, 5)]
    labels[0][1] = labels[1][4] = 1.0
    found = clips(labels, given, frames).batch(torch.tensor([0, 1])).labels
    assert (found == 1).nonzero()[:, :2].unique(dim=0).tolist() == [[0, 1], [1, 4]]
    assert (found[found != 1] == IGNORE).all()


def test_videos_collate_rows_of_classes():
    lengths = (3, 5)
    sources = [FramesInMemory(torch.randn(t, 2)) for t in lengths]
    by_clip = Videos(
        [Video(f"v{i}", s, BY_CLIP[i]) for i, s in enumerate(sources)],
        workers=0,
        multi_label=True,
        labelling=last_frame,
    )
    labels = by_clip.batch(torch.tensor([0, 1])).labels
    assert torch.equal(labels[0, 2], BY_CLIP[0]) and torch.equal(labels[1, 4], BY_CLIP[1])
    assert (labels != IGNORE).sum() == 2 * K
    assert data(by_clip).decision_rule() == "last"
    by_frame = Videos(
        [Video(f"v{i}", s, BY_FRAME[i, :t]) for i, (s, t) in enumerate(zip(sources, lengths, strict=True))],
        workers=0,
        multi_label=True,
    )
    labels = by_frame.batch(torch.tensor([0, 1])).labels
    assert torch.equal(labels[0, :3], BY_FRAME[0, :3]) and torch.equal(labels[1], BY_FRAME[1, :5])
    assert (labels[0, 3:] == IGNORE).all()
    assert data(by_frame).decision_rule() == "mean" and data(by_frame).input_spec().multi_label


def test_the_decision_follows_the_labelling():
    assert data(clips(BY_CLIP)).decision_rule() == "last"
    assert data(clips(BY_CLIP, every_frame)).decision_rule() == "mean"
    assert data(clips(BY_FRAME, given)).decision_rule() == "mean"


def wrong(*at, value=5, labels=BY_FRAME):
    labels = labels.clone()
    labels[at] = value
    return labels


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Clips(FRAMES, BY_CLIP), "multi_label=True"),
        (lambda: Clips(FRAMES, BY_FRAME), "multi_label=True"),
        (lambda: Clips(FRAMES[:, :K], BY_CLIP), "multi_label=True"),  # (N, K) is (N, T)
        (lambda: clips(wrong(2, 1, labels=BY_CLIP)), "clip 2, class 1.* 5"),
        (lambda: clips(wrong(2, 4, 1, value=-1), given), "clip 2, frame 4, class 1.* -1"),
        (lambda: clips(wrong(2, 1, value=0.5, labels=BY_CLIP.double())), "clip 2, class 1.*0.5"),
        (lambda: clips([*BY_FRAME[:5], wrong(2, 1)[2]], given, list(FRAMES)), "clip 5, frame 1, class 0.* 5"),
        (lambda: clips([*BY_FRAME[:5], BY_FRAME[5, :3]], given, list(FRAMES)), r"clip 5.*\(7, 3\).*\(3, 3\)"),
        (lambda: clips(BY_FRAME[:5].unbind(), given, list(FRAMES)), "clip 5"),
        (lambda: clips(BY_CLIP[:5]), r"\(5, 3\).*\(6, K\)"),
        (lambda: clips(BY_CLIP[:, 0]), r"\(6,\).*\(6, K\)"),
        (lambda: clips(BY_FRAME), r"last_frame.*\(6, 7\).*given"),
        (lambda: clips(BY_CLIP, given), r"given.*\(6,\).*last_frame"),
        (lambda: data(clips(BY_CLIP), "ab"), "made, train part.* 3 .* 2 classes"),
        (lambda: data(clips(torch.full((N, K), IGNORE))), "made, train part.*IGNORE"),
        (lambda: Data(clips(BY_CLIP), Clips(FRAMES, BY_CLIP[:, 0]), "abc", "made"), "made.*multi_label.*test"),
        (lambda: Data(clips(BY_CLIP), clips(BY_CLIP), "abc", "made", background=()), "made.*background"),
        (lambda: Videos([Video("v", FramesInMemory(FRAMES[0]), 1)], multi_label=True), "v: .*multi_label"),
        (lambda: Videos([Video("v", FramesInMemory(FRAMES[0]), BY_FRAME[0])]), "v: .*multi_label"),
        (
            lambda: data(Videos([Video("v", FramesInMemory(FRAMES[0]), torch.tensor([0, 1, 4]))], multi_label=True)),
            "label 4 of v",
        ),
        (
            lambda: data(Videos([Video("v", FramesInMemory(FRAMES[0]), torch.full((K,), IGNORE))], multi_label=True)),
            "made, train part.*IGNORE",
        ),
    ],
)
def test_labels_that_do_not_fit_are_refused(make, match):
    with pytest.raises(SeqclfError, match=match):
        make()
