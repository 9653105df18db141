"""Multi-label data: labels, loss, training, evaluation, prediction."""

import json
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given as given_cases
from hypothesis import settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

from seqclf import IGNORE, LSTM, Clips, Data, Experiment, FrameSequenceClassifier, SeqclfError, Video, Videos, train
from seqclf.batch import Batch
from seqclf.evaluation.multi_label import MultiLabelMetrics
from seqclf.labelling import every_frame, given, last_frame
from seqclf.losses import binary_cross_entropy, cross_entropy, steady_cross_entropy
from seqclf.prediction.frames import FramesInMemory

N, T, K = 6, 7, 3
FRAMES = torch.randn(N, T, 2, generator=torch.Generator().manual_seed(0))
BY_CLIP = torch.randint(0, 2, (N, K), generator=torch.Generator().manual_seed(1))
BY_FRAME = torch.randint(0, 2, (N, T, K), generator=torch.Generator().manual_seed(2))


def clips(labels, labelling=last_frame, frames=FRAMES, **keywords):
    return Clips(frames, labels, labelling=labelling, multi_label=True, **keywords)


def data(part, classes="abc"):
    return Data(part, part, list(classes), "made", allow_shared=True)


def test_a_class_name_with_the_separator_of_classes_is_refused():
    clips = Clips(torch.zeros(2, 3, 1), [[0, 1], [1, 1]], multi_label=True)
    with pytest.raises(SeqclfError, match=r"class 'a\|b'"):
        Data(clips, clips, ["a|b", "c"], "toy")
    one = Clips(torch.zeros(2, 3, 1), [0, 1])
    assert Data(one, one, ["a|b", "c"], "toy").classes == ["a|b", "c"]


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


LOGITS = torch.randn(N, T, K, generator=torch.Generator().manual_seed(3))
KNOWN = BY_FRAME.masked_fill(torch.rand(N, T, K, generator=torch.Generator().manual_seed(4)) < 0.4, IGNORE)


def test_the_loss_is_the_mean_over_known_labels():
    known = KNOWN != IGNORE
    for pos_weight in (None, 3.0, [0.5, 1.0, 20.0]):
        expected = F.binary_cross_entropy_with_logits(
            LOGITS,
            KNOWN.clamp(min=0).float(),
            weight=known.float(),
            pos_weight=None if pos_weight is None else torch.tensor(pos_weight).expand(K),
            reduction="sum",
        )
        found = binary_cross_entropy(LOGITS, KNOWN, pos_weight=pos_weight)
        assert torch.allclose(found, expected / known.sum(), rtol=1e-6)
        parts = [binary_cross_entropy(LOGITS[i::2], KNOWN[i::2], known.sum(), pos_weight) for i in (0, 1)]
        assert torch.allclose(sum(parts), found, rtol=1e-6)
    assert binary_cross_entropy(LOGITS, torch.full_like(KNOWN, IGNORE)) == 0


@pytest.mark.parametrize("value", [torch.inf, torch.nan, 1e30])
def test_unknown_labels_have_no_loss_and_no_gradient(value):
    logits = LOGITS.masked_fill(KNOWN == IGNORE, value).requires_grad_()
    loss = binary_cross_entropy(logits, KNOWN)
    loss.backward()
    assert torch.equal(loss.detach(), binary_cross_entropy(LOGITS, KNOWN))
    assert (logits.grad[KNOWN == IGNORE] == 0).all() and (logits.grad[KNOWN != IGNORE] != 0).all()


def experiment(part, loss=binary_cross_entropy, **keywords):
    return Experiment(
        data=data(part),
        model=partial(FrameSequenceClassifier, temporal=partial(LSTM, hidden=8)),
        optimizer=partial(torch.optim.Adam, lr=0.05),
        loss=loss,
        **{"steps": 40, "batch_size": 6, "log_every": 40, **keywords},
    )


@pytest.mark.parametrize(
    ("part", "loss", "match"),
    [
        (clips(BY_CLIP), cross_entropy, "loss=cross_entropy.*seqclf.losses.binary_cross_entropy"),
        (clips(BY_CLIP), partial(steady_cross_entropy, penalty=1), "loss=steady_cross_entropy.*binary_cross_entropy"),
        (Clips(FRAMES, BY_CLIP[:, 0]), binary_cross_entropy, r"loss=binary_cross_entropy.*losses.cross_entropy"),
        (clips(BY_CLIP), partial(binary_cross_entropy, pos_weight=[1, 2]), "setting loss: .* 2 .* 3 "),
        (clips(BY_CLIP), partial(binary_cross_entropy, pos_weight=-1), "setting loss: .*-1"),
        (clips(BY_CLIP), lambda logits: logits.sum(), r"setting loss: TypeError.*labels \(B, T, K\)"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused(tmp_path, part, loss, match):
    with pytest.raises(SeqclfError, match=match):
        train(experiment(part, loss), tmp_path / "run", "cpu")


@pytest.mark.parametrize("labels", ["clip", "frame"])
def test_training_learns_the_labels(tmp_path, labels):
    """Also in parts and in windows: their losses and gradients are those of the whole batch."""
    part = clips(BY_CLIP) if labels == "clip" else clips(KNOWN, given)
    results = train(experiment(part, steps=150), tmp_path / "run", "cpu")
    figures = results["parts"]["test"]
    assert figures["label_accuracy"] == 1 and figures["frame_map"] == 1 and figures["frame_micro_f1"] == 1
    assert figures["labels"] == int(((KNOWN if labels == "frame" else BY_CLIP) != IGNORE).sum())
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    line = [line for line in lines if line["part"] == "train"][-1]
    assert line["label_accuracy"] > 0.9 and "accuracy" not in line
    losses = []
    for keywords in ({}, {"accumulate": 3}, {"truncate": T - 1}):
        train(experiment(part, steps=1, log_every=1, **keywords), tmp_path / str(keywords), "cpu")
        losses.append(json.loads((tmp_path / str(keywords) / "metrics.jsonl").read_text().splitlines()[0]))
    assert np.allclose([x["loss"] for x in losses], losses[0]["loss"], rtol=1e-5)
    assert np.allclose(losses[1]["grad_norm"], losses[0]["grad_norm"], rtol=1e-4)


def random_case(seed, ties):
    """Scores ``(M, K)`` and labels with unknown entries; the last class has no positive."""
    g = torch.Generator().manual_seed(seed)
    scores = torch.rand(40, 4, generator=g)
    scores = (scores * 4).round().clamp(1, 3) / 4 if ties else scores
    labels = torch.randint(0, 2, (40, 4), generator=g).masked_fill(torch.rand(40, 4, generator=g) < 0.3, IGNORE)
    labels[:, 3] = labels[:, 3].clamp(max=0)
    return scores, labels


@pytest.mark.parametrize("ties", [False, True])
def test_metrics_equal_those_of_scikit_learn(ties):
    for seed in range(5):
        scores, labels = random_case(seed, ties)
        thresholds = [0.5, 0.25, 0.75, 0.5]
        metrics = MultiLabelMetrics(4, thresholds)
        for rows in torch.arange(40).split(7):  # one frame per clip: frames and clips have the same figures
            metrics.update(scores[rows, None].logit(), Batch(scores[rows, None], labels[rows, None]))
        found = metrics.result()
        p = scores.logit().sigmoid()
        aps, f1s = [], []
        for k in range(3):
            known = labels[:, k] != IGNORE
            aps.append(average_precision_score(labels[known, k], p[known, k]))
            f1s.append(f1_score(labels[known, k], p[known, k] >= thresholds[k]))
        known = labels != IGNORE
        predicted = p >= torch.tensor(thresholds)
        for over in ("frame", "clip"):
            assert np.allclose(found[f"{over}_class_ap"][:3], aps, rtol=1e-12)
            assert np.allclose(found[f"{over}_class_f1"][:3], f1s, rtol=1e-12)
            assert found[f"{over}_class_ap"][3] is None and found[f"{over}_class_f1"][3] is None
            assert np.allclose(found[f"{over}_macro_f1"], np.mean(f1s))
            assert np.allclose(found[f"{over}_micro_f1"], f1_score(labels[known], predicted[known]))
            assert found[f"{over}_positive_classes"] == 3
        assert np.allclose([found[f"{over}_map"] for over in ("frame", "clip_last", "clip_mean")], np.mean(aps))
        assert found["class_positives"] == (labels == 1).sum(0).tolist()
        assert np.allclose(found["label_accuracy"], (predicted[known] == labels[known].bool()).double().mean())
        assert np.allclose(found["loss"], float(binary_cross_entropy(scores[:, None].logit(), labels[:, None])))


@pytest.mark.parametrize("decision", ["last", "mean"])
@settings(max_examples=12, deadline=None, derandomize=True, database=None)
@given_cases(
    st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.sampled_from([0, 0.4, 0.9]), st.integers(0, 99)
)
def test_frames_and_clips_of_any_length_have_the_metrics_of_scikit_learn(decision, B, frames, classes, unknown, seed):
    """With padding, unknown labels, and clips whose frames differ, which have no label of the clip."""
    g = torch.Generator().manual_seed(seed)
    logits, lengths = torch.randn(B, frames, classes, generator=g), torch.randint(1, frames + 1, (B,), generator=g)
    labels = torch.randint(0, 2, (B, 1 if seed % 2 else frames, classes), generator=g).expand(-1, frames, -1).clone()
    labels[torch.rand(labels.shape, generator=g) < unknown] = IGNORE
    labels[torch.arange(frames) >= lengths[:, None]] = IGNORE
    metrics = MultiLabelMetrics(classes, decision=decision)
    metrics.update(logits, Batch(logits, labels, lengths))
    found, p, pairs = metrics.result(), logits.sigmoid(), {"frame": [], "clip": []}
    for b, n in enumerate(lengths.tolist()):
        pairs["frame"] += [(labels[b, t], p[b, t]) for t in range(n)]
        sets = [{*labels[b, :n, k].tolist()} - {IGNORE} for k in range(classes)]
        if max(map(len, sets)) == 1:
            truth = torch.tensor([min(one, default=IGNORE) for one in sets])
            pairs["clip"].append((truth, p[b, n - 1] if decision == "last" else p[b, :n].mean(0)))
    for over, rows in pairs.items():
        for k in range(classes):
            y, score = np.array([(y[k], s[k]) for y, s in rows if y[k] != IGNORE]).reshape(-1, 2).T
            expected = [average_precision_score(y, score), f1_score(y, score >= 0.5)] if y.any() else [None, None]
            assert [found[f"{over}_class_{name}"][k] for name in ("ap", "f1")] == pytest.approx(expected, abs=1e-6)


def test_clips_are_counted_by_their_last_frame_and_by_the_mean():
    labels = every_frame(torch.tensor([1, 0]), torch.tensor([2, 3]), 3)[..., None]
    logits = torch.tensor([[2.0, -1.0, 9.0], [-3.0, 1.0, -0.5]])[..., None]  # 9 is padding
    batch = Batch(logits, labels, torch.tensor([2, 3]), indices=torch.tensor([8, 9]))
    for decision, f1, wrong in (("last", 0, [[8, [0], []]]), ("mean", 1, [])):
        metrics = MultiLabelMetrics(1, decision=decision)
        metrics.update(logits, batch)
        found = metrics.result()
        assert found["clip_micro_f1"] == f1
        assert [row[:3] for row in found["most_wrong"]] == wrong
    assert (found["frames"], found["clips"], found["labels"]) == (5, 2, 5)
    assert (found["clip_last_map"], found["clip_mean_map"]) == (0.5, 1)
    mixed = labels.clone()
    mixed[1, 0] = 1 - mixed[1, 0]  # its frames differ: no label of the clip
    metrics = MultiLabelMetrics(1)
    metrics.update(logits, Batch(logits, mixed, torch.tensor([2, 3])))
    assert (metrics.result()["clips"], metrics.result()["mixed_clips"]) == (1, 1)


def test_metrics_without_positives_are_none():
    metrics = MultiLabelMetrics(K)
    metrics.update(LOGITS, Batch(LOGITS, torch.zeros_like(BY_FRAME)))
    found = metrics.result()
    assert found["frame_map"] is None and found["frame_micro_f1"] is None and found["frame_positive_classes"] == 0
    empty = MultiLabelMetrics(K)
    empty.update(LOGITS, Batch(LOGITS, torch.full_like(BY_FRAME, IGNORE)))
    assert empty.result()["loss"] is None and empty.result()["frames"] == 0


@pytest.mark.parametrize("threshold", [-0.1, 1.5, [0.5, 0.5], float("nan"), "0.5", [0.1, "b", 0.2], None])
def test_thresholds_out_of_range_are_refused(threshold):
    with pytest.raises(SeqclfError, match="threshold="):
        MultiLabelMetrics(K, threshold)


@pytest.mark.parametrize("kind", [float, np.float32, np.array, torch.tensor])
def test_a_threshold_is_any_number(kind):
    assert MultiLabelMetrics(K, kind(0.25)).threshold.tolist() == [0.25] * K
